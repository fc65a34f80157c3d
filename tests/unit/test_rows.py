"""Rows as a caller gives them: mappings, and documents whose metadata may have any name."""

from __future__ import annotations

from pathlib import Path

import pytest

from late_interaction import (
    Document,
    DocumentError,
    LateInteractionPipeline,
    StoreError,
)
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
        with pytest.raises(DocumentError, match=r"'b'.*empty") as caught:
            await pipeline.index_documents([Document("a", "one"), Document("b", " ")])
        assert (caught.value.indexed, caught.value.failures[0].doc_id) == (["a"], "b")


async def test_when_the_store_fails_its_error_says_what_was_written(tmp_path: Path) -> None:
    rows = [
        {"doc_id": name, "content": text} for name, text in zip("abcdefgh", ["one"] * 7 + [" "], strict=True)
    ]
    rows[1]["content"] = ""
    async with LateInteractionPipeline(FailsAtItsThirdWrite(tmp_path), HashModel()) as pipeline:
        with pytest.raises(StoreError, match="out of order") as caught:
            await pipeline.index_documents(rows, batch_size=2)
        assert caught.value.indexed == ["a", "c", "d"]
        assert [document.doc_id for document in await pipeline.find()] == ["a", "c", "d"]
