"""LoopPortal: who may call, what a call is, how it starts and ends."""

import asyncio
import contextvars
import gc
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from late_interaction.errors import LateInteractionError
from late_interaction.portal import LoopPortal
from tests.support.forks import in_child, needs_fork, portal_threads


class Client:
    """Belongs to the loop of its first call, as a database's client does: others cannot use its connection."""

    def __init__(self) -> None:
        self.loop: asyncio.AbstractEventLoop | None = None
        self.calls = 0

    async def echo(self, value: Any) -> Any:
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
            self.free = asyncio.Semaphore(3)
            await self.free.acquire()  # so that later calls do wait, and bind the semaphore to the loop
            self.free.release()
        assert asyncio.get_running_loop() is self.loop
        async with self.free:
            await asyncio.sleep(0)
            self.calls += 1
        return value


@pytest.fixture
def portal() -> Iterator[LoopPortal]:
    with LoopPortal() as portal:
        yield portal


@pytest.fixture
def client() -> Client:
    return Client()


# --- the portal: who may call -----------------------------------------------------------------------------------


def test_without_a_loop(portal: LoopPortal, client: Client) -> None:
    assert [portal.run(client.echo, value=i) for i in range(5)] == [0, 1, 2, 3, 4]


def test_many_asyncio_runs(portal: LoopPortal, client: Client) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(portal.arun(client.echo, i) for i in range(8)))

    for _ in range(20):
        assert asyncio.run(main()) == list(range(8))
    assert client.calls == 160


async def test_sync_inside_a_running_loop(portal: LoopPortal, client: Client) -> None:
    assert portal.run(client.echo, 1) == 1
    assert await portal.arun(client.echo, 2) == 2
    assert client.loop is not asyncio.get_running_loop()


@pytest.mark.slow
def test_sixteen_threads(portal: LoopPortal, client: Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda i: portal.run(client.echo, i), range(3200))) == list(range(3200))


def test_six_threads_with_their_own_loops(portal: LoopPortal, client: Client) -> None:
    async def main(name: int) -> list[tuple[int, int]]:
        return [await portal.arun(client.echo, (name, i)) for i in range(60)]

    with ThreadPoolExecutor(6) as threads:
        for name, found in enumerate(threads.map(lambda name: asyncio.run(main(name)), range(6))):
            assert found == [(name, i) for i in range(60)]


@pytest.mark.slow
def test_two_live_loops_in_bursts(portal: LoopPortal, client: Client) -> None:
    async def burst() -> list[int]:
        return await asyncio.gather(*(portal.arun(client.echo, i) for i in range(150)))

    with asyncio.Runner() as one, asyncio.Runner() as other:
        for _ in range(6):
            for runner in (one, other):
                assert runner.run(burst()) == list(range(150))


def test_the_first_callers_race(client: Client) -> None:
    for _ in range(20):
        with LoopPortal() as portal, ThreadPoolExecutor(8) as threads:
            ready = threading.Barrier(8)

            def first(i: int, portal: LoopPortal = portal, ready: threading.Barrier = ready) -> Any:
                async def loop() -> int:
                    return id(asyncio.get_running_loop())

                ready.wait()
                return portal.run(loop) if i % 2 else asyncio.run(portal.arun(loop))

            assert len(set(threads.map(first, range(8)))) == 1


# --- the portal: what a call is ---------------------------------------------------------------------------------


async def test_errors_come_through_as_they_are(portal: LoopPortal) -> None:
    class OwnError(Exception):
        pass

    async def fail() -> None:
        raise OwnError("why")

    with pytest.raises(OwnError, match="why"):
        portal.run(fail)
    with pytest.raises(OwnError, match="why"):
        await portal.arun(fail)


async def test_context_variables_are_seen(portal: LoopPortal) -> None:
    variable = contextvars.ContextVar("variable", default="unset")

    async def read() -> str:
        await asyncio.sleep(0)
        return variable.get()

    assert portal.run(read) == "unset"
    variable.set("set")
    assert portal.run(read) == "set"
    assert await portal.arun(read) == "set"


class Endless:
    """A call that never returns, and what became of it."""

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Event(), threading.Event()

    async def __call__(self) -> None:
        self.started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise


async def test_a_cancelled_caller_cancels(portal: LoopPortal) -> None:
    endless = Endless()
    task = asyncio.create_task(portal.arun(endless))
    await asyncio.to_thread(endless.started.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(endless.cancelled.wait, 5)


async def test_a_timeout_cancels(portal: LoopPortal) -> None:
    endless = Endless()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(portal.arun(endless), 0.05)
    assert await asyncio.to_thread(endless.cancelled.wait, 5)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt also where the tests run as a shell's background job, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_an_interrupt_before_the_wait_cancels(portal: LoopPortal, monkeypatch: pytest.MonkeyPatch) -> None:
    endless, submit = Endless(), portal.submit

    def interrupted(call: Callable[[], Awaitable[Any]]) -> None:
        submit(call)
        assert endless.started.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr(portal, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        portal.run(endless)
    assert endless.cancelled.wait(5)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_an_interrupt_cancels(portal: LoopPortal) -> None:
    endless, me = Endless(), threading.get_ident()

    def interrupt() -> None:
        endless.started.wait(5)
        signal.pthread_kill(me, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        portal.run(endless)
    assert endless.cancelled.wait(5)
    assert portal.run(asyncio.sleep, 0, "fine") == "fine"


def test_reentry(portal: LoopPortal, client: Client) -> None:
    async def awaits_again() -> Any:
        return await portal.arun(client.echo, 7)

    async def calls_again() -> Any:
        return portal.run(client.echo, 7)

    async def closes() -> None:
        portal.close()

    assert portal.run(awaits_again) == 7
    for inside in (calls_again, closes):
        with pytest.raises(LateInteractionError, match="Await the async method"):
            portal.run(inside)
    assert portal.run(client.echo, 8) == 8


def test_one_portal_from_another(portal: LoopPortal, client: Client) -> None:
    with LoopPortal() as other:

        async def through_other() -> Any:
            return await other.arun(client.echo, 1), other.run(client.echo, 2)

        assert portal.run(through_other) == (1, 2)


# --- the portal: start, close, fork -----------------------------------------------------------------------------


# --- start, close, fork -----------------------------------------------------------------------------------------


async def test_starts_at_the_first_call_and_never_on_the_callers_loop(
    monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    starters = []
    start = threading.Thread.start

    def spy(thread: threading.Thread) -> None:
        if thread.name == "late-interaction-portal":
            starters.append(threading.get_ident())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", spy)
    before = portal_threads()
    with LoopPortal() as portal:
        assert portal_threads() == before
        assert await portal.arun(client.echo, 1) == 1
        assert len(portal_threads()) == len(before) + 1
        assert all(thread.daemon for thread in portal_threads())
    assert len(starters) == 1
    assert starters[0] != threading.get_ident()
    assert portal_threads() == before


async def test_closed_portal() -> None:
    portal = LoopPortal()
    portal.run(asyncio.sleep, 0)
    portal.close()
    portal.close()
    await portal.aclose()
    for _ in range(20):  # A new thread may be given the ident of the portal's thread, which has ended.
        closer = threading.Thread(target=portal.close)
        closer.start()
        closer.join()
    for _ in range(2):
        with pytest.raises(LateInteractionError, match="portal is closed"):
            portal.run(asyncio.sleep, 0)
        with pytest.raises(LateInteractionError, match="portal is closed"):
            await portal.arun(asyncio.sleep, 0)


async def test_closed_before_it_was_ever_used() -> None:
    portal = LoopPortal()
    portal.close()
    with pytest.raises(LateInteractionError, match="portal is closed"):
        await portal.arun(asyncio.sleep, 0)


async def test_close_ends_what_is_running() -> None:
    portal = LoopPortal()
    waiting, awaiting = Endless(), Endless()
    task = asyncio.create_task(portal.arun(awaiting))
    thread = asyncio.create_task(asyncio.to_thread(portal.run, waiting))
    for endless in (waiting, awaiting):
        assert await asyncio.to_thread(endless.started.wait, 5)
    await portal.aclose()
    assert waiting.cancelled.is_set()
    assert awaiting.cancelled.is_set()
    for call in (task, thread):
        with pytest.raises(LateInteractionError, match="portal is closed"):
            await call


def test_no_call_is_forgotten_when_it_meets_a_close() -> None:
    """Each call either returns or raises; none waits for a loop that has ended."""
    for _ in range(30):
        portal = LoopPortal()
        portal.run(asyncio.sleep, 0)
        ready = threading.Barrier(9)

        def call(portal: LoopPortal = portal, ready: threading.Barrier = ready) -> str:
            ready.wait()
            try:
                for _ in range(50):
                    portal.run(asyncio.sleep, 0)
            except LateInteractionError:
                return "closed"
            return "returned"

        with ThreadPoolExecutor(8) as threads:
            calls = [threads.submit(call) for _ in range(8)]
            ready.wait()
            portal.close()
            assert {one.result(timeout=10) for one in calls} <= {"closed", "returned"}


@needs_fork
def test_after_a_fork(portal: LoopPortal) -> None:
    def use() -> tuple[int, list[int]]:
        new = Client()
        return portal.generation, [portal.run(new.echo, 1), asyncio.run(portal.arun(new.echo, 2))]

    client = Client()
    assert portal.run(client.echo, 0) == 0
    assert in_child(use) == "(1, [1, 2])"
    assert in_child(lambda: in_child(use)) == repr("(2, [1, 2])")
    assert portal.generation == 0
    assert portal.run(client.echo, 3) == 3


@pytest.mark.slow
@needs_fork
def test_after_a_fork_of_a_busy_parent(portal: LoopPortal) -> None:
    """Other threads are in the midst of calls, and may hold the portal's lock, at the moment of the fork."""
    client, done = Client(), threading.Event()

    def calls() -> int:
        count = 0
        while not done.is_set():
            count += portal.run(client.echo, 1)
        return count

    with ThreadPoolExecutor(4) as threads:
        busy = [threads.submit(calls) for _ in range(4)]
        answers = [in_child(lambda: portal.run(asyncio.sleep, 0.01, "child")) for _ in range(15)]
        done.set()
        assert sum(one.result() for one in busy) == client.calls
    assert answers == ["'child'"] * 15


@needs_fork
def test_a_child_that_closes_leaves_the_parent_alone(portal: LoopPortal, client: Client) -> None:
    assert portal.run(client.echo, 1) == 1
    assert in_child(portal.close) == "None"
    assert portal.run(client.echo, 2) == 2


@needs_fork
def test_a_fork_with_the_lock_held(portal: LoopPortal) -> None:
    portal.run(asyncio.sleep, 0)
    with portal._lock:
        assert in_child(lambda: portal.run(asyncio.sleep, 0, "child")) == "'child'"


@pytest.mark.slow
def test_a_call_that_nobody_waits_for_runs_on(portal: LoopPortal) -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    portal.submit(waits)
    portal.run(asyncio.sleep, 0.01)
    gc.collect()
    portal.run(asyncio.sleep, 0)
    assert ended == []
    portal.close()
    assert ended == ["cancelled"]


def test_the_interpreter_ends_with_a_call_running() -> None:
    script = """
import asyncio
from late_interaction.portal import LoopPortal

async def endless():
    try:
        await asyncio.Event().wait()
    finally:
        print("cancelled")

portal = LoopPortal()
portal.submit(endless)
portal.run(asyncio.sleep, 0.05)
print("end")
"""
    command = [sys.executable, "-X", "dev", "-c", script]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert ended.stdout.split() == ["end", "cancelled"]
    assert ended.stderr == ""
