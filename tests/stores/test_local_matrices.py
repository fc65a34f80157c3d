"""The embedded store reads many token matrices as one row, and stage 1 puts lists together with few, large calls."""

from __future__ import annotations

import sqlite3

import numpy as np
import pytest

from late_interaction import LocalStore, QueryVectors, StoreError
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack
from late_interaction.stores.local import centroids, matrices, sqlite
from late_interaction.stores.local.centroids import CentroidIndex
from late_interaction.stores.local.lists import Lists
from late_interaction.stores.local.matrices import read_matrices
from late_interaction.stores.local.tables import Connection, create_tables, read_state
from tests.stores.local import DIM, SMALL, SPEC, database, encoded, matrix, query


class CountingCursor(sqlite3.Cursor):
    """Counts the rows that are fetched, in all cursors."""

    rows = 0

    def __next__(self):
        row = super().__next__()
        CountingCursor.rows += 1
        return row

    def fetchone(self):
        CountingCursor.rows += 1
        return super().fetchone()


class CountingConnection(Connection):
    def execute(self, *arguments):
        return self.cursor(CountingCursor).execute(*arguments)


@pytest.fixture
def connection():
    connection = sqlite3.connect(":memory:")
    yield connection
    connection.close()


@pytest.fixture
def vectors(connection):
    connection.execute("CREATE TABLE vectors (rid INTEGER PRIMARY KEY, packed BLOB)")
    connection.executemany(
        "INSERT INTO vectors VALUES (?, ?)", [(i, pack(matrix(i, i))) for i in range(1, 9)]
    )
    return connection


async def test_to_score_more_documents_reads_no_more_rows(tmp_path, monkeypatch):
    connect = sqlite3.connect
    monkeypatch.setattr(
        sqlite.sqlite3, "connect", lambda *a, **k: connect(*a, **{**k, "factory": CountingConnection})
    )
    store = LocalStore(tmp_path, "n", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(120)])
    await store.optimize()
    await store.candidates(query(0), 10, n_ann_tokens=50)
    rows = []
    for n in (10, 120):
        CountingCursor.rows = 0
        assert len((await store.score(query(0), [f"d{i}" for i in range(n)]))[0]) == n
        rows.append(CountingCursor.rows)
    await store.close()
    assert 0 < rows[0] == rows[1] < 10


async def test_scores_stand_in_the_order_asked_whatever_is_new_or_gone(tmp_path):
    store = LocalStore(tmp_path, "n", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(100)])
    await store.optimize()
    await store.candidates(query(0), 10, n_ann_tokens=50)
    await store.upsert([encoded(7), encoded(900)])
    await store.delete(["d8"])
    await store.candidates(query(0), 10, n_ann_tokens=50)
    asked = ["d99", "d900", "d8", "d3", "nobody", "d7", "d0"]
    there, scores = await store.score(query(0), asked)
    assert there == ["d99", "d900", "d3", "d7", "d0"]
    ids, tokens = await store.matrices(asked)
    assert ids == there
    np.testing.assert_allclose(scores, maxsim(query(0).vectors, tokens), rtol=1e-5)
    await store.close()


@pytest.mark.parametrize("values", [1, 5 * DIM, 1 << 22])
def test_a_batch_has_no_more_values_than_allowed_unless_one_document_has(vectors, monkeypatch, values):
    monkeypatch.setattr(matrices, "VALUES", values)
    batches = list(read_matrices(vectors, np.arange(1, 10), np.arange(1, 10), DIM))
    assert all(len(tokens) == 1 or tokens.tokens.size <= values for _, tokens in batches)
    assert np.concatenate([found for found, _ in batches]).tolist() == list(range(1, 9))  # There is no ninth.
    for found, tokens in batches:
        for i, row_id in enumerate(found.tolist()):
            np.testing.assert_array_equal(tokens.matrix(i), unpack(pack(matrix(row_id, row_id))))


@pytest.mark.parametrize(
    "damage",
    [
        "packed = NULL",
        "packed = substr(packed, 1, 7)",
        "packed = packed || x'00'",
        "packed = 'text'",
        "packed = 5",
        "packed = x'00' || substr(packed, 2)",
    ],
)
def test_a_damaged_matrix_among_others_is_refused(vectors, damage):
    vectors.execute(f"UPDATE vectors SET {damage} WHERE rid = 4")
    with pytest.raises(StoreError, match="damaged"):
        list(read_matrices(vectors, np.arange(1, 9), np.arange(1, 9), DIM))


@pytest.mark.parametrize(
    "script",
    [
        "DELETE FROM properties WHERE name = 'index_id'",
        "DELETE FROM properties WHERE name = 'generation'",
        "UPDATE properties SET value = 'many' WHERE name = 'generation'",
    ],
)
def test_damaged_properties_are_an_error_of_ours(connection, script):
    create_tables(connection, {"index_id": "i", "build": "b"})
    state = read_state(connection)
    assert (state.index_id, state.generation, state.build) == ("i", 1, "b")
    assert len(state.stamp) == 16
    connection.execute(script)
    with pytest.raises(StoreError, match="properties are damaged"):
        read_state(connection)


async def test_a_document_without_its_matrix_is_an_error_of_ours(tmp_path):
    store = LocalStore(tmp_path, "n")
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(20)])
    await store.close()
    file = sqlite3.connect(database(store))
    file.execute("DELETE FROM vectors WHERE rid = 4")
    file.commit()
    file.close()
    await store.open(SPEC)
    with pytest.raises(StoreError, match="damaged"):
        await store.candidates(query(0), 10, n_ann_tokens=None)
    await store.close()


@pytest.mark.parametrize("entries", [1, 3000, 100_000])
def test_a_document_in_many_lists_counts_by_its_best_one(monkeypatch, entries):
    """Later writes to one place must win, as NumPy does it; `np.maximum.at` is the definition.

    The numbers are whole, so that no order of the sums rounds.
    """
    monkeypatch.setattr(centroids, "_ENTRIES", entries)
    monkeypatch.setattr(centroids, "_SIMILARITIES", entries)
    rng = np.random.default_rng(0)
    n_docs, lists = 500, [np.unique(rng.integers(0, 500, 60)) for _ in range(300)]
    lists[5] = np.empty(0, np.int64)
    index = CentroidIndex(
        index_id="i",
        build_id="b",
        centroids=rng.integers(-50, 50, (300, 16)).astype(np.float32),
        lists=Lists.of(np.cumsum([0, *map(len, lists)]), np.concatenate(lists).astype(np.int32), n_docs),
        row_ids=np.arange(1, n_docs + 1),
        trained_tokens=1,
    )
    vectors = rng.integers(-50, 50, (9, 16)).astype(np.float32)
    asked = QueryVectors(vectors, np.arange(1, 10, dtype=np.float32))
    similarities = asked.vectors @ index.centroids.T
    expected = np.zeros(n_docs, np.float32)
    for row, weight, threshold in zip(
        similarities, asked.weights, index._thresholds(vectors.T, 1000), strict=True
    ):
        best = np.full(n_docs, threshold)
        for c in np.flatnonzero(row >= threshold):
            np.maximum.at(best, lists[c], row[c])
        expected += weight * best
    np.testing.assert_array_equal(index.approximate(asked, 1000), expected)
