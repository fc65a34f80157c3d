"""A search's plan, stages and escalation, on a store that is only a list."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from late_interaction import Candidates, Document, QueryVectors, SearchOptions, StoreError
from late_interaction.candidates import Scaling
from late_interaction.filters import Filter, matches
from late_interaction.planning import Depth, SearchPlan
from late_interaction.searching import deeper, rank, rank_ids, search

BOUNDED = Scaling((10.0, 0.0, 0.0), (5.0, 0.0, 0.0), max_ann_tokens=1000, bounded=True)
UNBOUNDED = Scaling((10.0, 0.0, 0.0), (5.0, 0.0, 0.0))
QUERY = QueryVectors(np.eye(2, dtype=np.float32)[:1], np.ones(1, np.float32))


class Listed:
    """100 documents, each with the score 1 - n / 100; stage 1 sees the best `n_ann_tokens / 4` of them."""

    epoch = 0
    location = "a list"

    def __init__(self, scaling: Scaling, there: int = 100, error: float = 0.0) -> None:
        self.scaling, self.there, self.error = scaling, there, error
        self.depths: list[Depth] = []
        self.scored: list[str] = []
        self.read: list[int] = []

    def true(self, n: int) -> float:
        return 1 - n / 100

    async def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        self.depths.append(Depth(n, n_ann_tokens))
        seen = self.there if n_ann_tokens is None else min(self.there, n_ann_tokens // 4)
        kept = [i for i in range(seen) if filter is None or matches(filter, {"n": i})]
        if n_ann_tokens is not None:
            kept = kept[:n]
        complete = seen == self.there and len(kept) < n
        bound = (
            -math.inf
            if complete or n_ann_tokens is None
            else self.true(seen)
            if self.scaling.bounded
            else math.inf
        )
        return Candidates(
            [str(i) for i in kept],
            np.array([self.true(i) + self.error for i in kept], np.float32),
            np.zeros(len(kept), bool),
            bound,
            n_ann_tokens,
        )

    async def score(
        self, query: QueryVectors, doc_ids: Sequence[str]
    ) -> tuple[list[str], NDArray[np.float32]]:
        self.scored += doc_ids
        there = [doc_id for doc_id in doc_ids if int(doc_id) < self.there]
        return there, np.array([self.true(int(doc_id)) for doc_id in there], np.float32)

    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        self.read.append(len(doc_ids))
        return [Document(doc_id, "text", metadata={"n": int(doc_id)}) for doc_id in doc_ids]


def plan(k: int, scaling: Scaling = UNBOUNDED, **options: Any) -> SearchPlan:
    given: SearchOptions = options  # type: ignore[assignment]
    return SearchPlan.of(k, given, scaling)


async def find(store: Listed, k: int, **options: Any) -> Any:
    found = await search(store, QUERY.vectors, plan(k, store.scaling, **options), query_pool_distance=0)  # type: ignore[arg-type]
    return [int(result.doc_id) for result in found], found.stats


def test_a_plan_fills_in_the_stores_defaults() -> None:
    assert plan(3) == SearchPlan(3, Depth(5, 10))
    assert plan(30).depth == Depth(30, 30)
    assert plan(3, BOUNDED, n_ann_tokens=5000, n_maxsim_candidates=2).depth == Depth(3, 1000)
    assert plan(3, exact=True).depth.n_ann_tokens is None
    assert plan(3, BOUNDED, exact=True).depth.n_ann_tokens == 10
    assert plan(3, ids=["b", "a", "b"]).ids == ["b", "a"]
    assert plan(3, filter={}).filter is None


def test_how_far_the_next_round_looks() -> None:
    assert deeper(Depth(5, 10), 5, UNBOUNDED, exact=False) == Depth(20, 40)
    assert deeper(Depth(5, 500), 0, BOUNDED, exact=False) == Depth(20, 1000)
    assert deeper(Depth(5, 1000), 5, BOUNDED, exact=False) == Depth(20, 1000)
    assert deeper(Depth(5, 1000), 4, BOUNDED, exact=False) is None
    assert deeper(Depth(5, 1000), 4, BOUNDED, exact=True) == Depth(5, None)
    assert deeper(Depth(5, None), 5, BOUNDED, exact=True) is None
    assert deeper(Depth(2**63 - 1, 2**63 - 1), 0, UNBOUNDED, exact=False) is None


async def test_one_round_where_it_is_enough() -> None:
    store = Listed(UNBOUNDED)
    found, stats = await find(store, 2)
    assert found == [0, 1]
    assert store.depths == [Depth(5, 10)]
    assert (stats.escalations, stats.certain, stats.n_candidates, stats.n_scored) == (0, False, 2, 2)


async def test_further_rounds_until_there_are_k() -> None:
    store = Listed(UNBOUNDED)
    found, stats = await find(store, 30)
    assert found == list(range(30))
    assert store.depths == [Depth(30, 30), Depth(120, 120)]
    assert stats.escalations == 1
    assert len(store.scored) == len(set(store.scored)), "no document is scored twice"


async def test_a_filter_that_leaves_few_goes_on_until_the_engine_has_no_more() -> None:
    store = Listed(UNBOUNDED, there=50)
    found, stats = await find(store, 10, filter={"n": {"$gte": 47}})
    assert found == [47, 48, 49]
    assert stats.certain
    store = Listed(BOUNDED, there=2000)
    found, stats = await find(store, 10, filter={"n": {"$gte": 300}})
    assert (found, stats.certain, store.depths[-1].n_ann_tokens) == ([], False, 1000)


async def test_exact_ends_when_no_other_document_can_be_better() -> None:
    store = Listed(BOUNDED)
    found, stats = await find(store, 3, exact=True)
    assert (found, stats.certain) == ([0, 1, 2], True)
    assert all(depth.n_ann_tokens is not None for depth in store.depths)
    store = Listed(UNBOUNDED)
    found, stats = await find(store, 3, exact=True)
    assert (found, stats.certain, store.depths) == ([0, 1, 2], True, [Depth(5, None)])


async def test_exact_scores_everything_where_the_engine_looks_no_deeper() -> None:
    store = Listed(BOUNDED, there=2000)
    found, stats = await find(store, 3, exact=True, filter={"n": {"$gte": 1000}})
    assert (found, stats.certain) == ([1000, 1001, 1002], True)
    assert store.depths[-1].n_ann_tokens is None


async def test_ids_are_scored_each_and_nothing_else() -> None:
    store = Listed(UNBOUNDED)
    found, stats = await find(store, 2, ids=["70", "5", "300", "40"])
    assert (found, store.depths) == ([5, 40], [])
    assert (stats.n_scored, stats.certain, stats.n_ann_tokens) == (3, True, None)
    assert (await find(store, 2, ids=[]))[0] == []


async def test_ids_and_a_filter_read_no_more_than_it_takes() -> None:
    store = Listed(UNBOUNDED, there=5000)
    ids = [str(n) for n in range(5000)]
    found, _ = await find(store, 3, ids=ids, filter={"n": {"$gte": 250}})
    assert found == [250, 251, 252]
    assert store.read == [100, 100, 100]
    ranking = await rank_ids(store, QUERY, ids)  # type: ignore[arg-type]
    assert [doc_id for doc_id, _ in ranking.best] == ids


async def test_what_cannot_be_expected_in_the_top_k_is_not_scored() -> None:
    scaling = Scaling((400.0, 0.0, 0.0), (90.0, 0.0, 0.0), first_candidates=(10.0, 0.0, 0.0))
    for error in (0.0, 0.3):  # Stage 1 may be wrong, as long as it is wrong alike.
        store = Listed(scaling, error=error)
        ranking = await rank(store, QUERY, SearchPlan.of(3, {}, scaling))  # type: ignore[arg-type]
        assert [doc_id for doc_id, _ in ranking.best] == ["0", "1", "2"]
        assert len(store.scored) < 20


@pytest.mark.parametrize("k", [1, 2**62, 2**63 - 1])
async def test_any_k(k: int) -> None:
    found, _ = await find(Listed(UNBOUNDED), k)
    assert found == list(range(min(k, 100)))


async def test_an_index_that_is_always_replaced_is_an_error_and_not_searched_for_ever() -> None:
    store = Listed(UNBOUNDED)
    read = store.documents

    async def replaced(doc_ids: Sequence[str]) -> list[Document]:
        store.epoch += 1
        return await read(doc_ids)

    store.documents = replaced  # type: ignore[method-assign]
    with pytest.raises(StoreError, match="a list was replaced again and again"):
        await find(store, 3)
