"""The vector store beyond LangChain's own suite: adding, updating, deleting."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, aindex, index

from langchain_lateint import LateInteractionVectorStore
from late_interaction import (
    DocumentError,
    StoreError,
    SyncPipeline,
)
from tests.adapters.langchain.stores import in_folder
from tests.adapters.langchain.texts import ids
from tests.support.failing import FailsAtItsThirdWrite
from tests.support.models import HashModel

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
