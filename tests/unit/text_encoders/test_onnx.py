"""`backend="onnx"`: an export made by torch, checked and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="the onnx extra is not installed")

from late_interaction import ColBERTModel, MissingExtraError, ModelError
from late_interaction.encoders import onnx_export
from tests.unit.text_encoders.models import BUILDERS, TEXTS


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "late-interaction" / "onnx"


@pytest.mark.slow
@pytest.mark.parametrize("family", BUILDERS)
def test_it_gives_what_torch_gives(
    folders: dict[str, Path], models: dict[str, ColBERTModel], cache: Path, family: str
) -> None:
    model = ColBERTModel(folders[family], backend="onnx")
    assert (model.device, model.dtype) == ("cpu", "float32")
    assert model.fingerprint == models[family].fingerprint
    for encode, expected in (
        (model.encode_queries, models[family].encode_queries),
        (model.encode_documents, models[family].encode_documents),
    ):
        for ours, theirs in zip(encode(TEXTS), expected(TEXTS), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.slow
def test_it_is_exported_once(folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ColBERTModel(folders["stanford"], backend="onnx")
    (kept,) = cache.iterdir()
    assert [file.name for file in kept.iterdir()] == ["model.onnx"]
    monkeypatch.setattr(onnx_export, "_export", lambda *_: pytest.fail("exported again"))
    assert len(ColBERTModel(folders["stanford"], backend="onnx").encode_documents(TEXTS)) == len(TEXTS)


@pytest.mark.slow
def test_an_export_that_gives_other_vectors_is_not_used(
    folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "ROUNDING", -1.0)
    with pytest.raises(ModelError, match=r"gives other vectors than torch.*backend='torch'"):
        ColBERTModel(folders["stanford"], backend="onnx")
    assert not list(cache.iterdir())


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_says_so(
    folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.onnx.export", lambda *_, **__: 1 / 0)
    with pytest.raises(ModelError, match=r"cannot be exported to ONNX: division by zero.*backend='torch'"):
        ColBERTModel(folders["stanford"], backend="onnx")


@pytest.mark.slow
def test_local_attention_is_refused(
    folders: dict[str, Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.BertConfig.sliding_window", 4, raising=False)
    with pytest.raises(ModelError, match=r"its attention is local \(sliding_window.*backend='torch'"):
        ColBERTModel(folders["stanford"], backend="onnx")


def test_what_it_needs_is_told(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"computes on the CPU, not on cuda"):
        ColBERTModel(folders["stanford"], backend="onnx", device="cuda")
    monkeypatch.setattr(onnx_export, "_PACKAGES", ("no_such_package",))
    with pytest.raises(MissingExtraError, match=r"late-interaction\[onnx\]"):
        ColBERTModel(folders["stanford"], backend="onnx")
