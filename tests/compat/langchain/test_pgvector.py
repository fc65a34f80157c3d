"""What langchain-postgres demands of `PGVector` and `PGVectorStore` (its tests/unit_tests)."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids
from tests.support.models import HashModel

PLANTS: list[dict[str, Any]] = [
    {
        "name": "Red Beech",
        "code": "RB1",
        "n": 1,
        "height": 30.5,
        "evergreen": False,
        "since": "1999-04-01",
        "tags": ["tree", "hedge"],
        "soil": {"kind": "loam"},
    },
    {
        "name": "Scots Pine",
        "code": "SP2",
        "n": 2,
        "height": 35.0,
        "evergreen": True,
        "since": "2001-10-12",
        "tags": ["tree", "resin"],
        "spread": 7,
    },
    {
        "name": "Box",
        "code": "BX3",
        "n": 3,
        "height": 4.25,
        "evergreen": True,
        "since": "2001-10-12",
        "tags": ["hedge"],
        "spread": None,
    },
]
ALL = {1, 2, 3}

OF_FIELDS: list[tuple[dict[str, Any], set[int]]] = [
    ({"n": 1}, {1}),
    ({"name": "Box"}, {3}),
    ({"evergreen": True}, {2, 3}),
    ({"evergreen": False}, {1}),
    ({"n": 1, "evergreen": False}, {1}),
    ({"n": 1, "evergreen": True}, set()),
    ({"n": {"$eq": 2}}, {2}),
    ({"n": {"$ne": 1}}, {2, 3}),
    ({"n": {"$gt": 1}}, {2, 3}),
    ({"n": {"$gte": 1}}, ALL),
    ({"n": {"$lt": 1}}, set()),
    ({"n": {"$lte": 1}}, {1}),
    ({"name": {"$eq": "Box"}}, {3}),
    ({"name": {"$ne": "Box"}}, {1, 2}),
    ({"name": {"$gt": "Scots Pine"}}, set()),
    ({"name": {"$gte": "Scots Pine"}}, {2}),
    ({"name": {"$lt": "Scots Pine"}}, {1, 3}),
    ({"name": {"$lte": "Scots Pine"}}, ALL),
    ({"since": {"$gte": "2000-01-01"}}, {2, 3}),
    ({"evergreen": {"$eq": True}}, {2, 3}),
    ({"evergreen": {"$ne": True}}, {1}),
    ({"height": {"$gt": 5.0}}, {1, 2}),
    ({"height": {"$gte": 30.5}}, {1, 2}),
    ({"height": {"$lt": 5.0}}, {3}),
    ({"height": {"$lte": 30.5}}, {1, 3}),
    ({"name": {"$in": ["Box", "Red Beech"]}}, {1, 3}),
    ({"n": {"$in": [1, 2]}}, {1, 2}),
    ({"name": {"$nin": ["Box", "Red Beech"]}}, {2}),
    ({"n": {"$nin": [1, 2]}}, {3}),
    ({"spread": {"$exists": False}}, {1}),
    ({"spread": {"$exists": True}}, {2, 3}),
    ({"tags": {"$exists": False}}, set()),
    ({"soil.kind": "loam"}, {1}),
]
OF_FILTERS: list[tuple[dict[str, Any], set[int]]] = [
    ({"$or": [{"n": 1}, {"n": 2}]}, {1, 2}),
    ({"$or": [{"n": 1}, {"name": "Box"}]}, {1, 3}),
    ({"$or": [{"n": 1}, {"n": 2}, {"n": 3}]}, ALL),
    ({"$and": [{"n": 1}, {"n": 2}]}, set()),
    ({"$not": {"n": 1}}, {2, 3}),
    ({"$not": {"name": "Box"}}, {1, 2}),
    ({"$not": {"evergreen": True}}, {1}),
    ({"$not": {"height": {"$gt": 5.0}}}, {3}),
]
OF_A_LIST_AFTER_NOT: list[tuple[dict[str, Any], set[int]]] = [
    ({"$not": [{"n": 1}]}, {2, 3}),
    ({"$not": [{"name": "Box"}]}, {1, 2}),
    ({"$not": [{"evergreen": True}]}, {1}),
    ({"$not": [{"height": {"$gt": 5.0}}]}, {3}),
]
BETWEEN: list[tuple[dict[str, Any], set[int]]] = [
    ({"n": {"$between": (1, 2)}}, {1, 2}),
    ({"n": {"$between": [1, 1]}}, {1}),
    ({"height": {"$between": (4.25, 30.5)}}, {1, 3}),
]
OF_PATTERNS: list[tuple[dict[str, Any], set[int]]] = [
    ({"name": {"$like": "Red%"}}, {1}),
    ({"name": {"$like": "%o%"}}, {2, 3}),
    ({"name": {"$like": "red%"}}, set()),
    ({"name": {"$ilike": "red%"}}, {1}),
    ({"$or": [{"code": {"$like": "RB_"}}, {"code": {"$like": "SP_"}}]}, {1, 2}),
]
NO_FILTERS: list[Any] = [
    {"$nor": [{"n": 1}, {"n": 2}]},
    {"$and": {"evergreen": True}},
    {"evergreen": {"$and": True}},
    {"evergreen": {"name": "Box", "code": "BX3"}},
    {"evergreen": {"code": "BX3"}},
    {"two words": {"$and": True}},
    {"$and": {}},
    {"$and": []},
    {"$not": True},
]


def shown(case: Any) -> str:
    return str(case)


@pytest.fixture(scope="module")
def plants(make: MakeStore, engine: str) -> LateInteractionVectorStore:
    store: LateInteractionVectorStore = make(engine)
    store.add_texts([f"plant number {one['n']}" for one in PLANTS], PLANTS)
    return store


@pytest.mark.parametrize(
    ("filter", "expected"),
    [*OF_FIELDS, *OF_FILTERS, *OF_A_LIST_AFTER_NOT, *BETWEEN, *OF_PATTERNS],
    ids=shown,
)
async def test_what_filters_mean(
    plants: LateInteractionVectorStore, filter: dict[str, Any], expected: set[int]
) -> None:
    for found in (
        plants.similarity_search("plant", k=5, filter=filter),
        await plants.asimilarity_search("plant", k=5, filter=filter),
        plants.search_by_metadata(filter),
    ):
        assert {one.metadata["n"] for one in found} == expected


@pytest.mark.parametrize("filter", NO_FILTERS, ids=shown)
async def test_what_is_no_filter_is_a_value_error(plants: LateInteractionVectorStore, filter: Any) -> None:
    with pytest.raises(ValueError):
        plants.similarity_search("plant", filter=filter)
    with pytest.raises(ValueError):
        await plants.asimilarity_search("plant", filter=filter)


WORDS = ["foo", "bar", "baz"]
PAGES = [{"page": "0"}, {"page": "1"}, {"page": "2"}]


async def test_a_filter_may_leave_only_what_is_far(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES)
    [(near, high)] = store.similarity_search_with_score("foo", k=1, filter={"page": "0"})
    [(far, low)] = await store.asimilarity_search_with_score("foo", k=1, filter={"page": "2"})
    assert (near.page_content, far.page_content) == ("foo", "baz")
    assert high > low
    assert store.similarity_search_with_score("foo", k=1, filter={"page": "5"}) == []


async def test_vectors_made_elsewhere(store: LateInteractionVectorStore) -> None:
    pairs = [(word, HashModel().word(word).tolist()) for word in WORDS]
    made = LateInteractionVectorStore.from_embeddings(pairs, pipeline=store.pipeline)
    assert [one.page_content for one in made.similarity_search("foo", k=1)] == ["foo"]
    assert [one.page_content for one in await made.asimilarity_search("bar", k=1)] == ["bar"]


async def test_unknown_ids_may_be_deleted(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES, ["1", "2", "3"])
    store.delete(["1", "2"])
    assert ids(store.search_by_metadata()) == ["3"]
    await store.adelete(["2", "3"])
    assert store.search_by_metadata() == []


@pytest.mark.parametrize(
    "of",
    [str, int],
)
async def test_a_document_added_again_is_overwritten(store: LateInteractionVectorStore, of: type) -> None:
    documents = [Document(f"text {n}", metadata={"n": n, "place": "pond"}, id=str(n)) for n in range(1, 6)]
    store.add_documents(documents, ids=[of(one.metadata["n"]) for one in documents])
    zoo = Document("new in the zoo", metadata={"n": 1, "place": "zoo"}, id="1")
    assert await store.aadd_documents([zoo], ids=[of(1)]) == ["1"]
    assert sorted(ids(store.search_by_metadata())) == ["1", "2", "3", "4", "5"]
    assert store.get_by_ids(["1"]) == [zoo]


async def test_relevance_of_the_text_itself_is_1(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES)
    for found in (
        store.similarity_search_with_relevance_scores("foo", k=3),
        await store.asimilarity_search_with_relevance_scores("foo", k=3),
    ):
        scores = [score for _, score in found]
        assert found[0][0].page_content == "foo"
        assert scores[0] == pytest.approx(1, abs=0.01)
        assert scores == sorted(scores, reverse=True)


async def test_a_retriever_with_a_threshold(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS, PAGES)
    retriever = store.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 3, "score_threshold": 0.99}
    )
    for found in (retriever.invoke("foo"), await retriever.ainvoke("foo")):
        assert [one.page_content for one in found] == ["foo"]


async def test_a_relevance_function_decides_about_the_threshold(make_store: MakeStore) -> None:
    made = make_store(relevance_score_fn=lambda distance: distance * 0)
    made.add_texts(WORDS)
    retriever = made.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"k": 3, "score_threshold": 0.5}
    )
    assert retriever.invoke("foo") == await retriever.ainvoke("foo") == []


async def test_mmr_with_scores(store: LateInteractionVectorStore) -> None:
    store.add_texts(WORDS)
    for [(found, score)] in (
        store.max_marginal_relevance_search_with_score("foo", k=1, fetch_k=3),
        await store.amax_marginal_relevance_search_with_score("foo", k=1, fetch_k=3),
    ):
        assert found.page_content == "foo"
        assert score == pytest.approx(1, abs=0.01)


def test_metadata_given_are_not_changed(store: LateInteractionVectorStore) -> None:
    metadatas = [{"tags": ["a"], "inner": {"n": 1}}]
    documents = [Document("foo", metadata=metadatas[0])]
    store.add_texts(["foo"], metadatas)
    store.add_documents(documents)
    assert metadatas == [{"tags": ["a"], "inner": {"n": 1}}]
    assert documents == [Document("foo", metadata={"tags": ["a"], "inner": {"n": 1}})]
