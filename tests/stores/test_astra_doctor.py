"""The doctor: it finds and repairs what crashes and hands have left."""

from __future__ import annotations

import numpy as np
import pytest

from late_interaction import (
    AstraStore,
    LateInteractionPipeline,
    StoreError,
)
from late_interaction.packing import pack
from late_interaction.stores.astra.doctor import diagnose
from tests.stores.astra import FILTERABLE, pipeline_on, rows
from tests.support.models import HashModel


async def test_the_doctor_needs_an_index_and_repairs_indexes(server):
    store = AstraStore(server.async_database(), "things")
    with pytest.raises(StoreError, match="There is no index"):
        await diagnose(store)
    await pipeline_on(server, filterable=FILTERABLE).initialize()
    with pytest.raises(ValueError, match="full"):
        await diagnose(store, repair=True)
    await server.async_database().drop_table_index("things_tokens_meta_year")
    health = await diagnose(store, full=True, repair=True)
    assert (health.repaired, health.healthy) == (1, True)
    assert health.to_dict()["spec"]["dim"] == 32


async def test_the_doctor_names_documents_whose_vectors_are_not_what_the_fingerprint_says(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    docs = server.async_database().get_table("things_docs")
    await docs.update_one({"doc_id": "d1"}, {"$set": {"packed": b"?"}})
    await docs.update_one({"doc_id": "d2"}, {"$set": {"packed": pack(np.eye(4, 16, dtype=np.float32))}})
    health = await diagnose(pipeline.store)
    assert set(health.differences) == {"packed matrix of 'd1'", "packed matrix of 'd2'"}
    assert "shorter than its header" in str(health.differences["packed matrix of 'd1'"][0])
    assert health.differences["packed matrix of 'd2'"] == ("4 x 16 int8", "4 x 32 int8")
    assert (health.sampled, health.healthy) == (1, False)


async def test_the_doctor_names_what_differs_from_what_is_expected(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    other = LateInteractionPipeline(pipeline.store, HashModel(name="other"))
    health = await diagnose(pipeline.store, expected=other.spec)
    assert "encoder.model" in health.differences
    assert not health.healthy


async def test_a_row_torn_by_a_race_is_no_document(server):
    """Another process updates metadata while this one deletes: what is left is no document."""
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    await pipeline.delete_document("d1")
    docs = server.async_database().get_table("things_docs")
    await docs.update_one({"doc_id": "d1"}, {"$set": {"revision": "{}"}})
    assert await pipeline.count() == 2
    assert {d.doc_id for d in await pipeline.find()} == {"d0", "d2"}
    assert await pipeline.get_documents(["d1"]) == []
    assert await pipeline.store.existing(["d0", "d1"]) == {"d0"}
    assert await pipeline.delete_document("d1") is False
    assert (await diagnose(pipeline.store, full=True)).torn == ["d1"]
    assert (await diagnose(pipeline.store, full=True, repair=True)).healthy
    assert await docs.find_one({"doc_id": "d1"}) is None


async def test_the_warnings_that_we_expect_are_not_logged(server, caplog):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    await pipeline.count()
    assert not [r for r in caplog.records if "ZERO_FILTER" in r.getMessage()]
    async for _ in server.async_database().get_table("things_docs").find(projection={"doc_id": True}):
        pass
    assert [r for r in caplog.records if "ZERO_FILTER" in r.getMessage()]
