"""The embedded store: what a folder must survive, and that its index never changes an answer for the worse."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    IndexMismatchError,
    IndexSpec,
    LocalStore,
    QueryVectors,
)
from late_interaction.errors import StoreError, StoreLockedError
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.stores.local import store as local
from late_interaction.stores.local.centroids import CentroidIndex, train_centroids
from tests.support.paths import ROOT

DIM = 16
SPEC = IndexSpec(dim=DIM, encoder={"model": "m"}, pooling={"factor": 1.0}, packing="float32")


WORDS = np.random.default_rng(0).normal(size=(200, DIM))


def matrix(seed: int, n: int = 6) -> np.ndarray:
    """Tokens as they come: some of 200 words, each a little different in each place."""
    rng = np.random.default_rng(seed)
    rows = (WORDS[rng.integers(0, 200, n)] + 0.3 * rng.normal(size=(n, DIM))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def encoded(i: int, **metadata: object) -> EncodedDocument:
    return EncodedDocument(Document(f"d{i}", f"text {i}", "text", {"i": i, **metadata}), matrix(i, 3 + i % 5))


def query(seed: int) -> QueryVectors:
    return QueryVectors(matrix(seed, 4), np.ones(4, np.float32))


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


@pytest.fixture
def small_crossover(monkeypatch):
    """Above this many tokens the index is built and used: about 80 of the documents here."""
    monkeypatch.setattr(local, "EXACT_TOKENS", 400)


async def best(store, q, n=10, **options):
    """The exact ranking of what stage 1 hands over."""
    found = await store.candidates(q, n, n_ann_tokens=options.pop("n_ann_tokens", 50), **options)
    ids, documents = await store.matrices(found.doc_ids)
    scores = maxsim(q.vectors, documents, q.weights)
    return [ids[i] for i in np.argsort(-scores)]


# --- life


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
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    reader = LocalStore(tmp_path, "things")
    await reader.open(SPEC)
    assert (await best(reader, query(1)))[0] in {f"d{i}" for i in range(20)}
    with pytest.raises(StoreError, match="readonly"):
        await reader.upsert([encoded(99)])
    await reader.close()


# --- documents


async def test_documents_keep_content_metadata_and_order(store):
    metadata = {"n": 1, "x": 1.5, "yes": True, "none": None, "list": [1, "a"], "nested": {"ü": "é\u2028"}}
    document = Document("ключ", "text\nwith lines", "image", metadata)
    await store.upsert([EncodedDocument(document, matrix(0)), encoded(1), encoded(2)])
    assert await store.documents(["d2", "missing", "ключ", "d1"]) == [
        encoded(2).document,
        document,
        encoded(1).document,
    ]
    assert await store.existing(["d1", "missing"]) == {"d1"}


async def test_an_upsert_replaces_content_metadata_and_every_vector(store):
    await store.upsert([EncodedDocument(Document("a", "long", "text", {"old": 1}), matrix(0, 9))])
    await store.upsert([EncodedDocument(Document("a", "short", "text", {}), matrix(1, 2))])
    assert await store.count() == 1
    assert (await store.documents(["a"]))[0] == Document("a", "short", "text", {})
    ids, documents = await store.matrices(["a"])
    assert ids == ["a"]
    np.testing.assert_array_equal(documents.matrix(0), matrix(1, 2))


async def test_an_id_may_hold_any_character(store):
    ids = ["a", "a\0b", "a\0c", 'a"', "a'); --", "😀", "\\u0000"]
    named = [EncodedDocument(Document(doc_id, "text"), encoded(0).matrix) for doc_id in ids]
    for _ in range(2):
        await store.upsert(named)
        assert await store.count() == len(ids)
    assert await store.existing(ids) == set(ids)
    assert [document.doc_id for document in await store.documents(ids)] == ids
    assert await store.delete(["a\0b", "a\0b"]) == 1
    assert await store.existing(ids) == set(ids) - {"a\0b"}
    assert await store.delete([]) == 0


async def test_no_documents_are_no_error(store):
    await store.upsert([])
    assert await store.count() == 0


async def test_delete_by_id_and_by_filter_counts_what_was_there(store):
    await store.upsert([encoded(i, even=i % 2 == 0) for i in range(10)])
    assert await store.delete(["d0", "d1", "missing", "d0"]) == 2
    assert await store.delete(parse_filter({"even": True})) == 4
    assert await store.count() == 4
    assert await store.count(parse_filter({"i": {"$gte": 7}})) == 2
    assert [d.doc_id for d in await store.find(parse_filter({"i": {"$gt": 3}}), limit=2)] == ["d5", "d7"]
    await store.clear()
    assert await store.count() == 0
    assert (await store.candidates(query(0), 5, n_ann_tokens=10)).doc_ids == []


async def test_update_metadata_sets_keys_and_leaves_the_rest(store):
    await store.upsert([encoded(1, a=1)])
    assert await store.update_metadata("d1", {"a": 2, "b": [True]})
    assert (await store.documents(["d1"]))[0].metadata == {"i": 1, "a": 2, "b": [True]}
    assert not await store.update_metadata("missing", {"a": 1})
    assert await best(store, query(1), filter=parse_filter({"b": True})) == ["d1"]


async def test_scan_gives_every_document_once_with_its_vectors(store):
    await store.upsert([encoded(i) for i in range(25)])
    await store.upsert([encoded(3)])
    seen = [document async for batch in store.scan(batch_size=10) for document in batch]
    assert [d.document.doc_id for d in seen] == [f"d{i}" for i in range(25) if i != 3] + ["d3"]
    np.testing.assert_array_equal(seen[-1].matrix, encoded(3).matrix)


async def test_ids_by_the_thousand(store):
    await store.upsert([encoded(i) for i in range(3000)])
    ids = [f"d{i}" for i in reversed(range(3000))]
    assert [d.doc_id for d in await store.documents(ids)] == ids
    assert (await store.matrices(ids))[0] == ids
    assert await store.delete(ids[:2500]) == 2500
    assert await store.count() == 500


# --- the index


async def test_below_the_crossover_every_document_is_scored_exactly(store):
    await store.upsert([encoded(i) for i in range(30)])
    found = await store.candidates(query(0), 5, n_ann_tokens=1)
    assert found.exhausted
    assert found.exact.all()
    expected = maxsim(query(0).vectors, [encoded(i).matrix for i in range(30)])
    assert found.doc_ids == [f"d{i}" for i in np.argsort(-expected)[:5]]
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1][:5], rtol=1e-6)


async def test_above_it_the_index_finds_what_is_best(store, small_crossover):
    n = 600
    await store.upsert([encoded(i) for i in range(n)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == n
    found = await store.candidates(query(10_000), 100, n_ann_tokens=400)
    assert not found.exact.any()
    assert not found.exhausted
    assert len(found.doc_ids) == 100
    hits = []
    for seed in range(10_000, 10_020):
        scores = maxsim(query(seed).vectors, [encoded(i).matrix for i in range(n)])
        expected = {f"d{i}" for i in np.argsort(-scores)[:10]}
        hits.append(len(expected & set((await best(store, query(seed), 100, n_ann_tokens=400))[:10])))
    assert np.mean(hits) > 9


async def test_what_is_written_after_the_index_is_found_and_what_is_deleted_is_not(store, small_crossover):
    await store.upsert([encoded(i) for i in range(300)])
    await store.optimize()
    new = EncodedDocument(Document("new", "new"), query(77).vectors)
    await store.upsert([new, EncodedDocument(Document("d5", "changed"), query(78).vectors)])
    assert (await best(store, query(77)))[0] == "new"
    assert (await best(store, query(78)))[0] == "d5"
    assert (await best(store, QueryVectors(encoded(5).matrix, np.ones(3, np.float32))))[0] != "d5"
    await store.delete(["new", "d7"])
    assert not {"new", "d7"} & set(await best(store, query(77), 300))
    assert not {"d7"} & set(await best(store, QueryVectors(encoded(7).matrix, np.ones(5, np.float32)), 300))


@pytest.mark.parametrize("spec", [{"group": 3}, {"i": {"$lt": 5}}, {"group": {"$ne": 0}}, {"group": 99}])
async def test_a_filter_holds_before_stage_1(store, small_crossover, spec):
    await store.upsert([encoded(i, group=i % 20) for i in range(900)])
    await store.optimize()
    await store.upsert([encoded(i, group=i % 20) for i in range(900, 920)])
    allowed = [i for i in range(920) if _matches(i, spec)]
    found = await store.candidates(query(5), 400, n_ann_tokens=2000, filter=parse_filter(spec))
    assert set(found.doc_ids) <= {f"d{i}" for i in allowed}
    if len(allowed) < 80:
        assert found.exhausted
        assert found.exact.all()
        assert len(found.doc_ids) == len(allowed)
    scores = maxsim(query(5).vectors, [encoded(i).matrix for i in allowed])
    expected = [f"d{allowed[i]}" for i in np.argsort(-scores)[:3]]
    assert (await best(store, query(5), 400, n_ann_tokens=2000, filter=parse_filter(spec)))[:3] == expected


def _matches(i: int, spec: dict) -> bool:
    from late_interaction.filters import matches

    return matches(parse_filter(spec), {"i": i, "group": i % 20})


async def test_the_index_is_extended_then_trained_anew_as_the_collection_grows(store, small_crossover):
    trained = []
    for size in (150, 300, 2000):
        await store.upsert([encoded(i) for i in range(size)])
        await store.optimize()
        index = CentroidIndex.load(store._index_path, _index_id(store))
        trained.append(index.trained_tokens)
        assert (await store.info())["documents_scored_exactly"] == 0
    assert trained[0] == trained[1] < trained[2]


async def test_an_index_of_deleted_documents_is_compacted_and_a_small_rest_has_none(store, small_crossover):
    await store.upsert([encoded(i) for i in range(400)])
    await store.optimize()
    size = store._index_path.stat().st_size
    await store.delete([f"d{i}" for i in range(200)])
    await store.optimize()
    assert store._index_path.stat().st_size < size
    assert len(await best(store, query(3), 400)) == 200
    await store.delete([f"d{i}" for i in range(200, 390)])
    await store.optimize()
    assert not store._index_path.exists()
    assert len(await best(store, query(3), 400)) == 10


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "missing", "foreign"])
async def test_an_index_file_that_does_not_fit_is_not_used(store, tmp_path, small_crossover, damage):
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    expected = await best(store, query(9), 150)
    path = store._index_path
    await store.close()
    data = path.read_bytes()
    if damage == "foreign":
        other = LocalStore(tmp_path, "other")
        await other.open(SPEC)
        await other.upsert([encoded(i) for i in range(1000, 1150)])
        await other.optimize()
        shutil.copy(other._index_path, path)
        await other.close()
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"garbage": b"PK\x03\x04nonsense", "truncated": data[: len(data) // 2], "empty": b""}[damage]
        )
    again = LocalStore(tmp_path, "things")
    await again.open(SPEC)
    assert await best(again, query(9), 150) == expected
    assert (await again.candidates(query(9), 5, n_ann_tokens=5)).exhausted
    await again.optimize()
    assert (await again.info())["documents_in_index"] == 150
    await again.close()


async def test_an_older_file_put_back_beside_a_newer_index_is_searched_as_it_is(
    store, tmp_path, small_crossover
):
    await store.upsert([encoded(i) for i in range(100)])
    await store.close()
    older = store._file.path.read_bytes()
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(100, 300)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 300
    await store.close()
    store._file.path.write_bytes(older)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(300, 330)])
    assert (await store.info())["documents_scored_exactly"] == 30
    for i in (*range(0, 100, 9), *range(300, 330)):
        assert (await best(store, query(i), n=1))[0] == f"d{i}"


async def test_a_search_in_a_large_collection_without_an_index_is_exact_and_says_it_is_slow(
    store, small_crossover, caplog, monkeypatch
):
    monkeypatch.setattr(store._builder, "start", lambda: None)
    await store.upsert([encoded(i) for i in range(300)])
    found = await store.candidates(query(4), 5, n_ann_tokens=5)
    assert found.exhausted
    assert "call optimize()" in caplog.text


async def test_the_index_is_built_in_the_background_and_the_build_stops_on_close(
    tmp_path, small_crossover, monkeypatch
):
    started = threading.Event()

    def slow(sample, n_centroids, *, tick):
        started.set()
        while True:
            tick()
            time.sleep(0.005)

    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    monkeypatch.setattr(local, "train_centroids", slow)
    await store.upsert([encoded(i) for i in range(300)])
    assert await asyncio.to_thread(started.wait, 10)
    assert (await store.candidates(query(4), 5, n_ann_tokens=5)).exhausted
    await asyncio.wait_for(store.close(), 10)
    assert not store._index_path.exists()
    monkeypatch.setattr(local, "train_centroids", train_centroids)
    await store.open(SPEC)
    await store.upsert([encoded(300)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 301
    await store.close()


@pytest.mark.parametrize("left", [0, 3])
async def test_what_is_deleted_under_a_build_leaves_a_store_that_works(
    store, small_crossover, monkeypatch, left
):
    """Deleted before the sample is taken, and after it."""
    began, go_on = threading.Event(), threading.Event()

    def paused(method):
        def run(*args, **kwargs):
            began.set()
            assert go_on.wait(10)
            return method(*args, **kwargs)

        return run

    for target, name in ((LocalStore, "_train"), (local, "train_centroids")):
        began.clear(), go_on.clear()
        with monkeypatch.context() as patch:
            patch.setattr(target, name, paused(getattr(target, name)))
            await store.upsert([encoded(i) for i in range(300)])
            assert await asyncio.to_thread(began.wait, 10)
            await (store.clear() if left == 0 else store.delete([f"d{i}" for i in range(left, 300)]))
            go_on.set()
            await store.optimize()
        await store.upsert([encoded(i) for i in range(5)])
        assert len(await best(store, query(0))) == 5
    await store.upsert([encoded(i) for i in range(300)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 300


async def test_a_search_index_that_cannot_be_written_is_an_error_of_ours(store, small_crossover, caplog):
    (store.folder / "centroids.npz.tmp").mkdir()
    await store.upsert([encoded(i) for i in range(300)])
    with pytest.raises(StoreError, match=r"search index of .* could not be written"):
        await store.optimize()
    assert "was not brought up to date" in caplog.text
    assert len(await best(store, query(0))) == 10
    (store.folder / "centroids.npz.tmp").rmdir()
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 300


def test_training_is_repeatable():
    sample = matrix(0, 2000)
    first = train_centroids(sample, 32)
    np.testing.assert_array_equal(first, train_centroids(sample, 32))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)


def _index_id(store: LocalStore) -> str:
    with store._file.reading() as connection:
        return connection.execute("SELECT value FROM properties WHERE name = 'index_id'").fetchone()[0]


# --- processes

WRITER = """
    import asyncio, sys
    sys.path.insert(0, {tests!r})
    from tests.stores.test_local_store import SPEC, LocalStore, encoded

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


async def test_one_process_writes_and_others_read(tmp_path):
    body = "await store.upsert([encoded(1)]); print('ready', flush=True); sys.stdin.readline(); await store.close()"
    process = start_writer(tmp_path, body)
    assert process.stdout.readline() == "ready\n"
    reader = LocalStore(tmp_path, "things")
    await reader.open(SPEC)
    assert await reader.count() == 1
    with pytest.raises(StoreLockedError, match="Another process is writing"):
        await reader.upsert([encoded(2)])
    assert await best(reader, query(0)) == ["d1"]
    process.communicate("\n")
    await reader.upsert([encoded(2)])
    assert sorted(await best(reader, query(0))) == ["d1", "d2"]
    await reader.close()


async def test_a_reader_sees_what_another_process_writes(store, tmp_path):
    await store.upsert([encoded(0)])
    assert await best(store, query(0)) == ["d0"]
    store._file._lock.release()
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
            try:
                store._file.become_writer()
                code = 3
            except StoreLockedError:
                pass
        finally:
            os._exit(code)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    await store.upsert([encoded(9)])
    assert await store.count() == 6


async def test_many_searches_and_writes_at_once(store, small_crossover):
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
