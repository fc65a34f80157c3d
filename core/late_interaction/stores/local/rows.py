"""Rows of the embedded store, from documents: what is written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from late_interaction.errors import RowFailure
from late_interaction.metadata import with_mark
from late_interaction.packing import pack
from late_interaction.stores.local.filters import to_json
from late_interaction.types import EncodedDocument, IndexSpec
from late_interaction.validation import check_encoded, check_unicode

Row = tuple[tuple[str, str, str, str, int], bytes]
"""The columns of a document with its number of tokens, and its packed matrix: what `insert` takes."""


def prepare(documents: Sequence[EncodedDocument], spec: IndexSpec) -> tuple[list[Row], list[RowFailure]]:
    """Check documents and make their rows; return with them those whose texts or metadata cannot be stored.

    Raises:
        TypeError, ValueError: a matrix is not one of unit vectors, or an id is given twice.
    """
    rows: list[Row] = []
    failures: list[RowFailure] = []
    for number, encoded in enumerate(check_encoded(documents, spec.dim)):
        document = encoded.document
        try:
            for name in ("doc_id", "content", "content_type"):
                check_unicode(getattr(document, name), name)
            metadata = metadata_to_json(with_mark(document.metadata, document.mark))
        except ValueError as error:
            failures.append(RowFailure(number, document.doc_id, str(error)))
            continue
        texts = (document.doc_id, document.content, document.content_type, metadata)
        rows.append(((*texts, len(encoded.matrix)), pack(encoded.matrix, spec.packing)))
    return rows, failures


def metadata_to_json(metadata: dict[str, Any]) -> str:
    """Return metadata as the column holds them.

    Raises:
        ValueError: they cannot be stored as JSON.
    """
    try:
        return to_json(metadata)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the metadata cannot be stored as JSON: {error}") from None
