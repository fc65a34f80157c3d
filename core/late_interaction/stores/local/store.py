"""The embedded store: a folder with one SQLite file, which is the truth, and a centroid index, which is not.

    FOLDER/NAME/documents.sqlite3   documents, metadata as JSON, packed token matrices
    FOLDER/NAME/centroids.npz       the index; may be deleted at any time
    FOLDER/NAME/write.lock          held by the one process that writes

Every write gives a document a new, larger row id. The index covers the row ids up to its `last_rid`; what was
written later, and everything in a small collection, is scored exactly. So the index is never wrong, only
behind, and it is brought up to date in the background once what it does not cover is slow to score.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import logging
import math
import re
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from late_interaction.candidates import Scaling
from late_interaction.errors import IndexMismatchError, StoreError
from late_interaction.filters import Filter
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack_many
from late_interaction.stores.base import Candidates, Store
from late_interaction.stores.local.background import Background
from late_interaction.stores.local.centroids import CentroidIndex, empty_index, train_centroids
from late_interaction.stores.local.filters import to_json, to_sql
from late_interaction.stores.local.sqlite import SQLiteFile
from late_interaction.types import (
    Document,
    EncodedDocument,
    FloatMatrix,
    IndexSpec,
    QueryVectors,
    RaggedTokens,
)

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

EXACT_TOKENS = 80_000
"""Up to so many stored tokens, scoring them all is as fast as going through the index (benchmarks/local.py)."""

_CENTROIDS_PER_ROOT = 4
_SAMPLE_TOKENS_PER_CENTROID = 64
_RETRAIN_GROWTH = 4
_DELETED_SHARE = 0.2
_BATCH = 500
_FILTERS_KEPT = 16
_DOCUMENT = "doc_id, content, content_type, metadata"

_SCHEMA = """
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    rid INTEGER PRIMARY KEY AUTOINCREMENT,
    doc_id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    n_tokens INTEGER NOT NULL
);
CREATE TABLE vectors (
    rid INTEGER PRIMARY KEY REFERENCES documents (rid) ON DELETE CASCADE,
    packed BLOB NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Some documents in memory, ascending by row id."""

    rids: NDArray[np.int64]
    doc_ids: list[str]
    n_tokens: NDArray[np.int64]

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> _Rows:
        """All there are."""
        rows = connection.execute("SELECT rid, doc_id, n_tokens FROM documents ORDER BY rid").fetchall()
        rids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        n_tokens = np.fromiter((row[2] for row in rows), np.int64, len(rows))
        return cls(rids, [row[1] for row in rows], n_tokens)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> _Rows:
        doc_ids = [self.doc_ids[i] for i in np.flatnonzero(chosen)]
        return _Rows(self.rids[chosen], doc_ids, self.n_tokens[chosen])

    def __len__(self) -> int:
        return len(self.rids)

    def total_tokens(self) -> int:
        return int(self.n_tokens.sum())


@dataclass(frozen=True, slots=True)
class _View:
    """What a search needs to know of one generation of the file.

    Attributes:
        generation: counts the writes.
        index: the index in use, None where there is none.
        indexed: the documents in the index that are still there.
        positions: where each of those stands in `index.rids`.
        rid_of: the row id of each of those.
        rest: the documents that the index does not cover.
        rest_tokens: their packed matrices, None where they are too many to keep.
    """

    generation: int
    index: CentroidIndex | None
    indexed: _Rows
    positions: NDArray[np.int64]
    rid_of: dict[str, int]
    rest: _Rows
    rest_tokens: RaggedTokens | None


def _in_thread(
    method: Callable[Concatenate[LocalStore, P], T],
) -> Callable[Concatenate[LocalStore, P], Coroutine[Any, Any, T]]:
    """Make a method that blocks on the file one that is awaited, and that needs the index open."""

    async def run(self: LocalStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._opened()
        return await asyncio.to_thread(method, self, *args, **kwargs)

    functools.update_wrapper(run, method)
    return run


class LocalStore(Store):
    """An index in a folder on this machine; one process writes, any number search.

    Args:
        path: the folder; may hold several indexes.
        name: the index's name: letters, digits, `_`, `-` and `.`, at most 100, not beginning with a dot.
    """

    # Fitted by `benchmarks/local.py --fit` on 20,000 real documents of 80 tokens, so that recall is at least 0.97 for
    # k = 1 … 100.
    scaling = Scaling(
        ann_tokens=(6000.0, 0.0, 0.0),
        maxsim_candidates=(170.0, 28.0, -3.0),
        first_candidates=(100.0, 3.0, 0.0),
    )

    def __init__(self, path: str | Path, name: str = "late_interaction") -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(
                f"an index's name has 1 to 100 letters, digits, '_', '-' or '.' and begins with no dot; {name!r} "
                "does not."
            )
        self.name = name
        self.folder = Path(path).expanduser() / name
        self._file = SQLiteFile(self.folder / "documents.sqlite3")
        self._index_path = self.folder / "centroids.npz"
        self._spec: IndexSpec | None = None
        # Each is replaced whole, never changed, so that threads need no lock to read it.
        self._view: _View | None = None
        self._index: tuple[int, CentroidIndex | None] = (0, None)
        self._filtered: dict[Filter, NDArray[np.int64]] = {}
        self._builder = Background(self._build_index)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.folder)!r})"

    @property
    def location(self) -> str:
        """The index's folder."""
        return str(self.folder)

    # --- opening and closing

    async def spec(self) -> IndexSpec | None:
        """What the index in the folder was built with; None where there is none."""
        return await asyncio.to_thread(self._read_spec)

    async def open(self, spec: IndexSpec) -> None:
        """Create the index, or attach to it.

        Raises:
            IndexMismatchError: it was built with another spec.
            StoreLockedError: it is not there yet, and another process is creating it.
        """
        have = await asyncio.to_thread(self._read_spec)
        if have is None:
            await asyncio.to_thread(self._create, spec)
        elif differences := have.differences(spec):
            raise IndexMismatchError(self.location, differences)
        self._spec = spec

    def _read_spec(self) -> IndexSpec | None:
        if not self._file.path.exists():
            return None
        with self._file.reading() as connection:
            if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'properties'").fetchone():
                return None
            return IndexSpec.from_dict(json.loads(_property(connection, "spec")))

    def _create(self, spec: IndexSpec) -> None:
        properties = {"spec": json.dumps(spec.to_dict()), "index_id": uuid.uuid4().hex, "generation": "0"}
        with self._file.writing() as connection:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())

    def _opened(self) -> IndexSpec:
        if self._spec is None:
            raise StoreError(f"The index {self.location} is not open: call initialize() first.")
        return self._spec

    async def close(self) -> None:
        """Stop a running index build, close the file and let the writer lock go."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._builder.stop()
        self._file.close()
        self._spec, self._view, self._index = None, None, (0, None)

    async def drop(self) -> None:
        """Delete the index's files; its folder too, where nothing else is in it."""
        await asyncio.to_thread(self._drop)

    def _drop(self) -> None:
        if not self.folder.is_dir():
            return
        self._file.become_writer()
        self._close()
        for path in (*self.folder.glob("documents.sqlite3*"), *self.folder.glob("centroids.npz*")):
            path.unlink()
        self._file.lock_path.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    # --- writing

    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write documents in one transaction: after a kill, all of them are there or none is."""
        if await self._upsert(documents):
            self._builder.start()

    @_in_thread
    def _upsert(self, documents: Sequence[EncodedDocument]) -> bool:
        """Write, and say whether so much is outside the index now that it should be built."""
        packing = self._opened().packing
        rows = [
            (doc.doc_id, doc.content, doc.content_type, to_json(doc.metadata), len(encoded.matrix))
            for encoded in documents
            for doc in (encoded.document,)
        ]
        packed = [pack(encoded.matrix, packing) for encoded in documents]
        with self._changing() as connection:
            index = self._current_index(connection)
            last_rid = 0 if index is None else index.last_rid
            # The file may be an older one, put back beside a newer index, whose row ids are not to be used again.
            connection.execute(
                "UPDATE sqlite_sequence SET seq = ? WHERE name = 'documents' AND seq < ?",
                (last_rid, last_rid),
            )
            _delete(connection, [row[0] for row in rows])
            for row, blob in zip(rows, packed, strict=True):
                cursor = connection.execute(
                    "INSERT INTO documents (doc_id, content, content_type, metadata, n_tokens) VALUES (?, ?, ?, ?, ?)",
                    row,
                )
                connection.execute("INSERT INTO vectors VALUES (?, ?)", (cursor.lastrowid, blob))
            query = "SELECT coalesce(sum(n_tokens), 0) FROM documents WHERE rid > ?"
            outside = connection.execute(query, (last_rid,)).fetchone()[0]
            return int(outside) > EXACT_TOKENS

    @_in_thread
    def update_metadata(self, doc_id: str, metadata: dict[str, Any]) -> bool:
        """Set these metadata keys, leaving the others; False where there is no such id."""
        with self._changing() as connection:
            row = connection.execute(
                "SELECT rid, metadata FROM documents WHERE doc_id = ?", (doc_id,)
            ).fetchone()
            if row is None:
                return False
            merged = to_json({**json.loads(row[1]), **metadata})
            connection.execute("UPDATE documents SET metadata = ? WHERE rid = ?", (merged, row[0]))
            return True

    @_in_thread
    def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete by id or by filter in one transaction; returns how many documents there were."""
        with self._changing() as connection:
            if isinstance(selection, Sequence):
                return _delete(connection, selection)
            where, values = to_sql(selection)
            return connection.execute(f"DELETE FROM documents WHERE {where}", values).rowcount

    @_in_thread
    def clear(self) -> None:
        """Delete every document; the index stays open and empty."""
        with self._changing() as connection:
            connection.execute("DELETE FROM vectors")
            connection.execute("DELETE FROM documents")

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        """A write transaction that moves the generation on, so that every reader sees that something changed."""
        with self._file.writing() as connection:
            connection.execute("UPDATE properties SET value = value + 1 WHERE name = 'generation'")
            yield connection

    # --- reading

    @_in_thread
    def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Token matrices in the order asked, as they are packed: nothing is widened yet."""
        return self._matrices(doc_ids)

    @_in_thread
    def score(self, query: QueryVectors, doc_ids: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """Stage 2, in the thread that reads the matrices: to change threads takes as long as to score ten documents."""
        there, documents = self._matrices(doc_ids)
        return there, maxsim(query.vectors, documents, query.weights)

    def _matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        known = {} if self._view is None else self._view.rid_of
        rids = {known[doc_id]: doc_id for doc_id in doc_ids if doc_id in known}
        with self._file.reading() as connection:
            # By row id is three times as fast. A row id is never used again: a stale one finds nothing.
            by_rid = _select(connection, "rid, packed FROM vectors", "rid", list(rids))
            found = {rids[rid]: blob for rid, blob in by_rid}
            others = [doc_id for doc_id in doc_ids if doc_id not in found]
            by_id = "doc_id, packed FROM documents JOIN vectors USING (rid)"
            found.update(_select(connection, by_id, "doc_id", others))
        there = [doc_id for doc_id in doc_ids if doc_id in found]
        return there, unpack_many([found[doc_id] for doc_id in there], self._opened().dim)

    @_in_thread
    def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Stored documents in the order asked; ids that are not there are left out."""
        with self._file.reading() as connection:
            rows = list(_select(connection, f"{_DOCUMENT} FROM documents", "doc_id", doc_ids))
        found = {row[0]: _document(row) for row in rows}
        return [found[doc_id] for doc_id in doc_ids if doc_id in found]

    @_in_thread
    def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the index."""
        with self._file.reading() as connection:
            return {row[0] for row in _select(connection, "doc_id FROM documents", "doc_id", doc_ids)}

    @_in_thread
    def find(self, filter: Filter | None = None, *, limit: int | None = None) -> list[Document]:
        """Documents whose metadata match, in the order they were written."""
        where, values = _where(filter)
        query = f"SELECT {_DOCUMENT} FROM documents WHERE {where} ORDER BY rid LIMIT ?"
        with self._file.reading() as connection:
            return [
                _document(row) for row in connection.execute(query, [*values, -1 if limit is None else limit])
            ]

    @_in_thread
    def count(self, filter: Filter | None = None) -> int:
        """How many documents there are (that match)."""
        where, values = _where(filter)
        with self._file.reading() as connection:
            return int(
                connection.execute(f"SELECT count(*) FROM documents WHERE {where}", values).fetchone()[0]
            )

    async def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Every document with its token matrix, in the order they were written."""
        rid = 0
        while True:
            rid, batch = await self._scan(rid, batch_size)
            if not batch:
                return
            yield batch

    @_in_thread
    def _scan(self, after: int, batch_size: int) -> tuple[int, list[EncodedDocument]]:
        query = (
            f"SELECT {_DOCUMENT}, packed, rid FROM documents JOIN vectors USING (rid) "
            "WHERE rid > ? ORDER BY rid LIMIT ?"
        )
        with self._file.reading() as connection:
            rows = connection.execute(query, (after, batch_size)).fetchall()
        matrices = unpack_many([row[-2] for row in rows], self._opened().dim)
        encoded = [EncodedDocument(_document(row), matrices.matrix(i)) for i, row in enumerate(rows)]
        return (rows[-1][-1] if rows else after), encoded

    @_in_thread
    def info(self) -> dict[str, Any]:
        """Counts, sizes in bytes, and how much of the collection the centroid index covers."""
        with self._file.reading() as connection:
            view = self._current_view(connection)
            packed = connection.execute("SELECT coalesce(sum(length(packed)), 0) FROM vectors").fetchone()[0]
        return {
            "location": self.location,
            "documents": len(view.indexed) + len(view.rest),
            "tokens": view.indexed.total_tokens() + view.rest.total_tokens(),
            "packed_bytes": packed,
            "file_bytes": self._file.path.stat().st_size,
            "index_bytes": self._index_path.stat().st_size if self._index_path.exists() else 0,
            "centroids": 0 if view.index is None else len(view.index.centroids),
            "documents_in_index": len(view.indexed),
            "documents_scored_exactly": len(view.rest),
        }

    # --- searching

    @_in_thread
    def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Stage 1. A small collection, and the few documents that a filter leaves, are scored exactly."""
        with self._file.reading() as connection:
            view = self._current_view(connection)
            indexed, rest = np.ones(len(view.indexed), bool), np.ones(len(view.rest), bool)
            if filter is not None:
                allowed = self._allowed(connection, filter, view)
                indexed = np.isin(view.indexed.rids, allowed, assume_unique=True)
                rest = np.isin(view.rest.rids, allowed, assume_unique=True)
            parts = [_part(*self._score(connection, query, view.rest, rest, view.rest_tokens), n, exact=True)]
            n_indexed = int(indexed.sum())
            small = n_indexed <= n or int(view.indexed.n_tokens[indexed].sum()) <= EXACT_TOKENS
            everything = small or n_ann_tokens is None
            if everything and n_indexed:
                parts.append(_part(*self._score(connection, query, view.indexed, indexed), n, exact=True))
        if not everything and view.index is not None:
            assert n_ann_tokens is not None
            scores = view.index.approximate(query, n_ann_tokens)[view.positions]
            scores[~indexed] = -np.inf
            parts.append(_part(view.indexed.doc_ids, scores, n, exact=False))
        doc_ids = [doc_id for part in parts for doc_id in part[0]]
        scores, exact = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
        order = np.argsort(-scores, kind="stable")
        return Candidates(
            doc_ids=[doc_ids[i] for i in order.tolist()],
            scores=scores[order],
            exact=exact[order],
            bound=-math.inf if everything else math.inf,
            n_ann_tokens=None if everything else n_ann_tokens,
        )

    def _score(
        self,
        connection: sqlite3.Connection,
        query: QueryVectors,
        rows: _Rows,
        chosen: NDArray[np.bool_],
        tokens: RaggedTokens | None = None,
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Exact MaxSim of the chosen rows, from memory where `tokens` holds all of the rows."""
        if tokens is not None and chosen.all():
            return rows.doc_ids, maxsim(query.vectors, tokens, query.weights)
        rows = rows[chosen]
        scores = np.empty(len(rows), np.float32)
        packed = (blob for (blob,) in _select(connection, "packed FROM vectors", "rid", rows.rids.tolist()))
        for first in range(0, len(rows), _BATCH):
            batch = unpack_many(list(itertools.islice(packed, _BATCH)))
            scores[first : first + _BATCH] = maxsim(query.vectors, batch, query.weights)
        return rows.doc_ids, scores

    def _current_view(self, connection: sqlite3.Connection) -> _View:
        """The view of what `connection`'s transaction sees; kept until a write or a new index."""
        generation = int(_property(connection, "generation"))
        index = self._current_index(connection)
        view = self._view
        if view is not None and view.generation == generation and view.index is index:
            return view
        rows = _Rows.read(connection)
        in_index = np.isin(
            rows.rids, np.empty(0, np.int64) if index is None else index.rids, assume_unique=True
        )
        indexed, rest = rows[in_index], rows[~in_index]
        positions = np.empty(0, np.int64) if index is None else np.searchsorted(index.rids, indexed.rids)
        tokens = None
        if rest.total_tokens() <= 2 * EXACT_TOKENS:
            packed = [
                blob for (blob,) in _select(connection, "packed FROM vectors", "rid", rest.rids.tolist())
            ]
            tokens = unpack_many(packed, self._opened().dim)
        elif not self._builder.running():
            logger.warning(
                "%d of %d documents in %s are not in its search index yet and are searched one by one: call "
                "optimize() once.",
                len(rest),
                len(rows),
                self.location,
            )
        rid_of = dict(zip(indexed.doc_ids, indexed.rids.tolist(), strict=True))
        self._view, self._filtered = _View(generation, index, indexed, positions, rid_of, rest, tokens), {}
        return self._view

    def _current_index(self, connection: sqlite3.Connection) -> CentroidIndex | None:
        """The content of the index file, read again when the file has changed."""
        try:
            changed = self._index_path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._index[0] != changed:
            index_id = _property(connection, "index_id")
            self._index = (changed, CentroidIndex.load(self._index_path, index_id))
        return self._index[1]

    def _allowed(self, connection: sqlite3.Connection, filter: Filter, view: _View) -> NDArray[np.int64]:
        """The row ids that a filter leaves, kept because a chain asks with the same few filters again."""
        kept = self._filtered
        if view is not self._view or filter not in kept:
            where, values = to_sql(filter)
            rows = connection.execute(f"SELECT rid FROM documents WHERE {where}", values)
            rids = np.fromiter((row[0] for row in rows), np.int64)
            if view is not self._view:
                return rids
            self._filtered = {**dict(list(kept.items())[1 - _FILTERS_KEPT :]), filter: rids}
            return rids
        return kept[filter]

    # --- the index

    async def optimize(self, *, show_progress: bool = False) -> None:
        """Bring the centroid index up to date, if what it does not cover has become slow to score.

        Raises:
            StoreLockedError: another process is writing to this index; it keeps the index as well.
            StoreError: the index cannot be written; the documents are not touched.
        """
        self._opened()
        await asyncio.to_thread(self._builder.run, show_progress)

    def _build_index(self, tick: Callable[[], None], show_progress: bool = False) -> None:
        """Build or extend the index if it is due; `tick` raises when the build is to stop.

        No transaction stays open meanwhile, so that the write-ahead log can be emptied: a document that is
        deleted under the build is not found by it, and one that is written is above the index.
        """
        with self._file.reading() as connection:
            view = self._current_view(connection)
            rows, index_id = _Rows.read(connection), _property(connection, "index_id")
        index, n_tokens = view.index, rows.total_tokens()
        n_deleted = 0 if index is None else len(index.rids) - len(view.indexed)
        if view.rest.total_tokens() <= EXACT_TOKENS and n_deleted <= _DELETED_SHARE * len(view.indexed):
            return
        self._file.become_writer()
        if n_tokens <= EXACT_TOKENS:
            self._index_path.unlink(missing_ok=True)
            return
        if index is None or n_tokens > _RETRAIN_GROWTH * index.trained_tokens:
            centroids = self._train(rows, tick)
            if centroids is None:
                return
            base = empty_index(index_id, centroids, n_tokens)
        else:
            alive = np.zeros(len(index.rids), bool)
            alive[view.positions] = True
            base, rows = index.keep(alive), view.rest
        with tqdm(desc="Indexing", total=len(rows), unit="doc", disable=not show_progress) as bar:

            def batches() -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
                for rids, documents in self._read(rows.rids):
                    yield rids, documents
                    bar.update(len(rids))
                    tick()

            try:
                base.extend(batches()).save(self._index_path)
            except OSError as error:
                raise StoreError(
                    f"The search index of {self.location} could not be written: {error}. The documents are whole, and "
                    "are searched one by one until optimize() can write it."
                ) from error

    def _train(self, rows: _Rows, tick: Callable[[], None]) -> FloatMatrix | None:
        """Centroids of a sample of the token vectors, the same sample each time.

        None where documents were deleted meanwhile, and too few vectors are left: then no index is due any more.
        """
        n_centroids = 2 ** round(math.log2(_CENTROIDS_PER_ROOT * math.sqrt(rows.total_tokens())))
        share = min(1.0, n_centroids * _SAMPLE_TOKENS_PER_CENTROID / rows.total_tokens())
        rng, sample = np.random.default_rng(0), []
        # A few tokens of many documents: neighbours in one document are much alike, and teach less.
        for _, documents in self._read(rows.rids):
            chosen = np.flatnonzero(rng.random(len(documents.tokens)) < share)
            tokens = documents.tokens[chosen].astype(np.float32)
            sample.append(tokens if documents.scales is None else tokens * documents.scales[chosen, None])
            tick()
        if sum(map(len, sample)) < n_centroids:
            return None
        return train_centroids(np.concatenate(sample), n_centroids, tick=tick)

    def _read(self, rids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
        """Those of the row ids that are there, and their token matrices, a batch and a transaction at a time."""
        for first in range(0, len(rids), _BATCH):
            batch = rids[first : first + _BATCH].tolist()
            with self._file.reading() as connection:
                found = list(_select(connection, "rid, packed FROM vectors", "rid", batch))
            if found:
                yield np.array([rid for rid, _ in found], np.int64), unpack_many([blob for _, blob in found])


def _part(
    doc_ids: list[str], scores: NDArray[np.float32], n: int, *, exact: bool
) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
    """The `n` best of some scored documents, without those at minus infinity."""
    best = np.argpartition(-scores, n - 1)[:n] if n < len(scores) else np.arange(len(scores))
    best = best[np.isfinite(scores[best])]
    return [doc_ids[i] for i in best.tolist()], scores[best], np.full(len(best), exact)


def _property(connection: sqlite3.Connection, name: str) -> str:
    value: str = connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchone()[0]
    return value


def _document(row: tuple[Any, ...]) -> Document:
    return Document(row[0], row[1], row[2], json.loads(row[3]))


def _where(filter: Filter | None) -> tuple[str, list[Any]]:
    return ("1", []) if filter is None else to_sql(filter)


def _select(
    connection: sqlite3.Connection, what: str, key: str, values: Sequence[str] | Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    """`SELECT {what} WHERE {key} IN values`, a batch of values at a time; ascending by key in each batch.

    To be read while the connection is held: afterwards another thread may have it.
    """
    for first in range(0, len(values), _BATCH):
        batch = values[first : first + _BATCH]
        marks = ", ".join("?" * len(batch))
        yield from connection.execute(f"SELECT {what} WHERE {key} IN ({marks})", batch)


def _delete(connection: sqlite3.Connection, doc_ids: Sequence[str]) -> int:
    # Ids are bound one by one: as JSON, SQLite would read an id only up to its first NUL.
    return connection.executemany("DELETE FROM documents WHERE doc_id = ?", ((i,) for i in doc_ids)).rowcount
