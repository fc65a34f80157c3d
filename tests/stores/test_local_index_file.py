"""The embedded store: its index file is not trusted."""

from __future__ import annotations

import io
import logging
import os
import random
import stat
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from late_interaction import LocalStore, QueryVectors, StoreError
from late_interaction.stores.local import centroids, index_file, lists
from late_interaction.stores.local.centroids import CentroidIndex
from late_interaction.stores.local.index_file import UnusableIndexError, load_index, written_index
from late_interaction.stores.local.lists import Lists
from tests.stores.local import DIM, SMALL, SPEC, best, centroid_file, encoded, matrix, query
from tests.torture.damage import _damaged, _hostile


def small_index() -> CentroidIndex:
    rng = np.random.default_rng(0)
    near = [np.flatnonzero(rng.random(50) < 0.3) for _ in range(16)]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in near])])
    index = CentroidIndex(
        index_id="a" * 32,
        build_id="",
        centroids=matrix(0, 16).astype(np.float16).astype(np.float32),
        lists=Lists.of(starts.astype(np.int64), np.concatenate(near).astype(np.int32), 50),
        row_ids=np.arange(2, 102, 2),
        trained_tokens=1000,
    )
    return replace(index, build_id=index.digest())


def save(index: CentroidIndex, path) -> None:
    with written_index(index, path) as temporary:
        temporary.replace(path)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "centroids.npz"
    save(small_index(), path)
    return path


def test_what_was_written_is_read(path):
    loaded, index = load_index(path, DIM), small_index()
    assert (loaded.index_id, loaded.build_id, loaded.trained_tokens) == ("a" * 32, index.digest(), 1000)
    for name in ("centroids", "row_ids"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(index, name))
    for name in ("starts", "firsts", "offsets", "n_entries"):
        np.testing.assert_array_equal(getattr(loaded.lists, name), getattr(index.lists, name))
    assert [each.name for each in path.parent.iterdir()] == ["centroids.npz"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["centroids", "row_ids", "trained_tokens"])
def test_possible_values_that_were_not_written_are_refused(path, name):
    """They would find less than they should, and nothing else would tell."""
    index = small_index()
    values = {"centroids": index.centroids[::-1].copy(), "row_ids": index.row_ids + 1, "trained_tokens": 999}
    save(replace(index, **{name: values[name]}), path)
    with pytest.raises(UnusableIndexError, match="not what was written"):
        load_index(path, DIM)


@pytest.mark.slow
def test_whatever_happens_to_the_bytes_it_is_refused_or_does_no_harm(path):
    good, rng = path.read_bytes(), random.Random(0)
    asked = QueryVectors(matrix(1, 3), np.ones(3, np.float32))
    loaded = 0
    for _ in range(1500):
        path.write_bytes(_damaged(good, rng) if rng.random() < 0.6 else _hostile(good, rng))
        try:
            index = load_index(path, DIM)
        except UnusableIndexError:
            continue
        loaded += 1
        assert np.isfinite(index.approximate(asked, 100)).all()
        assert len(index.keep(np.arange(len(index.row_ids)) % 2 == 0).row_ids) <= len(index.row_ids)
    assert 0 < loaded < 500


WRONG = {
    "postings out of range": (lambda a: {"postings": a["postings"] + 10_000}, "not in it"),
    "postings negative": (lambda a: {"postings": -a["postings"] - 1}, "not in it"),
    "postings float": (lambda a: {"postings": a["postings"].astype(float)}, "type"),
    "postings short": (lambda a: {"postings": a["postings"][:10]}, "do not fit"),
    "postings descending": (lambda a: {"postings": a["postings"][::-1]}, "does not ascend"),
    "starts descending": (lambda a: {"starts": a["starts"][::-1]}, "descend"),
    "starts huge": (lambda a: {"starts": a["starts"] * 10**9}, "do not fit"),
    "starts short": (lambda a: {"starts": a["starts"][:3]}, "shape"),
    "centroids of another width": (lambda a: {"centroids": np.ones((16, 7), np.float16)}, "shape"),
    "centroids in one dimension": (lambda a: {"centroids": np.ones(64, np.float16)}, "shape"),
    "no centroids": (lambda a: {"centroids": np.ones((0, DIM), np.float16), "starts": a["starts"][:1]}, "no centroids"),
    "NaN": (lambda a: {"centroids": a["centroids"] * np.float16("nan")}, "finite"),
    "infinite": (lambda a: {"centroids": a["centroids"] * np.float16("inf")}, "finite"),
    "row ids in two dimensions": (lambda a: {"rids": a["rids"].reshape(2, -1)}, "shape"),
    "row ids negative": (lambda a: {"rids": a["rids"] - 10**6}, "not positive"),
    "row ids unsorted": (lambda a: {"rids": a["rids"][::-1]}, "ascend"),
    "row ids doubled": (lambda a: {"rids": a["rids"] * 0 + 5}, "ascend"),
    "row ids as text": (lambda a: {"rids": a["rids"].astype("U10")}, "type"),
    "row ids fewer": (lambda a: {"rids": a["rids"][:5]}, "not in it"),
    "trained on nothing": (lambda a: {"trained_tokens": np.int64(0)}, "nothing"),
    "trained on a list": (lambda a: {"trained_tokens": np.zeros(3, np.int64)}, "shape"),
    "trained on a float": (lambda a: {"trained_tokens": np.float64(1e300)}, "type"),
    "a format of later": (lambda a: {"format": np.int64(2)}, "format 2"),
    "a list of formats": (lambda a: {"format": np.zeros(3, np.int64)}, "shape"),
    "a list of names": (lambda a: {"index_id": np.array(["a", "b"])}, "shape"),
    "a long name": (lambda a: {"index_id": np.array("x" * 10**6)}, "type"),
    "an object": (lambda a: {"rids": np.array([None, 1], dtype=object)}, "type"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("what", WRONG)
async def test_a_hostile_file_is_refused_logged_once_and_built_anew(tmp_path, caplog, what):
    change, reason = WRONG[what]
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    expected = await best(store, query(9), 150)
    path = centroid_file(store)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    changed = change(arrays)
    if "centroids" in changed and changed["centroids"].shape == (16, 7):
        changed["centroids"] = np.ones((len(arrays["centroids"]), 7), np.float16)
    np.savez(path, **{**arrays, **changed})
    await store.close()
    await store.open(SPEC)
    with store._file.reading() as connection:
        sequence = connection.execute("SELECT seq FROM sqlite_sequence").fetchone()
    for _ in range(3):
        assert await best(store, query(9), 150) == expected
        assert (await store.info())["documents_in_index"] == 0
    assert [record.message.count(reason) for record in caplog.records if "not used" in record.message] == [1]
    await store.upsert([encoded(150)])
    with store._file.reading() as connection:
        assert connection.execute("SELECT seq FROM sqlite_sequence").fetchone() == (sequence[0] + 1,)
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 151
    await store.close()


@pytest.mark.parametrize("first", ["rids beyond", "rids with a gap"])
async def test_row_ids_that_do_not_fit_the_documents_are_refused(tmp_path, caplog, first):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    path = centroid_file(store)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    rids = arrays["rids"].copy()
    if first == "rids beyond":
        rids[-1] = 2**63 - 2
    else:
        rids = np.delete(rids, 10)
        kept = arrays["postings"] < len(rids)
        centroid_of = np.repeat(np.arange(len(arrays["starts"]) - 1), np.diff(arrays["starts"]))[kept]
        counts = np.bincount(centroid_of, minlength=len(arrays["starts"]) - 1)
        arrays["postings"] = arrays["postings"][kept]
        arrays["starts"] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    np.savez(path, **{**arrays, "rids": rids})
    await store.close()
    await store.open(SPEC)
    assert len(await best(store, query(0), 200)) == 150
    assert "not used" in caplog.text
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 150
    await store.close()


@pytest.mark.parametrize("shared", [False, True])
async def test_an_index_has_the_permissions_of_its_documents(tmp_path, shared):
    before = os.umask(0o022)
    try:
        store = LocalStore(tmp_path, "things", limits=SMALL, shared=shared)
        await store.open(SPEC)
        await store.upsert([encoded(i) for i in range(150)])
        await store.optimize()
        modes = {stat.S_IMODE(path.stat().st_mode) for path in (store._file.path, store._views.index_path)}
        assert modes == {0o644 if shared else 0o600}
        await store.close()
    finally:
        os.umask(before)


def test_a_compressed_file_is_not_unpacked(path):
    """A few kilobytes could become any number of gigabytes."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(path, **arrays)
    with pytest.raises(UnusableIndexError, match="compressed"):
        load_index(path, DIM)


def test_a_header_that_promises_much_takes_no_memory(path):
    good = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "rids.npy":
                header = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    header, {"descr": "<i8", "fortran_order": False, "shape": (10**15,)}
                )
                data = header.getvalue() + b"\1" * 64
            new.writestr(name, data)
    with pytest.raises(UnusableIndexError, match="bytes instead of"):
        load_index(path, DIM)


def test_a_list_of_contents_that_promises_much_takes_no_memory(path):
    good = path.read_bytes()
    entry = good.rindex(b"PK\x01\x02", 0, good.rindex(b"rids.npy"))
    path.write_bytes(good[: entry + 20] + 2 * (10**9).to_bytes(4, "little") + good[entry + 28 :])
    with pytest.raises(UnusableIndexError, match="cut off"):
        load_index(path, DIM)


def test_an_array_of_several_blocks_is_read_whole(path, monkeypatch):
    monkeypatch.setattr(index_file, "BLOCK", 7)
    monkeypatch.setattr(centroids, "BLOCK", 5)
    monkeypatch.setattr(lists, "BLOCK", 35)
    test_what_was_written_is_read(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    inside = int(arrays["starts"][9]) + 1
    arrays["postings"][inside] = arrays["postings"][inside - 1]
    np.savez(path, **arrays)
    with pytest.raises(UnusableIndexError, match="does not ascend"):
        load_index(path, DIM)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs os.mkfifo")
def test_a_pipe_or_a_folder_in_its_place_does_not_hang(path):
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(UnusableIndexError, match="not a regular file"):
        load_index(path, DIM)
    path.unlink()
    path.mkdir()
    with pytest.raises(UnusableIndexError):
        load_index(path, DIM)


def test_no_link_is_followed_and_nothing_stays_after_a_failure(tmp_path, monkeypatch):
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    path = tmp_path / "centroids.npz"
    (tmp_path / "centroids.npz.tmp").symlink_to(mine)
    (tmp_path / "centroids.npz.abc.tmp").symlink_to(mine)
    save(small_index(), path)
    index_file.remove_leftovers(path)
    assert mine.read_text() == "precious"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["centroids.npz", "mine.txt"]
    monkeypatch.setattr(
        os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        save(small_index(), path)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["centroids.npz", "mine.txt"]


async def test_what_a_killed_build_left_is_deleted_by_the_next(tmp_path):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    for name in ("centroids.npz.tmp", "centroids.npz.x1y2.tmp"):
        (store.folder / name).write_bytes(b"half")
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    assert not list(store.folder.glob("*.tmp"))
    await store.close()


@pytest.mark.parametrize("nanoseconds", [0, 1, 10**18])
async def test_any_time_stamp_counts(tmp_path, nanoseconds):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    path = centroid_file(store)
    await store.close()
    os.utime(path, ns=(nanoseconds, nanoseconds))
    reader, writer = (LocalStore(tmp_path, "things", limits=SMALL) for _ in range(2))
    for each in (reader, writer):
        await each.open(SPEC)
    assert (await reader.info())["documents_in_index"] == 150
    await writer.upsert([encoded(i) for i in range(150, 300)])
    await writer.optimize()
    os.utime(path, ns=(nanoseconds, nanoseconds))
    assert (await reader.info())["documents_in_index"] == 300
    for each in (reader, writer):
        await each.close()


async def test_one_builds_and_the_others_go_on(tmp_path, caplog):
    """A build has a lock of its own."""
    store, other = (LocalStore(tmp_path, "things", limits=SMALL) for _ in range(2))
    for each in (store, other):
        await each.open(SPEC)
        each._builder.start = lambda: None
    await store.upsert([encoded(i) for i in range(150)])
    with caplog.at_level(logging.INFO), store._build._exclusive() as alone:
        assert alone
        await other.upsert([encoded(150)])
        assert len(await best(other, query(0), 200)) == 151
        await other.optimize()
        assert "Another process builds" in caplog.text
        assert (await other.info())["documents_in_index"] == 0
    await other.optimize()
    assert (await other.info())["documents_in_index"] == 151
    for each in (store, other):
        await each.close()


async def test_an_index_that_was_replaced_during_the_build_keeps_its_own(tmp_path):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    state = store._views.latest or ((await best(store, query(0))) and store._views.latest)
    index = state.index
    with store._file.writing() as connection:
        connection.execute("UPDATE properties SET value = 'another' WHERE name = 'index_id'")
    before = centroid_file(store).read_bytes()
    with pytest.raises(StoreError):
        store._build._publish(state.state, index)
    assert centroid_file(store).read_bytes() == before
    assert not list(store.folder.glob("*.tmp"))
    await store.close()
