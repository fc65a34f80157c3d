"""What langchain-chroma demands of `Chroma` (its tests/integration_tests/test_vectorstores.py)."""

from __future__ import annotations

import numpy as np
import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from late_interaction import IndexNotFoundError
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids
from tests.support.models import HashModel

WORDS = ["foo", "bar", "baz"]
PAGES = [{"page": "0"}, {"page": "1"}, {"page": "2"}]
IDS = ["id_0", "id_1", "id_2"]


@pytest.mark.parametrize("given", [{}, {"ids": IDS}, {"metadatas": PAGES}, {"ids": IDS, "metadatas": PAGES}])
async def test_from_texts(store: LateInteractionVectorStore, given: dict) -> None:
    made = LateInteractionVectorStore.from_texts(WORDS, pipeline=store.pipeline, **given)
    for [found] in (made.similarity_search("foo", k=1), await made.asimilarity_search("foo", k=1)):
        assert found.page_content == "foo"
        assert found.metadata == ({"page": "0"} if "metadatas" in given else {})
        assert found.id == "id_0" if "ids" in given else found.id


def test_the_score_of_the_text_itself_is_the_best_there_is(store: LateInteractionVectorStore) -> None:
    """Chroma's is a distance, 0; ours is a similarity, 1 for each token of the query."""
    store.add_texts(WORDS, PAGES, IDS)
    [(found, score)] = store.similarity_search_with_score("foo", k=1)
    assert found == Document("foo", metadata={"page": "0"}, id="id_0")
    assert score == pytest.approx(1, abs=0.01)
    [(by_vector, score)] = store.similarity_search_by_vector_with_relevance_scores(
        HashModel().word("foo"), k=1
    )
    assert by_vector == found
    assert score == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("letter", "text"), [("f", "far"), ("b", "bar")])
def test_filters_with_and_without_scores(store: LateInteractionVectorStore, letter: str, text: str) -> None:
    store.add_texts(["far", "bar"], [{"first_letter": "f"}, {"first_letter": "b"}])
    [found] = store.similarity_search("far", k=1, filter={"first_letter": letter})
    assert (found.page_content, found.metadata) == (text, {"first_letter": letter})
    assert store.similarity_search_with_score("far", k=1, filter={"first_letter": letter})[0][0] == found


def test_columns_with_and_without_vectors(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES, IDS)
    found = store.get()
    assert found["embeddings"] is None
    assert sorted(zip(found["ids"], found["documents"], strict=True)) == list(zip(IDS, WORDS, strict=True))
    with_vectors = store.get(where={"page": "1"}, include=["embeddings"])
    assert (with_vectors["ids"], with_vectors["documents"]) == (["id_1"], None)
    np.testing.assert_allclose(with_vectors["embeddings"], [[HashModel().word("bar")]], atol=0.01)


def test_results_with_their_vectors(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES)
    [(found, vectors)] = store.similarity_search_with_vectors("foo", k=1)
    assert found.page_content == "foo"
    np.testing.assert_allclose(vectors, [HashModel().word("foo")], atol=0.01)


def test_what_is_written_is_there_after_closing(make_store: MakeStore) -> None:
    with make_store() as first:
        first.add_texts(WORDS, ids=IDS)
        assert first.similarity_search("foo", k=1) == [Document("foo", id="id_0")]
    assert make_store().similarity_search("foo", k=1) == [Document("foo", id="id_0")]


def test_mmr_by_text_and_by_vector(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS)
    for found in (
        store.max_marginal_relevance_search("foo", k=1),
        store.max_marginal_relevance_search_by_vector(HashModel().word("foo"), k=1),
    ):
        assert [one.page_content for one in found] == ["foo"]


@pytest.mark.parametrize("own_id", [None, "doc1"])
def test_an_updated_document_is_found_by_its_new_text(
    store: LateInteractionVectorStore, own_id: str | None
) -> None:
    store.add_documents([Document("foo", metadata={"page": "0"}, id=own_id)], ids=["doc1"])
    store.update_document("doc1", Document("updated text", metadata={"page": "1"}, id=own_id))
    updated = Document("updated text", metadata={"page": "1"}, id="doc1")
    assert store.similarity_search("updated text", k=5) == [updated]
    assert store.similarity_search_with_score("updated text")[0][1] == pytest.approx(2, abs=0.01)


def test_many_documents_are_updated_at_once(store: LateInteractionVectorStore) -> None:
    numbers = [str(n) for n in range(130)]
    store.add_texts(["a test document"] * 130, ids=numbers)
    store.update_documents(numbers[:120], [Document("a new one", metadata={"n": n}) for n in range(120)])
    assert len(store.search_by_metadata({"n": {"$exists": True}})) == 120
    assert len(store.search_by_metadata()) == 130


def test_a_relevance_function_of_one_number(make_store: MakeStore) -> None:
    made = make_store(relevance_score_fn=lambda distance: distance * 0)
    made.add_texts(WORDS, PAGES, IDS)
    found = made.similarity_search_with_relevance_scores("foo", k=3)
    assert sorted((document.id, score) for document, score in found) == [(one, 0.0) for one in IDS]


def test_documents_with_and_without_metadata(store: LateInteractionVectorStore) -> None:
    documents = [Document("foo", id="0"), Document("bar", metadata={"baz": 1}, id="1")]
    assert store.add_documents(documents) == ["0", "1"]
    assert sorted(store.similarity_search("foo bar"), key=lambda one: str(one.id)) == documents


def test_a_deleted_collection_is_gone_and_may_be_made_anew(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, ids=IDS)
    store.delete_collection()
    assert store.get_by_ids(IDS) == []
    store.add_texts(["new"])
    assert [one.page_content for one in store.similarity_search("foo", k=5)] == ["new"]


def test_a_collection_that_is_reset_is_empty(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS)
    store.reset_collection()
    assert store.search_by_metadata() == store.similarity_search("foo") == []


def test_delete_what_a_filter_finds(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo", "bar"], [{"test": "bar"}, {"test": "foo"}])
    store.delete(filter={"test": "bar"})
    assert [one.page_content for one in store.search_by_metadata()] == ["bar"]


def test_a_search_by_what_the_text_contains(store: LateInteractionVectorStore) -> None:
    store.add_texts(["foo and bar", "foo", "baz"], ids=IDS)
    found = store.similarity_search("foo", k=5, filter={"$content": {"$contains": "bar"}})
    assert ids(found) == ["id_0"]


def test_pages_of_documents(store: LateInteractionVectorStore) -> None:
    store.add_texts([f"text {n}" for n in range(5)], ids=[str(n) for n in range(5)])
    pages = [ids(store.search_by_metadata(limit=2, offset=offset)) for offset in (0, 2, 4)]
    assert sorted(one for page in pages for one in page) == ["0", "1", "2", "3", "4"]
    assert [len(page) for page in pages] == [2, 2, 1]


@pytest.mark.parametrize("there", [True, False])
def test_a_collection_that_must_exist(make_store: MakeStore, there: bool) -> None:
    if there:
        make_store().add_texts(WORDS)
        assert len(make_store(must_exist=True).similarity_search("foo")) == 3
    else:
        with pytest.raises(IndexNotFoundError):
            make_store(must_exist=True).similarity_search("foo")
