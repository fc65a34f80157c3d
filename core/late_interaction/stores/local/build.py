"""Building the embedded store's search index, and bringing it up to date."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from late_interaction.errors import StoreError
from late_interaction.packing import unpack_many
from late_interaction.stores.local.centroids import empty_index, train_centroids
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.sqlite import SQLiteFile
from late_interaction.stores.local.tables import BATCH, read_property, select_in
from late_interaction.stores.local.view import Rows, Views
from late_interaction.types import FloatMatrix, RaggedTokens

_CENTROIDS_PER_ROOT = 4
_SAMPLE_TOKENS_PER_CENTROID = 64
_RETRAIN_GROWTH = 4
_DELETED_SHARE = 0.2


class IndexBuilder:
    """Builds or extends the index file; a job for `Background`.

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
        """Build or extend the index if it is due; `tick` raises when the build is to stop.

        No transaction stays open meanwhile, so that the write-ahead log can be emptied. A document that is deleted
        during the build is not found by it, and one that is written has a row id above the index.
        """
        exact_tokens, index_path = self._limits.exact_tokens, self._views.index_path
        with self._file.reading() as connection:
            view = self._views.current(connection, quiet=True)
            rows, index_id = Rows.read(connection), read_property(connection, "index_id")
        index, n_tokens = view.index, rows.total_tokens()
        n_deleted = 0 if index is None else len(index.row_ids) - len(view.indexed)
        if view.unindexed.total_tokens() <= exact_tokens and n_deleted <= _DELETED_SHARE * len(view.indexed):
            return
        self._file.become_writer()
        if n_tokens <= exact_tokens:
            index_path.unlink(missing_ok=True)
            return
        if index is None or n_tokens > _RETRAIN_GROWTH * index.trained_tokens:
            centroids = self._train(rows, tick)
            if centroids is None:
                return
            base = empty_index(index_id, centroids, n_tokens)
        else:
            alive = np.zeros(len(index.row_ids), bool)
            alive[view.positions] = True
            base, rows = index.keep(alive), view.unindexed
        with tqdm(desc="Indexing", total=len(rows), unit="doc", disable=not show_progress) as bar:

            def batches() -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
                for row_ids, documents in self._read(rows.row_ids):
                    yield row_ids, documents
                    bar.update(len(row_ids))
                    tick()

            try:
                base.extend(batches()).save(index_path)
            except OSError as error:
                raise StoreError(
                    f"The search index of {index_path.parent} could not be written: {error}. The documents are whole, "
                    "and are searched one by one until optimize() can write it."
                ) from error

    def _train(self, rows: Rows, tick: Callable[[], None]) -> FloatMatrix | None:
        """Train centroids on a sample of the token vectors, the same sample each time.

        Return None if documents were deleted meanwhile, and too few vectors are left: then no index is due any more.
        """
        n_centroids = 2 ** round(math.log2(_CENTROIDS_PER_ROOT * math.sqrt(rows.total_tokens())))
        share = min(1.0, n_centroids * _SAMPLE_TOKENS_PER_CENTROID / rows.total_tokens())
        rng, sample = np.random.default_rng(0), []
        # A few tokens of many documents: neighbours in one document are much alike, and teach less.
        for _, documents in self._read(rows.row_ids):
            chosen = np.flatnonzero(rng.random(len(documents.tokens)) < share)
            tokens = documents.tokens[chosen].astype(np.float32)
            sample.append(tokens if documents.scales is None else tokens * documents.scales[chosen, None])
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
