"""One search: candidates by their token vectors, exact scores, and further rounds where that is not enough.

Stage 1 (`Store.candidates`) proposes documents by their token vectors, stage 2 (`Store.score`) scores the proposed ones
exactly. Where fewer than `k` documents come of it, or `exact=True` and the top k is not certain, stage 1 is done again
with larger parameters (`deeper`). With `ids=` there is no stage 1: each of these documents is scored.

A search by words (`mode="lexical"`) is the store's alone. A hybrid one puts two lists together, and scores the
documents of both by both (`late_interaction.fusion`).
"""

from __future__ import annotations

import heapq
import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from late_interaction.candidates import Scaling
from late_interaction.errors import StoreError
from late_interaction.filters import matches
from late_interaction.fusion import LISTED, fused
from late_interaction.grouping import first_of_each
from late_interaction.planning import Depth, SearchPlan
from late_interaction.pooling import pool_query
from late_interaction.stores.base import Candidates, Store
from late_interaction.types import (
    FloatMatrix,
    QueryVectors,
    SearchResult,
    SearchResults,
    SearchStats,
)
from late_interaction.validation import LARGEST

_ESCALATION = 4
"""How much larger stage 1's parameters are in the next round."""
_SCORED_TOGETHER = 1000
"""Documents of `ids=` that are scored at a time, so that memory is bounded however many there are."""
_READ_TOGETHER = 100
"""Documents read at least at a time while a filter decides which of `ids=` count."""
_ATTEMPTS = 5
"""How often a search is done that saw the index replaced by another."""
_ERROR_SPREAD = 3.0
"""Standard deviations; benchmarks/local.py shows the recall that comes of it."""


@dataclass(slots=True)
class Ranking:
    """Exact scores of documents, and how they were found.

    Attributes:
        best: ids and scores, best first.
        depth: how far stage 1 looked in the last round.
        n_candidates: documents that it handed over in that round.
        n_scored: documents scored exactly, over all rounds.
        rounds: how often stage 1 was done.
        certain: the top k is proved to be exact.
        seconds: by stage.
        late, lexical: MaxSim of a hybrid search; BM25 of a hybrid or lexical one.
    """

    best: list[tuple[str, float]] = field(default_factory=list)
    depth: Depth | None = None
    n_candidates: int = 0
    n_scored: int = 0
    rounds: int = 0
    certain: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    late: Mapping[str, float] | None = None
    lexical: Mapping[str, float] | None = None

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the seconds that the block takes to those of a stage."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started


@dataclass(frozen=True, slots=True)
class Asked:
    """A query: what a search by vectors asks for, and what one by words.

    Attributes:
        matrix: (n_tokens, dim) vectors, before pooling; (0, dim) where only words are searched for.
        query: the pooled vectors; None where only words are searched for.
        text: the words; None of an image, or of vectors that were made elsewhere.
    """

    matrix: FloatMatrix
    query: QueryVectors | None
    text: str | None

    @property
    def vectors(self) -> QueryVectors:
        """The pooled vectors of a search by vectors."""
        assert self.query is not None
        return self.query

    @property
    def words(self) -> str:
        """The text of a search by words.

        Raises:
            ValueError: there is none.
        """
        if self.text is None:
            raise ValueError(
                'mode="hybrid" and "lexical" search by the words of a text: an image has none, and with vectors give '
                "the query as text=…."
            )
        return self.text


async def search(
    store: Store,
    matrix: FloatMatrix,
    plan: SearchPlan,
    *,
    query_pool_distance: float,
    encode_s: float = 0.0,
    text: str | None = None,
) -> SearchResults:
    """Search a store for a query's (n_tokens, dim) vectors, its text, or both.

    Raises:
        ValueError: the plan is to search by words, and there is no text.
        StoreError: the store failed, or the index was replaced by others again and again.
    """
    pooled = None if plan.mode == "lexical" else pool_query(matrix, query_pool_distance)
    query = Asked(matrix, pooled, text)
    find = _rank_and_read if plan.group_by is None and not plan.distinct else _search_groups
    for _ in range(_ATTEMPTS):
        epoch = store.epoch
        if pooled is not None:
            pooled.closest.fill(-np.inf)
        ranking, results = await find(store, query, plan)
        if store.epoch == epoch:  # Else scores of one index may stand beside documents of another.
            break
    else:
        raise StoreError(f"The index in {store.location} was replaced again and again during a search.")
    closest = () if pooled is None else tuple(pooled.closest.tolist())
    stats = SearchStats(
        n_query_tokens=len(matrix),
        n_query_vectors=0 if query.query is None else len(query.query.vectors),
        n_ann_tokens=None if ranking.depth is None else ranking.depth.n_ann_tokens,
        n_candidates=ranking.n_candidates,
        n_scored=ranking.n_scored,
        escalations=max(0, ranking.rounds - 1),
        certain=ranking.certain,
        encode_s=encode_s,
        candidates_s=ranking.seconds.get("candidates", 0.0),
        maxsim_s=ranking.seconds.get("maxsim", 0.0),
        documents_s=ranking.seconds["documents"],
        mode=plan.mode,
        lexical_s=ranking.seconds.get("lexical", 0.0),
        closest_similarities=closest if math.isfinite(min(closest, default=-math.inf)) else (),
    )
    return SearchResults(results[plan.offset :], stats)


async def _rank_and_read(store: Store, query: Asked, plan: SearchPlan) -> tuple[Ranking, list[SearchResult]]:
    by_mode = {"late": _rank_late, "lexical": _rank_lexical, "hybrid": _rank_hybrid}
    ranking = await by_mode[plan.mode](store, query, plan)
    with ranking.timed("documents"):
        return ranking, await _read(store, ranking, plan)


async def _search_groups(store: Store, query: Asked, plan: SearchPlan) -> tuple[Ranking, list[SearchResult]]:
    """Rank more and more documents, until the first of each group among them are k, or there are no more."""
    n = plan.k * _ESCALATION
    while True:
        ranking, results = await _rank_and_read(store, query, plan.among(min(n, LARGEST), store.scaling))
        chosen = list(first_of_each(results, group_by=plan.group_by, distinct=plan.distinct))
        if len(chosen) >= plan.k or len(ranking.best) < n:
            return ranking, chosen[: plan.k]
        n *= _ESCALATION


async def _rank_late(store: Store, query: Asked, plan: SearchPlan) -> Ranking:
    if plan.ids is None:
        return await rank(store, query.vectors, plan, text=query.text if plan.mode == "late" else None)
    return await rank_ids(store, query.vectors, plan.ids)


async def _rank_lexical(store: Store, query: Asked, plan: SearchPlan) -> Ranking:
    """Rank by BM25 the documents that have a word of the query."""
    ranking = Ranking()
    with ranking.timed("lexical"):
        if plan.ids is None:
            words = await store.lexical(query.words, plan.k, filter=plan.filter)
        else:
            words = await store.lexical(query.words, 1, also=plan.ids)
    ranking.lexical = words.best if plan.ids is None else words.others
    ranking.certain = words.certain
    ranking.best = _best_first(ranking.lexical)
    ranking.n_candidates = len(ranking.best)
    return ranking


async def _rank_hybrid(store: Store, query: Asked, plan: SearchPlan) -> Ranking:
    """Rank the best documents by vectors and the best by words by both (`fused`)."""
    text, listed = query.words, max(plan.k, LISTED)
    depth = replace(plan.depth, n_candidates=max(plan.depth.n_candidates, listed))
    ranking = await _rank_late(store, query, replace(plan, k=listed, depth=depth, n_first=None))
    late = dict(ranking.best)
    with ranking.timed("lexical"):
        words = await store.lexical(text, listed, filter=plan.filter, also=list(late))
    lexical = words.others
    ranking.certain = ranking.certain and words.certain
    if plan.ids is None:
        with ranking.timed("maxsim"):
            others = [doc_id for doc_id in words.best if doc_id not in late]
            late |= await _score_exactly(store, query.vectors, others)
        lexical = words.best | lexical
        ranking.n_scored += len(others)
        ranking.n_candidates += len(others)
    ranking.late, ranking.lexical = late, lexical
    ranking.best = _best_first(fused(late, lexical, plan.lexical_weight))
    return ranking


async def rank(store: Store, query: QueryVectors, plan: SearchPlan, *, text: str | None = None) -> Ranking:
    """Find the top k by stages 1 and 2, in as many rounds as it takes.

    Where stage 1 may have missed documents, those that have a rare word of `text` are scored too: at most half as many
    as there may be candidates.
    """
    ranking, scores, rare = Ranking(), dict[str, float](), list[str]()
    depth: Depth | None = plan.depth
    while depth is not None:
        with ranking.timed("candidates"):
            candidates = await store.candidates(
                query, depth.n_candidates, n_ann_tokens=depth.n_ann_tokens, filter=plan.filter
            )
        if text is not None and not ranking.rounds and not candidates.exhausted:
            with ranking.timed("candidates"):
                rare = await store.having_rare_words(text, filter=plan.filter)
                rare = rare[: depth.n_candidates // 2]
        with ranking.timed("maxsim"):
            await _score(store, query, candidates, rare, plan, scores)
        ranking.rounds += 1
        ranking.depth = Depth(depth.n_candidates, candidates.n_ann_tokens)
        ranking.n_candidates, ranking.n_scored = len({*candidates.doc_ids, *rare}), len(scores)
        ranking.best = _best_first(scores)[: plan.k]
        kth_best = ranking.best[-1][1] if len(ranking.best) == plan.k else -math.inf
        ranking.certain = kth_best >= candidates.bound
        enough = ranking.certain if plan.exact else len(ranking.best) == plan.k
        if enough or candidates.exhausted:
            break
        depth = deeper(depth, len(candidates.doc_ids), store.scaling, exact=plan.exact)
    return ranking


def deeper(depth: Depth, n_found: int, scaling: Scaling, *, exact: bool) -> Depth | None:
    """Return how far the next round looks.

    Args:
        depth: how far the last round looked.
        n_found: how many candidates it handed over.
        scaling: the engine's limits.
        exact: score every document rather than give up.

    Returns:
        The next depth; None where the engine looks no deeper, and has handed over all that it found.
    """
    if depth.n_ann_tokens is None:
        return None
    n_ann_tokens = scaling.clamp_ann_tokens(depth.n_ann_tokens * _ESCALATION)
    if n_ann_tokens > depth.n_ann_tokens or n_found >= depth.n_candidates:
        return Depth(min(LARGEST, depth.n_candidates * _ESCALATION), n_ann_tokens)
    return Depth(depth.n_candidates, None) if exact else None


async def rank_ids(store: Store, query: QueryVectors, doc_ids: Sequence[str]) -> Ranking:
    """Score each of these documents; their order is certain."""
    ranking, scores = Ranking(certain=True), dict[str, float]()
    with ranking.timed("maxsim"):
        for first in range(0, len(doc_ids), _SCORED_TOGETHER):
            scores |= await _score_exactly(store, query, doc_ids[first : first + _SCORED_TOGETHER])
    ranking.best = _best_first(scores)
    ranking.n_candidates = ranking.n_scored = len(scores)
    return ranking


def _best_first(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return ids and scores, the best first; of equal ones by id, so that pages of a search fit together."""
    ordered = sorted((-score, doc_id) for doc_id, score in scores.items())
    return [(doc_id, -score) for score, doc_id in ordered]


def may_reach_top_k(
    approximate: NDArray[np.float32], to_beat: float, errors: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Return which candidates may reach a score, judged by how wrong stage 1 was about those already scored.

    Args:
        approximate: (n,) approximate scores of candidates not scored yet.
        to_beat: the k-th best exact score so far.
        errors: (m,) exact minus approximate score of candidates like them, m ≥ 1.

    Returns:
        (n,) bool: the approximate score, plus the errors' mean and 3 of their standard deviations, reaches
        `to_beat`.
    """
    may: NDArray[np.bool_] = approximate >= to_beat - errors.mean() - _ERROR_SPREAD * errors.std()
    return may


async def _score(
    store: Store,
    query: QueryVectors,
    candidates: Candidates,
    rare: Sequence[str],
    plan: SearchPlan,
    scores: dict[str, float],
) -> None:
    """Add each candidate's exact score to `scores`, without those that cannot be expected in the top k."""
    doc_ids, approximate = candidates.doc_ids, candidates.scores
    exact = np.flatnonzero(candidates.exact)
    scores.update(zip((doc_ids[i] for i in exact.tolist()), approximate[exact].tolist(), strict=True))
    also = [doc_id for doc_id in rare if doc_id not in scores]
    known = {*scores, *also}
    unscored = [i for i, doc_id in enumerate(doc_ids) if doc_id not in known]
    first, others = unscored[: plan.n_first], unscored[plan.n_first :] if plan.n_first else []
    scored = await _score_exactly(store, query, [*(doc_ids[i] for i in first), *also])
    scores.update(scored)
    if others and scored and len(scores) >= plan.k:
        there = [i for i in first if doc_ids[i] in scored]
        errors = np.array([scored[doc_ids[i]] for i in there], np.float32) - approximate[there]
        may = may_reach_top_k(approximate[others], heapq.nlargest(plan.k, scores.values())[-1], errors)
        others = list(itertools.compress(others, may.tolist()))
    scores.update(await _score_exactly(store, query, [doc_ids[i] for i in others]))


async def _score_exactly(store: Store, query: QueryVectors, doc_ids: Sequence[str]) -> dict[str, float]:
    """Return the MaxSim of those of the documents that are in the index."""
    if not doc_ids:
        return {}
    there, scores = await store.score(query, doc_ids)
    return dict(zip(there, scores.tolist(), strict=True))


async def _read(store: Store, ranking: Ranking, plan: SearchPlan) -> list[SearchResult]:
    """Read the first k of the ranked documents that are in the index and match."""
    results: list[SearchResult] = []
    scores, doc_ids = dict(ranking.best), [doc_id for doc_id, _ in ranking.best]
    late, lexical = ranking.late, ranking.lexical
    first = 0
    while first < len(doc_ids) and len(results) < plan.k:
        size = plan.k if plan.filter is None else max(plan.k, _READ_TOGETHER)
        documents = await store.documents(doc_ids[first : first + size])
        results += [
            SearchResult(
                d.doc_id,
                scores[d.doc_id],
                d.content,
                d.content_type,
                d.metadata,
                None if late is None else late[d.doc_id],
                None if lexical is None else lexical.get(d.doc_id, 0.0),
            )
            for d in documents
            # Asked again: metadata may have changed since the store looked at them.
            if plan.filter is None or matches(plan.filter, d.metadata, d.content)
        ]
        first += size
    return results[: plan.k]
