"""Adding, deleting and reading nodes, sync and async alike."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core.schema import (
    TextNode,
)
from llama_index.core.vector_stores.types import (
    MetadataFilters,
)

from late_interaction import (
    DocumentError,
    StoreError,
    SyncPipeline,
)
from llamaindex_lateint import LateInteractionVectorStore
from tests.adapters.llamaindex.asking import ask, ids, where
from tests.adapters.llamaindex.trees import WORDS, trees
from tests.support.failing import FailsAtItsThirdWrite
from tests.support.models import HashModel


def test_ids_come_back_in_order_and_the_last_node_of_an_id_wins(make_store: Any) -> None:
    store = make_store(batch_size=2)
    first, second = TextNode(id_="x", text="first"), TextNode(id_="x", text="second")
    nodes = (node for node in [first, *trees()[:3], second])  # Not only a list will do.
    assert store.add(nodes) == ["x", "ash", "birch", "cedar", "x"]
    assert store.client.count() == 4
    assert store.get_nodes(["x"]) == [second]


def test_a_node_that_shrinks_leaves_nothing_behind(store: LateInteractionVectorStore) -> None:
    store.add([TextNode(id_="x", text="one two three four five six seven"), *trees()])
    store.add([TextNode(id_="x", text="one", metadata={"new": 1})])
    result = store.query(ask("seven", 20))
    assert ids(result.nodes).count("x") == 1
    assert max(result.similarities or ()) < 0.95
    assert store.get_nodes(["x"]) == [TextNode(id_="x", text="one", metadata={"new": 1})]


def test_nothing_is_embedded_but_by_the_model(make_store: Any) -> None:
    model = HashModel()
    store = make_store(model=model)
    store.add([TextNode(id_="x", text="hello", embedding=[1.0, 2.0])])
    assert model.encoded == ["hello"]
    assert store.get_nodes()[0].embedding is None


def test_texts_that_are_cut_are_reported(make_store: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = make_store(model=HashModel(limit=2), batch_size=1)
    with caplog.at_level(logging.WARNING):
        added = store.add([TextNode(id_="a", text="one two three"), TextNode(id_="b", text="one two")])
    assert added.truncated == {"a": None}
    assert "1 of 2 documents are longer than hash reads" in caplog.text


def test_metadata_that_json_cannot_hold_are_refused_by_name(store: LateInteractionVectorStore) -> None:
    bad = TextNode(id_="bad", text="text", metadata={"x": float("nan")})
    with pytest.raises(DocumentError, match=r"doc_id 'bad'.*'x' is nan"):
        store.add([TextNode(id_="good", text="text"), bad])
    assert ids(store.get_nodes()) == ["good"]


def test_an_outage_half_way_says_which_nodes_were_written(tmp_path: Any) -> None:
    with SyncPipeline(FailsAtItsThirdWrite(tmp_path), HashModel()) as pipeline:
        store = LateInteractionVectorStore(pipeline, batch_size=2)
        with pytest.raises(StoreError, match="out of order") as caught:
            store.add(trees())
        assert caught.value.indexed == ids(store.get_nodes()) == WORDS[:4]


async def test_delete_goes_by_the_parent(store: LateInteractionVectorStore) -> None:
    orphans = [TextNode(id_="forest", text="not a part of it"), TextNode(id_="None", text="neither")]
    store.add([*trees("wood"), *orphans])
    store.delete("ash")
    store.delete("no such document")
    assert len(store.get_nodes()) == 12
    store.delete("wood")
    assert ids(store.get_nodes()) == ["forest", "None"]
    await store.async_add(trees("wood"))
    await store.adelete("wood")
    assert ids(await store.aget_nodes()) == ["forest", "None"]
    store.delete("None")  # A node without a parent is a document of its own.
    assert ids(store.get_nodes()) == ["forest"]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_delete_nodes(store: LateInteractionVectorStore, asynchronous: bool) -> None:
    async def delete(*args: Any, **kwargs: Any) -> None:
        if asynchronous:
            await store.adelete_nodes(*args, **kwargs)
        else:
            store.delete_nodes(*args, **kwargs)

    store.add(trees())
    await delete(["ash", "no such node"])
    await delete(filters=where("rank", 7, ">"))
    await delete(["birch", "cedar"], where("rank", 1))
    await delete([])
    assert ids(store.get_nodes()) == ["cedar", "elm", "fir", "hazel", "larch", "maple"]
    empty = MetadataFilters(filters=[])
    for nothing in ({}, {"filters": empty}, {"filters": MetadataFilters(filters=[empty, empty])}):
        with pytest.raises(ValueError, match="clear"):
            await delete(**nothing)
    assert len(store.get_nodes()) == 6


async def test_get_nodes_in_the_order_asked(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    assert ids(store.get_nodes(["oak", "none", "ash", "oak"])) == ["oak", "ash"]
    assert ids(await store.aget_nodes(["oak", "ash"], where("rank", 3, "<"))) == ["ash"]
    assert ids(await store.aget_nodes(filters=where("rank", 3, "<"))) == ["ash", "birch", "cedar"]
    assert store.get_nodes([]) == []


async def test_clear(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    store.clear()
    assert store.get_nodes() == []
    await store.async_add(trees())
    await store.aclear()
    assert await store.aget_nodes() == []
    assert store.query(ask("tree")).nodes == []
