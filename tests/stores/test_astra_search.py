"""Searches on Astra: bounds, recall, filters, every document scored."""

from __future__ import annotations

import datetime as dt
import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction import AstraStore, LateInteractionPipeline, PrecomputedEmbeddings
from late_interaction.filters import matches, parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.metadata import check_metadata
from late_interaction.stores.astra.ann import Asked, merge_ann_lists
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.filters import push_down
from late_interaction.stores.astra.rows import declared_columns
from late_interaction.stores.astra.schema import fields_of, type_names
from late_interaction.types import QueryVectors
from tests.stores.astra import FILTERABLE, pipeline_on, rows
from tests.support.answers import ids
from tests.unit.test_filters import NOON, whole_filters


def one_by_one(weights: np.ndarray) -> Asked:
    """Vectors of which none stands for another."""
    return Asked.of(QueryVectors(np.eye(len(weights), dtype=np.float32), weights.astype(np.float32)), 0)


@pytest.mark.parametrize("distance", [0, 0.1, 0.3, 0.6])
def test_bounds_hold_where_a_vector_stands_for_others(distance):
    rng = np.random.default_rng(0)

    def unit(matrix: np.ndarray) -> np.ndarray:
        return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)

    centres = rng.normal(size=(4, 16))
    for _ in range(20):
        vectors = unit(np.repeat(centres, 5, axis=0) + rng.normal(size=(20, 16)) * 0.5)
        query = QueryVectors(vectors, rng.uniform(1, 3, 20).astype(np.float32))
        documents = [unit(rng.normal(size=(6, 16)) + centres[i % 4]) for i in range(40)]
        asked = Asked.of(query, distance)
        assert asked.weights.sum() == pytest.approx(query.weights.sum(), rel=1e-5)
        lists = []
        for vector in asked.vectors:
            rows = [
                {"doc_id": i, "$similarity": (1 + float(cosine)) / 2}
                for i, document in enumerate(documents)
                for cosine in document @ vector
            ]
            lists.append(sorted(rows, key=lambda row: -row["$similarity"])[:25])
        hits = merge_ann_lists(lists, asked, limit=25)
        exact = [float(query.weights @ (vectors @ document.T).max(axis=1)) for document in documents]
        assert all(
            bound >= exact[int(doc_id)] for doc_id, bound in zip(hits.doc_ids, hits.bounds, strict=True)
        )
        unseen = set(range(40)) - {int(doc_id) for doc_id in hits.doc_ids}
        assert all(hits.unseen >= exact[i] for i in unseen)
    assert (len(asked.vectors) < 20) == (distance > 0)


async def test_near_query_vectors_are_asked_for_once_and_scored_each(server):
    """A search makes fewer requests than the query has vectors, and gives the same scores as with one for each."""
    pipeline = LateInteractionPipeline(
        server.async_database(), PrecomputedEmbeddings(8, "x"), doc_pool_factor=1, packing="float32"
    )
    await pipeline.initialize()
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(4, 8)).astype(np.float32) for _ in range(300)]
    matrices = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in matrices]
    await pipeline.index_embeddings([{"doc_id": str(i), "content": "x"} for i in range(300)], matrices)
    query = np.repeat(np.eye(8, dtype=np.float32)[:3], 4, axis=0) + rng.normal(size=(12, 8)) * 0.15
    query = (query / np.linalg.norm(query, axis=1, keepdims=True)).astype(np.float32)
    server.log.clear()
    results = await pipeline.search_with_embeddings(query, k=5)
    assert results.stats.n_query_vectors > 6
    asked = [request for request in server.log.select("find") if request.body.get("sort")]
    assert 3 <= len(asked) < results.stats.n_query_vectors - 2
    exact = await pipeline.search_with_embeddings(query, k=5, exact=True)
    assert ids(results) == ids(exact)
    np.testing.assert_allclose([r.score for r in results], [r.score for r in exact], atol=1e-5)


def test_bounds_hold_with_similarities_that_are_off_in_the_fourth_digit():
    weights = np.array([1, 3], np.float32)
    exact = [[0.9, 0.8, 0.7], [0.8, 0.6, 0.5]]
    lists = [
        [{"doc_id": i, "$similarity": (1 + cosine) / 2 - 1.9e-4} for i, cosine in enumerate(row)]
        for row in exact
    ]
    hits = merge_ann_lists(lists, one_by_one(weights), limit=3)
    scores = dict(enumerate(weights @ np.array(exact)))
    assert all(bound >= scores[int(doc_id)] for doc_id, bound in zip(hits.doc_ids, hits.bounds, strict=True))
    assert hits.unseen >= 0.7 + 3 * 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rounding", [0, 1e-4])
async def test_certain_means_certain_however_little_was_looked_at(server, rounding):
    """Wherever `certain` is reported, the top k is the exact one; on this data it is reported now and then."""
    server.settings.ann_rounding, server.settings.ann_mixed_ties = rounding, bool(rounding)
    pipeline = pipeline_on(server, query_pool_distance=0, packing="float32")
    await pipeline.initialize()
    rng = np.random.default_rng(0)
    documents = [
        {"doc_id": str(i), "content": " ".join(f"w{j}" for j in rng.integers(0, 40, 6))} for i in range(150)
    ]
    await pipeline.index_documents(documents)
    verdicts = []
    for seed in range(40):
        query = " ".join(f"w{j}" for j in np.random.default_rng(seed).integers(0, 40, 3))
        k = 1 + seed % 5
        results = await pipeline.search(query, k=k, n_ann_tokens=20 + 10 * (seed % 4), n_maxsim_candidates=10)
        exact = await pipeline.search(query, k=k, exact=True)
        assert exact.stats.certain
        verdicts.append(results.stats.certain)
        if results.stats.certain:
            np.testing.assert_allclose([r.score for r in results], [r.score for r in exact], atol=1e-4)
    assert 5 < sum(verdicts) < 40


@pytest.mark.slow
async def test_a_deeper_search_scores_every_candidate_before_it_is_certain(server):
    """The best document is in one list at first, and in no way like the candidates scored before it."""
    rng = np.random.default_rng(0)

    def token(axis: int, cosine: float) -> np.ndarray:
        rest = rng.normal(size=12)
        return np.concatenate(
            [np.eye(4)[axis] * cosine, rest * np.sqrt(1 - cosine**2) / np.linalg.norm(rest)]
        )

    matrices = [[token(0, 0.9)] for _ in range(200)]
    matrices += [[token(axis, 0.26)] for axis in (1, 2, 3) for _ in range(500)]
    matrices += [[token(0, 0.8), *(token(axis, 0.25) for axis in (1, 2, 3))]]
    pipeline = LateInteractionPipeline(
        server.async_database(),
        PrecomputedEmbeddings(16, "x"),
        doc_pool_factor=1,
        query_pool_distance=0,
        packing="float32",
    )
    await pipeline.initialize()
    await pipeline.index_embeddings(
        [{"doc_id": str(i), "content": "x"} for i in range(len(matrices))],
        [np.array(matrix, np.float32) for matrix in matrices],
    )
    results = await pipeline.search_with_embeddings(np.eye(16, dtype=np.float32)[:4], k=1, exact=True)
    assert results.stats.certain
    assert (ids(results), results[0].score) == (["1700"], pytest.approx(1.55, abs=1e-3))


def test_bounds_hold_for_any_lists():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n_docs, n_vectors, limit = 30, 4, 12
        tokens = rng.normal(size=(90, 8))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        owner = rng.integers(0, n_docs, 90)
        queries = rng.normal(size=(n_vectors, 8))
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        weights = rng.uniform(0.5, 3, n_vectors).astype(np.float32)
        cosines = queries @ tokens.T
        lists = []
        for row in cosines:
            best = np.argsort(-row)[:limit]
            lists.append([{"doc_id": str(owner[j]), "$similarity": (1 + row[j]) / 2} for j in best])
        found = merge_ann_lists(lists, one_by_one(weights), limit)
        scores = {
            str(d): float(weights @ cosines[:, owner == d].max(axis=1))
            for d in range(n_docs)
            if (owner == d).any()
        }
        for doc_id, bound in zip(found.doc_ids, found.bounds, strict=True):
            assert scores[doc_id] <= bound
        unseen = [score for doc_id, score in scores.items() if doc_id not in found.doc_ids]
        assert max(unseen, default=-np.inf) <= found.unseen == found.bound(len(found.doc_ids))
        assert found.bound(3) >= max((scores[d] for d in found.doc_ids[3:]), default=-np.inf)
        assert merge_ann_lists(lists, one_by_one(weights), limit + 1).unseen == -np.inf


@pytest.mark.slow
async def test_a_poor_vector_index_is_noticed(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(120))
    healthy = await diagnose(pipeline.store, sample=100, seed=0)
    assert (healthy.recall, healthy.healthy, healthy.sampled) == (1.0, True, 100)
    server.settings.ann_recall_loss = 0.35
    sick = await diagnose(pipeline.store, sample=100, seed=0)
    assert 0.4 < sick.recall < 0.9
    assert not sick.healthy
    assert sick.leftovers == 0


async def test_what_ann_does_not_see_yet_is_there_for_everything_else(server):
    server.settings.ann_delay_s = float("inf")
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(5))
    assert await pipeline.count() == 5
    assert await pipeline.search("old1x1") == []
    server.release_ann()
    assert ids(await pipeline.search("old1x1", k=1)) == ["d1"]


async def test_an_undeclared_filter_is_applied_and_logged_once(server, caplog):
    pipeline = pipeline_on(server, filterable={"lang": str})
    await pipeline.initialize()
    await pipeline.index_documents(rows(30))
    for _ in range(3):
        results = await pipeline.search("old1x1", k=3, filter={"year": {"$gte": 20}, "lang": "old"})
        assert all(result.metadata["year"] >= 20 for result in results)
        assert len(results) == 3
    told = [record.message for record in caplog.records if "filterable" in record.message]
    assert len(told) == 1
    assert "'year'" in told[0]
    for where in ({"year": 1, "page": 2}, {"page": 2}, {"year": 1}, {"page": 2, "year": {"$gt": 1}}):
        await pipeline.search("old1x1", filter=where)
    told = [record.message for record in caplog.records if "filterable" in record.message]
    assert len(told) == 2
    assert "A filter on 'page' in" in told[1]


@pytest.mark.slow
async def test_a_declared_filter_goes_into_the_ann_query(server):
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(
        [*rows(300), {"doc_id": "x", "content": "needle", "lang": "rare", "year": -5}]
    )
    server.log.clear()
    results = await pipeline.search("old1x1", k=5, filter={"lang": "rare", "year": {"$lt": 0}})
    assert ids(results) == ["x"]
    assert results.stats.certain
    assert results.stats.escalations == 0
    assert server.log.select("find", "things_tokens")[0].body["filter"] == {
        "$and": [{"meta_lang": "rare"}, {"meta_year": {"$lt": 0}}]
    }
    server.log.clear()
    assert await pipeline.search("old1x1", filter={"year": "no number"}) == []
    assert server.log.requests == []


def test_what_is_pushed_down_finds_all_that_match_and_exactly_those_where_it_says_so():
    declared = fields_of(
        type_names({"i": int, "f": float, "s": str, "b": bool, "l": list[str], "t": "datetime"})
    )
    dates = [
        "2024-01-31",
        "2024-02-01T00:00:00Z",
        "2024-01-31T23:30:00-05:00",
        "2024-02-01 03:00",
        "2023-12-31T24:00"[:10],
        "2024-02-01T00:00:00.0005Z",
        dt.datetime(2024, 2, 1, 0, 0, 0, 400),
        dt.datetime(2024, 2, 1, 0, 0, 0, 1000, dt.UTC),
    ]
    values = {
        "i": [0, 1, -7, 2**40, None],
        "f": [0.0, -0.0, 1, 2.5, -1e300, None],
        "s": ["", "a", "b", "é", "\U0001f600", None],
        "b": [True, False, None],
        "l": [[], ["a"], ["a", "b"], ["b", "c"], None],
        "t": [*dates, None],
    }
    operands = [0, 1, 1.0, 2.5, -7, 2**70, 1e308, True, "a", "b", "", "2024-02-01", *dates, ["a"], ["a", "b"]]
    server_side = {name: [declared[name].cell({name: value}) for value in values[name]] for name in values}
    checked = 0
    for name, stored in values.items():
        for op in ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte", "$between", "$contains"):
            for operand in operands:
                if op in ("$gt", "$gte", "$lt", "$lte", "$between") and isinstance(operand, bool | list):
                    continue
                if op == "$contains" and isinstance(operand, list):
                    continue
                wrapped = [operand, "zz"] if op in ("$in", "$nin", "$between") else operand
                parsed = parse_filter({name: {op: wrapped}})
                pushed = push_down(parsed, declared)
                for value, cell in zip(stored, server_side[name], strict=True):
                    wanted = matches(parsed, {name: value})
                    asked = not pushed.matches_nothing and (
                        pushed.where is None or _found(pushed.where, {declared[name].column: cell})
                    )
                    assert asked or not wanted, (name, op, operand, value)
                    if pushed.exact:
                        assert asked == wanted, (name, op, operand, value)
                        checked += 1
    assert checked > 300


KINDS: dict[str, Any] = {"i": int, "f": float, "s": str, "b": bool, "l": list[str], "t": dt.datetime}
FIELDS = fields_of(type_names(KINDS))
short = st.sampled_from(["", "a", "b", "ab", "A", "2024-05-01", "2024-05-01T10:00:00Z", "2024"])
near = st.integers(-4, 4).map(lambda n: NOON + dt.timedelta(microseconds=n * 250))
dates = near | near.map(dt.datetime.isoformat) | st.sampled_from(["2024-05-01", dt.datetime(2024, 5, 1)])
undeclared = st.integers(-1, 1) | short | dates | st.lists(short, max_size=2)
declared_metadata = st.fixed_dictionaries(
    {},
    optional={
        "i": st.none() | st.integers(-2, 2) | st.sampled_from([2**53 + 1, -(2**63)]),
        "f": st.none() | st.integers(-2, 2) | st.sampled_from([0.5, -0.0, 1e300]),
        "s": st.none() | short,
        "b": st.none() | st.booleans(),
        "l": st.none() | st.lists(short, max_size=3),
        "t": st.none() | dates,
        "u": undeclared,
    },
)


@pytest.mark.slow
@given(st.data())
@settings(max_examples=300, deadline=None)
def test_what_is_pushed_down_of_any_filter_finds_all_that_match(data: st.DataObject) -> None:
    """With exactness where it says so; the service is played by `_found`."""
    documents = [
        check_metadata(one) for one in data.draw(st.lists(declared_metadata, min_size=1, max_size=5))
    ]
    contents = [data.draw(short) for _ in documents]
    named = [*documents, *({"$content": content} for content in contents)]
    others = [
        dict(zip("ifsblt", data.draw(st.permutations(list(one.values()))), strict=False)) for one in documents
    ]
    parsed = parse_filter(data.draw(whole_filters([*named, *others])))
    pushed = push_down(parsed, FIELDS)
    for document, content in zip(documents, contents, strict=True):
        cells = declared_columns(document, FIELDS)
        wanted = matches(parsed, document, content)
        asked = not pushed.matches_nothing and (pushed.where is None or _found(pushed.where, cells))
        assert asked == wanted if pushed.exact else asked or not wanted, (parsed, pushed, document)


def _found(where: dict, cells: dict) -> bool:
    """What the service finds: each entry of a filter must hold."""
    for name, condition in where.items():
        if name in ("$and", "$or"):
            found = (all if name == "$and" else any)(_found(one, cells) for one in condition)
        else:
            found = _cql({name: condition}, name, cells[name])
        if not found:
            return False
    return True


def _cql(where: dict, column: str, cell: object) -> bool:
    """What the database does with one column: null satisfies nothing."""
    condition = where[column]
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    return cell is not None and all(_holds(op, cell, operand) for op, operand in condition.items())


def _holds(op: str, cell, operand) -> bool:
    if op == "$in":
        return any(c in operand for c in cell) if isinstance(cell, list) else cell in operand
    compare = {"$eq": "eq", "$gt": "gt", "$gte": "ge", "$lt": "lt", "$lte": "le"}[op]
    return getattr(operator, compare)(cell, operand)


@pytest.mark.slow
async def test_a_search_for_more_than_ann_lists_hold_scores_every_document(server):
    """The same as brute force, whatever of a filter the service decides."""
    rng = np.random.default_rng(0)
    n_docs, dim = 1500, 16
    matrices = rng.normal(size=(n_docs, 2, dim)).astype(np.float32)
    matrices /= np.linalg.norm(matrices, axis=2, keepdims=True)
    records = [
        {"doc_id": str(i), "content": "x", "lang": "de" if i % 2 else "en", "page": i % 3}
        for i in range(n_docs)
    ]
    pipeline = LateInteractionPipeline(
        AstraStore(server.async_database(), "many", filterable={"lang": str}),
        PrecomputedEmbeddings(dim, "x"),
        doc_pool_factor=1,
        query_pool_distance=0,
        packing="float32",
    )
    await pipeline.initialize()
    await pipeline.index_embeddings(records, list(matrices))
    query = matrices[7] + rng.normal(size=(2, dim)).astype(np.float32) / 4
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    scores = maxsim(query, list(matrices))
    scored_all = 0
    for k, wanted in [
        (10, None),
        (1400, None),
        (600, {"lang": "de"}),
        (400, {"page": 1}),
        (200, {"lang": "en", "page": {"$lt": 1}}),
    ]:
        parsed = parse_filter(wanted)
        matching = [i for i, row in enumerate(records) if parsed is None or matches(parsed, row)]
        best = sorted(matching, key=lambda i: -scores[i])[:k]
        results = await pipeline.search_with_embeddings(query, k=k, filter=wanted, exact=True)
        assert results.stats.certain
        np.testing.assert_allclose([r.score for r in results], scores[best], atol=1e-4)
        assert len({r.doc_id for r in results}) == len(best)
        scored_all += results.stats.n_ann_tokens is None
    assert scored_all >= 1
