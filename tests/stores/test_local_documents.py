"""The embedded store: documents come back as they were written."""

from __future__ import annotations

import numpy as np
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    LocalStore,
)
from late_interaction.filters import parse_filter
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


@pytest.mark.slow
async def test_ids_by_the_thousand(store):
    await store.upsert([encoded(i) for i in range(3000)])
    ids = [f"d{i}" for i in reversed(range(3000))]
    assert [d.doc_id for d in await store.documents(ids)] == ids
    assert (await store.matrices(ids))[0] == ids
    assert await store.delete(ids[:2500]) == 2500
    assert await store.count() == 500
