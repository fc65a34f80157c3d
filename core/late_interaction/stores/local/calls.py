"""How the methods of the embedded store run: awaited, in threads, and again if the folder was replaced meanwhile.

Each change of threads takes as long as scoring ten documents, and longer while other threads compute. So the reads of
a search are done `together`: its coroutine runs in one thread, where each of them is a plain call, and in one
transaction.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from late_interaction.stores.local.sqlite import ChangedMeanwhileError, SQLiteFile

if TYPE_CHECKING:
    from late_interaction.stores.local.store import LocalStore

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 3


class _Here(threading.local):
    """What this thread does: a store's reads together, or nothing of the kind."""

    reads: Together | None = None


_here = _Here()


class Together:
    """Reads of one store that follow each other, in whichever thread calls `run`; none begins once `cancelled`."""

    def __init__(self, store: LocalStore, file: SQLiteFile) -> None:
        self.store = store
        self.file = file
        self.cancelled = False

    def run(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine, which `work` makes, and which awaits nothing but the store's reads."""
        _here.reads = self
        coroutine = work()
        try:
            with self.file.computing():
                try:
                    coroutine.send(None)
                except StopIteration as end:
                    result: T = end.value
                    return result
            raise RuntimeError("what is done together must not wait.")
        finally:
            _here.reads = None
            coroutine.close()


async def together(store: LocalStore, file: SQLiteFile, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine that awaits nothing but a store's reads, in one thread; again if the folder was replaced."""
    reads = Together(store, file)
    try:
        return await asyncio.to_thread(_again_if_changed, reads.run, work)
    finally:
        reads.cancelled = True  # It has ended already, unless the caller was cancelled.


def in_thread(
    method: Callable[Concatenate[LocalStore, P], T],
) -> Callable[Concatenate[LocalStore, P], Coroutine[Any, Any, T]]:
    """Make a method that blocks on the file one that is awaited, and that needs the index open."""

    async def run(self: LocalStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._opened()
        if (reads := _here.reads) is not None and reads.store is self:
            if reads.cancelled:
                raise asyncio.CancelledError
            return method(self, *args, **kwargs)
        return await asyncio.to_thread(_again_if_changed, method, self, *args, **kwargs)

    functools.update_wrapper(run, method)
    return run


def in_writer_thread(
    method: Callable[Concatenate[LocalStore, P], T],
) -> Callable[Concatenate[LocalStore, P], Coroutine[Any, Any, T]]:
    """Make a method that writes one that is awaited, as `in_thread` does for the others.

    A store's writes go one after the other anyway. In a thread of their own, they may wait long for other processes
    while searches go on.
    """

    async def run(self: LocalStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._opened()
        return await self._writer.run(_again_if_changed, method, self, *args, **kwargs)

    functools.update_wrapper(run, method)
    return run


def _again_if_changed(method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a method again if the folder was replaced under it: the answer is of the new content."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return method(*args, **kwargs)
        except ChangedMeanwhileError:
            continue
    return method(*args, **kwargs)
