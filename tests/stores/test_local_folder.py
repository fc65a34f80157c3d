"""The embedded store: how a folder comes into being, is opened, copied, closed and deleted."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing, contextmanager

import numpy as np
import pytest

from late_interaction import (
    IndexMismatchError,
    IndexSpec,
    LocalStore,
    QueryVectors,
)
from late_interaction.errors import StoreError
from late_interaction.filters import parse_filter
from late_interaction.stores.local import pairing
from tests.stores.local import SPEC, best, encoded, query


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


async def test_an_index_that_is_not_there_is_created_and_then_attached_to(tmp_path):
    first = LocalStore(tmp_path / "new" / "folder", "things")
    assert await first.spec() is None
    assert not (tmp_path / "new").exists()
    await first.open(SPEC)
    await first.upsert([encoded(1)])
    await first.close()
    second = LocalStore(tmp_path / "new" / "folder", "things")
    assert await second.spec() == SPEC
    await second.open(SPEC)
    assert [d.doc_id for d in await second.find()] == ["d1"]
    await second.close()


def test_an_index_of_a_newer_release_says_so():
    assert IndexSpec.from_dict(SPEC.to_dict()) == SPEC
    with pytest.raises(StoreError, match=r"newer release .* does not know its bits"):
        IndexSpec.from_dict({**SPEC.to_dict(), "bits": 2})


async def test_another_spec_is_refused_and_each_difference_named(store, tmp_path):
    other = IndexSpec(
        dim=8, encoder={"model": "m", "query_length": 32}, pooling={"factor": 1.0}, packing="float32"
    )
    with pytest.raises(IndexMismatchError) as caught:
        await LocalStore(tmp_path, "things").open(other)
    assert caught.value.differences == {"dim": (16, 8), "encoder.query_length": (None, 32)}
    assert "dim: the index has 16, this pipeline has 8" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "x" * 101, "tab\t"])
def test_a_name_that_is_no_folder_name_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="an index's name"):
        LocalStore(tmp_path, name)


async def test_no_connection_is_used_after_it_was_given_back(store, monkeypatch):
    """Another thread may have it by then."""

    class Lent:
        def __init__(self, connection):
            self.connection, self.over = connection, False

        def execute(self, *args):
            assert not self.over
            return self.connection.execute(*args)

    @contextmanager
    def lending():
        with reading() as connection:
            lent = Lent(connection)
            yield lent
            lent.over = True

    await store.upsert([encoded(1), encoded(2)])
    reading = store._file.reading
    monkeypatch.setattr(store._file, "reading", lending)
    query = QueryVectors(encoded(1).matrix, np.ones(len(encoded(1).matrix), np.float32))
    assert [d.doc_id for d in await store.documents(["d2", "d1"])] == ["d2", "d1"]
    assert await store.existing(["d1", "d3"]) == {"d1"}
    assert [d.doc_id for d in await store.find()] == ["d1", "d2"]
    assert await store.count() == 2
    assert (await store.matrices(["d2"]))[0] == ["d2"]
    assert (await store.score(query, ["d1"]))[0] == ["d1"]
    assert (await store.candidates(query, 1, n_ann_tokens=None)).doc_ids == ["d1"]
    assert [len(batch) async for batch in store.scan(batch_size=1)] == [1, 1]
    assert (await store.info())["packed_bytes"] > 0


async def test_a_store_that_is_not_open_says_so(tmp_path):
    with pytest.raises(StoreError, match=r"call initialize\(\) first"):
        await LocalStore(tmp_path).count()


async def test_a_folder_that_cannot_be_made_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be written: "):
        await LocalStore(tmp_path / "file", "things").open(SPEC)


async def test_a_file_that_is_no_index_is_an_error_of_ours(tmp_path):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / "documents.sqlite3").write_text(
        "this is not a database, however long it may be" * 50
    )
    with pytest.raises(StoreError, match="not a database"):
        await LocalStore(tmp_path, "things").open(SPEC)


@pytest.mark.parametrize(
    "spec",
    ["{", "[]", "{}", "null", "5", '{"dim": "x"}', '{"dim": 16, "encoder": null, "pooling": 3}',
     '{"dim": 1e400, "encoder": {}, "pooling": {}}', '{"dim": 16, "encoder": {}, "pooling": {}, "packing": "int3"}',
     "[" * 100_000],
)  # fmt: skip
async def test_a_damaged_spec_is_an_error_of_ours(store, tmp_path, spec):
    with store._file.writing() as connection:
        connection.execute("UPDATE properties SET value = ? WHERE name = 'spec'", (spec,))
    with pytest.raises(StoreError, match="damaged"):
        await LocalStore(tmp_path, "things").open(SPEC)


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT"


@pytest.mark.parametrize(
    "script",
    [
        f"DROP TABLE changes; CREATE VIEW changes AS {ENDLESS} x AS generation, 'a' AS stamp FROM n",
        f"ALTER TABLE properties RENAME TO p; CREATE VIEW properties AS {ENDLESS} 'a' AS name, x AS value FROM n",
        f"ALTER TABLE documents RENAME TO d; CREATE VIEW documents AS {ENDLESS} x AS rid, x AS doc_id FROM n",
        f"CREATE TRIGGER t AFTER INSERT ON documents BEGIN INSERT INTO vectors {ENDLESS} x + 99, 'a' FROM n; END",
        "CREATE TRIGGER t AFTER INSERT ON documents BEGIN DELETE FROM documents WHERE rid < NEW.rid; END",
        "DROP TABLE changes; CREATE VIRTUAL TABLE changes USING fts5(generation, stamp, deleted, updated)",
    ],
)
@pytest.mark.parametrize("is_open", [True, False])
async def test_a_file_that_runs_code_is_refused(store, tmp_path, script, is_open):
    await store.upsert([encoded(1)])
    other = LocalStore(tmp_path / "other", "things")
    await other.open(SPEC)
    await other.close()
    with closing(sqlite3.connect(other.folder / "documents.sqlite3")) as connection:
        connection.executescript(script)
    if is_open:  # it comes in the place of a good one
        store.folder.rename(tmp_path / "away")
        other.folder.rename(store.folder)
        for call in (store.count, lambda: store.upsert([encoded(2)]), lambda: best(store, query(1))):
            with pytest.raises(StoreError, match="cannot be trusted"):
                await call()
    else:
        with pytest.raises(StoreError, match="cannot be trusted"):
            await other.open(SPEC)


@pytest.mark.parametrize("value", ["'abc'", "x'00ff'", "1e400", "'-5'", "'9' || hex(zeroblob(3000))"])
async def test_counts_that_are_damaged_only_change_when_space_is_given_back(store, value):
    await store.upsert([encoded(i) for i in range(20)])
    with closing(sqlite3.connect(store.folder / "documents.sqlite3")) as connection, connection:
        for name in ("deleted_bytes", "indexed_to", "deleted_from_index"):
            connection.execute(f"INSERT OR REPLACE INTO properties VALUES ('{name}', {value})")
        connection.execute("UPDATE sqlite_sequence SET seq = 'abc'")
    await store.upsert([encoded(i) for i in range(10, 30)])
    await store.delete(["d3"])
    await store.optimize()
    assert len(await best(store, query(1), 50)) == await store.count() == 29


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("UPDATE documents SET metadata = '{\"n\": NaN}'", "metadata are damaged|malformed JSON"),
        ("UPDATE documents SET doc_id = CAST(doc_id AS BLOB)", "id is not text"),
    ],
)
async def test_a_damaged_document_is_an_error_of_ours(store, script, message):
    await store.upsert([encoded(1)])
    with closing(sqlite3.connect(store.folder / "documents.sqlite3")) as connection, connection:
        connection.execute(script)
    reads = (lambda: store.find(parse_filter({"n": 1})), lambda: store.update_metadata("d1", {"b": 1}))
    for read in reads if "metadata" in message else (lambda: best(store, query(1)),):
        with pytest.raises(StoreError, match=message):
            await read()


async def test_drop_deletes_the_index_and_nothing_else(store, tmp_path):
    other = LocalStore(tmp_path, "other")
    await other.open(SPEC)
    await other.upsert([encoded(1)])
    (tmp_path / "things" / "notes.txt").write_text("mine")
    await store.drop()
    assert [p.name for p in (tmp_path / "things").iterdir()] == ["notes.txt"]
    assert await other.count() == 1
    await other.drop()
    assert not (tmp_path / "other").exists()
    assert await LocalStore(tmp_path, "things").spec() is None


async def test_a_folder_can_be_copied_and_opened_elsewhere(store, tmp_path):
    await store.upsert([encoded(i) for i in range(20)])
    await store.close()
    shutil.copytree(tmp_path, tmp_path.with_name("copy"))
    copy = LocalStore(tmp_path.with_name("copy"), "things")
    await copy.open(SPEC)
    assert await copy.count() == 20
    await copy.close()


async def test_a_folder_that_cannot_be_written_can_be_searched(store, tmp_path, monkeypatch):
    await store.upsert([encoded(i) for i in range(20)])
    await store.close()
    monkeypatch.setattr(os, "access", lambda path, mode, **options: mode != os.W_OK)
    reader = LocalStore(tmp_path, "things")
    await reader.open(SPEC)
    assert (await best(reader, query(1)))[0] in {f"d{i}" for i in range(20)}
    with pytest.raises(StoreError, match="readonly"):
        await reader.upsert([encoded(99)])
    await reader.close()


def test_the_mark_of_a_file_into_which_its_log_is_being_copied_is_read(tmp_path):
    """Its first page tells of pages that are not there yet: to SQLite, a malformed file."""
    path = tmp_path / "documents.sqlite3"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 3000,)] * 20)
        connection.execute("PRAGMA application_id = 7")
        connection.execute("PRAGMA user_version = 9")
        connection.commit()
    with path.open("r+b") as file:
        file.truncate(2 * 4096)
    assert pairing._stored_mark(path) == pairing.Mark(7, 9)


@pytest.mark.slow
async def test_reading_while_much_is_written_is_never_an_error(store):
    """The log is copied into the file again and again meanwhile."""
    writing = True

    async def read() -> int:
        times = 0
        while writing:
            await store.count()
            times += 1
        return times

    readers = [asyncio.create_task(read()) for _ in range(2)]
    for first in range(0, 12_000, 1500):
        await store.upsert([encoded(i) for i in range(first, first + 1500)])
    writing = False
    assert min(await asyncio.gather(*readers)) > 10
    assert await store.count() == 12_000
