"""Images beside texts in one store, with a model that sees."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blockbuster import blockbuster_ctx
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableLambda

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from late_interaction import ColPaliModel, DocumentError, SyncPipeline, load_image, pdf_pages
from tests.adapters.conftest import MakeStore
from tests.adapters.langchain.texts import ids
from tests.support.colours import COLOURS, ColourModel, picture, png
from tests.support.models import HashModel
from tests.support.pdfs import DRAWING, pdf

pytest.importorskip("PIL", reason="the colpali extra is not installed")


@pytest.fixture
def store(make_store: MakeStore) -> LateInteractionVectorStore:
    made: LateInteractionVectorStore = make_store(model=ColourModel(), filterable={"content_type": str})
    return made


@pytest.fixture
def red(tmp_path: Path) -> Path:
    picture("red").save(tmp_path / "red.png")
    return tmp_path / "red.png"


def uri(*colours: str) -> str:
    return f"data:image/png;base64,{base64.b64encode(png(*colours)).decode()}"


async def test_images_by_metadata(store: LateInteractionVectorStore, red: Path) -> None:
    documents = [
        Document("", id="path", metadata={"image": str(red), "doc_id": "any name", "page": 1}),
        Document("a sea", id="uri", metadata={"image": uri("blue")}),
        Document("", id="pillow", metadata={"image": picture("green")}),
        Document("white white", id="text", metadata={"image": None}),
    ]
    assert store.add_documents(documents) == ["path", "uri", "pillow", "text"]
    assert await store.aadd_texts([""], [{"image": png("white")}], ids=["bytes"]) == ["bytes"]
    assert documents[0].metadata.keys() == {"image", "doc_id", "page"}
    wanted = {"red": "path", "blue": "uri", "green": "pillow"}
    assert {colour: store.similarity_search(colour, k=1)[0].id for colour in wanted} == wanted
    assert set(ids(store.similarity_search("white", k=2))) == {"bytes", "text"}
    assert store.get_by_ids(["path", "uri", "pillow", "text"]) == [
        Document(
            str(red),
            id="path",
            metadata={"content_type": "image", "image": str(red), "doc_id": "any name", "page": 1},
        ),
        Document("a sea", id="uri", metadata={"content_type": "image"}),
        Document("image of 40×30 pixels", id="pillow", metadata={"content_type": "image"}),
        Document("white white", id="text", metadata={"image": None}),
    ]
    found = store.similarity_search("white", k=9, filter={"content_type": "image"})
    assert set(ids(found)) == {"path", "uri", "pillow", "bytes"}


async def test_images_in_blobs(store: LateInteractionVectorStore, red: Path) -> None:
    blobs = [
        Blob(id="path", path=red, mimetype="image/png", metadata={"page": 1}),
        Blob(id="bytes", data=png("blue"), path="scan.png"),
        Blob.from_data(png("green"), mime_type="image/png", metadata={"source": "camera"}),
    ]
    added = store.add_documents([*blobs, Document("white", id="text")])
    assert added[:2] == ["path", "bytes"]
    assert added[3] == "text"
    assert [document.metadata for document in store.get_by_ids(added)] == [
        {"content_type": "image", "source": str(red), "page": 1, "image": str(red)},
        {"content_type": "image", "source": "scan.png"},
        {"content_type": "image", "source": "camera"},
        {},
    ]
    assert ids(store.similarity_search("green", k=1)) == added[2:3]
    assert await store.aadd_documents(blobs[:2], ids=["a", "b"]) == ["a", "b"]
    assert store.update_documents(["a"], [Blob.from_data(png("white"))]) == ["a"]
    assert ids(await store.asimilarity_search("white", k=2)) in (["a", "text"], ["text", "a"])


@pytest.mark.parametrize(
    ("blob", "said"),
    [
        (Blob.from_data("a text", path="notes.md"), r"notes\.md is text"),
        (Blob.from_path("report.pdf"), r"report\.pdf is application/pdf.*pdf_pages"),
    ],
)
async def test_a_blob_that_is_no_image_is_refused(
    store: LateInteractionVectorStore, blob: Blob, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        store.add_documents([Document("one"), blob])
    with pytest.raises(ValueError, match=said):
        await store.aadd_documents([Document("one"), blob])
    assert store.search_by_metadata() == []


async def test_a_store_made_from_images(tmp_path: Path, red: Path) -> None:
    with blockbuster_ctx():
        store = await LateInteractionVectorStore.afrom_documents(
            [Blob(id="a", path=red), Document("blue", id="b")], ColourModel(), path=tmp_path / "1"
        )
        assert ids(await store.asimilarity_search(red, k=1)) == ["a"]
        await store.aclose()
    with LateInteractionVectorStore.from_texts(
        ["", "blue"], ColourModel(), [{"image": red}, {}], path=tmp_path / "2"
    ) as store:
        assert store.similarity_search("red", k=1)[0].metadata["image"] == str(red)


def test_pages_of_a_pdf(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")
    (tmp_path / "report.pdf").write_bytes(pdf(DRAWING, ""))
    pages = [
        Document("", id=page.pop("doc_id"), metadata=page) for page in pdf_pages(tmp_path / "report.pdf")
    ]
    with LateInteractionVectorStore.from_documents(
        pages, ColourModel(), path=tmp_path / "db", store_images="thumbnail"
    ) as store:
        found = store.similarity_search("white")
    assert [document.metadata["page"] for document in found] == [1, 2]
    assert load_image(found[0].metadata["thumbnail"]).height == 512


async def test_an_image_is_a_query_of_every_search(store: LateInteractionVectorStore, red: Path) -> None:
    store.add_documents([Blob(id="a", path=red), Document("blue", id="b"), Document("green", id="c")])
    for query in (red, png("red"), picture("red")):
        found = store.similarity_search_with_score(query, k=2)
        assert (found[0][0].id, found[0][1]) == ("a", pytest.approx(4, abs=0.1))
        assert found == await store.asimilarity_search_with_score(query, k=2)
        expected = [document for document, _ in found]
        assert store.similarity_search(query, k=2) == expected
        assert await store.asimilarity_search(query, k=2) == expected
        relevant = store.similarity_search_with_relevance_scores(query, k=2)
        assert [document for document, _ in relevant] == expected
        assert relevant[0][1] == pytest.approx(1, abs=0.02)
        assert relevant == await store.asimilarity_search_with_relevance_scores(query, k=2)
        with_vectors = store.similarity_search_with_embeddings(query, k=2)
        assert [document for document, _ in with_vectors] == expected
        again = await store.asimilarity_search_with_embeddings(query, k=2)
        assert np.array_equal(with_vectors[0][1], again[0][1])
        for diverse in (
            store.max_marginal_relevance_search(query, k=3),
            await store.amax_marginal_relevance_search(query, k=3),
            [document for document, _ in store.max_marginal_relevance_search_with_score(query, k=3)],
        ):
            assert ids(diverse)[0] == "a"
            assert set(ids(diverse)) == {"a", "b", "c"}
    assert store.similarity_search(str(red), k=1)[0].id is not None
    assert store.similarity_search_with_score(str(red), k=1)[0][1] < 0.9


def test_a_document_that_was_found_can_be_written_again(store: LateInteractionVectorStore, red: Path) -> None:
    store.add_documents(
        [Document("a wall", id="a", metadata={"image": red, "n": 1}), Document("one", id="b")]
    )
    before = store.get_by_ids(["a", "b"])
    store.add_documents(before)
    assert store.get_by_ids(["a", "b"]) == before
    store.update_metadata({"a": {"n": 2}})
    assert store.get_by_ids(["a"])[0].metadata == {"content_type": "image", "image": str(red), "n": 2}


def test_images_that_cannot_be_read_are_named(store: LateInteractionVectorStore, tmp_path: Path) -> None:
    images: list[Any] = [tmp_path / "none.png", b"nothing", {"a": 1}, "https://example.org/a.png", png("red")]
    metadatas = [{"image": image} for image in images]
    with pytest.raises(DocumentError) as caught:
        store.add_texts([""] * 5, metadatas, ids=list("abcde"))
    reasons = [failure.reason for failure in caught.value.failures]
    assert caught.value.indexed == []
    assert store.search_by_metadata() == []
    assert store.add_texts([""] * 5, metadatas, ids=list("abcde"), on_error="skip") == ["e"]
    for reason, said in zip(
        reasons, ("cannot be read", "is not a BMP", "not a dict", "allow_urls=True"), strict=True
    ):
        assert said in reason


@pytest.mark.parametrize("store_images", ["thumbnail", "full"])
def test_what_is_stored_of_an_image(make_store: MakeStore, red: Path, store_images: Any) -> None:
    store = make_store(model=ColourModel(), store_images=store_images)
    store.add_documents([Blob.from_path(red), Blob.from_data(png("blue"))], ids=["a", "b"])
    key = "thumbnail" if store_images == "thumbnail" else "image"
    for document in store.get_by_ids(["a", "b"]):
        assert load_image(document.metadata[key]).size == (40, 30)


def test_urls_are_fetched_on_request_and_from_public_addresses_only(tmp_path: Path) -> None:
    with (
        LateInteractionVectorStore(model=ColourModel(), path=tmp_path, allow_urls=True) as store,
        pytest.raises(DocumentError, match="public"),
    ):
        store.add_texts([""], [{"image": "http://127.0.0.1:1/a.png"}])


async def test_to_a_model_of_text_an_image_is_metadata(tmp_path: Path, red: Path) -> None:
    with LateInteractionVectorStore(model=HashModel(), path=tmp_path / "db") as store:
        page = Document("a page of the web", id="a", metadata={"image": "https://example.org/logo.png"})
        store.add_documents([page])
        assert store.similarity_search("a page") == [page]
        for image in (Blob.from_path(red), Document("", metadata={"image": str(red)})):
            with pytest.raises(DocumentError, match="it is an image, and hash encodes text"):
                store.add_documents([image])
        with pytest.raises(DocumentError, match="which has no plain form"):
            store.add_texts(["text"], [{"image": picture("red")}])
        for query in (red, picture("red")):
            with pytest.raises(ValueError, match="hash encodes text"):
                store.similarity_search(query)
            with pytest.raises(ValueError, match="hash encodes text"):
                await store.amax_marginal_relevance_search(query)
    for options in ({"store_images": "thumbnail"}, {"allow_urls": True}):
        with pytest.raises(ValueError, match="are for images, and hash encodes text"):
            LateInteractionVectorStore(model=HashModel(), path=tmp_path, **options)
    with (
        SyncPipeline(tmp_path / "db", HashModel()) as pipeline,
        pytest.raises(ValueError, match="leave the other arguments out"),
    ):
        LateInteractionVectorStore(pipeline, store_images="full")


def test_images_that_the_core_wrote(tmp_path: Path, red: Path) -> None:
    with SyncPipeline(tmp_path / "db", ColourModel()) as pipeline:
        pipeline.index_document({"doc_id": "a", "image": red, "content": "a wall"})
        [found] = LateInteractionVectorStore(pipeline).similarity_search("red")
    assert found == Document("a wall", id="a", metadata={"content_type": "image", "image": str(red)})


def test_a_chain_shows_the_images_to_a_chat_model(tmp_path: Path) -> None:
    with LateInteractionVectorStore(model=ColourModel(), path=tmp_path, store_images="full") as store:
        store.add_documents([Blob.from_data(png(colour)) for colour in COLOURS])
        seen: list[HumanMessage] = []

        def message(documents: list[Document]) -> list[HumanMessage]:
            images: list[Any] = [
                {"type": "image_url", "image_url": {"url": document.metadata["image"]}}
                for document in documents
                if document.metadata.get("content_type") == "image"
            ]
            seen.append(HumanMessage([*images, {"type": "text", "text": "What colour is this?"}]))
            return seen

        chain = LateInteractionRetriever(vectorstore=store, k=1) | RunnableLambda(message)
        answer = (chain | FakeListChatModel(responses=["green"])).invoke("green")
        assert answer.content == "green"
        assert seen[0].content[0] == {"type": "image_url", "image_url": {"url": uri("green")}}


@pytest.mark.slow
def test_a_visual_checkpoint_by_its_name(tmp_path: Path) -> None:
    pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")
    from tests.support.visual_checkpoints import visual_checkpoint

    name = str(visual_checkpoint(tmp_path / "colpali", "colpali"))
    images = [picture("red"), picture("blue", "white"), picture("green", "red")]
    with LateInteractionVectorStore(model=name, path=tmp_path / "db") as store:
        assert isinstance(store.pipeline.model, ColPaliModel)
        store.add_texts([""] * 3, [{"image": image} for image in images], ids=["a", "b", "c"])
        store.add_texts(["the cat"], ids=["d"])
        assert [ids(store.similarity_search(image, k=1)) for image in images] == [["a"], ["b"], ["c"]]
        assert len(store.similarity_search("the cat", k=9)) == 4
