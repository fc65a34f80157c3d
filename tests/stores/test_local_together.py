"""The embedded store: the reads of a search are done together, in one thread and one transaction."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager

import pytest

from late_interaction import LateInteractionPipeline, LocalStore, PrecomputedEmbeddings
from late_interaction.stores.local import store as local_store
from late_interaction.stores.local.tables import read_state
from tests.stores.local import DIM, SPEC, encoded, matrix, query

ROWS = [{"doc_id": f"d{i}", "content": f"text {i}"} for i in range(10)]


@pytest.fixture
async def pipeline(tmp_path):
    model = PrecomputedEmbeddings(DIM, "made")
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1) as pipeline:
        await pipeline.index_embeddings(ROWS, [matrix(i) for i in range(len(ROWS))])
        yield pipeline


async def test_a_search_begins_one_transaction(pipeline, monkeypatch):
    begun = []
    begin = pipeline.store._file._begin
    monkeypatch.setattr(pipeline.store._file, "_begin", lambda *args: begun.append(args) or begin(*args))
    found = await pipeline.search_with_embeddings(matrix(3), 2, filter={"$not": {"x": 1}})
    assert found[0].doc_id == "d3"
    assert begun == [("BEGIN",)]


async def test_a_search_asks_once_which_content_it_sees(pipeline, monkeypatch):
    await pipeline.search_with_embeddings(matrix(0), 3)
    statements = []
    reading = pipeline.store._file.reading

    @contextmanager
    def traced():
        with reading() as connection:
            connection.set_trace_callback(statements.append)
            yield connection

    monkeypatch.setattr(pipeline.store._file, "reading", traced)
    await pipeline.search_with_embeddings(matrix(0), 3)
    assert not [each for each in statements if "'generation'" in each]
    with pipeline.store._file.reading() as connection:
        assert read_state(connection) is not None
        assert connection.content is not None
    assert connection.content is None


async def test_what_is_written_meanwhile_is_not_half_seen(pipeline, monkeypatch):
    """A document that goes between stage 1 and the reading of the texts is found, with its text."""
    store, loop = pipeline.store, asyncio.get_running_loop()
    score = local_store.find_candidates

    def deleting(*args):
        found = score(*args)
        asyncio.run_coroutine_threadsafe(store.delete(["d3"]), loop).result(10)
        return found

    monkeypatch.setattr(local_store, "find_candidates", deleting)
    assert (await pipeline.search_with_embeddings(matrix(3), 1))[0].content == "text 3"
    monkeypatch.undo()
    assert (await pipeline.search_with_embeddings(matrix(3), 1))[0].doc_id != "d3"


async def test_a_search_that_is_cancelled_reads_no_further(pipeline, monkeypatch):
    begun, go_on, read = threading.Event(), threading.Event(), []
    find, end = local_store.find_candidates, pipeline.store._file._end
    ended = threading.Event()

    def waiting(*args):
        begun.set()
        go_on.wait(10)
        return find(*args)

    monkeypatch.setattr(local_store, "find_candidates", waiting)
    monkeypatch.setattr(local_store, "to_document", read.append)
    monkeypatch.setattr(pipeline.store._file, "_end", lambda held: (end(held), ended.set()))
    search = asyncio.create_task(pipeline.search_with_embeddings(matrix(3), 1))
    await asyncio.to_thread(begun.wait, 10)
    search.cancel()
    with pytest.raises(asyncio.CancelledError):
        await search
    go_on.set()
    assert await asyncio.to_thread(ended.wait, 10)
    assert read == []


async def test_what_is_done_together_must_not_wait(tmp_path):
    store = LocalStore(tmp_path, "n")
    await store.open(SPEC)

    async def waiting():
        await store.count()
        await _Never()

    with pytest.raises(RuntimeError, match="must not wait"):
        await store.together(waiting)
    assert await store.count() == 0
    await store.close()


class _Never:
    def __await__(self):
        yield


async def test_a_store_of_another_class_may_wait_in_its_reads(tmp_path):
    class Slow(LocalStore):
        async def candidates(self, *args, **options):
            await asyncio.sleep(0)
            return await super().candidates(*args, **options)

    store = Slow(tmp_path, "n")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(3)])
    found = await store.together(lambda: store.candidates(query(1), 1, n_ann_tokens=None))
    assert found.doc_ids == ["d1"]
    await store.close()
