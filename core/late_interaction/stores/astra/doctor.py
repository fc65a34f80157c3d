"""Examine an index on Astra: definitions, leftovers of crashes, and what its vector index finds.

A search is right in any of these states; it only finds less, or looks at more than it has to. The recall of the
service's vector index can fall without any error, for example after a compaction, so it is measured: a stored vector
is looked up, and must find itself first.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

import numpy as np

from late_interaction.errors import IndexNotFoundError, StoreError
from late_interaction.packing import unpack_many
from late_interaction.progress import tqdm
from late_interaction.stores.astra.client import Row
from late_interaction.stores.astra.defining import define
from late_interaction.stores.astra.document_doctor import DocumentExam
from late_interaction.stores.astra.documents import document_parts
from late_interaction.stores.astra.health import TIE, Health
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.reading import EXISTS, WHOLE_TABLE, Reader
from late_interaction.stores.astra.rows import (
    declared_columns,
    is_whole,
    matrix_of,
    metadata_of,
    token_version,
)
from late_interaction.stores.astra.schema import Tables, timestamp
from late_interaction.stores.astra.searching import Searcher
from late_interaction.stores.astra.store import AstraStore, writer_of
from late_interaction.stores.astra.tasks import for_each_concurrently
from late_interaction.types import FloatMatrix, IndexSpec

_SAMPLED_PAGES = 40


async def diagnose(
    store: AstraStore,
    *,
    sample: int = 200,
    full: bool = False,
    repair: bool = False,
    older_than_s: float = 600.0,
    expected: IndexSpec | None = None,
    show_progress: bool = False,
    seed: int | None = None,
) -> Health:
    """Check an index, and repair it if asked to.

    Args:
        store: the index; it need not be open.
        sample: how many stored vectors to look up, of as many documents. 0 leaves the recall unmeasured.
        full: read every row of both tables, without vectors (a request for each 50 tokens). Without it only the sampled
            documents are checked, and orphans are found only if a lookup meets one.
        repair: put right what is found: delete orphans and surplus, write stale tokens anew from the documents' own
            matrices, and create indexes that are missing. Needs `full`.
        older_than_s: younger tokens without their document are left alone: the document may be under way.
        expected: what the index should be built with; each difference counts as one of the definitions.
        show_progress: show a progress bar over the token rows of a full check.
        seed: of the sample.

    Raises:
        IndexNotFoundError: the catalogue has no such index.
        ValueError: `repair` without `full`, or a negative number.
    """
    if repair and not full:
        raise ValueError("repair needs full=True: what is to be repaired must be found first.")
    if sample < 0 or older_than_s < 0:
        raise ValueError("sample and older_than_s must not be negative.")
    entry = await store.catalogue.entry()
    if entry is None:
        raise IndexNotFoundError(f"There is no index {store.location}.")
    health = Health(store.location, entry.spec, complete=full)
    if expected is not None:
        health.differences |= entry.spec.differences(expected)
    existing = await store.requests.tables()
    tables = store.catalogue.tables(entry, existing)
    differences = await store.catalogue.differences(tables, existing)
    if repair:
        differences = await _create_missing_indexes(store, tables, differences, health)
    health.differences |= differences
    if differences:
        return health  # Nothing below can be relied on.
    patient = Patient(store, tables, health, time.time_ns() - round(older_than_s * 1e9))
    exam: Patient | DocumentExam = patient
    if tables.width is not None:
        limits = Limits()
        parts = await document_parts(
            store.requests, store.catalogue, tables, patient.reader, limits, store.location
        )
        exam = DocumentExam(patient, parts, patient.reader)
    rng = random.Random(seed)  # noqa: S311
    if full:
        await exam.read_everything(show_progress=show_progress)
        doc_ids = sorted(patient.documents)
    else:
        doc_ids = [doc_id async for doc_id in patient.some_ids()]
    await exam.look_up(rng.sample(doc_ids, min(sample, len(doc_ids))), rng)
    if repair:
        await exam.repair()
    return health


async def _create_missing_indexes(
    store: AstraStore, tables: Tables, differences: dict[str, tuple[object, object]], health: Health
) -> dict[str, tuple[object, object]]:
    missing = {
        table: {
            name: definition
            for name, definition in indexes.items()
            if differences.get(f"index {name} on {table}", (True,))[0] is None
        }
        for table, indexes in tables.indexes().items()
    }
    with store.requests.loading():
        await define(store.requests, {}, missing)
    health.repaired += sum(map(len, missing.values()))
    return await store.catalogue.differences(tables, await store.requests.tables())


@dataclass(slots=True)
class _Known:
    """What a docs row says of its tokens."""

    n_tokens: int
    version: int
    cells: Row


class Patient:
    """An index under examination: what was read of it, and the health that follows.

    Args:
        store: the index.
        tables: its tables, as they should be.
        health: what was found goes in here.
        under_way: versions younger than this one may still be written.
    """

    def __init__(self, store: AstraStore, tables: Tables, health: Health, under_way: int) -> None:
        self.client, self.tables, self.health, self.under_way = store.requests, tables, health, under_way
        limits = Limits()
        self.reader = Reader(self.client, tables, limits, store.location)
        self._searcher = Searcher(self.client, tables, self.reader)
        self._writer = writer_of(self.client, tables, self.reader, limits, store.location)
        self._depth = store.scaling.n_ann_tokens(10)
        self._columns = [field.column for field in tables.fields.values()]
        self.documents: dict[str, _Known] = {}
        self._leftover: dict[str, set[int]] = {}

    # --- every row

    async def read_everything(self, *, show_progress: bool) -> None:
        """Read the rows of both tables, and compare them."""
        stale = await self.read_documents(show_progress=show_progress)
        stale |= await self._read_tokens(show_progress=show_progress)
        health = self.health
        orphans = sorted(self._leftover.keys() - self.documents.keys())
        # Some may have been written since the documents were read.
        written_since = await self.reader.existing(orphans)
        health.orphans = [doc_id for doc_id in orphans if doc_id not in written_since]
        health.stale = sorted(stale)
        health.surplus = sorted(self._leftover.keys() & self.documents.keys())

    async def read_documents(
        self,
        *,
        show_progress: bool,
        columns: Sequence[str] = (),
        look_at: Callable[[Row], None] = lambda row: None,
    ) -> set[str]:
        """Read every docs row; return the ids whose declared columns are not what their metadata say.

        Args:
            show_progress: show a progress bar over the documents.
            columns: what to read beside.
            look_at: called with each row that is a document's.
        """
        health, fields = self.health, self.tables.fields
        columns = ["doc_id", "n_tokens", "generation", *self._columns, *columns]
        columns += ["revision"] if self.tables.versioned else []
        columns += ["metadata"] if fields else []
        stale = set()
        with tqdm(desc="Documents", unit="doc", disable=not show_progress) as bar:
            async for page in self.client.pages(self.tables.docs, columns, expected=WHOLE_TABLE):
                for row in page:
                    doc_id = row["doc_id"]
                    if not is_whole(row, ("n_tokens", "generation")):
                        # An insert leaves the key of a document that was deleted before it, and nothing finds it.
                        if len(row) > 1:
                            health.torn.append(doc_id)
                        continue
                    cells = {column: row.get(column) for column in self._columns}
                    self.documents[doc_id] = _Known(row["n_tokens"], token_version(row), cells)
                    health.tokens += row["n_tokens"]
                    look_at(row)
                    if fields and self._as_read(self._cells_of(row)) != self._as_read(cells):
                        stale.add(doc_id)
                bar.update(len(page))
        health.documents = len(self.documents)
        return stale

    def _cells_of(self, row: Row) -> Row:
        try:
            return declared_columns(metadata_of(row), self.tables.fields)
        except (StoreError, ValueError) as error:
            self.health.differences[f"metadata of {row['doc_id']!r}"] = (str(error), "what was indexed")
            return {column: row.get(column) for column in self._columns}

    def _as_read(self, cells: Row) -> Row:
        """Return declared columns in a form in which what is written equals what is read back."""
        compared = {}
        for declared in self.tables.fields.values():
            value = cells[declared.column]
            if isinstance(value, list):
                value = sorted(value)
            elif isinstance(value, str) and declared.type == "datetime":
                value = timestamp(value)
            compared[declared.column] = value
        return compared

    async def _read_tokens(self, *, show_progress: bool) -> set[str]:
        """Read every token row; return the ids of documents that lack some of theirs."""
        right: dict[str, int] = {}
        youngest: dict[str, int] = {}
        young: set[str] = set()
        columns = ["doc_id", "token_id", "generation", *self._columns]
        with tqdm(desc="Tokens", unit="row", total=self.health.tokens, disable=not show_progress) as bar:
            async for page in self.client.pages(self.tables.tokens, columns, expected=WHOLE_TABLE):
                for row in page:
                    doc_id, version = row["doc_id"], row.get("generation", 0)
                    youngest[doc_id] = max(youngest.get(doc_id, 0), version)
                    known = self.documents.get(doc_id)
                    if self._belongs(row, known):
                        assert known is not None
                        cells = {column: row.get(column) for column in self._columns}
                        right[doc_id] = right.get(doc_id, 0) + (
                            version == known.version and cells == known.cells
                        )
                    elif version <= self.under_way:
                        self._leftover.setdefault(doc_id, set()).add(version)
                    else:
                        young.add(doc_id)
                bar.update(len(page))
        self.health.young = sorted(young)
        return {
            doc_id
            for doc_id, known in self.documents.items()
            if right.get(doc_id, 0) != known.n_tokens and youngest.get(doc_id, 0) <= self.under_way
        }

    def _belongs(self, row: Row, known: _Known | None) -> bool:
        """Tell whether a token row has the key of one of the document's own."""
        if known is None or row["token_id"] >= known.n_tokens:
            return False
        return not self.tables.versioned or row["generation"] == known.version

    # --- a sample

    async def some_ids(self) -> AsyncIterator[str]:
        """Yield ids from the beginning of the docs table, which is in the order of their hashes."""
        n_pages = 0
        async for page in self.client.pages(self.tables.docs, EXISTS, expected=WHOLE_TABLE):
            for row in page:
                if is_whole(row, EXISTS):
                    yield row["doc_id"]
            n_pages += 1
            if n_pages == _SAMPLED_PAGES:
                return

    async def sampled(self, doc_ids: Sequence[str], columns: Sequence[str] = ()) -> list[Row]:
        """Return the rows of sampled documents with their matrices and these columns, and count them."""
        read = ("doc_id", "n_tokens", "generation", "revision", "packed", *columns)
        rows = list((await self.reader.rows(doc_ids, read)).values())
        if not self.health.complete:
            self.health.documents = len(rows)
            self.health.tokens = sum(row["n_tokens"] for row in rows)
        return rows

    async def look_up(self, doc_ids: Sequence[str], rng: random.Random) -> None:
        """Look up one stored vector of each document: it should find itself first."""
        health, rows = self.health, await self.sampled(doc_ids)
        met: dict[str, int] = {}  # The oldest version met of each document.

        async def look_up_one(row: Row) -> None:
            await self._look_up_one(row, rng, met)

        await for_each_concurrently(
            look_up_one, [row for row in rows if row["n_tokens"]], self.client.concurrency
        )
        if not health.complete:
            orphans = met.keys() - await self.reader.existing(list(met))
            health.orphans = sorted(doc_id for doc_id in orphans if met[doc_id] <= self.under_way)
            health.young = sorted(orphans - set(health.orphans))

    async def _look_up_one(self, row: Row, rng: random.Random, met: dict[str, int]) -> None:
        health, version = self.health, token_version(row)
        vectors = self.unpacked(row)
        if vectors is None:
            return
        token_id = rng.randrange(len(vectors))
        vector = vectors[token_id]
        key = {"doc_id": row["doc_id"], "generation": version, "token_id": token_id}
        if not self.tables.versioned:
            del key["generation"]
        rows = await self._searcher.nearest(vector, self._depth, columns=("doc_id", "token_id", "generation"))
        for found in rows:
            met[found["doc_id"]] = min(found.get("generation", 0), met.get(found["doc_id"], 2**63))
        equal = (1 + float(vector @ vector)) / 2 - TIE
        similarities = [found["$similarity"] for found in rows]
        itself = [found["$similarity"] for found in rows if key.items() <= found.items()]
        # A list that ends among equal vectors is as good as one that has the vector itself.
        is_found = max(itself, default=0.0) >= equal or min(similarities, default=0.0) >= equal
        if not is_found:
            stored = await self._token_row(key)
            if not np.allclose(stored.get("token_embedding", np.inf), vector, atol=TIE):
                if stored.get("generation", 0) <= self.under_way and row["doc_id"] not in health.stale:
                    health.stale.append(row["doc_id"])
                return
        health.looked_up(similarities, itself, is_found=is_found)

    def unpacked(self, row: Row) -> FloatMatrix | None:
        """Return a document's matrix; None, and a difference noted, if it is not what the index was built with."""
        spec = self.health.spec
        wanted = f"{row['n_tokens']} x {spec.dim} {spec.packing}"
        try:
            packed = unpack_many([matrix_of(row)])
        except (StoreError, ValueError) as error:
            found = str(error)
        else:
            n_tokens, dim = packed.tokens.shape
            found = f"{n_tokens} x {dim} {packed.tokens.dtype.name}"
            if found == wanted:
                return packed.matrix(0)
        self.health.differences[f"packed matrix of {row['doc_id']!r}"] = (found, wanted)
        return None

    async def _token_row(self, key: Row) -> Row:
        """Return the vector and the version under a key; empty if there is no row."""
        columns = ("token_embedding", "generation")
        pages = self.client.pages(self.tables.tokens, columns, where=key, limit=1)
        rows = [row async for page in pages for row in page]
        return rows[0] if rows else {}

    # --- repair

    async def repair(self) -> None:
        """Delete what belongs to no document, and write anew the tokens of documents that lack some."""
        health = self.health
        for doc_id in health.torn:
            await self._writer.remove_torn_row(doc_id)
        orphans = set(health.orphans) - await self.reader.existing(health.orphans)  # Written since.
        if self.tables.versioned:
            surplus = {doc_id: self._leftover[doc_id] for doc_id in (*orphans, *health.surplus)}
            await self._writer.delete_versions(surplus)
            await self._writer.restore_tokens(health.stale)
        else:
            await self._writer.delete_versions(dict.fromkeys(orphans, ()))
            await self._writer.restore_tokens(sorted({*health.stale, *health.surplus}))
        health.repaired += health.leftovers
        health.orphans, health.stale, health.surplus, health.torn = [], [], [], []
