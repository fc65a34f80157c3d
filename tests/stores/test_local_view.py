"""The embedded store: what it keeps in memory grows with each write, and is what reading everything would give."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from contextlib import closing

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from late_interaction import LocalStore
from late_interaction.filters import parse_filter
from late_interaction.stores.local import sqlite, tables, view
from late_interaction.stores.local.limits import Limits
from tests.stores.local import SMALL, SPEC, best, database, encoded, query

FILTERS = [
    parse_filter({"group": 0}),
    parse_filter({"i": {"$gte": 6}}),
    parse_filter({"tag": {"$ne": "new"}}),
]
IDS = st.integers(0, 11)
STEPS = st.one_of(
    st.tuples(st.just("upsert"), st.lists(IDS, max_size=6, unique=True)),
    st.tuples(st.just("delete"), st.lists(IDS, max_size=6)),
    st.tuples(st.just("tag"), IDS),
    st.tuples(st.just("delete group"), st.integers(0, 2)),
    st.tuples(st.just("optimize"), st.none()),
    st.tuples(st.just("clear"), st.none()),
    st.tuples(st.just("look"), st.none()),
)


async def do(store, step):
    match step:
        case "upsert", ids:
            await store.upsert([encoded(i, group=i % 3) for i in ids])
        case "delete", ids:
            await store.delete([f"d{i}" for i in ids])
        case "tag", i:
            await store.update_metadata(f"d{i}", {"tag": "new", "group": 0})
        case "delete group", group:
            await store.delete(parse_filter({"group": group}))
        case "optimize", _:
            await store.optimize()
        case "clear", _:
            await store.clear()


async def seen(store):
    """Everything a search sees, from the store's memory where it has it."""
    found = {}
    for chosen in (None, *FILTERS):
        candidates = await store.candidates(query(1), 100, n_ann_tokens=10_000, filter=chosen)
        order = sorted(range(len(candidates.doc_ids)), key=candidates.doc_ids.__getitem__)
        found[str(chosen)] = (
            [candidates.doc_ids[i] for i in order],
            [round(float(candidates.scores[i]), 4) for i in order],
            candidates.exact[order].tolist(),
        )
    info = await store.info()
    return found, {name: info[name] for name in info if name not in ("file_bytes", "index_bytes")}


@pytest.mark.slow
@pytest.mark.parametrize("exact_tokens", [0, 15, 80_000])
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(STEPS, min_size=3, max_size=12), writers=st.lists(st.booleans(), min_size=12, max_size=12)
)
def test_a_view_that_grew_is_one_that_was_read(exact_tokens, steps, writers):
    limits = Limits(exact_tokens=exact_tokens)

    async def run(folder):
        store, other = (LocalStore(folder, "things", limits=limits) for _ in range(2))
        for one in (store, other):
            await one.open(SPEC)
            one._builder.start = lambda: None
        for step, mine in zip(steps, writers, strict=False):
            await do(store if mine else other, step)
            fresh = LocalStore(folder, "things", limits=limits)
            await fresh.open(SPEC)
            assert await seen(store) == await seen(fresh)
            await fresh.close()
        await store.close()
        await other.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(folder))


@pytest.fixture
def reads(monkeypatch):
    """How often everything was read."""
    counted = []
    read = view.Views._read
    monkeypatch.setattr(view.Views, "_read", lambda self, *a, **k: counted.append(1) or read(self, *a, **k))
    return counted


@pytest.mark.slow
async def test_a_write_costs_no_more_in_a_large_collection_than_in_a_small_one(tmp_path, monkeypatch):
    """Counted in steps of SQLite's machine, of which every row read takes several."""
    steps = 0
    connect = sqlite3.connect

    def count():
        nonlocal steps
        steps += 1

    def counting(*args, **kwargs):
        connection = connect(*args, **kwargs)
        connection.set_progress_handler(count, 1)
        return connection

    monkeypatch.setattr(sqlite.sqlite3, "connect", counting)

    async def cost(n: int) -> list[int]:
        nonlocal steps
        store = LocalStore(tmp_path, f"n{n}", limits=SMALL)
        await store.open(SPEC)
        await store.upsert([encoded(i, group=i % 3) for i in range(n)])
        await store.optimize()
        costs = []
        for i in range(3):
            await best(store, query(i))
            await store.candidates(query(i), 10, n_ann_tokens=50, filter=FILTERS[0])
            steps = 0
            await store.upsert([encoded(i, group=0), encoded(n + i, group=1)])
            await store.delete([f"d{n - 1 - i}"])
            await store.update_metadata("d5", {"group": 0})
            await store.optimize()
            await store.candidates(query(i), 10, n_ann_tokens=50)
            await store.candidates(query(i), 10, n_ann_tokens=50, filter=FILTERS[0])
            costs.append(steps)
        await store.close()
        return costs

    small, large = await cost(300), await cost(3000)
    assert max(large) < 1.2 * max(small)
    assert max(large) < 3000  # less than one step for each document


async def test_only_what_cannot_be_known_otherwise_is_read_again(tmp_path, reads, monkeypatch):
    monkeypatch.setattr(tables, "_CHANGES_KEPT", 4)
    monkeypatch.setattr(tables, "_ROWS_KEPT", 10)
    store, other = (LocalStore(tmp_path, "things") for _ in range(2))
    await store.open(SPEC)
    await other.open(SPEC)
    await store.upsert([encoded(i) for i in range(30)])
    assert len(await best(store, query(0), 100)) == 30
    assert reads == [1]
    for i in range(3):
        await other.upsert([encoded(i)])
        await other.delete([f"d{10 + i}"])
        assert len(await best(store, query(0), 100)) == 29 - i
    assert reads == [1]
    for i in range(6):  # more than the log keeps
        await other.upsert([encoded(30 + i)])
    assert len(await best(store, query(0), 100)) == 33
    assert len(reads) == 2
    await other.delete([f"d{i}" for i in range(20, 32)])  # more than one entry of it keeps
    assert len(await best(store, query(0), 100)) == 21
    assert len(reads) == 3
    with closing(sqlite3.connect(database(store))) as connection:
        assert connection.execute("SELECT count(*) FROM changes").fetchone()[0] <= 4
    await store.close()
    await other.close()


@pytest.mark.slow
async def test_a_document_replaced_again_and_again_does_not_pile_up(tmp_path, reads):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    for _ in range(300):
        await store.upsert([encoded(0), encoded(1)])
        assert sorted(await best(store, query(0))) == ["d0", "d1"]
    assert len(store._views.latest.unindexed.row_ids) < 100
    assert len(store._views.latest.matrices.tokens) < 1000
    assert reads == [1]
    await store.close()


def as_before(folder) -> None:
    """Make of an index what an earlier release would have left: no log, no stamp, no name of the search index."""
    with closing(sqlite3.connect(folder / "documents.sqlite3")) as connection:
        connection.execute("DROP TABLE changes")
        connection.execute("DELETE FROM properties WHERE name NOT IN ('spec', 'index_id', 'generation')")
        connection.commit()
    path = folder / "centroids.npz"
    if path.exists():
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files if name != "build_id"}
        np.savez(path, **arrays)


@pytest.mark.parametrize("large", [False, True])
async def test_an_index_of_an_earlier_release_is_searched_written_and_grows(tmp_path, reads, large):
    n = 300 if large else 20
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(n)])
    await store.optimize()
    await store.close()
    as_before(store.folder)
    content = (store.folder / "documents.sqlite3").read_bytes()
    await store.open(SPEC)
    assert len(await best(store, query(0), n)) == n
    assert (await store.info())["documents_in_index"] == (300 if large else 0)
    assert (store.folder / "documents.sqlite3").read_bytes() == content
    reads.clear()
    for i in range(3):
        await store.upsert([encoded(n + i), encoded(i)])
        assert len(await best(store, query(0), 2 * n)) == n + 1 + i
    assert len(reads) <= 1
    assert (await store.info())["documents_in_index"] == (297 if large else 0)
    await store.close()


async def test_a_write_by_an_earlier_release_in_between_is_noticed(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(5)])
    assert len(await best(store, query(0))) == 5
    with closing(sqlite3.connect(database(store))) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("UPDATE properties SET value = value + 1 WHERE name = 'generation'")
        connection.execute("DELETE FROM documents WHERE doc_id = 'd1'")
        connection.commit()
    assert sorted(await best(store, query(0))) == ["d0", "d2", "d3", "d4"]
    await store.upsert([encoded(9)])
    assert sorted(await best(store, query(0))) == ["d0", "d2", "d3", "d4", "d9"]
    await store.close()


async def test_a_copy_with_another_history_of_the_same_length_is_noticed(tmp_path):
    """As when a backup is copied over the open file, and written to as often as this one was."""
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    await store.upsert([encoded(1)])
    await store.close()
    backup = database(store).read_bytes()
    await store.open(SPEC)
    await store.upsert([encoded(2)])
    state = None
    with store._file.reading() as connection:
        state = tables.read_state(connection)
    await store.close()
    (tmp_path / "copy" / "things").mkdir(parents=True)
    (tmp_path / "copy" / "things" / "documents.sqlite3").write_bytes(backup)
    copy = LocalStore(tmp_path / "copy", "things")
    await copy.open(SPEC)
    await copy.upsert([encoded(3)])
    with copy._file.reading() as connection:
        other = tables.read_state(connection)
        assert other.generation == state.generation
        assert other != state
        assert tables.read_changes(connection, state, other) is None
    await copy.close()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("DELETE FROM properties WHERE name = 'generation'", "damaged"),
        ("UPDATE properties SET value = 'many' WHERE name = 'generation'", "damaged"),
        ("UPDATE changes SET deleted = x'010203'", None),
        ("UPDATE changes SET deleted = 'text'", None),
        ("DELETE FROM changes", None),
    ],
)
async def test_damaged_properties_and_logs_are_an_error_of_ours_or_read_around(tmp_path, change, error):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    await store.upsert([encoded(1)])
    assert await best(store, query(0)) == ["d1"]
    await store.upsert([encoded(2)])
    with closing(sqlite3.connect(database(store))) as connection:
        connection.execute(change)
        connection.commit()
    if error:
        with pytest.raises(view.StoreError, match=error):
            await best(store, query(0))
    else:
        assert sorted(await best(store, query(0))) == ["d1", "d2"]
    await store.close()
