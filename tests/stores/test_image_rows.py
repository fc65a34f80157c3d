"""Images as documents and as queries of a pipeline, beside texts, with a model that needs no weights."""

from __future__ import annotations

import asyncio
import base64
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    Document,
    DocumentError,
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    SyncPipeline,
    indexing,
    load_image,
)
from late_interaction.errors import StoreError
from late_interaction.images import storing
from late_interaction.rows import Encodable
from tests.support.colours import COLOURS, ColourModel, picture, png
from tests.support.models import HashModel
from tools.data_api import DataApiServer

Image = pytest.importorskip("PIL.Image", reason="the colpali extra is not installed")


@pytest.fixture
def model() -> ColourModel:
    return ColourModel()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in COLOURS:
        picture(name).save(folder / f"{name}.png")
    return folder


def pipeline_at(folder: Path, model: Any, **settings: Any) -> LateInteractionPipeline:
    return LateInteractionPipeline(folder / "db", model, doc_pool_factor=1, **settings)


# --- what is found


async def test_texts_find_images_and_images_find_both(
    tmp_path: Path, model: ColourModel, files: Path
) -> None:
    rows = [
        {"doc_id": "photo", "image": picture("red", "blue"), "year": 2020},
        {"doc_id": "file", "image": files / "green.png", "content": "a lawn"},
        {"doc_id": "text", "content": "red red red"},
        {"doc_id": "bytes", "image": png("white")},
    ]
    async with pipeline_at(tmp_path, model) as pipeline:
        assert await pipeline.index_documents(rows) == ["photo", "file", "text", "bytes"]
        assert [document.doc_id for document in await pipeline.find()] == ["photo", "file", "text", "bytes"]
        results = await pipeline.search("blue", k=1)
        assert results[0].score == pytest.approx(1, abs=0.02)
        assert [(r.doc_id, r.content, r.content_type, r.metadata) for r in results] == [
            ("photo", "image of 40×30 pixels", "image", {"year": 2020})
        ]
        [lawn] = await pipeline.search("green", k=1)
        assert (lawn.content, lawn.metadata) == ("a lawn", {"image": str(files / "green.png")})
        queries = [picture("red"), "white", files / "green.png", png("blue")]
        found = await pipeline.search_many(queries, k=2)
        assert {result.doc_id for result in found[0]} == {"text", "photo"}
        assert [results[0].doc_id for results in found[1:]] == ["bytes", "file", "photo"]
        one = await pipeline.search(picture("red"), k=2)
        assert [(r.doc_id, r.score) for r in one] == [(r.doc_id, r.score) for r in found[0]]
        filtered = await pipeline.search(picture("red"), filter={"year": 2020})
        assert [result.doc_id for result in filtered] == ["photo"]


async def test_a_str_is_a_text_as_a_query_and_a_path_as_an_image(
    tmp_path: Path, model: ColourModel, files: Path
) -> None:
    async with pipeline_at(tmp_path, model) as pipeline:
        await pipeline.index_document({"doc_id": "a", "image": str(files / "red.png")})
        assert (await pipeline.search(str(files / "red.png")))[0].score < 0.9
        assert (await pipeline.search(files / "red.png"))[0].score == pytest.approx(4, abs=0.1)


async def test_a_query_that_is_no_image_is_refused(tmp_path: Path, model: ColourModel) -> None:
    async with pipeline_at(tmp_path, model) as pipeline:
        with pytest.raises(ValueError, match="is not a BMP"):
            await pipeline.search(b"nothing")
        with pytest.raises(TypeError, match="not a int"):
            await pipeline.search(3)  # type: ignore[arg-type]


async def test_a_text_model_refuses_images_and_says_which(tmp_path: Path) -> None:
    async with pipeline_at(tmp_path, HashModel()) as pipeline:
        with pytest.raises(
            DocumentError, match=r"row 1 \(doc_id 'b'\): it is an image, and hash encodes text"
        ):
            await pipeline.index_documents(
                [{"doc_id": "a", "content": "text"}, {"doc_id": "b", "content": "x", "image": picture("red")}]
            )
        assert [document.doc_id for document in await pipeline.find()] == ["a"]
        with pytest.raises(
            ValueError, match="query at position 1 is not a str but Image, and hash encodes text"
        ):
            await pipeline.search_many(["text", picture("red")])


def test_the_sync_pipeline_takes_the_same(tmp_path: Path, model: ColourModel, files: Path) -> None:
    with SyncPipeline(tmp_path / "db", model, store_images="thumbnail") as pipeline:
        pipeline.index_documents({"doc_id": name, "image": files / f"{name}.png"} for name in COLOURS)
        assert pipeline.search(picture("blue"), k=1)[0].doc_id == "blue"
        assert pipeline.search_many([files / "red.png", "green"], k=1)[1][0].doc_id == "green"
        assert pipeline.get_documents(["red"])[0].metadata["thumbnail"].startswith("data:image/jpeg")


# --- what is stored


async def test_a_reference_is_what_is_stored_by_default(
    tmp_path: Path, model: ColourModel, files: Path
) -> None:
    async with pipeline_at(tmp_path, model) as pipeline:
        path = str(files / "red.png")
        await pipeline.index_documents([{"doc_id": "a", "image": path}, {"doc_id": "b", "image": png("red")}])
        assert await pipeline.get_documents(["a", "b"]) == [
            Document("a", path, "image", {"image": path}),
            Document("b", "image of 40×30 pixels", "image", {}),
        ]


@pytest.mark.parametrize("store_images", ["thumbnail", "full"])
async def test_a_stored_image_survives_everything(
    tmp_path: Path, model: ColourModel, files: Path, store_images: Any
) -> None:
    async with pipeline_at(tmp_path, model, store_images=store_images) as pipeline:
        await pipeline.index_document({"doc_id": "a", "image": files / "red.png", "year": 1})
        [document] = await pipeline.get_documents(["a"])
        key = "thumbnail" if store_images == "thumbnail" else "image"
        assert load_image(document.metadata[key]).size == (40, 30)
        assert await pipeline.copy_to(tmp_path / "copy") == 1
        assert (await pipeline.search("red"))[0].metadata == document.metadata
        await pipeline.update_metadata("a", {"year": 2})
        # A document that comes from an index can be indexed as it is, whatever is stored of new ones.
        async with pipeline_at(tmp_path / "other", model) as other:
            await other.index_document(document)
            assert await other.get_documents(["a"]) == [document]
            assert (await other.search("red"))[0].score == pytest.approx(1, abs=0.02)
    async with LateInteractionPipeline(tmp_path / "copy", model, doc_pool_factor=1) as copy:
        assert await copy.get_documents(["a"]) == [document]


async def test_a_stored_image_survives_a_database(tmp_path: Path, model: ColourModel) -> None:
    """From a folder to Astra's tables and back, and found there by another image."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8))
    for edge in ((0, 0, 600, 1), (0, 599, 600, 600)):
        noise.paste(COLOURS["green"], edge)
    rows = [{"doc_id": "noise", "image": noise}, {"doc_id": "red", "image": picture("red"), "year": 1}]
    async with DataApiServer() as server:
        database = LateInteractionPipeline(server.async_database(), model, doc_pool_factor=1)
        async with pipeline_at(tmp_path, model, store_images="thumbnail") as folder, database:
            await folder.index_documents(rows)
            documents = await folder.get_documents(["noise", "red"])
            assert len(documents[0].metadata["thumbnail"]) > 50_000
            assert await folder.copy_to(database) == 2
            assert await database.get_documents(["noise", "red"]) == documents
            assert await database.copy_to(tmp_path / "back") == 2
            [found] = await database.search(picture("red"), k=1)
            assert (found.doc_id, found.content_type, found.metadata) == (
                "red",
                "image",
                documents[1].metadata,
            )
    async with LateInteractionPipeline(tmp_path / "back", model, doc_pool_factor=1) as back:
        assert await back.get_documents(["noise", "red"]) == documents


async def test_a_document_may_refer_to_its_image_by_its_content(
    tmp_path: Path, model: ColourModel, files: Path
) -> None:
    document = Document("a", str(files / "red.png"), "image", {"year": 1})
    async with pipeline_at(tmp_path, model, store_images="thumbnail") as pipeline:
        await pipeline.index_document(document)
        assert (await pipeline.search("red"))[0].score == pytest.approx(1, abs=0.02)
        assert await pipeline.get_documents(["a"]) == [document]
        with pytest.raises(DocumentError, match="the image a caption cannot be read"):
            await pipeline.index_document(Document("b", "a caption", "image"))


async def test_a_thumbnail_of_ones_own_is_kept(tmp_path: Path, model: ColourModel, files: Path) -> None:
    async with pipeline_at(tmp_path, model, store_images="thumbnail") as pipeline:
        await pipeline.index_document({"doc_id": "a", "image": files / "red.png", "thumbnail": "mine"})
        assert (await pipeline.get_documents(["a"]))[0].metadata["thumbnail"] == "mine"


async def test_an_image_too_large_for_a_row_is_refused(
    tmp_path: Path, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storing, "MAX_STORED", 500)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 30, 3), dtype=np.uint8))
    rows = [{"doc_id": "a", "image": noise}, {"doc_id": "b", "image": picture("red")}]
    async with pipeline_at(tmp_path, model, store_images="full") as pipeline:
        with pytest.raises(DocumentError, match="500 is the most") as caught:
            await pipeline.index_documents(rows)
        assert caught.value.indexed == ["b"]


async def test_vectors_of_images_made_elsewhere(tmp_path: Path, files: Path) -> None:
    unit = np.eye(8, dtype=np.float32)
    rows = [
        {"doc_id": "elsewhere", "image": "s3://bucket/a.png", "year": 1},
        {"doc_id": "here", "image": files / "red.png", "content": "a wall"},
        {"doc_id": "in memory", "image": picture("red")},
    ]
    model = PrecomputedEmbeddings(8, "mine")
    async with pipeline_at(tmp_path, model) as pipeline:
        await pipeline.index_embeddings(rows, [unit[i : i + 1] for i in range(3)])
        assert await pipeline.get_documents(["elsewhere", "here", "in memory"]) == [
            Document("elsewhere", "s3://bucket/a.png", "image", {"image": "s3://bucket/a.png", "year": 1}),
            Document("here", "a wall", "image", {"image": str(files / "red.png")}),
            Document("in memory", "image of 40×30 pixels", "image", {}),
        ]
    async with pipeline_at(tmp_path / "2", model, store_images="thumbnail") as pipeline:
        with pytest.raises(DocumentError, match=r"'elsewhere'.*cannot be read") as caught:
            await pipeline.index_embeddings(rows, [unit[i : i + 1] for i in range(3)])
        assert caught.value.indexed == ["here", "in memory"]
        assert await pipeline.count() == 2


# --- rows that fail


async def test_bad_images_are_named_and_the_others_indexed(
    tmp_path: Path, model: ColourModel, files: Path
) -> None:
    rows: list[dict[str, Any]] = [
        {"doc_id": "good", "image": files / "red.png"},
        {"doc_id": "missing", "image": tmp_path / "none.png"},
        {"doc_id": "broken", "image": b"\x89PNG and nothing"},
        {"doc_id": "url", "image": "https://example.org/a.png"},
        {"doc_id": "wide", "image": picture("red", width=400)},
        {"doc_id": "number", "image": 5},
        {"doc_id": "text", "content": "red", "content_type": "text", "image": files / "red.png"},
        {"doc_id": "nothing", "content": "a caption", "content_type": "image"},
        {"doc_id": "no path", "content": 5, "image": files / "red.png"},
        {"doc_id": "last", "content": "blue"},
    ]
    async with pipeline_at(tmp_path, model) as pipeline:
        with pytest.raises(DocumentError) as caught:
            await pipeline.index_documents(rows)
        assert caught.value.indexed == ["good", "last"]
        assert await pipeline.count() == 2
    reasons = {failure.doc_id: failure.reason for failure in caught.value.failures}
    assert [failure.row for failure in caught.value.failures] == list(range(1, 9))
    expected = {
        "missing": "cannot be read: No such file",
        "broken": "is not a BMP",
        "url": "allow_urls=True",
        "wide": "too wide",
        "number": "not a int",
        "text": "'content_type' is 'text', and the row has an 'image'",
        "nothing": "there is no 'image' to encode",
        "no path": "'content' is a int",
    }
    for doc_id, part in expected.items():
        assert part in reasons[doc_id]


async def test_what_a_model_says_is_no_value_error_ends_the_call(tmp_path: Path, model: ColourModel) -> None:
    def fail(items: object) -> list[np.ndarray]:
        raise StoreError("no memory")

    model.encode_documents = fail  # type: ignore[method-assign]
    async with pipeline_at(tmp_path, model) as pipeline:
        with pytest.raises(StoreError, match="no memory"):
            await pipeline.index_documents([{"image": picture("red")}] * 3)


@pytest.mark.parametrize("setting", ["thumbnails", "", None])
def test_a_wrong_setting_is_refused(tmp_path: Path, model: ColourModel, setting: Any) -> None:
    with pytest.raises(ValueError, match="one of reference, thumbnail, full"):
        pipeline_at(tmp_path, model, store_images=setting)


# --- memory


async def test_few_images_are_in_memory_at_a_time(
    tmp_path: Path, model: ColourModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many rows a batch has: two are encoded, and four wait or are read."""
    monkeypatch.setattr(indexing, "_PIXELS_AT_ONCE", 4 * 40 * 30)
    rendered = 0

    class Lazy:
        reference = "lazy"

        def render(self) -> Any:
            nonlocal rendered
            rendered += 1
            assert rendered <= sum(model.batches) + 6
            return picture("red")

    async with pipeline_at(tmp_path, model) as pipeline:
        rows = [{"doc_id": str(i), "image": Lazy()} for i in range(30)]
        assert len(await pipeline.index_documents(rows)) == 30
        assert model.batches == [2] * 15
        assert rendered == 30
        assert len(model.threads) == 1
        await pipeline.index_documents(rows, skip_existing=True)
        assert rendered == 30


async def test_images_are_loaded_off_the_event_loop(tmp_path: Path, model: ColourModel) -> None:
    loop_thread, threads = threading.get_ident(), set()

    class Lazy:
        reference = "lazy"

        def render(self) -> Any:
            threads.add(threading.get_ident())
            return picture("red")

    async with pipeline_at(tmp_path, model) as pipeline:
        await asyncio.gather(*(pipeline.index_document({"image": Lazy()}) for _ in range(3)))
    assert threads
    assert loop_thread not in threads


def test_base64_in_a_row_is_an_image(tmp_path: Path, model: ColourModel) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(png('blue')).decode()}"
    with SyncPipeline(tmp_path / "db", model) as pipeline:
        pipeline.index_document({"doc_id": "a", "image": uri})
        assert pipeline.search("blue")[0].score == pytest.approx(1, abs=0.02)
        assert pipeline.get_documents(["a"])[0].metadata == {}


async def test_metadata_of_any_name_beside_an_image(tmp_path: Path, model: ColourModel, files: Path) -> None:
    metadata = {"doc_id": "theirs", "content": None, "content_type": 3, "image": "mine"}
    rows = [
        Encodable(Document("a", "", metadata=metadata), files / "red.png"),
        Encodable(Document("b", "a caption"), png("blue")),
        Encodable(Document("c", " "), png("blue")),
        Encodable(Document("d", "x"), png("blue"), text=" "),
    ]
    async with pipeline_at(tmp_path, model) as pipeline:
        with pytest.raises(DocumentError, match=r"row 3 \(doc_id 'd'\): its 'text' is empty") as caught:
            await pipeline.index_documents(rows)
        assert caught.value.indexed == ["a", "b", "c"]
        assert await pipeline.delete_document("c")
        assert await pipeline.get_documents(["a", "b"]) == [
            Document("a", str(files / "red.png"), "image", metadata),
            Document("b", "a caption", "image", {}),
        ]
        assert [result.doc_id for result in await pipeline.search("blue")] == ["b", "a"]
