"""The embedded store: many processes write to one folder, in turns."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from late_interaction import LocalStore
from late_interaction.errors import StoreError, StoreLockedError
from late_interaction.stores.local.locks import LockFile, queue_of, turn
from tests.stores.local import SPEC, encoded
from tests.support.paths import ROOT

pytestmark = pytest.mark.slow

PROCESS = """
    import asyncio, sys, time
    from pathlib import Path
    sys.path.insert(0, {root!r})
    from late_interaction import LocalStore
    from tests.stores.local import SPEC, best, encoded, query

    async def main():
        store = LocalStore({folder!r}, "things")
    {body}

    asyncio.run(main())
"""


def start(folder: Path, body: str, **options: object) -> subprocess.Popen:
    body = textwrap.indent(textwrap.dedent(body), " " * 4)
    code = textwrap.dedent(PROCESS).format(root=str(ROOT), folder=str(folder), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )


def finish(process: subprocess.Popen, timeout: float = 90) -> list[str]:
    out = process.communicate(timeout=timeout)[0].split()
    assert process.returncode == 0
    return out


async def opened(folder: Path, **options: object) -> LocalStore:
    store = LocalStore(folder, "things", **options)
    await store.open(SPEC)
    return store


def hold_write_lock(folder: Path, name: str = "write.lock") -> LockFile:
    """Hold the lock as a version up to 0.1 does, from its first write to its end."""
    lock = LockFile(folder / "things" / name)
    assert lock.try_acquire()
    return lock


async def test_eight_processes_write_at_once_and_search_meanwhile(tmp_path):
    """Each begins with no index there. Nothing is lost, doubled or mixed, and none waits for long."""
    body = """
        await store.open(SPEC)
        number, waits = int(sys.stdin.readline()), []
        for i in range(25):
            mine = [number * 100 + i, 5000 + i]
            begin = time.monotonic()
            await store.upsert([encoded(j, by=number) for j in mine])
            waits.append(time.monotonic() - begin)
            found = await store.find()
            ids = [document.doc_id for document in found]
            assert len(set(ids)) == len(ids)
            assert {f"d{number * 100 + j}" for j in range(i + 1)} <= set(ids)
            assert len(await best(store, query(i), 5)) >= min(5, len(ids))
        print(max(waits))
    """
    processes = [start(tmp_path, body) for _ in range(8)]
    for number, process in enumerate(processes):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
    waits = [float(finish(process)[0]) for process in processes]
    store = await opened(tmp_path)
    documents = await store.find()
    expected = {f"d{number * 100 + i}" for number in range(8) for i in range(25)}
    expected |= {f"d{5000 + i}" for i in range(25)}
    assert sorted(document.doc_id for document in documents) == sorted(expected)
    seen = [document async for batch in store.scan() for document in batch]
    for document in seen:
        assert document.matrix.tolist() == encoded(document.document.metadata["i"]).matrix.tolist()
    assert max(waits) < 20
    await store.close()


async def test_a_writer_without_a_pause_lets_another_have_its_turn(tmp_path):
    body = """
        await store.open(SPEC)
        print("ready", flush=True)
        end, n = time.monotonic() + 6, 0
        while time.monotonic() < end:
            await store.upsert([encoded(j) for j in range(20)])
            n += 1
        print(n)
    """
    process = start(tmp_path, body)
    assert process.stdout.readline() == "ready\n"
    store, waits = await opened(tmp_path), []
    end = time.monotonic() + 4
    while time.monotonic() < end:
        begin = time.monotonic()
        await store.upsert([encoded(100)])
        waits.append(time.monotonic() - begin)
    await store.close()
    written = int(finish(process)[0])
    assert len(waits) > written / 8
    assert max(waits) < 2


async def test_a_writer_waits_for_its_turn(tmp_path):
    store = await opened(tmp_path)
    lock = hold_write_lock(tmp_path)
    writing = asyncio.create_task(store.upsert([encoded(1)]))
    await asyncio.sleep(0.3)
    assert not writing.done()
    assert await store.count() == 0
    lock.release()
    await writing
    assert await store.count() == 1
    await store.close()


@pytest.mark.parametrize("name", ["write.lock", "write.lock.queue"])
async def test_after_lock_timeout_a_writer_gives_up_and_says_so(tmp_path, name):
    store = await opened(tmp_path, lock_timeout=0.3)
    lock = hold_write_lock(tmp_path, name)
    begin = time.monotonic()
    for write in (lambda: store.upsert([encoded(1)]), lambda: store.delete(["d1"]), store.clear, store.drop):
        with pytest.raises(StoreLockedError, match=r"0\.3 s were not enough to get a turn"):
            await write()
    assert 1.2 <= time.monotonic() - begin < 3
    assert await store.count() == 0
    lock.release()
    await store.upsert([encoded(1)])
    assert await store.count() == 1
    await store.close()


async def test_writes_that_wait_one_behind_the_other_give_up_together_and_searches_go_on(tmp_path):
    store = await opened(tmp_path, lock_timeout=0.5)
    lock = hold_write_lock(tmp_path)
    begin = time.monotonic()
    writes = [asyncio.create_task(store.upsert([encoded(i)])) for i in range(40)]
    for _ in range(10):
        searched = time.monotonic()
        assert await store.count() == 0
        assert time.monotonic() - searched < 0.4
    refused = await asyncio.gather(*writes, return_exceptions=True)
    assert {type(error) for error in refused} == {StoreLockedError}
    assert time.monotonic() - begin < 3
    lock.release()
    await store.upsert([encoded(1)])
    await store.close()


async def test_another_programs_transaction_is_waited_for_too(tmp_path):
    import sqlite3

    store = await opened(tmp_path, lock_timeout=0.3)
    other = sqlite3.connect(store.folder / "documents.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    with pytest.raises(StoreLockedError):
        await store.upsert([encoded(1)])
    assert time.monotonic() - begin < 5
    other.execute("ROLLBACK")
    other.close()
    await store.upsert([encoded(1)])
    await store.close()


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), True, "30", None])
def test_a_lock_timeout_is_a_number_of_seconds(tmp_path, value):
    with pytest.raises((TypeError, ValueError), match="lock_timeout must be a number of seconds"):
        LocalStore(tmp_path, lock_timeout=value)


async def test_a_store_that_is_dropped_without_close_holds_nothing(tmp_path):
    store = await opened(tmp_path)
    await store.upsert([encoded(1)])
    threads = threading.active_count()
    del store
    gc.collect()
    for _ in range(500):
        if threading.active_count() < threads:
            break
        await asyncio.sleep(0.01)
    assert threading.active_count() < threads
    assert not [path for path in _open_files() if str(tmp_path) in path]
    finish(start(tmp_path, "await store.open(SPEC); await store.upsert([encoded(2)])"))


def _open_files() -> list[str]:
    """The paths of the files that this process has open; none where the system does not tell."""
    links = Path("/proc/self/fd")
    return [str(link.readlink()) for link in links.iterdir() if link.is_symlink()] if links.is_dir() else []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_child_forked_during_a_write_does_not_hold_the_lock_of_a_killed_parent(tmp_path):
    body = """
        import os, threading
        await store.open(SPEC)
        with store._file.turn():
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            print(child, flush=True)
            time.sleep(30)
    """
    process = start(tmp_path, body)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        store = await opened(tmp_path, lock_timeout=5)
        await store.upsert([encoded(1)])
        assert await store.count() == 1
        await store.close()
    finally:
        os.kill(child, 9)
        process.stdout.close()
        process.stdin.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_forked_child_does_not_free_the_parents_lock(tmp_path):
    store = await opened(tmp_path, lock_timeout=0.2)
    with store._file.turn():
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with store._file.turn():
                    code = 2
            except StoreLockedError:
                code = 0
            finally:
                os._exit(code)
        _, status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    await store.close()


async def test_a_writer_that_waits_while_the_index_is_dropped_says_that_it_is_gone(tmp_path):
    store = await opened(tmp_path)
    other = await opened(tmp_path)
    lock = hold_write_lock(tmp_path)
    writing = asyncio.create_task(store.upsert([encoded(1)]))
    await asyncio.sleep(0.1)
    dropping = asyncio.create_task(other.drop())
    await asyncio.sleep(0.1)
    lock.release()
    results = await asyncio.gather(writing, dropping, return_exceptions=True)
    assert results[1] is None
    assert results[0] is None or "was deleted or moved away" in str(results[0])
    assert not store.folder.exists()
    with pytest.raises(StoreError, match="was deleted or moved away"):
        await store.upsert([encoded(1)])


async def test_processes_that_create_drop_and_write_at_once_leave_a_whole_index_or_none(tmp_path):
    body = """
        from late_interaction import StoreError
        for i in range(12):
            try:
                await store.open(SPEC)
                await store.upsert([encoded(j) for j in range(5)])
                found = [document.metadata["i"] for document in await store.find()]
                assert found in ([], [0, 1, 2, 3, 4]), found
                if i % 3 == 2:
                    await store.drop()
            except StoreError as error:
                assert "was deleted or moved away" in str(error) or "replaced" in str(error), error
                await store.close()
    """
    for process in [start(tmp_path, body) for _ in range(4)]:
        finish(process)
    store = await opened(tmp_path)
    assert await store.count() in (0, 5)
    await store.drop()
    assert not store.folder.exists()


def test_locks_are_exclusive_between_threads_and_survive_their_files_deletion(tmp_path):
    path, inside, most = tmp_path / "x.lock", 0, 0

    def work() -> None:
        nonlocal inside, most
        for i in range(30):
            with turn(path, time.monotonic() + 30):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1
                if i % 10 == 0:  # at its end, as when an index is dropped
                    path.unlink(missing_ok=True)
                    queue_of(path).unlink(missing_ok=True)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
