"""Writing documents with document vectors: a document is one row, and an insert that names every column replaces it.

So an upsert, a delete and two clients on one id are atomic by themselves; the last write wins. `update_metadata`
commits by one cell, `revision`, as with token rows (see `writing`).

Only a vector that is written later, into a row that is there already, needs care: another client may replace the
document meanwhile, or delete it. The vector says which version of the document it is of (`vector_of`), and whoever
writes one reads the row again, and makes it right. docs/astra.md says what this does not promise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from late_interaction.errors import StoreError
from late_interaction.metadata import MetadataChange
from late_interaction.packing import unpack_many
from late_interaction.reduction import Reduction
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.outcome import Outcome
from late_interaction.stores.astra.reading import EXISTS, Reader
from late_interaction.stores.astra.reductions import Reductions
from late_interaction.stores.astra.row_writing import MOST_ROUNDS, RowWriter
from late_interaction.stores.astra.rows import (
    VERSION,
    PreparedDocument,
    binary_vector,
    chunks_of_documents,
    declared_columns,
    matrix_of,
    metadata_of,
    revision_text,
)
from late_interaction.stores.astra.schema import Tables
from late_interaction.types import FloatMatrix, RaggedTokens

MATRIX = (*EXISTS, "generation", "packed")
"""The columns that a document's vector is made of."""
_STATE = (*EXISTS, "generation", "vector_of")
"""The columns that tell whether a row's vector is that of its document."""


class DocumentWriter(RowWriter):
    """Writes to an index with document vectors.

    Args:
        client, tables, reader, limits, location: as for `RowWriter`.
        reductions: of the index.
    """

    def __init__(
        self,
        client: DataApiClient,
        tables: Tables,
        reader: Reader,
        limits: Limits,
        location: str,
        reductions: Reductions,
    ) -> None:
        super().__init__(client, tables, reader, limits, location)
        self._reductions = reductions

    async def _write(self, outcome: Outcome, prepared: Sequence[PreparedDocument]) -> None:
        """Write the documents' rows, with vectors of the newest reduction, or without one before the first."""
        try:
            complete = await self._with_vectors(prepared)
            chunks = chunks_of_documents(complete, self._limits)
            await self._for_each(partial(self._write_rows, outcome), chunks)
        except ServiceError as error:
            outcome.outage = error
        if outcome.outage is not None:
            await self._read_back(outcome, prepared)

    async def _with_vectors(self, prepared: Sequence[PreparedDocument]) -> list[PreparedDocument]:
        """Return the documents with the columns of their vectors."""
        fitted = await self._reductions.refresh()
        generation = fitted.live[-1] if fitted.live else 0
        reduction = await self._reductions.get(generation) if generation else None
        with_tokens = [one for one in prepared if len(one.vectors)]
        vectors: dict[str, FloatMatrix] = {}
        if reduction is not None:
            tokens = RaggedTokens.from_matrices([one.vectors for one in with_tokens], self._tables.dim)
            rows = await asyncio.to_thread(reduction.documents, tokens)
            vectors = {one.doc_id: row for one, row in zip(with_tokens, rows, strict=True)}
        complete = []
        for one in prepared:
            vector = None if one.doc_id not in vectors else binary_vector(vectors[one.doc_id])
            cells = {
                "document_vector": vector,
                "reduction": (generation if vector else 0) if len(one.vectors) else None,
                "vector_of": one.generation,
            }
            size = one.size + (len(vector["$binary"]) if vector else 0)
            complete.append(replace(one, row={**one.row, **cells}, size=size))
        return complete

    async def _read_back(self, outcome: Outcome, prepared: Sequence[PreparedDocument]) -> None:
        """Find out which of the rows that were sent without an answer are written."""
        try:
            rows = await self._reader.rows(list(outcome.unanswered), VERSION)
        except StoreError:
            return
        outcome.unanswered = set()
        for one in prepared:
            if one.doc_id in rows and rows[one.doc_id]["generation"] == one.generation:
                outcome.written.add(one.doc_id)

    async def delete(self, doc_ids: Sequence[str]) -> int:
        """Delete documents; return how many existed. If it fails, some may be deleted."""
        async with self._exclusive(doc_ids):
            found = await self._reader.rows(doc_ids, VERSION)
            await self._delete_rows(found)
        return len(found)

    async def clear(self) -> None:
        """Truncate the table; what comes next is fitted anew."""
        await self._client.command(self._tables.docs, {"deleteMany": {"filter": {}}})
        await self._reductions.forget()

    async def _revise(self, doc_id: str, change: MetadataChange) -> bool:
        """Commit a revision of the row, and again until it is one of the version that the row has."""
        columns = (*VERSION, "metadata")
        for _ in range(MOST_ROUNDS):
            row = (await self._reader.rows([doc_id], columns)).get(doc_id)
            if row is None:
                return False
            after = change.apply(metadata_of(row))
            cells = declared_columns(after, self._tables.fields)
            revision = revision_text(row["generation"], row["generation"], after)
            await self._set(doc_id, {"revision": revision, **cells})
            now = (await self._reader.rows([doc_id], columns)).get(doc_id)
            if now is None:
                await self.remove_torn_row(doc_id)
                return False
            if now["generation"] == row["generation"] and (
                now.get("revision") == revision or change.apply(metadata_of(now)) == metadata_of(now)
            ):
                return True
        raise self._given_up(doc_id)

    # --- vectors that are written later

    async def write_vectors(
        self, doc_ids: Sequence[str], generation: int, reduction: Reduction, read: Sequence[Row] = ()
    ) -> None:
        """Write vectors by a reduction into the rows of documents, made of the packed matrices that stand there.

        Args:
            doc_ids: of the documents.
            generation: names the reduction.
            reduction: makes the vectors.
            read: the documents' `MATRIX` columns, if the caller has read them. Those that have changed since are read
                again.
        """
        async with self._exclusive(doc_ids):
            rows, remaining = read, list(doc_ids)
            for _ in range(MOST_ROUNDS):
                rows = rows or list((await self._reader.rows(remaining, MATRIX)).values())
                await self._send_vectors(rows, generation, reduction)
                remaining = await self._not_right([row["doc_id"] for row in rows])
                if not remaining:
                    return
                rows = ()
        raise StoreError(
            f"The vectors of {len(remaining)} documents of {self._location} are not written after {MOST_ROUNDS} "
            f"attempts, for example of {remaining[0]!r}: other clients keep changing them."
        )

    async def _send_vectors(self, rows: Sequence[Row], generation: int, reduction: Reduction) -> None:
        with_tokens = [row for row in rows if row["n_tokens"]]
        tokens = unpack_many([matrix_of(row) for row in with_tokens], self._tables.dim)
        vectors = await asyncio.to_thread(reduction.documents, tokens)
        blank = [row for row in rows if not row["n_tokens"]]
        cells = [
            *(
                {"document_vector": binary_vector(vector), "reduction": generation, **_key(row)}
                for row, vector in zip(with_tokens, vectors, strict=True)
            ),
            *({"document_vector": None, "reduction": None, **_key(row)} for row in blank),
        ]
        most = max(1, min(self._limits.rows, self._limits.request_bytes // (reduction.width * 6 + 200)))
        await self._for_each(self._insert, [cells[i : i + most] for i in range(0, len(cells), most)])

    async def _insert(self, cells: Sequence[Row]) -> None:
        if refused := (await self._client.insert(self._tables.docs, cells)).refused:
            reason = next(iter(refused.values()))
            raise ServiceError(f"{self._tables.docs} does not take a vector: {reason}", outage=False)

    async def _not_right(self, doc_ids: Sequence[str]) -> list[str]:
        """Return the documents whose vector is of a version that another client has replaced meanwhile."""
        rows = await self._reader.rows(doc_ids, _STATE)
        gone = [doc_id for doc_id in doc_ids if doc_id not in rows]
        await self._for_each(self._remove_vector, gone)
        written_since = await self._reader.existing(gone) if gone else set()  # Its vector was removed too.
        wrong = {doc_id for doc_id, row in rows.items() if row.get("vector_of") != row["generation"]}
        return sorted(wrong | written_since)

    async def remove_torn_document(self, doc_id: str) -> None:
        """Remove what an update or a vector left in a row that was deleted before it."""
        async with self._exclusive([doc_id]):
            await self.remove_torn_row(doc_id)
        fitted = self._reductions.fitted
        reduction = await self._reductions.get(fitted.live[-1]) if fitted.live else None
        if reduction is None:
            await self._remove_vector(doc_id)
        else:  # No document is there, so that this removes the vector; if one has come since, it is made right.
            await self._not_right([doc_id])
            await self.write_vectors([doc_id], fitted.live[-1], reduction)

    async def restore_columns(self, doc_ids: Sequence[str]) -> None:
        """Write the declared columns of documents anew, from their metadata."""
        async with self._exclusive(doc_ids):
            for doc_id in doc_ids:
                await self._revise(doc_id, MetadataChange())

    async def _remove_vector(self, doc_id: str) -> None:
        """Remove a vector that was written into the row of a document that had just been deleted."""
        unset: dict[str, Any] = dict.fromkeys(("document_vector", "reduction", "vector_of"), "")
        update = {"filter": {"doc_id": doc_id}, "update": {"$unset": unset}}
        await self._client.command(self._tables.docs, {"updateOne": update})


def _key(row: Row) -> Row:
    return {"doc_id": row["doc_id"], "vector_of": row["generation"]}
