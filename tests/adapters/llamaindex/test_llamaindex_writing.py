"""Adding, deleting and reading nodes, sync and async alike."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core import Document
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import ImageNode, NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery

from late_interaction import (
    DocumentError,
    StoreError,
    SyncPipeline,
)
from llamaindex_lateint import LateInteractionVectorStore, NoEmbedding
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


# --- blank texts


async def test_blank_nodes_are_nodes_that_no_search_finds(store: LateInteractionVectorStore) -> None:
    blanks = [TextNode(id_="empty", text=""), TextNode(id_="space", text=" \n\u200b")]
    whole = TextNode(id_="cat", text="a cat", metadata={"page": 1})
    page = TextNode(
        id_="page", text="", metadata={"page": 2}, excluded_embed_metadata_keys=["page"],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")},
    )  # fmt: skip
    assert store.add([whole, *blanks, page]) == ["cat", "empty", "space", "page"]
    assert await store.aget_nodes() == [whole, *blanks, page]
    assert ids(store.get_nodes(filters=where("page", 2))) == ["page"]
    assert ids(store.query(ask("a cat", 9)).nodes) == ["cat"]
    assert ids((await store.aquery(ask("page 2", 9, filters=where("page", 2)))).nodes) == []
    assert ids(store.query(VectorStoreQuery(filters=where("page", 2))).nodes) == ["page"]
    store.delete("book")
    assert ids(store.get_nodes()) == ["cat", "empty", "space"]


async def test_a_pipeline_with_a_blank_document_stores_it(store: LateInteractionVectorStore) -> None:
    pipeline = IngestionPipeline(
        transformations=[NoEmbedding()], vector_store=store, docstore=SimpleDocumentStore()
    )
    documents = [Document(text="a cat", id_="cat"), Document(text=" ", id_="blank", metadata={"n": 1})]
    documents[1].excluded_embed_metadata_keys = ["n"]
    await pipeline.arun(documents=documents)
    pipeline.run(documents=documents)
    assert sorted(ids(store.get_nodes())) == ["blank", "cat"]


# --- bad nodes


def bad_nodes() -> list[TextNode]:
    return [
        TextNode(id_="good", text="text"),
        TextNode(id_="worse", text="unencodable"),
        TextNode(id_="bad", text="text", metadata={"x": object()}),
        ImageNode(id_="bytes", text="a page", image="aGVsbG8="),
        TextNode(id_="last", text="text"),
    ]


async def test_one_bad_node_keeps_the_whole_call_out(store: LateInteractionVectorStore) -> None:
    with pytest.raises(DocumentError, match=r"doc_id 'bad'.*'x' is a") as caught:
        store.add(bad_nodes())
    assert [failure.doc_id for failure in caught.value.failures] == ["bad", "bytes"]
    with pytest.raises(DocumentError, match="cannot be encoded"):
        await store.async_add(bad_nodes()[:2])
    assert store.get_nodes() == []


async def test_a_call_may_go_on_or_leave_out_bad_nodes(make_store: Any) -> None:
    store = make_store()
    with pytest.raises(DocumentError) as caught:
        await store.async_add(bad_nodes(), on_error="continue")
    assert caught.value.indexed == ["good", "last"]
    added = store.add(bad_nodes(), on_error="skip")
    assert added == ["good", "last"]
    assert [failure.doc_id for failure in added.failures] == ["worse", "bad", "bytes"]
    lenient = make_store("lenient", on_error="skip")
    pipeline = IngestionPipeline(transformations=[NoEmbedding()], vector_store=lenient)
    pipeline.run(nodes=bad_nodes())
    assert ids(lenient.get_nodes()) == ["good", "last"]


def test_wrong_options_of_writing_are_refused(make_store: Any) -> None:
    with pytest.raises(ValueError, match="on_error"):
        make_store(on_error="ignore")
    with pytest.raises(ValueError, match="ids"):
        make_store(ids="random")
    store = make_store()
    with pytest.raises(TypeError, match=r"no option 'batch'\. Did you mean 'batch_size'"):
        store.add(trees(), batch=2)
    with pytest.raises(ValueError, match="on_error must be one of"):
        store.add(trees(), on_error="ignore")
    assert store.get_nodes() == []


# --- ids by content


async def test_ids_by_content_double_nothing(make_store: Any) -> None:
    """LlamaIndex gives nodes random ids, in each run others."""
    store = make_store(ids="content")
    text = "The dog guards the house. " * 30 + "The cat sleeps. " * 30
    for _ in range(2):
        documents = [Document(text=text, metadata={"file": "a"}), Document(text=text, metadata={"file": "b"})]
        pipeline = IngestionPipeline(
            transformations=[TokenTextSplitter(chunk_size=80, chunk_overlap=0), NoEmbedding()],
            vector_store=store,
        )
        pipeline.run(documents=documents)
    nodes = store.get_nodes()
    assert len(nodes) == len({node.node_id for node in nodes})
    assert {node.ref_doc_id for node in nodes} == {document.doc_id for document in documents}
    there = {node.node_id for node in nodes}
    following = [node.next_node.node_id for node in nodes if node.next_node]
    assert following
    assert set(following) <= there
    plain = make_store("plain")
    first = plain.add([TextNode(text="one")], ids="content")
    assert await plain.async_add([TextNode(text="one")], ids="content") == first
    assert plain.add([TextNode(text="one")]) != first


def test_ids_by_content_tell_documents_apart_that_have_ids_of_their_own(make_store: Any) -> None:
    store = make_store(ids="content")
    contracts = [Document(text="All rights reserved.", id_=one) for one in ("contract-A", "contract-B")]
    for _ in range(2):
        index = store.as_index()
        for contract in contracts:
            index.insert(contract)
    assert {node.ref_doc_id for node in store.get_nodes()} == {"contract-A", "contract-B"}
    assert store.as_index().refresh_ref_docs(contracts) == [False, False]
    store.delete("contract-B")
    assert [node.ref_doc_id for node in store.get_nodes()] == ["contract-A"]


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


async def test_nothing_is_deleted_where_the_id_is_none(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    for wrong in (None, ""):
        with pytest.raises((TypeError, ValueError), match="a doc_id"):
            store.delete(wrong)  # type: ignore[arg-type]
        with pytest.raises((TypeError, ValueError), match="a doc_id"):
            await store.adelete(wrong)  # type: ignore[arg-type]
    assert ids(store.get_nodes()) == WORDS


async def test_ids_of_documents_are_texts_also_where_they_look_like_dates(
    store: LateInteractionVectorStore,
) -> None:
    days = ["2024-05-01", "2024-05-01T00:00:00", "2024-05-01T02:00:00+02:00", "2024-05-01T00:00:00Z"]
    documents = [Document(id_=day, text=f"note of {day}") for day in [*days, "other"]]
    assert store.as_index().refresh_ref_docs(documents) == [True] * 5
    assert store.as_index().refresh_ref_docs(documents) == [False] * 5
    assert {node.ref_doc_id for node in store.get_nodes()} == {*days, "other"}
    for wanted in ([days[0]], days[1:3], [days[3], "other"]):
        found = await store.aquery(ask("note", 9, doc_ids=wanted))
        assert {node.ref_doc_id for node in found.nodes or ()} == {*wanted}
    by_key = where("ref_doc_id", days[1])
    assert [node.ref_doc_id for node in store.get_nodes(filters=by_key)] == [days[1]]
    store.delete(days[0])
    await store.adelete(days[2])
    assert {node.ref_doc_id for node in store.get_nodes()} == {days[1], days[3], "other"}


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
