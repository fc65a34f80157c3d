"""Requests as such: authentication, bodies, the log."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from astrapy import AsyncDatabase, AsyncTable, DataAPIClient
from astrapy.exceptions import (
    DataAPIHttpException,
)

from tools.data_api import DataApiServer, Request
from tools.data_api.tests.helpers import (
    DIM,
    fails,
    raw,
    rows,
)


async def test_commands_of_collections_are_unknown_to_tables(
    tokens: AsyncTable[Any], database: AsyncDatabase
) -> None:
    assert await fails(tokens.count_documents({}, upper_bound=10)) == "UNSUPPORTED_TABLE_COMMAND"
    assert await fails(tokens.estimated_document_count()) == "UNSUPPORTED_TABLE_COMMAND"
    assert await fails(raw(tokens, "dance", {})) == "COMMAND_UNKNOWN"
    assert await fails(database.command({"createCollection": {"name": "c"}})) == "COMMAND_UNKNOWN"
    assert await fails(database.command({"find": {}})) == "COMMAND_UNKNOWN"
    assert await fails(raw(tokens, "find", [])) == "REQUEST_STRUCTURE_MISMATCH"  # type: ignore[arg-type]


async def test_only_the_token_opens(server: DataApiServer) -> None:
    stranger = DataAPIClient("wrong", environment="hcd").get_async_database(
        server.endpoint, keyspace=server.keyspace
    )
    with pytest.raises(DataAPIHttpException) as caught:
        await stranger.list_table_names()
    assert caught.value.response.status_code == 401
    assert caught.value.error_descriptors[0].error_code == "UNAUTHENTICATED_REQUEST"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("headers", "content", "status", "code"),
    [
        ({}, "{}", 401, "MISSING_AUTHENTICATION_TOKEN"),
        ({"Token": "local-token", "Content-Type": "text/plain"}, "{}", 415, "UNSUPPORTED_CONTENT_TYPE"),
        ({"Token": "local-token", "Content-Type": "application/json"}, "{", 200, "REQUEST_NOT_JSON"),
        (
            {"Token": "local-token", "Content-Type": "application/json"},
            '{"find": NaN}',
            200,
            "REQUEST_NOT_JSON",
        ),
        (
            {"Token": "local-token", "Content-Type": "application/json"},
            "{}",
            200,
            "REQUEST_STRUCTURE_MISMATCH",
        ),
    ],
)
async def test_requests_that_are_none(
    server: DataApiServer, headers: dict[str, str], content: str, status: int, code: str
) -> None:
    async with httpx.AsyncClient() as client:
        reply = await client.post(
            f"{server.endpoint}/v1/default_keyspace/t", content=content, headers=headers
        )
    assert reply.status_code == status
    assert [error["errorCode"] for error in reply.json()["errors"]] == [code]
    assert server.log.requests[-1].error_codes == [code]


async def test_the_log_counts(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    server.log.clear()
    await tokens.insert_many(rows(2, 60), chunk_size=100, concurrency=1)
    cursor = tokens.find({"doc_id": "d0"}, projection={"token_id": True})
    assert len([row async for row in cursor]) == 60
    await tokens.delete_many({"doc_id": "d1"})
    assert server.log.commands == {"insertMany": 2, "find": 2, "deleteMany": 1}
    assert server.log.count(table="tokens") == 5
    assert server.log.count(table="elsewhere") == 0
    assert (server.log.rows_read, server.log.rows_written) == (60, 180)
    first, second = server.log.select("find")
    assert first.body["projection"] == {"token_id": True}
    assert second.body["options"].keys() == {"pageState"}
    assert first.status == 200
    assert "astrapy/" in first.user_agent
    assert "documents" not in server.log.select("insertMany")[0].body
    body = {"deleteMany": {"filter": {"doc_id": "d1"}}}
    assert server.log.select("deleteMany")[0].bytes_in == len(json.dumps(body, separators=(",", ":")))
    assert server.log.bytes_out == sum(request.bytes_out for request in server.log.requests) > 0
    assert server.log.bytes_in > 120 * DIM * 4


async def test_requests_in_flight_are_counted(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    seven = asyncio.Event()

    async def hold(_: Request) -> None:
        if server.log.in_flight == 7:
            seven.set()
        await seven.wait()

    server.settings.hold = hold
    server.log.clear()
    await asyncio.gather(*(tokens.find_one({"doc_id": "a"}) for _ in range(7)))
    assert server.log.max_in_flight == 7
    assert server.log.in_flight == 0


@pytest.mark.parametrize("environment", ["prod", "hcd", "dse", "other"])
async def test_every_environment_of_astrapy_reaches_the_server(
    server: DataApiServer, environment: str
) -> None:
    database = server.async_database(environment=environment)
    await database.create_table("t", definition={"columns": {"k": "text"}, "primaryKey": "k"})
    assert await database.list_table_names() == ["t"]
