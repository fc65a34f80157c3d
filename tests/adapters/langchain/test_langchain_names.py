"""The names that users of Chroma, Qdrant, PGVector, Astra and FAISS type do what they do there, sync and async."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from late_interaction import IndexMismatchError, IndexNotFoundError, LateInteractionError
from tests.adapters.langchain.stores import in_folder
from tests.adapters.langchain.texts import IDS, TEXTS, ids
from tests.support.colours import ColourModel, picture, png
from tests.support.models import HashModel


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    """Return a store that was filled with all arguments by their position, as Chroma, Qdrant and PGVector have them."""
    assert store.add_texts(TEXTS, [{"n": n} for n in range(4)], IDS) == IDS
    return store


def vectors(text: str) -> Any:
    return HashModel().encode_queries([text])[0]


async def test_updating_one_document(filled: LateInteractionVectorStore) -> None:
    filled.update_document("a", Document("a new text", metadata={"n": 9}))
    await filled.aupdate_document("e", Document("a newer text"))
    assert [d.page_content for d in filled.get_by_ids(["a", "e"])] == ["a new text", "a newer text"]


async def test_deleting_as_astra_does(filled: LateInteractionVectorStore) -> None:
    assert filled.delete_by_metadata_filter({"n": {"$gte": 2}}) == 2
    assert await filled.adelete_by_metadata_filter({"n": 7}) == 0
    assert filled.delete_by_document_id("a") is True
    assert await filled.adelete_by_document_id("a") is False
    assert ids(filled.search_by_metadata()) == ["b"]
    with pytest.raises(ValueError, match="clear"):
        filled.delete_by_metadata_filter({})


async def test_deleting_a_collection(filled: LateInteractionVectorStore) -> None:
    filled.reset_collection()
    assert filled.search_by_metadata() == []
    filled.add_texts(["one"])
    await filled.areset_collection()
    filled.delete_collection()
    assert filled.search_by_metadata() == []
    await filled.adelete_collection()
    assert filled.search_by_metadata() == []


async def test_reading_as_astra_does(filled: LateInteractionVectorStore) -> None:
    assert ids(filled.metadata_search({"n": {"$lt": 2}})) == ["a", "b"]
    assert len(await filled.ametadata_search({}, n=3)) == 3
    found = filled.get_by_document_id("c")
    assert found is not None
    assert found == await filled.aget_by_document_id("c") == filled.get_by_ids(["c"])[0]
    assert filled.get_by_document_id("none") is None
    assert ids(filled.get_by_document_ids(["c", "a"])) == ids(await filled.aget_by_document_ids(["c", "a"]))


async def test_reading_as_chroma_does(filled: LateInteractionVectorStore) -> None:
    assert filled.get(["b", "a"]) == {
        "ids": ["b", "a"], "documents": ["red pear", "red apple"], "metadatas": [{"n": 1}, {"n": 0}],
        "embeddings": None,
    }  # fmt: skip
    assert (await filled.aget("a"))["ids"] == ["a"]
    assert (await filled.aget(where={"n": {"$gt": 1}}, include=["documents"])) == {
        "ids": ["c", "d"], "documents": TEXTS[2:], "metadatas": None, "embeddings": None,
    }  # fmt: skip
    pages = [filled.get(limit=2, offset=first)["ids"] for first in (0, 2, 4)]
    assert sorted(pages[0] + pages[1]) == IDS
    assert pages[2] == []
    embeddings = filled.get("a", include=["embeddings"])["embeddings"]
    assert [matrix.shape for matrix in embeddings] == [(2, 32)]
    assert filled.get(["a", "b"], where={"n": 1})["ids"] == ["b"]
    for wrong in ({"include": ["uris"]}, {"limit": -1}, {"offset": -1}):
        with pytest.raises(ValueError, match=r"include takes|must be at least 0"):
            filled.get(**wrong)


async def test_searching_with_ids_vectors_and_relevance(filled: LateInteractionVectorStore) -> None:
    query = vectors("red apple")
    scored = filled.similarity_search_with_score("red apple", 2)
    with_ids = [(document, score, document.id) for document, score in scored]
    assert filled.similarity_search_with_score_id("red apple", 2) == with_ids
    assert await filled.asimilarity_search_with_score_id("red apple", 2) == with_ids
    by_vector = filled.similarity_search_with_score_id_by_vector(query, 2)
    assert [found[2] for found in by_vector] == [found[2] for found in with_ids]
    assert await filled.asimilarity_search_with_score_id_by_vector(query, 2) == by_vector
    relevant = filled.similarity_search_by_vector_with_relevance_scores(query, 2, {"n": 0})
    assert [(document.id, round(score, 2)) for document, score in relevant] == [("a", 1.0)]
    assert await filled.asimilarity_search_by_vector_with_relevance_scores(query, 2, {"n": 0}) == relevant
    for encoded, pairs in (
        filled.similarity_search_with_embedding("red apple", 1),
        await filled.asimilarity_search_with_embedding("red apple", 1),
    ):
        assert np.array_equal(encoded, query)
        assert [(document.id, matrix.shape) for document, matrix in pairs] == [("a", (2, 32))]
    for found in (
        filled.similarity_search_with_vectors("red apple", 1),
        await filled.asimilarity_search_with_vectors("red apple", 1),
        filled.similarity_search_with_embedding_by_vector(query, 1),
        await filled.asimilarity_search_with_embedding_by_vector(query, 1),
    ):
        [(document, matrix)] = found
        assert (document.id, matrix.shape) == ("a", (2, 32))
    diverse = filled.max_marginal_relevance_search_with_score_by_vector(query, 2)
    assert diverse == filled.max_marginal_relevance_search_with_score(query, 2)
    assert diverse == await filled.amax_marginal_relevance_search_with_score_by_vector(query, 2)
    with pytest.raises(TypeError, match="does not take lexical_query"):
        filled.similarity_search_with_score_id("apple", lexical_query="apple")
    with pytest.raises(TypeError, match="does not take where_document"):
        filled.similarity_search_with_embedding("apple", where_document={"$contains": "x"})


async def test_vectors_made_elsewhere(store: LateInteractionVectorStore) -> None:
    matrices = [vectors(text) for text in TEXTS]
    metadatas = [{"n": n} for n in range(4)]
    assert store.add_embeddings(TEXTS, matrices, metadatas, IDS) == IDS
    assert await store.aadd_embeddings(TEXTS, [matrix.tolist() for matrix in matrices], ids=IDS) == IDS
    assert ids(store.similarity_search("sea", 1)) == ["d"]
    pairs = list(zip(TEXTS, matrices, strict=True))
    assert store.add_embeddings(pairs, ids="content") == await store.aadd_embeddings(
        iter(pairs), ids="content"
    )
    assert len(store.search_by_metadata()) == 8
    with pytest.raises(TypeError, match="metadatas=… by its name"):
        store.add_embeddings(pairs, metadatas)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pairs of a text and its vectors"):
        store.add_embeddings(TEXTS)
    with pytest.raises(ValueError, match="there are 4 texts, but 3 embeddings"):
        store.add_embeddings(TEXTS, matrices[:3])


async def test_a_store_of_vectors_made_elsewhere(tmp_path: Path) -> None:
    pairs = [(text, vectors(text)) for text in TEXTS]
    options: dict[str, Any] = {"path": tmp_path, "table_name": "one", "batch_size": 2}
    with LateInteractionVectorStore.from_embeddings(pairs, HashModel(), ids=IDS, **options) as store:
        assert ids(store.similarity_search("sea", 1)) == ["d"]
    async with await LateInteractionVectorStore.afrom_embeddings(pairs, HashModel(), **options) as store:
        assert len(await store.asearch_by_metadata()) == 8


async def test_an_existing_index_is_opened_and_none_is_made(tmp_path: Path) -> None:
    made = LateInteractionVectorStore
    place: dict[str, Any] = {"path": tmp_path / "index"}
    for missing in (
        lambda: made.from_existing_index(HashModel(), **place),
        lambda: made.from_existing_collection("one", HashModel(), **place),
        lambda: made.load_local(tmp_path / "index", HashModel(), allow_dangerous_deserialization=True),
        lambda: in_folder(tmp_path / "index", must_exist=True).similarity_search("x"),
    ):
        with pytest.raises(IndexNotFoundError, match="There is no index"):
            missing()
    with pytest.raises(IndexNotFoundError):
        await made.afrom_existing_collection(collection_name="one", embedding=HashModel(), **place)
    assert not (tmp_path / "index").exists()
    with pytest.raises(IndexNotFoundError):
        await made.aload_local(tmp_path / "index", HashModel())
    made.from_texts(TEXTS, HashModel(), ids=IDS, table_name="one", **place).close()
    with made.from_existing_index(HashModel(), collection_name="one", **place) as store:
        assert len(store.search_by_metadata()) == 4
    async with await made.afrom_existing_index(HashModel(), table_name="one", **place) as store:
        assert len(await store.asearch_by_metadata()) == 4
    with pytest.raises(IndexMismatchError):
        made.from_existing_index(HashModel(name="other"), table_name="one", **place)
    with pytest.raises(ValueError, match="two names of the same thing"):
        made.from_existing_index(HashModel(), collection_name="one", table_name="one", **place)


async def test_saving_loading_and_merging_as_faiss_does(tmp_path: Path) -> None:
    made = LateInteractionVectorStore
    with (
        in_folder(tmp_path / "here", doc_pool_factor=2) as store,
        in_folder(tmp_path / "other", doc_pool_factor=2) as other,
    ):
        store.add_texts(TEXTS[:2], ids=IDS[:2])
        other.add_texts(TEXTS[2:], ids=IDS[2:])
        store.merge_from(other)
        await store.amerge_from(other)
        store.save_local(tmp_path / "here")  # where it is
        store.save_local(tmp_path / "there")
        await store.asave_local(str(tmp_path / "there"), "named")
        with pytest.raises(TypeError, match="takes another LateInteractionVectorStore"):
            store.merge_from("other")  # type: ignore[arg-type]
    for name in (None, "named"):
        with made.load_local(
            tmp_path / "there", HashModel(), name, allow_dangerous_deserialization=True
        ) as loaded:
            assert sorted(map(str, ids(loaded.search_by_metadata()))) == IDS
            assert ids(loaded.similarity_search("sea", 1)) == ["d"]


async def test_what_is_saved_again_is_what_there_is(tmp_path: Path) -> None:
    with in_folder(tmp_path / "here") as store, in_folder(tmp_path / "other") as other:
        store.add_texts(TEXTS, ids=IDS)
        store.save_local(tmp_path / "saved")
        store.delete(IDS[:2])
        store.save_local(tmp_path / "saved")
        other.add_texts(["another"], ids=["z"])
        await other.asave_local(tmp_path / "saved", "named")
        await store.asave_local(tmp_path / "saved", "named")
        other.save_local(tmp_path / "third")
    for name, expected in ((None, IDS[2:]), ("named", IDS[2:])):
        with LateInteractionVectorStore.load_local(
            tmp_path / "saved", HashModel(), name, doc_pool_factor=1
        ) as saved:
            assert ids(saved.search_by_metadata()) == expected


def test_a_copy_is_another_store_on_the_same_index(tmp_path: Path) -> None:
    with in_folder(tmp_path, relevance_score_fn=lambda score: 0.25) as store:
        store.add_texts(["one"])
        same, other = store.copy(), store.copy(relevance_score_fn=lambda score: 0.5)
        relevances = [
            one.similarity_search_with_relevance_scores("one")[0][1] for one in (store, same, other)
        ]
        assert relevances == [0.25, 0.25, 0.5]
        other.close()  # closes nothing: the index is the first store's
        assert len(store.search_by_metadata()) == 1
    with pytest.raises(LateInteractionError, match="closed"):
        same.search_by_metadata()


async def test_images_as_chroma_has_them(make_store: Any, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    store = make_store(model=ColourModel())
    picture("red").save(tmp_path / "red.png")
    uris: list[Any] = [str(tmp_path / "red.png"), png("blue")]
    assert store.add_images(uris, [{"n": 1}, {"n": 2}], ["red", "blue"]) == ["red", "blue"]
    assert await store.aadd_images(uris[1:], ids=["again"]) == ["again"]
    assert ids(store.similarity_search_by_image(tmp_path / "red.png", 1)) == ["red"]
    assert ids(await store.asimilarity_search_by_image(tmp_path / "red.png", 1, {"n": 2})) == ["blue"]
    [(document, score)] = store.similarity_search_by_image_with_relevance_score(tmp_path / "red.png", 1)
    assert (document.id, round(score, 1)) == ("red", 1.0)
    found = await store.asimilarity_search_by_image_with_relevance_score(tmp_path / "red.png", 1)
    assert found == [(document, score)]
    with pytest.raises(TypeError, match="uris must be a list"):
        store.add_images("red.png")
    with pytest.raises(ValueError, match="there are 2 images, but 1 metadatas"):
        store.add_images(uris, [{}])


def test_a_threshold_may_be_a_whole_number(filled: LateInteractionVectorStore) -> None:
    kind = "similarity_score_threshold"
    for retriever in (
        filled.as_retriever(search_type=kind, score_threshold=0, k=9),
        filled.as_retriever(search_type=kind, search_kwargs={"score_threshold": 0, "k": 9}),
    ):
        assert len(retriever.invoke("apple")) == 4
