"""The embedded store's index: centroids of the token vectors, and for each centroid the documents near it.

It is disposable: it holds nothing that SQLite does not (index_file.py reads and writes it). The idea is PLAID's
(Santhanam et al., CIKM 2022): a token is approximated by its nearest centroid, so a document's best match for a query
vector is approximated by the best centroid it has a token at. For a document met at none of the centroids probed, the
similarity of the last centroid probed is imputed (Lee et al., "Rethinking the role of token retrieval", 2023).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.clustering import NearestCentroids
from late_interaction.cores import product
from late_interaction.maxsim import query_columns
from late_interaction.stores.local.lists import BLOCK, Lists
from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens

_SAMPLE_STEP = 8
_LEAST_SAMPLED = 16
_ENTRIES = 100_000
"""About how many entries of lists are put together at a time."""
_SIMILARITIES = 1 << 19
"""About how many similarities of centroids are computed at a time."""
_ROUNDING = 1e-6
"""By how much two products of the same unit vectors may differ."""
_PLACES = 1_000_000
"""About how many similarities of documents are held at a time."""


@dataclass(frozen=True, slots=True)
class CentroidIndex:
    """An immutable snapshot; searches may go on in it while the next one is built.

    Attributes:
        index_id: names the index it belongs to.
        build_id: names this content; the SQLite file has the same name if it is the documents' index.
        centroids: (n_centroids, dim) float32 unit rows.
        lists: for each centroid the documents near it, as positions into `row_ids`.
        row_ids: (n_docs,) int64 row ids, ascending.
        trained_tokens: how many token vectors there were when the centroids were trained.
    """

    index_id: str
    build_id: str
    centroids: FloatMatrix
    lists: Lists
    row_ids: NDArray[np.int64]
    trained_tokens: int

    @property
    def last_row_id(self) -> int:
        """The largest row id that is covered, or 0 if every document was deleted."""
        return int(self.row_ids[-1]) if len(self.row_ids) else 0

    def approximate(self, query: QueryVectors, n_ann_tokens: int) -> NDArray[np.float32]:
        """Return the approximate MaxSim of every document.

        Args:
            query: the query's vectors and weights.
            n_ann_tokens: for each query vector about as many of the nearest centroids are probed as have lists of
                this many entries on average (a document is one entry in each list it is in).

        Returns:
            (n_docs,) float32, in the order of `row_ids`.
        """
        n_docs, n_vectors = len(self.row_ids), len(query.vectors)
        columns = query_columns(query.vectors)
        thresholds = self._thresholds(columns, n_ann_tokens)[:n_vectors]
        probed, vectors, values = self._probed(columns, thresholds)
        values = (values - thresholds[vectors]) * query.weights[vectors]
        starts = self.lists.starts[probed]
        lengths = self.lists.starts[probed + 1] - starts
        bounds = np.append(0, np.cumsum(lengths))
        together = max(1, min(_ENTRIES // n_ann_tokens, _PLACES // max(1, n_docs), n_vectors))
        # Of each chunk of a list: which one it is, where its documents stand in `above`, and what is written there.
        list_of = np.repeat(np.arange(len(probed)), lengths)
        chunks = (starts - bounds[:-1]).take(list_of)
        chunks += np.arange(len(chunks))
        rows = (vectors % together * n_docs).take(list_of)
        rows += self.lists.firsts.take(chunks)
        values = values.take(list_of)
        groups = bounds[np.searchsorted(vectors, range(0, n_vectors + together, together))].tolist()
        above = np.empty((together, n_docs), np.float32)
        scores = np.full(n_docs, thresholds @ query.weights, np.float32)
        # Several query vectors at a time: each call does much, so that a thread seldom waits for its turn.
        for begin, end in itertools.pairwise(groups):
            places = np.add(
                self.lists.offsets.take(chunks[begin:end], axis=0), rows[begin:end, None], dtype=np.int64
            )
            written = np.empty(places.shape, np.float32)
            written[:] = values[begin:end, None]
            above[:] = 0
            above.reshape(-1)[places.reshape(-1)] = written.reshape(-1)
            scores += above.sum(axis=0)
        return scores

    def _thresholds(self, columns: FloatMatrix, n_ann_tokens: int) -> NDArray[np.float32]:
        """Return for each of a query's columns the similarity from which on centroids are probed."""
        n_probed = round(len(self.centroids) * n_ann_tokens / max(1, self.lists.n_entries))
        n_probed = min(max(1, n_probed), len(self.centroids))
        # A sample of the centroids tells, faster than they all could be ranked.
        step = min(_SAMPLE_STEP, max(1, n_probed // _LEAST_SAMPLED))
        sample = self.centroids if n_probed == len(self.centroids) else self.centroids[::step]
        rank = max(0, len(sample) - max(1, n_probed // step))
        thresholds: NDArray[np.float32] = np.partition(product(sample, columns).T, rank, axis=1)[:, rank]
        return thresholds

    def _probed(
        self, columns: FloatMatrix, thresholds: NDArray[np.float32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Return the centroids that are probed: those whose similarity to a query vector reaches its threshold.

        The best one of each query vector comes last, so that what is written last for a document is its best.
        `np.maximum.at` needs no order, and lets no other thread run meanwhile.

        Returns:
            (m,) the centroids, (m,) the query vectors, ascending, and (m,) their similarities.
        """
        places, values, n_columns = [], [], columns.shape[1]
        limits = np.full(n_columns, np.inf, np.float32)
        limits[: len(thresholds)] = thresholds - _ROUNDING
        at_once = max(1, _SIMILARITIES // n_columns)
        for first in range(0, len(self.centroids), at_once):
            similarities = product(self.centroids[first : first + at_once], columns)
            near = np.flatnonzero(similarities >= limits)
            values.append(similarities.reshape(-1).take(near))
            near += first * n_columns
            places.append(near)
        found = np.concatenate(values)
        centroids, numbers = np.divmod(np.concatenate(places), n_columns)
        spread = float(1 + found.max(initial=0) - found.min(initial=0))
        order = np.argsort(found + spread * numbers)
        return centroids[order], numbers[order], found[order]

    def digest(self) -> str:
        """Return a name of the content, which another content does not have."""
        digest = hashlib.sha256(f"{self.index_id} {self.trained_tokens}".encode())
        bounds = self.lists.bounds()
        columns: tuple[tuple[tuple[int, ...], str, Iterable[NDArray[Any]]], ...] = (
            (self.centroids.shape, "<f2", _pieces(self.centroids)),
            (bounds.shape, "<i8", _pieces(bounds)),
            ((self.lists.n_entries,), "<i4", self.lists.pieces()),
            (self.row_ids.shape, "<i8", _pieces(self.row_ids)),
        )
        for shape, dtype, pieces in columns:
            digest.update(f"{shape}".encode())
            for piece in pieces:
                digest.update(np.ascontiguousarray(piece, dtype).data)
        return digest.hexdigest()

    def keep(self, alive: NDArray[np.bool_]) -> CentroidIndex:
        """Return an index with the documents that are `alive`, a mask in the order of `row_ids`."""
        centroid_of, positions = self._pairs()
        kept = alive[positions]
        moved = np.cumsum(alive, dtype=np.int32) - 1
        return self._with_pairs(centroid_of[kept], moved[positions[kept]], self.row_ids[alive])

    def extend(self, batches: Iterable[tuple[NDArray[np.int64], RaggedTokens]]) -> CentroidIndex:
        """Return the index with more documents at the same centroids.

        Args:
            batches: row ids, ascending and all above those of this index, with their token matrices.
        """
        centroid_of, positions = ([pairs] for pairs in self._pairs())
        row_ids, count = [self.row_ids], len(self.row_ids)
        nearest_centroids = NearestCentroids(self.centroids)
        for batch_row_ids, documents in batches:
            nearest = nearest_centroids(documents)
            document_of = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
            pairs = np.unique(document_of * len(self.centroids) + nearest)
            centroid_of.append(pairs % len(self.centroids))
            positions.append((count + pairs // len(self.centroids)).astype(np.int32))
            row_ids.append(batch_row_ids)
            count += len(batch_row_ids)
        return self._with_pairs(
            np.concatenate(centroid_of), np.concatenate(positions), np.concatenate(row_ids)
        )

    def _pairs(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the centroid and the document of each entry."""
        centroid_of = np.repeat(np.arange(len(self.centroids)), np.diff(self.lists.bounds()))
        return centroid_of, self.lists.entries()

    def _with_pairs(
        self,
        centroid_of: NDArray[np.int64],
        positions: NDArray[np.int32],
        row_ids: NDArray[np.int64],
    ) -> CentroidIndex:
        positions = positions[np.argsort(centroid_of, kind="stable")]
        bounds = np.zeros(len(self.centroids) + 1, np.int64)
        np.cumsum(np.bincount(centroid_of, minlength=len(self.centroids)), out=bounds[1:])
        return replace(self, lists=Lists.of(bounds, positions, len(row_ids)), row_ids=row_ids)


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    values = np.ravel(array)
    for first in range(0, len(values), BLOCK):
        yield values[first : first + BLOCK]


def empty_index(index_id: str, centroids: FloatMatrix, trained_tokens: int) -> CentroidIndex:
    """Return an index with centroids and no document, to be extended."""
    return CentroidIndex(
        index_id=index_id,
        build_id="",  # the build names it by its content
        # As they come back from the file, so that documents are assigned to the centroids they are found at.
        centroids=centroids.astype(np.float16).astype(np.float32),
        lists=Lists.empty(len(centroids)),
        row_ids=np.empty(0, np.int64),
        trained_tokens=trained_tokens,
    )
