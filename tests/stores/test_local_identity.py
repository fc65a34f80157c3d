"""The embedded store: its folder is deleted, replaced and overwritten while it is open."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import timeit
from contextlib import closing, suppress
from pathlib import Path

import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    IndexMismatchError,
    IndexSpec,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    QueryVectors,
)
from late_interaction.errors import StoreError
from late_interaction.maxsim import maxsim
from late_interaction.stores.local.sqlite import ChangedMeanwhileError
from tests.stores.local import DIM, SMALL, SPEC, best, encoded, matrix, query
from tests.support.paths import ROOT

OTHER_SPEC = IndexSpec(dim=DIM, encoder={"model": "another"}, pooling={"factor": 1.0}, packing="float32")
FILE = "documents.sqlite3"


async def filled(folder: Path, ids: range, spec: IndexSpec = SPEC) -> None:
    """Make an index and close it."""
    store = LocalStore(folder, "things")
    await store.open(spec)
    await store.upsert([encoded(i) for i in ids])
    await store.close()


@pytest.fixture
async def store(tmp_path):
    """An open store, used by several threads, that holds d0 to d9."""
    store = LocalStore(tmp_path / "db", "things")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(10)])
    await asyncio.gather(*(best(store, query(i)) for i in range(20)))
    yield store
    await store.close()


async def ids_of(store: LocalStore) -> list[str]:
    return [document.doc_id for document in await store.find()]


async def checked(store: LocalStore, ids: range) -> None:
    """Check that a store sees these documents and no others, whatever is asked, with their own vectors."""
    names = [f"d{i}" for i in ids]
    assert await ids_of(store) == names
    assert await store.count() == len(names)
    assert sorted(await best(store, query(1), 1000)) == sorted(names)
    found, scores = await store.score(query(2), names)
    assert found == names
    expected = maxsim(query(2).vectors, [encoded(i).matrix for i in ids])
    assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-5)


def elsewhere(body: str, folder: Path) -> None:
    """Run a piece of an async function in another process."""
    process = writing_elsewhere(body, folder)
    process.communicate(timeout=60)
    assert process.returncode == 0


def writing_elsewhere(body: str, folder: Path) -> subprocess.Popen:
    """Start a piece of an async function in another process."""
    code = """
        import asyncio, sys
        sys.path.insert(0, {root!r})
        from tests.stores.local import SPEC, encoded
        from late_interaction import LocalStore

        async def main():
            store = LocalStore({folder!r}, "things")
        {body}

        asyncio.run(main())
    """
    body = textwrap.indent(textwrap.dedent(body), " " * 4)
    code = textwrap.dedent(code).format(root=str(ROOT), folder=str(folder), body=body)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)


# --- deleted


@pytest.mark.parametrize("what", ["folder", "file"])
async def test_a_deleted_index_takes_no_writes_and_is_not_made_anew(store, what):
    shutil.rmtree(store.folder) if what == "folder" else (store.folder / FILE).unlink()
    calls = [
        lambda: store.upsert([encoded(99)]),
        lambda: store.delete(["d1"]),
        lambda: store.update_metadata("d1", {"a": 1}),
        store.clear,
        store.find,
        store.count,
        lambda: best(store, query(1)),
        lambda: store.matrices(["d1"]),
        store.info,
        store.optimize,
        lambda: store.open(SPEC),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="was deleted or moved away while it was open") as caught:
            await call()
        assert type(caught.value) is StoreError
    assert not (store.folder / FILE).exists()


async def test_a_closed_store_begins_a_new_index(store):
    shutil.rmtree(store.folder)
    await store.close()
    await store.open(SPEC)
    await store.upsert([encoded(1)])
    await checked(store, range(1, 2))


async def test_an_index_moved_away_and_back_is_used_again(store, tmp_path):
    (tmp_path / "db").rename(tmp_path / "away")
    with pytest.raises(StoreError, match="moved away"):
        await store.count()
    (tmp_path / "away").rename(tmp_path / "db")
    await checked(store, range(10))
    await store.upsert([encoded(10)])
    await checked(store, range(11))


async def test_a_folder_made_anew_by_another_store_of_this_process_is_seen_by_both(store, tmp_path):
    """As when a notebook's first cell, which deletes the folder, is run again."""
    shutil.rmtree(tmp_path / "db")
    again = LocalStore(tmp_path / "db", "things")
    await again.open(SPEC)
    await again.upsert([encoded(i) for i in range(3)])
    await checked(store, range(3))
    await store.upsert([encoded(3)])
    await checked(again, range(4))
    await again.close()
    await checked(store, range(4))


# --- replaced


@pytest.mark.slow
async def test_another_process_drops_and_indexes_anew(store, tmp_path):
    body = """
        await store.open(SPEC)
        await store.drop()
        await store.open(SPEC)
        await store.upsert([encoded(i) for i in range(5, 8)])
        await store.close()
    """
    elsewhere(body, tmp_path / "db")
    await store.upsert([encoded(8)])
    await checked(store, range(5, 9))
    await store.close()
    fresh = LocalStore(tmp_path / "db", "things")
    await fresh.open(SPEC)
    await checked(fresh, range(5, 9))
    await fresh.close()


@pytest.mark.parametrize("how", ["rename", "copytree", "file"])
async def test_a_backup_put_in_its_place_is_searched_and_written(store, tmp_path, how):
    await filled(tmp_path / "backup", range(100, 104))
    backup = tmp_path / "backup"
    if how == "file":  # as rsync does: the file alone is replaced, under a temporary name
        shutil.copy(backup / "things" / FILE, tmp_path / "temporary")
        (tmp_path / "temporary").replace(store.folder / FILE)
    else:
        (tmp_path / "db").rename(tmp_path / "old")
        backup.rename(tmp_path / "db") if how == "rename" else shutil.copytree(backup, tmp_path / "db")
    await checked(store, range(100, 104))
    await store.upsert([encoded(104)])
    await checked(store, range(100, 105))
    await store.close()
    await store.open(SPEC)
    await checked(store, range(100, 105))


def put_renamed(backup: Path, db: Path) -> None:
    shutil.rmtree(db)
    backup.rename(db)


def put_over(backup: Path, db: Path) -> None:
    shutil.copytree(backup, db, dirs_exist_ok=True)


@pytest.mark.parametrize("put", [put_renamed, put_over])
@pytest.mark.parametrize("of_same_index", [True, False])
@pytest.mark.parametrize("before", ["score", "documents"])
async def test_no_result_has_the_score_of_one_index_and_the_content_of_another(
    tmp_path, put, of_same_index, before, monkeypatch
):
    """A search makes several transactions; the folder is replaced between two of them."""

    async def made(name: str, content: str, seed: int) -> LateInteractionPipeline:
        pipeline = LateInteractionPipeline(
            tmp_path / name, PrecomputedEmbeddings(DIM, "m"), doc_pool_factor=1, packing="float32"
        )
        await pipeline.index_embeddings(
            [{"doc_id": "d", "content": content}, {"doc_id": content, "content": content}],
            [matrix(seed), matrix(seed + 1)],
        )
        return pipeline

    if of_same_index:
        await (await made("db", "backup", 1)).aclose()
        shutil.copytree(tmp_path / "db", tmp_path / "backup")
    else:
        await (await made("backup", "backup", 1)).aclose()
    pipeline = await made("db", "live", 5)
    await pipeline.aclose()  # so that no log has what is put away
    await pipeline.initialize()
    plain, vectors = getattr(pipeline.store, before), query(0).vectors
    assert {one.content for one in await pipeline.search_with_embeddings(vectors, k=9)} >= {"live"}

    async def replaced(*arguments):
        if (tmp_path / "backup").exists():
            put(tmp_path / "backup", tmp_path / "db")
            shutil.rmtree(tmp_path / "backup", ignore_errors=True)
        return await plain(*arguments)

    monkeypatch.setattr(pipeline.store, before, replaced)
    ids = None if before == "documents" else ["d", "backup", "live"]  # these are scored without stage 1
    found = await pipeline.search_with_embeddings(vectors, k=9, ids=ids)
    expected = dict(zip(["d", "backup"], maxsim(vectors, [matrix(1), matrix(2)]).tolist(), strict=True))
    assert {one.doc_id: one.score for one in found} == pytest.approx(expected, abs=1e-5)
    assert {one.content for one in found} == {"backup"}
    await pipeline.aclose()


async def test_an_index_that_is_replaced_while_it_is_read_through_is_not_mixed(store, tmp_path):
    await filled(tmp_path / "backup", range(100, 110))
    batches = store.scan(batch_size=4)
    assert len(await anext(batches)) == 4
    put_renamed(tmp_path / "backup", tmp_path / "db")
    with pytest.raises(StoreError, match="replaced while all of it was read"):
        await anext(batches)
    read = [one.document.doc_id async for batch in store.scan(batch_size=4) for one in batch]
    assert read == [f"d{i}" for i in range(100, 110)]


async def test_an_index_of_another_spec_is_refused_and_not_written(store, tmp_path):
    await filled(tmp_path / "backup", range(3), OTHER_SPEC)
    shutil.rmtree(tmp_path / "db")
    (tmp_path / "backup").rename(tmp_path / "db")
    for call in (store.find, lambda: best(store, query(1)), lambda: store.upsert([encoded(9)])):
        with pytest.raises(IndexMismatchError) as caught:
            await call()
        assert caught.value.differences == {"encoder.model": ("another", "m")}
    other = LocalStore(tmp_path / "db", "things")
    await other.open(OTHER_SPEC)
    await checked(other, range(3))
    await other.close()


@pytest.mark.slow
async def test_an_older_copy_of_the_same_index_reuses_row_ids_and_is_not_mixed_with_the_newer(tmp_path):
    """The restored copy gives other documents the row ids, and the count of writes, that this store has in memory."""
    store = LocalStore(tmp_path / "db", "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(120)])
    await store.optimize()
    await store.close()
    shutil.copytree(tmp_path / "db", tmp_path / "backup")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(120, 130)])
    assert "d125" in await best(store, QueryVectors(encoded(125).matrix, query(0).weights[:1].repeat(3)))
    shutil.rmtree(tmp_path / "db")
    (tmp_path / "backup").rename(tmp_path / "db")
    body = """
        await store.open(SPEC)
        await store.upsert([encoded(i) for i in range(200, 210)])
        await store.close()
    """
    elsewhere(body, tmp_path / "db")
    ids = [*range(120), *range(200, 210)]
    for names in ([f"d{i}" for i in range(200, 210)], [f"d{i}" for i in range(120, 130)]):
        found, scores = await store.score(query(3), names)
        assert found == [name for name in names if name >= "d2"]
        expected = (
            maxsim(query(3).vectors, [encoded(int(name[1:])).matrix for name in found]) if found else []
        )
        assert scores.tolist() == pytest.approx(list(expected), abs=1e-5)
    assert sorted(await best(store, query(3), 500)) == sorted(f"d{i}" for i in ids)
    await store.close()


async def test_a_write_during_which_the_folder_is_replaced_is_done_in_the_new_one(
    store, tmp_path, monkeypatch
):
    await filled(tmp_path / "backup", range(100, 103))
    from late_interaction.stores.local import store as module

    record_change, swaps = module.record_change, iter([True])

    def swapping(connection, change):
        if next(swaps, False):
            (tmp_path / "db").rename(tmp_path / "old")
            (tmp_path / "backup").rename(tmp_path / "db")
        record_change(connection, change)

    monkeypatch.setattr(module, "record_change", swapping)
    await store.upsert([encoded(103)])
    await checked(store, range(100, 104))
    old = LocalStore(tmp_path / "old", "things")
    await old.open(SPEC)
    await checked(old, range(10))
    await old.close()


async def test_a_write_whose_file_is_gone_at_the_commit_is_not_acknowledged(store, monkeypatch):
    from late_interaction.stores.local import store as module

    record_change = module.record_change

    def deleting(connection, change):
        record_change(connection, change)
        shutil.rmtree(store.folder)

    monkeypatch.setattr(module, "record_change", deleting)
    with pytest.raises(StoreError, match="Nothing was written"):
        await store.upsert([encoded(103)])


# --- overwritten in place


async def test_a_log_that_is_deleted_while_it_is_in_use_takes_nothing_with_it(store, caplog):
    for n in (11, 12):
        for path in store.folder.glob(f"{FILE}-*"):
            path.unlink()
        await checked(store, range(n - 1))
        await store.upsert([encoded(n - 1)])
        await checked(store, range(n))
    assert caplog.text.count("was deleted while it was in use") == 2
    await store.close()
    await store.open(SPEC)
    await checked(store, range(12))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.parametrize("size", [1, 4, 400])
async def test_another_index_copied_over_the_open_file(store, tmp_path, size, checkpointed, caplog):
    """`cp backup/documents.sqlite3 db/documents.sqlite3`: the inode stays, and the log of the old file too."""
    await filled(tmp_path / "backup", range(100, 100 + size))
    if checkpointed:
        with closing(sqlite3.connect(store.folder / FILE)) as connection:
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
    shutil.copyfile(tmp_path / "backup" / "things" / FILE, store.folder / FILE)
    await checked(store, range(100, 100 + size))
    assert "was put aside" in caplog.text
    await store.upsert([encoded(100 + size)])
    await checked(store, range(100, 101 + size))
    await store.close()
    await store.open(SPEC)
    await checked(store, range(100, 101 + size))
    with closing(sqlite3.connect(store.folder / FILE)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_an_older_copy_over_the_open_file(tmp_path):
    store = LocalStore(tmp_path / "db", "things")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(5)])
    await store.close()
    shutil.copy(store.folder / FILE, tmp_path / "older")
    await store.open(SPEC)
    for i in range(5, 12):
        await store.upsert([encoded(i)])
    await store.close()
    await store.open(SPEC)
    await store.upsert([encoded(12)])
    await checked(store, range(13))
    shutil.copyfile(tmp_path / "older", store.folder / FILE)
    await checked(store, range(5))
    await store.upsert([encoded(5)])
    await store.close()
    await store.open(SPEC)
    await checked(store, range(6))
    await store.close()


async def test_a_search_during_which_the_file_is_overwritten_is_done_again(store, tmp_path, monkeypatch):
    await filled(tmp_path / "backup", range(100, 103))
    from late_interaction.stores.local import store as module

    to_document, swaps = module.to_document, iter([True])

    def overwriting(row):
        if next(swaps, False):
            time.sleep(0.02)
            shutil.copyfile(tmp_path / "backup" / "things" / FILE, store.folder / FILE)
        return to_document(row)

    monkeypatch.setattr(module, "to_document", overwriting)
    assert await ids_of(store) == ["d100", "d101", "d102"]


async def test_what_is_read_from_an_overwritten_file_is_not_given_out(store, tmp_path):
    await filled(tmp_path / "backup", range(100, 103))

    def read() -> None:
        with store._file.reading() as connection:
            connection.execute("SELECT count(*) FROM documents").fetchone()
            time.sleep(0.02)
            shutil.copyfile(tmp_path / "backup" / "things" / FILE, store.folder / FILE)

    with pytest.raises(ChangedMeanwhileError, match="was replaced from outside"):
        await asyncio.to_thread(read)


async def test_a_file_beside_the_log_of_another_is_refused_when_it_is_opened(store, tmp_path):
    """A backup put back after a kill, beside the log that the killed writer left."""
    await filled(tmp_path / "backup", range(100, 103))
    shutil.copytree(tmp_path / "db", tmp_path / "killed")
    killed = tmp_path / "killed" / "things"
    assert (killed / f"{FILE}-wal").stat().st_size > 0
    shutil.copyfile(tmp_path / "backup" / "things" / FILE, killed / FILE)
    with pytest.raises(StoreError, match=r"documents\.sqlite3-wal do not belong together"):
        await LocalStore(tmp_path / "killed", "things").open(SPEC)
    for name in ("-wal", "-shm"):
        (killed / f"{FILE}{name}").unlink()
    fresh = LocalStore(tmp_path / "killed", "things")
    await fresh.open(SPEC)
    await checked(fresh, range(100, 103))
    await fresh.close()


async def test_an_index_without_marks_of_an_earlier_version_is_opened_and_gets_them(tmp_path):
    await filled(tmp_path / "db", range(5))
    with closing(sqlite3.connect(tmp_path / "db" / "things" / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA user_version = 0")
        connection.execute("PRAGMA application_id = 0")
        connection.execute("DELETE FROM properties WHERE name = 'stamp'")
    store = LocalStore(tmp_path / "db", "things")
    await store.open(SPEC)
    await checked(store, range(5))
    await store.upsert([encoded(5)])
    again = LocalStore(tmp_path / "db", "things")
    await again.open(SPEC)
    await checked(again, range(6))
    await again.close()
    await store.close()


@pytest.mark.slow
async def test_a_copy_made_while_others_write_is_whole_or_refused(tmp_path):
    """`cp -r` copies one file after the other, and a checkpoint may come between."""
    body = """
        await store.open(SPEC)
        print("ready", flush=True)
        i = 0
        while True:
            await store.upsert([encoded(j, round=i) for j in range(200)])
            i += 1
    """
    writer = writing_elsewhere(body, tmp_path / "db")
    whole, refused = 0, []
    try:
        assert writer.stdout.readline() == b"ready\n"
        for number in range(25):
            copy = tmp_path / f"copy{number}"
            # A file that comes and goes meanwhile, such as a journal, is not there any more.
            with suppress(shutil.Error):
                shutil.copytree(tmp_path / "db", copy, ignore=shutil.ignore_patterns("*.npz*", "*.lock*"))
            store = LocalStore(copy, "things")
            try:
                await store.open(SPEC)
            except StoreError as error:
                refused.append(str(error))
                continue
            found, whole = await store.find(), whole + 1
            assert len({document.metadata["round"] for document in found}) <= 1
            assert [document.metadata["i"] for document in found] == list(range(len(found)))
            assert len(found) in (0, 200)
            with store._file.reading() as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            await store.close()
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert whole > 5
    assert all("do not belong together" in text for text in refused)


# --- neighbours


async def test_a_change_of_the_working_directory_changes_nothing(tmp_path, monkeypatch):
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "second")
    await filled(Path("index"), range(50, 55))
    monkeypatch.chdir(tmp_path / "first")
    store = LocalStore("index", "things")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(3)])
    monkeypatch.chdir(tmp_path / "second")
    await asyncio.gather(*(checked(store, range(3)) for _ in range(8)))
    await store.upsert([encoded(3)])
    await store.close()
    await store.open(SPEC)
    await checked(store, range(4))
    await store.close()
    assert await _count(tmp_path / "second" / "index") == 5


async def _count(folder: Path) -> int:
    store = LocalStore(folder, "things")
    await store.open(SPEC)
    count = await store.count()
    await store.close()
    return count


async def test_a_link_to_the_folder_may_be_led_elsewhere(tmp_path):
    """As in deployments: `current` leads to the version in use."""
    await filled(tmp_path / "v1", range(3))
    await filled(tmp_path / "v2", range(10, 14))
    (tmp_path / "current").symlink_to(tmp_path / "v1")
    store = LocalStore(tmp_path / "current", "things")
    await store.open(SPEC)
    await checked(store, range(3))
    (tmp_path / "next").symlink_to(tmp_path / "v2")
    (tmp_path / "next").replace(tmp_path / "current")
    await checked(store, range(10, 14))
    await store.upsert([encoded(14)])
    await store.close()
    assert await _count(tmp_path / "v1") == 3
    assert await _count(tmp_path / "v2") == 5


@pytest.mark.slow
async def test_readers_in_many_threads_see_one_index_or_the_other_while_the_folder_is_swapped(tmp_path):
    """Each index has documents of its own, so that a mixture shows."""
    for name, first in (("a", 0), ("b", 1000)):
        folder = tmp_path / name
        made = LocalStore(folder, "things")
        await made.open(SPEC)
        tagged = [
            EncodedDocument(Document(f"d{i}", name, "text", {"in": name}), matrix(first + i))
            for i in range(30)
        ]
        await made.upsert(tagged)
        await made.close()
    (tmp_path / "a").rename(tmp_path / "db")
    expected = {
        name: maxsim(query(1).vectors, [matrix(first + i) for i in range(30)]).tolist()
        for name, first in (("a", 0), ("b", 1000))
    }
    store = LocalStore(tmp_path / "db", "things")
    await store.open(SPEC)
    over, seen = threading.Event(), []

    def swap() -> None:
        spare = "b"
        while not over.is_set():
            (tmp_path / "db").rename(tmp_path / "out")
            (tmp_path / spare).rename(tmp_path / "db")
            spare = "a" if spare == "b" else "b"
            (tmp_path / "out").rename(tmp_path / spare)
            time.sleep(0.003)

    async def search() -> None:
        for _ in range(100):
            try:
                found = await store.candidates(query(1), 30, n_ann_tokens=None)
                ids, scores = await store.score(query(1), [f"d{i}" for i in range(30)])
            except StoreError:
                seen.append("refused")
                continue
            by_id = dict(zip(found.doc_ids, found.scores.tolist(), strict=True))
            stage_1 = [by_id[f"d{i}"] for i in range(30)]
            for got in (stage_1, scores.tolist()):
                assert any(got == pytest.approx(one, abs=1e-4) for one in expected.values())
            assert ids == [f"d{i}" for i in range(30)]
            seen.append("right")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        await asyncio.gather(*(search() for _ in range(8)))
    finally:
        over.set()
        thread.join()
    await store.close()
    assert seen.count("right") > 100


async def test_looking_whether_it_is_still_the_same_file_costs_microseconds(store):
    """A search of ten documents takes 500; the check is a few calls of stat and one small query."""

    def transaction() -> None:
        with store._file.reading():
            pass

    transaction()
    checks = min(timeit.repeat(transaction, number=200, repeat=5)) / 200
    assert checks < 500e-6


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
async def test_attempts_to_open_what_is_no_database_leave_nothing_open(tmp_path):
    (tmp_path / "things").mkdir()
    (tmp_path / "things" / FILE).write_bytes(os.urandom(5000))
    store, kept, before = LocalStore(tmp_path, "things"), [], _open_files()
    for _ in range(20):
        with pytest.raises(StoreError) as caught:
            await store.open(SPEC)
        kept.append(caught.value)
    await store.close()
    assert _open_files() < before + 5


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
