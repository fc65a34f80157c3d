"""A user's row, checked, as a document."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, TypeAlias

from late_interaction.types import Document

Row: TypeAlias = Mapping[str, Any] | Document

RESERVED = ("content", "doc_id", "content_type")
CONTENT_TYPES = ("text", "image")


def document_from_row(row: Row) -> Document:
    """Check a row `{"content": str, "doc_id"?: str | UUID, "content_type"?: str, …metadata}`, or a `Document`.

    A row without `doc_id` gets a random one. Every other key is metadata and must hold JSON values, which keep
    their types (a tuple comes back as a list). A `Document` may have metadata of any name.

    Raises:
        ValueError, TypeError: what is wrong with the row.
    """
    if isinstance(row, Document):
        return _check(row.doc_id, row.content, row.content_type, row.metadata)
    if not isinstance(row, Mapping):
        raise TypeError(f"a row is a mapping with a 'content', or a Document, not a {type(row).__name__}.")
    if "content" not in row:
        raise ValueError(f"there is no 'content'; the row has {_names(row)}.")
    return _check(
        row.get("doc_id", uuid.uuid4()),
        row["content"],
        row.get("content_type", "text"),
        {key: value for key, value in row.items() if key not in RESERVED},
    )


def row_id(row: object) -> str | None:
    """A row's id as far as it has one, for messages."""
    doc_id = (
        row.doc_id if isinstance(row, Document) else row.get("doc_id") if isinstance(row, Mapping) else None
    )
    return None if doc_id is None else str(doc_id)


def _check(doc_id: object, content: object, content_type: object, metadata: Mapping[str, Any]) -> Document:
    if not isinstance(content, str):
        raise TypeError(f"'content' is a {type(content).__name__}, not a str.")
    if not content.strip():
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
        ValueError: a value is no JSON value (NaN and infinity are none).
    """
    for key, value in metadata.items():
        _check_json(value, _check_key(key))
    copy: dict[str, Any] = json.loads(json.dumps(dict(metadata)))
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
    return key


def _check_unicode(text: str, name: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half of a surrogate pair at position {error.start}.") from None
    return text


def _names(row: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, row)) or "no key at all"
