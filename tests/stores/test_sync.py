import asyncio
import contextvars
import gc
import inspect
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction.errors import DocumentError, LateInteractionError
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.portal import LoopPortal
from late_interaction.sync import SyncPipeline
from tests.support.models import HashModel

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


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


def test_sixteen_threads(portal: LoopPortal, client: Client) -> None:
    with ThreadPoolExecutor(16) as threads:
        assert list(threads.map(lambda i: portal.run(client.echo, i), range(3200))) == list(range(3200))


def test_six_threads_with_their_own_loops(portal: LoopPortal, client: Client) -> None:
    async def main(name: int) -> list[tuple[int, int]]:
        return [await portal.arun(client.echo, (name, i)) for i in range(60)]

    with ThreadPoolExecutor(6) as threads:
        for name, found in enumerate(threads.map(lambda name: asyncio.run(main(name)), range(6))):
            assert found == [(name, i) for i in range(60)]


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


def portal_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "late-interaction-portal"]


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


def in_child(function: Callable[[], object]) -> str:
    """What the function returns in a forked child, as its repr."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        try:
            answer = repr(function())
        except BaseException as error:  # noqa: BLE001 - the child ends here
            answer = f"raised {error!r}"
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


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


# --- the pipeline -----------------------------------------------------------------------------------------------


ROWS = [{"doc_id": f"d{n}", "content": f"word{n} shared", "n": n} for n in range(30)]


def make(folder: Path, **options: Any) -> SyncPipeline:
    return SyncPipeline(folder, HashModel(), doc_pool_factor=1, **options)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[SyncPipeline]:
    with make(tmp_path) as pipeline:
        yield pipeline


@pytest.fixture
def filled(pipeline: SyncPipeline) -> SyncPipeline:
    pipeline.index_documents(ROWS)
    return pipeline


def public_methods(of: type) -> dict[str, Any]:
    return {name: value for name, value in vars(of).items() if inspect.isfunction(value) and name[0] != "_"}


def test_it_has_the_methods_of_the_async_pipeline() -> None:
    ours, theirs = public_methods(SyncPipeline), public_methods(LateInteractionPipeline)
    assert ours.keys() - theirs.keys() == {"close", "run", "arun"}
    assert theirs.keys() <= ours.keys()
    for name in theirs.keys() - {"copy_to", "aclose"}:
        assert inspect.signature(ours[name]) == inspect.signature(theirs[name])
        assert ours[name].__doc__ == theirs[name].__doc__ is not None
        assert ours[name].__qualname__ == f"SyncPipeline.{name}"
        assert not inspect.iscoroutinefunction(ours[name])
    (other, options), (others, _) = (
        list(inspect.signature(methods["copy_to"]).parameters.values())[1:] for methods in (ours, theirs)
    )
    assert (other.name, options.name) == (others.name, "options")
    ours_made, theirs_made = (
        dict(inspect.signature(of).parameters) for of in (SyncPipeline, LateInteractionPipeline)
    )
    assert ours_made.pop("portal").kind is inspect.Parameter.KEYWORD_ONLY
    assert ours_made == theirs_made


def test_every_method(pipeline: SyncPipeline, tmp_path: Path) -> None:
    assert pipeline.index_document({"doc_id": "a", "content": "alpha beta", "n": 1}) == "a"
    assert pipeline.index_documents([{"doc_id": "b", "content": "beta gamma", "n": 2}], batch_size=5) == ["b"]
    assert pipeline.index_documents(iter([{"doc_id": "c", "content": "delta"}]), skip_existing=True) == ["c"]
    (vectors,) = HashModel().encode_documents(["epsilon zeta"])
    assert pipeline.index_embeddings(iter([{"doc_id": "e", "content": "given"}]), iter([vectors])) == ["e"]
    pipeline.optimize()
    assert [
        doc_id for doc_id, _, _ in pipeline.search("alpha", k=1, n_ann_tokens=50, n_maxsim_candidates=5)
    ] == ["a"]
    assert [found[0].doc_id for found in pipeline.search_many(["alpha", "gamma"], 1)] == ["a", "b"]
    assert pipeline.search("beta", filter={"n": {"$gt": 1}}, exact=True)[0].doc_id == "b"
    assert pipeline.search_with_embeddings(vectors, k=1)[0].doc_id == "e"
    assert np.allclose(pipeline.encode_queries(["epsilon zeta"]), [vectors])
    assert np.allclose(pipeline.get_matrices(["x", "e"])["e"], vectors, atol=0.02)
    assert [document.doc_id for document in pipeline.get_documents(["c", "x", "a"])] == ["c", "a"]
    assert [document.doc_id for document in pipeline.find({"n": {"$exists": True}}, limit=1)] == ["a"]
    assert pipeline.update_metadata("a", {"n": 3})
    assert pipeline.count({"n": 3}) == 1
    assert pipeline.delete_document("c")
    assert pipeline.delete_documents({"n": 3}) == 1
    assert pipeline.delete_documents(["e", "x"]) == 1
    assert pipeline.count() == 1
    assert pipeline.copy_to(tmp_path / "copy") == 1
    with make(tmp_path / "other") as other:
        assert pipeline.copy_to(other) == 1
        assert other.count() == 1
    pipeline.clear()
    assert pipeline.count() == 0
    pipeline.drop()
    assert not list(tmp_path.glob("*/documents.sqlite3"))[1:]
    assert pipeline.count() == 0


def test_copy_needs_one_portal(filled: SyncPipeline, portal: LoopPortal, tmp_path: Path) -> None:
    with make(tmp_path / "other", portal=portal) as other, pytest.raises(ValueError, match="one portal"):
        filled.copy_to(other)


async def test_inside_a_running_loop_and_from_async_code(filled: SyncPipeline) -> None:
    assert filled.search("word7", k=1)[0].doc_id == "d7"
    found = await asyncio.gather(
        *(filled.arun(lambda pipeline, n=n: pipeline.search(f"word{n}", k=1)) for n in range(30))
    )
    assert [results[0].doc_id for results in found] == [row["doc_id"] for row in ROWS]


def test_from_threads_and_other_loops(filled: SyncPipeline) -> None:
    def search(n: int) -> str:
        if n % 2:
            return asyncio.run(filled.arun(lambda pipeline: pipeline.search(f"word{n}", k=1)))[0].doc_id
        return filled.search(f"word{n}", k=1)[0].doc_id

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search, range(30))) == [row["doc_id"] for row in ROWS]


async def test_opened_and_closed_by_async_code(tmp_path: Path) -> None:
    async with make(tmp_path) as pipeline:
        assert await pipeline.arun(lambda pipeline: pipeline.count()) == 0
    await pipeline.aclose()
    with pytest.raises(LateInteractionError, match="closed"):
        await pipeline.arun(lambda pipeline: pipeline.count())


def test_the_last_pipeline_closes_the_shared_portal(tmp_path: Path) -> None:
    before = portal_threads()
    first, second = make(tmp_path / "first"), make(tmp_path / "second")
    first.initialize()
    second.initialize()
    assert len(portal_threads()) == len(before) + 1
    first.close()
    first.close()
    with pytest.raises(LateInteractionError, match="closed"):
        first.count()
    with pytest.raises(LateInteractionError, match="closed"):
        first.index_documents(ROWS)
    assert second.count() == 0
    second.close()
    assert portal_threads() == before
    for use in (SyncPipeline.count, lambda closed: closed.index_documents(ROWS)):
        with pytest.raises(LateInteractionError, match=r"SyncPipeline\(.* is closed; make a new one"):
            use(second)
    with make(tmp_path / "first") as again:
        assert again.count() == 0


def test_a_given_portal_stays_open(portal: LoopPortal, tmp_path: Path) -> None:
    with make(tmp_path, portal=portal) as pipeline:
        assert pipeline.count() == 0
    assert portal.run(asyncio.sleep, 0, "open") == "open"


def test_a_context_that_cannot_open_lets_go(tmp_path: Path) -> None:
    before = portal_threads()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises((LateInteractionError, OSError)), make(tmp_path / "file"):
        pass
    assert portal_threads() == before


def test_errors_come_through(pipeline: SyncPipeline) -> None:
    with pytest.raises(DocumentError) as caught:
        pipeline.index_documents([ROWS[0], {"content": ""}, ROWS[1]])
    assert caught.value.indexed == ["d0", "d1"]
    with pytest.raises(ValueError, match="k must be"):
        pipeline.search("x", k=0)


# --- rows from a generator --------------------------------------------------------------------------------------


def test_a_generator_runs_in_the_callers_thread_and_leaves_the_portal_free(pipeline: SyncPipeline) -> None:
    threads, counted_by_others = set(), []

    def rows() -> Iterator[dict[str, Any]]:
        for row in ROWS:
            threads.add(threading.get_ident())
            with ThreadPoolExecutor(1) as other:  # while this generator waits, others are served
                counted_by_others.append(other.submit(pipeline.count).result(timeout=10))
            pipeline.search("word1")  # and it may call the pipeline that waits for it
            yield row

    assert pipeline.index_documents(rows(), batch_size=7) == [row["doc_id"] for row in ROWS]
    assert threads == {threading.get_ident()}
    assert counted_by_others[0] == 0
    assert counted_by_others[-1] >= 7
    assert pipeline.count() == 30


def test_a_generator_is_taken_a_batch_at_a_time(pipeline: SyncPipeline) -> None:
    taken = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in ROWS:
            assert taken - pipeline.count() <= 3 * 4
            taken += 1
            yield row

    pipeline.index_documents(rows(), batch_size=4)
    assert taken == 30


@pytest.mark.parametrize("n", [0, 1, 4, 5, 8])
def test_any_number_of_rows(pipeline: SyncPipeline, n: int) -> None:
    assert len(pipeline.index_documents(iter(ROWS[:n]), batch_size=4)) == n
    assert pipeline.count() == n


def test_rows_that_know_their_number_show_it(
    pipeline: SyncPipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    class Sized:
        def __len__(self) -> int:
            return 30

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(ROWS)

    pipeline.index_documents(Sized(), show_progress=True)  # type: ignore[arg-type]
    assert "30/30" in capfd.readouterr().err


def test_an_error_of_the_generator_comes_through(pipeline: SyncPipeline) -> None:
    class OwnError(Exception):
        pass

    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS[:10]
        raise OwnError("why")

    with pytest.raises(OwnError, match="why"):
        pipeline.index_documents(rows(), batch_size=4)
    assert pipeline.count() in (8, 10)
    assert pipeline.index_documents(ROWS, skip_existing=True) == [row["doc_id"] for row in ROWS]


def test_an_interrupt_in_the_generator_ends_the_call(pipeline: SyncPipeline) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.index_documents(rows(), batch_size=4)
    assert pipeline.index_documents(ROWS) == [row["doc_id"] for row in ROWS]
    assert pipeline.count() == 30


def test_a_portal_that_closes_ends_the_call(tmp_path: Path) -> None:
    portal = LoopPortal()
    pipeline = make(tmp_path, portal=portal)
    pipeline.initialize()

    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        with ThreadPoolExecutor(1) as other:
            other.submit(portal.close).result()
        yield ROWS[1]

    with pytest.raises(LateInteractionError, match="portal is closed"):
        pipeline.index_documents(rows(), batch_size=1)


# --- the pipeline after a fork ----------------------------------------------------------------------------------


@needs_fork
def test_a_child_opens_the_index_anew(filled: SyncPipeline) -> None:
    def search() -> list[Any]:
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda n: filled.search(f"word{n}", k=1)[0].doc_id, range(4)))
        return [*found, filled.count()]

    assert filled.search("word3", k=1)[0].doc_id == "d3"
    assert in_child(search) == repr(["d0", "d1", "d2", "d3", 30])
    assert in_child(filled.close) == "None"
    filled.index_document({"doc_id": "later", "content": "later"})
    assert in_child(lambda: filled.search("later", k=1)[0].doc_id) == "'later'"
    assert filled.count() == 31


@needs_fork
def test_a_child_of_a_pipeline_that_was_not_open(tmp_path: Path) -> None:
    pipeline = make(tmp_path)

    def use() -> list[object]:
        return [*pipeline.index_documents(iter(ROWS[:2])), pipeline.count()]

    assert in_child(use) == "['d0', 'd1', 2]"
    with pipeline:
        assert pipeline.count() == 2
