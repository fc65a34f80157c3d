"""Documents as rows of the two tables, in requests of a size that the service takes."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from late_interaction.errors import DocumentError, RowFailure, StoreWriteError
from late_interaction.packing import pack, unpack
from late_interaction.stores.astra.client import Row, ServiceError
from late_interaction.stores.astra.schema import Field
from late_interaction.types import Document, EncodedDocument, FloatMatrix, PackingDtype

TOKEN_ROWS = 50
"""Token rows in a request: more has brought the maintainers of the Data API nothing, and 100 are allowed."""
REQUEST_BYTES = 2 * 1024 * 1024
"""Of rows in a request, about; 20 MB are allowed, and a request must not take long."""
DOC_BYTES = 10 * 1024 * 1024
"""Of a document's row: what the service documents for one field."""
ID_BYTES = 65_535
"""Of a partition key."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document ready to be written.

    Attributes:
        doc_id: its id.
        row: of the docs table.
        vectors: (n_tokens, dim) float32, what the packed matrix unpacks to.
        cells: columns of declared fields, as in both tables.
        size: of the row, in bytes, about.
    """

    doc_id: str
    row: Row
    vectors: FloatMatrix
    cells: Row
    size: int

    @property
    def generation(self) -> int:
        """Of this write."""
        generation: int = self.row["generation"]
        return generation

    def token_row(self, token_id: int) -> Row:
        """One row of the tokens table."""
        return {
            "doc_id": self.doc_id,
            "token_id": token_id,
            "token_embedding": binary_vector(self.vectors[token_id]),
            "generation": self.generation,
            **self.cells,
        }


@dataclass(slots=True)
class Outcome:
    """What has become of the documents of one write.

    Attributes:
        doc_ids: all of them, in order.
        refused: those that the service does not take, and why.
        written: those that are in the index.
        sent: those whose row may be in the index: no answer came.
        outage: why the write could not go on.
    """

    doc_ids: list[str]
    refused: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    sent: set[str] = field(default_factory=set)
    outage: ServiceError | None = None

    def accepted(self, documents: Sequence[Prepared]) -> list[Prepared]:
        """Those of the documents that were not refused so far."""
        return [one for one in documents if one.doc_id not in self.refused]

    def failure(self) -> StoreWriteError | DocumentError | None:
        """The error that says it, None where all are written."""
        if self.outage is not None:
            sides: tuple[list[str], list[str], list[str]] = ([], [], [])
            for doc_id in self.doc_ids:
                sides[0 if doc_id in self.written else 2 if doc_id in self.sent else 1].append(doc_id)
            return StoreWriteError(str(self.outage), *sides)
        failures = [
            RowFailure(number, doc_id, self.refused[doc_id])
            for number, doc_id in enumerate(self.doc_ids)
            if doc_id in self.refused
        ]
        return (
            DocumentError(failures, [one for one in self.doc_ids if one in self.written])
            if failures
            else None
        )


def prepare_all(
    documents: Sequence[EncodedDocument],
    packing: PackingDtype,
    first_generation: int,
    fields: Mapping[str, Field],
    outcome: Outcome,
) -> list[Prepared]:
    """The documents that can be written; the reasons of the others go into `outcome`."""
    prepared = []
    for generation, encoded in enumerate(documents, first_generation):
        try:
            prepared.append(prepare(encoded, packing, generation, fields))
        except ValueError as error:
            outcome.refused[encoded.document.doc_id] = str(error)
    return prepared


def prepare(
    encoded: EncodedDocument, packing: PackingDtype, generation: int, fields: Mapping[str, Field]
) -> Prepared:
    """A document as it will be written.

    Raises:
        ValueError: the service would not take it; the message says why.
    """
    document = encoded.document
    if len(document.doc_id.encode()) > ID_BYTES:
        raise ValueError(f"its id has more than {ID_BYTES:,} bytes.")
    packed = pack(encoded.matrix, packing)
    cells = cells_of(document.metadata, fields)
    row = {
        **row_of(document),
        "n_tokens": len(encoded.matrix),
        "generation": generation,
        "packed": binary(packed),
        **cells,
    }
    size = sum(len(value.encode()) for value in (*row_of(document).values(), row["packed"]["$binary"]))
    if size > DOC_BYTES:
        raise ValueError(
            f"it takes {size:,} bytes with its {len(encoded.matrix):,} token vectors, and {DOC_BYTES:,} is the most "
            "that Astra takes: split it, or pool its vectors."
        )
    return Prepared(document.doc_id, row, unpack(packed), cells, size)


def row_of(document: Document) -> Row:
    """The columns of the docs table that a user sees."""
    return {
        "doc_id": document.doc_id,
        "content": document.content,
        "content_type": document.content_type,
        "metadata": metadata_text(document.metadata),
    }


def metadata_text(metadata: Mapping[str, Any]) -> str:
    """Metadata as the JSON text that is stored, in ASCII, so that no surrogate is lost."""
    return json.dumps(metadata, allow_nan=False, separators=(",", ":"))


def document_of(row: Mapping[str, Any]) -> Document:
    """The inverse of `row_of`."""
    return Document(row["doc_id"], row["content"], row["content_type"], json.loads(row["metadata"]))


def cells_of(metadata: Mapping[str, Any], fields: Mapping[str, Field]) -> Row:
    """The columns of declared fields. A missing one is written as null, over what may have been there.

    Raises:
        ValueError: a value is not of the declared type.
    """
    return {field.column: field.cell(metadata) for field in fields.values()}


def chunks_of_tokens(documents: Sequence[Prepared]) -> Iterator[list[tuple[Prepared, int]]]:
    """Every token of every document, as many to a chunk as a request may have."""
    chunk: list[tuple[Prepared, int]] = []
    size = 0
    for document in documents:
        row_bytes = token_row_bytes(document.doc_id, document.cells, document.vectors.shape[1])
        for token_id in range(len(document.vectors)):
            if chunk and (len(chunk) == TOKEN_ROWS or size + row_bytes > REQUEST_BYTES):
                yield chunk
                chunk, size = [], 0
            chunk.append((document, token_id))
            size += row_bytes
    if chunk:
        yield chunk


def token_row_bytes(doc_id: str, cells: Row, dim: int) -> int:
    """Of a row of the tokens table, about: each has the document's id and declared fields too."""
    return len(json.dumps([doc_id, cells], ensure_ascii=False).encode()) + dim * 4 * 4 // 3 + 150


def chunks_of_documents(documents: Sequence[Prepared]) -> Iterator[list[Prepared]]:
    """Documents, as many rows to a chunk as a request may have."""
    chunk: list[Prepared] = []
    size = 0
    for document in documents:
        if chunk and (len(chunk) == TOKEN_ROWS or size + document.size > REQUEST_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(document)
        size += document.size
    if chunk:
        yield chunk


def binary_vector(vector: np.ndarray[Any, np.dtype[np.float32]]) -> Row:
    """A vector as the Data API reads it fastest: big-endian float32 in base64."""
    return binary(vector.astype(">f4").tobytes())


def binary(data: bytes) -> Row:
    """Bytes in the Data API's JSON."""
    return {"$binary": base64.b64encode(data).decode()}


def from_binary(value: Mapping[str, str]) -> bytes:
    """The inverse of `binary`."""
    return base64.b64decode(value["$binary"])
