"""Requests to Astra: their sizes, and what happens when they are lost."""

from __future__ import annotations

import asyncio
import logging

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from astrapy import DataAPIClient

from late_interaction import (
    AstraStore,
    StoreError,
)
from late_interaction.stores.astra import client as astra_client
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.limits import Limits
from tests.stores.astra import FILTERABLE, QUICK, pipeline_on, rows
from tests.support.answers import ids
from tools.data_api import Fault


@pytest.mark.slow
async def test_requests_keep_within_the_limits(server):
    pipeline = pipeline_on(server, concurrency=7, limits=Limits(request_bytes=4000))
    await pipeline.initialize()
    server.settings.latency_ms = 40
    server.log.clear()
    await pipeline.index_documents(rows(60, n_words=30))
    await pipeline.search_many([row["content"] for row in rows(10)], k=3)
    assert 2 < server.log.max_in_flight <= 7
    assert max(r.bytes_in for r in server.log.select("insertMany", "things_tokens")) < 2 * 4000
    assert server.log.rows_written == 60 * 31


@pytest.mark.slow
async def test_requests_keep_within_the_limits_with_long_declared_values_too(server):
    """They stand in every row of a document's tokens."""
    pipeline = pipeline_on(server, filterable={"tags": list[str]})
    await pipeline.initialize()
    tags = [f"{i:05d}" + "é" * 100 for i in range(3000)]
    long = {"doc_id": "long", "content": " ".join(f"w{i}" for i in range(60)), "tags": tags}
    await pipeline.index_documents([{"doc_id": "short", "content": "one two"}, long])
    assert await pipeline.update_metadata("long", {"tags": tags[1:]})
    assert [await pipeline.count({"tags": tag}) for tag in tags[:2]] == [0, 1]
    assert max(request.bytes_in for request in server.log.requests) < 4 * 1024 * 1024


async def test_a_search_asks_for_ids_and_similarities_and_reads_each_candidate_once(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(200))
    server.log.clear()
    await pipeline.search("old1x1 old2x2 old3x3", k=10)
    nearest = server.log.select("find", "things_tokens")
    assert len(nearest) == 3
    assert all(request.body["projection"] == {"doc_id": True} for request in nearest)
    packed = [r for r in server.log.select("find", "things_docs") if "packed" in r.body["projection"]]
    assert 1 <= len(packed) <= 4
    assert server.log.count("find", "things_docs") == len(packed) + 1


@pytest.mark.slow
async def test_pages_smaller_than_expected_are_learnt(server):
    server.settings.page_size = 20
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(150))
    await pipeline.get_documents([f"d{i}" for i in range(150)])
    server.log.clear()
    assert len(await pipeline.get_documents([f"d{i}" for i in range(150)])) == 150
    assert (
        sorted(len(r.body["filter"]["doc_id"]["$in"]) for r in server.log.select("find")) == [10] + [20] * 7
    )


@pytest.mark.slow
@pytest.mark.parametrize("action", ["http_error", "reset", "malformed_json", "error_envelope", "hang"])
@pytest.mark.parametrize("applied", [False, True])
async def test_what_is_lost_is_tried_again(server, action, applied):
    pipeline = pipeline_on(server, timeout_s=0.4, filterable=FILTERABLE)
    await pipeline.initialize()
    commands = ["insertMany", "find", "deleteOne", "deleteMany", "updateOne"]
    server.settings.faults = [
        Fault(action, command=command, times=2, applied=applied, status=429 if applied else 503)
        for command in commands
    ]
    await pipeline.index_documents(rows(5))
    await pipeline.index_documents(rows(5, "new", n_words=2))
    assert ids(await pipeline.search("new3x1", k=1)) == ["d3"]
    assert await pipeline.update_metadata("d3", {"year": 77})
    assert [d.doc_id for d in await pipeline.find({"year": 77})] == ["d3"]
    assert await pipeline.delete_document("d3")
    assert await pipeline.count() == 4
    assert [fault.fired for fault in server.settings.faults] == [2] * 5
    server.settings.faults = []
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


@pytest.mark.slow
async def test_a_partial_insert_is_completed(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.settings.faults = [
        Fault("partial_insert", times=3, failing_rows=(0, 3, 5), error_code="TIMEOUT_WRITING_DATA")
    ]
    await pipeline.index_documents(rows(30))
    inserts = [r.rows_written for r in server.log.select("insertMany", "things_tokens")]
    assert sum(inserts) == 120
    assert 3 in inserts
    server.settings.faults = []
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


async def test_what_the_database_refuses_is_not_asked_twice(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.settings.faults = [Fault("error_envelope", command="find", error_code="INVALID_DATABASE_QUERY")]
    server.log.clear()
    with pytest.raises(StoreError, match="INVALID_DATABASE_QUERY"):
        await pipeline.count()
    assert server.log.count("find") == 1


async def test_retries_end_and_say_how_often(server):
    pipeline = pipeline_on(server, retries=3)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="find", status=503)]
    server.log.clear()
    with pytest.raises(StoreError, match=r"find things_docs at .* failed \(4 attempts\): HTTP 503"):
        await pipeline.count()
    assert server.log.count("find") == 4


async def test_waits_are_random_and_the_longest_possible_one_doubles(server, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG, astra_client.__name__)
    longest = []
    monkeypatch.setattr(
        astra_client.random, "uniform", lambda low, high: longest.append((low, high)) or high / 2
    )
    pipeline = pipeline_on(server, retries=4, limits=Limits(first_wait_s=0.02, longest_wait_s=0.08))
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="find", status=429)]
    with pytest.raises(StoreError, match="HTTP 429"):
        await pipeline.count()
    assert longest == [(0, 0.02), (0, 0.04), (0, 0.08), (0, 0.08)]
    told = [record.getMessage() for record in caplog.records if "again in" in record.getMessage()]
    assert [line.rpartition("again in ")[2] for line in told] == ["0.01 s.", "0.02 s.", "0.04 s.", "0.04 s."]


@pytest.mark.parametrize("answer", ["{}", "[]", "null", '{"message": "not here"}', '{"data": {}}', "hello"])
async def test_what_is_no_data_api_is_named(answer):
    """A wrong endpoint may answer anything, with HTTP 200."""

    async def answering(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", answering)
    async with TestServer(app) as other:
        database = DataAPIClient("t", environment="hcd").get_async_database(
            str(other.make_url("")).rstrip("/"), keyspace="k"
        )
        store = AstraStore(database, "x", retries=1, limits=QUICK)
        with pytest.raises(StoreError, match=r"\(2 attempts\): the answer is not one of the Data API"):
            await store.spec()
        with pytest.raises(StoreError, match="the answer is not one of the Data API"):
            await store.requests.command("x_tokens", {"deleteMany": {"filter": {}}})
        await store.close()


@pytest.mark.slow
async def test_matrices_are_read_in_groups_of_about_so_many_bytes(server):
    pipeline = pipeline_on(server, packing="float32", limits=Limits(read_bytes=10_000))
    await pipeline.initialize()
    await pipeline.index_documents(rows(60, n_words=10))
    doc_ids = [f"d{i}" for i in range(60)]
    assert len(await pipeline.get_matrices(doc_ids)) == 60
    server.log.clear()
    assert len(await pipeline.get_matrices(doc_ids)) == 60
    reads = server.log.select("find", "things_docs")
    assert len(reads) > 5
    assert max(request.bytes_out for request in reads) < 1.5 * 10_000


async def test_a_failed_search_leaves_nothing_running(server):
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    await pipeline.index_documents(rows(20))
    server.settings.faults = [Fault("http_error", table="things_tokens", nth=2)]
    server.settings.latency_jitter_ms = 20
    with pytest.raises(StoreError):
        await pipeline.search("old1x1 old2x2 old3x3 old4x1", k=3)
    before = asyncio.all_tasks()
    await asyncio.sleep(0.05)
    assert asyncio.all_tasks() <= before
    server.settings.faults = []
    assert len(await pipeline.search("old1x1", k=3)) == 3


@pytest.mark.slow
async def test_an_index_is_made_on_a_slow_server_that_repeats_and_forgets(server):
    """Definitions that take effect although the service says that they did not, and tables it does not know yet."""
    server.settings.cold_tables = server.settings.ann_mixed_ties = True
    server.settings.ddl_s = 0.02
    lost = [
        Fault("error_envelope", command, times=1, applied=True, error_code="UNEXPECTED_DRIVER_ERROR")
        for command in ("createTable", "createIndex", "createVectorIndex")
    ]
    server.settings.faults = [
        *lost,
        *(Fault("repeat", command) for command in ("createTable", "createIndex")),
    ]
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    assert ids(await pipeline.search("old1x1", k=1, filter={"year": 1})) == ["d1"]
    assert [fault.fired for fault in lost] == [1, 1, 1]
