"""What is computed ahead, on one device or several, and how a batch comes to it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from late_interaction import ColPaliModel
from tests.unit.visual_encoders.models import IMAGES, NAMES, TEXTS, largest_difference

pytestmark = pytest.mark.slow
ITEMS = [*IMAGES, *TEXTS, *IMAGES]


@pytest.fixture
def twice(folders: Callable[[str], Path]) -> ColPaliModel:
    return ColPaliModel(folders("colqwen2"), devices=["cpu", "cpu"], batch_pixels=1)


def test_several_devices_give_the_vectors_of_one(
    twice: ColPaliModel, models: Callable[[str], ColPaliModel]
) -> None:
    one = models("colqwen2")
    assert twice.fingerprint == one.fingerprint
    for encode in ("encode_documents", "encode_queries"):
        assert largest_difference(getattr(twice, encode)(ITEMS), getattr(one, encode)(ITEMS)) < 1e-5


def test_each_device_has_a_whole_copy_and_computes_beside_the_other(
    twice: ColPaliModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    networks, together, forward = set(), threading.Barrier(2, timeout=30), twice._forward

    def watched(network: Any, inputs: Any) -> Any:
        networks.add(id(network))
        together.wait()  # Two are computed at a time, or this never ends.
        return forward(network, inputs)

    monkeypatch.setattr(twice, "_forward", watched)
    assert len(twice.encode_documents(IMAGES)) == len(IMAGES)
    assert len(networks) == 2
    weights = [next(network.parameters()).data_ptr() for network in twice._replicas._models]
    assert len(set(weights)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_the_next_batches_are_prepared_while_one_is_computed(
    name: str,
    folders: Callable[[str], Path],
    models: Callable[[str], ColPaliModel],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = ColPaliModel(folders(name), device="cpu", num_workers=2, batch_pixels=1)
    process, prepared, computed = model._processor.process_images, threading.Semaphore(0), 0
    forward = model._forward

    def processing(images: Any) -> Any:
        inputs = process(images)
        prepared.release()
        return inputs

    def computing(network: Any, inputs: Any) -> Any:
        nonlocal computed
        for _ in range({0: 3}.get(computed, 1) if computed < len(IMAGES) - 2 else 0):
            assert prepared.acquire(timeout=30)  # This one and the next two; then one more for each.
        computed += 1
        return forward(network, inputs)

    monkeypatch.setattr(model._processor, "process_images", processing)
    monkeypatch.setattr(model, "_forward", computing)
    assert largest_difference(model.encode_documents(IMAGES), models(name).encode_documents(IMAGES)) < 1e-5
    assert computed == len(IMAGES)


def test_threads_share_a_model_with_images_and_texts(folders: Callable[[str], Path]) -> None:
    model = ColPaliModel(folders("colqwen2"), device="cpu", num_workers=3, batch_pixels=1)
    alone = model.encode_queries(ITEMS), model.encode_documents(ITEMS)
    wrong: list[float] = []

    def both() -> None:
        wrong.append(largest_difference(model.encode_queries(ITEMS), alone[0]))
        wrong.append(largest_difference(model.encode_documents(ITEMS), alone[1]))
        model.count_tokens(TEXTS)

    started = [threading.Thread(target=both) for _ in range(4)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    assert len(wrong) == 8
    assert max(wrong) < 1e-5


def test_a_batch_is_converted_and_pinned_before_it_is_a_gpus_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from late_interaction.encoders.replicas import ready_for

    pinned = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: pinned.append(self.dtype) or self)
    inputs = {"input_ids": torch.ones(2, 3, dtype=torch.long), "pixel_values": torch.ones(2, 3)}
    ready = ready_for(inputs, torch.device("cpu"), torch.bfloat16)
    assert {name: part.dtype for name, part in ready.items()} == {
        "input_ids": torch.long,
        "pixel_values": torch.bfloat16,
    }
    assert pinned == []
    ready_for(inputs, torch.device("cuda:1"), torch.bfloat16)
    assert sorted(map(str, pinned)) == ["torch.bfloat16", "torch.int64"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": ["cpu"], "device": "cpu"}, "either device or devices"),
        ({"devices": ["cpu"], "device_map": "auto"}, "one of device, devices and device_map"),
        ({"device": "cpu", "device_map": "auto"}, "one of device, devices and device_map"),
        ({"num_workers": 0}, "num_workers must be"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColPaliModel("no/such-model", **options)
