"""MaxSim, exact, on ragged documents: one matrix product over packed tokens and a segmented maximum.

`score(q, d) = Σ_i w_i · max_j q_i · d_j` (Khattab and Zaharia, "ColBERT", SIGIR 2020, equation 3, with a weight
per query vector). No document is padded: a document whose best match is negative scores negative.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from late_interaction.cores import product
from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens

_TILE_VALUES = 2048 * 128
"""Values widened and multiplied at a time: what they become stays in the CPU's cache (benchmarks/kernels.py)."""


class TokenAlignment(NamedTuple):
    """Which document token answers each query token.

    Attributes:
        tokens: (n_query_tokens,) int64, the row of the best document token.
        similarities: (n_query_tokens,) float32, its dot product with the query token.
    """

    tokens: NDArray[np.int64]
    similarities: NDArray[np.float32]


def maxsim(
    query: FloatMatrix,
    documents: RaggedTokens | Sequence[FloatMatrix],
    weights: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Score one query against many documents, exactly.

    Args:
        query: (n_query_tokens, dim) float32.
        documents: packed, or a list of (n_tokens, dim) float32 matrices.
        weights: (n_query_tokens,) how much each query vector counts; None for 1 each.

    Returns:
        (n_docs,) float32, higher is better.

    Raises:
        ValueError: shapes do not fit, or a document has no token.

    Example:
        >>> query = np.eye(2, dtype=np.float32)
        >>> maxsim(query, [query, query[:1]]).tolist()
        [2.0, 1.0]
    """
    if not isinstance(documents, RaggedTokens):
        documents = RaggedTokens.from_matrices(documents, query.shape[-1])
    best = best_matches(query, documents)
    if weights is None:
        weights = np.ones(len(query), np.float32)
    elif weights.shape != (len(query),):
        raise ValueError(f"weights must have shape ({len(query)},), not {weights.shape}.")
    return best @ weights


def query_maxsim(
    query: QueryVectors, documents: RaggedTokens, chosen: NDArray[np.int64] | None = None
) -> NDArray[np.float32]:
    """Return the (n,) float32 MaxSim of a search's query, and record in `query.closest` how close the documents come.

    Args:
        query: the query.
        documents: packed.
        chosen: (n,) positions of the documents that count, where others are among them; None for all.
    """
    best = best_matches(query.vectors, documents)
    if chosen is not None:
        best = best[chosen]
    np.maximum(query.closest, best.max(axis=0, initial=-np.inf), out=query.closest)
    return best @ query.weights


def best_matches(query: FloatMatrix, documents: RaggedTokens) -> NDArray[np.float32]:
    """Return (n_docs, n_query_tokens) float32: each query token's highest dot product with a token of each document.

    Raises:
        ValueError: shapes do not fit.
    """
    if query.ndim != 2 or query.shape[1] != documents.tokens.shape[1]:
        raise ValueError(
            f"a query of shape {query.shape} does not fit documents of dim {documents.tokens.shape[1]}."
        )
    columns = query_columns(query)
    n_columns = columns.shape[1]
    best = np.empty((len(documents), n_columns), np.float32)
    offsets, dim = documents.offsets, query.shape[1]
    tiles = list(_tiles(offsets, max(1, _TILE_VALUES // dim)))
    # Two buffers for all tiles: fresh ones would cost more in page faults than the maximum costs.
    longest = max((int(offsets[last] - offsets[first]) for first, last in tiles), default=0)
    widened = np.empty((longest, dim), np.float32)
    products = np.empty((longest, n_columns), np.float32)
    for first, last in tiles:
        start, stop = int(offsets[first]), int(offsets[last])
        tile = documents.tokens[start:stop]
        if tile.dtype != np.float32:
            np.copyto(widened[: len(tile)], tile)
            tile = widened[: len(tile)]
        similarities = products[: len(tile)]
        product(tile, columns, similarities)
        if documents.scales is not None:
            similarities *= documents.scales[start:stop, None]
        np.maximum.reduceat(similarities, offsets[first:last] - start, axis=0, out=best[first:last])
    return best[:, : len(query)]


def query_columns(query: FloatMatrix) -> FloatMatrix:
    """Return a query (n, dim) as columns to multiply with, and one of zeros where n is 3 above a multiple of four.

    OpenBLAS takes longer for those three columns than for four: a sixth with 31, a quarter with 15.
    """
    n, dim = query.shape
    columns = np.zeros((n + (n % 4 == 3), dim), np.float32)
    columns[:n] = query
    return columns.T


def token_alignment(query: FloatMatrix, document: FloatMatrix) -> TokenAlignment:
    """Find for each row of `query` (n, dim) the most similar row of `document` (m, dim)."""
    similarities = query @ document.T
    tokens = similarities.argmax(axis=1)
    return TokenAlignment(tokens.astype(np.int64), similarities[np.arange(len(query)), tokens])


def _tiles(offsets: NDArray[np.int64], n_tokens: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of whole documents of at most `n_tokens` tokens; a longer document is a tile of its own."""
    bounds, first = offsets.tolist(), 0
    while first < len(bounds) - 1:
        last = max(first + 1, bisect_right(bounds, bounds[first] + n_tokens) - 1)
        yield first, last
        first = last
