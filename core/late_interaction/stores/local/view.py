"""What a search keeps in memory of the embedded store: which documents exist, and which of them the index covers."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.filters import Filter
from late_interaction.packing import unpack_many
from late_interaction.stores.local.allowed import Allowed
from late_interaction.stores.local.buffer import TokenBuffer, chosen_matrices
from late_interaction.stores.local.centroids import CentroidIndex
from late_interaction.stores.local.ids import Ids, IdTable
from late_interaction.stores.local.index_file import UnusableIndexError, load_index
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.sqlite import ChangedMeanwhileError
from late_interaction.stores.local.tables import (
    BATCH,
    State,
    begin_again,
    last_row_id,
    read_changes,
    read_state,
    select_in,
)
from late_interaction.stores.local.terms import find_matching
from late_interaction.types import RaggedTokens

logger = logging.getLogger(__name__)

_NO_ROW_IDS = np.empty(0, np.int64)
_MOST_DELETED = 64
_BELOW_ALL = -(2**63)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some documents, ascending by row id. Deleted ones keep their place and are not `alive`.

    Attributes:
        row_ids: (n,) int64.
        ids: n ids; of a deleted document it may be anything.
        n_tokens: (n,) int32.
        alive: (n,) bool.
        n_alive: how many are alive.
        tokens_alive: how many tokens those have together.
    """

    row_ids: NDArray[np.int64]
    ids: Ids
    n_tokens: NDArray[np.int32]
    alive: NDArray[np.bool_]
    n_alive: int
    tokens_alive: int

    @classmethod
    def make(
        cls,
        row_ids: NDArray[np.int64],
        ids: Ids,
        n_tokens: NDArray[np.int32],
        alive: NDArray[np.bool_] | None = None,
    ) -> Rows:
        """Make rows, and count those alive; by default all are."""
        if alive is None:
            alive = np.ones(len(row_ids), bool)
        return cls(row_ids, ids, n_tokens, alive, int(alive.sum()), int(n_tokens[alive].sum()))

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Return the rows of one part after the other, each above the one before."""
        return cls(
            np.concatenate([np.empty(0, np.int64), *(part.row_ids for part in parts)]),
            Ids.joined([part.ids for part in parts]),
            np.concatenate([np.empty(0, np.int32), *(part.n_tokens for part in parts)]),
            np.concatenate([np.empty(0, bool), *(part.alive for part in parts)]),
            sum(part.n_alive for part in parts),
            sum(part.tokens_alive for part in parts),
        )

    def without(self, deleted: NDArray[np.int64]) -> Rows:
        """Return the rows, those that were deleted no longer alive."""
        positions = np.searchsorted(self.row_ids, deleted)
        found = positions < len(self.row_ids)
        positions, deleted = positions[found], deleted[found]
        positions = positions[(self.row_ids[positions] == deleted) & self.alive[positions]]
        if not len(positions):
            return self
        alive = self.alive.copy()
        alive[positions] = False
        n_tokens = int(self.n_tokens[positions].sum())
        return replace(
            self,
            alive=alive,
            n_alive=self.n_alive - len(positions),
            tokens_alive=self.tokens_alive - n_tokens,
        )

    def compacted(self) -> Rows:
        """Return only the rows that are alive."""
        alive = self.alive
        return Rows.make(self.row_ids[alive], self.ids.chosen(alive), self.n_tokens[alive])


@dataclass(frozen=True, slots=True)
class View:
    """What a search needs to know of one state of the file. A view never changes.

    Attributes:
        state: the state.
        last_row_id: no document of this state has a larger row id.
        index: the index in use, or None.
        indexed: the documents of the index, in its order.
        table: where in `indexed` each document is that was in the index when it was first read.
        unindexed: the documents that the index does not cover.
        matrices: the packed matrices of all of those, or None if they are too many to keep.
        buffer: the memory of those.
    """

    state: State
    last_row_id: int
    index: CentroidIndex | None
    indexed: Rows
    table: IdTable
    unindexed: Rows
    matrices: RaggedTokens | None
    buffer: TokenBuffer


class Views:
    """Keeps the newest view, the index file's content, and which documents recent filters allow.

    A view of the next state is made of the one before and of what changed; only when the index is another one, or the
    file does not tell what changed, is everything read again.

    Attributes:
        index_path: the index file.
        latest: the newest view, or None.
        dim: the width of a token vector; set when the index is opened.
    """

    def __init__(self, index_path: Path, limits: Limits) -> None:
        self.index_path = index_path
        self.dim = 0
        self._limits = limits
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Drop everything, as when the file is closed or is another one now."""
        self.latest: View | None = None
        self._loaded: tuple[object, CentroidIndex | None] | None = None
        self._allowed: dict[Filter, Allowed] = {}

    def current(self, connection: sqlite3.Connection, *, quiet: bool) -> View:
        """Return the view of what `connection`'s transaction sees.

        The transaction is begun anew if it sees an earlier state than another thread's view: a view grows only.

        Args:
            connection: in a read transaction.
            quiet: do not warn of documents that wait for the index.
        """
        if (view := self._if_current(connection)) is not None:
            return view
        if self._pid != os.getpid():  # Another thread may have held the lock when the process forked.
            self._pid, self._lock = os.getpid(), threading.Lock()
        with self._lock:
            state = read_state(connection)
            if self.latest is not None and self.latest.state.generation > state.generation:
                begin_again(connection)
                if read_state(connection).index_id != state.index_id:
                    raise ChangedMeanwhileError(
                        f"The index in {self.index_path.parent} was replaced meanwhile."
                    )
                state = read_state(connection)
            if (view := self._if_current(connection)) is not None:
                return view
            index = self.index(connection, state)
            view = self.latest
            grown = None
            if view is not None and view.index is index:
                grown = self._grow(connection, view, state, quiet=quiet)
            self.latest = grown or self._read(connection, state, index, quiet=quiet)
            return self.latest

    def _if_current(self, connection: sqlite3.Connection) -> View | None:
        view = self.latest
        state = read_state(connection)
        if view is not None and view.state == state and view.index is self.index(connection, state):
            return view
        return None

    def _read(
        self, connection: sqlite3.Connection, state: State, index: CentroidIndex | None, *, quiet: bool
    ) -> View:
        """Make a view of all documents but the blank ones, which have no vectors and are never found."""
        rows = _read_rows(connection)
        row_ids, n_rows = rows.row_ids, len(rows.row_ids)
        covered = _NO_ROW_IDS if index is None else index.row_ids
        positions = np.searchsorted(covered, row_ids)
        in_index = np.zeros(n_rows, bool)
        below = positions < len(covered)
        in_index[below] = covered[positions[below]] == row_ids[below]
        if np.any(below & ~in_index):
            self._reject("it leaves out documents below its last one")
            return self._read(connection, state, None, quiet=quiet)
        n_in_index = int(in_index.sum())  # Those come first: the others have larger row ids.
        positions = positions[:n_in_index]
        ids = rows.ids.part(0, n_in_index).spread(positions, len(covered))
        n_tokens, alive = np.zeros(len(covered), np.int32), np.zeros(len(covered), bool)
        n_tokens[positions], alive[positions] = rows.n_tokens[:n_in_index], True
        indexed = Rows.make(covered, ids, n_tokens, alive)
        # Copies, so that those in the index are not kept twice.
        unindexed = Rows.make(
            row_ids[n_in_index:].copy(), rows.ids.part(n_in_index, n_rows), rows.n_tokens[n_in_index:].copy()
        )
        matrices, buffer = None, TokenBuffer()
        if self._fits(unindexed):
            matrices = buffer.extended(None, self._packed(connection, unindexed.row_ids))
        elif not quiet:
            self._warn(unindexed, indexed)
        self._allowed = {}
        return View(
            state=state,
            last_row_id=int(row_ids[-1]) if n_rows else 0,
            index=index,
            indexed=indexed,
            table=IdTable.of(ids, positions),
            unindexed=unindexed,
            matrices=matrices,
            buffer=buffer,
        )

    def _grow(self, connection: sqlite3.Connection, view: View, state: State, *, quiet: bool) -> View | None:
        """Make the view of a later state; None if everything is to be read again."""
        changes = read_changes(connection, view.state, state)
        if changes is None:
            return None
        deleted, updated = changes
        rows = _read_rows(connection, view.last_row_id)
        unindexed = view.unindexed.without(deleted)
        if rows.n_alive:
            unindexed = Rows.joined([unindexed, rows])
        matrices, buffer = view.matrices, view.buffer
        if matrices is None and self._fits(unindexed):
            return None
        if matrices is not None and not self._fits(unindexed):
            matrices = None
            if not quiet:
                self._warn(unindexed, view.indexed)
        if matrices is not None and rows.n_alive:
            matrices = buffer.extended(matrices, self._packed(connection, rows.row_ids))
        if len(unindexed.row_ids) - unindexed.n_alive > max(_MOST_DELETED, unindexed.n_alive):
            if matrices is not None:
                buffer = TokenBuffer()
                matrices = buffer.extended(None, chosen_matrices(matrices, unindexed.alive))
            unindexed = unindexed.compacted()
        self._allowed = {key: allowed.marked(updated) for key, allowed in self._allowed.items()}
        return replace(
            view,
            state=state,
            last_row_id=int(rows.row_ids[-1]) if rows.n_alive else view.last_row_id,
            indexed=view.indexed.without(deleted),
            unindexed=unindexed,
            matrices=matrices,
            buffer=buffer,
        )

    def _fits(self, unindexed: Rows) -> bool:
        return unindexed.tokens_alive <= 2 * self._limits.exact_tokens

    def _packed(self, connection: sqlite3.Connection, row_ids: NDArray[np.int64]) -> RaggedTokens:
        packed = select_in(connection, "packed FROM vectors", "rid", row_ids.tolist())
        tokens = unpack_many([blob for (blob,) in packed], self.dim)
        if len(tokens) != len(row_ids) or tokens.tokens.shape[1] != self.dim:
            raise StoreError(
                f"The index in {self.index_path.parent} is damaged: token matrices are missing or have another width "
                f"than {self.dim}. Put a backup in its place."
            )
        return tokens

    def _warn(self, unindexed: Rows, indexed: Rows) -> None:
        logger.warning(
            "%d of %d documents in %s are not in its search index yet and are searched one by one: call optimize() "
            "once.",
            unindexed.n_alive,
            unindexed.n_alive + indexed.n_alive,
            self.index_path.parent,
        )

    # --- the index file

    def index(self, connection: sqlite3.Connection, state: State) -> CentroidIndex | None:
        """Return the content of the index file, read again when it is another file; None if it is not to be used."""
        try:
            status = self.index_path.stat()
        except OSError:
            return None
        loaded = self._loaded
        if loaded is not None:
            index = loaded[1]
            if (
                index is not None
                and state.build
                and (index.index_id, index.build_id) == (state.index_id, state.build)
            ):
                return index
        key = (state.index_id, state.build, status.st_mtime_ns, status.st_size, status.st_ino)
        if loaded is None or loaded[0] != key:
            loaded = (key, self._load(connection, state))
            self._loaded = loaded
        return loaded[1]

    def _load(self, connection: sqlite3.Connection, state: State) -> CentroidIndex | None:
        try:
            index = load_index(self.index_path, self.dim)
        except UnusableIndexError as error:
            logger.warning("%s", self._about_unusable(str(error)))
            return None
        if (index.index_id, index.build_id) != (state.index_id, state.build or ""):
            logger.info("%s", self._about_unusable("it belongs to another state of the documents"))
            return None
        if index.last_row_id > last_row_id(connection):
            logger.warning("%s", self._about_unusable("it has row ids that no document ever had"))
            return None
        return index

    def _reject(self, reason: str) -> None:
        if self._loaded is not None:
            self._loaded = (self._loaded[0], None)
        logger.warning("%s", self._about_unusable(reason))

    def _about_unusable(self, reason: str) -> str:
        return (
            f"The search index {self.index_path} is not used: {reason}. The answers are right all the same; optimize() "
            "builds it anew."
        )

    # --- filters

    def allowed(
        self, connection: sqlite3.Connection, filter: Filter, view: View
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which of a view's indexed, and which of its unindexed documents are alive and match a filter."""
        known = self._allowed.get(filter) if self.latest is view else None
        allowed = known or self._asked(connection, filter, view)
        allowed = allowed.completed(connection, view.indexed.row_ids, view.last_row_id)
        if allowed is not known:
            with self._lock:
                if self.latest is view:  # Else something was written meanwhile.
                    kept = [item for item in self._allowed.items() if item[0] != filter]
                    self._allowed = dict([*kept, (filter, allowed)][-self._limits.filters_kept :])
        others = np.isin(view.unindexed.row_ids, allowed.others, assume_unique=True)
        return allowed.indexed & view.indexed.alive, others & view.unindexed.alive

    @staticmethod
    def _asked(connection: sqlite3.Connection, filter: Filter, view: View) -> Allowed:
        """Ask the index of metadata; return that nothing is known where it cannot tell."""
        row_ids = np.concatenate([view.indexed.row_ids, view.unindexed.row_ids])
        n_indexed = len(view.indexed.row_ids)
        mask = find_matching(connection, view.state.generation, filter, row_ids)
        if mask is None:
            return Allowed.nothing_known(filter, n_indexed)
        return Allowed.all_known(
            filter, mask[:n_indexed], row_ids[n_indexed:][mask[n_indexed:]], view.last_row_id
        )


def _read_rows(connection: sqlite3.Connection, above: int = _BELOW_ALL) -> Rows:
    """Read the documents with vectors whose row id is above one, some at a time."""
    query = "SELECT rid, doc_id, n_tokens FROM documents WHERE rid > ? AND n_tokens != 0 ORDER BY rid"
    with closing(connection.execute(query, (above,))) as cursor:
        return Rows.joined([_rows(batch) for batch in iter(lambda: cursor.fetchmany(BATCH), [])])


def _rows(batch: list[tuple[int, str, int]]) -> Rows:
    try:
        row_ids = np.fromiter((row[0] for row in batch), np.int64, len(batch))
        n_tokens = np.fromiter((row[2] for row in batch), np.int32, len(batch))
    except (TypeError, ValueError, OverflowError) as error:
        raise StoreError(
            f"The index is damaged: a document's number of tokens cannot be read: {error}"
        ) from error
    doc_ids = [row[1] for row in batch]
    if not set(map(type, doc_ids)) <= {str}:
        raise StoreError("The index is damaged: a document's id is not text. Put a backup in its place.")
    return Rows.make(row_ids, Ids.of(doc_ids), n_tokens)
