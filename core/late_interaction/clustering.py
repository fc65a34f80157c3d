"""Many centroids of token vectors for little work: k-means in two levels, and the nearest centroid by cells.

With n centroids in √n cells a vector is compared with the cells, and then with the centroids of few cells: some
3·√n products rather than n. What a token close to two cells loses by it is small: on 5,000 real documents no recall.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from late_interaction.types import FloatMatrix, RaggedTokens

_AT_ONCE = 4096
_ASSIGNED_TOGETHER = 1 << 14
_SAMPLE_PER_CELL = 256
_CELLS_SEARCHED = 2


def train_centroids(
    sample: FloatMatrix, n_centroids: int, *, tick: Callable[[], None] = lambda: None
) -> FloatMatrix:
    """Cluster a sample into cells, and the sample of each cell into its share of the centroids.

    The same sample gives the same centroids. scikit-learn has k-means by Euclidean distance only.

    Args:
        sample: (n, dim) float32 or float16 unit rows, n ≥ n_centroids.
        n_centroids: about how many: each cell's share is rounded.
        tick: called after each batch; an exception it raises stops the training.

    Returns:
        (about n_centroids, dim) float32 unit rows, those of a cell side by side.
    """
    n_cells = math.isqrt(n_centroids)
    few = np.random.default_rng(0).permutation(len(sample))[: n_cells * _SAMPLE_PER_CELL]
    cells = k_means(sample[few], n_cells, tick)
    order, bounds = _grouped(_nearest(sample, cells), len(cells))
    centroids = []
    for first, last in itertools.pairwise(bounds.tolist()):
        members = sample[order[first:last]]
        share = max(1, round(n_centroids * len(members) / len(sample)))
        centroids.append(k_means(members, min(share, len(members)), tick))
    return np.concatenate(centroids)


class NearestCentroids:
    """Finds the nearest centroid of each token.

    Args:
        centroids: (n, dim) float32 unit rows, n ≥ 1.
    """

    def __init__(self, centroids: FloatMatrix) -> None:
        self._cells = k_means(centroids, math.isqrt(len(centroids)))
        self._order, self._bounds = _grouped(_nearest(centroids, self._cells), len(self._cells))
        self._centroids = centroids[self._order]

    def __call__(self, documents: RaggedTokens) -> NDArray[np.int64]:
        """Return the centroid of largest dot product for each token, among those of its two nearest cells.

        A positive scale per token does not change it.
        """
        nearest = np.empty(len(documents.tokens), np.int64)
        for first in range(0, len(nearest), _ASSIGNED_TOGETHER):
            rows = documents.tokens[first : first + _ASSIGNED_TOGETHER].astype(np.float32)
            nearest[first : first + len(rows)] = self._order[self._among_cells(rows)]
        return nearest

    def _among_cells(self, rows: FloatMatrix) -> NDArray[np.int64]:
        n_searched = min(_CELLS_SEARCHED, len(self._cells))
        chosen = np.argpartition(-(rows @ self._cells.T), n_searched - 1, axis=1)[:, :n_searched]
        order, bounds = _grouped(chosen.ravel(), len(self._cells))
        nearest, best = np.zeros(len(rows), np.int64), np.full(len(rows), -np.inf, np.float32)
        for cell in np.flatnonzero(np.diff(bounds)).tolist():
            start, stop = self._bounds[cell : cell + 2]
            if start == stop:
                continue
            members = order[bounds[cell] : bounds[cell + 1]] // n_searched
            similarities = rows[members] @ self._centroids[start:stop].T
            found = similarities.argmax(axis=1)
            values = similarities[np.arange(len(members)), found]
            better = values > best[members]
            members = members[better]
            nearest[members], best[members] = start + found[better], values[better]
        return nearest


def k_means(
    sample: FloatMatrix, n_centroids: int, tick: Callable[[], None] = lambda: None, *, iterations: int = 3
) -> FloatMatrix:
    """Run spherical k-means (Dhillon and Modha, 2001): k-means of unit vectors by dot product.

    The same sample gives the same centroids. More iterations find no more.

    Args:
        sample: (n, dim) float32 or float16 unit rows, n ≥ n_centroids.
        n_centroids: how many.
        tick: called after each batch; an exception it raises stops the training.
        iterations: passes over the sample.

    Returns:
        (n_centroids, dim) float32 unit rows.
    """
    chosen = np.random.default_rng(0).choice(len(sample), n_centroids, replace=False)
    centroids: FloatMatrix = sample[chosen].astype(np.float32)
    for _ in range(iterations):
        sums = np.zeros_like(centroids)
        for first in range(0, len(sample), _AT_ONCE):
            rows = sample[first : first + _AT_ONCE].astype(np.float32, copy=False)
            nearest = (rows @ centroids.T).argmax(axis=1)
            order = np.argsort(nearest, kind="stable")
            present, starts = np.unique(nearest[order], return_index=True)
            sums[present] += np.add.reduceat(rows[order], starts, axis=0)
            tick()
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        # A centroid that no token is nearest to, or whose tokens cancel out, stays where it is.
        np.divide(sums, lengths, out=centroids, where=lengths > 0)
    return centroids


def _nearest(rows: FloatMatrix, centroids: FloatMatrix) -> NDArray[np.int64]:
    parts = [
        (rows[first : first + _AT_ONCE].astype(np.float32, copy=False) @ centroids.T).argmax(axis=1)
        for first in range(0, len(rows), _AT_ONCE)
    ]
    return np.concatenate(parts)


def _grouped(group_of: NDArray[np.int64], n_groups: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an order in which the members of each group are side by side, and the groups' (n_groups + 1,) bounds."""
    order = np.argsort(group_of, kind="stable")
    return order, np.searchsorted(group_of[order], np.arange(n_groups + 1))
