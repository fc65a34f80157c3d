"""Column types: what goes in and what comes out."""

import datetime as dt
import json
import math
import uuid
from decimal import Decimal
from typing import Any

import httpx
import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.data_types import DataAPIMap, DataAPIVector

from tools.data_api import DataApiServer
from tools.data_api.tests.helpers import fails, one_loop, raw, shared_fixture

EVERY_TYPE: dict[str, Any] = {
    "k": "text",
    "ascii": "ascii",
    "bigint": "bigint",
    "blob": "blob",
    "boolean": "boolean",
    "date": "date",
    "decimal": "decimal",
    "double": "double",
    "float": "float",
    "int": "int",
    "smallint": "smallint",
    "tinyint": "tinyint",
    "varint": "varint",
    "timestamp": "timestamp",
    "uuid": "uuid",
    "list": {"type": "list", "valueType": "int"},
    "set": {"type": "set", "valueType": "text"},
    "map": {"type": "map", "keyType": "text", "valueType": "int"},
    "pairs": {"type": "map", "keyType": "int", "valueType": "text"},
    "vector": {"type": "vector", "dimension": 2},
}


@pytest.fixture
async def typed(database: AsyncDatabase) -> AsyncTable[Any]:
    return await database.create_table("typed", definition={"columns": EVERY_TYPE, "primaryKey": "k"})


@shared_fixture
async def shared_typed(shared_database: AsyncDatabase) -> AsyncTable[Any]:
    return await shared_database.create_table("typed", definition={"columns": EVERY_TYPE, "primaryKey": "k"})


async def test_every_type_comes_back_as_it_went_in(typed: AsyncTable[Any]) -> None:
    row = {
        "k": "né ✓",
        "ascii": "plain",
        "bigint": -(2**63),
        "blob": bytes(range(256)),
        "boolean": False,
        "date": dt.date(2026, 1, 2),
        "decimal": Decimal("3.141592653589793238462643383279"),
        "double": 0.1,
        "float": 0.5,
        "int": 2**31 - 1,
        "smallint": -(2**15),
        "tinyint": 127,
        "varint": 10**40,
        "timestamp": dt.datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=dt.UTC),
        "uuid": uuid.UUID(int=7),
        "list": [3, 1, 3],
        "set": {"b", "a"},
        "map": {"b": 1, "a": 2},
        "pairs": {2: "b", 1: "a"},
        "vector": [0.25, -1.0],
    }
    as_sent = {"vector": DataAPIVector([0.25, -1.0]), "pairs": DataAPIMap({2: "b", 1: "a"})}
    await typed.insert_one(row | as_sent)
    assert await typed.find_one({"k": row["k"]}) == row
    wire = (await raw(typed, "findOne", {"filter": {}}))["data"]["document"]
    assert wire["timestamp"] == "2026-01-02T03:04:05.678Z"
    assert wire["set"] == ["a", "b"]
    assert wire["map"] == {"a": 2, "b": 1}
    assert wire["pairs"] == [[1, "a"], [2, "b"]]
    assert wire["blob"].keys() == {"$binary"}


async def test_floats_without_a_number_travel_as_strings(typed: AsyncTable[Any]) -> None:
    await typed.insert_one({"k": "a", "double": math.inf, "float": -math.inf})
    await typed.update_one({"k": "b"}, {"$set": {"double": math.nan}})
    assert await typed.find_one({"k": "a"}, projection={"double": True, "float": True}) == {
        "double": math.inf,
        "float": -math.inf,
    }
    row = await typed.find_one({"k": "b"})
    assert row is not None
    assert math.isnan(row["double"])


@one_loop
@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("ascii", "é"),
        ("bigint", 2**63),
        ("blob", "AAEC"),
        ("blob", {"$binary": "not base64!"}),
        ("boolean", 1),
        ("date", "2026-13-01"),
        ("decimal", "3"),
        ("double", "many"),
        ("float", True),
        ("int", 2**31),
        ("int", 1.5),
        ("int", "1"),
        ("smallint", 2**15),
        ("tinyint", -129),
        ("varint", 0.5),
        ("timestamp", "yesterday"),
        ("timestamp", "2026-01-02T03:04:05"),
        ("uuid", "123"),
        ("list", 1),
        ("list", ["x"]),
        ("list", [None]),
        ("set", {"a": 1}),
        ("map", {"a": "x"}),
        ("map", [["a"]]),
        ("map", {"a": None}),
        ("vector", [1.0]),
        ("vector", [1.0, "x"]),
        ("vector", {"$binary": "AAA="}),
        ("vector", {"$binary": "P4AAAA=="}),
    ],
)
async def test_values_that_a_type_does_not_allow(
    shared_typed: AsyncTable[Any], column: str, value: Any
) -> None:
    document = {"k": "a", column: value}
    assert await fails(raw(shared_typed, "insertOne", {"document": document})) == "INVALID_COLUMN_VALUES"
    update = {"filter": {"k": "a"}, "update": {"$set": {column: value}}}
    assert await fails(raw(shared_typed, "updateOne", update)) == "INVALID_UPDATE_COLUMN_VALUES"
    assert await shared_typed.find_one({}) is None


async def test_whole_numbers_may_be_written_with_a_fraction_of_zeros(typed: AsyncTable[Any]) -> None:
    async with httpx.AsyncClient() as client:
        body = '{"insertOne":{"document":{"k":"a","int":5.00,"bigint":1.23E+02}}}'
        url = typed.database.api_endpoint + "/v1/default_keyspace/typed"
        headers = {"Token": "local-token", "Content-Type": "application/json"}
        reply = await client.post(url, content=body, headers=headers)
    assert reply.json()["status"]["insertedIds"] == [["a"]]
    assert (await raw(typed, "findOne", {}))["data"]["document"] == {"k": "a", "int": 5, "bigint": 123}


async def test_vectors_go_in_as_numbers_or_binary_and_come_out_as_the_shortest_numbers(
    server: DataApiServer, typed: AsyncTable[Any]
) -> None:
    await typed.insert_one({"k": "numbers", "vector": [0.1, 0.2]})
    await typed.insert_one({"k": "binary", "vector": DataAPIVector([0.1, 0.2])})
    for key in ("numbers", "binary"):
        async with httpx.AsyncClient() as client:
            headers = {"Token": server.token, "Content-Type": "application/json"}
            body = json.dumps({"findOne": {"filter": {"k": key}, "projection": {"vector": True}}})
            reply = await client.post(
                f"{server.endpoint}/v1/default_keyspace/typed", content=body, headers=headers
            )
        assert '"vector":[0.1,0.2]' in reply.text


async def test_nulls_and_empty_collections_are_left_out(typed: AsyncTable[Any]) -> None:
    await typed.insert_one({"k": "a", "int": None, "list": [], "set": set(), "map": {}, "boolean": False})
    reply = await raw(typed, "findOne", {"filter": {"k": "a"}})
    assert reply["data"]["document"] == {"k": "a", "boolean": False}
    assert reply["status"]["projectionSchema"].keys() == EVERY_TYPE.keys()
    row = await typed.find_one({"k": "a"})
    assert row is not None
    assert (row["int"], row["list"], row["set"], row["map"]) == (None, [], set(), {})


async def test_a_text_in_a_vector_column_asks_for_an_embedding_service(typed: AsyncTable[Any]) -> None:
    reply = raw(typed, "insertOne", {"document": {"k": "a", "vector": "text"}})
    assert await fails(reply) == "UNSUPPORTED_VECTORIZE_WHEN_MISSING_VECTORIZE_DEFINITION"
