"""The embedded store: its search index never changes an answer for the worse."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time

import numpy as np
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    LocalStore,
    QueryVectors,
)
from late_interaction.clustering import NearestCentroids, train_centroids
from late_interaction.errors import StoreError
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.stores import local
from late_interaction.stores.local import build, scaling
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.scaling import folder_scaling
from late_interaction.types import RaggedTokens
from tests.stores.local import SMALL, SPEC, best, centroid_file, database, encoded, matrix, query


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    yield store
    await store.close()


async def test_below_the_crossover_every_document_is_scored_exactly(store):
    await store.upsert([encoded(i) for i in range(30)])
    found = await store.candidates(query(0), 5, n_ann_tokens=1)
    assert found.exhausted
    assert found.exact.all()
    expected = maxsim(query(0).vectors, [encoded(i).matrix for i in range(30)])
    assert found.doc_ids == [f"d{i}" for i in np.argsort(-expected)[:5]]
    np.testing.assert_allclose(found.scores, np.sort(expected)[::-1][:5], rtol=1e-6)


async def test_the_size_of_the_crossover_is_set_for_a_store_or_for_the_process(tmp_path, monkeypatch):
    async def in_index(name, limits=None):
        store = LocalStore(tmp_path, name, limits=limits)
        await store.open(SPEC)
        await store.upsert([encoded(i) for i in range(30)])
        await store.optimize()
        n = (await store.info())["documents_in_index"]
        await store.close()
        return n

    assert await in_index("large") == 0
    assert await in_index("small", Limits(exact_tokens=100)) == 30
    monkeypatch.setattr(local, "EXACT_TOKENS", 100)
    assert await in_index("by_default") == 30


def test_more_candidates_are_scored_as_a_folder_grows():
    for k, few in ((1, 318), (10, 500), (100, 1708)):
        asked = [folder_scaling(n).n_maxsim_candidates(k) for n in (0, 300, 5000, 20_000, 50_000, 100_000)]
        assert asked[:3] == [few] * 3
        assert asked[2] < asked[3] < asked[4] < asked[5]
        assert folder_scaling(10**9).n_maxsim_candidates(k) == asked[5]


async def test_a_store_knows_how_many_documents_it_has_before_it_is_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "GROWS_FROM", 10)
    store, other = LocalStore(tmp_path, limits=SMALL), LocalStore(tmp_path, limits=SMALL)
    assert store.scaling == folder_scaling(0)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(30)])
    assert store.scaling == folder_scaling(30) != folder_scaling(0)
    await store.upsert([encoded(i) for i in range(20, 40)])
    assert store.scaling == folder_scaling(40)
    await store.delete(["d0", "there is none"])
    assert store.scaling == folder_scaling(39)
    await other.open(SPEC)
    assert other.scaling == folder_scaling(39)
    await other.clear()
    assert other.scaling == folder_scaling(0)
    await other.upsert([encoded(i) for i in range(20)])
    await store.candidates(query(0), 5, n_ann_tokens=1)
    assert store.scaling == folder_scaling(20)
    await store.close()
    await other.close()


async def test_no_more_filters_are_kept_than_allowed(tmp_path):
    store = LocalStore(tmp_path, limits=Limits(filters_kept=1))
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(9)])
    for i in range(3):
        found = await store.candidates(query(0), 5, n_ann_tokens=1, filter=parse_filter({"i": i}))
        assert found.doc_ids == [f"d{i}"]
        assert list(store._views._allowed) == [parse_filter({"i": i})]
    await store.close()


@pytest.mark.slow
async def test_above_it_the_index_finds_what_is_best(store):
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


async def test_what_is_written_after_the_index_is_found_and_what_is_deleted_is_not(store):
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


@pytest.mark.slow
@pytest.mark.parametrize("spec", [{"group": 3}, {"i": {"$lt": 5}}, {"group": {"$ne": 0}}, {"group": 99}])
async def test_a_filter_holds_before_stage_1(store, spec):
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


@pytest.mark.slow
async def test_the_index_is_extended_then_trained_anew_as_the_collection_grows(store):
    trained = []
    for size in (150, 300, 2000):
        await store.upsert([encoded(i) for i in range(size)])
        await store.optimize()
        with np.load(centroid_file(store)) as file:
            trained.append(int(file["trained_tokens"]))
        assert (await store.info())["documents_scored_exactly"] == 0
    assert trained[0] == trained[1] < trained[2]


async def test_an_index_of_deleted_documents_is_compacted_and_a_small_rest_has_none(store):
    await store.upsert([encoded(i) for i in range(400)])
    await store.optimize()
    size = centroid_file(store).stat().st_size
    await store.delete([f"d{i}" for i in range(200)])
    await store.optimize()
    assert centroid_file(store).stat().st_size < size
    assert len(await best(store, query(3), 400)) == 200
    await store.delete([f"d{i}" for i in range(200, 390)])
    await store.optimize()
    assert not centroid_file(store).exists()
    assert len(await best(store, query(3), 400)) == 10


@pytest.mark.parametrize("damage", ["garbage", "truncated", "empty", "missing", "foreign"])
async def test_an_index_file_that_does_not_fit_is_not_used(store, tmp_path, damage):
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    expected = await best(store, query(9), 150)
    path = centroid_file(store)
    await store.close()
    data = path.read_bytes()
    if damage == "foreign":
        other = LocalStore(tmp_path, "other", limits=SMALL)
        await other.open(SPEC)
        await other.upsert([encoded(i) for i in range(1000, 1150)])
        await other.optimize()
        shutil.copy(centroid_file(other), path)
        await other.close()
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"garbage": b"PK\x03\x04nonsense", "truncated": data[: len(data) // 2], "empty": b""}[damage]
        )
    again = LocalStore(tmp_path, "things", limits=SMALL)
    await again.open(SPEC)
    assert await best(again, query(9), 150) == expected
    assert (await again.candidates(query(9), 5, n_ann_tokens=5)).exhausted
    await again.optimize()
    assert (await again.info())["documents_in_index"] == 150
    await again.close()


async def test_an_older_file_put_back_beside_a_newer_index_is_never_searched_by_it(store, monkeypatch):
    await store.upsert([encoded(i) for i in range(100)])
    await store.close()
    older = database(store).read_bytes()
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(100, 300)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 300
    await store.close()
    database(store).write_bytes(older)
    await store.open(SPEC)
    monkeypatch.setattr(store._builder, "start", lambda: None)
    # Their row ids are those that the newer index has for other documents.
    await store.upsert([encoded(i) for i in range(300, 600)])
    assert (await store.info())["documents_scored_exactly"] == 400
    everything = (*range(0, 100, 9), *range(300, 600, 9))
    for i in everything:
        assert (await best(store, query(i), n=1))[0] == f"d{i}"
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 400


async def test_a_search_in_a_large_collection_without_an_index_is_exact_and_says_it_is_slow(
    store, caplog, monkeypatch
):
    monkeypatch.setattr(store._builder, "start", lambda: None)
    await store.upsert([encoded(i) for i in range(300)])
    found = await store.candidates(query(4), 5, n_ann_tokens=5)
    assert found.exhausted
    assert "call optimize()" in caplog.text


async def test_the_index_is_built_in_the_background_and_the_build_stops_on_close(tmp_path, monkeypatch):
    started = threading.Event()

    def slow(sample, n_centroids, *, tick):
        started.set()
        while True:
            tick()
            time.sleep(0.005)

    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    monkeypatch.setattr(build, "train_centroids", slow)
    await store.upsert([encoded(i) for i in range(300)])
    assert await asyncio.to_thread(started.wait, 10)
    assert (await store.candidates(query(4), 5, n_ann_tokens=5)).exhausted
    await asyncio.wait_for(store.close(), 10)
    assert not centroid_file(store).exists()
    monkeypatch.setattr(build, "train_centroids", train_centroids)
    await store.open(SPEC)
    await store.upsert([encoded(300)])
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 301
    await store.close()


@pytest.mark.parametrize("left", [0, 3])
async def test_what_is_deleted_under_a_build_leaves_a_store_that_works(store, monkeypatch, left):
    """Deleted before the sample is taken, and after it."""
    began, go_on = threading.Event(), threading.Event()

    def paused(method):
        def run(*args, **kwargs):
            began.set()
            assert go_on.wait(10)
            return method(*args, **kwargs)

        return run

    for target, name in ((build.IndexBuilder, "_train"), (build, "train_centroids")):
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


async def test_a_search_index_that_cannot_be_written_is_an_error_of_ours(store, caplog, monkeypatch):
    def full(file, **arrays):
        file.write(b"x" * 1000)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        await store.upsert([encoded(i) for i in range(300)])
        with pytest.raises(StoreError, match=r"search index of .* could not be written"):
            await store.optimize()
    assert "was not brought up to date" in caplog.text
    assert not list(store.folder.glob("centroids*"))
    assert len(await best(store, query(0))) == 10
    await store.optimize()
    assert (await store.info())["documents_in_index"] == 300


async def test_an_index_of_few_centroids_as_of_earlier_releases_is_used_and_optimize_trains_it_anew(
    store, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(build, "centroids_for", lambda n_tokens: 16)
        await store.upsert([encoded(i) for i in range(300)])
        await store.optimize()
    before = (await store.info())["centroids"]
    assert before < 32
    assert (await best(store, query(3), 20, n_ann_tokens=2000))[0] == (await best(store, query(3), 300))[0]
    assert (await store.info())["documents_scored_exactly"] == 0
    await store.optimize()
    after = (await store.info())["centroids"]
    assert after > 4 * before
    stamp = centroid_file(store).stat().st_mtime_ns
    await store.optimize()
    assert centroid_file(store).stat().st_mtime_ns == stamp


def test_nearly_every_token_gets_its_nearest_centroid():
    centroids, tokens = matrix(1, 400), matrix(2, 3000)
    similarities = tokens @ centroids.T
    found = NearestCentroids(centroids)(RaggedTokens.from_matrices([tokens]))
    reached = similarities[np.arange(len(tokens)), found]
    assert np.mean(found == similarities.argmax(axis=1)) > 0.5
    assert np.mean(similarities.max(axis=1) - reached) < 0.1
    one = NearestCentroids(centroids[:1])(RaggedTokens.from_matrices([tokens]))
    assert not one.any()


def test_training_is_repeatable():
    sample = matrix(0, 2000)
    first = train_centroids(sample, 32)
    assert 24 < len(first) < 40
    np.testing.assert_array_equal(first, train_centroids(sample, 32))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-5)
