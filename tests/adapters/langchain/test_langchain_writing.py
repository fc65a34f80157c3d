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


async def test_an_argument_that_has_no_effect_is_refused(store: LateInteractionVectorStore) -> None:
    for name in ("vector_field", "batch", "embedding_chunk_size"):
        with pytest.raises(TypeError, match=f"there is no option '{name}'"):
            store.add_texts(["one"], **{name: 5})
        with pytest.raises(TypeError, match=f"there is no option '{name}'"):
            await store.aadd_documents([Document("one")], **{name: 5})
    assert store.search_by_metadata() == []


# --- blank texts


async def test_blank_texts_are_documents_that_no_search_finds(store: LateInteractionVectorStore) -> None:
    pages = ["a red apple", "", " \n", "\u200b"]
    await store.aadd_documents([Document(text, id=str(n), metadata={"n": n}) for n, text in enumerate(pages)])
    assert [d.page_content for d in store.get_by_ids(["1", "2", "3"])] == pages[1:]
    assert ids(store.search_by_metadata({"n": {"$gte": 1}})) == ["1", "2", "3"]
    assert ids(store.similarity_search("", filter={"n": {"$gte": 2}})) == ["2", "3"]
    assert ids(store.similarity_search("apple", k=9)) == ["0"]
    assert ids(await store.amax_marginal_relevance_search("apple", k=9)) == ["0"]
    assert store.similarity_search("apple", filter={"n": 1}) == []
    assert len(store.similarity_search_with_relevance_scores("apple", k=9)) == 1
    store.update_metadata({"1": {"n": 7}})
    assert ids(store.search_by_metadata({"n": 7})) == ["1"]


async def test_index_does_not_stop_at_a_blank_page(store: LateInteractionVectorStore) -> None:
    pages = [Document("" if n == 5 else f"page {n}", metadata={"source": "a", "n": n}) for n in range(9)]
    manager = InMemoryRecordManager("pages")
    manager.create_schema()
    options: Any = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "blake2b"}
    assert index(pages, manager, store, **options)["num_added"] == 9
    assert (await aindex(pages, manager, store, **options))["num_skipped"] == 9
    assert len(store.search_by_metadata()) == 9


# --- bad rows

BAD: dict[str, Any] = {
    "texts": ["one", "unencodable", "three", "four"],
    "metadatas": [{}, {}, {"at": object()}, {}],
    "ids": ["a", "b", "c", "d"],
}


async def test_one_bad_row_keeps_the_whole_call_out(store: LateInteractionVectorStore) -> None:
    with pytest.raises(DocumentError) as caught:
        store.add_texts(**BAD)
    assert [failure.doc_id for failure in caught.value.failures] == ["c"]
    assert caught.value.indexed == []
    with pytest.raises(DocumentError, match="cannot be encoded"):
        await store.aadd_documents([Document("one"), Document("unencodable")])
    assert store.search_by_metadata() == []


async def test_a_call_may_go_on_or_leave_out_bad_rows(store: LateInteractionVectorStore) -> None:
    with pytest.raises(DocumentError) as caught:
        store.add_texts(**BAD, on_error="continue")
    assert [failure.doc_id for failure in caught.value.failures] == ["b", "c"]
    assert caught.value.indexed == ["a", "d"]
    added = await store.aadd_texts(**BAD, on_error="skip", batch_size=2)
    assert added == ["a", "d"]
    assert [failure.row for failure in added.failures] == [1, 2]
    assert ids(store.search_by_metadata()) == ["a", "d"]


async def test_a_store_is_made_with_the_rows_that_are_not_bad(tmp_path: Path) -> None:
    place: dict[str, Any] = {"path": tmp_path, "table_name": "one"}
    with pytest.raises(DocumentError):
        LateInteractionVectorStore.from_texts(embedding=HashModel(), **BAD, **place)
    with LateInteractionVectorStore.from_texts(
        embedding=HashModel(), **BAD, **place, on_error="skip"
    ) as store:
        assert ids(store.search_by_metadata()) == ["a", "d"]
    documents = [Document("one", id="e"), Document("unencodable", id="f")]
    async with await LateInteractionVectorStore.afrom_documents(
        documents, HashModel(), on_error="skip", batch_size=1, **place
    ) as store:
        assert ids(store.search_by_metadata()) == ["a", "d", "e"]


async def test_index_leaves_out_bad_pages_if_told_so(store: LateInteractionVectorStore) -> None:
    pages = [Document("unencodable" if n == 1 else f"page {n}") for n in range(4)]
    manager = InMemoryRecordManager("pages")
    manager.create_schema()
    for _ in range(2):
        index(pages, manager, store, key_encoder="blake2b", upsert_kwargs={"on_error": "skip"})
    assert sorted(d.page_content for d in store.search_by_metadata()) == ["page 0", "page 2", "page 3"]


async def test_a_store_has_defaults_for_callers_that_pass_nothing_on(make_store: Any) -> None:
    store = make_store(on_error="skip", ids="content")
    manager = InMemoryRecordManager("pages")
    manager.create_schema()
    pages = [Document("unencodable" if n == 1 else f"page {n}") for n in range(3)]
    assert index(pages, manager, store, key_encoder="blake2b")["num_added"] == 3
    first = store.add_documents(pages)
    assert len(first) == 2
    assert (
        await store.aadd_documents(pages) == store.add_texts([page.page_content for page in pages]) == first
    )
    assert store.add_texts(["page 0"], ids=["mine"]) == ["mine"]
    with pytest.raises(DocumentError):
        store.copy().add_documents(pages, on_error="raise")
    assert store.copy().add_documents(pages) == first
    for wrong in ({"on_error": "ignore"}, {"ids": "random"}):
        with pytest.raises(ValueError, match="must be one of"):
            make_store("wrong", **wrong)


# --- ids by content


async def test_ids_by_content_double_nothing(store: LateInteractionVectorStore) -> None:
    texts, metadatas = ["one", "one", "", "two"], [{"n": 1}, {"n": 2}, {}, {}]
    first = store.add_texts(texts, metadatas, "content")
    assert len(set(first)) == 4
    assert await store.aadd_texts(texts, metadatas, ids="content") == first
    assert store.add_documents([Document("one", metadata={"n": 1})], ids="content") == first[:1]
    assert store.add_documents([Document("two", id="mine")], ids="content") == ["mine"]
    assert len(store.search_by_metadata()) == 5
    with pytest.raises(TypeError, match="ids must be a list, not a bare str"):
        store.add_texts(["one"], ids="contents")  # type: ignore[arg-type]


async def test_a_corrected_run_doubles_nothing(tmp_path: Path) -> None:
    class At:
        pass

    for fixed in (False, True, True):
        documents = [Document("first"), Document("second", metadata={"at": "noon" if fixed else At()})]
        try:
            store = await LateInteractionVectorStore.afrom_documents(
                documents, HashModel(), path=tmp_path, ids="content"
            )
        except DocumentError:
            assert not fixed
            continue
        with store:
            assert sorted(d.page_content for d in store.similarity_search("first", k=5)) == [
                "first",
                "second",
            ]


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
        with pytest.raises(ValueError, match="has no plain form") as caught:
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
