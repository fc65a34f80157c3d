"""Blank texts are documents that no search finds; bad rows keep a call out, or are left out, as the caller says."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from late_interaction import (
    AstraStore,
    ColBERTModel,
    Document,
    DocumentError,
    LateInteractionPipeline,
    LocalStore,
)
from late_interaction.rows import content_id
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.local.limits import Limits
from tests.stores.astra import FITTED
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import DataApiServer

BLANKS = {"empty": "", "spaces": " \n\t\u00a0", "invisible": "\u200b\ufeff\u2060", "nul": "\0"}
ROWS = [
    {"doc_id": "apple", "content": "an apple pie", "page": 1},
    *({"doc_id": doc_id, "content": text, "page": 2} for doc_id, text in BLANKS.items()),
    {"doc_id": "pear", "content": "a pear tart", "page": 3},
]


@pytest.fixture(
    params=[
        "folder",
        pytest.param("astra", marks=pytest.mark.slow),
        pytest.param("astra by documents", marks=pytest.mark.slow),
    ]
)
async def pipeline(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[LateInteractionPipeline]:
    """Return an open pipeline of one engine; `page` is a declared field on Astra."""
    if request.param == "folder":
        async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
            yield pipeline
        return
    async with DataApiServer() as server:
        options = {"candidates": "documents", "limits": FITTED} if "documents" in request.param else {}
        store = AstraStore(server.async_database(), filterable={"page": int}, **options)  # type: ignore[arg-type]
        async with LateInteractionPipeline(store, HashModel()) as pipeline:
            yield pipeline


# --- blank texts


async def test_blank_texts_are_documents_that_no_search_finds(pipeline: LateInteractionPipeline) -> None:
    assert await pipeline.index_documents(ROWS) == [row["doc_id"] for row in ROWS]
    assert await pipeline.count() == 6
    assert await pipeline.count({"page": 2}) == 4
    assert {d.doc_id: d.content for d in await pipeline.get_documents(list(BLANKS))} == BLANKS
    assert {document.doc_id for document in await pipeline.find({"page": 2})} == set(BLANKS)
    for options in ({}, {"exact": True}, {"ids": ["apple", *BLANKS, "pear"]}, {"distinct": True}):
        assert ids(await pipeline.search("an apple pie", k=10, **options)) == ["apple", "pear"]  # type: ignore[arg-type]
    assert await pipeline.search("an apple pie", filter={"page": 2}) == []
    assert await pipeline.search("an apple pie", filter={"page": 2}, exact=True) == []
    assert list(await pipeline.get_matrices(["empty", "apple"])) == ["apple"]
    assert (await pipeline.store.info())["documents"] == 6


async def test_a_blank_text_is_updated_replaced_and_deleted_like_any_other(
    pipeline: LateInteractionPipeline,
) -> None:
    await pipeline.index_documents(ROWS)
    assert await pipeline.update_metadata("empty", {"page": 9, "note": "scanned"})
    assert [d.metadata for d in await pipeline.find({"page": 9})] == [{"page": 9, "note": "scanned"}]
    await pipeline.index_document({"doc_id": "spaces", "content": "a plum cake", "page": 2})
    await pipeline.index_document({"doc_id": "apple", "content": "", "page": 1})
    assert ids(await pipeline.search("an apple pie plum cake", k=10)) == ["spaces", "pear"]
    assert await pipeline.delete_documents(["nul", "unknown"]) == 1
    assert await pipeline.delete_documents({"page": 2}) == 2
    assert await pipeline.count() == 3


async def test_a_copy_has_the_blank_texts(pipeline: LateInteractionPipeline, tmp_path: Path) -> None:
    await pipeline.index_documents(ROWS)
    assert await pipeline.copy_to(tmp_path / "copy") == 6
    async with LateInteractionPipeline(tmp_path / "copy", HashModel(), pipeline.store.name) as copy:
        assert await copy.count({"page": 2}) == 4
        assert ids(await copy.search("an apple pie", k=10)) == ["apple", "pear"]


async def test_an_index_of_blank_texts_alone_answers_with_nothing(pipeline: LateInteractionPipeline) -> None:
    await pipeline.index_documents(ROWS[1:5])
    assert await pipeline.search("anything") == []
    assert await pipeline.search("anything", exact=True) == []


async def test_blank_texts_beside_a_search_index(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, limits=Limits(exact_tokens=50))
    async with LateInteractionPipeline(store, HashModel()) as pipeline:
        rows = [
            {"doc_id": str(i), "content": "" if i % 3 == 0 else f"word{i} of page{i % 7}", "third": i % 3}
            for i in range(300)
        ]
        await pipeline.index_documents(rows)
        assert (await store.info())["centroids"] > 0
        await pipeline.index_document({"doc_id": "late", "content": ""})
        assert (await store.info())["documents"] == 301
        assert (await pipeline.search("word100", k=1))[0].doc_id == "100"
        found = await pipeline.search("word99 page1", k=300, exact=True)
        assert len(found) == 200
        assert all(result.content for result in found)
        await pipeline.delete_documents({"third": 0})
        await pipeline.optimize()
        assert (await store.info())["documents"] == 201


@pytest.mark.slow
async def test_the_doctor_finds_blank_texts_healthy() -> None:
    async with DataApiServer() as server:
        database = server.async_database()
        async with LateInteractionPipeline(database, HashModel()) as pipeline:
            await pipeline.index_documents(ROWS)
            await pipeline.update_metadata("empty", {"page": 5})
            health = await diagnose(pipeline.store, full=True, repair=True)  # type: ignore[arg-type]
        assert health.healthy
        assert (health.documents, health.leftovers) == (6, 0)


async def test_a_text_without_a_token_is_stored_and_told(
    tmp_path: Path, minilm: ColBERTModel, caplog: pytest.LogCaptureFixture
) -> None:
    """As of a page of a PDF whose fonts say nothing of their characters."""
    async with LateInteractionPipeline(tmp_path, minilm) as pipeline:
        rows = [
            {"doc_id": "glyphs", "content": "\uf0b7 \uf0a7\ufffd"},
            {"doc_id": "tide", "content": "The tide."},
        ]
        with caplog.at_level(logging.WARNING):
            assert await pipeline.index_documents(rows, on_error="raise") == ["glyphs", "tide"]
        assert "1 of 2 documents have no token that" in caplog.text
        assert "no search finds them: 'glyphs'." in caplog.text
        assert await pipeline.count() == 2
        assert ids(await pipeline.search("tide", k=5)) == ["tide"]


# --- bad rows

GOOD = [{"doc_id": str(i), "content": f"document {i}"} for i in range(40)]


def bad_row(pipeline: LateInteractionPipeline) -> dict[str, object]:
    """A row that the store of this engine does not take, or where it takes all, that has no content."""
    is_astra = not isinstance(pipeline.store, LocalStore)
    return {"doc_id": "bad", "content": "text", "page": "two"} if is_astra else {"doc_id": "bad"}


async def test_raise_writes_nothing_where_one_row_is_bad(pipeline: LateInteractionPipeline) -> None:
    rows = [*GOOD, bad_row(pipeline)]
    with pytest.raises(DocumentError, match="indexed: 0") as caught:
        await pipeline.index_documents(iter(rows), batch_size=5, on_error="raise")
    assert [failure.row for failure in caught.value.failures] == [40]
    assert await pipeline.count() == 0
    assert len(await pipeline.index_documents(rows[:-1], on_error="raise")) == 40


async def test_raise_writes_nothing_more_once_a_text_cannot_be_encoded(
    pipeline: LateInteractionPipeline,
) -> None:
    rows = [*GOOD[:10], {"doc_id": "bad", "content": "unencodable"}, *GOOD[10:]]
    with pytest.raises(DocumentError) as caught:
        await pipeline.index_documents(rows, batch_size=5, on_error="raise")
    assert caught.value.indexed == [str(i) for i in range(10)]
    assert await pipeline.count() == 10
    with pytest.raises(DocumentError, match="indexed: 0"):
        await pipeline.index_documents([{"content": "unencodable"}, *GOOD[10:15]], on_error="raise")
    assert await pipeline.count() == 10


async def test_skip_writes_the_others_and_returns_what_was_left_out(
    pipeline: LateInteractionPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [GOOD[0], bad_row(pipeline), {"content": "unencodable"}, GOOD[1]]
    with caplog.at_level(logging.WARNING):
        indexed = await pipeline.index_documents(rows, on_error="skip")
    assert indexed == ["0", "1"]
    assert [(failure.row, failure.doc_id) for failure in indexed.failures][:1] == [(1, "bad")]
    assert [failure.row for failure in indexed.failures] == [1, 2]
    assert "2 of 4 rows were left out" in caplog.text
    assert await pipeline.count() == 2
    assert (await pipeline.index_documents(GOOD[:2], on_error="skip")).failures == []


async def test_raise_checks_vectors_too(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel(dim=2)) as pipeline:
        with pytest.raises(DocumentError, match="must have length 1"):
            await pipeline.index_embeddings(
                GOOD[:3], [[[1, 0]], [[0, 1]], [[5, 5]]], batch_size=1, on_error="raise"
            )
        assert await pipeline.count() == 0
        with pytest.raises(ValueError, match="more rows than matrices"):
            await pipeline.index_embeddings(GOOD[:3], [[[1, 0]]], on_error="raise")


async def test_raise_reads_all_images_first(tmp_path: Path, visual_model: Path) -> None:
    from PIL import Image

    from late_interaction import ColPaliModel

    Image.new("RGB", (32, 32)).save(tmp_path / "there.png")
    rows = [{"image": tmp_path / "there.png"} for _ in range(3)] + [{"image": tmp_path / "gone.png"}]
    async with LateInteractionPipeline(tmp_path, ColPaliModel(str(visual_model), device="cpu")) as pipeline:
        with pytest.raises(DocumentError, match=r"gone\.png"):
            await pipeline.index_documents(rows, batch_size=1, on_error="raise")
        assert await pipeline.count() == 0
        await pipeline.index_documents([{**rows[0], "doc_id": "there"}], on_error="raise")
        known = [{**rows[-1], "doc_id": "there"}, {"content": "new", "doc_id": "new"}]
        await pipeline.index_documents(
            known, on_error="raise", skip_existing=True
        )  # reads no image of what is there
        assert await pipeline.count() == 2


@pytest.mark.parametrize("option", [{"on_error": "ignore"}, {"on_error": None}, {"ids": ["a"]}])
async def test_other_values_are_refused(tmp_path: Path, option: dict[str, object]) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        with pytest.raises(ValueError, match="must be one of"):
            await pipeline.index_documents([], **option)  # type: ignore[arg-type]


# --- ids by content


async def test_ids_by_content_are_the_same_in_every_run(pipeline: LateInteractionPipeline) -> None:
    rows = [
        {"content": "terms", "source": "a.pdf"},
        {"content": "terms", "source": "b.pdf"},
        {"content": "", "source": "a.pdf"},
        {"content": "named", "doc_id": "mine"},
    ]
    first = await pipeline.index_documents(rows, ids="content")
    assert await pipeline.index_documents(rows, ids="content") == first
    assert len(set(first)) == 4
    assert first[3] == "mine"
    assert [uuid.UUID(doc_id).version for doc_id in first[:3]] == [5, 5, 5]
    assert await pipeline.count() == 4
    assert await pipeline.index_documents(rows[:1]) != first[:1]


def test_an_id_by_content_does_not_depend_on_the_order_of_keys_and_does_on_all_else(tmp_path: Path) -> None:
    from PIL import Image

    one = content_id("text", {"a": 1, "b": [1, 2]})
    assert one == content_id("text", {"b": [1, 2], "a": 1})
    red, blue = Image.new("RGB", (2, 2), "red"), Image.new("RGB", (2, 2), "blue")
    others = [
        content_id("text", {"a": 1}), content_id("other", {"a": 1, "b": [1, 2]}), content_id("text", {}),
        content_id("", {}, tmp_path / "x.png"), content_id("", {}, b"x"), content_id("", {}, red),
        content_id("", {}, blue), content_id("", {}, "https://a.example/x.png"),
    ]  # fmt: skip
    assert len({one, *others}) == 9
    assert content_id("", {}, red.copy()) == content_id("", {}, red)


async def test_a_document_of_content_type_image_needs_a_path(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        with pytest.raises(DocumentError, match="no path or URL in it"):
            await pipeline.index_document(Document("x", " ", "image"))
