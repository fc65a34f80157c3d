"""Loops, threads, and the life of a store."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from llama_index.core.schema import (
    TextNode,
)
from llama_index.core.vector_stores.types import (
    VectorStoreQueryMode,
)

from late_interaction import (
    LateInteractionError,
    LocalStore,
    StoreError,
    SyncPipeline,
)
from llamaindex_lateint import LateInteractionVectorStore
from tests.adapters.llamaindex.asking import ask, where
from tests.adapters.llamaindex.trees import WORDS, trees
from tests.support.models import HashModel
from tools.data_api import run_in_thread


async def test_every_async_method_inside_a_running_loop_equals_its_sync_twin(
    store: LateInteractionVectorStore,
) -> None:
    assert await store.async_add(trees()) == WORDS
    assert await store.aget_nodes() == store.get_nodes()
    assert await store.aquery(ask("elm")) == store.query(ask("elm"))


@pytest.mark.slow
def test_one_store_serves_many_event_loops_and_threads(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    expected = store.query(ask("elm tree")).ids
    found: list[list[str] | None] = []

    async def several() -> list[list[str] | None]:
        return [
            result.ids for result in await asyncio.gather(*(store.aquery(ask("elm tree")) for _ in range(5)))
        ]

    for _ in range(5):
        found += asyncio.run(several())
    threads = [threading.Thread(target=lambda: found.extend(asyncio.run(several()))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 45


class WaitingModel(HashModel):
    """Encodes only once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.may_encode = threading.Event()

    def _encode(self, text: str) -> np.ndarray:
        if not self.may_encode.wait(10):
            raise RuntimeError("nobody said go: the event loop was blocked.")
        return super()._encode(text)


async def test_async_methods_leave_the_callers_loop_free(make_store: Any) -> None:
    model = WaitingModel()
    store = make_store(model=model)
    for call in (
        lambda: store.async_add(trees()),
        lambda: store.aquery(ask("elm")),
    ):
        model.may_encode.clear()
        task = asyncio.create_task(call())
        await asyncio.sleep(0.05)  # The loop runs on while the model encodes, and only then lets it go on.
        assert not task.done()
        model.may_encode.set()
        await task


async def test_no_async_method_blocks_for_a_file_a_socket_or_a_lock(make_store: Any) -> None:
    store = make_store()
    with blockbuster_ctx():
        await store.async_add(trees())
        assert (await store.aquery(ask("elm", 1))).ids == ["elm"]
        mmr = ask("elm", 2, mode=VectorStoreQueryMode.MMR, filters=where("rank", 3, "!="))
        assert len((await store.aquery(mmr)).ids or ()) == 2
        await store.adelete_nodes(["elm"])
        await store.adelete("no such document")
        assert len(await store.aget_nodes(filters=where("rank", 5, "<"))) == 4
        await store.aclear()
        await store.aclose()


def test_a_pipeline_that_was_given_stays_open(tmp_path: Any) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        with LateInteractionVectorStore(pipeline) as store:
            store.add(trees())
            assert store.client is pipeline
        assert pipeline.count() == 10


async def test_a_closed_store_says_so(make_store: Any) -> None:
    store = make_store()
    async with store:
        await store.async_add(trees())
    await store.aclose()
    with pytest.raises(LateInteractionError, match="closed"):
        store.get_nodes()
    assert len(make_store().get_nodes()) == 10


def test_a_store_is_made_from_a_pipeline_or_from_its_parts(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match="Give model="):
        LateInteractionVectorStore(path=tmp_path)
    with pytest.raises(ValueError, match="give one or the other"):
        LateInteractionVectorStore(model=HashModel(), path=tmp_path, keyspace="mine")
    with SyncPipeline(tmp_path, HashModel()) as pipeline, pytest.raises(ValueError, match="leave the other"):
        LateInteractionVectorStore(pipeline, path=tmp_path)
    with pytest.raises(TypeError, match="must be a SyncPipeline"):
        LateInteractionVectorStore(HashModel())  # type: ignore[arg-type]


def test_astra_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASTRA_DB_API_ENDPOINT", raising=False)
    with pytest.raises(StoreError, match="Set ASTRA_DB_API_ENDPOINT"):
        LateInteractionVectorStore(model=HashModel())
    with run_in_thread() as server:
        monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", server.endpoint)
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
        with LateInteractionVectorStore(model=HashModel(), filterable={"rank": int}) as store:
            store.add(trees())
            assert store.query(ask("elm", 1, filters=where("rank", 3))).ids == ["elm"]
            assert server.token not in f"{store!r} {store.to_dict()} {store.client!r}"
            server.log.clear()
            store.delete("forest")
            store.delete("another")
            looked_up = [r.body["filter"] for r in server.log.requests if "meta_ref_doc_id" in str(r.body)]
            assert {"forest", "another"} <= {word for body in looked_up for word in str(body).split("'")}
            assert store.get_nodes() == []
        assert all("llama-index" in request.user_agent for request in server.log.requests)


def test_a_store_is_shared_by_copies_and_pickled_as_its_recipe(
    store: LateInteractionVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "local-token")
    assert copy.copy(store) is store
    assert copy.deepcopy(store) is store
    with pickle.loads(pickle.dumps(store)) as other:
        assert other is not store
        assert other.get_nodes() == store.get_nodes()


def test_what_a_store_says_of_itself(store: LateInteractionVectorStore) -> None:
    assert repr(store).startswith("LateInteractionVectorStore(SyncPipeline(")
    assert store.class_name() == "LateInteractionVectorStore"
    assert store.stores_text
    assert store.is_embedding_query  # NoEmbedding's carries the texts of the query.
    assert set(store.to_dict()) == {
        "batch_size", "class_name", "flat_metadata", "ids", "is_embedding_query", "on_error", "raw_scores",
        "stores_text",
    }  # fmt: skip


def test_adding_nodes_is_one_run(tmp_path: Path) -> None:
    """However many batches: the search structures are brought up to date once."""
    optimized = 0

    class Counting(LocalStore):
        async def optimize(self, *, show_progress: bool = False) -> None:
            nonlocal optimized
            optimized += 1

    with SyncPipeline(Counting(tmp_path), HashModel()) as pipeline:
        store = LateInteractionVectorStore(pipeline, batch_size=2)
        assert len(store.add([TextNode(text=f"word{n}") for n in range(9)])) == 9
        assert optimized == 1
        assert pipeline.count() == 9
