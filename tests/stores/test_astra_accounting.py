"""Writes to Astra that fail: it is known what is written."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from late_interaction import (
    AstraStore,
    DocumentError,
    LateInteractionPipeline,
    StoreWriteError,
)
from late_interaction.stores.astra.doctor import diagnose
from tests.stores.astra import FILTERABLE, QUICK, Down, pipeline_on, rows
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import Fault


async def test_a_document_that_the_service_refuses_is_named_and_the_others_are_written(server):
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    bad = rows(40)
    bad[7]["year"] = "last"
    bad[8]["year"] = 2**63
    bad[9]["lang"] = "x" * 2000
    server.settings.faults = [
        Fault(
            "partial_insert",
            table="things_tokens",
            nth=1,
            failing_rows=(0,),
            error_code="INVALID_DATABASE_QUERY",
        )
    ]
    with pytest.raises(DocumentError) as raised:
        await pipeline.index_documents(bad)
    assert [failure.row for failure in raised.value.failures] == [0, 7, 8, 9]
    reasons = [failure.reason for failure in raised.value.failures]
    assert "INVALID_DATABASE_QUERY" in reasons[0]
    assert "'year' is declared filterable as int" in reasons[1]
    assert "64 bits" in reasons[2]
    assert "1000 bytes" in reasons[3]
    expected = {f"d{i}" for i in range(40)} - {"d0", "d7", "d8", "d9"}
    assert set(raised.value.indexed) == {d.doc_id for d in await pipeline.find()} == expected
    with pytest.raises(ValueError, match="declared filterable as int"):
        await pipeline.update_metadata("d3", {"year": [1]})


@pytest.mark.slow
@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("table", "nth"), [("things_tokens", 5), ("things_docs", 1), ("things_docs", 2)])
async def test_after_an_outage_it_is_known_what_is_in(server, table, nth, applied):
    pipeline = pipeline_on(server, retries=0, concurrency=1, limits=replace(QUICK, rows=20))
    await pipeline.initialize()
    await pipeline.index_documents(rows(10))
    given = [*rows(10), *rows(50, "new")[10:]]
    matrices = await pipeline.model.aencode_documents([row["content"] for row in given])
    server.settings.faults = [
        Fault("http_error", command="insertMany", table=table, nth=nth, applied=applied)
    ]
    with pytest.raises(StoreWriteError) as raised:
        await pipeline.index_embeddings(given, matrices)  # all in one batch
    error = raised.value
    generation = {d.doc_id: d.metadata["lang"] for d in await pipeline.find()}
    assert {*error.written, *error.unwritten} == {f"d{i}" for i in range(50)}
    assert error.unknown == []
    new = {doc_id for doc_id, lang in generation.items() if lang == "new"}
    assert {doc_id for doc_id in error.written if int(doc_id[1:]) >= 10} == new
    assert set(error.indexed) == set(error.written)
    server.settings.faults = []
    await pipeline.index_documents(given)
    assert await pipeline.count() == 50
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


async def test_what_cannot_be_known_is_called_unknown(server):
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    server.settings.faults = [
        Fault("http_error", command="insertMany", table="things_docs"),
        Down(command="find", after=1),
    ]
    with pytest.raises(StoreWriteError) as raised:
        await pipeline.index_documents(rows(3))
    assert raised.value.unknown == ["d0", "d1", "d2"]
    assert raised.value.indexed == []


async def test_earlier_batches_count_as_indexed(server):
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="insertMany", table="things_docs", nth=3)]
    with pytest.raises(StoreWriteError) as raised:
        await pipeline.index_documents(rows(40), batch_size=10)
    assert raised.value.indexed == [f"d{i}" for i in range(20)]
    assert {d.doc_id for d in await pipeline.find()} == set(raised.value.indexed)


@pytest.mark.slow
async def test_chaos_ends_in_the_right_index(server):
    """Everything fails now and then, half of it after the deed; what comes out is what was asked for."""
    pipeline = pipeline_on(server, retries=30, timeout_s=0.3, filterable=FILTERABLE)
    await pipeline.initialize()
    for applied in (False, True):
        for action in ("http_error", "reset", "malformed_json", "error_envelope"):
            server.settings.faults.append(Fault(action, probability=0.05, applied=applied))
    server.settings.faults.append(Fault("partial_insert", probability=0.2, failing_rows=(0, 2), applied=True))
    await pipeline.index_documents(rows(60), batch_size=20)
    await asyncio.gather(
        pipeline.index_documents(rows(30, "new", n_words=2)),
        pipeline.delete_documents([f"d{i}" for i in range(50, 60)]),
        *(pipeline.update_metadata(f"d{i}", {"year": 1000 + i}) for i in range(40, 45)),
    )
    found = {d.doc_id: (d.metadata["lang"], d.metadata["year"]) for d in await pipeline.find()}
    assert found == {
        f"d{i}": ("new" if i < 30 else "old", 1000 + i if 40 <= i < 45 else i) for i in range(50)
    }
    assert ids(await pipeline.search("old42x1", k=1, filter={"year": 1042})) == ["d42"]
    server.settings.faults = []
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


@pytest.mark.slow
async def test_a_copy_goes_on_past_a_document_that_the_service_refuses(server, tmp_path):
    given = [{"doc_id": f"d{i}", "content": "a text", "n": "seven" if i in (7, 8) else i} for i in range(12)]
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents(given)
        target = AstraStore(server.async_database(), "copied", filterable={"n": int})
        for skip_existing in (False, True):
            with pytest.raises(DocumentError, match="'n' is declared filterable as int") as raised:
                await pipeline.copy_to(target, batch_size=3, skip_existing=skip_existing)
            assert [(one.row, one.doc_id) for one in raised.value.failures] == [(7, "d7"), (8, "d8")]
            there = [f"d{i}" for i in range(12) if i not in (7, 8)]
            assert raised.value.indexed == there == [d.doc_id for d in await target.find()]
        await target.close()
