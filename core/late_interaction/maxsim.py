"""MaxSim, exact, on ragged documents: one matrix product over packed tokens and a segmented maximum.

`score(q, d) = Σ_i w_i · max_j q_i · d_j` (Khattab and Zaharia, "ColBERT", SIGIR 2020, equation 3, with a weight
per query vector). No document is padded: a document whose best match is negative scores negative.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from late_interaction.types import FloatMatrix, RaggedTokens

TILE_TOKENS = 4096
"""Tokens per matrix product: the product of a 32-token query with a tile then stays in the CPU's cache."""


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
    """
    if not isinstance(documents, RaggedTokens):
        documents = RaggedTokens.from_matrices(documents, query.shape[-1])
    if query.ndim != 2 or query.shape[1] != documents.tokens.shape[1]:
        raise ValueError(
            f"a query of shape {query.shape} does not fit documents of dim {documents.tokens.shape[1]}."
        )
    if weights is None:
        weights = np.ones(len(query), np.float32)
    elif weights.shape != (len(query),):
        raise ValueError(f"weights must have shape ({len(query)},), not {weights.shape}.")
    scores = np.empty(len(documents), np.float32)
    offsets = documents.offsets
    for first, last in _tiles(offsets):
        rows = slice(int(offsets[first]), int(offsets[last]))
        tile = documents.tokens[rows].astype(np.float32, copy=False)
        similarities = query @ tile.T
        if documents.scales is not None:
            similarities *= documents.scales[rows]
        best = np.maximum.reduceat(similarities, offsets[first:last] - offsets[first], axis=1)
        scores[first:last] = weights @ best
    return scores


def token_alignment(query: FloatMatrix, document: FloatMatrix) -> TokenAlignment:
    """For each row of `query` (n, dim), the row of `document` (m, dim) that is most similar to it."""
    similarities = query @ document.T
    tokens = similarities.argmax(axis=1)
    return TokenAlignment(tokens.astype(np.int64), similarities[np.arange(len(query)), tokens])


def _tiles(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of whole documents of about TILE_TOKENS tokens; a longer document is a tile of its own."""
    first, n_docs = 0, len(offsets) - 1
    while first < n_docs:
        last = int(np.searchsorted(offsets, offsets[first] + TILE_TOKENS, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last
