"""The embedded store's index: centroids of the token vectors, and for each centroid the documents near it.

It is disposable: it holds nothing that SQLite does not (index_file.py reads and writes it). The idea is PLAID's
(Santhanam et al., CIKM 2022): a token is approximated by its nearest centroid, so a document's best match for a query
vector is approximated by the best centroid it has a token at. For a document met at none of the centroids probed, the
similarity of the first centroid not probed is imputed (Lee et al., "Rethinking the role of token retrieval", 2023).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens

_ASSIGN_ROWS = 4096
_SAMPLE_STEP = 8


@dataclass(frozen=True, slots=True)
class CentroidIndex:
    """An immutable snapshot; searches may go on in it while the next one is built.

    Attributes:
        index_id: names the index it belongs to.
        build_id: names this content; the SQLite file has the same name if it is the documents' index.
        centroids: (n_centroids, dim) float32 unit rows.
        starts: (n_centroids + 1,) int64; centroid c's documents are `postings[starts[c]:starts[c + 1]]`.
        postings: int32 positions into `row_ids`, ascending for each centroid.
        row_ids: (n_docs,) int64 row ids, ascending.
        trained_tokens: how many token vectors there were when the centroids were trained.
    """

    index_id: str
    build_id: str
    centroids: FloatMatrix
    starts: NDArray[np.int64]
    postings: NDArray[np.int32]
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
            n_ann_tokens: for each query vector the nearest centroids are probed until their lists hold this
                many entries (a document is one entry in each list it is in).

        Returns:
            (n_docs,) float32, in the order of `row_ids`.
        """
        similarities = np.ascontiguousarray((self.centroids @ query.vectors.T).T)
        probes = self._probes(similarities, n_ann_tokens)
        scores = np.zeros(len(self.row_ids), np.float32)
        best = np.empty_like(scores)
        for row, weight, (centroids, unprobed) in zip(similarities, query.weights, probes, strict=True):
            best.fill(unprobed)
            # Farthest list first: where a document is in several, the nearest centroid's value stays.
            starts, stops = self.starts[centroids], self.starts[centroids + 1]
            positions = np.concatenate([self.postings[a:b] for a, b in zip(starts, stops, strict=True)])
            best[positions] = np.repeat(row[centroids], stops - starts)
            scores += weight * best
        return scores

    def _probes(
        self, similarities: FloatMatrix, n_ann_tokens: int
    ) -> Iterator[tuple[NDArray[np.int64], np.float32]]:
        """Yield for each query vector the centroids to probe, farthest first, and the next one's similarity."""
        n_centroids = len(self.centroids)
        sizes = np.diff(self.starts)
        # What share of the centroids is enough, four times over, and which similarity it begins at: a sample of them
        # tells, since they stand in no order, and faster than they could all be ranked.
        share = min(1.0, 4 * n_ann_tokens / max(1, len(self.postings)))
        sample = similarities[:, ::_SAMPLE_STEP]
        rank = min(int(sample.shape[1] * (1 - share)), sample.shape[1] - 1)
        thresholds = np.partition(sample, rank, axis=1)[:, rank]
        for row, threshold in zip(similarities, thresholds, strict=True):
            near = np.flatnonzero(row >= threshold)
            near = near[np.argsort(-row[near])]
            entries = np.cumsum(sizes[near])
            if len(near) < n_centroids and (len(near) == 1 or entries[-2] < n_ann_tokens):
                near = np.argsort(-row)
                entries = np.cumsum(sizes[near])
            count = min(int(np.searchsorted(entries, n_ann_tokens)) + 1, len(near))
            yield near[:count][::-1], row[near[min(count, len(near) - 1)]]

    def digest(self) -> str:
        """Return a name of the content, which another content does not have."""
        digest = hashlib.sha256(f"{self.index_id} {self.trained_tokens}".encode())
        columns = (
            (self.centroids, "<f2"),
            (self.starts, "<i8"),
            (self.postings, "<i4"),
            (self.row_ids, "<i8"),
        )
        for array, dtype in columns:
            digest.update(f"{array.shape}".encode())
            digest.update(np.ascontiguousarray(array, dtype).data)
        return digest.hexdigest()

    def keep(self, alive: NDArray[np.bool_]) -> CentroidIndex:
        """Return an index with the documents that are `alive`, a mask in the order of `row_ids`."""
        kept = alive[self.postings]
        centroid_of = np.repeat(np.arange(len(self.centroids)), np.diff(self.starts))[kept]
        moved = np.cumsum(alive, dtype=np.int32) - 1
        return self._with_postings(centroid_of, moved[self.postings[kept]], self.row_ids[alive])

    def extend(self, batches: Iterable[tuple[NDArray[np.int64], RaggedTokens]]) -> CentroidIndex:
        """Return the index with more documents at the same centroids.

        Args:
            batches: row ids, ascending and all above those of this index, with their token matrices.
        """
        centroid_of = [np.repeat(np.arange(len(self.centroids)), np.diff(self.starts))]
        positions, row_ids, count = [self.postings], [self.row_ids], len(self.row_ids)
        for batch_row_ids, documents in batches:
            nearest = nearest_centroids(documents, self.centroids)
            document_of = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
            pairs = np.unique(document_of * len(self.centroids) + nearest)
            centroid_of.append(pairs % len(self.centroids))
            positions.append((count + pairs // len(self.centroids)).astype(np.int32))
            row_ids.append(batch_row_ids)
            count += len(batch_row_ids)
        return self._with_postings(
            np.concatenate(centroid_of), np.concatenate(positions), np.concatenate(row_ids)
        )

    def _with_postings(
        self,
        centroid_of: NDArray[np.int64],
        positions: NDArray[np.int32],
        row_ids: NDArray[np.int64],
    ) -> CentroidIndex:
        order = np.argsort(centroid_of, kind="stable")
        starts = np.zeros(len(self.centroids) + 1, np.int64)
        np.cumsum(np.bincount(centroid_of, minlength=len(self.centroids)), out=starts[1:])
        return replace(self, starts=starts, postings=positions[order], row_ids=row_ids)


def empty_index(index_id: str, centroids: FloatMatrix, trained_tokens: int) -> CentroidIndex:
    """Return an index with centroids and no document, to be extended."""
    return CentroidIndex(
        index_id=index_id,
        build_id="",  # the build names it by its content
        # As they come back from the file, so that documents are assigned to the centroids they are found at.
        centroids=centroids.astype(np.float16).astype(np.float32),
        starts=np.zeros(len(centroids) + 1, np.int64),
        postings=np.empty(0, np.int32),
        row_ids=np.empty(0, np.int64),
        trained_tokens=trained_tokens,
    )


def nearest_centroids(documents: RaggedTokens, centroids: FloatMatrix) -> NDArray[np.int64]:
    """Return the centroid of largest dot product for each token. A positive scale per token does not change it."""
    nearest = np.empty(len(documents.tokens), np.int64)
    for first in range(0, len(nearest), _ASSIGN_ROWS):
        rows = documents.tokens[first : first + _ASSIGN_ROWS].astype(np.float32)
        nearest[first : first + _ASSIGN_ROWS] = (rows @ centroids.T).argmax(axis=1)
    return nearest


def train_centroids(
    sample: FloatMatrix, n_centroids: int, *, iterations: int = 3, tick: Callable[[], None] = lambda: None
) -> FloatMatrix:
    """Run spherical k-means (Dhillon and Modha, 2001): k-means of unit vectors by dot product, as tokens are assigned.

    The same sample gives the same centroids. scikit-learn has k-means by Euclidean distance only; its mini-batch
    k-means took longer than this, and its centroids found less (0.96 of the top 10 among the best 300 candidates of
    20,000 real documents, these 0.98). More iterations find no more.

    Args:
        sample: (n, dim) float32 unit rows, n ≥ n_centroids.
        n_centroids: how many.
        iterations: passes over the sample.
        tick: called after each batch; an exception it raises stops the training.

    Returns:
        (n_centroids, dim) float32 unit rows.
    """
    chosen = np.random.default_rng(0).choice(len(sample), n_centroids, replace=False)
    centroids: FloatMatrix = sample[chosen]
    for _ in range(iterations):
        sums = np.zeros_like(centroids)
        for first in range(0, len(sample), _ASSIGN_ROWS):
            rows = sample[first : first + _ASSIGN_ROWS]
            nearest = (rows @ centroids.T).argmax(axis=1)
            order = np.argsort(nearest, kind="stable")
            present, starts = np.unique(nearest[order], return_index=True)
            sums[present] += np.add.reduceat(rows[order], starts, axis=0)
            tick()
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centroid that no token is nearest to, or whose tokens cancel out, stays where it is.
        np.divide(sums, lengths, out=centroids, where=lengths > 0)
    return centroids
