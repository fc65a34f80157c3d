"""Batches at the same time, on several devices or the cores of a CPU, and the vectors of one after the other."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from late_interaction import ColBERTModel
from late_interaction.encoders.torch_runtime import take_share
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


@pytest.fixture
def two_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
@pytest.mark.parametrize("family", ["stanford", "pylate", "multi-vector", "plain"])
def test_each_core_computes_a_batch_with_the_same_weights_and_tokens(
    folders: dict[str, Path], models: dict[str, ColBERTModel], monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    model = ColBERTModel(folders[family], device="cpu", batch_tokens=64)
    first, second = model._replicas._models
    assert [part.data_ptr() for part in first.parameters()] == [
        part.data_ptr() for part in second.parameters()
    ]
    assert first.tokenizer is second.tokenizer
    together, threads = threading.Barrier(2, timeout=30), dict[int, int]()
    for encoder in (first, second):
        encode = encoder.encode_document

        def watched(*args: Any, encoder: Any = encoder, encode: Any = encode, **options: Any) -> Any:
            if id(encoder) not in threads:
                threads[id(encoder)] = torch.get_num_threads()
                together.wait()  # Both are at work, or this never ends.
            return encode(*args, **options)

        monkeypatch.setattr(encoder, "encode_document", watched)
    texts = [*TEXTS, " ".join(TEXTS) * 20, *TEXTS]
    found = model.encode_documents(texts)
    assert list(threads.values()) == [1, 1]
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (2, 2)
    assert_same(found, models[family].encode_documents(texts))
    assert_same(model.encode_queries(texts), models[family].encode_queries(texts))


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_where_torch_is_to_use_one_thread_nothing_is_computed_in_another(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, used = ColBERTModel(folders["stanford"], device="cpu", batch_tokens=64), set[int]()
    torch.set_num_threads(1)
    for encoder in model._replicas._models:
        encode = encoder.encode_document

        def watched(*args: Any, encode: Any = encode, **options: Any) -> Any:
            used.add(threading.get_ident())
            return encode(*args, **options)

        monkeypatch.setattr(encoder, "encode_document", watched)
    model.encode_documents([*TEXTS, *TEXTS])
    assert used == {threading.get_ident()}


@pytest.mark.usefixtures("two_cores")
def test_a_share_of_the_threads_is_taken_by_one_thread_alone() -> None:
    torch.set_num_threads(6)
    with ThreadPoolExecutor(1, initializer=take_share, initargs=(2,)) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3
    assert (torch.get_num_threads(), threads_of_a_new_thread()) == (6, 6)


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
