"""`devices=`: a whole copy of a text encoder on each, the vectors of one, and batches at the same time."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import ColBERTModel
from tests.unit.text_encoders.models import TEXTS


def assert_same(some: list[np.ndarray], others: list[np.ndarray]) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["stanford", "pylate", "plain"])
def test_several_devices_give_the_vectors_of_one(
    folders: dict[str, Path], models: dict[str, ColBERTModel], family: str
) -> None:
    twice, one = ColBERTModel(folders[family], devices=["cpu", "cpu"], batch_tokens=64), models[family]
    assert twice.fingerprint == one.fingerprint
    assert twice.device == "cpu"
    texts = [*TEXTS, " ".join(TEXTS) * 20, *TEXTS]
    assert_same(twice.encode_documents(texts), one.encode_documents(texts))
    assert_same(twice.encode_queries(texts), one.encode_queries(texts))
    older = {**one.fingerprint}
    older.pop("long_documents")
    assert_same(twice.as_built(older).encode_documents(texts), one.as_built(older).encode_documents(texts))


@pytest.mark.slow
def test_each_device_has_a_whole_copy_and_computes_beside_the_other(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ColBERTModel(folders["stanford"], devices=["cpu", "cpu"])
    together, used = threading.Barrier(2, timeout=30), set()
    for encoder in model._replicas._models:
        encode = encoder.encode_document

        def watched(*args: Any, encoder: Any = encoder, encode: Any = encode, **options: Any) -> Any:
            used.add(next(encoder.parameters()).data_ptr())
            together.wait()  # Both are at work, or this never ends.
            return encode(*args, **options)

        monkeypatch.setattr(encoder, "encode_document", watched)
    assert len(model.encode_documents(TEXTS[:2])) == 2
    assert len(used) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": ["cpu"], "device": "cpu"}, "either device or devices"),
        (
            {"devices": ["cpu", "cpu"], "backend": "onnx"},
            "devices is for the torch backend; onnx computes on one",
        ),
        ({"devices": ["cpu", "cuda"]}, "of one kind"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColBERTModel("no/such-model", **options)
