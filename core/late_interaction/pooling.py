"""Fewer vectors for a document or a query: cluster its token vectors, keep one mean per cluster.

Documents: hierarchical pooling with Ward's criterion (Clavié, Chaffin and Adams, "Reducing the Footprint of
Multi-Vector Retrieval with Minimal Performance Impact via Token Pooling", 2024). Queries: average linkage up
to a cosine distance, each mean weighted by its cluster's size, so that the MaxSim sum keeps its scale.

A document of more than 2,048 tokens is pooled in blocks of at most 512 tokens that follow each other, since the time
and memory of a clustering grow with the square of its tokens: 8,192 vectors at once take 3 s and 740 MB, in blocks
0.3 s of one core and 6 MB (random vectors of 128 dimensions, factor 2).

Below that neither depends on the order of the tokens: they are clustered in an order that their values decide, so a
permuted matrix gives the same vectors to the last bit. Means are unit vectors again, and stand in the order
in which the first token of each cluster stands in the text.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from late_interaction.cores import product
from late_interaction.types import FloatMatrix, QueryVectors

POOLING_ALGORITHM = "ward-unit-mean-1"
"""Name of what `pool_document` does, kept with an index: other libraries' poolings give other vectors, and a
change to this one has to change the number."""

_AT_ONCE = 2048
_BLOCK = 512
_LONG = 2
"""How much harder documents in windows are pooled: docs/quality.md shows what comes of it."""

_NO_DIRECTION = 1e-6
"""A mean of unit vectors shorter than this is rounding noise and points nowhere."""


def pool_document(
    matrix: FloatMatrix, factor: float, *, protected_tokens: int = 0, read_at_once: int | None = None
) -> FloatMatrix:
    """Pool a document's tokens to one vector for every `factor` of them.

    The first `protected_tokens` rows stay as they are. The other n become exactly `max(1, n // factor)`
    vectors, floor division: of one token, one stays.

    The clusters are of the kind that sentence-transformers' `HierarchicalTokenPooling`, PyLate and colpali-engine make,
    and not the same: ties and the order of tokens decide there, and PyLate's means are not unit vectors again. An
    index is therefore pooled by this function alone (`POOLING_ALGORITHM` in its spec).

    Args:
        matrix: (n_tokens, dim) float32, unit rows, n_tokens ≥ 1.
        factor: ≥ 1; need not be whole. 1 gives the matrix back as it is.
        protected_tokens: leading rows to leave alone ([CLS], the document marker).
        read_at_once: how many tokens the model reads at once. A document of more is pooled by twice the factor, unless
            that is 1: the more vectors a document has, the higher its best matches are by chance alone.

    Returns:
        (m, dim) float32, unit rows: the protected ones first, then the means.

    Raises:
        ValueError: no rows, a factor below 1, a negative `protected_tokens`.

    Example:
        >>> pool_document(np.eye(4, dtype=np.float32), 2).shape
        (2, 4)
    """
    vectors, _ = pool_document_grouped(
        matrix, factor, protected_tokens=protected_tokens, read_at_once=read_at_once
    )
    return vectors


def pool_document_grouped(
    matrix: FloatMatrix, factor: float, *, protected_tokens: int = 0, read_at_once: int | None = None
) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """Do `pool_document`, and tell which vector each token went into.

    Returns:
        The (m, dim) vectors, and (n_tokens,) the row of each token's vector.
    """
    _check_matrix(matrix)
    if not (math.isfinite(factor) and factor >= 1):
        raise ValueError(f"The pooling factor must be a number of at least 1, not {factor!r}.")
    if protected_tokens < 0:
        raise ValueError(f"protected_tokens must not be negative, but is {protected_tokens}.")
    if factor > 1 and read_at_once is not None and len(matrix) > read_at_once:
        factor *= _LONG
    tokens = matrix[protected_tokens:]
    n_clusters = max(1, int(len(tokens) // factor))
    if n_clusters >= len(tokens):
        return matrix, np.arange(len(matrix))
    n_blocks = 1 if len(tokens) <= _AT_ONCE else min(math.ceil(len(tokens) / _BLOCK), n_clusters)
    ends = [len(tokens) * block // n_blocks for block in range(n_blocks + 1)]
    clusters = [n_clusters * block // n_blocks for block in range(n_blocks + 1)]
    pooled = [
        _cluster(tokens[ends[block] : ends[block + 1]], clusters[block + 1] - clusters[block])
        for block in range(n_blocks)
    ]
    vectors = [matrix[:protected_tokens], *(means for means, _ in pooled)]
    rows = [np.arange(protected_tokens)]
    for (_, groups), first in zip(pooled, clusters, strict=False):
        rows.append(groups + protected_tokens + first)
    return np.concatenate(vectors), np.concatenate(rows)


def _cluster(tokens: FloatMatrix, n_clusters: int) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """Return the unit means of so many of Ward's clusters, and which of them each token is in."""
    if n_clusters >= len(tokens):
        return tokens, np.arange(len(tokens))

    from scipy.cluster.hierarchy import linkage

    order = _canonical_order(tokens)
    tree = linkage(np.sqrt(2 * _condensed(_cosine_distances(tokens[order]))), "ward")
    # By the number of merges: cut at a height, where merges can tie, it may give fewer clusters.
    means, _, groups = _cluster_means(tokens, order, _merged(tree, len(tokens) - n_clusters))
    return means, groups


def pool_query(matrix: FloatMatrix, distance: float) -> QueryVectors:
    """Merge a query's near-duplicate tokens, such as the [MASK]s that expand it.

    At a distance of 0.03, 99.999 % of the scores of Cranfield's queries stay within 1 % and the furthest
    moves by 1.5 % (all-MiniLM-L6-v2, benchmarks/query_pooling.py); without the weights it would be 27 %.

    Args:
        matrix: (n_tokens, dim) float32, unit rows, n_tokens ≥ 1.
        distance: clusters whose average cosine distance (1 − cosine, 0 to 2) is at most this are merged.
            0 turns pooling off, and every token keeps weight 1.

    Returns:
        The clusters' unit means, each with its size as weight: weights add up to n_tokens.

    Raises:
        ValueError: no rows, or a negative distance.
    """
    vectors, _ = pool_query_grouped(matrix, distance)
    return vectors


def pool_query_grouped(matrix: FloatMatrix, distance: float) -> tuple[QueryVectors, NDArray[np.int64]]:
    """Do `pool_query`, and tell which vector each token went into.

    Returns:
        The vectors, and (n_tokens,) the row of each token's vector.
    """
    _check_matrix(matrix)
    if not distance >= 0:
        raise ValueError(f"The query pooling distance must not be negative, but is {distance!r}.")
    if distance == 0 or len(matrix) == 1:
        return QueryVectors(matrix, np.ones(len(matrix), np.float32)), np.arange(len(matrix))

    order = _canonical_order(matrix)
    means, sizes, groups = _cluster_means(matrix, order, _merged_up_to(distance, matrix[order]))
    return QueryVectors(means, sizes), groups


def pool_further(query: QueryVectors, distance: float) -> tuple[QueryVectors, NDArray[np.intp]]:
    """Merge a query's vectors once more, for a stage that may be rougher than its scores.

    Args:
        query: n vectors with their weights.
        distance: as of `pool_query`.

    Returns:
        The clusters' weighted unit means, each with the sum of its weights; and (n,) for each of the query's vectors
        the position of the one that stands for it.
    """
    n = len(query.vectors)
    if distance == 0 or n == 1:
        return query, np.arange(n)

    order = _canonical_order(query.vectors)
    labels = np.empty(n, np.intp)
    labels[order] = _merged_up_to(distance, query.vectors[order])
    weights = np.bincount(labels, query.weights).astype(np.float32)
    means = np.zeros((len(weights), query.vectors.shape[1]), np.float32)
    np.add.at(means, labels, query.vectors * query.weights[:, None])
    means /= np.linalg.norm(
        means, axis=1, keepdims=True
    )  # Above 0: within a distance below 1 none is opposite.
    return QueryVectors(means, weights), labels


def _check_matrix(matrix: FloatMatrix) -> None:
    if matrix.ndim != 2 or len(matrix) == 0:
        raise ValueError(f"A token matrix has shape (n_tokens ≥ 1, dim), not {matrix.shape}.")


def _canonical_order(matrix: FloatMatrix) -> NDArray[np.intp]:
    """Return an order of the rows that depends on their values alone, so that ties in a clustering fall alike."""
    rows = np.ascontiguousarray(matrix + np.float32(0))  # −0.0 becomes 0.0: equal values, equal bytes
    return np.argsort(rows.view(f"V{rows.itemsize * rows.shape[1]}").ravel(), kind="stable")


def _cosine_distances(matrix: FloatMatrix) -> FloatMatrix:
    """Return (n, n) float32: `1 − cosine` of unit rows."""
    # So small a product takes as long on all cores, and these have something else to do.
    return 1 - product(matrix, matrix.T, one_core=True)


def _condensed(distances: FloatMatrix) -> NDArray[np.float64]:
    """Return distances for each pair i < j, in scipy's condensed form, never negative."""
    from scipy.spatial.distance import squareform

    condensed: NDArray[np.float64] = squareform(distances.astype(np.float64), checks=False)
    return np.maximum(condensed, 0, out=condensed)


def _merged_up_to(distance: float, matrix: FloatMatrix) -> NDArray[np.intp]:
    """Return the cluster of each row, from 0 on, by average linkage up to a cosine distance."""
    distances = _cosine_distances(matrix)
    near = distances <= distance
    np.fill_diagonal(near, val=True)
    first = near.argmax(axis=1)
    # Where rows near each other are all near the same ones, those are the clusters, and no tree is needed.
    if np.array_equal(near, first[:, None] == first):
        is_first = first == np.arange(len(first))
        clusters: NDArray[np.intp] = (np.cumsum(is_first) - 1)[first]
        return clusters

    from scipy.cluster.hierarchy import linkage

    tree = linkage(_condensed(distances), "average")
    return _merged(tree, int(np.searchsorted(tree[:, 2], distance, side="right")))


def _merged(tree: NDArray[np.float64], n_merges: int) -> NDArray[np.intp]:
    """Return the cluster of each leaf, from 0 on, after the first merges of scipy's tree.

    scipy's `fcluster` gives the same, and looks first whether the tree is one, which takes as long as a query's
    whole clustering.
    """
    n = len(tree) + 1
    cluster = list(range(n + n_merges))
    merges = tree[:n_merges, :2].astype(np.intp).tolist()
    for merged, (one, other) in zip(range(n + n_merges - 1, n - 1, -1), reversed(merges), strict=True):
        cluster[one] = cluster[other] = cluster[merged]
    return np.unique(cluster[:n], return_inverse=True)[1]


def _cluster_means(
    matrix: FloatMatrix, order: NDArray[np.intp], labels: NDArray[np.intp]
) -> tuple[FloatMatrix, NDArray[np.float32], NDArray[np.int64]]:
    """Return the clusters' unit means and sizes, ordered by each cluster's first row, and each row's cluster.

    `labels[i]` is the cluster of row `order[i]`. A cluster of one is that row to the last bit; a cluster
    without a mean direction (opposite vectors) is stood for by its first member in canonical order.
    """
    by_label = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[by_label], prepend=-1))
    rows = order[by_label]
    sizes = np.diff(starts, append=len(rows))
    means: FloatMatrix = np.add.reduceat(matrix[rows], starts, axis=0)
    means /= sizes[:, None]
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    means /= np.maximum(lengths, _NO_DIRECTION)
    as_it_is = (sizes == 1) | (lengths[:, 0] < _NO_DIRECTION)
    means[as_it_is] = matrix[rows[starts[as_it_is]]]
    in_text_order = np.argsort(np.minimum.reduceat(rows, starts))
    groups = np.empty(len(matrix), np.int64)
    groups[rows] = np.repeat(np.argsort(in_text_order), sizes)
    return means[in_text_order], sizes[in_text_order].astype(np.float32), groups
