"""Rows as callers give them, checked, on their way into a store."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from numbers import Integral, Number
from typing import Any, TypeAlias, cast

import numpy as np

from late_interaction.encoders.base import Item
from late_interaction.images.loading import ImageSource, LazyImage, NamedImage
from late_interaction.images.storing import IMAGE_KEY, image_reference
from late_interaction.metadata import check_metadata, dumps, plain_value
from late_interaction.options import IdsOf
from late_interaction.types import DocId, Document, FloatMatrix
from late_interaction.validation import check_unicode, is_blank, shown

RESERVED = ("content", "doc_id", "content_type", "image")
CONTENT_TYPES = ("text", "image")

_NAMED = 20
_NO_ID = "no id yet"
_IDS = uuid.UUID("0c6a1f0e-8f3b-5d0a-9a37-3d1f6f2f7c55")
"""The namespace of ids that are made of a row's content."""


@dataclass(frozen=True, slots=True)
class Encodable:
    """A row whose encoded text or image differs from what is stored; its metadata may have any name.

    Adapters index rows of this type: a framework's own record says what to encode and what to keep.

    Attributes:
        document: what to store. With an `image` its content may be "", and is then the image's path or size.
        image: encode this image, as in a row's "image". What is stored of it is added to the metadata.
        text: encode this text in place of the document's content, and in place of the image, which is then only stored.
    """

    document: Document
    image: ImageSource | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that an adapter cannot translate. It fails with this reason, like any other bad row of the call."""

    doc_id: str
    reason: str


Row: TypeAlias = Mapping[str, Any] | Document | Encodable | BadRow


@dataclass(slots=True)
class Pending:
    """A row on its way into a store. Its fields fill up: checked, then loaded, then encoded.

    Attributes:
        number: its position in the call.
        document: what is stored; its content and metadata are completed when its image is read.
        image: where to read the image from that is encoded; None for a text.
        has_pending_image: what is stored of the image is not in the document yet (see `complete`).
        item: what to encode: the text, or the image once it is read; None once it is not needed.
        matrix: (n_tokens, dim) float32, once there is one.
        unread: how much of it the model did not read, as `unread_shares` says.
        before: the row of the same id that it replaces, in the same batch.
    """

    number: int
    document: Document
    image: ImageSource | None = None
    has_pending_image: bool = False
    item: Item | None = None
    matrix: FloatMatrix | None = None
    unread: float | None = 0.0
    before: Pending | None = None

    @property
    def is_blank(self) -> bool:
        """Whether it is a text that has nothing to encode."""
        return isinstance(self.item, str) and is_blank(self.item)

    def complete(self, stored: Mapping[str, Any], description: str) -> None:
        """Add what is stored of the image, and a content where the row gave none."""
        document = self.document
        content = description if is_blank(document.content) else document.content
        self.document = replace(document, content=content, metadata={**stored, **document.metadata})
        self.has_pending_image = False


def check_row(row: Row, number: int = 0, ids: IdsOf = "random") -> Pending:
    """Check a row, a `Document` or an `Encodable`.

    A row is `{"content": str, "image"?: PIL image | path | bytes | str, "doc_id"?: str | UUID | int, …metadata}`.
    Without `doc_id` it gets one by `ids` (see `RowOptions`). With `image` the content may be missing, and the image is
    encoded; one that is None, or NaN or NA as a DataFrame has it, is none. Every other key is metadata, whose values
    take their plain form (see `late_interaction.metadata`). A content that is blank is stored, and no search finds it.

    A `Document` may have metadata of any name, and is stored unchanged. One of content type "image" is encoded by
    what its metadata have under "image" (a path, a URL or a data URI, as `store_images` leaves them there), or else by
    its content, which is then a path or URL.

    Raises:
        ValueError, TypeError: what is wrong with the row.
    """
    if isinstance(row, Document):
        document = _check(row.doc_id, row.content, row.content_type, row.metadata, row.mark)
        if document.content_type != "image":
            return Pending(number, document, item=document.content)
        image = document.metadata.get(IMAGE_KEY)
        if not isinstance(image, str) and is_blank(document.content):
            raise ValueError("it is of content type 'image', and there is no path or URL in it.")
        return Pending(number, document, image if isinstance(image, str) else document.content)
    if isinstance(row, Encodable):
        return _check_encodable(row, number)
    if isinstance(row, BadRow):
        raise ValueError(row.reason)  # noqa: TRY004 - not of its type
    if not isinstance(row, Mapping):
        raise TypeError(f"a row is a mapping with a 'content', or a Document, not a {type(row).__name__}.")
    image = None if _is_missing(row.get("image")) else _check_image(row["image"])
    if "content" not in row and image is None:
        raise ValueError(f"there is no 'content' and no 'image'; the row has {_names(row)}.")
    content_type = row.get("content_type", "text" if image is None else "image")
    if image is not None and not (isinstance(content_type, str) and content_type == "image"):
        raise ValueError(f"'content_type' is {shown(content_type)}, and the row has an 'image'.")
    document = _check(
        row.get("doc_id", _NO_ID),
        row.get("content"),
        content_type,
        {key: value for key, value in row.items() if key not in RESERVED},
        content_optional=image is not None and _is_missing(row.get("content")),
    )
    if "doc_id" not in row:
        made = (
            content_id(document.content, document.metadata, image) if ids == "content" else str(uuid.uuid4())
        )
        document = replace(document, doc_id=made)
    item = document.content if document.content_type == "text" else None
    return Pending(number, document, image, image is not None, item)


def _check_encodable(row: Encodable, number: int) -> Pending:
    given = row.document
    if row.image is None:
        text = given.content if row.text is None else _check_content(row.text, "text")
        if is_blank(text) and not is_blank(given.content):
            raise ValueError("its 'text' is empty or only white space, and its content is not.")
        document = _check(given.doc_id, given.content, given.content_type, given.metadata, given.mark)
        return Pending(number, document, item=text)
    item = None if row.text is None else _check_content(row.text, "text")
    if item is not None and is_blank(item):
        raise ValueError("its 'text' is empty or only white space, and its image is not to be encoded.")
    document = _check(
        given.doc_id, given.content, "image", given.metadata, given.mark, content_optional=given.content == ""
    )
    return Pending(number, document, _check_image(row.image), has_pending_image=True, item=item)


def _is_missing(value: object) -> bool:
    """Return whether it is None, or NaN, NaT or NA, as pandas writes what is not there."""
    may_be_nan = isinstance(value, Number | dt.datetime | np.datetime64)
    return value is None or (may_be_nan and value != value) or type(value).__name__ == "NAType"


def _check_image(image: Any) -> ImageSource:
    """Check that an image is of a type that can be read."""
    source = image.source if isinstance(image, NamedImage) else image
    is_of_pillow = callable(getattr(source, "convert", None))
    if not (
        is_of_pillow or isinstance(source, str | bytes | bytearray | memoryview | os.PathLike | LazyImage)
    ):
        raise TypeError(
            f"an image is a PIL image, a path, bytes, base64, a data URI or a URL, not a {type(source).__name__}."
        )
    return cast("ImageSource", image)


def as_row(item: str | Row) -> Row:
    """Return a text as the row that has it as its content; a row as it is."""
    return {"content": item} if isinstance(item, str) else item


def content_id(content: str, metadata: Mapping[str, Any], image: ImageSource | None = None) -> str:
    """Return an id made of what a row says, a UUID of version 5: the same row has the same id in every run.

    >>> content_id("an apple", {"page": 1}) == content_id("an apple", {"page": 1})
    True

    Args:
        content: its text.
        metadata: as for `check_metadata`.
        image: its image; by its path or URL where it has one, otherwise by its bytes or pixels.

    Raises:
        ValueError, TypeError: the metadata cannot be stored.
    """
    values = dumps(check_metadata(metadata), sort_keys=True)
    parts = [content, values] if image is None else [content, values, _image_name(image)]
    return str(uuid.uuid5(_IDS, json.dumps(parts)))


def _image_name(image: ImageSource) -> str:
    if (reference := image_reference(image)) is not None:
        return str(reference)
    if isinstance(image, str):
        return image
    data = image.tobytes() if hasattr(image, "tobytes") else image
    return hashlib.sha256(data).hexdigest()  # type: ignore[arg-type]


def row_text(row: object) -> str:
    """Return the text of a row that may not be checked yet, "" where it has none."""
    if isinstance(row, Encodable):
        text: object = row.text or row.document.content
    elif isinstance(row, Document):
        text = row.content
    else:
        text = row.get("content") if isinstance(row, Mapping) else None
    return text if isinstance(text, str) else ""


def row_id(row: object) -> str | None:
    """Return a row's id as far as it has one, for messages."""
    if isinstance(row, Encodable):
        row = row.document
    doc_id = (
        row.doc_id
        if isinstance(row, Document | BadRow)
        else row.get("doc_id")
        if isinstance(row, Mapping)
        else None
    )
    if doc_id is None or isinstance(doc_id, str):
        return doc_id
    try:
        return check_doc_id(doc_id)
    except (TypeError, ValueError):
        return shown(doc_id)


def _check(
    doc_id: object,
    content: object,
    content_type: object,
    metadata: Mapping[str, Any],
    mark: Mapping[str, Any] | None = None,
    *,
    content_optional: bool = False,
) -> Document:
    content = "" if content_optional else _check_content(content, "content")
    if not isinstance(content_type, str) or content_type not in CONTENT_TYPES:
        raise ValueError(f"'content_type' is one of {', '.join(CONTENT_TYPES)}, not {shown(content_type)}.")
    return Document(check_doc_id(doc_id), content, str(content_type), check_metadata(metadata), mark)


def _check_content(content: object, name: str) -> str:
    if not isinstance(content, str):
        raise TypeError(f"{name!r} is a {type(content).__name__}, not a str.")
    return check_unicode(content, name)


def check_doc_id(doc_id: object) -> str:
    """Return a document's id as a str: a UUID or a whole number as Python writes it.

    Raises:
        TypeError: it is no str, UUID or whole number.
        ValueError: it is empty, or not valid Unicode.
    """
    if isinstance(doc_id, bool) or not isinstance(doc_id, str | uuid.UUID | Integral):
        raise TypeError(
            f"a doc_id is a str, a uuid.UUID or an int, not {type(doc_id).__name__} ({shown(doc_id)})."
        )
    text = str(plain_value(doc_id))
    if not text:
        raise ValueError("a doc_id must not be empty.")
    return check_unicode(text, "doc_id")


def check_doc_ids(doc_ids: Iterable[DocId]) -> list[str]:
    """Return documents' ids as strs.

    Raises:
        TypeError: it is a bare str or not a collection, or an id is no str, UUID or whole number.
        ValueError: an id is empty, or not valid Unicode.
    """
    if isinstance(doc_ids, str):
        raise TypeError(f"pass a list of ids, not a bare str: [{shown(doc_ids)}].")
    if not isinstance(doc_ids, Iterable) or isinstance(doc_ids, Mapping):
        raise TypeError(f"pass a list of ids, not {shown(doc_ids)}.")
    return [check_doc_id(doc_id) for doc_id in doc_ids]


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(shown(key) for key in islice(row, _NAMED)) or "no key at all"
