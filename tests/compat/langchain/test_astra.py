"""What langchain-astradb demands of `AstraDBVectorStore` (its tests/integration_tests/test_vectorstore.py)."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids
from tests.compat.langchain.coordinates import Coordinates, on_circle
from tests.support.models import HashModel

LETTERS = [
    Document(
        f"letter {letter}",
        id=letter,
        metadata={"n": ord(letter), "group": "vowel" if letter in "aeiou" else "consonant", "letter": letter},
    )
    for letter in "qwreio"
]
FILTERS: list[tuple[dict | None, str]] = [
    (None, "qwreio"),
    ({"group": "vowel"}, "eio"),
    ({"group": "consonant", "n": ord("q")}, "q"),
    ({"group": "consonant", "n": ord("q"), "case": "upper"}, ""),
    ({"$or": [{"n": ord("q")}, {"n": ord("r")}]}, "qr"),
]


def contents(documents: list[Document]) -> set[str]:
    return {one.page_content for one in documents}


@pytest.mark.parametrize(
    ("own", "beside", "expected"),
    [
        ((None, None), None, None),
        ((None, None), ["x1", "x3"], "x3"),
        (("x1", "x3"), None, "x3"),
        ((None, "y3"), ["x1", "x3"], "x3"),
    ],
)
async def test_from_documents_with_ids_inside_beside_or_both(
    store: LateInteractionVectorStore, own: tuple, beside: list[str] | None, expected: str | None
) -> None:
    documents = [Document("one", metadata={"m": 1}, id=own[0]), Document("two", metadata={"m": 3}, id=own[1])]
    given = {"pipeline": store.pipeline} | ({} if beside is None else {"ids": beside})
    made = LateInteractionVectorStore.from_documents(documents, **given)
    [found] = made.similarity_search("two", k=1)
    assert (found.page_content, found.metadata) == ("two", {"m": 3})
    assert found.id == expected if expected else found.id
    await LateInteractionVectorStore.afrom_documents(documents, **given)
    assert len(made.search_by_metadata()) == (2 if expected else 4)


async def test_write_overwrite_delete_clear(store: LateInteractionVectorStore) -> None:
    assert store.similarity_search("anything", k=2) == []
    metadatas = [{"k": "a", "n": 0}, {"k": "b", "n": 1}, {"k": "c", "n": 2}]
    assert store.add_texts(["one", "two", "three"], metadatas, ["a", "b", "c"]) == ["a", "b", "c"]
    assert contents(store.similarity_search("anything", k=5)) == {"one", "two", "three"}
    assert await store.asimilarity_search("two", k=1) == [
        Document("two", id="b", metadata={"k": "b", "n": 1})
    ]

    replaced = [{"k": "c_new", "n": 102}, {"k": "d_new", "n": 103}]
    assert await store.aadd_texts(["three", "four"], replaced, ids=["c", "d"]) == ["c", "d"]
    assert len(store.similarity_search("anything", k=10)) == 4
    for [(found, _, doc_id)] in (
        store.similarity_search_with_score_id("three", k=1, filter={"k": "c_new"}),
        await store.asimilarity_search_with_score_id("three", k=1, filter={"k": "c_new"}),
    ):
        assert found == Document("three", id="c", metadata={"k": "c_new", "n": 102})
        assert doc_id == "c"

    assert store.delete(["b"]) is True
    assert await store.adelete(["a", "c", "no such id"]) is True
    assert len(store.similarity_search("anything", k=10)) == 1
    store.clear()
    assert store.similarity_search("anything", k=2) == []
    await store.aadd_documents(
        [Document("nine", metadata={"k": "v"}), Document("ten", metadata={"k": "w"})], ids=["v", "w"]
    )
    assert ids(store.similarity_search("ten", k=1, filter={"k": "w"})) == ["w"]
    store.delete_by_document_id("w")
    await store.adelete_by_document_id("v")
    assert store.similarity_search("ten") == []


@pytest.mark.parametrize("size", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_many_with_some_of_them_again(store: LateInteractionVectorStore, size: int) -> None:
    half = size // 2
    names, texts = [f"doc_{n}" for n in range(size)], [f"text {n}" for n in range(size)]
    assert store.add_texts(texts[:half], ids=names[:half]) == names[:half]
    again = [*range(size // 10, half, 2), *range(half, size)]
    store.add_texts([texts[n].upper() for n in again], ids=[names[n] for n in again])
    expected = dict(zip(names, texts, strict=True)) | {names[n]: texts[n].upper() for n in again}
    vector = HashModel().word("text").tolist()
    found = store.similarity_search_with_score_id_by_vector(vector, k=size)
    assert {doc_id: one.page_content for one, _, doc_id in found} == expected


def test_many_are_deleted(store: LateInteractionVectorStore) -> None:
    names = [f"doc_{n}" for n in range(120)]
    store.add_texts([f"text {n}" for n in range(120)], ids=names)
    assert store.delete(names[:60]) is True
    assert store.delete([*names[60:], "ghost"]) is True
    assert store.similarity_search("text", k=120) == []


async def test_delete_by_metadata(store: LateInteractionVectorStore) -> None:
    store.add_documents([Document("same", metadata={"out": n % 3 == 0}) for n in range(40)])
    assert store.delete_by_metadata_filter({"out": True}) == 14
    assert await store.adelete_by_metadata_filter({"out": True}) == 0
    assert len(store.similarity_search("same", k=41)) == 26
    with pytest.raises(ValueError, match="empty"):
        store.delete_by_metadata_filter({})
    assert len(store.search_by_metadata()) == 26


async def test_metadata_are_updated_key_by_key(store: LateInteractionVectorStore) -> None:
    store.add_documents(
        [Document("same", metadata={"kept": "I", "changed": "0"}, id=f"d{n}") for n in range(10)]
    )
    changes = {f"d{n}": {"changed": "1", "added": n} for n in range(0, 10, 2)}
    assert await store.aupdate_metadata(changes | {"no such id": {"changed": "1"}}) == len(changes)
    for found in store.similarity_search("same", k=10):
        assert found.metadata == {"kept": "I", "changed": "0"} | changes.get(str(found.id), {})


async def test_mmr_on_the_unit_circle(make_store: MakeStore) -> None:
    made = make_store(model=Coordinates())
    made.add_texts([on_circle(n) for n in (0, 4, 5, 13)], [{"i": n} for n in (0, 4, 5, 13)])
    for found in (
        made.max_marginal_relevance_search(on_circle(3), k=2, fetch_k=3),
        await made.amax_marginal_relevance_search(on_circle(3), k=2, fetch_k=3),
    ):
        assert {one.metadata["i"] for one in found} == {0, 4}


@pytest.mark.parametrize(("filter", "expected"), FILTERS, ids=str)
async def test_filters_of_a_search_and_of_a_search_by_metadata_alone(
    store: LateInteractionVectorStore, filter: dict | None, expected: str
) -> None:
    store.add_documents(LETTERS)
    for found in (
        store.similarity_search("letter", k=10, filter=filter),
        store.metadata_search(filter, n=10),
        await store.ametadata_search(filter, n=10),
    ):
        assert {one.metadata["letter"] for one in found} == set(expected)


async def test_one_document_by_its_id(store: LateInteractionVectorStore) -> None:
    store.add_documents(LETTERS)
    assert store.get_by_document_id("z") is None
    assert await store.aget_by_document_id("q") == LETTERS[0]


async def test_the_scale_of_scores(make_store: MakeStore) -> None:
    """Astra's is from 0 to 1; with one vector for each text our relevance is the same."""
    made = make_store(model=Coordinates())
    made.add_texts(["[1, 1]", "[-1, -1]"], ids=["near", "far"])
    found = await made.asimilarity_search_with_relevance_scores("[0.99999, 1.00001]", k=2)
    [(near, high), (far, low)] = found
    assert (near.id, far.id) == ("near", "far")
    assert high == pytest.approx(1, abs=0.01)
    assert low == pytest.approx(0, abs=0.01)


async def test_results_with_vectors(make_store: MakeStore) -> None:
    made = make_store(model=Coordinates())
    made.add_texts(["[3, 4]"])
    query, results = made.similarity_search_with_embedding("[4, 3]")
    assert query.tolist() == [pytest.approx([0.8, 0.6], abs=0.01)]
    for [(found, vectors)] in (
        results,
        made.similarity_search_with_embedding_by_vector([0.8, 0.6]),
        (await made.asimilarity_search_with_embedding("[4, 3]"))[1],
        await made.asimilarity_search_with_embedding_by_vector([0.8, 0.6]),
    ):
        assert found.page_content == "[3, 4]"
        assert vectors.tolist() == [pytest.approx([0.6, 0.8], abs=0.01)]


def test_unknown_arguments_of_a_write_are_refused(store: LateInteractionVectorStore) -> None:
    """Astra's warns of those of its constructor; ours takes none that it has no use for."""
    with pytest.raises(TypeError, match="overwrite_concurrency"):
        store.add_texts(["one"], overwrite_concurrency=29)
    assert store.search_by_metadata() == []


def test_it_is_the_direction_that_counts(make_store: MakeStore) -> None:
    """Astra's cosine metric finds the scaled vector, and so do we: vectors have length 1."""
    made = make_store(model=Coordinates())
    made.add_texts(["[0.7, 0.714]", "[10, 10]"], ids=["rotated", "scaled"])
    assert ids(made.similarity_search("[1, 1]", k=1)) == ["scaled"]
