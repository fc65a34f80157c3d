"""`attn_implementation`: what computes attention, for each class of models, and where it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel, ColPaliModel, load_model
from late_interaction.encoders.multi_vector import MultiVectorModel
from late_interaction.encoders.torch_runtime import check_attention

TEXTS = ["the rain on a page", "dog"]


def computes(model: Any) -> str:
    """Return transformers' name for what a loaded model computes attention with."""
    network = model._model if isinstance(model, ColPaliModel) else model._encoder[0].model
    return str(network.config._attn_implementation)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", ["text", "visual"])
def test_it_is_what_computes_and_the_vectors_are_the_same(
    kind: str, attention: str, text_model: Path, request: pytest.FixtureRequest
) -> None:
    folder = text_model if kind == "text" else request.getfixturevalue("visual_model")
    plain = load_model(folder, device="cpu")
    model = load_model(folder, device="cpu", attn_implementation=attention)
    assert computes(model) == attention
    assert computes(plain) == ("sdpa_unpadded" if kind == "text" else "sdpa")
    assert model.fingerprint == plain.fingerprint
    for one, other in zip(model.encode_documents(TEXTS), plain.encode_documents(TEXTS), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


CLASSES: dict[str, Callable[..., Any]] = {
    "ColBERTModel": ColBERTModel,
    "ColPaliModel": ColPaliModel,
    "MultiVectorModel": MultiVectorModel,
}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    ("attention", "message"),
    [
        ("flash", r"must be one of eager, sdpa, flash_attention_2, .*, not 'flash'"),
        ("kernels-community/flash-attn", "must be one of"),
        ("flash_attention_2", "flash_attention_2 is for GPUs, and the device is cpu: take sdpa"),
    ],
)
def test_it_is_refused_before_anything_is_looked_for(name: str, attention: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLASSES[name]("no/such-model", device="cpu", attn_implementation=attention)


@pytest.mark.parametrize("backend", ["onnx", "openvino"])
def test_an_export_has_its_own(backend: str) -> None:
    with pytest.raises(ValueError, match=f"for the torch backend; an {backend} export has its own"):
        ColBERTModel("no/such-model", backend=backend, attn_implementation="sdpa")  # type: ignore[arg-type]


def test_flash_attention_computes_in_16_bits_on_a_gpu() -> None:
    check_attention("flash_attention_2", "cuda:1", "bfloat16")
    check_attention("flash_attention_3", None, None)
    check_attention("sdpa", "cpu", "float32")
    with pytest.raises(ValueError, match="computes in float16 or bfloat16, not in float32"):
        check_attention("flash_attention_2", "cuda", "float32")
