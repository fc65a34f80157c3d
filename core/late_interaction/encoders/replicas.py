"""Copies of a model, on several devices or on the cores of a CPU: a batch goes to whichever is free."""

from __future__ import annotations

import heapq
import itertools
import threading
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

    Where several callers wait for a copy, the one that began first has it: the others prepare their batches meanwhile,
    and none of them has to wait when the first is done.

    Args:
        models: what computes, one for each device or core; it is used by one thread at a time.
    """

    def __init__(self, models: Sequence[Any]) -> None:
        self._models = list(models)
        self._idle = list(models)[::-1]  # The first one is taken first.
        self._waiting: list[tuple[int, int]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._models)

    @contextmanager
    def free(self, caller: int | None = None) -> Iterator[Any]:
        """Wait for a copy that is free, and hold it.

        Args:
            caller: the number of a caller that takes several, one after the other.
        """
        number = next(self._numbers)
        place = (number if caller is None else caller, number)
        with self._changed:
            heapq.heappush(self._waiting, place)
            self._changed.wait_for(lambda: self._idle and self._waiting[0] == place)
            heapq.heappop(self._waiting)
            model = self._idle.pop()
            self._changed.notify_all()
        try:
            yield model
        finally:
            with self._changed:
                self._idle.append(model)
                self._changed.notify_all()

    def map(
        self,
        compute: Callable[[Any, T], R],
        batches: Iterable[T],
        at_once: int | None = None,
        begin: Callable[[], None] | None = None,
    ) -> Iterator[R]:
        """Yield `compute(copy, batch)` of each batch, in order.

        Args:
            compute: called from several threads at a time.
            batches: what is computed.
            at_once: most batches that are computed at a time, no more than there are copies; None for as many.
            begin: what each of these threads does first.
        """
        caller = next(self._numbers)
        at_once = at_once or len(self)

        def on_a_free_one(batch: T) -> R:
            with self.free(caller) as model:
                return compute(model, batch)

        if at_once == 1:
            return map(on_a_free_one, batches)
        return prefetched(on_a_free_one, batches, at_once, 2 * at_once, begin)


def ready_for(
    inputs: Mapping[str, torch.Tensor], device: torch.device, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    """Return a batch as a device takes it, still on the CPU: in its dtype, and in pinned memory for a CUDA GPU.

    Its copy to the GPU then needs no other copy, and nobody has to wait for it.
    """
    ready = {name: part.to(dtype) if part.is_floating_point() else part for name, part in inputs.items()}
    return {name: part.pin_memory() for name, part in ready.items()} if device.type == "cuda" else ready
