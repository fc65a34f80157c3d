"""Connections to Astra: callers, event loops, secrets, environments."""

from __future__ import annotations

import asyncio
import sys
import traceback

import pytest
from astrapy import DataAPIClient
from astrapy.authentication import UsernamePasswordTokenProvider

from late_interaction import (
    AstraStore,
    IndexMismatchError,
    LateInteractionPipeline,
    StoreError,
    SyncPipeline,
)
from tests.stores.astra import QUICK, pipeline_on, rows
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import run_in_thread


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
def test_an_index_that_was_built_otherwise_can_be_dropped(engine, tmp_path):
    with run_in_thread() as server:
        database = tmp_path if engine == "folder" else server.database()
        with SyncPipeline(database, HashModel(), "things") as pipeline:
            pipeline.index_documents(rows(3))
        other = SyncPipeline(database, HashModel(name="another"), "things")
        with pytest.raises(IndexMismatchError, match="drop it"):
            other.count()
        other.drop()
        if engine == "astra":
            assert server.database().list_table_names() == []
        assert other.count() == 0
        other.drop()
        other.drop()
        other.close()


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


@pytest.mark.parametrize("after", ["", "\n", "\nx", "é", "\0", " ", "\x7f"])
async def test_secrets_stay_out_of_errors_and_logs(server, caplog, after):
    caplog.set_level(1)  # of every library below us too
    database = DataAPIClient("AstraCS:very-secret" + after, environment="hcd").get_async_database(
        server.endpoint, keyspace=server.keyspace
    )
    pipeline = LateInteractionPipeline(database, HashModel())
    with pytest.raises(StoreError, match="token") as raised:
        await pipeline.initialize()
    error: BaseException | None = raised.value
    while error is not None:
        assert "secr" not in f"{error} {error!r}"
        error = error.__cause__ if error.__suppress_context__ else error.__context__
    ours = traceback.TracebackException(
        type(raised.value), raised.value, raised.tb.tb_next, capture_locals=True
    )
    assert "secr" not in "".join(ours.format())
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


async def test_nobody_there_is_a_clear_error():
    database = DataAPIClient("t", environment="hcd").get_async_database("http://127.0.0.1:9", keyspace="k")
    store = AstraStore(database, "x", retries=1, limits=QUICK)
    with pytest.raises(
        StoreError, match=r"listTables at 127.0.0.1:9 failed \(2 attempts\): the connection failed"
    ):
        await LateInteractionPipeline(store, HashModel()).initialize()
    await store.close()
