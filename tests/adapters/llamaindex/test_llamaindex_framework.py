"""LlamaIndex on top of the store: indexes, engines, ingestion, retriever and reranker; and never an OpenAI key."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from llama_index.core import Settings, StorageContext, VectorStoreIndex
from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.llms import MockLLM
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen.types import BaseQuestionGenerator, SubQuestion
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.tools import QueryEngineTool, ToolMetadata
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from late_interaction import PickleError
from late_interaction.maxsim import maxsim
from llamaindex_lateint import (
    DroppedNodesWarning,
    LateInteractionRerank,
    LateInteractionRetriever,
    LateInteractionVectorStore,
    NoEmbedding,
)
from tests.support.models import HashModel

DOCUMENTS = [
    Document(id_="cats", text="The cat sleeps all day long.", metadata={"year": 2001, "kind": "animal"}),
    Document(id_="dogs", text="The dog guards the old house.", metadata={"year": 2002, "kind": "animal"}),
    Document(id_="cars", text="The car needs petrol and oil.", metadata={"year": 2003, "kind": "machine"}),
]


@pytest.fixture(autouse=True)
def no_models_of_llamaindex() -> Iterator[None]:
    """LlamaIndex resolves a model lazily, and to OpenAI's: none may have been resolved, ever."""
    yield
    assert Settings._embed_model is None
    assert Settings._llm is None


@pytest.fixture
def index(store: LateInteractionVectorStore) -> VectorStoreIndex:
    return build(store)


def build(store: LateInteractionVectorStore, **options: Any) -> VectorStoreIndex:
    context = StorageContext.from_defaults(vector_store=store)
    return VectorStoreIndex.from_documents(
        DOCUMENTS, storage_context=context, embed_model=NoEmbedding(), **options
    )


def parents(found: Sequence[NodeWithScore]) -> list[str | None]:
    return [one.node.ref_doc_id for one in found]


def stored(store: LateInteractionVectorStore) -> dict[str | None, str]:
    return {node.ref_doc_id: node.get_content() for node in store.get_nodes()}


# --- indexes and engines


def test_it_is_a_vector_store_of_llamaindex() -> None:
    assert issubclass(LateInteractionVectorStore, BasePydanticVectorStore)
    missing = {
        name
        for name in ("add", "delete", "delete_nodes", "get_nodes", "clear", "query")
        for name in (name, "async_add" if name == "add" else f"a{name}")
        if getattr(LateInteractionVectorStore, name) is getattr(BasePydanticVectorStore, name)
    }
    assert not missing


@pytest.mark.slow
@pytest.mark.parametrize("use_async", [False, True])
def test_an_index_of_documents(store: LateInteractionVectorStore, use_async: bool) -> None:
    index = build(store, use_async=use_async)
    assert set(stored(store)) == {"cats", "dogs", "cars"}
    found = index.as_retriever(similarity_top_k=2).retrieve("who guards the house")
    assert parents(found)[0] == "dogs"
    assert len(found) == 2
    assert (found[0].score or 0) > (found[1].score or 0)


def test_an_index_of_nodes(store: LateInteractionVectorStore) -> None:
    nodes = SentenceSplitter().get_nodes_from_documents(DOCUMENTS)
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=NoEmbedding())
    (found,) = index.as_retriever(similarity_top_k=1).retrieve("petrol")
    assert found.node == next(node for node in nodes if node.ref_doc_id == "cars").model_copy(
        update={"embedding": None}
    )


@pytest.mark.usefixtures("index")
def test_an_index_on_a_store_that_is_full(make_store: Any) -> None:
    store = make_store()
    for index in (store.as_index(), VectorStoreIndex.from_vector_store(store, embed_model=NoEmbedding())):
        answer = index.as_query_engine(llm=MockLLM(), similarity_top_k=1).query("Who sleeps all day")
        assert "The cat sleeps all day long." in str(answer)
        assert parents(answer.source_nodes) == ["cats"]


def test_a_chat_engine(index: VectorStoreIndex) -> None:
    chat = index.as_chat_engine(chat_mode="context", llm=MockLLM(), similarity_top_k=1)
    answer = chat.chat("Who guards the house?")
    assert parents(answer.source_nodes) == ["dogs"]
    assert "".join(chat.stream_chat("And who sleeps all day?").response_gen)
    assert len(chat.chat_history) == 4


def test_a_retriever_with_filters(index: VectorStoreIndex) -> None:
    old = MetadataFilters(filters=[MetadataFilter(key="year", value=2003, operator=FilterOperator.LT)])
    retriever = index.as_retriever(similarity_top_k=5, filters=old)
    assert set(parents(retriever.retrieve("petrol"))) == {"cats", "dogs"}
    retriever = index.as_retriever(similarity_top_k=5, doc_ids=["cars"])
    assert parents(retriever.retrieve("cat")) == ["cars"]
    native = index.as_retriever(similarity_top_k=5, vector_store_kwargs={"filter": {"kind": "machine"}})
    assert parents(native.retrieve("cat")) == ["cars"]


def test_mmr_through_a_retriever(store: LateInteractionVectorStore) -> None:
    store.add([TextNode(id_=one, text=one) for one in ("red red green", "red green green", "red blue")])
    retriever = store.as_index().as_retriever(
        similarity_top_k=2, vector_store_query_mode="mmr", vector_store_kwargs={"mmr_threshold": 0.2}
    )
    assert retriever.retrieve("red green")[1].node_id == "red blue"


def test_a_similarity_cutoff(make_store: Any) -> None:
    index = build(make_store())
    cutoff = SimilarityPostprocessor(similarity_cutoff=0.8)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=3, node_postprocessors=[cutoff])
    assert parents(engine.query("dog guards").source_nodes) == ["dogs"]


def test_insert_update_refresh_delete(index: VectorStoreIndex, store: LateInteractionVectorStore) -> None:
    index.insert(Document(id_="fish", text="The fish swims."))
    assert len(stored(store)) == 4
    index.update_ref_doc(Document(id_="fish", text="The fish swims far."))
    assert stored(store)["fish"] == "The fish swims far."
    changed = DOCUMENTS[0].model_copy(deep=True)
    changed.set_content("The cat hunts at night.")
    assert index.refresh_ref_docs([changed]) == [True]
    assert stored(store)["cats"] == "The cat hunts at night."
    index.delete_ref_doc("fish", delete_from_docstore=True)
    assert set(stored(store)) == {"cats", "dogs", "cars"}
    index.delete_nodes([node.node_id for node in store.get_nodes() if node.ref_doc_id == "cars"])
    assert set(stored(store)) == {"cats", "dogs"}


async def test_everything_async_inside_a_running_loop(store: LateInteractionVectorStore) -> None:
    index = build(store, use_async=True)
    await index.ainsert(Document(id_="fish", text="The fish swims."))
    await index.aupdate_ref_doc(Document(id_="fish", text="The fish swims far."))
    answer = await index.as_query_engine(llm=MockLLM(), similarity_top_k=1).aquery("Who swims far")
    assert parents(answer.source_nodes) == ["fish"]
    await index.adelete_ref_doc("fish")
    retriever = index.as_retriever(similarity_top_k=1)
    found = await asyncio.gather(
        *(retriever.aretrieve(text) for text in ("cat sleeps", "old house", "petrol"))
    )
    assert [parents(one)[0] for one in found] == ["cats", "dogs", "cars"]
    chat = index.as_chat_engine(chat_mode="context", llm=MockLLM(), similarity_top_k=1)
    assert parents((await chat.achat("Who sleeps all day")).source_nodes) == ["cats"]


class ByWord(BaseSelector):
    """Selects the tools whose name is in the query."""

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        chosen = [i for i, choice in enumerate(choices) if choice.name and choice.name in query.query_str]
        return SelectorResult(selections=[SingleSelection(index=i, reason="its name") for i in chosen])

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> SelectorResult:
        return self._select(choices, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts_dict: Any) -> None:
        raise NotImplementedError


class OnePerTool(BaseQuestionGenerator):
    """Asks each tool the whole question."""

    def generate(self, tools: Sequence[ToolMetadata], query: QueryBundle) -> list[SubQuestion]:
        return [SubQuestion(sub_question=query.query_str, tool_name=tool.name or "") for tool in tools]

    async def agenerate(self, tools: Sequence[ToolMetadata], query: QueryBundle) -> list[SubQuestion]:
        return self.generate(tools, query)

    def _get_prompts(self) -> dict[str, Any]:
        return {}

    def _update_prompts(self, prompts: Any) -> None:
        raise NotImplementedError


@pytest.fixture
def tools(make_store: Any) -> list[QueryEngineTool]:
    found = []
    for name, texts in {"plants": ["An oak is a tree."], "stars": ["The sun is a star."]}.items():
        store = make_store(name)
        store.add([TextNode(id_=text, text=text) for text in texts])
        engine = store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=1)
        found.append(QueryEngineTool.from_defaults(engine, name=name, description=f"about {name}"))
    return found


async def test_a_router_over_two_indexes(tools: list[QueryEngineTool]) -> None:
    engine = RouterQueryEngine(selector=ByWord(), query_engine_tools=tools, llm=MockLLM())
    assert engine.query("which stars").source_nodes[0].node_id == "The sun is a star."
    assert (await engine.aquery("which plants")).source_nodes[0].node_id == "An oak is a tree."


@pytest.mark.parametrize("use_async", [False, True])
async def test_sub_questions_over_two_indexes(tools: list[QueryEngineTool], use_async: bool) -> None:
    engine = SubQuestionQueryEngine.from_defaults(
        query_engine_tools=tools, question_gen=OnePerTool(), llm=MockLLM(), use_async=use_async, verbose=False
    )
    for answer in (engine.query("sun and oak"), await engine.aquery("sun and oak")):
        assert {"An oak is a tree.", "The sun is a star."} <= {node.node_id for node in answer.source_nodes}


def test_text_and_images_in_one_store(store: LateInteractionVectorStore) -> None:
    nodes: list[Any] = [
        TextNode(id_="text", text="a text about rainfall"),
        ImageNode(id_="image", text="a chart of rainfall", image_path="pages/1.png", metadata={"page": 1}),
        Node.model_validate(
            {
                "id_": "both",
                "text_resource": {"text": "rainfall by month"},
                "image_resource": {"path": "pages/2.png"},
            }
        ),
    ]
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=NoEmbedding())
    retriever = index.as_retriever(similarity_top_k=3)
    # LlamaIndex hands over the ids of the images alone, which would hide the text.
    assert retriever._node_ids == ["image"]
    found = {one.node_id: one.node for one in retriever.retrieve("rainfall")}
    assert found == {node.node_id: node for node in nodes}


def test_a_node_that_stands_for_an_engine(store: LateInteractionVectorStore, make_store: Any) -> None:
    inner = make_store("inner")
    inner.add([TextNode(id_="deep", text="the answer lies within")])
    pointer = IndexNode(text="ask the inner index", index_id="inner", obj=LateInteractionRetriever(inner))
    context = StorageContext.from_defaults(vector_store=store)
    index = VectorStoreIndex(objects=[pointer], storage_context=context, embed_model=NoEmbedding())
    assert [one.node_id for one in index.as_retriever().retrieve("inner")] == ["deep"]


# --- embeddings and ingestion


def test_no_embedding_is_no_embedding() -> None:
    model = NoEmbedding()
    assert model.get_text_embedding_batch(["a", "b"]) == [[0.0], [0.0]]
    assert model.get_query_embedding("a") == [0.0]
    assert pickle.loads(pickle.dumps(model)).get_text_embedding("a") == [0.0]
    assert [node.embedding for node in model([TextNode(text="a")])] == [[0.0]]


async def test_no_embedding_async() -> None:
    assert await NoEmbedding().aget_text_embedding_batch(["a", "b"]) == [[0.0], [0.0]]
    assert await NoEmbedding().aget_query_embedding("a") == [0.0]


def ingestion(store: LateInteractionVectorStore, *more: Any, **options: Any) -> IngestionPipeline:
    return IngestionPipeline(transformations=[SentenceSplitter(), *more], vector_store=store, **options)


async def test_ingestion_stores_every_node(store: LateInteractionVectorStore, recwarn: Any) -> None:
    assert len(ingestion(store, NoEmbedding()).run(documents=DOCUMENTS)) == 3
    assert set(stored(store)) == {"cats", "dogs", "cars"}
    store.clear()
    await ingestion(store, NoEmbedding()).arun(documents=DOCUMENTS)
    assert set(stored(store)) == {"cats", "dogs", "cars"}
    assert not [warning for warning in recwarn if warning.category is DroppedNodesWarning]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("strategy", [DocstoreStrategy.UPSERTS, DocstoreStrategy.UPSERTS_AND_DELETE])
async def test_ingestion_with_a_docstore(
    store: LateInteractionVectorStore, strategy: DocstoreStrategy, asynchronous: bool
) -> None:
    pipeline = ingestion(store, NoEmbedding(), docstore=SimpleDocumentStore(), docstore_strategy=strategy)

    async def run(documents: list[Document]) -> int:
        done = await pipeline.arun(documents=documents) if asynchronous else pipeline.run(documents=documents)
        return len(done)

    assert await run(DOCUMENTS) == 3
    assert await run(DOCUMENTS) == 0
    changed = [
        DOCUMENTS[0],
        Document(id_="dogs", text="The dog has moved."),
        Document(id_="fish", text="The fish swims."),
    ]
    assert await run(changed) == 2
    left = {"cats", "dogs", "fish"} | ({"cars"} if strategy is DocstoreStrategy.UPSERTS else set())
    assert set(stored(store)) == left
    assert stored(store)["dogs"] == "The dog has moved."
    assert store.client.count() == len(left)


async def test_ingestion_that_drops_nodes_is_reported(
    store: LateInteractionVectorStore, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.warns(DroppedNodesWarning, match=r"dropped 3 of 3 nodes: they are NOT in the vector store"):
        ingestion(store).run(documents=DOCUMENTS)
    with pytest.warns(DroppedNodesWarning, match="with a new docstore"):
        await ingestion(store, docstore=SimpleDocumentStore()).arun(documents=DOCUMENTS)
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 2
    assert all("NoEmbedding()" in record.getMessage() for record in errors)
    assert store.get_nodes() == []


def test_other_ingestion_is_none_of_our_business(
    store: LateInteractionVectorStore, recwarn: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.get_nodes() == []
    IngestionPipeline(transformations=[SentenceSplitter()]).run(documents=DOCUMENTS)
    assert not [warning for warning in recwarn if warning.category is DroppedNodesWarning]
    assert not caplog.records


# --- retriever and reranker


@pytest.mark.usefixtures("index")
async def test_the_retriever_needs_no_index(store: LateInteractionVectorStore) -> None:
    retriever = LateInteractionRetriever(store, similarity_top_k=2)
    assert isinstance(retriever, BaseRetriever)
    same = store.as_index().as_retriever(similarity_top_k=2)
    assert retriever.retrieve("old house") == same.retrieve("old house")
    assert await retriever.aretrieve("old house") == await same.aretrieve("old house")
    answer = RetrieverQueryEngine.from_args(retriever, llm=MockLLM()).query("petrol")
    assert parents(answer.source_nodes)[0] == "cars"


@pytest.mark.usefixtures("index")
def test_the_retriever_passes_on_what_it_is_given(store: LateInteractionVectorStore) -> None:
    animals = MetadataFilters(filters=[MetadataFilter(key="kind", value="animal")])
    for retriever, expected in (
        (LateInteractionRetriever(store, similarity_top_k=9, filters=animals), {"cats", "dogs"}),
        (LateInteractionRetriever(store, similarity_top_k=9, doc_ids=["cars"]), {"cars"}),
        (
            LateInteractionRetriever(
                store, similarity_top_k=9, vector_store_kwargs={"filter": {"year": 2001}}
            ),
            {"cats"},
        ),
        (
            LateInteractionRetriever(store, vector_store_query_mode="mmr", similarity_top_k=3),
            {"cats", "dogs", "cars"},
        ),
    ):
        assert set(parents(retriever.retrieve("the house"))) == expected


async def test_the_reranker_scores_by_maxsim_over_the_text_for_embedding() -> None:
    model = HashModel()
    texts = ["nothing of it", "one of two", "one two three", "two"]
    nodes = [
        NodeWithScore(node=TextNode(id_=text, text=text, metadata={"m": "n"}), score=9) for text in texts
    ]
    image = NodeWithScore(node=ImageNode(id_="image", image_path="p.png"), score=99)
    rerank = LateInteractionRerank(model=model, top_n=10)
    found = rerank.postprocess_nodes([image, *nodes], query_str="one two three")
    encoded = model.encode_documents([node.node.get_content(MetadataMode.EMBED) for node in nodes])
    scores = maxsim(model.encode_queries(["one two three"])[0], encoded)
    expected = sorted(zip(scores.tolist(), texts, strict=True), reverse=True)
    assert [(one.score, one.node_id) for one in found[:-1]] == [
        (pytest.approx(score), text) for score, text in expected
    ]
    assert (found[-1].node_id, found[-1].score) == ("image", None)
    assert found[0].node_id == "one two three"
    assert await rerank.apostprocess_nodes([image, *nodes], query_str="one two three") == found
    assert (
        LateInteractionRerank(model=model, top_n=2).postprocess_nodes(nodes, query_str="two")
        == (LateInteractionRerank(model=model).postprocess_nodes(nodes, query_str="two")[:2])
    )
    assert nodes[0].score == 9


async def test_the_reranker_on_the_edge() -> None:
    rerank = LateInteractionRerank(model=HashModel())
    assert rerank.postprocess_nodes([], query_str="one") == []
    assert await rerank.apostprocess_nodes([], query_str="one") == []
    for missing in (None, " "):
        with pytest.raises(ValueError, match="Reranking needs a query"):
            rerank.postprocess_nodes([], query_str=missing)
    assert set(rerank.to_dict()) == {"top_n", "allow_urls", "keep_retrieval_score", "class_name"}


def test_a_query_engine_that_reranks(index: VectorStoreIndex) -> None:
    engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=3,
        node_postprocessors=[LateInteractionRerank(model=HashModel(), top_n=1)],
    )
    assert parents(engine.query("petrol oil").source_nodes) == ["cars"]


def test_a_reranker_whose_model_cannot_be_pickled_says_so() -> None:
    class Locked(HashModel):
        def __reduce__(self) -> Any:
            raise ValueError("a lock")

    with pytest.raises(PickleError, match="a lock"):
        pickle.dumps(LateInteractionRerank(model=Locked()))
    again = pickle.loads(pickle.dumps(LateInteractionRerank(model=HashModel(), top_n=2)))
    assert (again.top_n, again.model.model_name) == (2, "hash")
