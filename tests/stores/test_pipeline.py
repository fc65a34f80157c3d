"""The pipeline on the embedded store: what goes in, what comes out, and what each row's fate is."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import uuid
from functools import reduce

import numpy as np
import pytest

from late_interaction import (
    Candidates,
    DocumentError,
    IndexMismatchError,
    LateInteractionPipeline,
    LocalStore,
    ModelError,
    PrecomputedEmbeddings,
    QueryVectors,
    StoreError,
)
from late_interaction.candidates import Scaling, expand
from late_interaction.errors import FilterError
from late_interaction.maxsim import maxsim
from late_interaction.pacing import paced_batches
from late_interaction.searching import may_reach_top_k
from late_interaction.stores.local.limits import Limits
from tests.support.answers import ids
from tests.support.models import HashModel

ROWS = [
    {"doc_id": "cats", "content": "cats chase mice", "year": 2001, "tags": ["animal", "pet"]},
    {"doc_id": "dogs", "content": "dogs chase cats", "year": 2002, "tags": ["animal"]},
    {"doc_id": "tea", "content": "tea with milk", "year": 2003, "tags": []},
]


@pytest.fixture
def model():
    return HashModel()


@pytest.fixture
async def pipeline(tmp_path, model):
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1) as pipeline:
        yield pipeline


# --- the promised usage


async def test_the_promised_usage(tmp_path, model):
    pipeline = LateInteractionPipeline(db=str(tmp_path), model=model, base_table_name="my_colbert_index")
    await pipeline.initialize()
    doc_row = {
        "content": "This is a sample document for testing late interaction retrieval.",
        "doc_id": uuid.uuid4(),
    }
    doc_id = await pipeline.index_document(doc_row)
    assert doc_id == str(doc_row["doc_id"])
    results = await pipeline.search(query="sample retrieval", k=5, n_ann_tokens=200, n_maxsim_candidates=20)
    [(found, score, content)] = results
    assert (found, content) == (doc_id, doc_row["content"])
    assert isinstance(score, float)
    await pipeline.aclose()
    await pipeline.aclose()
    assert (tmp_path / "my_colbert_index").is_dir()


# --- indexing


async def test_ids_come_back_in_the_order_of_the_rows(pipeline):
    made = await pipeline.index_documents([*ROWS, {"content": "no id of its own"}])
    assert made[:3] == ["cats", "dogs", "tea"]
    assert str(uuid.UUID(made[3])) == made[3]
    assert await pipeline.count() == 4


async def test_metadata_keep_their_types(pipeline):
    metadata = {
        "int": 1, "float": 1.0, "bool": True, "none": None, "list": [1, [2.5, "x"]],
        "nested": {"a": {"b": False}}, "big": 2**70, "text": "ü\n",
    }  # fmt: skip
    await pipeline.index_document({"doc_id": "x", "content": "text", **metadata})
    [document] = await pipeline.get_documents(["x"])
    assert document.metadata == metadata
    assert {key: type(value) for key, value in document.metadata.items()} == {
        key: type(value) for key, value in metadata.items()
    }
    assert (await pipeline.search("text"))[0].metadata == metadata


async def test_where_an_id_comes_twice_the_last_row_wins_and_is_encoded_once(pipeline, model):
    rows = [{"doc_id": "a", "content": f"version {i}"} for i in range(5)] + [
        {"doc_id": "b", "content": "other"}
    ]
    assert await pipeline.index_documents(rows) == ["a"] * 5 + ["b"]
    assert [d.content for d in await pipeline.get_documents(["a"])] == ["version 4"]
    assert model.encoded == ["version 4", "other"]
    await pipeline.index_documents(rows[:3], batch_size=1)
    assert [d.content for d in await pipeline.get_documents(["a"])] == ["version 2"]
    assert await pipeline.count() == 2


async def test_a_document_that_shrinks_keeps_no_old_vector(pipeline):
    await pipeline.index_document({"doc_id": "a", "content": "one two three four five six"})
    await pipeline.index_document({"doc_id": "a", "content": "seven"})
    [result] = await pipeline.search("six")
    assert result.score < 0.99
    assert (await pipeline.search("seven"))[0].score == pytest.approx(1, abs=1e-3)


BAD = [
    ({}, "there is no 'content'"),
    ({"content": 3}, "'content' is a int"),
    ({"content": "  \n"}, "empty or only white space"),
    ({"content": "x", "doc_id": 7}, "a doc_id is a str or a uuid.UUID"),
    ({"content": "x", "doc_id": ""}, "must not be empty"),
    ({"content": "x", "when": uuid.UUID(int=1)}, "'when' is a UUID"),
    ({"content": "x", "a": {"b": [float("nan")]}}, r"'a.b\[0\]' is nan"),
    ({"content": "x", "a": {1: 2}}, "keys are str, not int"),
    ({"content": "x", "a": {"b\0": 2}}, "holds a NUL character"),
    ({"content": "x", "a": reduce(lambda inner, _: {"b": inner}, range(2000), 1)}, "nest too deep"),
    ({"content": "x", "content_type": "video"}, "'content_type' is one of text, image"),
    ({"content": "x", "content_type": "image"}, "encodes text"),
    ({"content": "half \ud800"}, "surrogate"),
    ({"content": "unencodable"}, "this text cannot be encoded"),
    ("just text", "a row is a mapping"),
]


@pytest.mark.parametrize(("row", "message"), BAD)
async def test_a_row_that_cannot_be_indexed_says_why(pipeline, row, message):
    with pytest.raises(DocumentError, match=message):
        await pipeline.index_document(row)
    assert await pipeline.count() == 0


async def test_bad_rows_are_named_and_the_others_indexed(pipeline):
    rows = [row for good, (bad, _) in zip(ROWS * 5, BAD, strict=False) for row in (bad, good)]
    with pytest.raises(DocumentError) as caught:
        await pipeline.index_documents(rows, batch_size=4)
    assert [failure.row for failure in caught.value.failures] == list(range(0, 2 * len(BAD), 2))
    assert caught.value.failures[3].doc_id == "7"
    assert caught.value.indexed == ["cats", "dogs", "tea"]
    assert await pipeline.count() == 3
    assert "row 0: there is no 'content'" in str(caught.value)


async def test_rows_are_taken_a_batch_at_a_time_and_writing_overlaps_encoding(tmp_path, model):
    taken, written, events = 0, 0, []

    class Slow(LocalStore):
        async def upsert(self, documents):
            nonlocal written
            events.append("write")
            await asyncio.sleep(0.05)
            await super().upsert(documents)
            written += len(documents)
            events.append("written")

    def rows():
        nonlocal taken
        for i in range(100):
            assert taken - written <= 30
            taken += 1
            yield {"doc_id": str(i), "content": f"document {i}"}

    original = model.encode_documents
    model.encode_documents = lambda texts: (events.append("encode"), original(texts))[1]
    async with LateInteractionPipeline(Slow(tmp_path), model) as pipeline:
        assert await pipeline.index_documents(rows(), batch_size=10) == [str(i) for i in range(100)]
    assert events.count("write") == 10
    assert events.index("encode", 1) < events.index("written")
    assert threading.get_ident() not in model.threads
    assert len(model.threads) == 1


async def test_an_async_iterable_of_rows(pipeline):
    async def rows():
        for row in ROWS:
            await asyncio.sleep(0)
            yield row

    assert await pipeline.index_documents(rows(), batch_size=2) == ["cats", "dogs", "tea"]


async def test_skip_existing_encodes_only_what_is_missing(pipeline, model):
    class StoppedError(Exception):
        pass

    def interrupted():
        yield from ({"doc_id": str(i), "content": f"document {i}"} for i in range(10))
        raise StoppedError

    with pytest.raises(StoppedError):
        await pipeline.index_documents(interrupted(), batch_size=3)
    assert await pipeline.count() == 9
    model.encoded.clear()
    rows = [{"doc_id": str(i), "content": f"document {i}"} for i in range(12)]
    assert await pipeline.index_documents(rows, batch_size=5, skip_existing=True) == [
        str(i) for i in range(12)
    ]
    assert model.encoded == ["document 9", "document 10", "document 11"]


async def test_a_cancelled_run_leaves_whole_batches(tmp_path, model):
    async def rows():
        for i in range(1000):
            await asyncio.sleep(0.002)
            yield {"doc_id": str(i), "content": f"document {i}"}

    async with LateInteractionPipeline(tmp_path, model) as pipeline:
        task = asyncio.create_task(pipeline.index_documents(rows(), batch_size=8))
        while await pipeline.count() < 16:  # noqa: ASYNC110 - what is waited for is in the file
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        there = await pipeline.count()
        assert 16 <= there < 1000
        assert there % 8 == 0


async def test_a_store_that_fails_is_reported(tmp_path, model):
    class Failing(LocalStore):
        async def upsert(self, documents):
            if any(d.document.doc_id == "5" for d in documents):
                raise StoreError("the disk is full")
            await super().upsert(documents)

    async with LateInteractionPipeline(Failing(tmp_path), model) as pipeline:
        rows = [{"doc_id": str(i), "content": "text"} for i in range(10)]
        with pytest.raises(StoreError, match="disk is full"):
            await pipeline.index_documents(rows, batch_size=2)
        assert await pipeline.count() == 4


async def test_an_optimize_that_fails_says_what_was_indexed(tmp_path, model):
    class Failing(LocalStore):
        async def optimize(self, *, show_progress=False):
            raise StoreError("the disk is full")

    async with LateInteractionPipeline(Failing(tmp_path), model) as pipeline:
        with pytest.raises(StoreError, match="disk is full") as caught:
            await pipeline.index_documents(ROWS)
        assert caught.value.indexed == ["cats", "dogs", "tea"]


async def test_truncated_documents_are_named_once_a_call(tmp_path, caplog):
    rows = [
        {"doc_id": doc_id, "content": content}
        for doc_id, content in (
            ("a", "a b c d"),
            ("b", "a b c"),
            ("c", "e f g h"),
            ("d", "1 2 3 4"),
            ("d", "1"),
        )
    ]
    async with LateInteractionPipeline(tmp_path, HashModel(limit=3)) as pipeline:
        with caplog.at_level(logging.WARNING):
            ids = await pipeline.index_documents(rows, batch_size=2)
        assert ids == ["a", "b", "c", "d", "d"]
        assert ids.truncated == {"a": None, "c": None}
        assert (await pipeline.index_documents(rows[1:2])).truncated == {}
        with pytest.raises(DocumentError) as caught:
            await pipeline.index_documents([*rows, {"content": ""}])
        assert caught.value.truncated == ids.truncated
    assert caplog.records[0].message == (
        "2 of 5 documents are longer than hash reads: their ends were not encoded. They are, with the share that was "
        "not, 'a', 'c'; `.truncated` of the result names all."
    )


async def test_a_model_that_can_tell_says_how_much_was_truncated(tmp_path, caplog):
    class Telling(HashModel):
        def unread_shares(self, texts, role="document"):
            return [max(0.0, 1 - self.limit / len(text.split())) for text in texts]

    async with LateInteractionPipeline(tmp_path, Telling(limit=3)) as pipeline:
        ids = await pipeline.index_documents(
            [{"doc_id": str(n), "content": "word " * n} for n in range(1, 20)]
        )
    assert ids.truncated == {str(n): 1 - 3 / n for n in range(4, 20)}
    assert "'4' (25%), '5' (40%)" in caplog.text
    assert "and 6 more; " in caplog.text


async def test_batches_are_as_long_as_they_are_quick_and_bounded_by_their_text():
    async def sizes(seconds, rows, most=128):
        found = []
        async for batch in paced_batches(rows, most):
            found.append(len(batch))
            clock[0] += seconds * len(batch)
        return found

    clock = [0.0]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("late_interaction.pacing.time.perf_counter", lambda: clock[0])
        rows = [{"content": "text"}] * 300
        assert await sizes(0.0001, rows) == [16, 32, 64, 128, 60]
        assert await sizes(0.01, rows[:100]) == [16, 32, 32, 20]
        assert await sizes(1, rows[:30]) == [16, 8, 4, 2]
        assert await sizes(0.0001, rows[:10], most=3) == [3, 3, 3, 1]
        assert await sizes(0.0001, [{"content": "x" * 300_000}] * 5) == [2, 2, 1]


async def test_truncated_queries_are_counted_once_a_call(tmp_path, caplog):
    async with LateInteractionPipeline(tmp_path, HashModel(limit=3)) as pipeline:
        with caplog.at_level(logging.WARNING):
            await pipeline.search_many(["a b c d", "a b c", "e f g h"])
            await pipeline.search("a b c")
    assert [r.message for r in caplog.records] == [
        "2 of 3 queries are longer than hash reads: their ends were not encoded."
    ]


async def test_progress_goes_to_stderr_when_asked(pipeline, capsys):
    await pipeline.index_documents(ROWS)
    assert capsys.readouterr().err == ""
    await pipeline.index_documents(iter(ROWS), show_progress=True)
    assert "Indexing: 3doc" in capsys.readouterr().err


# --- searching


async def test_a_text_is_its_own_best_match(pipeline):
    await pipeline.index_documents(ROWS)
    results = await pipeline.search("dogs chase", k=2)
    assert ids(results) == ["dogs", "cats"]
    assert results[0].score == pytest.approx(2, abs=1e-2)
    assert results[0].content_type == "text"
    assert results[0].metadata == {"year": 2002, "tags": ["animal"]}


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
    assert may_reach_top_k(approximate, 5.1, unsteady).tolist() == [True, True, False]


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


# --- documents


async def test_documents_by_id_and_by_metadata(pipeline):
    await pipeline.index_documents(ROWS)
    assert [d.doc_id for d in await pipeline.get_documents(["tea", "nobody", "cats"])] == ["tea", "cats"]
    assert [d.doc_id for d in await pipeline.find({"year": {"$lte": 2002}})] == ["cats", "dogs"]
    assert [d.doc_id for d in await pipeline.find(limit=1)] == ["cats"]
    assert await pipeline.count({"tags": "pet"}) == 1
    assert await pipeline.update_metadata("tea", {"year": 1999, "hot": True})
    assert not await pipeline.update_metadata("nobody", {"a": 1})
    assert (await pipeline.get_documents(["tea"]))[0].metadata == {"year": 1999, "tags": [], "hot": True}
    assert ids(await pipeline.search("tea", filter={"hot": True})) == ["tea"]
    with pytest.raises(TypeError, match="a list of ids"):
        await pipeline.get_documents("tea")


async def test_deleting(pipeline):
    identifier = uuid.uuid4()
    await pipeline.index_documents([*ROWS, {"doc_id": identifier, "content": "by uuid"}])
    assert await pipeline.delete_document(identifier)
    assert not await pipeline.delete_document(identifier)
    assert await pipeline.delete_documents(["cats", "nobody"]) == 1
    assert ids(await pipeline.search("cats chase mice")) == ["dogs", "tea"]
    assert await pipeline.delete_documents({"year": 2003}) == 1
    with pytest.raises(ValueError, match=r"call clear\(\)"):
        await pipeline.delete_documents({})
    assert await pipeline.count() == 1
    await pipeline.clear()
    assert await pipeline.count() == 0
    await pipeline.index_documents(ROWS)
    assert await pipeline.count() == 3


async def test_drop_and_begin_again(pipeline):
    await pipeline.index_documents(ROWS)
    await pipeline.drop()
    assert not pipeline.store.folder.exists()
    assert await pipeline.count() == 0
    assert await pipeline.index_documents(ROWS[:1]) == ["cats"]


async def test_a_copy_that_the_other_pipeline_could_not_open_is_refused_before_it_is_made(tmp_path, model):
    async with LateInteractionPipeline(tmp_path / "from", model) as pipeline:
        await pipeline.index_documents(ROWS)
        for other in (
            LateInteractionPipeline(tmp_path / "to", HashModel(name="another")),
            LateInteractionPipeline(tmp_path / "to", model, doc_pool_factor=3),
        ):
            with pytest.raises(IndexMismatchError, match=r"encoder\.model|pooling\.factor"):
                await pipeline.copy_to(other)
    assert not (tmp_path / "to").exists()


# --- the fingerprint


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": HashModel(16)}, "dim"),
        ({"model": HashModel(name="other")}, "encoder.model"),
        ({"doc_pool_factor": 3}, "pooling.factor"),
        ({"packing": "float16"}, "packing"),
    ],
)
async def test_an_index_built_otherwise_is_refused_by_name(tmp_path, model, options, field):
    async with LateInteractionPipeline(tmp_path, model) as pipeline:
        await pipeline.index_documents(ROWS)
    with pytest.raises(IndexMismatchError, match=field) as caught:
        await LateInteractionPipeline(tmp_path, **{"model": model, **options}).initialize()
    assert field in caught.value.differences
    async with LateInteractionPipeline(tmp_path, model, query_pool_distance=0, concurrency=1) as pipeline:
        assert await pipeline.count() == 3


async def test_pooling_halves_the_vectors(tmp_path, model):
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=2) as pipeline:
        await pipeline.index_document({"doc_id": "x", "content": "one two three four five six seven eight"})
        _, documents = await pipeline.store.matrices(["x"])
        assert documents.tokens.shape == (4, 32)
        np.testing.assert_allclose(np.linalg.norm(documents.matrix(0), axis=1), 1, atol=1e-5)


# --- copies


async def test_a_copy_has_the_same_answers_without_encoding(tmp_path, pipeline, model):
    await pipeline.index_documents(ROWS)
    model.encoded.clear()
    target = LateInteractionPipeline(tmp_path / "copy", model, "renamed", doc_pool_factor=1)
    assert await pipeline.copy_to(target) == 3
    assert await pipeline.copy_to(tmp_path / "second", batch_size=2) == 3
    assert await pipeline.copy_to(tmp_path / "second", skip_existing=True) == 0
    assert model.encoded == []
    expected = await pipeline.search("cats chase tea")
    for copy in (target, LateInteractionPipeline(tmp_path / "second", model, doc_pool_factor=1)):
        async with copy:
            results = await copy.search("cats chase tea")
            assert await copy.find() == await pipeline.find()
        assert ids(results) == ids(expected)
        assert [r.score for r in results] == pytest.approx([r.score for r in expected], abs=1e-5)
    with pytest.raises(IndexMismatchError):
        await pipeline.copy_to(_other(tmp_path))


def _other(tmp_path):
    async def make() -> None:
        async with LateInteractionPipeline(tmp_path / "third", HashModel(8)):
            pass

    worker = threading.Thread(target=lambda: asyncio.run(make()))
    worker.start()
    worker.join()
    return tmp_path / "third"


# --- arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "name"}, TypeError, "must be a LateInteractionModel"),
        ({"db": 3}, TypeError, "db must be a folder"),
        ({"doc_pool_factor": 0.5}, ValueError, "doc_pool_factor"),
        ({"doc_pool_factor": math.nan}, ValueError, "doc_pool_factor"),
        ({"doc_pool_factor": math.inf}, ValueError, "doc_pool_factor"),
        ({"query_pool_distance": -1}, ValueError, "query_pool_distance"),
        ({"query_pool_distance": math.nan}, ValueError, "query_pool_distance"),
        ({"packing": "int4"}, ValueError, "packing must be one of"),
        ({"concurrency": 0}, ValueError, "concurrency"),
    ],
)
def test_arguments_are_checked(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        LateInteractionPipeline(**{"db": tmp_path, "model": HashModel(), **options})


def test_a_store_has_its_own_name(tmp_path):
    with pytest.raises(ValueError, match="leave base_table_name out"):
        LateInteractionPipeline(LocalStore(tmp_path), HashModel(), "name")


async def test_weights_of_pooled_query_vectors_keep_the_score(pipeline):
    await pipeline.index_documents(ROWS)
    once = (await pipeline.search("cats mice", k=1))[0].score
    twice = (await pipeline.search("cats cats mice mice", k=1))[0].score
    assert twice == pytest.approx(2 * once, rel=1e-5)
    found = await pipeline.store.candidates(
        QueryVectors(HashModel().encode_queries(["cats"])[0], np.array([3.0], np.float32)), 1, n_ann_tokens=10
    )
    assert found.scores[0] == pytest.approx(3, abs=0.03)
