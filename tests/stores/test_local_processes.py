"""The embedded store: other processes write, die, fork and read."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from late_interaction import (
    LocalStore,
)
from late_interaction.maxsim import maxsim
from tests.stores.local import SMALL, SPEC, best, encoded, query
from tests.support.paths import ROOT


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


WRITER = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from tests.stores.test_local_processes import SPEC, LocalStore, encoded

    async def main():
        store = LocalStore({folder!r}, "things")
        await store.open(SPEC)
        {body}

    asyncio.run(main())
"""


def start_writer(folder: Path, body: str) -> subprocess.Popen:
    body = textwrap.indent(body, " " * 4).lstrip()
    code = textwrap.dedent(WRITER).format(tests=str(ROOT), folder=str(folder), body=body)
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )


@pytest.mark.slow
async def test_after_a_kill_every_acknowledged_document_is_whole_and_none_is_half_there(tmp_path):
    body = (
        "i = 0\n"
        "while True:\n"
        "    await store.upsert([encoded(j) for j in range(i, i + 7)])\n"
        "    i += 7\n"
        "    print(i, flush=True)"
    )
    acknowledged = 0
    for delay in (0.3, 0.05, 0.17):
        process = start_writer(tmp_path, body)
        process.stdout.readline()
        await asyncio.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        lines = process.communicate()[0].split()
        acknowledged = max([acknowledged, 7, *map(int, lines)])
        store = LocalStore(tmp_path, "things")
        await store.open(SPEC)
        there = await store.count()
        assert there >= acknowledged
        assert there % 7 == 0
        seen = [d async for batch in store.scan() for d in batch]
        assert sorted(d.document.metadata["i"] for d in seen) == list(range(there))
        for document in seen:
            expected = encoded(document.document.metadata["i"])
            assert document.document == expected.document
            np.testing.assert_array_equal(document.matrix, expected.matrix)
        await store.close()


@pytest.mark.slow
async def test_a_reader_sees_what_another_process_writes(store, tmp_path):
    await store.upsert([encoded(0)])
    assert await best(store, query(0)) == ["d0"]
    process = start_writer(
        tmp_path, "await store.upsert([encoded(i) for i in range(5)]); await store.close()"
    )
    process.communicate()
    assert process.returncode == 0
    assert len(await best(store, query(0))) == 5


async def test_two_stores_in_one_process_may_both_write(store, tmp_path):
    """As when a notebook's cell is run again."""
    again = LocalStore(tmp_path, "things")
    await again.open(SPEC)
    await asyncio.gather(*(s.upsert([encoded(i)]) for i in range(30) for s in (store, again)))
    assert await store.count() == await again.count() == 30
    await again.close()
    await store.upsert([encoded(31)])
    assert await store.count() == 31


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
async def test_a_forked_child_reads_and_leaves_the_parent_alone(store):
    await store.upsert([encoded(i) for i in range(5)])
    child = os.fork()
    if child == 0:
        code = 1
        try:
            with store._file.reading() as connection:
                code = 0 if connection.execute("SELECT count(*) FROM documents").fetchone()[0] == 5 else 2
            asyncio.set_event_loop(None)
            asyncio.run(store.upsert([encoded(7)]))
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await store.upsert([encoded(9)])
    assert await store.count() == 7


@pytest.mark.slow
async def test_many_searches_and_writes_at_once(store):
    async def write(i: int) -> None:
        await store.upsert([encoded(i)])

    async def search(i: int) -> None:
        found = await store.candidates(query(i), 10, n_ann_tokens=100)
        await store.matrices(found.doc_ids)

    await asyncio.gather(*(task(i) for i in range(150) for task in (write, search)))
    await store.optimize()
    assert await store.count() == 150
    expected = maxsim(query(1).vectors, [encoded(i).matrix for i in range(150)])
    assert (await best(store, query(1), 150))[0] == f"d{expected.argmax()}"


BUILDER = """
    from late_interaction.stores.local import build
    from tests.stores.local import SMALL
    train = build.train_centroids
    def slow(*args, **kwargs):
        print("building", flush=True)
        sys.stdin.readline()
        return train(*args, **kwargs)
    build.train_centroids = slow
    store = LocalStore(store.folder.parent, "things", limits=SMALL)
    await store.open(SPEC)
    await store.optimize()
    print((await store.info())["documents_in_index"], flush=True)
    await store.close()
"""


@pytest.mark.slow
async def test_one_process_builds_the_index_and_others_search_and_write_on(tmp_path, caplog):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    store._builder.start = lambda: None
    await store.upsert([encoded(i) for i in range(150)])
    process = start_writer(tmp_path, textwrap.dedent(BUILDER).strip())
    assert process.stdout.readline() == "building\n"
    with caplog.at_level("INFO"):
        await asyncio.wait_for(store.optimize(), 10)
    assert "Another process builds" in caplog.text
    await asyncio.wait_for(store.upsert([encoded(150), encoded(3)]), 10)
    await store.delete(["d4"])
    assert len(await best(store, query(0), 200)) == 150
    assert process.communicate("go on\n", timeout=60)[0] == "148\n"
    assert len(await best(store, query(0), 200)) == 150
    assert (await store.info())["documents_in_index"] == 148
    assert (await store.info())["documents_scored_exactly"] == 2
    await store.close()
