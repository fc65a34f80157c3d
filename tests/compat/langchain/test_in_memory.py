"""What langchain-core demands of `InMemoryVectorStore` (its tests/unit_tests/vectorstores/test_in_memory.py)."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from late_interaction import FilterError
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids

WORDS = ["foo", "bar", "baz"]


async def test_the_nearest_comes_first_and_k_limits(store: LateInteractionVectorStore) -> None:
    await store.aadd_texts(["foo", "bar here", "bar"])
    assert [found.page_content for found in store.similarity_search("foo", k=1)] == ["foo"]
    found = await store.asimilarity_search("bar", k=2)
    assert {one.page_content for one in found} == {"bar", "bar here"}
    assert all(one.id for one in found)


async def test_scores_fall(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS)
    [(best, first), (_, second)] = await store.asimilarity_search_with_score("bar", k=2)
    assert best.page_content == "bar"
    assert first > second


async def test_ids_come_back_as_given_and_in_order(store: LateInteractionVectorStore) -> None:
    assert store.add_texts(WORDS, ids=["3", "1", "2"]) == ["3", "1", "2"]
    assert await store.aadd_texts(WORDS, ids=["4", "5", "6"]) == ["4", "5", "6"]
    assert sorted(ids(store.search_by_metadata())) == ["1", "2", "3", "4", "5", "6"]


async def test_a_document_of_a_known_id_replaces_the_other(store: LateInteractionVectorStore) -> None:
    store.add_documents([Document("foo", id="1"), Document("bar", id="2")])
    await store.aadd_documents([Document("baz", id="2", metadata={"key": "value"})])
    assert store.get_by_ids(["2"]) == [Document("baz", id="2", metadata={"key": "value"})]
    assert [found.id for found in store.similarity_search("baz", k=5)] == ["2", "1"]


async def test_get_by_ids_leaves_out_unknown_ones(store: LateInteractionVectorStore) -> None:
    documents = [Document(word, id=str(n), metadata={"n": n}) for n, word in enumerate(WORDS)]
    store.add_documents(documents)
    assert store.get_by_ids(["0", "1"]) == documents[:2]
    assert await store.aget_by_ids(["0", "2", "5"]) == [documents[0], documents[2]]
    assert store.get_by_ids([]) == []


async def test_mmr_gives_all_where_k_is_more_than_there_are(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo", "foo", "fou", "foy"])
    for found in (
        store.max_marginal_relevance_search("foo", k=10, lambda_mult=0.1),
        await store.amax_marginal_relevance_search("foo", k=10, lambda_mult=0.1),
    ):
        assert found[0].page_content == "foo"
        assert sorted(one.page_content for one in found) == ["foo", "foo", "fou", "foy"]


async def test_mmr_does_not_give_the_same_twice_before_another(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo", "foo", "fou", "foy"])
    found = store.max_marginal_relevance_search("foo", k=3, lambda_mult=0.1)
    assert found[0].page_content == "foo"
    assert {one.page_content for one in found} == {"foo", "fou", "foy"}


async def test_a_filter_that_nothing_matches_finds_nothing(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo", "bar"], [{"id": 1}, {"id": 2}])
    [found] = store.similarity_search("fee", filter={"id": 1})
    assert (found.page_content, found.metadata) == ("foo", {"id": 1})
    assert await store.asimilarity_search("baz", filter={"id": 3}) == []


def test_a_function_is_no_filter_and_is_refused(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo"], [{"id": 1}])
    with pytest.raises(FilterError, match="A filter is a mapping"):
        store.similarity_search("foo", filter=lambda document: document.metadata["id"] == 1)


async def test_a_store_made_anew_finds_what_was_kept(make_store: MakeStore) -> None:
    with make_store() as first:
        first.add_texts(WORDS, ids=["1", "2", "3"])
        before = first.similarity_search("foo", k=1)
    assert await make_store().asimilarity_search("foo", k=1) == before
