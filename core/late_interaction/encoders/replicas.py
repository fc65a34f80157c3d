"""Whole copies of a model, one on each device: a batch goes to whichever is free."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from late_interaction.encoders.prefetching import prefetched

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
R = TypeVar("R")


def check_devices(devices: Sequence[str] | None, device: str | None) -> list[str]:
    """Return the devices that a model is to be on, the first one first; an empty list where none are named.

    Raises:
        TypeError: `devices` is a str, or one of them is not a str.
        ValueError: there are none, `device` is given too, or they are of several kinds, which do not compute alike.
    """
    if devices is None:
        return [] if device is None else [device]
    if isinstance(devices, str) or not all(isinstance(one, str) for one in devices):
        raise TypeError(f'devices is a list of names, such as ["cuda:0", "cuda:1"], not {devices!r}.')
    if device is not None:
        raise ValueError("give either device or devices, not both.")
    kinds = {one.partition(":")[0] for one in devices}
    if len(kinds) != 1:
        raise ValueError(f"devices has to name one or more devices of one kind, not {list(devices)}.")
    return list(devices)


class Replicas:
    """The copies of a model. Threads and copies of an encoder share them.

    Args:
        models: what computes, one for each device; it is used by one thread at a time.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = list(models)
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for model in self._models:
            self._free.put(model)

    def __len__(self) -> int:
        return len(self._models)

    @contextmanager
    def free(self) -> Iterator[Any]:
        """Wait for a copy that is free, and hold it."""
        model = self._free.get()
        try:
            yield model
        finally:
            self._free.put(model)

    def map(self, compute: Callable[[Any, T], R], batches: Iterable[T]) -> Iterator[R]:
        """Yield `compute(copy, batch)` of each batch, in order; as many are computed at a time as there are copies."""

        def on_a_free_one(batch: T) -> R:
            with self.free() as model:
                return compute(model, batch)

        if len(self) == 1:
            return map(on_a_free_one, batches)
        return prefetched(on_a_free_one, batches, len(self), 2 * len(self))


def ready_for(
    inputs: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return a batch as a device takes it, still on the CPU: in its dtype, and in pinned memory for a CUDA GPU.

    Its copy to the GPU then needs no other copy, and nobody has to wait for it.
    """
    ready = {name: part.to(dtype) if part.is_floating_point() else part for name, part in inputs.items()}
    return {name: part.pin_memory() for name, part in ready.items()} if device.type == "cuda" else ready
