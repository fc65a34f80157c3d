"""LoopPortal: a private event loop on a thread of its own, which any thread and any event loop may use.

Clients of databases belong to the event loop that opened their connections. A portal keeps one loop alive, so that a
client on it serves plain scripts, notebooks (whose loop is running already), threads, several `asyncio.run` in a row,
and servers with more than one loop. anyio's `BlockingPortalProvider` shares a portal likewise, without forks and
without cancelling.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from late_interaction.errors import LateInteractionError

P = ParamSpec("P")
T = TypeVar("T")


class LoopPortal:
    """A private event loop on its own daemon thread, which anyone may run coroutines on.

    The thread starts with the first call and ends with `close()` or with the interpreter. What is run sees the
    caller's context variables; a caller that is cancelled or interrupted cancels what it ran.

    In a process that was forked, the portal starts a new thread and loop, and `generation` is one higher: what
    was opened on the old loop is the parent's and must be opened again.

    Attributes:
        generation: counts the forks since the portal was made.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._closed = False
        self._inherited: list[object] = []
        self._renew()
        _portals.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._unfinished: set[Future[Any]] = set()

    def submit(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `function(*args, **kwargs)` on the portal's loop, without waiting for what it returns.

        Raises:
            LateInteractionError: the portal is closed.
        """

        async def call() -> T:
            return await function(*args, **kwargs)

        # The lock puts this before or after `close`: what is submitted before it is there to be cancelled.
        with self._lock:
            loop = self._start().loop
            future = asyncio.run_coroutine_threadsafe(call(), loop)
            # A loop holds its tasks weakly: one that nobody waits for could be collected as garbage.
            self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future

    def run(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` on the portal's loop and wait for what it returns.

        Inside a running event loop this blocks that loop, which a notebook can bear and a server cannot.

        Raises:
            LateInteractionError: the portal is closed, or the caller is on the portal's own loop.
        """
        self.check_not_inside()
        abandoned: Future[None] = Future()

        async def call() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            abandoned.add_done_callback(lambda _: loop.call_soon_threadsafe(task.cancel))
            return await function(*args, **kwargs)

        try:
            return self.wait_for(self.submit(call))
        except (KeyboardInterrupt, SystemExit):
            abandoned.cancel()  # It may have come before `wait_for` had the future to cancel.
            raise

    def wait_for(self, future: Future[T]) -> T:
        """Wait for what was submitted; an interrupt cancels it."""
        try:
            return future.result()
        except CancelledError:
            self._check_open()
            raise
        except BaseException:
            future.cancel()
            raise

    async def arun(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` on the portal's loop and await what it returns, from any loop.

        Raises:
            LateInteractionError: the portal is closed.
        """
        if self._is_inside():
            return await function(*args, **kwargs)
        if self._running is None:
            # To start a thread is to wait for it, so that is not done on the caller's loop.
            await asyncio.to_thread(self._start_locked)
        try:
            return await asyncio.wrap_future(self.submit(function, *args, **kwargs))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # It is not the caller that was cancelled.
                self._check_open()
            raise

    def close(self) -> None:
        """Cancel what is running, end the loop and its thread; may be called twice.

        Raises:
            LateInteractionError: the caller is on the portal's own loop.
        """
        self.check_not_inside()
        with self._lock:
            already, self._closed = self._closed, True
            if self._running is not None and not already:
                self._running.loop.call_soon_threadsafe(self._running.stop.set)
        if self._running is not None:
            self._running.thread.join()

    async def aclose(self) -> None:
        """Do `close` without blocking the caller's event loop."""
        self.check_not_inside()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_not_inside(self) -> None:
        """Raise if the caller is on the portal's own loop, where waiting for the portal would never end.

        Raises:
            LateInteractionError: it is.
        """
        if self._is_inside():
            raise LateInteractionError(
                "A sync method was called on the event loop that it would have to wait for. "
                "Await the async method there instead."
            )

    def _is_inside(self) -> bool:
        return self._running is not None and self._running.thread is threading.current_thread()

    def _check_open(self) -> None:
        if self._closed:
            raise LateInteractionError("The portal is closed; its event loop has ended.") from None

    def _start_locked(self) -> None:
        with self._lock:
            self._start()

    def _start(self) -> _Running:
        """Return the loop, started if need be; for a caller that holds the lock."""
        self._check_open()
        if self._running is None:
            started: Future[_Running] = Future()
            name = "late-interaction-portal"
            threading.Thread(target=_serve, args=(started,), name=name, daemon=True).start()
            self._running = started.result()
        return self._running

    def _after_fork(self) -> None:
        # Freeing the parent's loop here would unregister the parent's sockets from the poll that both share.
        self._inherited.append(self._running)
        self._renew()
        self.generation += 1


@dataclass(frozen=True, slots=True)
class _Running:
    """A loop that runs on a thread until `stop` is set."""

    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


def _serve(started: Future[_Running]) -> None:
    """Run a loop until told to stop, then cancel what is left on it: a portal's thread."""

    async def until_stopped() -> None:
        running = _Running(threading.current_thread(), asyncio.get_running_loop(), asyncio.Event())
        started.set_result(running)
        await running.stop.wait()

    try:
        asyncio.run(until_stopped())
    except BaseException as error:
        if not started.done():
            started.set_exception(error)
        # The last that `asyncio.run` does is to start a thread that waits for those of `asyncio.to_thread`. While the
        # interpreter ends, they have ended already, and Python since 3.12 starts none.
        elif not (isinstance(error, RuntimeError) and "at interpreter shutdown" in str(error)):
            raise


class SharedPortal:
    """The portal of all who bring none of their own; the last one to release it closes it."""

    def __init__(self) -> None:
        self.after_fork()
        self._portal: LoopPortal | None = None
        self._users = 0

    def after_fork(self) -> None:
        """Replace the lock, which another thread of the parent may have held."""
        self._lock = threading.Lock()

    def acquire(self) -> LoopPortal:
        """Return the portal, made if need be; call `release` once for it."""
        with self._lock:
            if self._portal is None:
                self._portal = LoopPortal()
            self._users += 1
            return self._portal

    def release(self) -> None:
        """Give the portal back."""
        with self._lock:
            self._users -= 1
            last = self._portal if self._users == 0 else None
            if last is not None:
                self._portal = None
        if last is not None:
            last.close()


_portals: weakref.WeakSet[LoopPortal] = weakref.WeakSet()
shared_portal = SharedPortal()


def _close_all() -> None:
    for portal in list(_portals):
        portal.close()


def _after_fork() -> None:
    shared_portal.after_fork()
    for portal in list(_portals):
        portal._after_fork()  # noqa: SLF001 - this module's own


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):  # There is no fork on Windows.
    os.register_at_fork(after_in_child=_after_fork)
