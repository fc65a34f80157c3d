"""The Astra store against the local Data API: schema, limits, faults, crashes. What both stores do is in
test_same_answers.py."""

from __future__ import annotations

import asyncio
import logging
import operator
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from astrapy import DataAPIClient
from astrapy.authentication import UsernamePasswordTokenProvider

from late_interaction import (
    AstraStore,
    DocumentError,
    IndexMismatchError,
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    StoreError,
    StoreWriteError,
    SyncPipeline,
)
from late_interaction.connection import Connection
from late_interaction.filters import matches, parse_filter
from late_interaction.packing import pack
from late_interaction.stores.astra import client as astra_requests
from late_interaction.stores.astra import store as astra
from late_interaction.stores.astra import writing as astra_writing
from late_interaction.stores.astra.ann import put_together
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.filters import push_down
from late_interaction.stores.astra.schema import CATALOGUE, fields_of, index_differences, type_names
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Fault, run_in_thread

FILTERABLE = {"year": int, "lang": str}


@pytest.fixture
async def server() -> AsyncIterator[DataApiServer]:
    async with DataApiServer() as running:
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries without the waits."""
    monkeypatch.setattr(astra_requests, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(astra_requests, "_LONGEST_WAIT_S", 0.005)


def pipeline_on(server: DataApiServer, name: str = "things", **options) -> LateInteractionPipeline:
    store = {
        key: options.pop(key)
        for key in ("timeout_s", "retries", "concurrency", "filterable")
        if key in options
    }
    return LateInteractionPipeline(
        AstraStore(server.async_database(), name, **store), HashModel(), **{"doc_pool_factor": 1, **options}
    )


def rows(n: int, version: str = "old", n_words: int = 4) -> list[dict]:
    return [
        {
            "doc_id": f"d{i}",
            "content": " ".join(f"{version}{i}x{j}" for j in range(n_words)),
            "year": i,
            "lang": version,
        }
        for i in range(n)
    ]


# --- the schema


async def test_it_creates_what_it_says_and_drops_exactly_that(server):
    database = server.async_database()
    await database.create_table("bystander", definition={"columns": {"id": "text"}, "primaryKey": "id"})
    pipeline = pipeline_on(server, filterable={**FILTERABLE, "tags": list[str], "author.name": str})
    await pipeline.initialize()
    tables = {table.name: table.definition for table in await database.list_tables()}
    assert set(tables) == {"bystander", "things_docs", "things_tokens", CATALOGUE}
    assert tables["things_tokens"].columns["token_embedding"].dimension == 32
    names = set(await database.get_table("things_tokens").list_index_names())
    fields = ("year", "lang", "tags", "author_name")
    assert names == {"things_tokens_ann", *(f"things_tokens_meta_{name}" for name in fields)}
    other = pipeline_on(server, "other")
    await other.initialize()
    await pipeline.drop()
    assert set(await database.list_table_names()) == {"bystander", "other_docs", "other_tokens", CATALOGUE}
    await other.drop()
    assert await database.list_table_names() == ["bystander"]
    await other.drop()


async def test_attaching_takes_four_requests_and_writes_nothing(server):
    await pipeline_on(server).initialize()
    server.log.clear()
    again = pipeline_on(server)
    await again.initialize()
    assert server.log.commands == {"listTables": 1, "find": 1, "listIndexes": 2}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("metric", "index things_tokens_ann"),
        ("missing index", "index things_tokens_meta_year"),
        ("dimension", "column token_embedding"),
        ("key", "primary key"),
        ("type", "column meta_year"),
    ],
)
async def test_definitions_are_read_and_compared(server, spoil, named):
    await pipeline_on(server, filterable=FILTERABLE).initialize()
    database = server.async_database()
    tokens = database.get_table("things_tokens")
    if spoil == "missing index":
        await database.drop_table_index("things_tokens_meta_year")
    elif spoil == "metric":
        await database.drop_table_index("things_tokens_ann")
        await tokens.create_vector_index(
            "things_tokens_ann", column="token_embedding", options={"metric": "cosine"}
        )
    else:
        await database.drop_table("things_tokens")
        columns = {
            "doc_id": "text",
            "token_id": "int",
            "token_embedding": {"type": "vector", "dimension": 16 if spoil == "dimension" else 32},
            "generation": "bigint",
            "meta_year": "text" if spoil == "type" else "bigint",
            "meta_lang": "text",
        }
        key = ["token_id"] if spoil == "key" else ["doc_id"]
        sort = {} if spoil == "key" else {"token_id": 1}
        await database.create_table(
            "things_tokens",
            definition={"columns": columns, "primaryKey": {"partitionBy": key, "partitionSort": sort}},
        )
    with pytest.raises(IndexMismatchError, match=named):
        await pipeline_on(server, filterable=FILTERABLE).initialize()
    health = await diagnose(AstraStore(server.async_database(), "things"))
    assert any(named in name for name in health.differences)
    assert not health.healthy


def test_an_index_that_folds_letters_is_another():
    wanted = {"i": {"column": "meta_lang"}}
    plain = {"ascii": False, "caseSensitive": True, "normalize": False}
    assert index_differences("t", {"i": {"column": "meta_lang", "options": plain}}, wanted) == {}
    for name, value in plain.items():
        found = {"i": {"column": "meta_lang", "options": {**plain, name: not value}}}
        assert list(index_differences("t", found, wanted)) == ["index i on t"]


async def test_the_declaration_is_part_of_the_index(server):
    await pipeline_on(server, filterable=FILTERABLE).initialize()
    undeclared = pipeline_on(server)
    await undeclared.initialize()
    assert (await undeclared.store.info())["filterable"] == {"year": "int", "lang": "str"}
    with pytest.raises(
        IndexMismatchError, match=r"filterable: the index has .*'year'.*, this pipeline has \{\}"
    ):
        await pipeline_on(server, filterable={}).initialize()


async def test_a_creation_that_broke_off_is_completed(server):
    for n in range(1, 9):
        server.settings.faults = [CutAfter(n)]
        with pytest.raises(StoreError):
            await pipeline_on(server, f"t{n}", retries=0, filterable=FILTERABLE).initialize()
        server.settings.faults = []
        pipeline = pipeline_on(server, f"t{n}", filterable=FILTERABLE)
        await pipeline.initialize()
        await pipeline.index_documents(rows(3))
        assert ids(await pipeline.search("old1x1", k=1)) == ["d1"]


async def test_documents_of_an_unknown_model_are_not_taken_over(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    await server.async_database().drop_table(CATALOGUE)
    with pytest.raises(StoreError, match="does not say what they were encoded with"):
        await pipeline_on(server).initialize()


@pytest.mark.parametrize("name", ["", "a-b", "é", "x" * 42, "a b"])
def test_names_that_no_table_may_have(name):
    database = DataAPIClient("t", environment="hcd").get_async_database("http://localhost:1", keyspace="k")
    with pytest.raises(ValueError, match="1 to 41 ASCII letters"):
        AstraStore(database, name)


async def test_the_longest_names_are_taken(server):
    declared = {"y" * 42 + str(i): int for i in range(9)}
    async with pipeline_on(server, "x" * 41, filterable=declared) as pipeline:
        assert len(await pipeline.store.requests.indexes("x" * 41 + "_tokens")) == 10


@pytest.mark.parametrize(
    ("database", "options", "error", "message"),
    [
        ("a folder", {}, TypeError, "database must be one of astrapy.*not str"),
        (DataAPIClient("AstraCS:secret"), {}, TypeError, "not DataAPIClient"),
        (None, {"name": 5}, TypeError, "name is a str, not 5"),
        (None, {"timeout_s": 0}, ValueError, "timeout_s must be above 0"),
        (None, {"timeout_s": float("inf")}, ValueError, "finite"),
        (None, {"retries": -1}, ValueError, "retries must not be negative"),
        (None, {"concurrency": 0}, ValueError, "concurrency must be at least 1"),
    ],
)
def test_what_no_store_can_be_made_of(database, options, error, message):
    good = DataAPIClient("t", environment="hcd").get_async_database("http://localhost:1", keyspace="k")
    with pytest.raises(error, match=message):
        AstraStore(database or good, **options)


@pytest.mark.parametrize(
    ("declaration", "error", "message"),
    [
        ({"a": bytes}, ValueError, "cannot be declared"),
        ({"a": list[int]}, ValueError, "cannot be declared"),
        ({str(i): int for i in range(10)}, ValueError, "9 can be"),
        ({"a.b": int, "a b": int}, ValueError, "share the column meta_a_b"),
        ({"x" * 44: int}, ValueError, "43 characters"),
        ({1: int}, TypeError, "a field's name is a str"),
        (["year"], TypeError, "a mapping"),
    ],
)
def test_declarations_that_cannot_be(tmp_path, declaration, error, message):
    with pytest.raises(error, match=message):
        LateInteractionPipeline(tmp_path, HashModel(), filterable=declaration)


# --- who calls, from which loop, with which secrets


async def test_callers_carry_our_name(server):
    client = DataAPIClient(server.token, environment="hcd", callers=[("app", "1")])
    database = client.get_async_database(server.endpoint, keyspace=server.keyspace)
    await LateInteractionPipeline(database, HashModel()).initialize()
    assert all(r.user_agent.startswith("app/1 late-interaction/0.") for r in server.log.requests)


def test_a_sync_database_is_taken_too():
    with run_in_thread() as server, SyncPipeline(server.database(), HashModel(), "sync") as pipeline:
        pipeline.index_documents(rows(3))
        assert ids(pipeline.search("old2x1", k=1)) == ["d2"]


@pytest.mark.parametrize("engine", ["folder", "astra"])
def test_an_index_that_was_built_otherwise_can_be_dropped_through_a_connection(engine, tmp_path):
    with run_in_thread() as server:
        database = tmp_path if engine == "folder" else server.database()
        with SyncPipeline(database, HashModel(), "things") as pipeline:
            pipeline.index_documents(rows(3))
        connection = Connection(SyncPipeline(database, HashModel(name="another"), "things"))
        with pytest.raises(IndexMismatchError, match="drop it"):
            connection.run(lambda opened: opened.count())
        connection.drop()
        if engine == "astra":
            assert server.database().list_table_names() == []
        assert connection.run(lambda opened: opened.count()) == 0
        connection.drop()
        connection.drop()
        connection.close()


def test_each_loop_after_another_but_not_beside_it():
    with run_in_thread() as server:
        pipeline = LateInteractionPipeline(server.async_database(), HashModel(), "loops")
        asyncio.run(pipeline.initialize())
        asyncio.run(pipeline.index_documents(rows(3)))
        assert asyncio.run(pipeline.count()) == 3

        async def beside() -> None:
            await pipeline.count()
            await asyncio.to_thread(asyncio.run, pipeline.count())

        with pytest.raises(StoreError, match=r"another event loop.*SyncPipeline"):
            asyncio.run(beside())


@pytest.mark.parametrize("token", ["AstraCS:very-secret", "AstraCS:very-secret\nx", "AstraCS:very-secrét"])
async def test_secrets_stay_out_of_errors_and_logs(server, caplog, token):
    caplog.set_level(logging.DEBUG, "late_interaction")
    database = DataAPIClient(token, environment="hcd").get_async_database(
        server.endpoint, keyspace=server.keyspace
    )
    pipeline = LateInteractionPipeline(database, HashModel())
    with pytest.raises(StoreError, match="token") as raised:
        await pipeline.initialize()
    error: BaseException | None = raised.value
    while error is not None:
        assert "secr" not in f"{error} {error!r}"
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    assert "secr" not in caplog.text + repr(pipeline) + pipeline.store.location
    assert len(server.log.requests) <= 1


async def test_environments_and_token_providers(server, monkeypatch):
    provider = UsernamePasswordTokenProvider("cassandra", "pa55word")
    server.token = provider.get_token()
    for environment in ("hcd", "dse", "cassandra", "prod"):
        client = DataAPIClient(provider, environment=environment)
        database = client.get_async_database(server.endpoint, keyspace=server.keyspace)
        async with LateInteractionPipeline(database, HashModel(), environment) as pipeline:
            await pipeline.index_documents(rows(2))
            assert "pa55word" not in repr(pipeline)
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", server.endpoint)
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", server.keyspace)
    store = AstraStore.from_environment("hcd")
    assert (await store.spec()).dim == 32
    await store.close()
    monkeypatch.setenv("ASTRA_DB_ENVIRONMENT", "prod")
    store = AstraStore.from_environment("prod")
    assert (await store.spec()).dim == 32
    await store.close()
    monkeypatch.delenv("ASTRA_DB_API_ENDPOINT")
    with pytest.raises(StoreError, match="ASTRA_DB_API_ENDPOINT"):
        AstraStore.from_environment("hcd")


@pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 12), reason="astrapy keeps no connection open on this Python"
)
async def test_closing_closes_the_connections(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    http = server._runner.server
    assert len(http.connections) > 0
    await pipeline.aclose()
    await asyncio.sleep(0.1)
    assert len(http.connections) == 0
    await pipeline.initialize()
    assert await pipeline.count() == 3


async def test_nobody_there_is_a_clear_error(quick):
    database = DataAPIClient("t", environment="hcd").get_async_database("http://127.0.0.1:9", keyspace="k")
    store = AstraStore(database, "x", retries=1)
    with pytest.raises(
        StoreError, match=r"listTables at 127.0.0.1:9 failed \(2 attempts\): the connection failed"
    ):
        await LateInteractionPipeline(store, HashModel()).initialize()
    await store.close()


# --- requests


async def test_requests_keep_within_the_limits(server, monkeypatch):
    monkeypatch.setattr(astra_writing, "REQUEST_BYTES", 4000)
    pipeline = pipeline_on(server, concurrency=7)
    await pipeline.initialize()
    server.settings.latency_ms = 40
    server.log.clear()
    await pipeline.index_documents(rows(60, n_words=30))
    await pipeline.search_many([row["content"] for row in rows(10)], k=3)
    assert 2 < server.log.max_in_flight <= 7
    assert max(r.bytes_in for r in server.log.select("insertMany", "things_tokens")) < 2 * 4000
    assert server.log.rows_written == 60 * 31


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


@pytest.mark.parametrize("action", ["http_error", "reset", "malformed_json", "error_envelope", "hang"])
@pytest.mark.parametrize("applied", [False, True])
async def test_what_is_lost_is_tried_again(server, quick, action, applied):
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


async def test_a_partial_insert_is_completed(server, quick):
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


async def test_what_the_database_refuses_is_not_asked_twice(server, quick):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.settings.faults = [Fault("error_envelope", command="find", error_code="INVALID_DATABASE_QUERY")]
    server.log.clear()
    with pytest.raises(StoreError, match="INVALID_DATABASE_QUERY"):
        await pipeline.count()
    assert server.log.count("find") == 1


async def test_retries_end_and_say_how_often(server, quick):
    pipeline = pipeline_on(server, retries=3)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="find", status=503)]
    server.log.clear()
    with pytest.raises(StoreError, match=r"find things_docs at .* failed \(4 attempts\): HTTP 503"):
        await pipeline.count()
    assert server.log.count("find") == 4


async def test_waits_are_random_and_the_longest_possible_one_doubles(server, monkeypatch, caplog):
    caplog.set_level(logging.INFO, astra_requests.__name__)
    monkeypatch.setattr(astra_requests, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(astra_requests, "_LONGEST_WAIT_S", 0.08)
    longest = []
    monkeypatch.setattr(
        astra_requests.random, "uniform", lambda low, high: longest.append((low, high)) or high / 2
    )
    pipeline = pipeline_on(server, retries=4)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="find", status=429)]
    with pytest.raises(StoreError, match="HTTP 429"):
        await pipeline.count()
    assert longest == [(0, 0.02), (0, 0.04), (0, 0.08), (0, 0.08)]
    told = [record.getMessage() for record in caplog.records if "again in" in record.getMessage()]
    assert [line.rpartition("again in ")[2] for line in told] == ["0.01 s.", "0.02 s.", "0.04 s.", "0.04 s."]


@pytest.mark.parametrize("answer", ["{}", "[]", "null", '{"message": "not here"}', '{"data": {}}', "hello"])
async def test_what_is_no_data_api_is_named(quick, answer):
    """A wrong endpoint may answer anything, with HTTP 200."""

    async def answering(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", answering)
    async with TestServer(app) as other:
        database = DataAPIClient("t", environment="hcd").get_async_database(
            str(other.make_url("")).rstrip("/"), keyspace="k"
        )
        store = AstraStore(database, "x", retries=1)
        with pytest.raises(StoreError, match=r"\(2 attempts\): the answer is not one of the Data API"):
            await store.spec()
        with pytest.raises(StoreError, match="the answer is not one of the Data API"):
            await store.requests.command("x_tokens", {"deleteMany": {"filter": {}}})
        await store.close()


async def test_matrices_are_read_in_groups_of_about_so_many_bytes(server, monkeypatch):
    monkeypatch.setattr(astra, "READ_BYTES", 10_000)
    pipeline = pipeline_on(server, packing="float32")
    await pipeline.initialize()
    await pipeline.index_documents(rows(60, n_words=10))
    doc_ids = [f"d{i}" for i in range(60)]
    assert len(await pipeline.get_matrices(doc_ids)) == 60
    server.log.clear()
    assert len(await pipeline.get_matrices(doc_ids)) == 60
    reads = server.log.select("find", "things_docs")
    assert len(reads) > 5
    assert max(request.bytes_out for request in reads) < 1.5 * 10_000


async def test_a_failed_search_leaves_nothing_running(server, quick):
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


# --- accounting


async def test_a_document_that_the_service_refuses_is_named_and_the_others_are_written(server, quick):
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


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize(("table", "nth"), [("things_tokens", 5), ("things_docs", 1), ("things_docs", 2)])
async def test_after_an_outage_it_is_known_what_is_in(server, quick, monkeypatch, table, nth, applied):
    monkeypatch.setattr(astra_writing, "TOKEN_ROWS", 20)
    pipeline = pipeline_on(server, retries=0, concurrency=1)
    await pipeline.initialize()
    await pipeline.index_documents(rows(10))
    server.settings.faults = [
        Fault("http_error", command="insertMany", table=table, nth=nth, applied=applied)
    ]
    with pytest.raises(StoreWriteError) as raised:
        await pipeline.index_documents([*rows(10), *rows(50, "new")[10:]], batch_size=50)
    error = raised.value
    generation = {d.doc_id: d.metadata["lang"] for d in await pipeline.find()}
    assert {*error.written, *error.unwritten} == {f"d{i}" for i in range(50)}
    assert error.unknown == []
    new = {doc_id for doc_id, lang in generation.items() if lang == "new"}
    assert {doc_id for doc_id in error.written if int(doc_id[1:]) >= 10} == new
    assert set(error.indexed) == set(error.written)
    server.settings.faults = []
    await pipeline.index_documents([*rows(10), *rows(50, "new")[10:]])
    assert await pipeline.count() == 50
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


async def test_what_cannot_be_known_is_called_unknown(server, quick):
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


async def test_earlier_batches_count_as_indexed(server, quick):
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    server.settings.faults = [Fault("http_error", command="insertMany", table="things_docs", nth=3)]
    with pytest.raises(StoreWriteError) as raised:
        await pipeline.index_documents(rows(40), batch_size=10)
    assert raised.value.indexed == [f"d{i}" for i in range(20)]
    assert {d.doc_id for d in await pipeline.find()} == set(raised.value.indexed)


async def test_chaos_ends_in_the_right_index(server, quick):
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


# --- crashes


@dataclass
class CutAfter(Fault):
    """From a number of requests on, no request is answered; the first of them may still be applied."""

    after: int = 0
    seen: int = field(default=0, init=False)
    cut: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __init__(self, after: int, action="http_error", applied: bool = False) -> None:
        super().__init__(action, applied=applied)
        self.after, self.seen, self.cut = after, 0, asyncio.Event()

    def fires(self, command, table, random) -> bool:
        self.seen += 1
        if self.seen <= self.after:
            return False
        if self.seen > self.after + 1:
            self.applied = False
        self.cut.set()
        return True


@dataclass
class Down(Fault):
    """One command fails after the first few."""

    def __init__(self, command: str, after: int) -> None:
        super().__init__("http_error", command=command)
        self.after = after

    def fires(self, command, table, random) -> bool:
        if command != self.command:
            return False
        self.matched += 1
        return self.matched > self.after


OPERATIONS = {
    "replace by fewer": lambda p: p.index_documents(rows(3, "new", n_words=3)),
    "replace by more": lambda p: p.index_documents(rows(3, "new", n_words=9)),
    "add": lambda p: p.index_documents([{**row, "doc_id": f"e{row['doc_id']}"} for row in rows(3, "new")]),
    "delete": lambda p: p.delete_documents([f"d{i}" for i in range(3)]),
    "update": lambda p: p.update_metadata("d2", {"year": 500, "lang": "new"}),
    "clear": lambda p: p.clear(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_crash_between_any_two_requests_leaves_the_index_right(server, monkeypatch, operation):
    monkeypatch.setattr(astra_writing, "TOKEN_ROWS", 10)
    monkeypatch.setattr(astra, "TOKEN_ROWS", 10)
    n = 0
    while True:
        applied = n % 2 == 1
        pipeline = pipeline_on(server, f"i{n}", filterable=FILTERABLE, concurrency=2)
        await pipeline.initialize()
        await pipeline.index_documents(rows(4))
        cut = CutAfter(n // 2, "hang", applied)
        server.settings.faults = [cut]
        work = asyncio.ensure_future(OPERATIONS[operation](pipeline))
        crash = asyncio.ensure_future(cut.cut.wait())
        await asyncio.wait([work, crash], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, crash):
            task.cancel()
        await asyncio.gather(work, crash, return_exceptions=True)
        server.settings.faults = []
        finished = not cut.cut.is_set()
        survivor = pipeline_on(server, f"i{n}")
        await survivor.initialize()
        await _check_whole(survivor)
        health = await diagnose(survivor.store, full=True, repair=True, older_than_s=0)
        assert health.healthy
        await _check_whole(survivor)
        after = await diagnose(survivor.store, full=True, older_than_s=0)
        assert after.healthy
        assert after.documents == len(await survivor.find())
        assert after.found_first == after.sampled == after.documents
        await survivor.drop()
        await pipeline.aclose()
        if finished:
            assert n > 2
            return
        n += 1


async def _check_whole(pipeline: LateInteractionPipeline) -> None:
    """Every document is one version or the other, and its score is that version's."""
    documents = {d.doc_id: d for d in await pipeline.find()}
    assert await pipeline.count() == len(documents)
    matrices = await pipeline.get_matrices(list(documents))
    for doc_id, document in documents.items():
        words = document.content.split()
        expected = np.stack([pipeline.model.word(word) for word in words])
        np.testing.assert_allclose(matrices[doc_id], expected, atol=0.02)
    for document in list(documents.values())[:3]:
        results = await pipeline.search(document.content, k=20)
        assert set(ids(results)) <= set(documents)
        for result in results:
            assert result.content == documents[result.doc_id].content
            assert result.metadata == documents[result.doc_id].metadata
        n_words = len(document.content.split())
        scores = {result.doc_id: result.score for result in results}
        assert scores.get(document.doc_id, n_words) == pytest.approx(n_words, abs=0.1)
        filtered = await pipeline.search(document.content, k=20, filter={"lang": "new"})
        assert all(result.metadata["lang"] == "new" for result in filtered)


async def test_a_document_comes_after_its_tokens_and_goes_before_them(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.log.clear()
    await pipeline.index_documents(rows(3, n_words=40))
    await pipeline.delete_documents(["d0", "d1"])
    await pipeline.clear()
    writes = [(r.command, r.table) for r in server.log.requests if r.command != "find"]
    assert list(dict.fromkeys(writes[:-2])) == [
        ("insertMany", "things_tokens"),
        ("insertMany", "things_docs"),
        ("deleteOne", "things_docs"),
        ("deleteMany", "things_tokens"),
    ]
    assert writes[-2:] == [("deleteMany", "things_docs"), ("deleteMany", "things_tokens")]


async def test_tokens_of_an_interrupted_write_are_found_by_nobody(server):
    """A candidate without a document is no result, and a document's own vectors decide its score."""
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    server.settings.faults = [Fault("http_error", command="insertMany", table="things_docs")]
    with pytest.raises(StoreWriteError):
        await pipeline.index_documents(
            [{"doc_id": "ghost", "content": "boo"}, {"doc_id": "d1", "content": "boo"}]
        )
    server.settings.faults = []
    results = await pipeline.search("boo", k=5)
    assert set(ids(results)) == {"d0", "d1", "d2"}
    assert max(r.score for r in results) < 0.9
    for seed in range(8):
        for full in (True, False):
            young = await diagnose(pipeline.store, full=full, seed=seed)
            assert young.leftovers == 0
    health = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert (health.orphans, health.stale) == (["ghost"], ["d1"])


# --- bounds


async def test_certain_means_certain_however_little_was_looked_at(server):
    """Wherever `certain` is reported, the top k is the exact one; on this data it is reported now and then."""
    pipeline = pipeline_on(server, query_pool_distance=0, packing="float32")
    await pipeline.initialize()
    rng = np.random.default_rng(0)
    documents = [
        {"doc_id": str(i), "content": " ".join(f"w{j}" for j in rng.integers(0, 40, 6))} for i in range(150)
    ]
    await pipeline.index_documents(documents)
    verdicts = []
    for seed in range(40):
        query = " ".join(f"w{j}" for j in np.random.default_rng(seed).integers(0, 40, 3))
        k = 1 + seed % 5
        results = await pipeline.search(query, k=k, n_ann_tokens=20 + 10 * (seed % 4), n_maxsim_candidates=10)
        exact = await pipeline.search(query, k=k, exact=True)
        assert exact.stats.certain
        verdicts.append(results.stats.certain)
        if results.stats.certain:
            np.testing.assert_allclose([r.score for r in results], [r.score for r in exact], atol=1e-4)
    assert 5 < sum(verdicts) < 40


async def test_a_deeper_search_scores_every_candidate_before_it_is_certain(server):
    """The best document is in one list at first, and in no way like the candidates scored before it."""
    rng = np.random.default_rng(0)

    def token(axis: int, cosine: float) -> np.ndarray:
        rest = rng.normal(size=12)
        return np.concatenate(
            [np.eye(4)[axis] * cosine, rest * np.sqrt(1 - cosine**2) / np.linalg.norm(rest)]
        )

    matrices = [[token(0, 0.9)] for _ in range(200)]
    matrices += [[token(axis, 0.26)] for axis in (1, 2, 3) for _ in range(500)]
    matrices += [[token(0, 0.8), *(token(axis, 0.25) for axis in (1, 2, 3))]]
    pipeline = LateInteractionPipeline(
        server.async_database(),
        PrecomputedEmbeddings(16, "x"),
        doc_pool_factor=1,
        query_pool_distance=0,
        packing="float32",
    )
    await pipeline.initialize()
    await pipeline.index_embeddings(
        [{"doc_id": str(i), "content": "x"} for i in range(len(matrices))],
        [np.array(matrix, np.float32) for matrix in matrices],
    )
    results = await pipeline.search_with_embeddings(np.eye(16, dtype=np.float32)[:4], k=1, exact=True)
    assert results.stats.certain
    assert (ids(results), results[0].score) == (["1700"], pytest.approx(1.55, abs=1e-3))


def test_bounds_hold_for_any_lists():
    rng = np.random.default_rng(1)
    for _ in range(50):
        n_docs, n_vectors, limit = 30, 4, 12
        tokens = rng.normal(size=(90, 8))
        tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        owner = rng.integers(0, n_docs, 90)
        queries = rng.normal(size=(n_vectors, 8))
        queries /= np.linalg.norm(queries, axis=1, keepdims=True)
        weights = rng.uniform(0.5, 3, n_vectors).astype(np.float32)
        cosines = queries @ tokens.T
        lists = []
        for row in cosines:
            best = np.argsort(-row)[:limit]
            lists.append([{"doc_id": str(owner[j]), "$similarity": (1 + row[j]) / 2} for j in best])
        found = put_together(lists, weights, limit)
        scores = {
            str(d): float(weights @ cosines[:, owner == d].max(axis=1))
            for d in range(n_docs)
            if (owner == d).any()
        }
        for doc_id, bound in zip(found.doc_ids, found.bounds, strict=True):
            assert scores[doc_id] <= bound
        unseen = [score for doc_id, score in scores.items() if doc_id not in found.doc_ids]
        assert max(unseen, default=-np.inf) <= found.unseen == found.bound(len(found.doc_ids))
        assert found.bound(3) >= max((scores[d] for d in found.doc_ids[3:]), default=-np.inf)
        assert put_together(lists, weights, limit + 1).unseen == -np.inf


async def test_a_poor_vector_index_is_noticed(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(120))
    healthy = await diagnose(pipeline.store, sample=100, seed=0)
    assert (healthy.recall, healthy.healthy, healthy.sampled) == (1.0, True, 100)
    server.settings.ann_recall_loss = 0.35
    sick = await diagnose(pipeline.store, sample=100, seed=0)
    assert 0.4 < sick.recall < 0.9
    assert not sick.healthy
    assert sick.leftovers == 0


async def test_what_ann_does_not_see_yet_is_there_for_everything_else(server):
    server.settings.ann_delay_s = float("inf")
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(5))
    assert await pipeline.count() == 5
    assert await pipeline.search("old1x1") == []
    server.release_ann()
    assert ids(await pipeline.search("old1x1", k=1)) == ["d1"]


# --- filters


async def test_an_undeclared_filter_is_applied_and_logged_once(server, caplog):
    pipeline = pipeline_on(server, filterable={"lang": str})
    await pipeline.initialize()
    await pipeline.index_documents(rows(30))
    for _ in range(3):
        results = await pipeline.search("old1x1", k=3, filter={"year": {"$gte": 20}, "lang": "old"})
        assert all(result.metadata["year"] >= 20 for result in results)
        assert len(results) == 3
    told = [record.message for record in caplog.records if "filterable" in record.message]
    assert len(told) == 1
    assert "'year'" in told[0]


async def test_a_declared_filter_goes_into_the_ann_query(server):
    pipeline = pipeline_on(server, filterable=FILTERABLE)
    await pipeline.initialize()
    await pipeline.index_documents(
        [*rows(300), {"doc_id": "x", "content": "needle", "lang": "rare", "year": -5}]
    )
    server.log.clear()
    results = await pipeline.search("old1x1", k=5, filter={"lang": "rare", "year": {"$lt": 0}})
    assert ids(results) == ["x"]
    assert results.stats.certain
    assert results.stats.escalations == 0
    assert server.log.select("find", "things_tokens")[0].body["filter"] == {
        "$and": [{"meta_lang": "rare"}, {"meta_year": {"$lt": 0}}]
    }
    server.log.clear()
    assert await pipeline.search("old1x1", filter={"year": "no number"}) == []
    assert server.log.requests == []


def test_what_is_pushed_down_finds_all_that_match_and_exactly_those_where_it_says_so():
    declared = fields_of(
        type_names({"i": int, "f": float, "s": str, "b": bool, "l": list[str], "t": "datetime"})
    )
    dates = [
        "2024-01-31",
        "2024-02-01T00:00:00Z",
        "2024-01-31T23:30:00-05:00",
        "2024-02-01 03:00",
        "2023-12-31T24:00"[:10],
    ]
    values = {
        "i": [0, 1, -7, 2**40, None],
        "f": [0.0, -0.0, 1, 2.5, -1e300, None],
        "s": ["", "a", "b", "é", "\U0001f600", None],
        "b": [True, False, None],
        "l": [[], ["a"], ["a", "b"], ["b", "c"], None],
        "t": [*dates, None],
    }
    operands = [0, 1, 1.0, 2.5, -7, 2**70, 1e308, True, "a", "b", "", "2024-02-01", *dates, ["a"], ["a", "b"]]
    server_side = {name: [declared[name].cell({name: value}) for value in values[name]] for name in values}
    checked = 0
    for name, stored in values.items():
        for op in ("$eq", "$ne", "$in", "$nin", "$gt", "$gte", "$lt", "$lte"):
            for operand in operands:
                if op in ("$gt", "$gte", "$lt", "$lte") and isinstance(operand, bool | list):
                    continue
                wrapped = [operand, "zz"] if op in ("$in", "$nin") else operand
                parsed = parse_filter({name: {op: wrapped}})
                pushed = push_down(parsed, declared)
                for value, cell in zip(stored, server_side[name], strict=True):
                    wanted = matches(parsed, {name: value})
                    asked = not pushed.never and (
                        pushed.where is None or _cql(pushed.where, declared[name].column, cell)
                    )
                    assert asked or not wanted, (name, op, operand, value)
                    if pushed.exact:
                        assert asked == wanted, (name, op, operand, value)
                        checked += 1
    assert checked > 300


def _cql(where: dict, column: str, cell: object) -> bool:
    """What the database does with one column: null satisfies nothing."""
    condition = where[column]
    if not isinstance(condition, dict):
        condition = {"$eq": condition}
    return cell is not None and all(_holds(op, cell, operand) for op, operand in condition.items())


def _holds(op: str, cell, operand) -> bool:
    if op == "$in":
        return any(c in operand for c in cell) if isinstance(cell, list) else cell in operand
    compare = {"$eq": "eq", "$gt": "gt", "$gte": "ge", "$lt": "lt", "$lte": "le"}[op]
    return getattr(operator, compare)(cell, operand)


# --- the doctor


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
    await docs.update_one({"doc_id": "d1"}, {"$set": {"metadata": "{}"}})
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
