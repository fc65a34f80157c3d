"""The index of metadata: filters that read few documents say what filters that read all of them say."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import LocalStore
from late_interaction.errors import StoreError
from late_interaction.filters import matches, parse_filter
from late_interaction.metadata import loads
from late_interaction.stores.local import in_step, terms
from late_interaction.stores.local.tables import read_state
from late_interaction.stores.local.terms import Terms, find_matching, terms_of
from tests.stores.local import SMALL, SPEC, encoded, query

FILTERS: list[dict[str, Any]] = [
    {"i": 3},
    {"i": {"$gte": 3, "$lt": 40}},
    {"i": {"$in": [1, 2, 77]}},
    {"half": 1, "i": {"$lt": 9}},
    {"half": {"$ne": 1}},
    {"tags": "t4"},
    {"tags": {"$in": ["t4", "t5"]}, "half": 0},
    {"$and": [{"tags": "t4"}, {"tags": "u0"}]},
    {"$or": [{"half": 1}, {"tags": {"$exists": False}}]},
    {"maybe": None},
    {"maybe": {"$exists": True}},
    {"author.name": "n2"},
    {"long": {"$contains": "end"}},
    {"source": {"$startswith": "file1"}},
]


def made(i: int) -> Any:
    more: dict[str, Any] = {"half": i % 2, "source": f"file{i}", "author": {"name": f"n{i % 5}"}}
    if i % 3:
        more["tags"] = [f"t{i % 6}", f"u{i % 4}"]
    if i % 4 == 0:
        more["maybe"] = None
    if i % 7 == 0:
        more["long"] = "x" * 300 + (" end" if i % 2 else "")
    return encoded(i, **more)


@pytest.fixture
async def store(tmp_path: Path) -> Any:
    opened = LocalStore(tmp_path, limits=SMALL)
    await opened.open(SPEC)
    await opened.upsert([made(i) for i in range(120)])
    await opened.optimize()
    yield opened
    await opened.close()


@contextmanager
def reading(store: LocalStore) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(store.folder / "documents.sqlite3")) as connection:
        yield connection


def check_terms(store: LocalStore) -> int:
    """Check that the index has the terms of all documents and of no others; return how many it has."""
    expected: dict[tuple[str, str], set[int]] = {}
    with reading(store) as connection:
        for rid, text in connection.execute("SELECT rid, metadata FROM documents"):
            for term in terms_of(loads(text)):
                expected.setdefault(term, set()).add(rid)
        found: dict[tuple[str, str], set[int]] = {}
        rows = connection.execute(
            "SELECT field, value, p.id, rids FROM terms JOIN postings p ON p.id >> 20 = terms.id"
        )
        for field, value, key, rids in rows:
            offsets = np.frombuffer(rids, "<u2").tolist()
            assert len(set(offsets)) == len(offsets) > 0
            found.setdefault((field, value), set()).update(
                ((key & 0xFFFFF) << 13) + offset for offset in offsets
            )
        assert found == expected
        assert connection.execute("SELECT count(*) FROM terms").fetchone() == (len(expected),)
        assert Terms.read(connection, read_state(connection).generation) == Terms(
            read_state(connection).generation
        )
    return len(expected)


def found_by_terms(store: LocalStore, spec: dict[str, Any]) -> set[int] | None:
    with reading(store) as connection:
        row_ids = np.array([rid for (rid,) in connection.execute("SELECT rid FROM documents ORDER BY rid")])
        mask = find_matching(connection, read_state(connection).generation, parse_filter(spec), row_ids)
    return None if mask is None else set(row_ids[mask].tolist())


def expected(store: LocalStore, spec: dict[str, Any]) -> set[int]:
    with reading(store) as connection:
        rows = connection.execute("SELECT rid, metadata, content FROM documents").fetchall()
    return {rid for rid, text, content in rows if matches(parse_filter(spec), loads(text), content)}


@pytest.mark.parametrize("spec", FILTERS, ids=str)
async def test_it_finds_what_matches(store: LocalStore, spec: dict[str, Any]) -> None:
    found = found_by_terms(store, spec)
    assert found == expected(store, spec) != set()


async def test_a_search_with_a_filter_reads_no_other_documents(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("all metadata were read")

    monkeypatch.setattr("late_interaction.stores.local.allowed.matching", refuse)
    for spec in FILTERS:
        found = await store.candidates(query(1), 200, n_ann_tokens=None, filter=parse_filter(spec))
        assert len(found.doc_ids) == len(expected(store, spec))


async def test_every_write_is_in_it(store: LocalStore) -> None:
    before = check_terms(store)
    await store.upsert([made(200), encoded(3, half=7)])  # one is new, one replaces another
    check_terms(store)
    await store.update_metadata("d5", {"half": "other", "tags": ["u1", "new"]})
    await store.update_metadata(parse_filter({"half": 0}), {"seen": True})
    check_terms(store)
    assert await store.delete(parse_filter({"seen": True})) > 50
    assert await store.delete(["d5"]) == 1
    assert check_terms(store) < before
    for spec in FILTERS:
        assert found_by_terms(store, spec) == expected(store, spec)
    await store.clear()
    assert check_terms(store) == 0
    await store.upsert([made(1)])
    assert check_terms(store) > 0


async def test_what_an_open_store_knows_of_a_filter_moves_on(store: LocalStore) -> None:
    async def found() -> set[str]:
        candidates = store.candidates(query(1), 300, n_ann_tokens=None, filter=parse_filter({"half": 1}))
        return set((await candidates).doc_ids)

    assert await found() == {f"d{i}" for i in range(1, 120, 2)}
    await store.upsert([encoded(500, half=1)])
    await store.update_metadata("d1", {"half": 0})
    await store.delete(["d3"])
    assert await found() == {f"d{i}" for i in [*range(5, 120, 2), 500]}


async def test_an_index_of_an_earlier_release_gets_it_by_optimize(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with reading(store) as connection, connection:
        connection.execute("DROP TABLE terms")
        connection.execute("DROP TABLE postings")
        connection.execute("DELETE FROM properties WHERE name = 'terms'")
    assert found_by_terms(store, {"i": 3}) is None
    await store.upsert([made(300)])
    monkeypatch.setattr(in_step, "FILLED_TOGETHER", 50)
    assert await store._fill()
    await store.delete(["d2", "d110"])  # one that is in it, one that is not
    await store.upsert([made(301)])
    await store.update_metadata("d4", {"half": 9})
    await store.update_metadata("d111", {"half": 9})
    for spec in FILTERS:
        assert found_by_terms(store, spec) is None
        found = await store.candidates(query(1), 300, n_ann_tokens=None, filter=parse_filter(spec))
        assert len(found.doc_ids) == len(expected(store, spec))
    await store.optimize()
    check_terms(store)


async def test_a_write_by_an_earlier_release_is_noticed(store: LocalStore) -> None:
    with reading(store) as connection, connection:
        connection.execute("UPDATE documents SET metadata = '{\"half\":1}' WHERE doc_id = 'd2'")
        connection.execute("UPDATE properties SET value = value + 1 WHERE name = 'generation'")
    assert found_by_terms(store, {"half": 1}) is None
    assert await store.count(parse_filter({"half": 1})) == 61
    await store.optimize()
    check_terms(store)
    assert len(found_by_terms(store, {"half": 1}) or ()) == 61


async def test_documents_with_very_many_terms_are_asked_one_by_one(store: LocalStore) -> None:
    many = {f"k{n}": n for n in range(300)}
    await store.upsert([encoded(400, **many), encoded(401, tags=list(map(str, range(5000))))])
    check_terms(store)
    for spec in (
        {"k7": 7},
        {"k7": {"$exists": False}},
        {"tags": "4999"},
        {"tags": {"$ne": "4999"}},
        {"i": 401},
    ):
        assert found_by_terms(store, spec) == expected(store, spec) != set()


async def test_where_very_many_must_be_asked_all_are_read(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terms, "_MOST_ASKED", 3)
    assert found_by_terms(store, {"long": {"$contains": "end"}}) is None
    assert found_by_terms(store, {"i": 3}) is not None
    found = await store.candidates(
        query(1), 300, n_ann_tokens=None, filter=parse_filter({"long": {"$contains": "end"}})
    )
    assert len(found.doc_ids) == len(expected(store, {"long": {"$contains": "end"}}))


@pytest.mark.parametrize(
    "spec", [{"$content": {"$contains": "text"}}, {"tags": {"$eq": ["t1", "u1"]}}], ids=str
)
async def test_what_terms_do_not_say_is_left_to_the_documents(
    store: LocalStore, spec: dict[str, Any]
) -> None:
    assert found_by_terms(store, spec) is None
    found = await store.candidates(query(1), 300, n_ann_tokens=None, filter=parse_filter(spec))
    assert len(found.doc_ids) == len(expected(store, spec)) > 0


async def test_row_ids_of_many_blocks(store: LocalStore) -> None:
    with reading(store) as connection, connection:
        connection.execute("UPDATE sqlite_sequence SET seq = 3000000000 WHERE name = 'documents'")
    await store.upsert([made(i) for i in range(60, 200)])
    check_terms(store)
    for spec in FILTERS:
        assert found_by_terms(store, spec) == expected(store, spec)


async def test_a_table_that_is_not_ours_is_refused(store: LocalStore) -> None:
    await store.close()
    with reading(store) as connection, connection:
        connection.execute("DROP TABLE terms")
        connection.execute("CREATE VIEW terms AS SELECT 1")
    with pytest.raises(Exception, match="cannot be trusted"):
        await store.open(SPEC)


async def test_damaged_metadata_can_be_deleted(store: LocalStore) -> None:
    with reading(store) as connection, connection:
        connection.execute("UPDATE documents SET metadata = '{' WHERE doc_id IN ('d2', 'd4')")
        connection.execute("DELETE FROM properties WHERE name = 'terms'")
    await store.optimize()
    with pytest.raises(StoreError):
        await store.candidates(query(1), 300, n_ann_tokens=None, filter=parse_filter({"half": 1}))
    await store.delete(["d2"])
    await store.upsert([made(4)])
    check_terms(store)
    assert found_by_terms(store, {"half": 1}) == expected(store, {"half": 1})


async def test_damaged_postings_are_told(store: LocalStore) -> None:
    with reading(store) as connection, connection:
        connection.execute("UPDATE postings SET rids = x'00'")
    with pytest.raises(StoreError, match="index of metadata is damaged"):
        await store.candidates(query(1), 300, n_ann_tokens=None, filter=parse_filter({"half": 1}))
