"""What langchain-qdrant demands of `QdrantVectorStore` (its tests/integration_tests/qdrant_vector_store)."""

from __future__ import annotations

import uuid

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from langchain_lateint import LateInteractionVectorStore
from late_interaction import IndexMismatchError
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids
from tests.support.models import HashModel

WORDS = ["foo", "bar", "baz"]
NESTED = [{"page": n, "details": {"page": n + 1, "pages": [n + 2, -1]}} for n in range(3)]


@pytest.mark.parametrize("batch_size", [1, 64])
def test_more_documents_extend_a_collection(store: LateInteractionVectorStore, batch_size: int) -> None:
    assert len(set(store.add_texts(WORDS, batch_size=batch_size))) == 3
    added = store.add_documents([Document("foobar"), Document("foobaz")], batch_size=batch_size)
    assert [one.page_content for one in store.get_by_ids(added)] == ["foobar", "foobaz"]
    assert store.similarity_search("foobar", k=1)[0].page_content == "foobar"
    assert len(store.search_by_metadata()) == 5


async def test_equal_texts_are_documents_of_their_own(store: LateInteractionVectorStore) -> None:
    assert len(set(store.add_texts(["abc", "abc"], [{"n": 1}, {"n": 2}]))) == 2
    assert len(set(await store.aadd_texts(["abc", "abc"], [{"n": 3}, {"n": 4}]))) == 2
    assert len(store.search_by_metadata()) == 4


async def test_ids_may_be_integers_and_uuids(store: LateInteractionVectorStore) -> None:
    given = ["fa38d572-4c31-4579-aedc-1960d79df6df", 432, uuid.UUID(int=7)]
    expected = ["fa38d572-4c31-4579-aedc-1960d79df6df", "432", str(uuid.UUID(int=7))]
    assert store.add_texts(WORDS, ids=given) == expected
    assert ids(store.get_by_ids(given)) == ids(await store.aget_by_ids(given)) == expected
    store.delete(given[:2])
    await store.adelete(given[2:])
    assert store.search_by_metadata() == []


def test_a_second_store_adds_to_the_same_collection(make_store: MakeStore) -> None:
    with make_store() as first:
        first.add_texts(["lorem", "ipsum", "dolor", "sit", "amet"])
    with make_store() as second:
        second.add_texts(["foo", "bar"])
        assert len(second.search_by_metadata()) == 7


@pytest.mark.parametrize("other", [HashModel(dim=16), HashModel(name="another")])
def test_another_size_or_model_is_refused(make_store: MakeStore, other: HashModel) -> None:
    with make_store() as first:
        first.add_texts(WORDS)
    with pytest.raises(IndexMismatchError):
        make_store("one", model=other).add_texts(["foo"])
    make_store()  # The one that is dropped afterwards has the right model.


def test_the_embeddings_are_those_given(make_store: MakeStore) -> None:
    embeddings = DeterministicFakeEmbedding(size=8)
    assert make_store("dense", model=embeddings).embeddings is embeddings
    assert make_store("late").embeddings is None


async def test_by_vector_with_a_score(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS)
    vector = HashModel().word("foo").tolist()
    for [(found, score)] in (
        store.similarity_search_with_score_by_vector(vector, k=1),
        await store.asimilarity_search_with_score_by_vector(vector, k=1),
    ):
        assert found.page_content == "foo"
        assert score >= 0


@pytest.mark.parametrize(
    "filter",
    [
        {"page": 1},
        {"details.page": 2},
        {"details.pages": {"$in": [3]}},
        {"page": 1, "details.page": 2, "details.pages": {"$in": [3]}},
    ],
)
def test_filters_reach_into_what_is_nested(store: LateInteractionVectorStore, filter: dict) -> None:
    store.add_texts(WORDS, NESTED)
    [found] = store.similarity_search("foo", k=1, filter=filter)
    assert (found.page_content, found.metadata) == ("bar", NESTED[1])


async def test_relevance_is_between_0_and_1(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, NESTED)
    for found in (
        store.similarity_search_with_relevance_scores("foo", k=3, score_threshold=None),
        await store.asimilarity_search_with_relevance_scores("foo", k=3),
    ):
        assert len(found) == 3
        assert all(0 <= round(score, 2) <= 1 for _, score in found)


@pytest.mark.parametrize(("filter", "n"), [(None, 1), ({"page": 0}, 1), ({"page": 1}, 0)])
def test_a_threshold_leaves_what_is_almost_equal(
    store: LateInteractionVectorStore, filter: dict | None, n: int
) -> None:
    store.add_texts(WORDS, NESTED)
    found = store.similarity_search_with_relevance_scores("foo", k=3, filter=filter, score_threshold=0.99)
    assert len(found) == n
    assert all(score >= 0.99 for _, score in found)


async def test_mmr_with_a_filter(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, [{"page": n} for n in range(3)])
    for found in (
        store.max_marginal_relevance_search("foo", k=2, fetch_k=3, lambda_mult=0.0),
        await store.amax_marginal_relevance_search("foo", k=2, fetch_k=3, lambda_mult=0.0),
    ):
        assert len(found) == 2
        assert found[0].page_content == "foo"
    [found] = store.max_marginal_relevance_search("foo", k=2, fetch_k=3, filter={"page": 2})
    assert found.page_content == "baz"


async def test_deleted_documents_are_gone(store: LateInteractionVectorStore) -> None:
    given = store.add_texts(WORDS)
    assert await store.adelete([given[1]])
    assert ids(store.search_by_metadata()) == [given[0], given[2]]
    assert await store.adelete(given)
    assert store.search_by_metadata() == []


def test_a_retriever_has_tags_and_k(store: LateInteractionVectorStore) -> None:
    store.add_texts(["Python programming", "Machine learning", "Data analysis"])
    retriever = store.as_retriever(search_kwargs={"k": 1})
    assert "LateInteractionVectorStore" in (retriever.tags or ())
    assert [one.page_content for one in retriever.invoke("programming")] == ["Python programming"]
