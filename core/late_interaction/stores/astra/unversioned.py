"""Writing to an index of the older layout, in which the versions of a document share the keys of their token rows.

A write overwrites the old version's token rows and then deletes those beyond its last; `update_metadata` changes the
rows in place. It is right as long as one client at a time writes an id. `copy` into a new index, and two may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from late_interaction.metadata import MetadataChange
from late_interaction.packing import unpack
from late_interaction.stores.astra.client import Row
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.outcome import Outcome
from late_interaction.stores.astra.rows import (
    PreparedDocument,
    chunks_of_tokens,
    declared_columns,
    matrix_of,
    metadata_of,
    metadata_text,
    token_row_bytes,
)
from late_interaction.stores.astra.writing import Writer


class UnversionedWriter(Writer):
    """A `Writer` for the older layout."""

    def _row(self, document: PreparedDocument) -> Row:
        return document.row

    async def _read_back(
        self, outcome: Outcome, prepared: Sequence[PreparedDocument], replaced: Mapping[str, Row]
    ) -> None:
        await super()._read_back(outcome, prepared, replaced)
        self._abandoned.clear()  # A version that is written again overwrites what this one left.
        await self._clean_up(outcome, prepared, replaced)

    async def _clean_up(
        self, outcome: Outcome, prepared: Sequence[PreparedDocument], replaced: Mapping[str, Row]
    ) -> None:
        shrunk = [
            (one.doc_id, len(one.vectors))
            for one in prepared
            if one.doc_id in outcome.written
            and one.doc_id in replaced
            and replaced[one.doc_id]["n_tokens"] > len(one.vectors)
        ]
        try:
            await self._for_each(self._delete_from, shrunk)
        except ServiceError as error:
            self._leave_over({doc_id: set() for doc_id, _ in shrunk}, error)

    async def _delete_from(self, item: tuple[str, int]) -> None:
        where = {"doc_id": item[0], "token_id": {"$gte": item[1]}}
        await self._client.command(self._tables.tokens, {"deleteMany": {"filter": where}})

    async def delete(self, doc_ids: Sequence[str]) -> int:
        """Delete documents' rows, then their tokens; return how many documents existed."""
        async with self._exclusive(doc_ids):
            found = await self._reader.existing(doc_ids)
            await self._for_each(self._delete_row, found)
            # Of all ids, found or not: a deletion that broke off may have left tokens.
            await self.delete_versions(dict.fromkeys(doc_ids, ()))
        return len(found)

    async def remove_torn_row(self, doc_id: str) -> None:
        """Delete a row that has only what an update left in it after it was deleted."""
        if not await self._reader.existing([doc_id]):
            await self._delete_row(doc_id)

    async def delete_versions(self, versions: Mapping[str, Iterable[int]]) -> None:
        """Delete all token rows of these documents."""
        await self._for_each(self._delete_all_tokens, versions)

    async def _delete_all_tokens(self, doc_id: str) -> None:
        await self._client.command(self._tables.tokens, {"deleteMany": {"filter": {"doc_id": doc_id}}})

    async def update_metadata(self, doc_id: str, change: MetadataChange) -> bool:
        """Change the metadata of a document in place; return False if there is no such id.

        Raises:
            ValueError: a declared field would have a value of another type.
        """
        async with self._exclusive([doc_id]):
            row = (await self._reader.rows([doc_id], ("doc_id", "metadata", "n_tokens"))).get(doc_id)
            if row is None:
                return False
            before = metadata_of(row)
            after = change.apply(before)
            cells = declared_columns(after, self._tables.fields)
            if cells != declared_columns(before, self._tables.fields):
                rows = [{"doc_id": doc_id, "token_id": i, **cells} for i in range(row["n_tokens"])]
                row_bytes = token_row_bytes(doc_id, cells, 0)
                most = max(1, min(self._limits.rows, self._limits.request_bytes // row_bytes))
                await self._for_each(
                    self._insert_all, [rows[i : i + most] for i in range(0, len(rows), most)]
                )
            await self._set(doc_id, {"metadata": metadata_text(after), **cells})
            return True

    async def restore_tokens(self, doc_ids: Sequence[str]) -> None:
        """Write the tokens of documents anew, from the packed matrices in their rows, and delete those beyond."""
        columns = ("doc_id", "metadata", "generation", "packed")
        async with self._exclusive(doc_ids):
            rows = await self._reader.rows(doc_ids, columns)
            documents = [
                PreparedDocument(
                    doc_id,
                    row["generation"],
                    row,
                    unpack(matrix_of(row)),
                    declared_columns(metadata_of(row), self._tables.fields),
                )
                for doc_id, row in rows.items()
            ]
            for one in documents:
                if one.cells:
                    await self._set(one.doc_id, one.cells)
            chunks = (
                [document.token_row(token_id) for document, token_id in chunk]
                for chunk in chunks_of_tokens(documents, self._limits)
            )
            await self._for_each(self._insert_all, chunks)
            await self._for_each(self._delete_from, [(one.doc_id, len(one.vectors)) for one in documents])
