"""The tests of the hub run: here on tiny models, whose values are others than those published."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from late_interaction import ColBERTModel, ColPaliModel
from tests.integration import test_hub
from tests.support import checkpoints
from tests.unit.visual_encoders.models import IMAGES, TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture
def tiny(tmp_path: Path, visual_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put tiny models and tables in the place of those of the hub."""
    text = checkpoints.stanford_checkpoint(tmp_path / "text", query_maxlen=32, doc_maxlen=40)

    def table(dataset: str, part: str = "") -> list[dict[str, Any]]:
        if dataset == test_hub.PAGES:
            buffers = [io.BytesIO() for _ in TEXTS]
            for image, buffer in zip(IMAGES, buffers, strict=False):
                image.save(buffer, "PNG")
            pages = [{"bytes": buffer.getvalue()} for buffer in buffers]
            return [{"image": page, "query": query} for page, query in zip(pages, TEXTS, strict=True)]
        rows = [{"_id": str(i), "text": text} for i, text in enumerate(test_hub.DOCUMENTS)]
        return {"corpus": rows, "queries": rows[:1], "qrels": [{"query-id": "0", "corpus-id": "9"}]}[part]

    monkeypatch.setattr(test_hub, "table", table)
    monkeypatch.setattr(
        test_hub, "ColBERTModel", lambda name, **options: ColBERTModel(text, device="cpu", **options)
    )
    monkeypatch.setattr(
        test_hub, "ColPaliModel", lambda name, **options: ColPaliModel(visual_model, device="cpu", **options)
    )


@pytest.mark.parametrize("test", ["scores_are_those_published", "scores_of_pages_are_those_published"])
def test_scores_are_compared(test: str, tiny: None) -> None:
    name = next(iter(test_hub.PAGE_SCORES if "pages" in test else test_hub.SCORES))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        getattr(test_hub, f"test_{test}")(name)


def test_vectors_and_accuracy_are_compared(tiny: None) -> None:
    with pytest.raises(AssertionError, match="assert 16 =="):  # The width.
        test_hub.test_vectors_are_those_published("colbert-ir/colbertv2.0")
    with pytest.raises(AssertionError):
        test_hub.test_accuracy_is_that_published("lightonai/GTE-ModernColBERT-v1")
