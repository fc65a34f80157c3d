"""The thread in which a store writes."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import MethodType
from typing import Any, ParamSpec, TypeVar, cast

from late_interaction.stores.local.turns import asked_at

P = ParamSpec("P")
T = TypeVar("T")


class WriterThread:
    """Runs calls one after the other in a thread of its own, which ends with `close` or with the last reference."""

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._guard = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a call in the thread, after those that were asked for before."""
        if self._pid != os.getpid():
            self._renew()
        context = contextvars.copy_context()
        context.run(asked_at.set, time.monotonic())
        bound = partial(context.run, cast("Any", call), *args, **kwargs)
        with self._guard:
            if self._executor is None:
                self._executor = ThreadPoolExecutor(1, thread_name_prefix="late-interaction-writer")
            future = asyncio.get_running_loop().run_in_executor(self._executor, bound)
        return cast("T", await future)

    def close(self) -> None:
        """End the thread, once it has done what it was asked for."""
        if self._pid != os.getpid():
            self._renew()
        with self._guard:
            executor, self._executor = self._executor, None
        if executor is not None:
            executor.shutdown(wait=False)


def weak_method(method: Callable[P, None]) -> Callable[P, None]:
    """Return a function that calls a method as long as its object lives, and does not keep it alive."""
    reference = weakref.WeakMethod(cast("MethodType", method))

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        if (alive := reference()) is not None:
            alive(*args, **kwargs)

    return call
