"""Images beside texts in one store, with a model that sees."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    BaseNode,
    ImageDocument,
    ImageNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from pydantic import AnyUrl

from late_interaction import ColPaliModel, DocumentError, SyncPipeline, load_image
from llamaindex_lateint import (
    LateInteractionRerank,
    LateInteractionRetriever,
    LateInteractionVectorStore,
    NoEmbedding,
)
from tests.adapters.conftest import ENGINES, MakeStore, drop
from tests.adapters.llamaindex.asking import ask, ids, where
from tests.support.colours import ColourModel, picture, png
from tests.support.models import HashModel

pytest.importorskip("PIL", reason="the colpali extra is not installed")

URL = "https://example.org/green.png"
BOOK = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}


@pytest.fixture
def red(tmp_path: Path) -> str:
    picture("red").save(tmp_path / "red.png")
    return str(tmp_path / "red.png")


def encoded(*colours: str) -> str:
    return base64.b64encode(png(*colours)).decode()


def seeing(make_store: MakeStore, **options: Any) -> LateInteractionVectorStore:
    return make_store(model=ColourModel(), doc_pool_factor=1, **options)


def kinds(red: str) -> list[BaseNode]:
    """Every way in which a node may have an image that is referred to, and a text."""
    return [
        ImageNode(id_="path", image_path=red, metadata={"page": 1}, relationships=BOOK),
        ImageNode(
            id_="with text", image_path=red, text="a caption", metadata={"image": "mine", "thumbnail": 1}
        ),
        ImageNode(id_="url", image_url=URL, image=encoded("green"), text=" ", metadata={"page": 2}),
        Node(
            id_="node",
            text_resource=MediaResource(text="a wall"),
            image_resource=MediaResource(path=Path(red)),
            metadata={"page": 3},
        ),
        Node(
            id_="node at a URL",
            text_resource=MediaResource(text="a sea"),
            image_resource=MediaResource(url=AnyUrl(URL), data=png("blue")),
            metadata={"page": 4},
        ),
        TextNode(id_="text", text="white white", metadata={"page": 5, "image": "mine"}),
    ]


def without_data(node: BaseNode) -> BaseNode:
    """The node as it comes back where images are stored by reference."""
    if isinstance(node, ImageNode):
        return node.model_copy(update={"image": None})
    if isinstance(node, Node) and node.image_resource is not None:
        resource = node.image_resource.model_copy(update={"data": None})
        return node.model_copy(update={"image_resource": resource})
    return node


async def test_images_and_texts_are_found_by_what_they_show(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    nodes = kinds(red)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=NoEmbedding())
    for colour, found in (("green", "url"), ("blue", "node at a URL"), ("white", "text")):
        (one,) = index.as_retriever(similarity_top_k=1).retrieve(colour)
        assert (one.node_id, one.score) == (found, pytest.approx(1, abs=0.05))
    answer = await store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=3).aquery("red")
    assert {one.node_id for one in answer.source_nodes} == {"path", "with text", "node"}
    assert "a caption" in str(answer)
    store.delete("book")
    assert set(ids(store.get_nodes())) == {node.node_id for node in nodes} - {"path"}


def test_images_come_back_by_reference(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    nodes = kinds(red)
    assert store.add(nodes) == ids(nodes)
    assert store.get_nodes(ids(nodes)) == [without_data(node) for node in nodes]
    assert all("base64" not in str(document.metadata) for document in store.client.find())
    store.add(store.get_nodes(["path", "text"]))
    assert store.get_nodes(["path", "text"]) == [nodes[0], nodes[-1]]


BYTES: list[BaseNode] = [
    ImageNode(id_="base64", image=encoded("red"), metadata={"page": 1}, image_mimetype="image/png"),
    ImageNode(id_="bare", image=encoded("blue")),
    Node(id_="bytes", image_resource=MediaResource(data=png("green")), metadata={"page": 2}),
    ImageDocument(id_="document", image=encoded("white"), text="a sheet"),
]


async def test_images_as_bytes_come_back_whole_where_they_are_stored(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store, store_images="full")
    nodes = [*BYTES, *kinds(red)[2:3]]
    assert await store.async_add(nodes) == ids(nodes)
    assert store.get_nodes(ids(nodes)) == nodes
    assert [node.hash for node in store.get_nodes(ids(nodes))] == [node.hash for node in nodes]
    for colour, found in (("red", "base64"), ("blue", "bare"), ("white", "document")):
        assert store.query(ask(colour, 1)).ids == [found]


def test_thumbnails_stand_for_images_where_they_are_stored(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store, store_images="thumbnail")
    store.add([*BYTES, ImageNode(id_="path", image_path=red)])
    back: list[Any] = store.get_nodes([*ids(BYTES), "path"])
    for node in back:
        data = node.image_resource.data.decode() if type(node) is Node else node.image
        image = load_image(base64.b64decode(data))
        assert (image.size, base64.b64decode(data)[:2]) == ((40, 30), b"\xff\xd8")
        assert "base64" not in node.get_content(MetadataMode.ALL)
    assert back[-1].image_path == red
    assert [back[0].image_mimetype, back[2].image_resource.mimetype] == ["image/jpeg"] * 2


@pytest.mark.parametrize("node", BYTES, ids=ids(BYTES))
def test_an_image_that_would_be_lost_is_refused(make_store: MakeStore, node: BaseNode) -> None:
    store = seeing(make_store)
    with pytest.raises(ValueError, match=f"'{node.node_id}' carries an image as bytes.*store_images='full'"):
        store.add([TextNode(text="one"), node])
    assert store.get_nodes() == []


def test_a_model_of_text_keeps_the_image_of_a_text(make_store: MakeStore, red: str) -> None:
    store = make_store(store_images="full")
    page = ImageNode(id_="page", text="a chart of rainfall", image=encoded("red"), metadata={"page": 1})
    store.add([page, TextNode(id_="text", text="one")])
    assert store.query(ask("chart", 1)).nodes == [page]
    assert store.client.find()[0].content_type == "image"
    with pytest.raises(ValueError, match="'path' is an image without text"):
        store.add(kinds(red)[:1])
    with pytest.raises(DocumentError, match=r"'missing'.*cannot be read"):
        store.add([ImageNode(id_="missing", text="text", image_path="no such file.png")])


async def test_an_image_is_a_query(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    nodes = kinds(red)
    store.add(nodes)
    for image in (red, Path(red), picture("red"), png("red"), encoded("red")):
        found = store.query(ask(None, 3), query_image=image)
        assert set(found.ids or ()) == {"path", "with text", "node"}
        assert found == await store.aquery(ask("the text does not count", 3), query_image=image)
    options: dict[str, Any] = {"vector_store_kwargs": {"query_image": picture("blue")}}
    assert [
        one.node_id for one in store.as_index().as_retriever(similarity_top_k=1, **options).retrieve("x")
    ] == ["node at a URL"]
    late = where("page", 2, ">")
    assert store.query(ask(None, 1, filters=late), query_image=red).ids == ["node"]
    assert store.query(ask(None, 1), query_image=red, node_ids=["url", "node"]).ids == ["node"]
    mmr = store.query(ask(None, 2, mode=VectorStoreQueryMode.MMR), query_image=red, mmr_threshold=0.1)
    assert len(set(mmr.ids or ()) & {"path", "with text", "node"}) == 1


async def test_a_retriever_and_an_engine_asked_by_an_image(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    store.add(kinds(red))
    retriever = LateInteractionRetriever(store, similarity_top_k=1, filters=where("page", 3))
    bundle = QueryBundle("What is on this wall?", image_path=red)
    assert [one.node_id for one in retriever.retrieve(bundle)] == ["node"]
    assert await retriever.aretrieve(QueryBundle("", image_path=red)) == retriever.retrieve(bundle)
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query(bundle)
    assert "a wall" in str(answer)
    assert "What is on this wall?" in str(answer)


async def test_image_queries_that_cannot_be_answered(make_store: MakeStore, red: str) -> None:
    blind, store = make_store(), seeing(make_store, name="seeing")
    with pytest.raises(ValueError, match="The query is an image, and hash encodes text"):
        blind.query(ask("x", 1), query_image=red)
    with pytest.raises(ValueError, match="give one of them"):
        store.query(ask("x", 1), query_image=red, query_matrix=[[1.0]])
    with pytest.raises(ValueError, match="allow_urls=True"):
        await store.aquery(ask("x", 1), query_image=URL)
    with pytest.raises(ValueError, match="public"):
        seeing(make_store, name="fetching", allow_urls=True).query(
            ask("x", 1), query_image="http://127.0.0.1:1/a.png"
        )


def test_images_at_urls_are_fetched_on_request(make_store: MakeStore) -> None:
    node = ImageNode(id_="far", image_url="http://127.0.0.1:1/a.png", metadata={"page": 1})
    with pytest.raises(DocumentError, match=r"'far'.*allow_urls=True"):
        seeing(make_store).add([node])
    with pytest.raises(DocumentError, match=r"'far'.*public"):
        seeing(make_store, name="fetching", allow_urls=True).add([node])


def test_nodes_that_fail_are_named_and_nothing_is_there(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store, batch_size=2)
    nodes = [
        TextNode(id_="a", text="one"),
        ImageNode(id_="b", image_path="no such file.png"),
        ImageNode(id_="c", image_path=red),
        TextNode(id_="d", text="one", metadata={"x": object()}),
        TextNode(id_="e", text="one"),
    ]
    with pytest.raises(DocumentError) as caught:
        store.add(nodes)
    assert [(failure.row, failure.doc_id) for failure in caught.value.failures] == [(1, "b"), (3, "d")]
    assert caught.value.indexed == store.get_nodes() == []
    assert store.add(nodes, on_error="skip") == ids(store.get_nodes()) == ["a", "c", "e"]


async def test_metadata_with_the_names_of_stored_images_are_filtered_as_any_other(
    make_store: MakeStore, red: str
) -> None:
    store = seeing(make_store, store_images="thumbnail")
    nodes = kinds(red)
    store.add(nodes)
    store.client.index_document({"doc_id": "core", "content": "red", "thumbnail": "mine"})
    mine = {"with text", "text"}
    assert set(ids(store.get_nodes(filters=where("image", "mine")))) == mine
    assert set(store.query(ask("red", 9, filters=where("image", "mine"))).ids or ()) == mine
    assert (
        set(ids(store.get_nodes(filters=where("image", None, "is_empty"))))
        == {
            *ids(nodes),
            "core",
        }
        - mine
    )
    assert ids(await store.aget_nodes(filters=where("thumbnail", "mine"))) == ["core"]


def test_images_that_others_wrote_are_image_nodes(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    store.client.initialize()
    store.client.index_documents(
        [
            {"doc_id": "path", "image": red, "content": "a wall", "year": 1},
            {"doc_id": "pillow", "image": picture("blue")},
        ]
    )
    assert store.get_nodes() == [
        ImageNode(id_="path", text="a wall", image_path=red, metadata={"year": 1}),
        ImageNode(id_="pillow", text="image of 40×30 pixels"),
    ]
    with SyncPipeline(
        Path(red).parent / "full", ColourModel(), store_images="full", doc_pool_factor=1
    ) as pipeline:
        pipeline.index_document({"doc_id": "whole", "image": png("blue"), "content": "the sea"})
        assert LateInteractionVectorStore(pipeline).get_nodes() == [
            ImageNode(id_="whole", text="the sea", image=encoded("blue"))
        ]


def test_the_core_sees_images_as_its_own(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    store.add(kinds(red)[:3])
    path, with_text, url = store.client.get_documents(["path", "with text", "url"])
    assert (path.content, path.content_type, path.metadata["image"]) == (red, "image", red)
    assert (with_text.content, with_text.metadata["image"]) == ("a caption", red)
    assert url.metadata["image"] == URL


async def test_ingestion_of_images(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store)
    pipeline = IngestionPipeline(transformations=[NoEmbedding()], vector_store=store)
    documents = [
        ImageDocument(id_="a", image_path=red, metadata={"page": 1}),
        ImageNode(id_="b", image_path=red, metadata={"page": 2}),
    ]
    assert len(await pipeline.arun(nodes=documents)) == 2
    assert ids(store.get_nodes()) == ["a", "b"]
    assert set(store.query(ask("red", 2)).ids or ()) == {"a", "b"}


def test_llamaindex_leaves_out_images_without_text_and_metadata_and_says_so(
    make_store: MakeStore, red: str, capsys: pytest.CaptureFixture[str]
) -> None:
    store = seeing(make_store)
    nodes = [
        ImageNode(id_="bare", image_path=red),
        ImageNode(id_="page", image_path=red, metadata={"page": 1}),
    ]
    VectorStoreIndex(
        nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=NoEmbedding()
    )
    assert "missing content" in capsys.readouterr().out
    assert ids(store.get_nodes()) == ["page"]
    store.as_index().insert_nodes(nodes)
    assert set(ids(store.get_nodes())) == {"bare", "page"}


async def test_images_block_nothing(make_store: MakeStore, red: str) -> None:
    store = seeing(make_store, store_images="thumbnail")
    with blockbuster_ctx():
        await store.async_add([*kinds(red)[:2], *BYTES])
        assert (await store.aquery(ask(None, 1), query_image=red)).ids is not None
        assert len(await store.aget_nodes()) == 6
        await store.aclose()


async def test_the_reranker_looks_at_images(red: str) -> None:
    nodes = [
        NodeWithScore(node=node)
        for node in (*kinds(red)[:-1], *BYTES, TextNode(id_="text", text="green red"))
    ]
    rerank = LateInteractionRerank(model=ColourModel(), top_n=4)
    found = rerank.postprocess_nodes(nodes, query_str="green")
    assert {one.node_id for one in found[:3]} == {"url", "bytes", "text"}
    assert [one.score for one in found[:3]] == pytest.approx([1, 1, 1], abs=1e-5)
    assert (found[3].score or 0) < 0.9
    assert await rerank.apostprocess_nodes(nodes, query_str="green") == found
    with blockbuster_ctx():
        assert await rerank.apostprocess_nodes(nodes, query_str="green") == found
    blind = LateInteractionRerank(model=HashModel(), top_n=9).postprocess_nodes(nodes, query_str="caption")
    assert [blind[0].node_id, blind[-1].score] == ["with text", None]
    far = NodeWithScore(node=ImageNode(image_url="http://127.0.0.1:1/a.png"))
    for allow_urls, said in ((False, "allow_urls=True"), (True, "public")):
        rerank = LateInteractionRerank(model=ColourModel(), allow_urls=allow_urls)
        with pytest.raises(ValueError, match=said):
            rerank.postprocess_nodes([far], query_str="green")


def test_the_reranker_looks_at_a_page_by_its_reference(tmp_path: Path) -> None:
    picture("red").save(tmp_path / "fax.tif", save_all=True, append_images=[picture("green")])
    nodes = [
        NodeWithScore(node=ImageNode(id_=str(page), image_path=f"{tmp_path}/fax.tif#page={page}"))
        for page in (1, 2)
    ]
    found = LateInteractionRerank(model=ColourModel(), top_n=2).postprocess_nodes(nodes, query_str="green")
    assert [one.node_id for one in found] == ["2", "1"]


def test_settings_come_with_a_pipeline(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        for option in ({"store_images": "full"}, {"allow_urls": True}, {"packing": "float32"}):
            with pytest.raises(ValueError, match="leave the other arguments out"):
                LateInteractionVectorStore(pipeline, **option)
    with pytest.raises(ValueError, match="one of reference, thumbnail, full"):
        LateInteractionVectorStore(model=HashModel(), path=tmp_path, store_images="all")  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_visual_checkpoint_by_its_name(tmp_path: Path, red: str) -> None:
    pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")
    from tests.support.visual_checkpoints import visual_checkpoint

    name = str(visual_checkpoint(tmp_path / "colpali", "colpali"))
    nodes = [
        ImageNode(id_="red", image_path=red, metadata={"page": 1}),
        ImageNode(id_="both", image=encoded("blue", "white"), metadata={"page": 2}),
        TextNode(id_="text", text="the cat"),
    ]
    with LateInteractionVectorStore(model=name, path=tmp_path / "db", store_images="full") as store:
        assert isinstance(store.client.model, ColPaliModel)
        assert isinstance(LateInteractionRerank(model=name).model, ColPaliModel)
        VectorStoreIndex(
            nodes, storage_context=StorageContext.from_defaults(vector_store=store), embed_model=NoEmbedding()
        )
        assert store.query(ask(None, 1), query_image=red).ids == ["red"]
        assert store.query(ask(None, 1), query_image=png("blue", "white")).ids == ["both"]
        engine = store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=3)
        assert len(engine.query("the cat").source_nodes) == 3


def test_both_engines_give_the_same_answers(make: MakeStore, red: str) -> None:
    nodes = kinds(red)
    queries: list[tuple[VectorStoreQuery, dict[str, Any]]] = [
        (ask("red", 9), {}),
        (ask("blue sea", 2, doc_ids=["book"]), {}),
        (ask("white", 2, filters=where("page", 3, "<=")), {"filter": {"page": {"$exists": True}}}),
        (ask("a wall", 3, mode=VectorStoreQueryMode.MMR), {"mmr_threshold": 0.3}),
        (ask(None, 3), {"query_image": red}),
        (ask("green", 2), {"node_ids": ["url", "text", "path"], "exact": True}),
        (ask("green", 2), {"n_ann_tokens": 50, "n_maxsim_candidates": 20}),
    ]
    answers = []
    for engine in ENGINES:
        store = make(engine, model=ColourModel(), doc_pool_factor=1)
        store.add(nodes)
        found = [store.query(query, **options) for query, options in queries]
        answers.append([sorted(zip(one.similarities or (), one.ids or (), strict=True)) for one in found])
        answers[-1].append(
            str(store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=1).query("blue"))
        )
        drop(store)
    for one, other in zip(*answers, strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            assert [score for score, _ in one] == pytest.approx([score for score, _ in other], abs=1e-4)
            assert {doc_id for _, doc_id in one} == {doc_id for _, doc_id in other}
