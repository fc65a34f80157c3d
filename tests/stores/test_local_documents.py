"""The embedded store: documents come back as they were written."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import numpy as np
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    LocalStore,
    StoreError,
)
from late_interaction.filters import parse_filter
from late_interaction.stores.local.tables import create_tables, insert, read_documents
from tests.stores.local import SPEC, best, encoded, matrix, query


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


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


async def test_a_scan_ends_though_its_reader_writes_what_it_reads(store):
    await store.upsert([encoded(i) for i in range(25)])
    seen = []
    async for batch in store.scan(batch_size=10):
        seen += [one.document.doc_id for one in batch]
        assert len(seen) <= 25
        await store.upsert(batch)
    assert seen == [f"d{i}" for i in range(25)]


async def test_a_scan_has_what_is_replaced_before_it_is_read(store):
    await store.upsert([encoded(i) for i in range(25)])
    batches = store.scan(batch_size=10)
    seen = [one.document.doc_id for one in await anext(batches)]
    await store.upsert([encoded(2), encoded(22)])
    seen += [one.document.doc_id async for batch in batches for one in batch]
    assert set(seen) == {f"d{i}" for i in range(25)}


@pytest.mark.slow
async def test_ids_by_the_thousand(store):
    await store.upsert([encoded(i) for i in range(3000)])
    ids = [f"d{i}" for i in reversed(range(3000))]
    assert [d.doc_id for d in await store.documents(ids)] == ids
    assert (await store.matrices(ids))[0] == ids
    assert await store.delete(ids[:2500]) == 2500
    assert await store.count() == 500


TEXTS = ["a\0b", '"\\\x01\x1f', "é 漢 😀 \u2028", "", "<b>'%s'</b>", "x" * 5000]


@pytest.fixture
def table():
    """The tables of an index with 50 documents of odd texts."""
    with closing(sqlite3.connect(":memory:")) as connection:
        create_tables(connection, {"index_id": "i"})
        for i in range(50):
            text = TEXTS[i % len(TEXTS)]
            insert(connection, (f"{i}{text}", text, "text", f'{{"i": {i}}}', 1), b"")
        yield connection


@pytest.mark.parametrize("longest", [10**9, 8000])
def test_documents_are_read_some_at_a_time_whatever_they_hold(table, longest):
    """As one row, which those together may be too long for."""
    table.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    wanted = [*range(49, -1, -2), *range(0, 50, 2)]
    ids = [f"{i}{TEXTS[i % len(TEXTS)]}" for i in wanted]
    found = read_documents(table, [*ids, "unknown"])
    assert [document.doc_id for document in found] == ids
    assert [document.content for document in found] == [TEXTS[i % len(TEXTS)] for i in wanted]
    assert [document.metadata for document in found] == [{"i": i} for i in wanted]


@pytest.mark.parametrize("value", ["x'ff'", "CAST(x'ff' AS TEXT)", "7.5"])
def test_a_damaged_document_among_others_is_named(table, value):
    table.execute("PRAGMA writable_schema = 1")
    table.execute("UPDATE sqlite_schema SET sql = replace(sql, 'content TEXT', 'content BLOB')")
    table.execute("PRAGMA writable_schema = RESET")
    table.execute(f"UPDATE documents SET content = {value} WHERE rid = 4")
    with pytest.raises((StoreError, sqlite3.OperationalError), match=r"'3.*not text|decode to UTF-8"):
        read_documents(table, [f"{i}{TEXTS[i % len(TEXTS)]}" for i in range(10)])
