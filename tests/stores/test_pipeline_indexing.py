"""The pipeline on the embedded store: what goes in, and what becomes of each row."""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from datetime import timedelta
from functools import reduce

import pytest

from late_interaction import (
    DocumentError,
    LateInteractionPipeline,
    LocalStore,
    StoreError,
)
from late_interaction.pacing import Pace, paced_batches
from tests.support.models import HashModel
from tests.support.rows import ROWS


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


@pytest.mark.parametrize("batch_size", [1, 8])
async def test_where_the_last_row_of_an_id_cannot_be_encoded_the_one_before_it_is_there(pipeline, batch_size):
    texts = [("n", "first"), ("n", "good"), ("m", "other"), ("n", "unencodable"), ("n", "unencodable too")]
    rows = [{"doc_id": doc_id, "content": text} for doc_id, text in texts]
    indexed = await pipeline.index_documents(rows, batch_size=batch_size, on_error="skip")
    assert indexed == ["n", "n", "m"]
    assert [(failure.row, failure.doc_id) for failure in indexed.failures] == [(3, "n"), (4, "n")]
    assert [(d.doc_id, d.content) for d in await pipeline.find()] == [("n", "good"), ("m", "other")]
    assert (await pipeline.search("good"))[0].doc_id == "n"
    await pipeline.clear()
    with pytest.raises(DocumentError) as caught:
        await pipeline.index_documents(rows[3:], batch_size=batch_size)
    assert caught.value.indexed == []
    assert await pipeline.count() == 0


async def test_a_document_that_shrinks_keeps_no_old_vector(pipeline):
    await pipeline.index_document({"doc_id": "a", "content": "one two three four five six"})
    await pipeline.index_document({"doc_id": "a", "content": "seven"})
    [result] = await pipeline.search("six")
    assert result.score < 0.99
    assert (await pipeline.search("seven"))[0].score == pytest.approx(1, abs=1e-3)


BAD = [
    ({}, "there is no 'content'"),
    ({"content": 3}, "'content' is a int"),
    ({"content": "x", "doc_id": 7.5}, "a doc_id is a str, a uuid.UUID or an int"),
    ({"content": "x", "doc_id": ""}, "must not be empty"),
    ({"content": "x", "when": timedelta(1)}, "'when' is a timedelta"),
    ({"content": "x", "a": {"b": [float("inf")]}}, r"'a.b\[0\]' is inf"),
    ({"content": "x", "a": {1: 2}}, "keys are str, not int"),
    ({"content": "x", "a": {"b\0": 2}}, "holds a NUL character"),
    ({"content": "x", "a": reduce(lambda inner, _: {"b": inner}, range(2000), 1)}, "nests too deep"),
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
    assert caught.value.failures[2].doc_id == "7.5"
    assert caught.value.indexed == ["cats", "dogs", "tea"]
    assert await pipeline.count() == 3
    assert "row 0: there is no 'content'" in str(caught.value)


@pytest.mark.slow
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
    assert await pipeline.count() == 10
    model.encoded.clear()
    rows = [{"doc_id": str(i), "content": f"document {i}"} for i in range(12)]
    assert await pipeline.index_documents(rows, batch_size=5, skip_existing=True) == [
        str(i) for i in range(12)
    ]
    assert model.encoded == ["document 10", "document 11"]


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


async def test_an_error_of_the_rows_comes_behind_the_rows_before_it_and_says_what_is_in_the_index(pipeline):
    async def rows():
        for i in range(7):
            yield {"doc_id": str(i), "content": "unencodable" if i == 2 else f"document {i}"}
        raise OSError("the connection was lost")

    with pytest.raises(OSError, match="the connection was lost") as caught:
        await pipeline.index_documents(rows(), batch_size=4)
    there = [document.doc_id for document in await pipeline.find()]
    assert vars(caught.value)["indexed"] == there == ["0", "1", "3", "4", "5", "6"]
    [note] = caught.value.__notes__
    assert "Rows of this call in the index: 6" in note
    assert "Rows that failed: 1, the first of them row 2" in note
    assert "up to doc_id '6'" in note
    assert "go on with row 7" in note
    with pytest.raises(TypeError, match="pass a list of rows") as wrong:
        await pipeline.index_documents(5)
    assert not hasattr(wrong.value, "__notes__")


@pytest.mark.parametrize("skip_existing", [False, True])
async def test_an_error_of_the_model_says_what_is_in_the_index(tmp_path, skip_existing):
    class OutOfMemory(HashModel):
        def encode_documents(self, documents):
            if any("large" in text for text in documents):
                raise RuntimeError("CUDA out of memory")
            return super().encode_documents(documents)

    rows = [{"doc_id": str(i), "content": "large" if i == 9 else f"document {i}"} for i in range(12)]
    async with LateInteractionPipeline(tmp_path, OutOfMemory()) as pipeline:
        if skip_existing:
            await pipeline.index_documents(rows[4:8])
        with pytest.raises(RuntimeError, match="out of memory") as caught:
            await pipeline.index_documents(rows, batch_size=4, skip_existing=skip_existing)
        assert vars(caught.value)["indexed"] == [str(i) for i in range(8)]
        assert await pipeline.count() == 8
        assert "go on with row 8, counted from 0" in caught.value.__notes__[0]


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
            await pipeline.index_documents([*rows, {"content": None}])
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
        found, pace = [], Pace(most)
        async for batch in paced_batches(rows, pace):
            found.append(len(batch))
            pace.took(len(batch), seconds * len(batch))
        return found

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
