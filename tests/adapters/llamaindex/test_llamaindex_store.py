"""The vector store by itself: what goes in comes out, what is asked for is found, sync and async alike."""

from __future__ import annotations

import asyncio
import copy
import logging
import pickle
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given
from hypothesis import strategies as st
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.schema import Document as LlamaDocument
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from late_interaction import (
    DocumentError,
    LateInteractionError,
    LocalStore,
    StoreError,
    SyncPipeline,
)
from late_interaction.maxsim import maxsim
from llamaindex_lateint import LateInteractionRetriever, LateInteractionVectorStore
from llamaindex_lateint.nodes import encodable_node, node_of
from tests.adapters.llamaindex.asking import ask, ids, where
from tests.support.failing import FailsAtItsThirdWrite
from tests.support.models import HashModel
from tools.data_api import run_in_thread

WORDS = ["ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple", "oak", "pine"]


def trees(parent: str | None = "forest") -> list[TextNode]:
    """One node for each of ten words; they share the word tree."""
    source = {} if parent is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=parent)}
    return [
        TextNode(id_=word, text=f"tree {word}", metadata={"rank": rank}, relationships=source)
        for rank, word in enumerate(WORDS)
    ]


# --- nodes


class OwnNode(TextNode):
    """Somebody's own kind of node."""


RELATED = {
    NodeRelationship.SOURCE: RelatedNodeInfo(
        node_id="book", node_type="4", metadata={"author": "Ada"}, hash="h"
    ),
    NodeRelationship.NEXT: RelatedNodeInfo(node_id="n2"),
    NodeRelationship.CHILD: [RelatedNodeInfo(node_id="c1"), RelatedNodeInfo(node_id="c2")],
}
KINDS: dict[str, BaseNode] = {
    "text": TextNode(
        id_="n",
        text="  the text, with its spaces \n",
        metadata={"a": {"b": [1, 2.5, None, True]}, "a.b": "dotted", "zß": "€", "empty": []},
        relationships=RELATED,
        excluded_embed_metadata_keys=["a"],
        excluded_llm_metadata_keys=["zß"],
        start_char_idx=3,
        end_char_idx=31,
        text_template="{content} {metadata_str}",
        metadata_seperator="; ",  # As 0.13 spells it, and 0.14 still reads it.
    ),
    "names that are ours": TextNode(
        id_="n",
        text="text",
        metadata={
            "ref_doc_id": "mine",
            "_node_content": "mine",
            "_node_type": 7,
            "metadata.ref_doc_id": "x",
            "metadata.metadata._node_type": "y",
            "doc_id": "d",
            "image": "i",
            "metadata.thumbnail": "t",
            "content": "c",
            "content_type": "image",
            "text": "t",
        },
        relationships=RELATED,
    ),
    "metadata only": TextNode(id_="n", text="", metadata={"title": "A title"}),
    "white space": TextNode(id_="n", text=" \n", metadata={"title": "A title"}),
    "index": IndexNode(id_="n", text="see there", index_id="there", metadata={"x": 1}),
    "index of a node": IndexNode(id_="n", text="see", index_id="i", obj=TextNode(id_="t", text="there")),
    "image with text": ImageNode(
        id_="n", text="A page.", image_path="pages/1.png", metadata={"page": 1}, relationships=RELATED
    ),
    "image at a URL": ImageNode(id_="n", text="A page.", image_url="https://example.org/1.png"),
    "multimodal": Node(
        id_="n",
        text_resource=MediaResource(text="A page."),
        image_resource=MediaResource(path="pages/1.png", mimetype="image/png"),
        metadata={"page": 1},
    ),
    "document": LlamaDocument(id_="n", text="All of it.", metadata={"lang": "en"}),
    "image document": ImageDocument(id_="n", text="A page.", metadata={"lang": "en"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_node_comes_back_as_it_was(store: LateInteractionVectorStore, kind: str) -> None:
    node = KINDS[kind]
    assert store.add([node]) == ["n"]
    (back,) = store.get_nodes(["n"])
    assert type(back) is type(node)
    assert back == node
    assert back.hash == node.hash
    assert list(back.metadata) == list(node.metadata)
    assert store.query(ask("anything")).nodes == [node]


def test_a_node_of_ones_own_class_comes_back_as_the_class_it_is_derived_from(
    store: LateInteractionVectorStore,
) -> None:
    store.add([OwnNode(id_="n", text="mine", metadata={"x": 1})])
    assert store.get_nodes() == [TextNode(id_="n", text="mine", metadata={"x": 1})]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
keys = st.text() | st.from_regex(
    r"(metadata\.){0,2}(ref_doc_id|doc_id|_node_content|_node_type|text|image|thumbnail)", fullmatch=True
)


@pytest.mark.slow
@given(
    text=st.text(),
    metadata=st.dictionaries(keys, json_values, max_size=4),
    parent=st.none() | st.text(min_size=1),
)
def test_every_node_is_restored_from_what_is_stored(
    text: str, metadata: dict[str, Any], parent: str | None
) -> None:
    source = {} if parent is None else {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=parent)}
    node = TextNode(text=text + "x", metadata=metadata, relationships=source, embedding=[0.0])
    back = node_of(encodable_node(node, images=False).document)
    assert back == node.model_copy(update={"embedding": None})


def test_metadata_for_embedding_are_encoded_and_not_stored_in_the_text(
    store: LateInteractionVectorStore,
) -> None:
    shown = TextNode(id_="shown", text="plain", metadata={"kind": "juniper"})
    hidden = TextNode(
        id_="hidden", text="plain", metadata={"kind": "juniper"}, excluded_embed_metadata_keys=["kind"]
    )
    store.add([hidden, shown])
    result = store.query(ask("juniper", 2))
    assert ids(result.nodes) == ["shown", "hidden"]
    assert [node.get_content() for node in result.nodes or ()] == ["plain", "plain"]


def test_documents_of_others_are_nodes_too(store: LateInteractionVectorStore) -> None:
    store.client.initialize()
    store.client.index_document({"doc_id": "d", "content": "written by the core", "year": 2001})
    assert store.get_nodes() == [TextNode(id_="d", text="written by the core", metadata={"year": 2001})]
    store.add([TextNode(id_="n", text="written by LlamaIndex", metadata={"year": 2002})])
    (found,) = store.client.find({"year": {"$gt": 2001}})
    assert (found.doc_id, found.content, found.metadata["year"]) == ("n", "written by LlamaIndex", 2002)


# --- images


def test_an_image_is_encoded_by_its_text_where_the_model_reads_text_only(
    store: LateInteractionVectorStore,
) -> None:
    page = ImageNode(id_="page", text="a chart of rainfall", image_path="pages/7.png")
    store.add([*trees(), page])
    (found,) = store.query(ask("rainfall chart", 1)).nodes or ()
    assert found == page


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (
            ImageNode(id_="bare", image_path="pages/7.png", metadata={"page": 7}),
            "'bare' is an image without text",
        ),
        (ImageNode(id_="bytes", text="a page", image="aGVsbG8="), "'bytes' carries an image as bytes"),
        (Node(id_="data", image_resource=MediaResource(data=b"hello")), "'data' carries an image as bytes"),
        (Node(id_="sound", audio_resource=MediaResource(data=b"hello")), "'sound' carries a medium as bytes"),
        (TextNode(id_="blank", text=" "), "'blank' has no text to encode"),
        (
            IndexNode(id_="pointer", text="see", index_id="i", obj=object()),
            "'pointer' holds something that cannot be stored",
        ),
    ],
)
async def test_what_cannot_be_encoded_is_refused_before_anything_is_stored(
    store: LateInteractionVectorStore, node: BaseNode, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        store.add([*trees(), node])
    with pytest.raises(ValueError, match=message):
        await store.async_add([*trees(), node])
    assert store.get_nodes() == []


def test_the_bytes_of_an_image_that_is_referred_to_are_not_stored(store: LateInteractionVectorStore) -> None:
    store.add([ImageNode(id_="page", text="a page", image="aGVsbG8=", image_path="pages/7.png")])
    assert store.get_nodes() == [ImageNode(id_="page", text="a page", image_path="pages/7.png")]


# --- writing


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
    assert max(result.similarities or ()) < 0.9
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


# --- searching


async def test_the_best_by_maxsim_first(make_store: Any) -> None:
    model = HashModel()
    store = make_store(model=model, doc_pool_factor=1, packing="float32")
    nodes = [node.model_copy(update={"excluded_embed_metadata_keys": ["rank"]}) for node in trees()]
    store.add(nodes)
    query = model.encode_queries(["cedar tree"])[0]
    scores = maxsim(query, model.encode_documents([node.text for node in nodes]))
    expected = np.argsort(-scores)[:4]
    for result in (store.query(ask("cedar tree", 4)), await store.aquery(ask("cedar tree", 4))):
        assert result.ids == ids(result.nodes) == [WORDS[i] for i in expected]
        assert result.similarities == pytest.approx(scores[expected].tolist(), rel=1e-4)


def test_a_query_by_its_matrix(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    matrix = HashModel().encode_queries(["larch tree"])[0]
    assert store.query(ask(None), query_matrix=matrix) == store.query(ask("larch tree"))
    assert (
        store.query(ask(None, 2), query_matrix=matrix, node_ids=WORDS).ids
        == store.query(ask("larch tree", 2)).ids
    )
    with pytest.raises(ValueError, match=r"must have shape \(n_tokens ≥ 1, 32\)"):
        store.query(ask(None), query_matrix=matrix[0])


def test_doc_ids_are_honoured(store: LateInteractionVectorStore) -> None:
    for parent, words in (("a", WORDS[:3]), ("b", WORDS[3:6]), (None, WORDS[6:])):
        store.add([node for node in trees(parent) if node.node_id in words])
    assert set(store.query(ask("oak tree", 10, doc_ids=["a", "c"])).ids or ()) == set(WORDS[:3])
    assert store.query(ask("oak tree", 10, doc_ids=[])).ids == []


def test_node_ids_among_the_arguments(
    store: LateInteractionVectorStore,
) -> None:
    store.add(trees())
    everything = store.query(ask("oak tree", 10))
    some = store.query(ask("oak tree", 2), node_ids=["ash", "oak", "ash", "pine", "none"])
    assert some.ids is not None
    assert some.ids[0] == "oak"
    assert len(some.ids) == 2
    both = store.query(ask("oak tree", 9, filters=where("rank", 8, "!=")), node_ids=["ash", "oak"])
    assert both.ids == ["ash"]
    assert store.query(ask("oak tree"), node_ids=["ash", "oak"], filter={"rank": {"$gt": 5}}).ids == ["oak"]
    score_of = dict(zip(everything.ids or (), everything.similarities or (), strict=True))
    assert some.similarities == pytest.approx([score_of[one] for one in some.ids], rel=1e-4)


async def test_maximal_marginal_relevance(store: LateInteractionVectorStore) -> None:
    texts = {"a": "red red green", "b": "red green green", "c": "red blue", "d": "grey"}
    store.add([TextNode(id_=name, text=text) for name, text in texts.items()])
    alike = store.query(ask("red green", 2))
    assert set(alike.ids or ()) == {"a", "b"}
    mmr = VectorStoreQueryMode.MMR
    for query, options in (
        (ask("red green", 2, mode=mmr), {"mmr_threshold": 0.3}),
        (ask("red green", 2, mode=mmr, mmr_threshold=0.3), {}),
        (ask("red green", 2, mode=mmr, mmr_threshold=1.0), {"mmr_threshold": 0.3}),
    ):
        diverse = await store.aquery(query, **options)
        assert (diverse.ids or [])[0] == (alike.ids or [])[0]
        assert (diverse.ids or [])[1] in ("c", "d")
    assert store.query(ask("red green", 2, mode=mmr), mmr_threshold=1.0) == alike
    two = store.query(ask("red green", 2, mode=mmr), mmr_threshold=0.0, mmr_prefetch_k=2)
    assert set(two.ids or ()) == {"a", "b"}


async def test_scores_between_0_and_1_on_request(make_store: Any) -> None:
    store = make_store(normalize_scores=True)
    store.add([TextNode(id_="x", text="one two"), TextNode(id_="y", text="six seven eight")])
    result = store.query(ask("one two", 2))
    assert result.ids == ["x", "y"]
    assert result.similarities == pytest.approx([(2 * s + 1) / 2 for s in (0.5, 0)], abs=0.4)
    assert all(0 <= score <= 1 for score in result.similarities or ())
    assert (await store.aquery(ask("one two", 2), node_ids=["y", "x"])).similarities == pytest.approx(
        result.similarities, rel=1e-4
    )


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        (
            ask("x", mode=VectorStoreQueryMode.HYBRID),
            {},
            NotImplementedError,
            "'default' or 'mmr', not 'hybrid'",
        ),
        (ask(None), {}, ValueError, "nothing to search for and no filters"),
        (VectorStoreQuery(query_embedding=[0.1]), {}, ValueError, "embedding of another model is not enough"),
        (ask("x", alpha=0.5), {}, ValueError, "alpha"),
        (ask("x"), {"mmr_threshold": 0.5}, ValueError, "query mode 'mmr'"),
        (ask("x", mode=VectorStoreQueryMode.MMR), {"mmr_threshold": 2}, ValueError, "from 0 to 1"),
        (ask("x", 0), {}, ValueError, "similarity_top_k must be at least 1"),
        (ask("x"), {"n_ann_tokens": 0}, ValueError, "n_ann_tokens must be at least 1"),
        (ask("x"), {"n_maxsim_candidates": 0}, ValueError, "n_maxsim_candidates must be at least 1"),
        (
            ask("x", mode=VectorStoreQueryMode.MMR),
            {"mmr_prefetch_k": 0},
            ValueError,
            "mmr_prefetch_k must be",
        ),
        (ask("x", mode="sparse"), {}, NotImplementedError, "'default' or 'mmr', not 'sparse'"),
        (ask("x"), {"node_ids": ["x"], "n_ann_tokens": 9}, ValueError, "every one of these nodes is scored"),
        (ask("x"), {"node_ids": "x"}, TypeError, r"node_ids takes a list of ids, not a bare str: \['x'\]"),
        (ask("x", doc_ids="x"), {}, TypeError, "doc_ids takes a list"),
        (ask("x", filters={"rank": 1}), {}, TypeError, "filters must be MetadataFilters, not dict"),
        (ask("x"), {"top_p": 1}, TypeError, "top_p"),
        (ask("x"), {"filter": {"a": {"$near": 1}}}, ValueError, "near"),
    ],
)
async def test_what_is_not_understood_is_refused(
    store: LateInteractionVectorStore,
    query: VectorStoreQuery,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        store.query(query, **options)
    with pytest.raises(error, match=message):
        await store.aquery(query, **options)


def test_arguments_that_mean_nothing_are_refused(store: LateInteractionVectorStore) -> None:
    for call in (
        lambda: store.add(trees(), overwrite=True),
        lambda: store.delete("x", force=True),
        lambda: store.delete_nodes(["x"], force=True),
    ):
        with pytest.raises(TypeError, match="has no argument"):
            call()
    for call in (
        lambda: store.get_nodes("ash"),
        lambda: store.delete_nodes("ash"),
        lambda: LateInteractionRetriever(store, doc_ids="ash"),
    ):
        with pytest.raises(TypeError, match="takes a list of ids, not a bare str"):
            call()
    for filters in ({"rank": 1}, MetadataFilters.model_construct(filters=[{"rank": 1}])):
        with pytest.raises(TypeError, match="filters must be MetadataFilters, not dict"):
            store.delete_nodes(filters=filters)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Pass a list of nodes, not a bare one"):
        store.add(trees()[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="node at position 1 is not a LlamaIndex node but 'oak'"):
        store.add([trees()[0], "oak"])  # type: ignore[list-item]
    assert store.get_nodes() == []


def test_an_exact_search_is_certain(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    assert store.query(ask("fir tree"), exact=True) == store.query(
        ask("fir tree"), n_ann_tokens=4000, n_maxsim_candidates=10
    )


# --- loops, threads and life


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
        "batch_size", "class_name", "flat_metadata", "is_embedding_query", "normalize_scores", "stores_text",
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
