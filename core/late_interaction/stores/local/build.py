"""Building the embedded store's search index, and bringing it up to date."""

from __future__ import annotations

import logging
import math
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from late_interaction.clustering import train_centroids
from late_interaction.errors import StoreError
from late_interaction.packing import unpack_many
from late_interaction.progress import tqdm
from late_interaction.stores.local.centroids import CentroidIndex, empty_index
from late_interaction.stores.local.index_file import remove_leftovers, written_index
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.locks import LockFile
from late_interaction.stores.local.sqlite import SQLiteFile
from late_interaction.stores.local.tables import (
    BATCH,
    State,
    read_count,
    read_state,
    select_in,
    write_property,
)
from late_interaction.stores.local.view import Views
from late_interaction.types import FloatMatrix, RaggedTokens

logger = logging.getLogger(__name__)

_CENTROIDS_PER_ROOT = 12
_CENTROIDS_AT_LEAST = 8192
_LEAST_TOKENS_PER_CENTROID = 4
_SAMPLE_TOKENS_PER_CENTROID = 32
_RETRAIN_GROWTH = 4
_DELETED_SHARE = 0.2


def centroids_for(n_tokens: int) -> int:
    """Return how many centroids so many tokens get: many for few, since a rare token is far from a shared one."""
    n_centroids = max(_CENTROIDS_AT_LEAST, round(_CENTROIDS_PER_ROOT * math.sqrt(n_tokens)))
    return max(1, min(n_centroids, n_tokens // _LEAST_TOKENS_PER_CENTROID))


def is_coarse(index: CentroidIndex) -> bool:
    """Whether an index has far fewer centroids than it would get now, as those of earlier releases have."""
    return 2 * len(index.centroids) < centroids_for(index.trained_tokens)


class IndexBuilder:
    """Builds or extends the index file; a job for `Background`.

    Building has a lock of its own: one process builds, the others search and write on.

    Args:
        file: the documents.
        views: what the index covers now.
        limits: when the index is due.
    """

    def __init__(self, file: SQLiteFile, views: Views, limits: Limits) -> None:
        self._file = file
        self._views = views
        self._limits = limits

    def __call__(self, tick: Callable[[], None], show_progress: bool = False) -> None:
        """Build or extend the index if it is due; `tick` raises when the build is to stop."""
        with self._file.reading() as connection:
            index = self._views.index(connection, read_state(connection))
            if not self._is_due(connection, index):
                return
        with self._exclusive() as alone:
            if not alone:
                logger.info("Another process builds the search index of %s now.", self._folder)
                return
            self._build(tick, show_progress)

    def unindexed_tokens(self, connection: sqlite3.Connection, index: CentroidIndex | None) -> int:
        """Return how many tokens the documents above the index have."""
        covered = 0 if index is None else index.last_row_id
        query = "SELECT coalesce(sum(n_tokens), 0) FROM documents WHERE rid > ?"
        return int(connection.execute(query, (covered,)).fetchone()[0])

    def _is_due(self, connection: sqlite3.Connection, index: CentroidIndex | None) -> bool:
        if self.unindexed_tokens(connection, index) > self._limits.exact_tokens:
            return True
        if index is None:
            return False
        if is_coarse(index):
            return True
        n_deleted = read_count(connection, "deleted_from_index")
        return n_deleted > _DELETED_SHARE * (len(index.row_ids) - n_deleted)

    def _build(self, tick: Callable[[], None], show_progress: bool) -> None:
        """Build or extend the index.

        No transaction stays open meanwhile, so that the write-ahead log can be emptied. A document that is deleted
        during the build is not found by it, and one that is written has a row id above the index.
        """
        with self._file.reading() as connection:
            state = read_state(connection)
            index = self._views.index(connection, state)
            if not self._is_due(connection, index):  # Another process has built it before we had the lock.
                return
            rows = np.array(
                connection.execute(
                    "SELECT rid, n_tokens FROM documents WHERE n_tokens != 0 ORDER BY rid"
                ).fetchall(),
                np.int64,
            ).reshape(-1, 2)
        row_ids, n_tokens = rows[:, 0], int(rows[:, 1].sum())
        if n_tokens <= self._limits.exact_tokens:
            self._publish(state, None)
            return
        base = None
        if index is not None and n_tokens <= _RETRAIN_GROWTH * index.trained_tokens and not is_coarse(index):
            alive = np.isin(index.row_ids, row_ids, assume_unique=True)
            above = row_ids[~np.isin(row_ids, index.row_ids, assume_unique=True)]
            if not len(above) or above[0] > index.last_row_id:  # Else the index has gaps.
                base, row_ids = index.keep(alive), above
        if base is None:
            centroids = self._train(row_ids, n_tokens, tick)
            if centroids is None:
                return
            base = empty_index(state.index_id, centroids, n_tokens)
        with tqdm(desc="Indexing", total=len(row_ids), unit="doc", disable=not show_progress) as bar:

            def batches() -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
                for batch_row_ids, documents in self._read(row_ids):
                    yield batch_row_ids, documents
                    bar.update(len(batch_row_ids))
                    tick()

            self._publish(state, base.extend(batches()))

    def _publish(self, state: State, index: CentroidIndex | None) -> None:
        """Put the index in its place, and its name into the documents' file, which has to say that it belongs to it."""
        path = self._views.index_path
        try:
            remove_leftovers(path)
            if index is None:
                with self._naming(state, None):
                    path.unlink(missing_ok=True)
                return
            index = replace(index, build_id=index.digest())
            with written_index(index, path, self._file.mode) as temporary, self._naming(state, index):
                temporary.chmod(self._file.mode)  # those who may read the documents may read their index
                temporary.replace(path)
        except OSError as error:
            raise StoreError(
                f"The search index of {self._folder} could not be written: {error}. The documents are whole, and are "
                "searched one by one until optimize() can write it."
            ) from error

    @contextmanager
    def _naming(self, state: State, index: CentroidIndex | None) -> Iterator[None]:
        with self._file.writing() as connection:
            if read_state(connection).index_id != state.index_id:
                raise StoreError(
                    f"The index in {self._folder} was replaced while its search index was built."
                )
            last = 0 if index is None else index.last_row_id
            query = "SELECT count(*) FROM documents WHERE rid <= ?"
            n_indexed = 0 if index is None else len(index.row_ids)
            n_alive = int(connection.execute(query, (last,)).fetchone()[0])
            write_property(connection, "build", secrets.token_hex(16) if index is None else index.build_id)
            write_property(connection, "indexed_to", str(last))
            write_property(connection, "deleted_from_index", str(max(0, n_indexed - n_alive)))
            yield

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Hold the lock of building; False if another process, or another store in this one, has it."""
        lock = LockFile(self._views.index_path.with_name("build.lock"), self._file.mode)
        try:
            acquired = lock.try_acquire()
        except OSError as error:
            raise StoreError(f"The search index of {self._folder} cannot be written: {error}") from error
        try:
            yield acquired
        finally:
            lock.release()

    @property
    def _folder(self) -> str:
        return str(self._views.index_path.parent)

    def _train(
        self, row_ids: NDArray[np.int64], n_tokens: int, tick: Callable[[], None]
    ) -> FloatMatrix | None:
        """Train centroids on a sample of the token vectors, the same sample each time.

        Return None if documents were deleted meanwhile, and too few vectors are left: then no index is due any more.
        """
        n_centroids = centroids_for(n_tokens)
        share = min(1.0, n_centroids * _SAMPLE_TOKENS_PER_CENTROID / n_tokens)
        rng, sample = np.random.default_rng(0), []
        # A few tokens of many documents: neighbours in one document are much alike, and teach less.
        for _, documents in self._read(row_ids):
            chosen = np.flatnonzero(rng.random(len(documents.tokens)) < share)
            tokens = documents.tokens[chosen].astype(np.float32)
            if documents.scales is not None:
                tokens *= documents.scales[chosen, None]
            sample.append(tokens.astype(np.float16))
            tick()
        if sum(map(len, sample)) < n_centroids:
            return None
        return train_centroids(np.concatenate(sample), n_centroids, tick=tick)

    def _read(self, row_ids: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
        """Yield those of the row ids that exist, with their token matrices, a batch and a transaction at a time."""
        for first in range(0, len(row_ids), BATCH):
            batch = row_ids[first : first + BATCH].tolist()
            with self._file.reading() as connection:
                found = list(select_in(connection, "rid, packed FROM vectors", "rid", batch))
            if found:
                yield np.array([rid for rid, _ in found], np.int64), unpack_many([blob for _, blob in found])
