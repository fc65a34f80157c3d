"""Images of rows, read by threads ahead of the encoder: in order, and no more than have room in memory."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class ReadAhead(Generic[T]):
    """Threads that read the images of rows while others are encoded.

    Args:
        read: reads the image of a row, in a thread, and returns how many pixels it keeps in memory; 0 for none.
        num_workers: how many are read at a time.
        room: most pixels of images that are read and not taken yet; while they are less than half of it, one image of
            any size more. So a caller that takes what it has once it is half of the room never waits for itself.

    Example:
        >>> async def main():
        ...     ahead = ReadAhead(len, num_workers=2, room=100)
        ...     print([(row, pixels) async for row, pixels in ahead.each(["ab", "c"])])
        ...     await ahead.close()
        >>> asyncio.run(main())
        [('ab', 2), ('c', 1)]
    """

    def __init__(self, read: Callable[[T], int], num_workers: int, room: int) -> None:
        self._read, self._num_workers, self._room = read, num_workers, room
        self._executor = ThreadPoolExecutor(num_workers, thread_name_prefix="late-interaction-reader")
        # Pixels held, those of images that are being read among them, each taken to have as many as the last one.
        self._held = 0
        self._n_reading = 0
        self._expected = -(-room // num_workers)
        self._freed = asyncio.Event()
        self._turn = asyncio.Lock()

    async def each(self, rows: Iterable[T]) -> AsyncGenerator[tuple[T, int], None]:
        """Yield each row with the pixels of its image, once it is read; they count as held until they are `taken`.

        Of several calls at a time, the rows of the first one are read first.
        """
        begun: asyncio.Queue[tuple[T, asyncio.Future[int]] | None] = asyncio.Queue()
        beginning = asyncio.ensure_future(self._begin(rows, begun))
        try:
            while (one := await begun.get()) is not None:
                row, reading = one
                yield row, await reading
            await beginning
        finally:
            beginning.cancel()
            await asyncio.gather(beginning, return_exceptions=True)
            while not begun.empty():
                if (one := begun.get_nowait()) is not None:
                    one[1].cancel()

    def taken(self, pixels: int) -> None:
        """Say that images with so many pixels are being encoded, and make room for as many."""
        self._held -= pixels
        self._freed.set()

    async def close(self) -> None:
        """Begin nothing more, and wait for what is being read."""
        await asyncio.to_thread(self._executor.shutdown, cancel_futures=True)

    async def _begin(
        self, rows: Iterable[T], begun: asyncio.Queue[tuple[T, asyncio.Future[int]] | None]
    ) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with self._turn:
                for row in rows:
                    while not self._may_begin():
                        self._freed.clear()
                        await self._freed.wait()
                    expected = self._expected
                    self._held += expected
                    self._n_reading += 1
                    call = partial(contextvars.copy_context().run, self._read, row)
                    reading = loop.run_in_executor(self._executor, call)
                    reading.add_done_callback(partial(self._settle, expected))
                    begun.put_nowait((row, reading))
        finally:
            begun.put_nowait(None)

    def _may_begin(self) -> bool:
        """Tell whether there is room, and a thread is free."""
        if self._n_reading == 0 and 2 * self._held < self._room:
            return True
        return self._n_reading < self._num_workers and self._held + self._expected <= self._room

    def _settle(self, expected: int, reading: asyncio.Future[int]) -> None:
        """Count the pixels that an image has in place of those that were expected."""
        failed = reading.cancelled() or reading.exception() is not None
        pixels = 0 if failed else reading.result()
        self._n_reading -= 1
        self._held += pixels - expected
        self._expected = pixels or self._expected
        self._freed.set()
