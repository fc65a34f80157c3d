"""What state an index on Astra is in: definitions, leftovers of crashes, and what its vector index finds.

A search is right in any of these states; it only finds less, or looks at more than it must. The recall of the
service's vector index can sink without an error anywhere, after a compaction for example, so it is measured: a
stored vector is looked up, and must find itself first.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from late_interaction.errors import IndexMismatchError, IndexNotFoundError, StoreError
from late_interaction.packing import unpack_many
from late_interaction.stores.astra.client import Row, in_parallel, together
from late_interaction.stores.astra.schema import Tables, fields_of
from late_interaction.stores.astra.store import AstraStore
from late_interaction.stores.astra.writing import from_binary
from late_interaction.types import FloatMatrix, IndexSpec

RECALL_WANTED = 0.95
"""Of stored vectors that find themselves first; published values of a healthy index are 0.96 and above."""

_SAMPLED_PAGES = 40
_TIE = 1e-3
"""Vectors this similar are taken as equal: stored as float16, they are not quite of length 1."""
_WHOLE_TABLE = ("ZERO_FILTER_OPERATIONS",)


@dataclass(slots=True)
class Health:
    """What `diagnose` found.

    Attributes:
        location: index, keyspace and host.
        spec: what the index was built with.
        differences: tables, indexes and packed matrices (of the sample) that are not as they should be:
            name -> (found, wanted).
        complete: every row was read, so that the lists below are complete; else they are of a sample.
        documents: how many rows of documents were read.
        tokens: how many token vectors they have.
        orphans: ids that have tokens and no document.
        stale: ids of documents whose tokens are missing, or are of another version, or have other metadata.
        surplus: ids of documents that have tokens beyond their last.
        torn: ids in the docs table that are no documents: a row deleted while its metadata were updated.
        sampled: stored vectors that were looked up.
        found_first: of those, how many found themselves first (or an equal vector).
        found: of those, how many found themselves at all.
        repaired: how many of the ids above, and of the indexes that were missing, were put right.
    """

    location: str
    spec: IndexSpec
    differences: dict[str, tuple[object, object]] = field(default_factory=dict)
    complete: bool = False
    documents: int = 0
    tokens: int = 0
    orphans: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    sampled: int = 0
    found_first: int = 0
    found: int = 0
    repaired: int = 0

    @property
    def recall(self) -> float:
        """The share of stored vectors that find themselves first; 1 where there is none."""
        return self.found_first / self.sampled if self.sampled else 1.0

    @property
    def leftovers(self) -> int:
        """How many ids have something wrong with their rows."""
        return len({*self.orphans, *self.stale, *self.surplus, *self.torn})

    @property
    def healthy(self) -> bool:
        """Nothing to repair, and a recall as it should be."""
        return not self.differences and not self.leftovers and self.recall >= RECALL_WANTED

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            **values,
            "spec": self.spec.to_dict(),
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "recall": self.recall,
            "healthy": self.healthy,
        }


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
        store: opened here, as what it is.
        sample: how many stored vectors to look up, of as many documents. 0 leaves the recall unmeasured.
        full: read every row of both tables, without vectors (a request for each 50 tokens). Without it the sampled
            documents are checked alone, and orphans are found only where a lookup meets one.
        repair: put right what is found: delete orphans and surplus, write stale tokens anew from the documents' own
            matrices, and create indexes that are missing. Needs `full`.
        older_than_s: tokens without their document that are younger are left alone: it may be under way.
        expected: what the index should be built with; a difference is one of the definitions.
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
    row = await store.catalogue_row()
    if row is None:
        raise IndexNotFoundError(f"There is no index {store.location}.")
    spec = IndexSpec.from_dict(json.loads(row["spec"]))
    health = Health(store.location, spec, complete=full)
    if expected is not None:
        health.differences |= spec.differences(expected)
    tables = Tables(store.name, spec.dim, fields_of(json.loads(row["filterable"])))
    there = await store.requests.tables()
    differences = await store.differences(tables, there)
    if repair:
        differences = await _create_missing_indexes(store, tables, differences, health)
    health.differences |= differences
    if differences:
        return health  # Nothing below can be relied on.
    try:
        await store.open(spec)
    except IndexMismatchError as error:
        health.differences |= error.differences
        return health
    chances = random.Random(seed)  # noqa: S311
    under_way = time.time_ns() - round(older_than_s * 1e9)
    if full:
        documents = await _documents(store, tables, health, show_progress=show_progress)
        await _compare_tokens(store, tables, documents, health, under_way, show_progress=show_progress)
        chosen = chances.sample(sorted(documents), min(sample, len(documents)))
    else:
        some = [doc_id async for doc_id in _some_ids(store, tables)]
        chosen = chances.sample(some, min(sample, len(some)))
    await _look_up(store, tables, chosen, health, under_way, chances)
    if repair:
        await _repair(store, tables, health)
    return health


async def _create_missing_indexes(
    store: AstraStore, tables: Tables, differences: dict[str, tuple[object, object]], health: Health
) -> dict[str, tuple[object, object]]:
    for table, indexes in tables.indexes().items():
        for name, definition in indexes.items():
            if differences.get(f"index {name} on {table}", (True,))[0] is None:
                await store.requests.create_index(table, name, definition, vector="options" in definition)
                health.repaired += 1
    return await store.differences(tables, await store.requests.tables())


async def _documents(
    store: AstraStore, tables: Tables, health: Health, *, show_progress: bool
) -> dict[str, tuple[int, int, Row]]:
    """Of each document: number of tokens, generation, and columns of declared fields."""
    columns = [field.column for field in tables.fields.values()]
    documents = {}
    with tqdm(desc="Documents", unit="doc", disable=not show_progress) as bar:
        async for page in store.requests.pages(
            tables.docs, ["doc_id", "n_tokens", "generation", *columns], expected=_WHOLE_TABLE
        ):
            for row in page:
                if "n_tokens" not in row or "generation" not in row:
                    health.torn.append(row["doc_id"])
                    continue
                cells = {column: row.get(column) for column in columns}
                documents[row["doc_id"]] = (row["n_tokens"], row["generation"], cells)
                health.tokens += row["n_tokens"]
            bar.update(len(page))
    health.documents = len(documents)
    return documents


async def _compare_tokens(
    store: AstraStore,
    tables: Tables,
    documents: dict[str, tuple[int, int, Row]],
    health: Health,
    under_way: int,
    *,
    show_progress: bool,
) -> None:
    columns = [field.column for field in tables.fields.values()]
    right: dict[str, int] = {}
    youngest: dict[str, int] = {}
    surplus: set[str] = set()
    with tqdm(desc="Tokens", unit="row", total=health.tokens, disable=not show_progress) as bar:
        async for page in store.requests.pages(
            tables.tokens, ["doc_id", "token_id", "generation", *columns], expected=_WHOLE_TABLE
        ):
            for row in page:
                doc_id, generation = row["doc_id"], row.get("generation", 0)
                youngest[doc_id] = max(youngest.get(doc_id, 0), generation)
                if doc_id not in documents:
                    continue
                n_tokens, written, cells = documents[doc_id]
                if row["token_id"] >= n_tokens:
                    surplus.add(doc_id)
                elif generation == written and all(row.get(column) == cells[column] for column in columns):
                    right[doc_id] = right.get(doc_id, 0) + 1
            bar.update(len(page))
    old = {doc_id for doc_id, generation in youngest.items() if generation <= under_way}
    orphans = sorted(old - documents.keys())
    # Some may have been written since the documents were read.
    health.orphans = sorted(set(orphans) - await store.existing(orphans))
    stale = {doc_id for doc_id, (n_tokens, _, _) in documents.items() if right.get(doc_id, 0) != n_tokens}
    health.stale = sorted(doc_id for doc_id in stale if youngest.get(doc_id, 0) <= under_way)
    health.surplus = sorted(surplus & old)


async def _some_ids(store: AstraStore, tables: Tables) -> AsyncIterator[str]:
    """Ids from the beginning of the docs table, which is in the order of their hashes."""
    n_pages = 0
    async for page in store.requests.pages(tables.docs, ("doc_id", "n_tokens"), expected=_WHOLE_TABLE):
        for row in page:
            if "n_tokens" in row:
                yield row["doc_id"]
        n_pages += 1
        if n_pages == _SAMPLED_PAGES:
            return


async def _look_up(
    store: AstraStore,
    tables: Tables,
    doc_ids: Sequence[str],
    health: Health,
    under_way: int,
    chances: random.Random,
) -> None:
    """Look up one stored vector of each document."""
    depth = store.scaling.n_ann_tokens(10)
    met: set[str] = set()

    async def one(row: Row) -> None:
        vectors = _unpacked(row, health)
        if vectors is None:
            return
        token_id = chances.randrange(len(vectors))
        vector = vectors[token_id]
        rows = await store.nearest(vector, depth, columns=("doc_id", "token_id", "generation"))
        met.update(found["doc_id"] for found in rows if found.get("generation", 0) <= under_way)
        own, equal = (row["doc_id"], token_id), (1 + float(vector @ vector)) / 2 - _TIE
        similarities = [found["$similarity"] for found in rows]
        itself = [found["$similarity"] for found in rows if (found["doc_id"], found["token_id"]) == own]
        # A list that ends among equal vectors is as good as one that has the vector itself.
        is_found = max(itself, default=0.0) >= equal or min(similarities, default=0.0) >= equal
        if not is_found:
            stored = await _token_row(store, tables, own)
            if not np.allclose(stored.get("token_embedding", np.inf), vector, atol=_TIE):
                if stored.get("generation", 0) <= under_way and row["doc_id"] not in health.stale:
                    health.stale.append(row["doc_id"])
                return
        health.sampled += 1
        health.found += is_found
        health.found_first += is_found and (not itself or max(itself) >= max(similarities) - _TIE)

    rows = await _packed(store, tables, doc_ids)
    if not health.complete:
        health.documents = len(rows)
        health.tokens = sum(row["n_tokens"] for row in rows)
    await in_parallel(one, rows, store.requests.concurrency)
    if not health.complete:
        health.orphans = sorted(met - await store.existing(sorted(met)))


def _unpacked(row: Row, health: Health) -> FloatMatrix | None:
    """The matrix of a document; None, and a difference noted, where it is not what the fingerprint says."""
    wanted = f"{row['n_tokens']} x {health.spec.dim} {health.spec.packing}"
    try:
        packed = unpack_many([from_binary(row["packed"])])
    except (StoreError, ValueError) as error:
        found = str(error)
    else:
        n_tokens, dim = packed.tokens.shape
        found = f"{n_tokens} x {dim} {packed.tokens.dtype.name}"
        if found == wanted:
            return packed.matrix(0)
    health.differences[f"packed matrix of {row['doc_id']!r}"] = (found, wanted)
    return None


async def _packed(store: AstraStore, tables: Tables, doc_ids: Sequence[str]) -> list[Row]:
    groups = [doc_ids[i : i + 20] for i in range(0, len(doc_ids), 20)]

    async def read(group: Sequence[str]) -> list[Row]:
        where = {"doc_id": {"$in": list(group)}}
        columns = ("doc_id", "n_tokens", "packed")
        pages = store.requests.pages(tables.docs, columns, where=where, limit=len(group))
        return [row async for page in pages for row in page if "packed" in row]

    return [row for rows in await together([read(group) for group in groups]) for row in rows]


async def _token_row(store: AstraStore, tables: Tables, key: tuple[str, int]) -> Row:
    """The vector and the generation under this key; empty where there is none."""
    where = {"doc_id": key[0], "token_id": key[1]}
    pages = store.requests.pages(tables.tokens, ("token_embedding", "generation"), where=where, limit=1)
    rows = [row async for page in pages for row in page]
    return rows[0] if rows else {}


async def _repair(store: AstraStore, tables: Tables, health: Health) -> None:
    async def delete(table: str, command: str, doc_id: str) -> None:
        await store.requests.command(table, {command: {"filter": {"doc_id": doc_id}}})

    suspects = {*health.orphans, *health.torn}
    suspects -= await store.existing(sorted(suspects))  # Written since.
    for doc_id in sorted(suspects):
        if doc_id in health.torn:
            await delete(tables.docs, "deleteOne", doc_id)
        await delete(tables.tokens, "deleteMany", doc_id)
    broken = sorted({*health.stale, *health.surplus})
    for i in range(0, len(broken), 100):
        await store.restore_tokens(broken[i : i + 100])
    health.repaired += health.leftovers
    health.orphans, health.stale, health.surplus, health.torn = [], [], [], []
