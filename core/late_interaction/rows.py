"""A user's row, checked, as a document."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from late_interaction.images.loading import ImageSource
from late_interaction.images.storing import IMAGE_KEY
from late_interaction.types import Document

RESERVED = ("content", "doc_id", "content_type", "image")
CONTENT_TYPES = ("text", "image")


@dataclass(frozen=True, slots=True)
class ImageDocument:
    """A row of an image for those whose metadata may have any name, such as the adapters to frameworks.

    Attributes:
        document: what is stored, with the content "" where there is no caption. What is stored of the image is added
            to its metadata.
        image: the image, as in a row's "image".
    """

    document: Document
    image: ImageSource


Row: TypeAlias = Mapping[str, Any] | Document | ImageDocument


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A row as a document, and its image where it has one.

    Attributes:
        document: what is stored; of an image row with `unstored`, what the row says of it.
        image: what to encode in place of the document's content.
        unstored: the document does not have its image, nor perhaps a content, yet: see `with_image`.
    """

    document: Document
    image: ImageSource | None = None
    unstored: bool = False

    def with_image(self, metadata: Mapping[str, Any], description: str) -> Document:
        """The document with what is stored of its image, and a content where the row gave none."""
        document = self.document
        return replace(
            document, content=document.content or description, metadata={**metadata, **document.metadata}
        )


def check_row(row: Row) -> CheckedRow:
    """Check a row, a `Document` or an `ImageDocument`.

    A row is `{"content": str, "image"?: PIL image | path | bytes | str, "doc_id"?: str | UUID, …metadata}`. Without
    `doc_id` it gets a random one. With `image` the content may be missing, and the image is what is encoded. Every
    other key is metadata and must hold JSON values, which keep their types (a tuple comes back as a list).

    A `Document` may have metadata of any name, and is stored as it is. One of content type "image" is encoded by
    what its metadata have under "image" (a path, a URL or a data URI, as `store_images` leaves them there), or else by
    its content, which is then a path or URL.

    Raises:
        ValueError, TypeError: what is wrong with the row.
    """
    if isinstance(row, Document):
        document = _check(row.doc_id, row.content, row.content_type, row.metadata)
        if document.content_type != "image":
            return CheckedRow(document)
        image = document.metadata.get(IMAGE_KEY)
        return CheckedRow(document, image if isinstance(image, str) else document.content)
    if isinstance(row, ImageDocument):
        given = row.document
        document = _check(
            given.doc_id, given.content, "image", given.metadata, content_to_come=given.content == ""
        )
        return CheckedRow(document, row.image, unstored=True)
    if not isinstance(row, Mapping):
        raise TypeError(f"a row is a mapping with a 'content', or a Document, not a {type(row).__name__}.")
    image = row.get("image")
    if "content" not in row and image is None:
        raise ValueError(f"there is no 'content' and no 'image'; the row has {_names(row)}.")
    content_type = row.get("content_type", "text" if image is None else "image")
    if image is not None and content_type != "image":
        raise ValueError(f"'content_type' is {content_type!r}, and the row has an 'image'.")
    document = _check(
        row.get("doc_id", uuid.uuid4()),
        row.get("content"),
        content_type,
        {key: value for key, value in row.items() if key not in RESERVED},
        content_to_come=image is not None and row.get("content") is None,
    )
    return CheckedRow(document, image, unstored=image is not None)


def row_id(row: object) -> str | None:
    """A row's id as far as it has one, for messages."""
    if isinstance(row, ImageDocument):
        row = row.document
    doc_id = (
        row.doc_id if isinstance(row, Document) else row.get("doc_id") if isinstance(row, Mapping) else None
    )
    return None if doc_id is None else str(doc_id)


def _check(
    doc_id: object,
    content: object,
    content_type: object,
    metadata: Mapping[str, Any],
    *,
    content_to_come: bool = False,
) -> Document:
    if content_to_come:
        content = ""
    elif not isinstance(content, str):
        raise TypeError(f"'content' is a {type(content).__name__}, not a str.")
    elif not content.strip():
        raise ValueError("'content' is empty or only white space.")
    if content_type not in CONTENT_TYPES:
        raise ValueError(f"'content_type' is one of {', '.join(CONTENT_TYPES)}, not {content_type!r}.")
    return Document(
        check_doc_id(doc_id),
        _check_unicode(content, "content"),
        str(content_type),
        check_metadata(metadata),
    )


def check_doc_id(doc_id: object) -> str:
    """A document's id as a str.

    Raises:
        TypeError: it is neither a str nor a UUID.
        ValueError: it is empty.
    """
    if isinstance(doc_id, uuid.UUID):
        return str(doc_id)
    if not isinstance(doc_id, str):
        raise TypeError(f"a doc_id is a str or a uuid.UUID, not {type(doc_id).__name__} ({doc_id!r:.40}).")
    if not doc_id:
        raise ValueError("a doc_id must not be empty.")
    return _check_unicode(doc_id, "doc_id")


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of metadata that hold only JSON values.

    Raises:
        TypeError: a key is no str.
        ValueError: a key holds a NUL character, or a value is no JSON value (NaN and infinity are none).
    """
    try:
        for key, value in metadata.items():
            _check_json(value, _check_key(key))
        copy: dict[str, Any] = json.loads(json.dumps(dict(metadata)))
    except RecursionError:
        raise ValueError("metadata nest too deep, or hold themselves.") from None
    return copy


def _check_json(value: object, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check_json(item, f"{path}.{_check_key(key)}")
    elif isinstance(value, list | tuple):
        for position, item in enumerate(value):
            _check_json(item, f"{path}[{position}]")
    elif isinstance(value, float):
        if not abs(value) < float("inf"):
            raise ValueError(f"metadata {path!r} is {value!r}, which JSON cannot hold.")
    elif value is not None and type(value) not in (str, int, bool):
        raise ValueError(
            f"metadata {path!r} is a {type(value).__name__}, which JSON cannot hold; "
            "use a str (a date as .isoformat()), a number, a bool, None, a list or a dict."
        )


def _check_key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"metadata keys are str, not {type(key).__name__} ({key!r:.40}).")
    if "\0" in key:
        raise ValueError(f"metadata key {key!r} holds a NUL character.")
    return key


def _check_unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half of a surrogate pair at position {error.start}.") from None
    return text


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "no key at all"
