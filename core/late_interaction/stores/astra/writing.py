"""Writing documents so that any number of clients may write the same ids, with no lock and no conditional write.

The Data API has neither: an insert overwrites, the last write of a cell wins, a delete does not ask what it deletes.
What it does have is that one row of the docs table, and one cell of it, changes as a whole. So everything that must
not be mixed is named by one cell:

- A *version* of a document is a number that no other write has, its `generation`. The token rows of a version have it
  in their key. They are written before the version is committed, and never changed: two versions share no row.
- `upsert` commits by the insert of the docs row, which sets every column, `generation` among them.
- `update_metadata` commits by one cell, `revision` (see `rows`), which names the generation that it revises. If that
  is not the generation of the row any more, the revision means nothing: a newer document is not touched by it. If a
  declared field changes, the document's token rows are written again under a new version, which the revision names.
- After its commit each of them reads the row again. If another client has replaced what `update_metadata` revised, it
  is done again on what is there now.
- Token rows are deleted by version, and only those of a version that the row, read after the commit, does not name:
  the one that was replaced, or one's own if another client's commit came later. Whoever has deleted token rows reads
  the row once more, and writes them again (as a new version) if the row names them after all.
- `delete` deletes the docs row, reads it again, and then deletes the token rows of the version that it saw.

So the docs row always names token rows that exist and belong to the same content and metadata. What two clients may
leave behind is token rows that no row names: a search may look at the document in vain because of them, and the doctor
deletes them. docs/astra.md says what this does not promise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial

from late_interaction.errors import StoreError
from late_interaction.metadata import MetadataChange
from late_interaction.packing import unpack
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.outcome import Outcome
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.row_writing import MOST_ROUNDS, RowWriter
from late_interaction.stores.astra.rows import (
    VERSION,
    PreparedDocument,
    chunks_of_documents,
    chunks_of_tokens,
    declared_columns,
    matrix_of,
    metadata_of,
    revision_text,
    token_version,
)
from late_interaction.stores.astra.schema import Tables

Versions = dict[str, set[int]]
"""Versions of token rows by document id."""


class Writer(RowWriter):
    """Writes to an index with token rows."""

    def __init__(
        self, client: DataApiClient, tables: Tables, reader: Reader, limits: Limits, location: str
    ) -> None:
        super().__init__(client, tables, reader, limits, location)
        self._abandoned: Versions = {}

    # --- documents

    async def _write(self, outcome: Outcome, prepared: Sequence[PreparedDocument]) -> None:
        """Write tokens, then the documents' rows, then delete the tokens of the versions that they replace."""
        replaced: dict[str, Row] = {}
        try:
            tokens = chunks_of_tokens(prepared, self._client.pace)
            await self._for_each(partial(self._write_tokens, outcome), tokens)
            if outcome.outage is None:
                # As late as possible: a version that is committed after this is not known to be replaced.
                replaced = await self._reader.rows([one.doc_id for one in prepared], VERSION)
                rows = chunks_of_documents(outcome.accepted(prepared), self._limits)
                await self._for_each(partial(self._write_rows, outcome), rows)
        except ServiceError as error:
            outcome.outage = error
        if outcome.outage is None:
            await self._clean_up(outcome, prepared, replaced)
        else:
            await self._read_back(outcome, prepared, replaced)

    async def _write_tokens(self, outcome: Outcome, chunk: Sequence[tuple[PreparedDocument, int]]) -> None:
        if outcome.outage is not None:
            return
        rows = [document.token_row(token_id) for document, token_id in chunk]
        try:
            refused = (await self._client.insert(self._tables.tokens, rows)).refused
        except ServiceError as error:
            if error.outage:
                outcome.outage = error
                return
            refused = dict.fromkeys(range(len(chunk)), str(error))
        for position, reason in refused.items():
            outcome.refused[chunk[position][0].doc_id] = reason

    async def _read_back(
        self, outcome: Outcome, prepared: Sequence[PreparedDocument], replaced: Mapping[str, Row]
    ) -> None:
        """Find out which of the rows that were sent without an answer are written."""
        try:
            rows = await self._reader.rows(list(outcome.unanswered), VERSION)
        except StoreError:
            rows = {}
        else:
            outcome.unanswered = set()
        for one in prepared:
            if one.doc_id in rows and rows[one.doc_id]["generation"] == one.generation:
                outcome.written.add(one.doc_id)
            # The next write of the document deletes the token rows that are left over now.
            abandoned = self._abandoned.setdefault(one.doc_id, set())
            if one.doc_id not in outcome.written:
                abandoned.add(one.generation)
            elif one.doc_id in replaced:
                abandoned.add(token_version(replaced[one.doc_id]))

    async def _clean_up(
        self, outcome: Outcome, prepared: Sequence[PreparedDocument], replaced: Mapping[str, Row]
    ) -> None:
        """Delete the token rows that no row names after this write."""
        surplus: Versions = {}
        try:
            rows = await self._reader.rows([one.doc_id for one in prepared], VERSION)
            for one in prepared:
                versions = surplus[one.doc_id] = set(self._abandoned.pop(one.doc_id, ()))
                generation = rows[one.doc_id]["generation"] if one.doc_id in rows else None
                if generation != one.generation:  # Refused, or another client's commit came later.
                    versions.add(one.generation)
                if one.doc_id in replaced and generation != replaced[one.doc_id]["generation"]:
                    versions.add(token_version(replaced[one.doc_id]))
                if one.doc_id in rows:
                    versions.discard(token_version(rows[one.doc_id]))
            await self.delete_versions(surplus)
            for doc_id in outcome.repeated & rows.keys():
                # The first attempt may have been carried out, and the document replaced before the second one.
                if not await self._has_tokens(rows[doc_id]):
                    await self._revise(doc_id, MetadataChange(), new_tokens=True)
        except ServiceError as error:  # The documents are written, and that is what was asked for.
            self._leave_over(surplus or {one.doc_id: set() for one in prepared}, error)

    async def delete(self, doc_ids: Sequence[str]) -> int:
        """Delete documents' rows, then their tokens; return how many documents existed.

        If it fails, some may be deleted; the same call again deletes the rest.
        """
        async with self._exclusive(doc_ids):
            found = await self._reader.rows(doc_ids, VERSION)
            await self._delete_rows(found)
            surplus = {doc_id: set(self._abandoned.pop(doc_id, ())) for doc_id in doc_ids}
            for doc_id, row in found.items():
                surplus[doc_id].add(token_version(row))
            try:
                await self.delete_versions(surplus)
            except ServiceError as error:  # The documents are deleted, and that is what was asked for.
                self._leave_over(surplus, error)
        return len(found)

    async def clear(self) -> None:
        """Truncate both tables."""
        for table in (self._tables.docs, self._tables.tokens):
            await self._client.command(table, {"deleteMany": {"filter": {}}})

    # --- metadata

    async def restore_tokens(self, doc_ids: Sequence[str]) -> None:
        """Write the tokens of documents anew, from the packed matrices in their rows, and their declared fields."""
        async with self._exclusive(doc_ids):
            for doc_id in doc_ids:
                await self._revise(doc_id, MetadataChange(), new_tokens=True)

    async def _revise(self, doc_id: str, change: MetadataChange, *, new_tokens: bool = False) -> bool:
        """Commit a revision of the row, and again until it is one of the version that the row has."""
        own: set[int] = set()
        replaced: set[int] = set()
        for _ in range(MOST_ROUNDS):
            row = (await self._reader.rows([doc_id], (*VERSION, "metadata"))).get(doc_id)
            if row is None:
                break
            before = metadata_of(row)
            after = change.apply(before)
            cells = declared_columns(after, self._tables.fields)
            tokens = token_version(row)
            if new_tokens or cells != declared_columns(before, self._tables.fields):
                replaced.add(tokens)
                version = await self._write_version(doc_id, row["generation"], cells)
                if version is None:
                    continue  # Another client has replaced the document meanwhile.
                own.add(version)
                tokens = version
            revision = revision_text(row["generation"], tokens, after)
            await self._set(doc_id, {"revision": revision, **cells})
            now = (await self._reader.rows([doc_id], (*VERSION, "metadata"))).get(doc_id)
            if now is None:
                await self.remove_torn_row(doc_id)
                replaced.add(token_version(row))
                break
            if now["generation"] != row["generation"]:
                replaced.add(token_version(row))
                new_tokens = False
                continue
            if now.get("revision") != revision and not (
                change.apply(metadata_of(now)) == metadata_of(now) and not new_tokens
            ):
                continue  # Another client's update came later, and did not know of this one.
            tokens = token_version(now)
            if tokens not in own and not await self._has_tokens(now):
                new_tokens = (
                    True  # Another client's update has written them anew, before this one's revision.
                )
                continue
            await self.delete_versions({doc_id: (own | replaced) - {tokens}})
            return True
        else:
            raise self._given_up(doc_id)
        await self.delete_versions({doc_id: own | replaced})
        return False

    async def _write_version(self, doc_id: str, generation: int, cells: Row) -> int | None:
        """Write a document's tokens under a new version, and return that; None if the document is another by now."""
        row = (await self._reader.rows([doc_id], ("doc_id", "generation", "packed"))).get(doc_id)
        if row is None or row["generation"] != generation:
            return None
        document = PreparedDocument(doc_id, self.next_generation(), row, unpack(matrix_of(row)), cells)
        chunks = (
            [one.token_row(token_id) for one, token_id in chunk]
            for chunk in chunks_of_tokens([document], self._limits)
        )
        await self._for_each(self._insert_all, chunks)
        return document.generation

    async def _insert_all(self, rows: Sequence[Row]) -> None:
        if refused := (await self._client.insert(self._tables.tokens, rows)).refused:
            raise ServiceError(
                f"{self._tables.tokens} does not take a row: {next(iter(refused.values()))}", outage=False
            )

    # --- token rows

    async def delete_versions(self, versions: Mapping[str, Iterable[int]]) -> None:
        """Delete the token rows of these versions, and look whether a row names one of them after all."""
        pairs = [(doc_id, version) for doc_id, several in versions.items() for version in several]
        if not pairs:
            return
        await self._for_each(self._delete_version, pairs)
        for doc_id, row in (await self._reader.rows([doc_id for doc_id, _ in pairs], VERSION)).items():
            if token_version(row) in versions[doc_id]:
                await self._revise(doc_id, MetadataChange(), new_tokens=True)

    async def _delete_version(self, pair: tuple[str, int]) -> None:
        where = {"doc_id": pair[0], "generation": pair[1]}
        await self._client.command(self._tables.tokens, {"deleteMany": {"filter": where}})

    async def _has_tokens(self, row: Row) -> bool:
        """Tell whether the token rows that a docs row names exist, if it names any: they are deleted all at once."""
        if not row["n_tokens"]:
            return True
        where = {"doc_id": row["doc_id"], "generation": token_version(row)}
        pages = self._client.pages(self._tables.tokens, ("token_id",), where=where, limit=1)
        return any([len(page) > 0 async for page in pages])

    def _leave_over(self, surplus: Versions, error: ServiceError) -> None:
        """Keep in mind what could not be deleted: the next write of the document does it, or the doctor."""
        for doc_id, versions in surplus.items():
            self._abandoned.setdefault(doc_id, set()).update(versions)
        self.leftovers.add(surplus, error)
