"""Documents as rows of the two tables, in requests of a size that the service takes.

A row of the docs table may carry a *revision*: what `update_metadata` has made of the document since it was written.
It is one cell, so it changes as a whole, and it names the version it belongs to:

    {"of": generation of the row, "tokens": version of the token rows, "metadata": all of the metadata}

If the row's `generation` is not `of`, a newer version has been written since, and the revision means nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from late_interaction.errors import StoreError
from late_interaction.metadata import dumps, loads, with_mark, without_mark
from late_interaction.packing import pack, unpack
from late_interaction.stores.astra.client import Row
from late_interaction.stores.astra.limits import DOCUMENT_BYTES, ID_BYTES, InsertSizes, Limits
from late_interaction.stores.astra.schema import Field
from late_interaction.types import Document, EncodedDocument, FloatMatrix, PackingDtype

VERSION = ("doc_id", "n_tokens", "generation", "revision")
"""The columns that tell which version of a document the index holds."""
_MAY_BE_NULL = ("revision", "document_vector", "reduction", "vector_of", "words", "n_words")
DOCUMENT = ("doc_id", "content", "content_type", "metadata", "generation", "revision")
"""The columns of a `Document`."""


@dataclass(frozen=True, slots=True)
class PreparedDocument:
    """A document ready to be written.

    Attributes:
        doc_id: its id.
        generation: the version of its token rows, and of the whole document unless this is a revision of it.
        row: its row of the docs table.
        vectors: (n_tokens, dim) float32, what the packed matrix unpacks to.
        cells: columns of declared fields, the same in both tables.
        size: bytes of the row, about.
    """

    doc_id: str
    generation: int
    row: Row
    vectors: FloatMatrix
    cells: Row
    size: int = 0

    def token_row(self, token_id: int) -> Row:
        """Return one row of the tokens table."""
        return {
            "doc_id": self.doc_id,
            "generation": self.generation,
            "token_id": token_id,
            "token_embedding": binary_vector(self.vectors[token_id]),
            **self.cells,
        }


def prepare_all(
    documents: Sequence[EncodedDocument],
    packing: PackingDtype,
    first_generation: int,
    fields: Mapping[str, Field],
    refused: dict[str, str],
    words: Sequence[Row] | None = None,
) -> list[PreparedDocument]:
    """Prepare the documents that can be written; the reasons of the others go into `refused`, by id.

    `words` are the cells of each document for an index of words, where there is one.
    """
    prepared = []
    for position, encoded in enumerate(documents):
        try:
            prepared.append(
                prepare(
                    encoded,
                    packing,
                    first_generation + position,
                    fields,
                    None if words is None else words[position],
                )
            )
        except ValueError as error:
            refused[encoded.document.doc_id] = str(error)
    return prepared


def prepare(
    encoded: EncodedDocument,
    packing: PackingDtype,
    generation: int,
    fields: Mapping[str, Field],
    words: Row | None = None,
) -> PreparedDocument:
    """Prepare a document.

    Raises:
        ValueError: the service would not take it; the message says why.
    """
    document = encoded.document
    check_id(document.doc_id)
    packed = pack(encoded.matrix, packing)
    texts = {
        "doc_id": document.doc_id,
        "content": document.content,
        "content_type": document.content_type,
        "metadata": metadata_text(with_mark(document.metadata, document.mark)),
    }
    cells = declared_columns(document.metadata, fields)
    row = {
        **texts,
        "n_tokens": len(encoded.matrix),
        "generation": generation,
        "packed": binary(packed),
        **cells,
        **(words or {}),
    }
    size = sum(
        len(text.encode()) for text in (*texts.values(), row["packed"]["$binary"], row.get("words") or "")
    )
    if size > DOCUMENT_BYTES:
        raise ValueError(
            f"it takes {size:,} bytes with its {len(encoded.matrix):,} token vectors, and Astra takes at most "
            f"{DOCUMENT_BYTES:,}: split it, or pool its vectors."
        )
    return PreparedDocument(document.doc_id, generation, row, unpack(packed), cells, size)


def check_id(doc_id: str) -> None:
    """Raise ValueError if an id is longer than the service takes."""
    if len(doc_id.encode()) > ID_BYTES:
        raise ValueError(f"its id has more than {ID_BYTES:,} bytes.")


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Return metadata as the JSON text that is stored: ASCII, so that no surrogate is lost.

    Raises:
        ValueError: they are not plain values.
    """
    try:
        return dumps(dict(metadata))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata cannot be stored as JSON: {error}.") from None


def declared_columns(metadata: Mapping[str, Any], fields: Mapping[str, Field]) -> Row:
    """Return the columns of declared fields; a missing one is None, and written over what the row may hold.

    Raises:
        ValueError: a value is not of the declared type.
    """
    return {field.column: field.cell(metadata) for field in fields.values()}


# --- rows that were read


def document_of(row: Mapping[str, Any]) -> Document:
    """Return the document of a row that has the columns `DOCUMENT`."""
    return Document(row["doc_id"], row["content"], row["content_type"], *without_mark(metadata_of(row)))


def metadata_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a row: its revision's, if it has one, or else those it was written with."""
    revision = _revision(row)
    metadata = _parsed(row, "metadata") if revision is None else revision["metadata"]
    if not isinstance(metadata, dict):
        raise _damaged(row, "metadata")
    return metadata


def token_version(row: Mapping[str, Any]) -> int:
    """Return the version of the token rows that belong to a row."""
    revision = _revision(row)
    version: int = row["generation"] if revision is None else revision["tokens"]
    return version


def revision_text(generation: int, tokens: int, metadata: Mapping[str, Any]) -> str:
    """Return a revision as it is stored."""
    return metadata_text({"of": generation, "tokens": tokens, "metadata": metadata})


def matrix_of(row: Mapping[str, Any]) -> bytes:
    """Return the packed matrix of a row."""
    try:
        return from_binary(row["packed"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(row, "packed") from None


def is_whole(row: Mapping[str, Any], columns: Sequence[str]) -> bool:
    """Tell a document from what is left if a metadata update comes after a deletion: a row with some columns only."""
    return all(column in row for column in columns if column not in _MAY_BE_NULL)


def _revision(row: Mapping[str, Any]) -> Row | None:
    if row.get("revision") is None:
        return None
    revision = _parsed(row, "revision")
    match revision:
        case {"of": int(of), "tokens": int(), "metadata": dict()}:
            return revision if of == row["generation"] else None
    raise _damaged(row, "revision")


def _parsed(row: Mapping[str, Any], column: str) -> Any:
    try:
        return loads(row[column])
    except (KeyError, ValueError, TypeError, RecursionError):
        raise _damaged(row, column) from None


def _damaged(row: Mapping[str, Any], column: str) -> StoreError:
    return StoreError(
        f"The row of document {row.get('doc_id')!r} is damaged: its {column} is not what this library writes. Index "
        "the document again, or delete it."
    )


# --- requests of a size


def chunks_of_tokens(
    documents: Sequence[PreparedDocument], limits: InsertSizes
) -> Iterator[list[tuple[PreparedDocument, int]]]:
    """Yield every token of every document, as many as one request may hold."""
    chunk: list[tuple[PreparedDocument, int]] = []
    size = 0
    for document in documents:
        row_bytes = token_row_bytes(document.doc_id, document.cells, document.vectors.shape[1])
        for token_id in range(len(document.vectors)):
            if chunk and (len(chunk) >= limits.rows or size + row_bytes > limits.request_bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append((document, token_id))
            size += row_bytes
    if chunk:
        yield chunk


def token_row_bytes(doc_id: str, cells: Row, dim: int) -> int:
    """Return the bytes of a row of the tokens table, about; each repeats the document's id and declared fields."""
    return len(json.dumps([doc_id, cells], ensure_ascii=False).encode()) + dim * 4 * 4 // 3 + 150


def chunks_of_documents(
    documents: Sequence[PreparedDocument], limits: Limits
) -> Iterator[list[PreparedDocument]]:
    """Yield the documents, as many as one request may hold."""
    chunk: list[PreparedDocument] = []
    size = 0
    for document in documents:
        if chunk and (len(chunk) == limits.rows or size + document.size > limits.request_bytes):
            yield chunk
            chunk, size = [], 0
        chunk.append(document)
        size += document.size
    if chunk:
        yield chunk


def binary_vector(vector: np.ndarray[Any, np.dtype[np.float32]]) -> Row:
    """Return a vector in the form that the Data API reads fastest: big-endian float32 in base64."""
    return binary(vector.astype(">f4").tobytes())


def binary(data: bytes) -> Row:
    """Return bytes in the Data API's JSON."""
    return {"$binary": base64.b64encode(data).decode()}


def from_binary(value: Mapping[str, str]) -> bytes:
    """Return the bytes that `binary` was given."""
    return base64.b64decode(value["$binary"])
