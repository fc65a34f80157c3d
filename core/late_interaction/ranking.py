"""Results for an application: relevance on a scale from 0 to 1, and results that do not repeat each other.

Both need what MaxSim is bounded by: unit vectors give a score of at most one per query token, so
`score / n_query_tokens` lies in [-1, 1] (`SearchResults.stats.n_query_tokens` has the number).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from late_interaction.grouping import first_of_each
from late_interaction.types import FloatMatrix, SearchResults
from late_interaction.validation import check_positive, shown

if TYPE_CHECKING:
    from late_interaction.pipeline import LateInteractionPipeline


def relevance(score: float, n_query_tokens: int) -> float:
    """Return a raw MaxSim score on a scale from 0 to 1: the mean similarity per query token, moved from [-1, 1].

    It is a rescaled score, not a probability: real scores lie close together near its upper end.

    Raises:
        TypeError, ValueError: there is not at least one query token.
    """
    check_positive("n_query_tokens", n_query_tokens)
    return min(1.0, max(0.0, (score / n_query_tokens + 1) / 2))


def relevances(results: SearchResults) -> list[float]:
    """Return the relevance of each result, from 0 to 1, of any mode.

    Of a search by vectors it is `relevance`. Of a hybrid one it is the score, which is relative to the other
    candidates: the best may have 1 where nothing is right. Of a lexical one it is
    `score / (1 + score)`: BM25 has no upper end.

    >>> from late_interaction.types import SearchResult, SearchStats
    >>> relevances(SearchResults([SearchResult("a", 3.0, "text")], SearchStats(mode="lexical")))
    [0.75]
    """
    stats = results.stats
    if stats.mode == "hybrid":
        return [result.score for result in results]
    if stats.mode == "lexical":
        return [result.score / (1 + result.score) for result in results]
    return [relevance(result.score, stats.n_query_tokens) for result in results]


def mmr(
    query_scores: ArrayLike, matrices: Sequence[FloatMatrix], k: int, lambda_mult: float = 0.5
) -> list[int]:
    """Choose documents that are relevant and unlike each other, by maximal marginal relevance.

    One after the other takes the document with the greatest `λ · rel − (1 − λ) · max dd` over those chosen before
    (Carbonell and Goldstein, SIGIR 1998), where the similarity of two documents is the mean of MaxSim both ways,
    so that a long document is not like every other: `dd(a, b) = ½ (mean_i max_j a_i·b_j + mean_j max_i a_i·b_j)`.

    Args:
        query_scores: (n,) `rel`: MaxSim divided by the number of query tokens, so that both terms lie in [-1, 1].
        matrices: of each document (n_tokens, dim) float32, unit rows.
        k: how many to choose at most.
        lambda_mult: λ from 0, as unlike each other as can be, to 1, by relevance alone.

    Returns:
        The positions of the chosen documents, in the order in which they were chosen.

    Raises:
        ValueError: k is below 1, λ is outside of [0, 1], or there are not as many scores as matrices.
    """
    check_mmr(k, lambda_mult)
    try:
        rel = np.asarray(query_scores, np.float32)
    except OverflowError:
        raise ValueError("a score is too large.") from None
    if rel.shape != (len(matrices),):
        raise ValueError(f"there are {len(matrices)} matrices, but the scores have shape {rel.shape}.")
    # Each document's greatest similarity to a chosen one.
    nearest = np.full(len(matrices), -np.inf, np.float32)
    left = list(range(len(matrices)))
    chosen: list[int] = []
    while left and len(chosen) < k:
        value = lambda_mult * rel[left] - ((1 - lambda_mult) * nearest[left] if chosen else 0)
        best = left.pop(int(np.argmax(value)))
        chosen.append(best)
        for other in left:
            nearest[other] = max(nearest[other], similarity(matrices[best], matrices[other]))
    return chosen


def check_mmr(k: int, lambda_mult: float) -> None:
    """Check what `mmr` is asked for, before anything is searched.

    Raises:
        ValueError: k is below 1, or λ is outside of [0, 1].
    """
    check_positive("k", k)
    if not isinstance(lambda_mult, Real):
        raise TypeError(f"lambda_mult must be a number, not {shown(lambda_mult)}.")
    if not 0 <= lambda_mult <= 1:
        raise ValueError(f"lambda_mult must be from 0 to 1, not {shown(lambda_mult)}.")


def similarity(a: FloatMatrix, b: FloatMatrix) -> float:
    """Return how alike two documents are, in [-1, 1]: the mean over tokens of MaxSim, and the mean of both ways."""
    similarities = a @ b.T
    return float(similarities.max(axis=1).mean() + similarities.max(axis=0).mean()) / 2


async def diversify(
    pipeline: LateInteractionPipeline, results: SearchResults, k: int, lambda_mult: float = 0.5
) -> SearchResults:
    """Return those `k` of the results that `mmr` chooses, in its order, with their scores and the search's `.stats`.

    Documents deleted meanwhile are left out, and of several with the same content all but the best.

    Raises:
        ValueError: as for `mmr`.
    """
    check_mmr(k, lambda_mult)
    results = SearchResults(list(first_of_each(results, distinct=True)), results.stats)
    matrices = await pipeline.get_matrices([result.doc_id for result in results])
    there = [result for result in results if result.doc_id in matrices]
    rel = [2 * one - 1 for one in relevances(SearchResults(there, results.stats))]
    chosen = await asyncio.to_thread(mmr, rel, [matrices[r.doc_id] for r in there], k, lambda_mult)
    return SearchResults([there[i] for i in chosen], results.stats)


def filled(chosen: SearchResults, others: SearchResults, k: int) -> SearchResults:
    """Return the chosen results and, up to `k` in all, the first of the others that are not among them.

    MMR chooses of each content one document. Where fewer than `k` contents are there, the documents that it left out
    come last.
    """
    doc_ids = {result.doc_id for result in chosen}
    left = [result for result in others if result.doc_id not in doc_ids]
    return SearchResults([*chosen, *left][:k], chosen.stats)
