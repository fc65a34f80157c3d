"""What a search keeps in memory of the embedded store: which documents exist, and which of them the index covers."""

from __future__ import annotations

import logging
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.filters import Filter
from late_interaction.packing import unpack_many
from late_interaction.stores.local.centroids import CentroidIndex
from late_interaction.stores.local.filters import to_sql
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.tables import read_property, select_in
from late_interaction.types import RaggedTokens

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some documents in memory, ascending by row id."""

    row_ids: NDArray[np.int64]
    doc_ids: list[str]
    n_tokens: NDArray[np.int64]

    @classmethod
    def read(cls, connection: sqlite3.Connection) -> Rows:
        """Read all documents."""
        rows = connection.execute("SELECT rid, doc_id, n_tokens FROM documents ORDER BY rid").fetchall()
        row_ids = np.fromiter((row[0] for row in rows), np.int64, len(rows))
        n_tokens = np.fromiter((row[2] for row in rows), np.int64, len(rows))
        return cls(row_ids, [row[1] for row in rows], n_tokens)

    def __getitem__(self, chosen: NDArray[np.bool_]) -> Rows:
        doc_ids = [self.doc_ids[i] for i in np.flatnonzero(chosen)]
        return Rows(self.row_ids[chosen], doc_ids, self.n_tokens[chosen])

    def __len__(self) -> int:
        return len(self.row_ids)

    def total_tokens(self) -> int:
        """Return how many tokens the documents have together."""
        return int(self.n_tokens.sum())


@dataclass(frozen=True, slots=True)
class View:
    """What a search needs to know of one generation of the file.

    Attributes:
        generation: counts the writes.
        index: the index in use, or None.
        indexed: the documents in the index that still exist.
        positions: the position of each of those in `index.row_ids`.
        row_id_of: the row id of each of those.
        unindexed: the documents that the index does not cover.
        unindexed_tokens: their packed matrices, or None if they are too many to keep.
    """

    generation: int
    index: CentroidIndex | None
    indexed: Rows
    positions: NDArray[np.int64]
    row_id_of: dict[str, int]
    unindexed: Rows
    unindexed_tokens: RaggedTokens | None


class Views:
    """Keeps the view of the newest generation seen, the index file's content and the row ids of recent filters.

    These are replaced, never mutated, so threads need no lock to read them.

    Attributes:
        index_path: the index file.
        latest: the newest view, or None.
        dim: the width of a token vector; set when the index is opened.
    """

    def __init__(self, index_path: Path, limits: Limits) -> None:
        self.index_path = index_path
        self.latest: View | None = None
        self.dim = 0
        self._limits = limits
        self.forget()

    def forget(self) -> None:
        """Drop everything, as when the file is closed or is another one now."""
        self.latest = None
        self._index: tuple[int, CentroidIndex | None] = (0, None)
        self._filtered: dict[Filter, NDArray[np.int64]] = {}

    def current(self, connection: sqlite3.Connection, *, quiet: bool) -> View:
        """Return the view of what `connection`'s transaction sees; it is kept until a write or a new index.

        Args:
            connection: in a read transaction.
            quiet: do not warn of documents that wait for the index.
        """
        generation = int(read_property(connection, "generation"))
        index = self.index(connection)
        view = self.latest
        if view is not None and view.generation == generation and view.index is index:
            return view
        rows = Rows.read(connection)
        covered = np.empty(0, np.int64) if index is None else index.row_ids
        in_index = np.isin(rows.row_ids, covered, assume_unique=True)
        indexed, unindexed = rows[in_index], rows[~in_index]
        positions = np.searchsorted(covered, indexed.row_ids)
        tokens = None
        if unindexed.total_tokens() <= 2 * self._limits.exact_tokens:
            packed = [
                blob
                for (blob,) in select_in(connection, "packed FROM vectors", "rid", unindexed.row_ids.tolist())
            ]
            tokens = unpack_many(packed, self.dim)
        elif not quiet:
            logger.warning(
                "%d of %d documents in %s are not in its search index yet and are searched one by one: call "
                "optimize() once.",
                len(unindexed),
                len(rows),
                self.index_path.parent,
            )
        row_id_of = dict(zip(indexed.doc_ids, indexed.row_ids.tolist(), strict=True))
        self.latest = View(generation, index, indexed, positions, row_id_of, unindexed, tokens)
        self._filtered = {}
        return self.latest

    def index(self, connection: sqlite3.Connection) -> CentroidIndex | None:
        """Return the content of the index file, read again when the file has changed."""
        try:
            changed = self.index_path.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if self._index[0] != changed:
            index_id = read_property(connection, "index_id")
            self._index = (changed, CentroidIndex.load(self.index_path, index_id))
        return self._index[1]

    def allowed(self, connection: sqlite3.Connection, filter: Filter, view: View) -> NDArray[np.int64]:
        """Return the row ids that match a filter, kept because a chain asks with the same few filters again."""
        kept = self._filtered
        if view is self.latest and filter in kept:
            return kept[filter]
        where, values = to_sql(filter)
        rows = connection.execute(f"SELECT rid FROM documents WHERE {where}", values)
        row_ids = np.fromiter((row[0] for row in rows), np.int64)
        if view is self.latest:
            newest = list(kept.items())[1 - self._limits.filters_kept :]
            self._filtered = {**dict(newest), filter: row_ids}
        return row_ids
