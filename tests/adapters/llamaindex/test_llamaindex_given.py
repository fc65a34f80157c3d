"""Nothing given is silently ignored: HyDE's texts, embeddings alone, filters alone, node ids, unknown arguments."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import (
    Document,
    DocumentSummaryIndex,
    MockEmbedding,
    PropertyGraphIndex,
    StorageContext,
    VectorStoreIndex,
)
from llama_index.core.graph_stores import SimplePropertyGraphStore
from llama_index.core.graph_stores.types import EntityNode, Relation
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.indices.document_summary import DocumentSummaryIndexEmbeddingRetriever
from llama_index.core.indices.property_graph import ImplicitPathExtractor
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata, MockLLM
from llama_index.core.retrievers import QueryFusionRetriever, VectorIndexAutoRetriever
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import MetadataInfo, VectorStoreInfo
from llama_index.core.vector_stores.types import VectorStoreQuery, VectorStoreQueryMode
from pydantic import ValidationError

from late_interaction import ColBERTModel
from llamaindex_lateint import (
    LateInteractionRerank,
    LateInteractionRetriever,
    LateInteractionVectorStore,
    NoEmbedding,
)
from tests.adapters.conftest import MakeStore
from tests.adapters.llamaindex.asking import ask, ids, where
from tests.support.colours import ColourModel, picture
from tests.support.models import HashModel

TEXTS = {"cats": "cats chase mice", "hack": "reward hacking exploits flaws", "rows": "databases store rows"}


def documents() -> list[Document]:
    return [Document(id_=name, text=text, metadata={"kind": name[0]}) for name, text in TEXTS.items()]


def index_of(store: LateInteractionVectorStore, **options: Any) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    options = {"embed_model": NoEmbedding()} | options
    return VectorStoreIndex.from_documents(documents(), storage_context=context, **options)


def parents(found: Any) -> list[str | None]:
    return [one.node.ref_doc_id for one in found]


# --- what to search for


async def test_the_texts_of_hyde_are_searched_for(store: LateInteractionVectorStore) -> None:
    index = index_of(store)
    retrievers = (
        index.as_retriever(similarity_top_k=1),
        store.as_index().as_retriever(similarity_top_k=1),
        store.as_index(embed_model=MockEmbedding(2)).as_retriever(similarity_top_k=1),
        LateInteractionRetriever(store, similarity_top_k=1),
    )
    for retriever in retrievers:
        hyde = QueryBundle("what do mice fear", custom_embedding_strs=["reward hacking flaws"])
        assert parents(retriever.retrieve(hyde)) == parents(await retriever.aretrieve(hyde)) == ["hack"]
        assert hyde == QueryBundle("what do mice fear", custom_embedding_strs=["reward hacking flaws"])
        both = QueryBundle("mice", custom_embedding_strs=["rows", "databases store"])
        assert parents(retriever.retrieve(both)) == ["rows"]


def test_a_query_is_left_as_it_was_for_the_next_retriever(store: LateInteractionVectorStore) -> None:
    ours = index_of(store).as_retriever(similarity_top_k=1)
    dense = VectorStoreIndex.from_documents(documents(), embed_model=MockEmbedding(3)).as_retriever()
    fusion = QueryFusionRetriever([ours, dense], llm=MockLLM(), num_queries=1, use_async=False)
    assert parents(fusion.retrieve("databases"))
    query = QueryBundle("databases")
    with pytest.raises(ValueError, match="x"):
        index_of(store).as_retriever(vector_store_kwargs={"filter": {"$x": 1}}).retrieve(query)
    assert query.embedding is None
    own = QueryBundle("databases", embedding=NoEmbedding().get_query_embedding("cats"))
    assert parents(ours.retrieve(own)) == parents(ours.retrieve(own)) == ["cats"]


def test_what_searches_by_an_embedding_alone(make_store: MakeStore) -> None:
    texts = [Document(text="cats chase mice"), Document(text="databases store rows")]
    summaries = DocumentSummaryIndex.from_documents(
        texts,
        storage_context=StorageContext.from_defaults(vector_store=make_store("summaries")),
        embed_model=NoEmbedding(),
        llm=MockLLM(),
    )
    retriever = DocumentSummaryIndexEmbeddingRetriever(
        summaries, similarity_top_k=1, embed_model=NoEmbedding()
    )
    assert "cats" in retriever.retrieve("cats")[0].get_content()
    graph = SimplePropertyGraphStore()
    graph.upsert_nodes([EntityNode(name="cat", label="A"), EntityNode(name="mouse", label="A")])
    graph.upsert_relations([Relation(label="X", source_id="cat", target_id="mouse")])
    properties = PropertyGraphIndex.from_documents(
        texts,
        property_graph_store=graph,
        vector_store=make_store("graph"),
        embed_model=NoEmbedding(),
        llm=MockLLM(),
        kg_extractors=[ImplicitPathExtractor()],
    )
    assert isinstance(properties.as_retriever(include_text=False).retrieve("cats"), list)
    query = VectorStoreQuery(query_embedding=NoEmbedding().get_query_embedding("mice"), similarity_top_k=1)
    make_store("graph").add([TextNode(id_="x", text="mice"), TextNode(id_="y", text="rows")])
    assert make_store("graph").query(query).ids == ["x"]


def test_the_multi_modal_index_of_llamaindex(make_store: MakeStore, tmp_path: Any) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    for colour in ("red", "blue"):
        picture(colour).save(tmp_path / f"{colour}.png")
    texts, images = make_store("texts"), make_store("images", model=ColourModel(), doc_pool_factor=1)
    pages = [
        ImageNode(id_=c, image_path=str(tmp_path / f"{c}.png"), metadata={"c": c}) for c in ("red", "blue")
    ]
    index = MultiModalVectorStoreIndex(
        [TextNode(id_="text", text="cats chase mice"), *pages],
        storage_context=StorageContext.from_defaults(vector_store=texts, image_store=images),
        embed_model=NoEmbedding(),
        image_embed_model=NoEmbedding(),
    )
    retriever = index.as_retriever(similarity_top_k=1, image_similarity_top_k=1)
    assert {one.node.node_id for one in retriever.retrieve("red cats")} >= {"red"}
    assert [one.node.node_id for one in retriever.text_retrieve("cats")] == ["text"]
    assert [one.node.node_id for one in retriever.text_to_image_retrieve("blue")] == ["blue"]
    asked = str(tmp_path / "blue.png")
    assert [one.node.node_id for one in retriever.image_to_image_retrieve(asked)] == ["blue"]


class Says(CustomLLM):
    """An LLM that asks for all documents of a kind."""

    query: str = ""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        spec = (
            f'{{"query":"{self.query}","filters":[{{"key":"kind","operator":"==","value":"c"}}],"top_k":2}}'
        )
        return CompletionResponse(text=f"```json\n{spec}\n```")

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        yield self.complete(prompt)


@pytest.mark.parametrize("query", ["", " ", "rows"])
def test_an_auto_retriever_whose_question_is_all_filter(
    store: LateInteractionVectorStore, query: str
) -> None:
    info = VectorStoreInfo(
        content_info="x", metadata_info=[MetadataInfo(name="kind", type="str", description="")]
    )
    for index in (index_of(store), store.as_index()):
        retriever = VectorIndexAutoRetriever(
            index, vector_store_info=info, llm=Says(query=query), default_empty_query_vector=[0.0]
        )
        assert parents(retriever.retrieve("all that are of kind c")) == ["cats"]


async def test_a_query_without_a_text_lists_what_matches(store: LateInteractionVectorStore) -> None:
    store.add([TextNode(id_=name, text=name, metadata={"n": n}) for n, name in enumerate("abcd")])
    for query, options, expected in (
        (ask(None, 9, filters=where("n", 1, ">")), {}, ["c", "d"]),
        (ask("", 1, filters=where("n", 1, "!=")), {}, ["a"]),
        (ask(" ", 9), {"filter": {"n": {"$lt": 2}}}, ["a", "b"]),
        (ask(None, 9, node_ids=["d", "b"]), {}, ["d", "b"]),
        (ask(None, 9, doc_ids=["none"]), {}, []),
        (ask(None, 2, filters=where("n", 1, ">"), mode=VectorStoreQueryMode.MMR), {}, ["c", "d"]),
    ):
        result = await store.aquery(query, **options)
        assert result.ids == ids(result.nodes) == expected
        assert result.similarities is None
        assert store.query(query, **options) == result
    retriever = LateInteractionRetriever(store, filters=where("n", 3))
    assert [(one.node_id, one.score) for one in retriever.retrieve("")] == [("d", None)]
    for nothing in (ask(None), ask(" "), VectorStoreQuery(query_embedding=[0.5, 0.5])):
        with pytest.raises(ValueError, match="nothing to search for and no filters"):
            store.query(nothing)


# --- which nodes may be found


def test_node_ids_of_a_query_restrict_it(store: LateInteractionVectorStore) -> None:
    index = index_of(store)
    nodes = {node.ref_doc_id: node.node_id for node in store.get_nodes()}
    assert store.query(ask("cats", 9, node_ids=[nodes["rows"]])).ids == [nodes["rows"]]
    assert store.query(ask("cats", 9, node_ids=["missing"])).ids == []
    assert (
        len(store.query(ask("cats", 9, node_ids=[])).ids or ()) == 3
    )  # As LlamaIndex gives it for an index of texts.
    assert store.query(ask("cats", 9), node_ids=[]).ids == []
    some = [nodes["rows"], nodes["hack"]]
    assert store.query(ask("hacking", 9, node_ids=some), node_ids=[nodes["rows"]]).ids == [nodes["rows"]]
    retriever = VectorIndexRetriever(index, node_ids=[nodes["rows"]], similarity_top_k=9)
    assert parents(retriever.retrieve("cats")) == ["rows"]
    assert parents(store.as_index().as_retriever(node_ids=[nodes["rows"]]).retrieve("cats")) == ["rows"]


@pytest.mark.parametrize("unknown", ["metadata_filters", "top_k", "k", "search_kwargs", "where"])
def test_a_retriever_refuses_what_it_does_not_know(store: LateInteractionVectorStore, unknown: str) -> None:
    index = store.as_index()
    llm: dict[str, Any] = {"llm": MockLLM()}
    for make, more in ((index.as_retriever, {}), (index.as_query_engine, llm), (index.as_chat_engine, llm)):
        with pytest.raises(TypeError, match=f"does not take {unknown}; it takes alpha, doc_ids"):
            make(**{unknown: {"kind": "c"}}, **more)


def test_a_filter_by_its_name(store: LateInteractionVectorStore) -> None:
    index_of(store)
    index = store.as_index()
    for given in ({"kind": "r"}, where("kind", "r")):
        assert parents(index.as_retriever(filter=given).retrieve("cats")) == ["rows"]
        engine = index.as_query_engine(llm=MockLLM(), filter=given, response_mode="compact")
        assert parents(engine.query("cats").source_nodes) == ["rows"]
        chat = index.as_chat_engine(chat_mode="context", llm=MockLLM(), filter=given, system_prompt="x")
        assert parents(chat.chat("cats").source_nodes) == ["rows"]
    both = {"filter": {"kind": "r"}, "vector_store_kwargs": {"filter": {"kind": "c"}}}
    with pytest.raises(ValueError, match="two filters"):
        index.as_retriever(**both)


# --- documents that were added whole


async def test_a_document_without_a_parent_is_deleted_by_its_id(store: LateInteractionVectorStore) -> None:
    def pipeline() -> IngestionPipeline:
        return IngestionPipeline(
            transformations=[NoEmbedding()],
            vector_store=store,
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        )

    ingestion = pipeline()
    ingestion.run(documents=documents())
    changed = Document(id_="cats", text="cats sleep", metadata={"kind": "c"})
    ingestion.run(documents=[changed, documents()[1]])
    assert {node.node_id: node.get_content() for node in store.get_nodes()} == {
        "cats": "cats sleep",
        "hack": TEXTS["hack"],
    }
    store.as_index().delete_ref_doc("hack")
    assert ids(store.get_nodes()) == ["cats"]
    await store.adelete("cats")
    assert store.get_nodes() == []


# --- after a restart


@pytest.mark.slow
async def test_refresh_after_a_restart_changes_what_has_changed(make_store: MakeStore) -> None:
    assert make_store().as_index().refresh_ref_docs(documents()) == [True] * 3
    changed = [documents()[0], Document(id_="hack", text="reward hacking again"), documents()[2]]
    new = [*changed, Document(id_="new", text="a new text")]
    with make_store() as restarted:
        assert restarted.as_index().refresh_ref_docs(documents()) == [False] * 3
        assert restarted.as_index().refresh_ref_docs(new) == [False, True, False, True]
        assert await restarted.as_index().arefresh_ref_docs(new) == [False] * 4
        assert len(restarted.get_nodes()) == 4
        (found,) = restarted.as_index().as_retriever(similarity_top_k=1).retrieve("reward hacking")
        assert found.text == "reward hacking again"
        assert restarted.document_hash("cats") == documents()[0].hash
        assert await restarted.adocument_hash("none") is None


# --- what a result carries


async def test_nodes_carry_their_score_and_id_on_request(store: LateInteractionVectorStore) -> None:
    index_of(store)
    index = store.as_index()
    for retriever in (
        LateInteractionRetriever(store, similarity_top_k=2, with_scores=True),
        index.as_retriever(similarity_top_k=2, with_scores=True),
        index.as_retriever(similarity_top_k=2, vector_store_kwargs={"with_scores": True}),
        index.as_query_engine(similarity_top_k=2, llm=MockLLM(), with_scores=True).retriever,
        index.as_retriever(similarity_top_k=2, vector_store_query_mode="mmr", with_scores=True),
    ):
        for found in (retriever.retrieve("cats chase"), await retriever.aretrieve("cats chase")):
            assert [one.node.metadata["score"] for one in found] == [one.score for one in found]
            assert [one.node.metadata["id"] for one in found] == [one.node_id for one in found]
            assert "score" not in found[0].node.get_content("llm")
            assert "score" not in found[0].node.get_content("embed")
    plain = index.as_retriever(similarity_top_k=2).retrieve("cats chase")
    assert [set(one.node.metadata) for one in plain] == [{"kind"}] * 2
    listed = store.query(VectorStoreQuery(filters=where("kind", "c")), with_scores=True).nodes or ()
    assert [node.metadata for node in listed] == [{"kind": "c", "id": listed[0].node_id}]


async def test_an_images_node_from_the_document_store_carries_them_too(
    store: LateInteractionVectorStore,
) -> None:
    """LlamaIndex puts it in the place of the one that was found, if the same index has inserted it."""
    index = store.as_index()
    index.insert_nodes(
        [ImageNode(id_="page", text="cats", image_path="page.png", metadata={"score": "mine"})]
    )
    [found] = index.as_retriever(with_scores=True).retrieve("cats")
    assert found.node.metadata == {"score": found.score, "id": "page"}
    [found] = await index.as_retriever().aretrieve("cats")
    assert found.node.metadata == {"score": "mine"}


@pytest.mark.slow
async def test_nodes_tell_the_words_that_answered(make_store: MakeStore, minilm: ColBERTModel) -> None:
    store = make_store(model=minilm, lexical=True)
    text = "The ferry leaves at nine. Tickets for the boat cost four euros."
    store.add([TextNode(text=text, id_="ferry", metadata={"about": "a boat"})])
    for retriever in (
        LateInteractionRetriever(store, explain=True),
        store.as_index().as_retriever(explain=True),
    ):
        [found] = await retriever.aretrieve("price of a boat ticket")
        words = found.node.metadata["matched"]
        assert {"boat", "Tickets"} <= {text[one["start"] : one["end"]] for one in words}
        assert all(text[one["start"] : one["end"]] == one["text"] for one in words)
    for mode in ("hybrid", "text_search"):
        retriever = store.as_index().as_retriever(explain=True, vector_store_query_mode=mode)
        [found] = await retriever.aretrieve("price of a ticket")
        assert [one["text"] for one in found.node.metadata["matched"] if one["lexical"]] == ["Tickets"]
    explanation = store.explain("price of a boat ticket", "ferry")
    assert sum(pair.contribution for pair in explanation.pairs) == pytest.approx(explanation.score)
    assert explanation.content.endswith(text)
    assert "about: a boat" in explanation.content  # The metadata were encoded too.
    assert all(token.start < token.end for token in explanation.document_tokens)
    assert (await store.aexplain("price of a boat ticket", "ferry")) == explanation
    with pytest.raises(ValueError, match="the query is not a text"):
        store.query(VectorStoreQuery(), query_matrix=minilm.encode_queries(["boat"])[0], explain=True)


def test_only_some_models_tell_the_words(store: LateInteractionVectorStore) -> None:
    index_of(store)
    with pytest.raises(TypeError, match="explain=True needs a ColBERTModel"):
        store.query(ask("cats"), explain=True)


# --- arguments of models, rerankers and stores


def test_unknown_arguments_of_rerankers_and_models_are_refused() -> None:
    with pytest.raises(ValidationError, match="top_k"):
        LateInteractionRerank(model=HashModel(), top_k=3)
    with pytest.raises(ValidationError, match="dim"):
        NoEmbedding(dim=3)


def test_a_reranker_may_keep_the_score_of_the_retriever() -> None:
    found = [NodeWithScore(node=TextNode(text=text), score=0.5) for text in ("cats", "dogs")]
    rerank = LateInteractionRerank(model=HashModel(), keep_retrieval_score=True)
    [first, _] = rerank.postprocess_nodes(found, query_str="dogs")
    assert first.node.metadata == {"retrieval_score": 0.5}
    assert first.score == pytest.approx(1)


async def test_every_method_has_an_async_twin(store: LateInteractionVectorStore, tmp_path: Path) -> None:
    """None of those that LlamaIndex calls is left to its default, which would block the event loop."""
    pairs = {"add": "async_add", "persist": None, "as_index": None, "class_name": None}
    ours = ("llamaindex_lateint", "late_interaction")
    for name in dir(LateInteractionVectorStore):
        member = inspect.getattr_static(LateInteractionVectorStore, name)
        function = getattr(member, "__func__", member)
        is_ours = str(getattr(function, "__module__", "")).startswith(ours)
        if name.startswith("_") or not inspect.isfunction(function) or not is_ours:
            continue
        twin = pairs.get(name, f"a{name}")
        if twin is not None and not inspect.iscoroutinefunction(function):
            other = getattr(LateInteractionVectorStore, twin)
            assert inspect.iscoroutinefunction(other), twin
            assert other.__module__.startswith(ours), twin
    for name in ("add", "delete", "query", "get_nodes", "delete_nodes", "clear", "persist"):
        assert getattr(LateInteractionVectorStore, name).__module__.startswith(ours), name
    index_of(store).storage_context.persist(str(tmp_path))
    assert len(store.get_nodes()) == 3
