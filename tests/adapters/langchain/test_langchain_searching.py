"""The vector store beyond LangChain's own suite: reading and searching."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_lateint import LateInteractionVectorStore
from late_interaction import (
    FilterError,
)
from tests.adapters.langchain.stores import in_folder
from tests.adapters.langchain.texts import IDS, TEXTS, ids
from tests.support.models import HashModel

# --- reading


async def test_get_by_ids_in_the_order_asked_and_each_once(filled: LateInteractionVectorStore) -> None:
    asked = ["c", "missing", "a", "c", "b", "a"]
    assert ids(filled.get_by_ids(asked)) == ["c", "a", "b"]
    assert ids(await filled.aget_by_ids(asked)) == ["c", "a", "b"]
    assert filled.get_by_ids([]) == []


def test_get_many_by_ids(store: LateInteractionVectorStore) -> None:
    names = [f"id-{i}" for i in range(250)]
    store.add_texts([f"text {i}" for i in range(250)], ids=names)
    assert ids(store.get_by_ids(names[::-1])) == names[::-1]


async def test_search_by_metadata(filled: LateInteractionVectorStore) -> None:
    assert ids(filled.search_by_metadata({"colour": "red"})) == ["a", "b"]
    assert ids(await filled.asearch_by_metadata({"colour": "green"}, limit=1)) == ["c"]
    assert len(filled.search_by_metadata(limit=2)) == 2
    assert filled.search_by_metadata(limit=0) == []


FILTERS = [
    ({"colour": "red"}, "ab"),
    ({"n": {"$eq": 1}}, "a"),
    ({"n": {"$ne": 1}}, "bcd"),
    ({"n": {"$gt": 2}}, "cd"),
    ({"n": {"$gte": 2, "$lt": 4}}, "bc"),
    ({"n": {"$lte": 1}}, "a"),
    ({"colour": {"$in": ["red", "blue"]}}, "abd"),
    ({"colour": {"$nin": ["red", "blue"]}}, "c"),
    ({"score": {"$exists": True}}, "bc"),
    ({"score": {"$exists": False}}, "ad"),
    ({"score": None}, "acd"),
    ({"tags": "fruit"}, "ab"),
    ({"tags": ["fruit"]}, "b"),
    ({"author.name": "Ada"}, "a"),
    ({"deep": True}, "d"),
    ({"n": {"$not": {"$gt": 2}}}, "ab"),
    ({"$not": {"colour": "red"}}, "cd"),
    ({"$or": [{"n": 1}, {"colour": "blue"}]}, "ad"),
    ({"$and": [{"colour": "red"}, {"$or": [{"n": 2}, {"n": 3}]}]}, "b"),
    ({"n": 99}, ""),
]


@pytest.mark.parametrize(("filter", "expected"), FILTERS, ids=[str(f) for f, _ in FILTERS])
async def test_every_search_keeps_to_the_filter(
    filled: LateInteractionVectorStore, filter: dict[str, Any], expected: str
) -> None:
    vector = HashModel().word("apple")
    everything = {"k": 4, "filter": filter}
    found = [
        filled.search_by_metadata(filter),
        filled.similarity_search("apple", **everything),
        await filled.asimilarity_search("apple", **everything),
        [document for document, _ in filled.similarity_search_with_relevance_scores("apple", **everything)],
        [document for document, _ in filled.similarity_search_with_embeddings("apple", **everything)],
        filled.similarity_search_by_vector(vector, **everything),
        filled.max_marginal_relevance_search("apple", **everything),
        await filled.amax_marginal_relevance_search_by_vector(vector, **everything),
    ]
    assert [sorted(map(str, ids(documents))) for documents in found] == [list(expected)] * len(found)


def test_a_filter_that_is_not_well_formed(filled: LateInteractionVectorStore) -> None:
    with pytest.raises(FilterError, match="gt"):
        filled.similarity_search("apple", filter={"n": {"gt": 1}})


# --- searching


def test_scores_are_raw_maxsim(filled: LateInteractionVectorStore) -> None:
    found = filled.similarity_search_with_score("red apple", k=2)
    assert found[0][0].id == "a"
    assert found[0][1] == pytest.approx(2, abs=0.02)
    assert found[0][1] > found[1][1]


async def test_relevance_is_from_0_to_1(filled: LateInteractionVectorStore) -> None:
    found = filled.similarity_search_with_relevance_scores("red apple", k=4)
    assert found == await filled.asimilarity_search_with_relevance_scores("red apple", k=4)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1, abs=0.01)
    assert all(0 <= score <= 1 for score in scores)
    raw = filled.similarity_search_with_score("red apple", k=4)
    assert scores == pytest.approx([min(1, (score / 2 + 1) / 2) for _, score in raw])


async def test_score_threshold(filled: LateInteractionVectorStore) -> None:
    found = filled.similarity_search_with_relevance_scores("red apple", score_threshold=0.95)
    assert [document.id for document, _ in found] == ["a"]
    assert found == await filled.asimilarity_search_with_relevance_scores("red apple", score_threshold=0.95)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda score, n_tokens: score / (10 * n_tokens), 0.1),
        (lambda score: score / 4, 0.5),
        (lambda score, digits=1: score / 4, 0.5),
        (math.tanh, math.tanh(2)),
        (float, 2.0),
    ],
)
async def test_relevance_of_ones_own(tmp_path: Path, function: Any, expected: float) -> None:
    with in_folder(tmp_path, relevance_score_fn=function) as store:
        store.add_texts(["one two"])
        for found in (
            store.similarity_search_with_relevance_scores("one two"),
            await store.asimilarity_search_with_relevance_scores("one two"),
        ):
            assert found[0][1] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("function", [lambda: 1, lambda a, b, c: a, lambda *, score: score, "cosine"])
def test_a_relevance_function_that_cannot_be_called_is_refused_at_once(tmp_path: Path, function: Any) -> None:
    with pytest.raises(TypeError, match="relevance_score_fn"):
        in_folder(tmp_path, relevance_score_fn=function)


async def test_by_vector_as_by_text(filled: LateInteractionVectorStore) -> None:
    matrix = HashModel().encode_queries(["red apple"])[0]
    by_text = filled.similarity_search_with_score("red apple")
    for vectors in (matrix, matrix.tolist(), 7 * matrix):
        assert filled.similarity_search_by_vector(vectors) == [document for document, _ in by_text]
        by_vector = filled.similarity_search_with_score_by_vector(vectors)
        assert [d for d, _ in by_vector] == [d for d, _ in by_text]
        assert [s for _, s in by_vector] == pytest.approx([s for _, s in by_text], abs=1e-4)
        assert by_vector == await filled.asimilarity_search_with_score_by_vector(vectors)
    assert ids(filled.similarity_search_by_vector(HashModel().word("sea").tolist(), k=1)) == ["d"]
    assert ids(await filled.asimilarity_search_by_vector(HashModel().word("sea"), k=1)) == ["d"]


@pytest.mark.parametrize(
    "wrong",
    [[1.0, 2.0], [[1.0], [1.0, 2.0]], ["red"], np.zeros(32), np.full((2, 32), np.nan), np.empty((0, 32))],
)
def test_vectors_that_are_none(filled: LateInteractionVectorStore, wrong: Any) -> None:
    with pytest.raises(ValueError, match="vectors must"):
        filled.similarity_search_by_vector(wrong)


async def test_with_embeddings(filled: LateInteractionVectorStore) -> None:
    found = filled.similarity_search_with_embeddings("sea wave", k=2)
    again = await filled.asimilarity_search_with_embeddings("sea wave", k=2)
    assert [document.id for document, _ in found] == [document.id for document, _ in again]
    assert found[0][1].shape == (4, 32)
    assert np.allclose(found[0][1], HashModel().encode_documents([TEXTS[3]])[0], atol=0.02)


def test_the_searchs_own_arguments(filled: LateInteractionVectorStore) -> None:
    assert ids(filled.similarity_search("sea", k=1, exact=True, n_ann_tokens=5, n_maxsim_candidates=2)) == [
        "d"
    ]
    for search in (filled.similarity_search, filled.max_marginal_relevance_search):
        with pytest.raises(TypeError, match=r"does not take score_treshold; it takes k, filter, "):
            search("sea", score_treshold=0.5)
    with pytest.raises(ValueError, match="k must be"):
        filled.similarity_search("sea", k=0)
    with pytest.raises(ValueError, match="empty"):
        filled.similarity_search(" ")


NEAR_COPIES = ["red apple pie", "red apple pie cake", "red apple pie tart", "apple juice", "green sea"]


async def test_mmr_finds_what_differs(store: LateInteractionVectorStore) -> None:
    store.add_texts(NEAR_COPIES, ids=[*IDS, "e"])
    query = "red apple pie"
    assert set(ids(store.similarity_search(query, k=3))) == {"a", "b", "c"}
    diverse = store.max_marginal_relevance_search(query, k=3, lambda_mult=0.3)
    assert ids(diverse)[0] == "a"
    assert len(set(ids(diverse)) & {"a", "b", "c"}) == 1
    assert diverse == await store.amax_marginal_relevance_search(query, k=3, lambda_mult=0.3)
    assert set(ids(store.max_marginal_relevance_search(query, k=3, lambda_mult=1.0))) == {"a", "b", "c"}
    assert set(ids(store.max_marginal_relevance_search(query, k=3, fetch_k=3, lambda_mult=0))) == {
        "a",
        "b",
        "c",
    }
    matrix = HashModel().encode_queries([query])[0]
    assert store.max_marginal_relevance_search_by_vector(matrix, k=3, lambda_mult=0.3) == diverse
    assert await store.amax_marginal_relevance_search_by_vector(matrix, k=3, lambda_mult=0.3) == diverse
    scores = {d.id: score for d, score in store.similarity_search_with_score(query, k=5)}
    for given in (query, matrix):
        scored = store.max_marginal_relevance_search_with_score(given, k=3, lambda_mult=0.3)
        assert [document for document, _ in scored] == diverse
        assert [score for _, score in scored] == pytest.approx([scores[d.id] for d in diverse], abs=1e-4)
        assert scored == await store.amax_marginal_relevance_search_with_score(given, k=3, lambda_mult=0.3)


def test_mmr_of_an_empty_store_and_wrong_arguments(store: LateInteractionVectorStore) -> None:
    assert store.max_marginal_relevance_search("apple") == []
    with pytest.raises(ValueError, match="lambda_mult"):
        store.max_marginal_relevance_search("apple", lambda_mult=2)


async def test_ids_and_vectors_may_be_any_iterable(filled: LateInteractionVectorStore) -> None:
    """What is iterated twice is empty the second time."""
    assert ids(filled.similarity_search("apple", ids=map(str, ["b"]))) == ["b"]
    assert ids(await filled.asimilarity_search("apple", ids=(one for one in "bc"))) != []
    assert ids(filled.max_marginal_relevance_search("apple", ids=iter(["b"]))) == ["b"]
    assert ids(filled.get_by_ids(iter(["b", "b"]))) == ["b"]  # type: ignore[arg-type]
    vectors = np.eye(2, filled.pipeline.model.dim, dtype=np.float32)
    filled.add_embeddings(iter(["e", "f"]), (row for row in vectors), ids=["5", "6"])  # type: ignore[arg-type]
    assert ids(filled.get_by_ids([5, "5"])) == ["5"]  # type: ignore[list-item]
