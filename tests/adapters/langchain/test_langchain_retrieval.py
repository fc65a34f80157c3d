"""Retrievers, the reranker, self-query, and chains with them."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError, blockbuster_ctx
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.load import dumpd, dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.structured_query import (
    Comparator,
    Comparison,
    FilterDirective,
    Operation,
    Operator,
    StructuredQuery,
)
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler
from pydantic import ValidationError

from langchain_lateint import (
    LateInteractionReranker,
    LateInteractionRetriever,
    LateInteractionTranslator,
    LateInteractionVectorStore,
)
from tests.adapters.langchain.texts import IDS, TEXTS, ids
from tests.support.models import HashModel


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    colours = ["red", "red", "green", "blue"]
    metadatas = [{"n": n, "tags": ["even"] if n % 2 == 0 else [], "colour": colours[n]} for n in range(4)]
    store.add_texts(TEXTS, metadatas, ids=IDS)
    return store


# --- the retriever


async def test_k_and_filter_set_for_good_or_for_one_call(filled: LateInteractionVectorStore) -> None:
    retriever = LateInteractionRetriever(vectorstore=filled, k=2, filter={"n": {"$gt": 0}})
    assert ids(retriever.invoke("apple"))[0] == "c"
    assert len(retriever.invoke("apple")) == 2
    assert len(await retriever.ainvoke("apple", k=1)) == 1
    assert ids(retriever.invoke("apple", k=1, filter={"n": 0})) == ["a"]
    assert ids(await retriever.ainvoke("apple", filter={"n": 3})) == ["d"]
    assert ids(retriever.invoke("sea", k=1, exact=True)) == ["d"]
    with pytest.raises(TypeError, match="does not take kk"):
        retriever.invoke("apple", kk=1)


def test_a_retrievers_wrong_arguments_are_refused(filled: LateInteractionVectorStore) -> None:
    with pytest.raises(TypeError, match="does not take kk"):
        LateInteractionRetriever(vectorstore=filled, search_kwargs={"kk": 3}).invoke("apple")
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        LateInteractionRetriever(vectorstore=filled, k=0)


async def test_as_retriever_with_its_three_search_types(filled: LateInteractionVectorStore) -> None:
    similar = filled.as_retriever(search_kwargs={"k": 1, "filter": {"tags": "even"}})
    assert ids(similar.invoke("apple")) == ids(await similar.ainvoke("apple")) == ["a"]
    assert ids(similar.invoke("apple", filter={"n": 2})) == ["c"]
    diverse = filled.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 4, "lambda_mult": 0.1})
    assert ids(diverse.invoke("red apple")) == ids(await diverse.ainvoke("red apple"))
    assert ids(diverse.invoke("red apple"))[0] == "a"
    near = filled.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.95}
    )
    assert ids(near.invoke("red apple")) == ids(await near.ainvoke("red apple")) == ["a"]
    near.add_documents([Document("red apple", id="e")])
    assert set(ids(near.invoke("red apple"))) == {"a", "e"}


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.starts: list[dict[str, Any]] = []
        self.found: list[Sequence[Document]] = []
        self.errors: list[BaseException] = []

    def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
        self.starts.append({"query": query, **kwargs})

    def on_retriever_end(self, documents: Sequence[Document], **kwargs: Any) -> None:
        self.found.append(documents)

    def on_retriever_error(self, error: BaseException, **kwargs: Any) -> None:
        self.errors.append(error)


async def test_callbacks_tags_and_config(filled: LateInteractionVectorStore) -> None:
    heard = Heard()
    retriever = LateInteractionRetriever(vectorstore=filled, k=1, tags=["mine"])
    config: Any = {"callbacks": [heard], "tags": ["call"], "metadata": {"user": "u"}, "run_name": "look"}
    found = [retriever.invoke("sea", config), await retriever.ainvoke("sea", config)]
    assert heard.found == found
    for start in heard.starts:
        assert (start["query"], start["name"], start["metadata"]["user"]) == ("sea", "look", "u")
        assert set(start["tags"]) == {"mine", "call"}
    with pytest.raises(ValueError, match="empty"):
        retriever.invoke(" ", config)
    assert [str(error) for error in heard.errors] == [
        "The query at position 0 is empty or only white space: leave it out."
    ]


async def test_batch_and_abatch(filled: LateInteractionVectorStore) -> None:
    retriever = LateInteractionRetriever(vectorstore=filled, k=1)
    queries = ["red apple", "red pear", "sea"] * 5
    assert [ids(found) for found in retriever.batch(queries)] == [["a"], ["b"], ["d"]] * 5
    assert [ids(found) for found in await retriever.abatch(queries)] == [["a"], ["b"], ["d"]] * 5


# --- a chain


def chain(store: LateInteractionVectorStore) -> Any:
    def numbered(documents: list[Document]) -> str:
        return "\n".join(f"[{document.id}] {document.page_content}" for document in documents)

    prompt = ChatPromptTemplate.from_template("Context:\n{context}\n\nQuestion: {question}")
    return (
        {
            "context": LateInteractionRetriever(vectorstore=store, k=2) | RunnableLambda(numbered),
            "question": RunnablePassthrough(),
        }
        | prompt
        | FakeListChatModel(responses=["it is [d]"])
        | StrOutputParser()
    )


async def test_a_chain_answers_and_streams(filled: LateInteractionVectorStore) -> None:
    collector = RunCollectorCallbackHandler()
    assert chain(filled).invoke("sea water", {"callbacks": [collector]}) == "it is [d]"
    [prompt] = [run for run in collector.traced_runs[0].child_runs if run.run_type == "prompt"]
    assert "[d] blue sea water wave" in str(prompt.outputs)
    assert await chain(filled).ainvoke("sea") == "it is [d]"
    assert list(chain(filled).stream("sea")) == list("it is [d]")
    assert [piece async for piece in chain(filled).astream("sea")] == list("it is [d]")
    events = [event["event"] async for event in chain(filled).astream_events("sea", version="v2")]
    assert "on_retriever_end" in events


# --- loops and threads


async def test_sync_methods_inside_a_running_loop(store: LateInteractionVectorStore) -> None:
    store.add_texts(TEXTS, ids=IDS)
    assert ids(store.similarity_search("sea", k=1)) == ["d"]
    assert ids(LateInteractionRetriever(vectorstore=store, k=1).invoke("sea")) == ["d"]


@pytest.mark.slow
def test_async_methods_from_many_loops_and_threads(filled: LateInteractionVectorStore) -> None:
    failures: list[BaseException] = []

    async def use(name: str) -> None:
        for turn in range(5):
            await filled.aadd_texts([f"{name} {turn}"], ids=[f"{name}-{turn}"])
            found = await asyncio.gather(*(filled.asimilarity_search("sea", k=1) for _ in range(4)))
            assert [ids(documents) for documents in found] == [["d"]] * 4

    def thread(name: str) -> None:
        try:
            for part in range(2):
                asyncio.run(use(f"{name}{part}"))
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failures.append(error)

    threads = [threading.Thread(target=thread, args=(f"t{n}x",)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failures == []
    assert len(filled.search_by_metadata()) == 4 + 4 * 2 * 5


async def test_nothing_blocks_the_callers_loop(tmp_path: Path) -> None:
    with blockbuster_ctx():
        store = await LateInteractionVectorStore.afrom_texts(TEXTS, HashModel(), ids=IDS, path=tmp_path)
        retriever = LateInteractionRetriever(vectorstore=store, k=1)
        assert ids(await retriever.ainvoke("sea")) == ["d"]
        assert ids(await store.aget_by_ids(["a"])) == ["a"]
        await store.aadd_documents([Document("new", id="e")])
        await store.aupdate_metadata({"e": {"n": 5}})
        assert ids(await store.asearch_by_metadata({"n": 5})) == ["e"]
        assert len(await store.amax_marginal_relevance_search("apple")) == 4
        assert len(await store.asimilarity_search_with_embeddings("apple")) == 4
        await store.adelete(["a"])
        with pytest.raises(BlockingError):
            store.pipeline.run(lambda _: asyncio.sleep(0.5))
        await store.aclear()
        await store.adrop()
        reranker = LateInteractionReranker(model=HashModel())
        assert len(await reranker.acompress_documents([Document("one")], "one")) == 1
        await store.aclose()


# --- what is kept and shown


def test_nothing_of_ours_is_serialised(filled: LateInteractionVectorStore) -> None:
    retriever = LateInteractionRetriever(vectorstore=filled)
    assert not retriever.is_lc_serializable()
    assert dumpd(retriever)["type"] == "not_implemented"
    assert "not_implemented" in dumps(filled.as_retriever())


# --- the reranker


DOCUMENTS = [
    Document(text, id=name, metadata={"n": n}) for n, (text, name) in enumerate(zip(TEXTS, IDS, strict=True))
]


async def test_the_reranker_sorts_by_maxsim() -> None:
    reranker = LateInteractionReranker(model=HashModel(), top_n=2)
    found = reranker.compress_documents(DOCUMENTS[::-1], "red apple")
    assert found == await reranker.acompress_documents(DOCUMENTS[::-1], "red apple")
    assert ids(found)[0] == "a"
    assert len(found) == 2
    assert found[0].metadata == {"n": 0, "relevance_score": pytest.approx(1, abs=1e-3)}
    assert DOCUMENTS[0].metadata == {"n": 0}


async def test_a_document_without_text_comes_last() -> None:
    reranker = LateInteractionReranker(model=HashModel())
    found = reranker.compress_documents([Document(" ", id="x"), *DOCUMENTS], "sea")
    assert (ids(found)[0], ids(found)[-1], found[-1].metadata) == ("d", "x", {"relevance_score": 0.0})
    assert reranker.compress_documents([], "sea") == []
    assert ids(await reranker.acompress_documents([Document("", id="x")], "sea")) == ["x"]


def test_scores_as_a_store_does(tmp_path: Path) -> None:
    with LateInteractionVectorStore(
        model=HashModel(), path=tmp_path, doc_pool_factor=1, packing="float32"
    ) as store:
        store.add_documents(DOCUMENTS)
        wanted = store.similarity_search_with_relevance_scores("red water")
    found = LateInteractionReranker(model=HashModel()).compress_documents(DOCUMENTS, "red water")
    assert [d.metadata["relevance_score"] for d in found] == pytest.approx([score for _, score in wanted])
    assert ids(found) == [document.id for document, _ in wanted]


def test_in_a_chain_behind_any_retriever(filled: LateInteractionVectorStore) -> None:
    reranker = LateInteractionReranker(model=HashModel(), top_n=1)
    retriever = filled.as_retriever(search_kwargs={"k": 4})
    both = RunnablePassthrough.assign(found=lambda given: retriever.invoke(given["query"])) | RunnableLambda(
        lambda given: reranker.compress_documents(given["found"], given["query"])
    )
    assert ids(both.invoke({"query": "green tree"})) == ["c"]


def test_wrong_arguments_of_the_reranker() -> None:
    with pytest.raises(TypeError, match="model must be"):
        LateInteractionReranker(model=3)
    with pytest.raises(ValidationError, match="top_n"):
        LateInteractionReranker(model=HashModel(), top_n=0)
    with pytest.raises(ValidationError, match="k"):
        LateInteractionReranker(model=HashModel(), k=3)


# --- self-query


def compare(comparator: Comparator, value: Any, attribute: str = "n") -> Comparison:
    return Comparison(comparator=comparator, attribute=attribute, value=value)


def both(operator: Operator, *arguments: FilterDirective) -> Operation:
    return Operation(operator=operator, arguments=list(arguments))


DIRECTIVES = [
    (compare(Comparator.EQ, 1), "b"),
    (compare(Comparator.NE, 1), "acd"),
    (compare(Comparator.GT, 1), "cd"),
    (compare(Comparator.GTE, 1), "bcd"),
    (compare(Comparator.LT, 1), "a"),
    (compare(Comparator.LTE, 1), "ab"),
    (compare(Comparator.IN, [1, 3]), "bd"),
    (compare(Comparator.NIN, [1, 3]), "ac"),
    (compare(Comparator.CONTAIN, "even", "tags"), "ac"),
    (compare(Comparator.CONTAIN, "eve", "tags"), ""),
    (compare(Comparator.CONTAIN, ["e", "re"], "colour"), "abc"),
    (compare(Comparator.CONTAIN, ["even", "odd"], "tags"), ""),
    (compare(Comparator.CONTAIN, "ed", "colour"), "ab"),
    (compare(Comparator.LIKE, "ed", "colour"), "ab"),
    (compare(Comparator.LIKE, "r%", "colour"), "ab"),
    (compare(Comparator.LIKE, "_re", "colour"), ""),
    (compare(Comparator.LIKE, "e%", "tags"), "ac"),
    (both(Operator.AND, compare(Comparator.GT, 0), compare(Comparator.LT, 2)), "b"),
    (both(Operator.OR, compare(Comparator.EQ, 0), compare(Comparator.EQ, 3)), "ad"),
    (both(Operator.NOT, compare(Comparator.EQ, 0)), "bcd"),
    (both(Operator.NOT, compare(Comparator.EQ, 0), compare(Comparator.EQ, 3)), "bc"),
]


@pytest.mark.parametrize(("directive", "expected"), DIRECTIVES)
def test_structured_queries_find_what_they_mean(
    filled: LateInteractionVectorStore, directive: FilterDirective, expected: str
) -> None:
    structured = StructuredQuery(query="apple", filter=directive, limit=None)
    query, arguments = LateInteractionTranslator().visit_structured_query(structured)
    assert query == "apple"
    assert sorted(map(str, ids(filled.search(query, "similarity", **arguments)))) == list(expected)


def test_structured_queries_of_every_comparator_are_translated() -> None:
    tried = {directive.comparator for directive, _ in DIRECTIVES if isinstance(directive, Comparison)}
    assert tried == set(LateInteractionTranslator.allowed_comparators) == set(Comparator)


def test_dates_and_no_filter(store: LateInteractionVectorStore) -> None:
    store.add_texts(["one", "two"], [{"day": "2024-04-20"}, {"day": "2024-05-01"}], ids=["a", "b"])
    translator = LateInteractionTranslator()
    for value in (
        {"date": "2024-04-30", "type": "date"},
        {"datetime": "2024-04-30T00:00:00", "type": "datetime"},
    ):
        directive = compare(Comparator.GT, value, "day")
        _, arguments = translator.visit_structured_query(StructuredQuery(query="q", filter=directive))
        assert ids(store.similarity_search("one", **arguments)) == ["b"]
    assert translator.visit_structured_query(StructuredQuery(query="q", filter=None)) == ("q", {})
    store.update_metadata({"b": {"day": dt.datetime(2024, 4, 30, 12, tzinfo=dt.UTC)}})
    assert ids(store.similarity_search("one", **arguments)) == ["b"]
