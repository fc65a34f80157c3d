"""The vector store beyond LangChain's own suite."""

from __future__ import annotations

import copy
import inspect
import math
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, aindex, index

import langchain_lateint
from langchain_lateint import EmbeddingsModel, LateInteractionVectorStore
from late_interaction import (
    DocumentError,
    FilterError,
    IndexMismatchError,
    StoreError,
    SyncPipeline,
)
from tests.adapters.langchain.texts import IDS, TEXTS, ids
from tests.support.failing import FailsAtItsThirdWrite
from tests.support.models import HashModel

METADATAS: list[dict[str, Any]] = [
    {"n": 1, "colour": "red", "tags": ["fruit", "x"], "author": {"name": "Ada"}},
    {"n": 2, "colour": "red", "tags": ["fruit"], "score": 0.5},
    {"n": 3, "colour": "green", "tags": [], "score": None},
    {"n": 4, "colour": "blue", "deep": True},
]


def in_folder(folder: Path, **options: Any) -> LateInteractionVectorStore:
    return LateInteractionVectorStore(
        **({"model": HashModel(), "path": folder, "doc_pool_factor": 1} | options)
    )


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    store.add_texts(TEXTS, METADATAS, ids=IDS)
    return store


# --- writing


def test_a_document_that_shrinks_leaves_no_stale_tokens(store: LateInteractionVectorStore) -> None:
    store.add_texts(["one two three four"], ids=["a"])
    before = store.similarity_search_with_score("four")[0][1]
    assert store.add_texts(["one"], ids=["a"]) == ["a"]
    after = store.similarity_search_with_score("four")[0][1]
    assert before == pytest.approx(1, abs=0.02)
    assert after < 0.9
    [(document, matrix)] = store.similarity_search_with_embeddings("four")
    assert (document.page_content, matrix.shape) == ("one", (1, 32))


def test_of_the_same_id_in_one_call_the_last_wins(store: LateInteractionVectorStore) -> None:
    assert store.add_texts(["one", "two", "three"], ids=["a", "b", "a"]) == ["a", "b", "a"]
    assert [d.page_content for d in store.get_by_ids(["a", "b"])] == ["three", "two"]


def test_of_the_same_id_in_two_batches_the_last_wins(store: LateInteractionVectorStore) -> None:
    store.add_texts(["one", "two", "three"], ids=["a", "b", "a"], batch_size=1)
    assert sorted(d.page_content for d in store.search_by_metadata()) == ["three", "two"]


async def test_texts_that_are_cut_are_named_with_the_ids(make_store: Any) -> None:
    store = make_store(model=HashModel(limit=2))
    assert store.add_texts(["one two three", "one"], ids=["a", "b"]).truncated == {"a": None}
    documents = [Document("one two three", id="c")]
    assert (await store.aadd_documents(documents)).truncated == {"c": None}  # type: ignore[attr-defined]


def test_ids_may_be_left_to_us_one_by_one(store: LateInteractionVectorStore) -> None:
    given, made = store.add_texts(["one", "two"], ids=["a", None])
    assert given == "a"
    assert [d.page_content for d in store.get_by_ids([made])] == ["two"]


def test_metadata_keep_their_types_and_any_name(store: LateInteractionVectorStore) -> None:
    metadata = {
        "id": 1,
        "content": "x",
        "doc_id": None,
        "content_type": 1.5,
        "list": [1, {"a": True}],
        "": "e",
    }
    store.add_texts(["one"], [metadata], ids=["a"])
    assert store.get_by_ids(["a"])[0].metadata == metadata
    assert ids(store.search_by_metadata({"content": "x", "id": 1})) == ["a"]


def test_documents_given_are_not_changed(store: LateInteractionVectorStore) -> None:
    documents = [Document("one", metadata={"a": [1]}), Document("two", id="b")]
    before = copy.deepcopy(documents)
    store.add_documents(documents)
    assert documents == before


@pytest.mark.parametrize("wrong", [{"metadatas": [{}]}, {"ids": ["a"]}, {"ids": []}, {"metadatas": []}])
async def test_as_many_metadatas_and_ids_as_texts(store: LateInteractionVectorStore, wrong: Any) -> None:
    with pytest.raises(ValueError, match="there are 2 texts, but"):
        store.add_texts(["one", "two"], **wrong)
    with pytest.raises(ValueError, match="there are 2 texts, but"):
        await store.aadd_texts(["one", "two"], **wrong)
    assert store.search_by_metadata() == []


def test_arguments_may_be_of_any_iterable(store: LateInteractionVectorStore) -> None:
    texts, metadatas, names = iter(["one", "two"]), iter([{"n": 1}, None]), iter("ab")
    assert store.add_texts(texts, metadatas, ids=names) == ["a", "b"]  # type: ignore[arg-type]
    assert [d.metadata for d in store.get_by_ids(iter("ab"))] == [{"n": 1}, {}]  # type: ignore[arg-type]
    assert store.delete({"a"}) is True  # type: ignore[arg-type]
    assert ids(store.search_by_metadata()) == ["b"]


@pytest.mark.parametrize(
    ("method", "arguments", "said"),
    [
        ("add_texts", ["hello"], "texts must be a list, not a bare str: 'hello'"),
        ("add_texts", [["one"], {"n": 1}], "metadatas must be a list, not a bare dict"),
        ("add_texts", [["one", "two"], ["m", {}]], r"metadatas\[0\] must be a mapping, not str"),
        ("add_documents", [["one"]], "got str; use add_texts for texts"),
        ("add_documents", [Document("one")], "got tuple"),
        ("update_documents", ["ab", [Document("one"), Document("two")]], "ids must be a list"),
        ("update_metadata", [["a"]], "{id: {key: value}}"),
        ("update_metadata", [{"a": "red"}], "{id: {key: value}}"),
        ("delete", ["ab"], "ids must be a list, not a bare str: 'ab'"),
        ("delete", [{"n": 1}], "ids must be a list, not a bare dict"),
        ("get_by_ids", ["ab"], "ids must be a list, not a bare str: 'ab'"),
        ("similarity_search", [{"question": "apple"}], r"not dict\. In a chain, .* itemgetter"),
        ("max_marginal_relevance_search", [None], "a query is a text, an image .* not NoneType"),
        ("similarity_search_with_embeddings", [3], "a query is a text, an image .* not int"),
        ("copy_to", ["my_index"], "takes another LateInteractionVectorStore, not 'my_index'"),
    ],
)
async def test_arguments_of_a_wrong_type_change_nothing(
    filled: LateInteractionVectorStore, method: str, arguments: list[Any], said: str
) -> None:
    before = filled.search_by_metadata()
    with pytest.raises(TypeError, match=said):
        getattr(filled, method)(*arguments)
    with pytest.raises(TypeError, match=said):
        await getattr(filled, f"a{method}")(*arguments)
    assert filled.search_by_metadata() == before


def test_arguments_of_other_stores_are_named_in_a_warning(store: LateInteractionVectorStore) -> None:
    with pytest.warns(UserWarning, match="no effect here: vector_field"):
        store.add_texts(["one"], vector_field="v")


def test_rows_that_cannot_be_indexed_are_named_and_the_others_are_there(
    store: LateInteractionVectorStore,
) -> None:
    texts = ["one", " ", "unencodable", "four", "five"]
    metadatas = [{}, {}, {}, {"at": object()}, {}]
    with pytest.raises(DocumentError) as caught:
        store.add_texts(texts, metadatas, ids=["a", "b", "c", "d", "e"])
    assert [failure.doc_id for failure in caught.value.failures] == ["b", "c", "d"]
    assert caught.value.indexed == ["a", "e"]
    assert ids(store.search_by_metadata()) == ["a", "e"]


def test_a_store_that_fails_in_between_says_which_ids_were_written(tmp_path: Path) -> None:
    with SyncPipeline(FailsAtItsThirdWrite(tmp_path), HashModel()) as pipeline:
        store = LateInteractionVectorStore(pipeline)
        with pytest.raises(StoreError, match="out of order") as caught:
            store.add_documents([Document("one", id=name) for name in "abcdefg"], batch_size=2)
        assert caught.value.indexed == ["a", "b", "c", "d"]
        assert ids(store.search_by_metadata()) == ["a", "b", "c", "d"]


async def test_update_documents(filled: LateInteractionVectorStore) -> None:
    assert filled.update_documents(["a"], [Document("new text", metadata={"n": 9})]) == ["a"]
    assert await filled.aupdate_documents(["b"], [Document("newer text", id="other")]) == ["b"]
    assert [(d.page_content, d.metadata) for d in filled.get_by_ids(["a", "b"])] == [
        ("new text", {"n": 9}),
        ("newer text", {}),
    ]
    assert len(filled.search_by_metadata()) == 4


async def test_update_metadata_encodes_nothing(tmp_path: Path) -> None:
    model = HashModel()
    async with LateInteractionVectorStore(model=model, path=tmp_path) as store:
        await store.aadd_texts(["one", "two"], [{"a": 1, "b": 1}, {}], ids=["a", "b"])
        encoded = len(model.encoded)
        assert store.update_metadata({"a": {"b": [2]}, "missing": {"x": 1}}) == 1
        assert await store.aupdate_metadata({"b": {"c": None}}) == 1
        assert [d.metadata for d in store.get_by_ids(["a", "b"])] == [{"a": 1, "b": [2]}, {"c": None}]
        assert len(model.encoded) == encoded
        with pytest.raises(ValueError, match="JSON cannot hold") as caught:
            store.update_metadata({"a": {"b": object()}, "b": {"c": 3}})
        assert caught.value.__notes__ == ["Not updated: 'a'; the others are."]
        assert [d.metadata for d in store.get_by_ids(["a", "b"])] == [{"a": 1, "b": [2]}, {"c": 3}]


# --- deleting


async def test_delete_by_ids_or_by_filter(filled: LateInteractionVectorStore) -> None:
    assert filled.delete(["a", "missing"]) is True
    assert filled.delete([]) is True
    assert ids(filled.search_by_metadata()) == ["b", "c", "d"]
    assert await filled.adelete(filter={"n": {"$lt": 4}}) is True
    assert ids(filled.search_by_metadata()) == ["d"]


def test_delete_never_means_everything(filled: LateInteractionVectorStore) -> None:
    for arguments in ({}, {"ids": ["a"], "filter": {"n": 1}}):
        with pytest.raises(ValueError, match="clear"):
            filled.delete(**arguments)
    with pytest.raises(ValueError, match="empty filter"):
        filled.delete(filter={})
    with pytest.raises(TypeError, match="where"):
        filled.delete(["a"], where={"n": 1})
    assert len(filled.search_by_metadata()) == 4


async def test_clear_and_drop(filled: LateInteractionVectorStore) -> None:
    filled.clear()
    assert filled.similarity_search("apple") == []
    await filled.aadd_texts(["one"])
    await filled.aclear()
    assert await filled.asimilarity_search("one") == []
    filled.drop()
    await filled.aadd_texts(["again"])
    assert len(filled.search_by_metadata()) == 1
    await filled.adrop()
    assert filled.similarity_search("again") == []


def test_drop_leaves_nothing(tmp_path: Path) -> None:
    with in_folder(tmp_path) as store:
        store.add_texts(["one"])
        store.drop()
    assert list(tmp_path.iterdir()) == []


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


# --- making one


async def test_from_texts_and_documents(tmp_path: Path) -> None:
    documents = [Document("one", id="a", metadata={"n": 1}), Document("two", id="b")]
    made = [
        LateInteractionVectorStore.from_texts(
            ["one", "two"], HashModel(), [{"n": 1}, {}], ids=["a", "b"], path=tmp_path / "1"
        ),
        await LateInteractionVectorStore.afrom_texts(
            ["one", "two"], HashModel(), [{"n": 1}, {}], ids=["a", "b"], path=tmp_path / "2"
        ),
        LateInteractionVectorStore.from_documents(documents, HashModel(), path=tmp_path / "3"),
        await LateInteractionVectorStore.afrom_documents(documents, model=HashModel(), path=tmp_path / "4"),
        LateInteractionVectorStore.from_documents(
            documents[::-1], HashModel(), ids=["b", "a"], path=tmp_path / "5"
        ),
    ]
    for store in made:
        with store:
            assert store.get_by_ids(["a", "b"]) == documents


def test_from_texts_closes_what_it_could_not_fill(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 ids"):
        LateInteractionVectorStore.from_texts(["one", "two"], HashModel(), ids=["a"], path=tmp_path)
    with pytest.raises(ValueError, match="given twice"):
        LateInteractionVectorStore.from_texts(["one"], HashModel(), model=HashModel(), path=tmp_path)


def test_to_make_one_writes_nothing(tmp_path: Path) -> None:
    in_folder(tmp_path / "new").close()
    assert not (tmp_path / "new").exists()


def test_an_index_of_another_model_is_refused_at_the_first_use(tmp_path: Path) -> None:
    with in_folder(tmp_path) as store:
        store.add_texts(["one"])
    with (
        in_folder(tmp_path, model=HashModel(name="other")) as other,
        pytest.raises(IndexMismatchError, match=r"encoder\.model"),
    ):
        other.similarity_search("apple")


def test_several_tables_in_one_folder(tmp_path: Path) -> None:
    with in_folder(tmp_path, table_name="one") as one, in_folder(tmp_path, table_name="two") as two:
        one.add_texts(["apple"])
        assert two.similarity_search("apple") == []
        one.drop()
        assert two.similarity_search("apple") == []


def test_a_pipeline_that_is_given_stays_open(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        with LateInteractionVectorStore(pipeline) as store:
            store.add_texts(["one"])
            assert store.pipeline is pipeline
        assert pipeline.count() == 1


def test_wrong_parts(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be a LateInteractionModel"):
        LateInteractionVectorStore(model=3, path=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"give a model as model=…, a folder as path=…"):
        LateInteractionVectorStore(HashModel(), path=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model"):
        LateInteractionVectorStore(path=tmp_path)


def test_what_stands_for_an_index_is_shared_by_copies_and_pickled_as_its_recipe(
    filled: LateInteractionVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "local-token")
    assert copy.copy(filled) is filled
    retriever = filled.as_retriever()
    assert ids(retriever.model_copy(deep=True).invoke("sea"))[0] == "d"
    with pickle.loads(pickle.dumps(filled)) as other:
        assert other is not filled
        assert ids(other.similarity_search("sea", k=1)) == ids(filled.similarity_search("sea", k=1))


# --- one vector per text


def test_embeddings_of_langchain_give_one_vector_per_text(tmp_path: Path) -> None:
    embeddings = DeterministicFakeEmbedding(size=24)
    with LateInteractionVectorStore(model=embeddings, path=tmp_path) as store:
        store.add_texts(TEXTS, ids=IDS)
        assert store.embeddings is embeddings
        assert store.as_retriever().tags == ["LateInteractionVectorStore", "DeterministicFakeEmbedding"]
        [(document, matrix)] = store.similarity_search_with_embeddings("red pear", k=1)
        assert (document.id, matrix.shape) == ("b", (1, 24))
        [(_, score)] = store.similarity_search_with_score("red pear", k=1)
        assert score == pytest.approx(1, abs=0.01)
        vector = embeddings.embed_query("green apple tree")
        assert ids(store.similarity_search_by_vector(vector, k=1)) == ["c"]


async def test_embeddings_model_sync_and_async(tmp_path: Path) -> None:
    model = EmbeddingsModel(DeterministicFakeEmbedding(size=8))
    assert (model.dim, model.model_name) == (8, "DeterministicFakeEmbedding")
    assert model.fingerprint["class"] == model.fingerprint["model"] == "DeterministicFakeEmbedding"
    for sync, other in (
        (model.encode_queries(["a", "b"]), await model.aencode_queries(["a", "b"])),
        (model.encode_documents(["a", "b"]), await model.aencode_documents(["a", "b"])),
    ):
        assert np.array_equal(sync, other)
        assert np.linalg.norm(sync, axis=-1) == pytest.approx(1)
    with pytest.raises(ValueError, match="position 1 is empty"):
        model.encode_documents(["a", ""])


def test_names_of_embeddings() -> None:
    class Service(DeterministicFakeEmbedding):
        model: str = "embed-3"
        api_key: str = "secret"

    model = EmbeddingsModel(Service(size=8))
    assert model.model_name == "embed-3"
    assert "secret" not in repr(model)
    assert EmbeddingsModel(Service(size=8), "mine", dim=8).model_name == "mine"


def test_a_late_interaction_model_is_no_embeddings(store: LateInteractionVectorStore) -> None:
    assert store.embeddings is None
    assert store.as_retriever().tags == ["LateInteractionVectorStore", "HashModel"]


# --- LangChain's indexing API


@pytest.mark.parametrize("cleanup", ["incremental", "full", "scoped_full"])
async def test_index_and_aindex(store: LateInteractionVectorStore, cleanup: Any) -> None:
    def documents(*texts: str) -> list[Document]:
        return [Document(text, metadata={"source": "s"}) for text in texts]

    manager = InMemoryRecordManager("test")
    options = {"cleanup": cleanup, "source_id_key": "source", "key_encoder": "blake2b"}

    def counts(result: Any) -> tuple[int, int, int]:
        return result["num_added"], result["num_skipped"], result["num_deleted"]

    assert counts(index(documents("one", "two", "three"), manager, store, **options)) == (3, 0, 0)
    assert counts(index(documents("one", "two", "three"), manager, store, **options)) == (0, 3, 0)
    assert counts(index(documents("one", "two", "changed"), manager, store, **options)) == (1, 2, 1)
    assert sorted(d.page_content for d in store.search_by_metadata()) == ["changed", "one", "two"]
    assert counts(await aindex(documents("one", "new"), manager, store, **options)) == (1, 1, 2)
    assert sorted(d.page_content for d in store.search_by_metadata()) == ["new", "one"]


# --- the shape of the class


def public(of: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(of, callable) if name[0] != "_"}


def test_every_method_has_its_async_twin_with_the_same_arguments() -> None:
    methods = public(LateInteractionVectorStore)
    sync = {name for name in methods if f"a{name}" in methods}
    assert sync >= {
        "add_texts",
        "add_documents",
        "update_metadata",
        "delete",
        "clear",
        "drop",
        "close",
        "get_by_ids",
    }
    for name in sync:
        one, other = (inspect.signature(methods[n]) for n in (name, f"a{name}"))
        assert list(one.parameters.values()) == list(other.parameters.values()), name
        assert inspect.iscoroutinefunction(methods[f"a{name}"]), name
    assert methods.keys() - sync - {f"a{name}" for name in sync} == {"as_retriever"}


def test_every_method_of_langchain_that_does_io_is_our_own() -> None:
    theirs = {
        "search",
        "asearch",
        "similarity_search_with_relevance_scores",
        "asimilarity_search_with_relevance_scores",
    }
    ours = {
        name
        for base in LateInteractionVectorStore.__mro__
        if not base.__module__.startswith("langchain_core")
        for name in vars(base)
    }
    inherited = {name for name in public(LateInteractionVectorStore) if name not in ours}
    assert inherited == theirs


@pytest.mark.parametrize("name", langchain_lateint.__all__)
def test_without_langchain_the_extra_is_named(name: str) -> None:
    code = f"""
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import langchain_lateint
try:
    langchain_lateint.{name}
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("MissingExtraError")
    assert "pip install 'late-interaction[langchain]'" in said
