"""insertOne and insertMany."""

import datetime as dt
import uuid
from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.exceptions import (
    DataAPIHttpException,
    DataAPIResponseException,
    TableInsertManyException,
)

from tools.data_api import DataApiServer
from tools.data_api.tests.helpers import fails, raw, rows


async def test_inserts_are_upserts_in_which_each_column_keeps_its_last_value(tokens: AsyncTable[Any]) -> None:
    key = {"doc_id": "a", "token_id": 1}
    await tokens.insert_one(key | {"lang": "en", "year": 2001, "note": "first"})
    result = await tokens.insert_one(key | {"lang": "de", "note": None})
    assert result.inserted_id == key
    assert result.inserted_id_tuple == ("a", 1)
    projection = {"lang": True, "year": True, "note": True}
    assert await tokens.find_one(key, projection=projection) == {"lang": "de", "year": 2001, "note": None}
    assert [row["doc_id"] async for row in tokens.find({"lang": "en"})] == []
    assert [row["doc_id"] async for row in tokens.find({"lang": "de"})] == ["a"]


@pytest.mark.parametrize(
    ("document", "code"),
    [
        ({"doc_id": "a"}, "MISSING_PRIMARY_KEY_COLUMNS"),
        ({"doc_id": "a", "token_id": None}, "MISSING_PRIMARY_KEY_COLUMNS"),
        ({"doc_id": "a", "token_id": 0, "colour": "red"}, "UNKNOWN_TABLE_COLUMNS"),
        ({"doc_id": "", "token_id": 0}, "INVALID_DATABASE_QUERY"),
    ],
)
async def test_documents_that_do_not_fit_the_table(
    tokens: AsyncTable[Any], document: dict[str, Any], code: str
) -> None:
    assert await fails(tokens.insert_one(document)) == code


async def test_insert_many_in_chunks(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    result = await tokens.insert_many(rows(5, 50), chunk_size=100, concurrency=3)
    assert len(set(result.inserted_id_tuples)) == 250
    assert server.log.count("insertMany") == 3
    assert server.log.rows_written == 250


@pytest.mark.slow
async def test_insert_many_takes_a_hundred_documents_and_twenty_megabytes(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    with pytest.raises(TableInsertManyException) as caught:
        await tokens.insert_many(rows(1, 101), chunk_size=101)
    (problem,) = caught.value.exceptions
    assert isinstance(problem, DataAPIResponseException)
    assert problem.error_descriptors[0].error_code == "COMMAND_FIELD_VALUE_INVALID"
    assert await fails(raw(tokens, "insertMany", {"documents": []})) == "COMMAND_FIELD_VALUE_INVALID"
    big = {"doc_id": "a", "token_id": 0, "note": "x" * 20 * 1024 * 1024}
    with pytest.raises(DataAPIHttpException) as refused:
        await tokens.insert_one(big)
    assert refused.value.response.status_code == 413
    assert server.log.requests[-1].status == 413
    assert await tokens.find_one({}) is None
    # The engine takes 16 MB in one write; its refusal says, wrongly, that it is safe to retry.
    assert await fails(tokens.insert_one(big | {"note": "x" * 17 * 1024 * 1024})) == "FAILED_WRITE_REQUEST"
    await tokens.insert_one(big | {"note": "x" * 15 * 1024 * 1024})


@pytest.mark.parametrize(
    ("ordered", "statuses"),
    [
        (False, ["OK", "ERROR", "OK", "ERROR", "ERROR", "OK"]),
        (True, ["OK", "ERROR", "SKIPPED", "ERROR", "ERROR", "SKIPPED"]),
    ],
)
async def test_insert_many_fails_row_by_row(
    tokens: AsyncTable[Any], ordered: bool, statuses: list[str]
) -> None:
    good = {"doc_id": "a", "note": "x"}
    documents = [
        good | {"token_id": 0},
        {"doc_id": "a", "token_id": 1, "year": "?"},
        good | {"token_id": 2},
        {"doc_id": "a", "token_id": 3, "year": "?"},
        {"doc_id": "a"},
        good | {"token_id": 5},
    ]
    body = {"documents": documents, "options": {"ordered": ordered, "returnDocumentResponses": True}}
    reply = await tokens.command({"insertMany": body}, raise_api_errors=False)
    responses = reply["status"]["documentResponses"]
    assert [response["status"] for response in responses] == statuses
    assert [response.get("errorsIdx") for response in responses] == [None, 0, None, 0, 1, None]
    assert [error["errorCode"] for error in reply["errors"]] == [
        "INVALID_COLUMN_VALUES",
        "MISSING_PRIMARY_KEY_COLUMNS",
    ]
    assert reply["status"]["primaryKeySchema"] == {"doc_id": {"type": "text"}, "token_id": {"type": "int"}}
    written = [position for position, status in enumerate(statuses) if status == "OK"]
    assert [row["token_id"] async for row in tokens.find({"doc_id": "a"})] == written
    with pytest.raises(TableInsertManyException) as caught:
        await tokens.insert_many(documents, ordered=ordered, chunk_size=10)
    assert [key["token_id"] for key in caught.value.inserted_ids] == written


async def test_row_ids_are_typed_by_the_primary_key_schema(database: AsyncDatabase) -> None:
    definition = {
        "columns": {"b": "blob", "u": "uuid", "t": "timestamp"},
        "primaryKey": {"partitionBy": ["b", "u"], "partitionSort": {"t": -1}},
    }
    table = await database.create_table("t", definition=definition)
    moment = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    result = await table.insert_one({"b": b"\x00\x01", "u": uuid.UUID(int=1), "t": moment})
    assert result.inserted_id_tuple == (b"\x00\x01", uuid.UUID(int=1), moment)
    reply = await raw(
        table,
        "insertMany",
        {"documents": [{"b": {"$binary": "AAE="}, "u": str(uuid.UUID(int=2)), "t": "2026-01-02T00:00:00Z"}]},
    )
    assert reply["status"]["insertedIds"] == [["AAE=", str(uuid.UUID(int=2)), "2026-01-02T00:00:00Z"]]
