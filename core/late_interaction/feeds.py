"""Rows on their way from a caller's iterators, in the caller's thread, to a pipeline on a portal's loop."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, TypeVar

import numpy as np

from late_interaction.pacing import check_no_table, copied

T = TypeVar("T")


class Feeds:
    """The iterators among a call's arguments, and the requests for their items.

    Args:
        batch_size: how many items are taken at a time.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()

    def feed(self, value: Any) -> Any:
        """Return the value, or a feed in place of an iterable that the caller's thread is to advance.

        Raises:
            TypeError: it is a DataFrame, as for `each`.
        """
        check_no_table(value)
        if isinstance(value, Sequence | Mapping | AsyncIterable | np.ndarray) or not isinstance(
            value, Iterable
        ):
            return value
        if isinstance(value, Sized):
            return _SizedFeed(iter(value), self._batch_size, self._requests, len(value))
        return _Feed(iter(value), self._batch_size, self._requests)

    def serve(self) -> None:
        """Answer each request for items until `end`."""
        while (request := self._requests.get()) is not None:
            batch = request.take()
            with suppress(RuntimeError):  # The loop may have ended meanwhile; whoever waits for it hears so.
                request.answer.get_loop().call_soon_threadsafe(_answer, request.answer, batch)

    def end(self) -> None:
        """Say that no more items are wanted."""
        self._requests.put(None)


@dataclass(frozen=True, slots=True)
class _Batch(Generic[T]):
    """Some items, the last ones where they are fewer than asked for, and what ended them if it was an error."""

    items: list[T]
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """A request for the next items of an iterator."""

    items: Iterator[Any]
    size: int
    answer: asyncio.Future[_Batch[Any]]

    def take(self) -> _Batch[Any]:
        taken: list[Any] = []
        try:
            taken.extend(map(copied, islice(self.items, self.size)))
        except Exception as error:  # noqa: BLE001 - the pipeline raises it, after the items before it
            return _Batch(taken, error)
        return _Batch(taken)


class _Feed:
    """An iterator of a caller's, as an async iterable on the portal's loop."""

    def __init__(self, items: Iterator[Any], size: int, requests: queue.SimpleQueue[_Request | None]) -> None:
        self._items, self._size, self._requests = items, size, requests

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            answer: asyncio.Future[_Batch[Any]] = asyncio.get_running_loop().create_future()
            self._requests.put(_Request(self._items, self._size, answer))
            batch = await answer
            for item in batch.items:
                yield item
            if batch.error is not None:
                raise batch.error
            if len(batch.items) < self._size:
                return


class _SizedFeed(_Feed):
    """A feed whose number of items is known."""

    def __init__(
        self, items: Iterator[Any], size: int, requests: queue.SimpleQueue[_Request | None], length: int
    ) -> None:
        super().__init__(items, size, requests)
        self._length = length

    def __len__(self) -> int:
        return self._length


def _answer(request: asyncio.Future[_Batch[Any]], batch: _Batch[Any]) -> None:
    if not request.done():
        request.set_result(batch)
