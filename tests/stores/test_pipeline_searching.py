"""The pipeline on the embedded store: searches."""

from __future__ import annotations

import asyncio
import math

import numpy as np
import pytest

from late_interaction import (
    Candidates,
    DocumentError,
    LateInteractionPipeline,
    LocalStore,
    ModelError,
    PrecomputedEmbeddings,
    SyncPipeline,
)
from late_interaction.candidates import Scaling, expand
from late_interaction.errors import FilterError
from late_interaction.maxsim import maxsim
from late_interaction.searching import may_reach_top_k
from late_interaction.stores.local.limits import Limits
from tests.support.answers import ids
from tests.support.models import HashModel
from tests.support.rows import ROWS


@pytest.fixture
def model():
    return HashModel()


@pytest.fixture
async def pipeline(tmp_path, model):
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1) as pipeline:
        yield pipeline


# --- searching


async def test_a_text_is_its_own_best_match(pipeline):
    await pipeline.index_documents(ROWS)
    results = await pipeline.search("dogs chase", k=2)
    assert ids(results) == ["dogs", "cats"]
    assert results[0].score == pytest.approx(2, abs=1e-2)
    assert results[0].content_type == "text"
    assert results[0].metadata == {"year": 2002, "tags": ["animal"]}


async def test_stats_say_how_close_the_candidates_come(pipeline):
    await pipeline.index_documents(ROWS)
    query = "cats chase zebras"
    (matrix,) = await pipeline.encode_queries([query])
    everything = await pipeline.find()
    for options in (
        {},
        {"ids": [everything[0].doc_id]},
        {"filter": {"year": 2002}},
        {"filter": {"year": {"$ne": 2002}}},
    ):
        found = await pipeline.search(query, len(everything), **options)
        matrices = await pipeline.get_matrices([r.doc_id for r in found])
        best = np.max([(matrix @ m.T).max(axis=1) for m in matrices.values()], axis=0)
        assert found.stats.closest_similarities == pytest.approx(best, abs=0.02)
        assert found.stats.least_similarity == min(found.stats.closest_similarities)
        far = found.stats.far_query_vectors(best[1])
        assert set(far) == set(np.flatnonzero(np.array(found.stats.closest_similarities) < best[1]))
        assert found.stats.far_query_vectors(-1) == ()
        assert found.stats.far_query_vectors(1.01) == tuple(range(found.stats.n_query_vectors))
    nothing = (await pipeline.search(query, ids=["nowhere"])).stats
    assert (nothing.closest_similarities, nothing.least_similarity, nothing.far_query_vectors()) == (
        (),
        None,
        (),
    )


async def test_stats_say_how_the_search_went(pipeline):
    await pipeline.index_documents(ROWS)
    stats = (await pipeline.search("chase chase cats", k=2)).stats
    assert (stats.n_query_tokens, stats.n_query_vectors) == (3, 2)
    assert stats.certain
    assert stats.n_scored >= 2
    assert stats.escalations == 0
    assert stats.total_s >= stats.encode_s > 0


async def test_filters_are_kept(pipeline):
    await pipeline.index_documents(ROWS)
    assert ids(await pipeline.search("chase", filter={"year": {"$gt": 2001}, "tags": "animal"})) == ["dogs"]
    assert ids(await pipeline.search("chase", filter={"year": 1999})) == []
    with pytest.raises(FilterError, match="gte"):
        await pipeline.search("chase", filter={"year": {"$gte_": 1}})


async def test_search_many_answers_each_query(pipeline):
    await pipeline.index_documents(ROWS)
    queries = ["tea", "dogs", "mice"]
    assert [ids(r)[0] for r in await pipeline.search_many(queries, k=1)] == ["tea", "dogs", "cats"]
    assert await pipeline.search_many([]) == []


async def test_an_empty_index_finds_nothing(pipeline):
    results = await pipeline.search("anything")
    assert results == []
    assert results.stats.certain


@pytest.mark.parametrize("query", ["", "  \n"])
async def test_an_empty_query_is_refused(pipeline, query):
    with pytest.raises(ValueError, match="query at position 0 is empty"):
        await pipeline.search(query)


@pytest.mark.parametrize("options", [{"k": 0}, {"n_ann_tokens": 0}, {"n_maxsim_candidates": -1}])
async def test_numbers_out_of_range_are_refused(pipeline, options):
    with pytest.raises(ValueError, match="must be at least 1"):
        await pipeline.search("x", **options)


@pytest.mark.parametrize("options", [{"k": 2.5}, {"k": "3"}, {"k": None}, {"n_ann_tokens": 10.0}])
async def test_numbers_that_are_not_whole_are_refused(pipeline, options):
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be a whole number"):
        await pipeline.search("x", **options)


async def test_a_batch_has_at_least_one_row(pipeline, tmp_path):
    for size, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="batch_size must be"):
            await pipeline.index_documents(ROWS, batch_size=size)
        with pytest.raises(error, match="batch_size must be"):
            await pipeline.copy_to(tmp_path / "copy", batch_size=size)


async def test_a_query_is_encoded_as_search_does_it(pipeline):
    await pipeline.index_documents(ROWS)
    (matrix,) = await pipeline.encode_queries(["cats chase"])
    found = [(r.doc_id, r.score) for r in await pipeline.search_with_embeddings(matrix)]
    assert found == [(r.doc_id, r.score) for r in await pipeline.search("cats chase")]


async def test_concurrency_bounds_what_is_in_flight(tmp_path, model):
    now, most = 0, 0

    class Counting(LocalStore):
        async def documents(self, doc_ids):
            nonlocal now, most
            now, most = now + 1, max(most, now + 1)
            await asyncio.sleep(0.01)
            now -= 1
            return await super().documents(doc_ids)

    async with LateInteractionPipeline(Counting(tmp_path), model, concurrency=3) as pipeline:
        await pipeline.index_documents(ROWS)
        await pipeline.search_many(["tea"] * 20)
    assert most == 3


def test_one_pipeline_serves_several_event_loops(tmp_path, model):
    pipeline = LateInteractionPipeline(tmp_path, model, concurrency=1)
    asyncio.run(pipeline.initialize())
    asyncio.run(pipeline.index_documents(ROWS))
    assert [len(r) for r in asyncio.run(pipeline.search_many(["tea", "cats"], k=2))] == [2, 2]
    asyncio.run(pipeline.aclose())


class Grudging(LocalStore):
    """Hands over fewer documents than were asked for, so that the pipeline has to ask again."""

    scaling = Scaling(ann_tokens=(4, 0, 0), maxsim_candidates=(4, 0, 0), max_ann_tokens=100)
    asked: list[tuple[int, int]]

    async def candidates(self, query, n, *, n_ann_tokens, filter=None):
        self.asked.append((n, n_ann_tokens))
        found = await super().candidates(query, n, n_ann_tokens=n_ann_tokens, filter=filter)
        few = found.doc_ids[: min(n, n_ann_tokens) // 2]
        return Candidates(
            few,
            found.scores[: len(few)],
            np.zeros(len(few), bool),
            bound=-math.inf if n_ann_tokens >= 100 else math.inf,
            n_ann_tokens=n_ann_tokens,
        )


async def test_it_escalates_while_fewer_than_k_come_back(tmp_path, model):
    store = Grudging(tmp_path)
    store.asked = []
    async with LateInteractionPipeline(store, model) as pipeline:
        await pipeline.index_documents([{"content": f"document {i}"} for i in range(50)])
        results = await pipeline.search("document 7", k=10)
        assert len(results) == 10
        assert results.stats.escalations == 1
        assert store.asked == [(10, 10), (40, 40)]


async def test_exact_goes_on_until_the_top_k_is_certain(tmp_path, model):
    store = LocalStore(tmp_path, limits=Limits(exact_tokens=100))
    async with LateInteractionPipeline(store, model, doc_pool_factor=1) as pipeline:
        words = [f"w{i}" for i in range(60)]
        rng = np.random.default_rng(0)
        rows = [{"doc_id": str(i), "content": " ".join(rng.choice(words, 6))} for i in range(400)]
        await pipeline.index_documents(rows)
        matrix = model.encode_queries(["w1 w2 w3 w4 w5"])[0]
        loose = await pipeline.search_with_embeddings(matrix, k=10, n_ann_tokens=1, n_maxsim_candidates=10)
        assert not loose.stats.certain
        exact = await pipeline.search_with_embeddings(matrix, k=10, exact=True)
        assert exact.stats.certain
        scores = maxsim(matrix, [model.encode_documents([row["content"]])[0] for row in rows])
        np.testing.assert_allclose([r.score for r in exact], np.sort(scores)[::-1][:10], atol=0.02)


def test_the_scaling_is_the_fields_form():
    assert expand(10, (8.82, 1.13, -0.00471)) == 20
    assert [expand(k, (94.9, 11.0, -1.48)) for k in (1, 10, 100)] == [105, 170, 513]
    assert expand(50, (0, 0, 0)) == 50
    assert Scaling((94.9, 11.0, -1.48), (0, 0, 0), max_ann_tokens=1000).n_ann_tokens(600) == 1000


class Estimating(LocalStore):
    """Tells of every document what it scores, give or take `noise`, and 2 too much."""

    scaling = Scaling(ann_tokens=(10, 0, 0), maxsim_candidates=(100, 0, 0), first_candidates=(20, 0, 0))
    noise = 0.0

    async def candidates(self, query, n, *, n_ann_tokens, filter=None):
        found = await super().candidates(query, n, n_ann_tokens=n_ann_tokens, filter=filter)
        scores = found.scores + 2 + np.random.default_rng(0).normal(0, self.noise, len(found.scores))
        order = np.argsort(-scores, kind="stable")[:n]
        doc_ids = [found.doc_ids[i] for i in order]
        return Candidates(
            doc_ids, scores[order].astype(np.float32), np.zeros(len(order), bool), math.inf, n_ann_tokens
        )


@pytest.mark.parametrize(("noise", "least", "most"), [(1e-6, 20, 22), (1.0, 25, 60)])
async def test_candidates_without_a_chance_are_not_scored(tmp_path, model, noise, least, most):
    store = Estimating(tmp_path)
    store.noise = noise
    async with LateInteractionPipeline(store, model, doc_pool_factor=1) as pipeline:
        rng = np.random.default_rng(1)
        rows = [
            {"doc_id": str(i), "content": " ".join(rng.choice(list("abcdefghijkl"), 5))} for i in range(120)
        ]
        await pipeline.index_documents(rows)
        results = await pipeline.search("a b c d", k=5)
        assert least <= results.stats.n_scored <= most
        if noise < 0.1:
            exact = await pipeline.search("a b c d", k=5, exact=True)
            np.testing.assert_allclose([r.score for r in results], [r.score for r in exact], atol=1e-4)
        asked_for = await pipeline.search("a b c d", k=5, n_maxsim_candidates=70)
        assert asked_for.stats.n_scored == 70


def test_may_reach_top_k_adds_the_mean_error_and_its_spread():
    approximate = np.array([3.0, 2.0, 1.0], np.float32)
    steady, unsteady = np.array([-1.0, -1.0], np.float32), np.array([-3.0, 1.0], np.float32)
    assert may_reach_top_k(approximate, 1.5, steady).tolist() == [True, False, False]
    assert may_reach_top_k(approximate, 1.5, unsteady).tolist() == [True, True, True]
    assert may_reach_top_k(approximate, 6.5, unsteady).tolist() == [True, True, False]


# --- vectors made elsewhere


async def test_vectors_made_elsewhere(tmp_path):
    rng = np.random.default_rng(0)
    matrices = [rng.normal(size=(n, 8)) for n in (3, 1, 5)]
    matrices = [m / np.linalg.norm(m, axis=1, keepdims=True) for m in matrices]
    model = PrecomputedEmbeddings(8, "my encoder")
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1, packing="float32") as pipeline:
        rows = [{"doc_id": str(i), "content": f"page {i}", "content_type": "image"} for i in range(3)]
        assert await pipeline.index_embeddings(rows, matrices) == ["0", "1", "2"]
        results = await pipeline.search_with_embeddings(matrices[2].tolist(), k=1)
        assert results[0].doc_id == "2"
        assert results[0].content_type == "image"
        assert results[0].score == pytest.approx(5, abs=1e-5)
        with pytest.raises(ModelError, match="call search_with_embeddings"):
            await pipeline.search("text")
        with pytest.raises(ModelError, match="call index_embeddings"):
            await pipeline.index_document({"content": "text"})
        with pytest.raises(ValueError, match="more rows than matrices"):
            await pipeline.index_embeddings(rows, matrices[:2])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.ones((2, 7)), r"shape \(n_tokens ≥ 1, 8\), not \(2, 7\)"),
        (np.ones((0, 8)), "n_tokens ≥ 1"),
        (np.ones(8), "n_tokens ≥ 1"),
        (np.ones((2, 8)), "row 0 has 2.828"),
        (np.full((1, 8), np.nan), "row 0 has nan"),
    ],
)
async def test_vectors_that_do_not_fit_are_refused(tmp_path, matrix, message):
    async with LateInteractionPipeline(tmp_path, PrecomputedEmbeddings(8, "x")) as pipeline:
        with pytest.raises(ValueError, match=message):
            await pipeline.search_with_embeddings(matrix)
        with pytest.raises(DocumentError, match=message):
            await pipeline.index_embeddings([{"content": "x"}], [matrix])
        assert await pipeline.count() == 0


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.eye(2, 7), r"shape \(n_tokens ≥ 1, 32\), not \(2, 7\)"),
        (np.zeros((0, 32)), "n_tokens ≥ 1"),
        (np.ones((2, 32)), "row 0 has 5.657"),
    ],
)
async def test_what_a_model_of_ones_own_gives_is_checked(tmp_path, matrix, message):
    class Wrong(HashModel):
        def encode_queries(self, queries):
            return [matrix for _ in queries]

        def encode_documents(self, documents):
            return [matrix if "bad" in text else self._encode(text) for text in documents]

    async with LateInteractionPipeline(tmp_path, Wrong()) as pipeline:
        with pytest.raises(DocumentError, match=message) as caught:
            await pipeline.index_documents(
                [{"content": "good", "doc_id": "1"}, {"content": "bad", "doc_id": "2"}]
            )
        assert [failure.doc_id for failure in caught.value.failures] == ["2"]
        assert caught.value.indexed == ["1"]
        with pytest.raises(ValueError, match=message):
            await pipeline.search("good")


async def test_a_model_that_leaves_something_out_is_named(tmp_path):
    class Forgetful(HashModel):
        def encode_queries(self, queries):
            return []

        encode_documents = encode_queries

    async with LateInteractionPipeline(tmp_path, Forgetful()) as pipeline:
        with pytest.raises(ModelError, match="hash gave 0 matrices for 1 items"):
            await pipeline.index_document({"content": "text"})
        with pytest.raises(ModelError, match="hash gave 0 matrices for 1 items"):
            await pipeline.search("text")


@pytest.mark.parametrize(("given", "name"), [(None, "NoneType"), (iter([]), "list_iterator")])
async def test_a_model_that_gives_no_list_is_told_what_to_give(tmp_path, given, name):
    class Lazy(HashModel):
        def encode_queries(self, queries):
            return given

        encode_documents = encode_queries

    async with LateInteractionPipeline(tmp_path, Lazy()) as pipeline:
        for call in (pipeline.index_document({"content": "text"}), pipeline.search("text")):
            with pytest.raises(
                ModelError, match=f"hash gave {name} for 1 items.* a list of one matrix for each"
            ):
                await call


@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt(), StopIteration("at its end")])
def test_a_model_that_would_end_the_program_ends_the_call_alone(tmp_path, raised):
    class Exiting(HashModel):
        def encode_documents(self, documents):
            raise raised

    with SyncPipeline(tmp_path, HashModel()) as other, SyncPipeline(tmp_path, Exiting()) as pipeline:
        with pytest.raises(ModelError, match=f"hash raised {type(raised).__name__}") as caught:
            pipeline.index_document({"content": "text"})
        assert caught.value.__cause__ is raised
        assert other.index_document({"doc_id": "a", "content": "text"}) == "a"
        assert other.search("text")[0].doc_id == "a"
        assert pipeline.count() == 1
