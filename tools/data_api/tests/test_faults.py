"""Faults by rule."""

import asyncio
from typing import Any

import httpx
import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.api_options import APIOptions, TimeoutOptions
from astrapy.exceptions import (
    DataAPIHttpException,
    DataAPITimeoutException,
    TableInsertManyException,
    UnexpectedDataAPIResponseException,
)

from tools.data_api import DataApiServer, Fault
from tools.data_api.tests.helpers import (
    fails,
    rows,
)


async def exists(table: AsyncTable[Any]) -> bool:
    return await table.find_one({"doc_id": "a", "token_id": 0}) is not None


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_fault_http_error(
    server: DataApiServer, tokens: AsyncTable[Any], status: int, applied: bool
) -> None:
    server.settings.faults.append(Fault("http_error", "insertOne", status=status, applied=applied))
    with pytest.raises(DataAPIHttpException) as caught:
        await tokens.insert_one({"doc_id": "a", "token_id": 0})
    assert caught.value.response.status_code == status
    assert server.log.requests[-1].fault == "http_error"
    assert await exists(tokens) == applied


@pytest.mark.slow
@pytest.mark.parametrize("applied", [False, True])
async def test_fault_hang(server: DataApiServer, tokens: AsyncTable[Any], applied: bool) -> None:
    server.settings.faults.append(Fault("hang", "insertOne", applied=applied))
    impatient = APIOptions(timeout_options=TimeoutOptions(request_timeout_ms=1000))
    table = server.async_database(api_options=impatient).get_table("tokens")
    with pytest.raises(DataAPITimeoutException):
        await table.insert_one({"doc_id": "a", "token_id": 0})
    assert await exists(tokens) == applied
    assert server.log.in_flight == 1  # still held


@pytest.mark.parametrize("applied", [False, True])
async def test_fault_reset(server: DataApiServer, tokens: AsyncTable[Any], applied: bool) -> None:
    server.settings.faults.append(Fault("reset", "insertOne", applied=applied))
    with pytest.raises(httpx.TransportError):
        await tokens.insert_one({"doc_id": "a", "token_id": 0})
    assert server.log.requests[-1].bytes_out > 0
    assert await exists(tokens) == applied


@pytest.mark.parametrize("applied", [False, True])
async def test_fault_malformed_json(server: DataApiServer, tokens: AsyncTable[Any], applied: bool) -> None:
    server.settings.faults.append(Fault("malformed_json", "insertOne", applied=applied))
    with pytest.raises(UnexpectedDataAPIResponseException, match="Unparseable"):
        await tokens.insert_one({"doc_id": "a", "token_id": 0})
    assert await exists(tokens) == applied


@pytest.mark.parametrize("applied", [False, True])
async def test_fault_error_envelope(server: DataApiServer, tokens: AsyncTable[Any], applied: bool) -> None:
    fault = Fault("error_envelope", "insertOne", error_code="TIMEOUT_WRITING_DATA", applied=applied)
    server.settings.faults.append(fault)
    assert await fails(tokens.insert_one({"doc_id": "a", "token_id": 0})) == "TIMEOUT_WRITING_DATA"
    assert server.log.requests[-1].error_codes == ["TIMEOUT_WRITING_DATA"]
    assert await exists(tokens) == applied


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
async def test_fault_partial_insert(
    server: DataApiServer, tokens: AsyncTable[Any], ordered: bool, applied: bool
) -> None:
    fault = Fault("partial_insert", "insertMany", failing_rows=(1, 3), times=1, applied=applied)
    server.settings.faults.append(fault)
    with pytest.raises(TableInsertManyException) as caught:
        await tokens.insert_many(rows(1, 5), ordered=ordered)
    reported = [0] if ordered else [0, 2, 4]
    assert [key["token_id"] for key in caught.value.inserted_ids] == reported
    written = sorted({*reported, *(([1] if ordered else [1, 3]) if applied else [])})
    assert [row["token_id"] async for row in tokens.find({"doc_id": "d0"})] == written
    await tokens.insert_many(rows(1, 5), ordered=ordered)
    assert len([row async for row in tokens.find({"doc_id": "d0"})]) == 5


async def test_rules_match_by_command_table_occurrence_and_times(
    server: DataApiServer, tokens: AsyncTable[Any], database: AsyncDatabase
) -> None:
    other = await database.create_table("other", definition={"columns": {"k": "text"}, "primaryKey": "k"})
    third = Fault("http_error", "findOne", "tokens", nth=3)
    twice = Fault("http_error", table="other", status=429, times=2)
    server.settings.faults += [third, twice]
    outcomes = []
    for table, key in [(tokens, "doc_id"), (other, "k")] * 4:
        try:
            await table.find_one({key: "a"})
            outcomes.append(200)
        except DataAPIHttpException as error:
            outcomes.append(error.response.status_code)
    assert outcomes == [200, 429, 200, 429, 503, 200, 200, 200]
    assert (third.matched, third.fired, twice.fired) == (4, 1, 2)


@pytest.mark.slow
async def test_rules_fire_with_their_probability(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    fault = Fault("error_envelope", "findOne", probability=0.25)
    server.settings.faults.append(fault)
    await asyncio.gather(*(tokens.find_one({"doc_id": "a"}) for _ in range(200)), return_exceptions=True)
    assert fault.matched == 200
    assert 25 < fault.fired < 75
