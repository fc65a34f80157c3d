"""The embedded store: the space of deleted documents comes back."""

from __future__ import annotations

import asyncio
import logging
import sqlite3

import numpy as np
import pytest

from late_interaction import Document, EncodedDocument, LocalStore
from late_interaction.stores.local import space
from tests.stores.local import DIM, SPEC, best, database, matrix, query


def document(i: int, n_tokens: int) -> EncodedDocument:
    return EncodedDocument(Document(f"d{i}", f"text {i}" * 5, metadata={"i": i}), matrix(i, n_tokens))


def size(store: LocalStore) -> int:
    """Of what grows with the documents; the log's index (-shm) is 32 KiB at least."""
    return sum(path.stat().st_size for path in store.folder.iterdir() if not path.name.endswith("-shm"))


async def fresh_size(folder, documents) -> int:
    store = LocalStore(folder, "fresh")
    await store.open(SPEC)
    await store.upsert(documents)
    await store.close()
    return size(store)


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


@pytest.mark.slow
@pytest.mark.parametrize("n_tokens", [4, 30, 200], ids=["small", "a page", "large"])
@pytest.mark.parametrize("left", ["the last", "every tenth", "every second", "none"])
async def test_after_deletions_optimize_shrinks_the_folder(store, tmp_path, caplog, n_tokens, left):
    n = 8000 // n_tokens
    await store.upsert([document(i, n_tokens) for i in range(n)])
    full = size(store)
    keep = {
        "the last": {n - 1},
        "every tenth": set(range(0, n, 10)),
        "every second": set(range(0, n, 2)),
        "none": set(),
    }[left]
    await store.delete([f"d{i}" for i in range(n) if i not in keep])
    before = size(store)
    with caplog.at_level(logging.INFO):
        done = await store.optimize()
    after = size(store)
    assert 0 < done["freed_bytes"] <= before - after + 65536
    assert f"gave {done['freed_bytes']} bytes back" in caplog.text
    assert after < full
    assert after < 1.3 * await fresh_size(tmp_path, [document(i, n_tokens) for i in keep]) + 32768
    assert len(await best(store, query(0), n + 1)) == len(keep)
    assert (await store.optimize())["freed_bytes"] == 0
    await store.upsert([document(n, n_tokens)])
    assert len(await best(store, query(0), n + 1)) == len(keep) + 1


async def test_what_replaces_takes_the_space_of_what_was_there(store):
    documents = [document(i, 20) for i in range(300)]
    await store.upsert(documents)
    full = size(store)
    store._file.close()  # which empties the log
    for _ in range(5):
        await store.upsert(documents)
        await store.optimize()
        store._file.close()
    assert size(store) < 1.5 * full


async def test_a_few_deletions_are_left_for_later(store, monkeypatch):
    monkeypatch.setattr(space, "_is_due", lambda connection: pytest.fail("it measured"))
    await store.upsert([document(i, 20) for i in range(300)])
    await store.delete(["d0", "d1"])
    assert await store.optimize() == {"freed_bytes": 0}


async def test_clearing_gives_everything_back(store):
    await store.upsert([document(i, 30) for i in range(300)])
    await store.clear()
    assert (await store.optimize())["freed_bytes"] > 300 * 30 * DIM * 4
    assert database(store).stat().st_size < 100_000


async def test_other_stores_search_and_write_on_meanwhile(store, tmp_path):
    await store.upsert([document(i, 30) for i in range(600)])
    other = LocalStore(tmp_path, "things")
    await other.open(SPEC)
    await other.delete([f"d{i}" for i in range(10, 600)])

    async def use(i: int) -> None:
        await other.upsert([document(1000 + i, 5)])
        assert len(await best(other, query(i), 100)) >= 10

    done, *_ = await asyncio.gather(store.optimize(), *(use(i) for i in range(10)))
    assert done["freed_bytes"] > 0
    assert await store.count() == await other.count() == 20
    assert sorted(await best(store, query(0), 100)) == sorted(await best(other, query(0), 100))
    await other.close()


async def test_too_little_room_to_rewrite_is_told_and_harms_nothing(store, monkeypatch, caplog):
    await store.upsert([document(i, 30) for i in range(300)])
    await store.delete([f"d{i}" for i in range(290)])
    with store._file.reading() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]

    class Full:
        def __init__(self, connection):
            self.connection = connection

        def execute(self, statement, *args):
            if statement == "VACUUM":
                error = sqlite3.OperationalError("database or disk is full")
                error.sqlite_errorcode = sqlite3.SQLITE_FULL
                raise error
            return self.connection.execute(statement, *args)

    from contextlib import contextmanager

    alone = store._file.alone

    @contextmanager
    def full():
        with alone() as connection:
            yield Full(connection)

    with monkeypatch.context() as patch:
        patch.setattr(store._file, "alone", full)
        assert await store.optimize() == {"freed_bytes": 0}
    assert "was not given back" in caplog.text
    with store._file.reading() as connection:
        assert connection.execute("PRAGMA page_count").fetchone()[0] == pages
    assert len(await best(store, query(0), 100)) == 10
    assert (await store.optimize())["freed_bytes"] > 0
    assert np.isfinite((await store.candidates(query(0), 5, n_ann_tokens=None)).scores).all()
