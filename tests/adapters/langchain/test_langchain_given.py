"""Nothing given is silently ignored; what a result carries on request; queries that are all filter."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.runnables import ConfigurableField
from pydantic import ValidationError

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from late_interaction import ColBERTModel
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import IDS, TEXTS, ids


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    store.add_texts(TEXTS, [{"n": n, "tenant": "ab"[n % 2]} for n in range(4)], ids=IDS)
    return store


# --- retrievers


async def test_arguments_of_the_search_may_be_given_to_as_retriever_directly(
    filled: LateInteractionVectorStore,
) -> None:
    for retriever in (
        filled.as_retriever(filter={"tenant": "b"}, k=3),
        filled.as_retriever(k=3, search_kwargs={"filter": {"tenant": "b"}}),
        LateInteractionRetriever(vectorstore=filled, k=3, filter={"tenant": "b"}),
        LateInteractionRetriever(vectorstore=filled, search_kwargs={"k": 3, "filter": {"tenant": "b"}}),
    ):
        assert set(ids(retriever.invoke("apple"))) == set(ids(await retriever.ainvoke("apple"))) == {"b", "d"}
    assert len(filled.as_retriever(search_type="mmr", k=2, fetch_k=4, lambda_mult=0.3).invoke("apple")) == 2


@pytest.mark.parametrize("unknown", ["search_kwarg", "filters", "top_k", "where"])
def test_unknown_arguments_of_as_retriever_are_refused(
    filled: LateInteractionVectorStore, unknown: str
) -> None:
    with pytest.raises(TypeError, match=f"does not take {unknown}; it takes search_type"):
        filled.as_retriever(**{unknown: {"tenant": "b"}})
    with pytest.raises(ValidationError, match=unknown):
        LateInteractionRetriever(vectorstore=filled, **{unknown: {"tenant": "b"}})


def test_arguments_given_twice_are_refused(filled: LateInteractionVectorStore) -> None:
    with pytest.raises(TypeError, match="k is given twice"):
        filled.as_retriever(k=1, search_kwargs={"k": 2})
    with pytest.raises(ValidationError, match="k is given twice"):
        LateInteractionRetriever(vectorstore=filled, k=1, search_kwargs={"k": 2})


async def test_the_retrievers_search_types(filled: LateInteractionVectorStore) -> None:
    near = LateInteractionRetriever(vectorstore=filled, score_threshold=0.95)
    assert ids(near.invoke("red apple")) == ids(await near.ainvoke("red apple")) == ["a"]
    assert len(near.invoke("red apple", score_threshold=0.1)) == 4
    diverse = LateInteractionRetriever(
        vectorstore=filled, k=2, search_type="mmr", search_kwargs={"lambda_mult": 0.1}
    )
    assert ids(diverse.invoke("red apple")) == ids(
        filled.max_marginal_relevance_search("red apple", k=2, lambda_mult=0.1)
    )
    diverse.add_documents([Document("red apple", id="e")])
    assert "e" in ids(near.invoke("red apple"))
    assert await near.aadd_documents([Document("another", id="f")]) == ["f"]
    for wrong in (
        {"search_type": "similarity_score_threshold"},
        {"search_type": "mmr", "score_threshold": 0.5},
        {"search_type": "other"},
        {"score_threshold": 2},
    ):
        with pytest.raises(ValidationError, match=r"threshold|search_type is one of"):
            LateInteractionRetriever(vectorstore=filled, **wrong)


def test_both_retrievers_are_traced_alike(filled: LateInteractionVectorStore) -> None:
    class Heard(BaseCallbackHandler):
        def on_retriever_start(self, serialized: Any, query: str, **kwargs: Any) -> None:
            heard.append((kwargs["tags"], kwargs["metadata"]["ls_vector_store_provider"]))

    heard: list[Any] = []
    for retriever in (filled.as_retriever(), LateInteractionRetriever(vectorstore=filled)):
        retriever.invoke("apple", {"callbacks": [Heard()]})
    assert heard[0] == heard[1] == (["LateInteractionVectorStore", "HashModel"], "LateInteractionVectorStore")


def test_a_configurable_retriever(filled: LateInteractionVectorStore) -> None:
    retriever = LateInteractionRetriever(vectorstore=filled).configurable_fields(
        filter=ConfigurableField(id="f"), k=ConfigurableField(id="k")
    )
    found = retriever.with_config(configurable={"f": {"tenant": "a"}, "k": 2}).invoke("apple")
    assert set(ids(found)) == {"a", "c"}


def test_each_field_of_a_retriever_may_be_configured_or_set(filled: LateInteractionVectorStore) -> None:
    base = LateInteractionRetriever(vectorstore=filled)
    arguments = base.configurable_fields(search_kwargs=ConfigurableField(id="x"))
    assert len(arguments.with_config(configurable={"x": {"k": 1}}).invoke("apple")) == 1
    threshold = base.configurable_fields(score_threshold=ConfigurableField(id="x"))
    assert ids(threshold.with_config(configurable={"x": 0.95}).invoke("red apple")) == ["a"]
    near = LateInteractionRetriever(vectorstore=filled, score_threshold=0.95)
    without = near.configurable_fields(score_threshold=ConfigurableField(id="x"))
    assert len(without.with_config(configurable={"x": None}).invoke("red apple")) == 4
    assert ids(base.model_copy(update={"score_threshold": 0.95}).invoke("red apple")) == ["a"]
    base.score_threshold = 0.95
    assert ids(base.invoke("red apple")) == ["a"]


# --- what a result carries


async def test_scores_and_ids_in_the_metadata_on_request(filled: LateInteractionVectorStore) -> None:
    scores = {d.id: score for d, score in filled.similarity_search_with_score("apple")}
    found = [
        filled.similarity_search("apple", with_scores=True),
        await filled.asimilarity_search("apple", with_scores=True),
        filled.as_retriever(search_kwargs={"with_scores": True}).invoke("apple"),
        filled.as_retriever(with_scores=True, search_type="mmr").invoke("apple"),
        LateInteractionRetriever(vectorstore=filled, with_scores=True).invoke("apple"),
        LateInteractionRetriever(vectorstore=filled).invoke("apple", with_scores=True),
    ]
    for documents in found:
        assert len(documents) == 4
        for document in documents:
            assert document.metadata["id"] == document.id
            assert document.metadata["score"] == pytest.approx(scores[document.id], abs=1e-4)
    assert all({"id", "score"}.isdisjoint(d.metadata) for d in filled.similarity_search("apple"))


@pytest.mark.slow
async def test_the_words_that_answered_on_request(make: MakeStore, minilm: ColBERTModel) -> None:
    store = make("folder", model=minilm)
    text = "The ferry leaves at nine. Tickets for the boat cost four euros."
    store.add_texts([text, "Dogs travel free."], ids=["a", "b"])
    for found in (
        store.similarity_search("price of a boat ticket", k=1, explain=True),
        LateInteractionRetriever(vectorstore=store, k=1, explain=True).invoke("price of a boat ticket"),
    ):
        [document] = found
        matched = document.metadata["matched"]
        assert json.loads(json.dumps(matched)) == matched
        words = {text[m["start"] : m["end"]]: m["contribution"] for m in matched}
        assert {"Tickets", "boat", "cost"} <= words.keys()
        assert words["boat"] > words.get("ferry", 0)
        assert words["boat"] == pytest.approx(sum(matched[list(words).index("boat")]["answers"].values()))
        explanation = store.explain("price of a boat ticket", document.id)
        assert [(m["start"], m["contribution"]) for m in matched] == [
            (word.start, word.contribution) for word in explanation.words if word.start < word.end
        ]
        assert (await store.aexplain("price of a boat ticket", document.id)) == explanation
    for mode in ("hybrid", "lexical"):
        [document] = store.similarity_search("price of a ticket", k=1, explain=True, mode=mode)
        lexical = [m["text"] for m in document.metadata["matched"] if m["lexical"]]
        assert lexical == ["Tickets"]
    with pytest.raises(TypeError, match="not a text"):
        store.similarity_search_by_vector([0.1] * minilm.dim, explain=True)


def test_only_a_colbert_model_can_tell_which_words_answered(filled: LateInteractionVectorStore) -> None:
    with pytest.raises(TypeError, match="needs a ColBERTModel, not HashModel"):
        filled.similarity_search("apple", explain=True)


# --- queries that are all filter


@pytest.mark.parametrize("query", ["", " \n"])
async def test_an_empty_query_with_a_filter_lists_what_matches(
    filled: LateInteractionVectorStore, query: str
) -> None:
    where = {"n": {"$gt": 0}}
    for found in (
        filled.similarity_search(query, k=2, filter=where),
        await filled.asimilarity_search(query, k=2, filter=where),
        filled.max_marginal_relevance_search(query, k=2, filter=where),
        filled.as_retriever(k=2, filter=where).invoke(query),
        [
            document
            for document, _ in filled.similarity_search_with_relevance_scores(query, k=2, filter=where)
        ],
    ):
        assert ids(found) == ["b", "c"]
    for given in ({"ids": ["b"]}, {"group_by": "n"}, {"distinct": True}):
        with pytest.raises(ValueError, match=f"without {next(iter(given))}"):
            filled.similarity_search(query, filter=where, **given)
    assert [score for _, score in filled.similarity_search_with_score(query, filter=where)] == [0.0] * 3
    for nothing in ({}, {"filter": None}, {"filter": {}}):
        with pytest.raises(ValueError, match="empty"):
            filled.similarity_search(query, **nothing)
