"""The seam of the embedded store: bad arguments are refused by errors of ours, and before anything is written."""

from __future__ import annotations

import numpy as np
import pytest

from late_interaction import Document, DocumentError, EncodedDocument, LocalStore
from late_interaction.stores.local.limits import Limits
from tests.stores.local import DIM, SPEC, best, query


@pytest.fixture
async def store(tmp_path):
    store = LocalStore(tmp_path, "things")
    await store.open(SPEC)
    yield store
    await store.close()


def encoded(doc_id: object = "x", matrix: object = None, **metadata: object) -> EncodedDocument:
    return EncodedDocument(
        Document(doc_id, "x", metadata=metadata),
        np.eye(2, DIM, dtype=np.float32) if matrix is None else matrix,
    )


BAD = {
    "another width": (ValueError, [encoded(matrix=np.eye(2, DIM + 1, dtype=np.float32))]),
    "one dimension": (ValueError, [encoded(matrix=np.ones(DIM, np.float32))]),
    "no number": (ValueError, [encoded(matrix=np.full((1, DIM), np.nan))]),
    "infinite": (ValueError, [encoded(matrix=np.full((1, DIM), np.inf))]),
    "zeros": (ValueError, [encoded(matrix=np.zeros((1, DIM)))]),
    "complex": (ValueError, [encoded(matrix=np.eye(2, DIM) * 1j)]),
    "masked": (ValueError, [encoded(matrix=np.ma.masked_array(np.eye(2, DIM)))]),
    "huge whole numbers": (ValueError, [encoded(matrix=[[10**400] * DIM])]),
    "an id twice": (ValueError, [encoded(), encoded()]),
    "an empty id": (ValueError, [encoded("")]),
    "an id of another type": (TypeError, [encoded(5)]),
    "content of another type": (TypeError, [EncodedDocument(Document("x", b"x"), np.eye(2, DIM))]),
    "not a document": (TypeError, [("x", np.eye(2, DIM))]),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_no_document_may_be_is_refused_before_anything_is_written(store, what):
    error, documents = BAD[what]
    with pytest.raises(error, match="document "):
        await store.upsert([encoded("good"), *documents])
    assert await store.count() == 0
    await store.upsert([encoded("good")])
    assert await best(store, query(0)) == ["good"]


@pytest.mark.slow
async def test_metadata_and_texts_that_cannot_be_stored_are_named_and_the_others_are_written(store):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    bad = [encoded("a", value={1, 2}), encoded("b", value=float("nan")), encoded("c", value=nested)]
    bad += [encoded("d\ud800"), encoded("e", **{"nul\0": 1})]
    with pytest.raises(DocumentError) as raised:
        await store.upsert([encoded("good"), *bad])
    assert [failure.row for failure in raised.value.failures] == [1, 2, 3, 4, 5]
    assert raised.value.indexed == ["good"]
    assert await store.existing(["good", "a", "b", "c", "d\ud800", "e"]) == {"good"}
    for value in ({1, 2}, float("nan"), nested):
        with pytest.raises(ValueError, match="cannot be stored as JSON"):
            await store.update_metadata("good", {"value": value})
    assert (await store.documents(["good"]))[0].metadata == {}


async def test_other_arguments_of_another_type(store):
    await store.upsert([encoded("a")])
    for metadata in (None, [], 5):
        with pytest.raises(TypeError, match="metadata must be a dict"):
            await store.update_metadata("a", metadata)
    for call in (store.matrices, store.documents, store.existing, store.delete):
        with pytest.raises(TypeError, match="not the one str"):
            await call("a")
        with pytest.raises(TypeError, match="an id must be a str"):
            await call(["a", 5])
    for limit in (2**63, -1):
        with pytest.raises(ValueError, match="limit"):
            await store.find(limit=limit)
    with pytest.raises(ValueError, match="batch_size"):
        [batch async for batch in store.scan(batch_size=0)]
    with pytest.raises(ValueError, match="batch_size"):
        [batch async for batch in store.scan(batch_size=2**63)]
    assert await store.documents(["a\ud800"]) == []
    assert await store.delete(["a\ud800"]) == 0
    assert not await store.update_metadata("a\ud800", {})
    assert await store.count() == 1


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (lambda folder: LocalStore(folder, limits=5), TypeError),
        (lambda folder: Limits(exact_tokens="many"), TypeError),
        (lambda folder: Limits(exact_tokens=-1), ValueError),
        (lambda folder: Limits(filters_kept=0), ValueError),
    ],
)
def test_limits_that_are_none(tmp_path, make, error):
    with pytest.raises(error, match=r"limits must be|exact_tokens|filters_kept"):
        make(tmp_path)
