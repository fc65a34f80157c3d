"""How the methods of the embedded store run: awaited, in threads, and again if the folder was replaced meanwhile."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from late_interaction.stores.local.sqlite import ChangedMeanwhileError

if TYPE_CHECKING:
    from late_interaction.stores.local.store import LocalStore

P = ParamSpec("P")
T = TypeVar("T")

_ATTEMPTS = 3


def in_thread(
    method: Callable[Concatenate[LocalStore, P], T],
) -> Callable[Concatenate[LocalStore, P], Coroutine[Any, Any, T]]:
    """Make a method that blocks on the file one that is awaited, and that needs the index open."""

    async def run(self: LocalStore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._opened()
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
