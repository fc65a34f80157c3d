"""Rows as a caller gives them: mappings, and documents whose metadata may have any name."""

from __future__ import annotations

from decimal import Decimal
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    Document,
    DocumentError,
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    StoreError,
)
from late_interaction.rows import Encodable, check_row
from tests.support.failing import FailsAtItsThirdWrite
from tests.support.models import HashModel


async def test_a_document_is_a_row_whose_metadata_may_have_reserved_names(tmp_path: Path) -> None:
    metadata = {"content": "of the metadata", "doc_id": 7, "content_type": ["x"], "id": 1}
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        assert await pipeline.index_documents([Document("a", "one two", metadata=metadata)]) == ["a"]
        assert await pipeline.get_documents(["a"]) == [Document("a", "one two", "text", metadata)]
        assert [d.doc_id for d in await pipeline.find({"doc_id": 7})] == ["a"]


async def test_a_wrong_document_is_named(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        with pytest.raises(DocumentError, match=r"'b'.*surrogate") as caught:
            await pipeline.index_documents([Document("a", "one"), Document("b", "\ud800")])
        assert (caught.value.indexed, caught.value.failures[0].doc_id) == (["a"], "b")


async def test_when_the_store_fails_its_error_says_what_was_written(tmp_path: Path) -> None:
    rows = [
        {"doc_id": name, "content": text} for name, text in zip("abcdefgh", ["one"] * 7 + [None], strict=True)
    ]
    rows[1]["content"] = None
    async with LateInteractionPipeline(FailsAtItsThirdWrite(tmp_path), HashModel()) as pipeline:
        with pytest.raises(StoreError, match="out of order") as caught:
            await pipeline.index_documents(rows, batch_size=2)
        assert caught.value.indexed == ["a", "c", "d"]
        assert [document.doc_id for document in await pipeline.find()] == ["a", "c", "d"]


async def test_an_image_may_be_stored_beside_a_text_that_is_encoded(tmp_path: Path) -> None:
    """As of a page with its text, by a model that encodes text only."""
    row = Encodable(Document("a", "shown"), "s3://bucket/page.png", "hidden words")
    async with LateInteractionPipeline(tmp_path, HashModel(), doc_pool_factor=1) as pipeline:
        await pipeline.index_documents([row])
        [result] = await pipeline.search("hidden words", k=1)
        assert result.score == pytest.approx(2, abs=0.02)
        assert (result.content_type, result.metadata) == ("image", {"image": "s3://bucket/page.png"})


async def test_what_is_encoded_may_differ_from_what_is_stored(tmp_path: Path) -> None:
    model = HashModel()
    rows = [
        Encodable(Document("a", "shown", metadata={"content": 1}), text="hidden words"),
        Encodable(Document("b", "plain")),
    ]
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1) as pipeline:
        assert await pipeline.index_documents(rows) == ["a", "b"]
        assert model.encoded == ["hidden words", "plain"]
        [result] = await pipeline.search("hidden words", k=1)
        assert (result.doc_id, result.content, result.metadata) == ("a", "shown", {"content": 1})
        assert result.score == pytest.approx(2, abs=0.02)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Encodable(Document("a", "x"), text=" "), "'text' is empty"),
        (Encodable(Document("a", "x"), text=3), "'text' is a int"),  # type: ignore[arg-type]
        (Encodable(Document("a", "x"), image=b"x"), "encodes text"),
    ],
)
async def test_a_wrong_encodable_is_named(tmp_path: Path, row: Encodable, message: str) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        with pytest.raises(DocumentError, match=rf"'a'.*{message}"):
            await pipeline.index_documents([row])


DEEP: Any = reduce(lambda inner, _: [inner], range(50_000), None)


@pytest.mark.parametrize(
    "row",
    [
        {"content": "x", "doc_id": DEEP},
        {"content": "x", "content_type": DEEP},
        {"content": DEEP},
        {"content": "x", "a": DEEP},
        {"content": "x", "a": 10**5000},
        {"content": "x", "a": np.float64("inf")},
        {"content": "x", "content_type": np.zeros(2)},
        {"image": np.zeros(2), "content_type": np.zeros(2)},
        {"content": "x", "\ud800": object()},
        {10**5000: "x"},
        Document("x", "x", metadata=None),  # type: ignore[arg-type]
        Document("x", "x", DEEP),
        DEEP,
    ],
)
async def test_whatever_a_row_holds_it_is_named_and_the_others_are_indexed(tmp_path: Path, row: Any) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        with pytest.raises(DocumentError) as caught:
            await pipeline.index_documents([{"doc_id": "good", "content": "good"}, row])
        assert caught.value.indexed == ["good"]
        assert await pipeline.count() == 1


@pytest.mark.parametrize(
    "matrix",
    [
        [[10**400, 0.0]],
        [[1j, 0.0]],
        np.ma.masked_array([[1.0, 0.0]], mask=[[False, True]]),
        [[1.0], [0.0, 1.0]],
        [["a", "b"]],
        [[1e39, 0.0]],
        [[np.nan, 1.0]],
        [],
        None,
        DEEP,
    ],
)
async def test_a_wrong_matrix_is_named_and_the_others_are_indexed(tmp_path: Path, matrix: Any) -> None:
    model = PrecomputedEmbeddings(2, "mine")
    rows = [{"doc_id": "good", "content": "x"}, {"doc_id": "bad", "content": "x"}]
    async with LateInteractionPipeline(tmp_path, model) as pipeline:
        with pytest.raises(DocumentError, match=r"'bad'.*token vectors must") as caught:
            await pipeline.index_embeddings(rows, [[[1.0, 0.0]], matrix])
        assert caught.value.indexed == ["good"]
        with pytest.raises(ValueError, match="token vectors must"):
            await pipeline.search_with_embeddings(matrix)


class NAType:
    """What pandas calls its missing value; it has no truth."""

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


@pytest.mark.parametrize(
    "missing", [None, float("nan"), np.float32("nan"), Decimal("nan"), np.datetime64("NaT"), NAType()]
)
@pytest.mark.parametrize("ids", ["content", "random"])
def test_an_image_that_is_missing_is_none(missing: object, ids: Any) -> None:
    pending = check_row({"content": "a", "image": missing}, ids=ids)
    assert (pending.image, pending.document.content_type, pending.item) == (None, "text", "a")
    pending = check_row({"content": missing, "image": "a.png"}, ids=ids)
    assert (pending.image, pending.document.content) == ("a.png", "")
    with pytest.raises(ValueError, match="no 'content' and no 'image'"):
        check_row({"image": missing}, ids=ids)


@pytest.mark.parametrize("image", [5, float("inf"), ["a.png"], np.zeros((2, 2, 3)), object()])
@pytest.mark.parametrize("ids", ["content", "random"])
def test_an_image_of_another_type_is_named(image: object, ids: Any) -> None:
    with pytest.raises(TypeError, match=rf"an image is a PIL image, .*, not a {type(image).__name__}"):
        check_row({"content": "a", "image": image}, ids=ids)
    with pytest.raises(TypeError, match="an image is a PIL image"):
        check_row(Encodable(Document("a", "a"), image=image), ids=ids)  # type: ignore[arg-type]
