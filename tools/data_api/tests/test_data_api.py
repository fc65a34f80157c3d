"""The local Data API, driven by the real astrapy client over real HTTP."""

import asyncio
import datetime as dt
import json
import math
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import numpy as np
import pytest
import pytest_asyncio
from astrapy import AsyncDatabase, AsyncTable, DataAPIClient
from astrapy.api_options import APIOptions, SerdesOptions, TimeoutOptions
from astrapy.data_types import DataAPIMap, DataAPIVector
from astrapy.exceptions import (
    DataAPIHttpException,
    DataAPIResponseException,
    DataAPITimeoutException,
    TableInsertManyException,
    UnexpectedDataAPIResponseException,
)
from astrapy.info import (
    AlterTableAddColumns,
    AlterTableDropColumns,
    CreateTableDefinition,
    TableVectorIndexOptions,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.data_api import DataApiServer, Fault, Settings, run_in_thread
from tools.data_api.tables import Table

DIM = 8
TOKENS = {
    "columns": {
        "doc_id": "text",
        "token_id": "int",
        "lang": "text",
        "year": "int",
        "note": "text",
        "tags": {"type": "set", "valueType": "text"},
        "v": {"type": "vector", "dimension": DIM},
        "w": {"type": "vector", "dimension": DIM},
    },
    "primaryKey": {"partitionBy": ["doc_id"], "partitionSort": {"token_id": 1}},
}
PLAIN_VALUES = APIOptions(serdes_options=SerdesOptions(custom_datatypes_in_reading=False))


@pytest.fixture
async def server() -> AsyncIterator[DataApiServer]:
    async with DataApiServer() as running:
        yield running


@pytest.fixture
async def database(server: DataApiServer) -> AsyncDatabase:
    return server.async_database(api_options=PLAIN_VALUES)


@pytest.fixture
async def tokens(database: AsyncDatabase) -> AsyncTable[dict[str, Any]]:
    return await make_tokens(database)


# one server for the cases that change nothing; its fixtures and tests live on one loop
one_loop = pytest.mark.asyncio(loop_scope="module")
shared_fixture = pytest_asyncio.fixture(scope="module", loop_scope="module")


@shared_fixture
async def shared_database() -> AsyncIterator[AsyncDatabase]:
    async with DataApiServer() as running:
        yield running.async_database(api_options=PLAIN_VALUES)


@shared_fixture
async def shared_tokens(shared_database: AsyncDatabase) -> AsyncTable[dict[str, Any]]:
    """The table of tokens with ``SHARED_ROWS`` in it, and a row without any cell."""
    table = await make_tokens(shared_database)
    await table.insert_many(SHARED_ROWS, chunk_size=100)
    await table.insert_one({"doc_id": "nulls", "token_id": 0})
    return table


async def make_tokens(database: AsyncDatabase, metric: str = "dot_product") -> AsyncTable[dict[str, Any]]:
    """The table of tokens, with indexes on v, lang, year and tags but not on note, w and token_id."""
    table = await database.create_table("tokens", definition=CreateTableDefinition.coerce(TOKENS))
    await table.create_vector_index("tokens_v", "v", options=TableVectorIndexOptions(metric=metric))
    for column in ("lang", "year", "tags"):
        await table.create_index(f"tokens_{column}", column)
    return table


def rows(documents: int, per_document: int, seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(documents * per_document, DIM))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return [
        {
            "doc_id": f"d{position // per_document}",
            "token_id": position % per_document,
            "lang": ("en", "de", "fr")[position % 3],
            "year": 2000 + position % 7,
            "note": f"n{position % 2}",
            "tags": {("even", "odd")[position % 2]},
            "v": DataAPIVector(vector.tolist()),
        }
        for position, vector in enumerate(vectors)
    ]


SHARED_ROWS = rows(6, 20)


async def fails(action: Awaitable[Any]) -> str:
    """The code of the one error that an action meets."""
    with pytest.raises(DataAPIResponseException) as caught:
        await action
    (error,) = caught.value.error_descriptors
    assert error.title
    assert error.message
    assert error.family == ("SERVER" if error.scope == "DATABASE" else "REQUEST")
    return str(error.error_code)


async def raw(table: Any, command: str, body: dict[str, Any]) -> dict[str, Any]:
    """A reply as it stands on the wire."""
    reply = await table.command({command: body})
    assert isinstance(reply, dict)
    return reply


async def warnings_of(table: Any, **body: Any) -> list[str]:
    reply = await raw(table, "find", body)
    return [warning["errorCode"] for warning in reply["status"].get("warnings", [])]


# definitions


async def test_tables_are_created_listed_and_dropped(database: AsyncDatabase) -> None:
    table = await make_tokens(database)
    definition = await table.definition()
    assert definition.as_dict()["columns"]["v"] == {"type": "vector", "dimension": DIM}
    assert definition.as_dict()["columns"]["tags"] == {"type": "set", "valueType": {"type": "text"}}
    assert definition.as_dict()["primaryKey"] == {"partitionBy": ["doc_id"], "partitionSort": {"token_id": 1}}
    await database.create_table("more", definition={"columns": {"k": "text"}, "primaryKey": "k"})
    assert await database.list_table_names() == ["more", "tokens"]
    await database.drop_table("more")
    assert await database.list_table_names() == ["tokens"]
    assert await fails(database.drop_table("more")) == "CANNOT_DROP_UNKNOWN_TABLE"
    await database.drop_table("more", if_exists=True)
    assert await fails(database.get_table("more").find_one({})) == "UNKNOWN_COLLECTION_OR_TABLE"


async def test_if_not_exists_compares_names_only(database: AsyncDatabase) -> None:
    table = await make_tokens(database)
    other = {"columns": {"k": "text", "u": {"type": "vector", "dimension": 3}}, "primaryKey": "k"}
    assert await fails(database.create_table("tokens", definition=other)) == "CANNOT_ADD_EXISTING_TABLE"
    await database.create_table("tokens", definition=other, if_not_exists=True)
    assert "u" not in (await table.definition()).columns
    assert await fails(table.create_index("tokens_lang", "note")) == "CANNOT_ADD_EXISTING_INDEX"
    await table.create_index("tokens_lang", "note", if_not_exists=True)
    assert (await table.list_indexes())[1].definition.column == "lang"


@pytest.mark.parametrize(
    ("name", "definition", "code"),
    [
        ("t" * 49, {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("a-b", {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("", {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("t", {"columns": {"k": "strange"}, "primaryKey": "k"}, "UNKNOWN_DATA_TYPE"),
        ("t", {"columns": {"k": "duration"}, "primaryKey": "k"}, "UNSUPPORTED_DATA_TYPE_TABLE_CREATION"),
        ("t", {"columns": {"k": {}}, "primaryKey": "k"}, "COLUMN_TYPE_INCORRECT"),
        ("t", {"columns": {"k": "text"}, "primaryKey": "x"}, "UNKNOWN_PARTITION_COLUMNS"),
        ("t", {"columns": {"k": "text"}, "primaryKey": {"partitionBy": []}}, "MISSING_PARTITION_COLUMNS"),
        ("t", {"columns": {"k": "text"}}, "PRIMARY_KEY_DEFINITION_INCORRECT"),
        (
            "t",
            {"columns": {"k": "text"}, "primaryKey": {"partitionBy": ["k"], "partitionSort": {"x": 1}}},
            "UNKNOWN_PARTITION_SORT_COLUMNS",
        ),
        (
            "t",
            {
                "columns": {"k": "text", "c": "int"},
                "primaryKey": {"partitionBy": ["k"], "partitionSort": {"c": 2}},
            },
            "PRIMARY_KEY_DEFINITION_INCORRECT",
        ),
        (
            "t",
            {"columns": {"k": "text", "v": {"type": "vector"}}, "primaryKey": "k"},
            "MISSING_DIMENSION_IN_VECTOR_COLUMN",
        ),
        (
            "t",
            {"columns": {"k": "text", "v": {"type": "vector", "dimension": 0}}, "primaryKey": "k"},
            "UNSUPPORTED_VECTOR_DIMENSION",
        ),
        (
            "t",
            {"columns": {"k": "text", "l": {"type": "list", "valueType": "vector"}}, "primaryKey": "k"},
            "UNSUPPORTED_LIST_DEFINITION",
        ),
    ],
)
async def test_bad_table_definitions_are_refused(
    database: AsyncDatabase, name: str, definition: dict[str, Any], code: str
) -> None:
    assert await fails(database.command({"createTable": {"name": name, "definition": definition}})) == code
    assert await database.list_table_names() == []


async def test_the_longest_names_are_accepted(database: AsyncDatabase) -> None:
    table = await database.create_table(
        "t" * 48, definition={"columns": {"k": "text", "x": "int"}, "primaryKey": "k"}
    )
    await table.create_index("i" * 100, "x")
    assert await table.list_index_names() == ["i" * 100]
    assert await fails(table.create_index("i" * 101, "x")) == "UNSUPPORTED_SCHEMA_NAME"


async def test_indexes_are_described_as_the_service_describes_them(database: AsyncDatabase) -> None:
    columns = {
        "k": "text",
        "t": "text",
        "n": "int",
        "m": {"type": "map", "keyType": "text", "valueType": "int"},
        "l": {"type": "list", "valueType": "text"},
        "v": {"type": "vector", "dimension": 2},
        "w": {"type": "vector", "dimension": 2},
    }
    table = await database.create_table("t", definition={"columns": columns, "primaryKey": "k"})
    for name, column in (
        ("t", "t"),
        ("n", "n"),
        ("me", "m"),
        ("mk", {"m": "$keys"}),
        ("mv", {"m": "$values"}),
        ("l", "l"),
    ):
        await table.create_index(f"i_{name}", column)
    await table.create_vector_index("i_v", "v")
    await table.create_vector_index("i_w", "w", options=TableVectorIndexOptions(source_model="bert"))
    reply = await raw(table, "listIndexes", {"options": {"explain": True}})
    definitions = {
        index["name"]: (index["definition"], index["indexType"]) for index in reply["status"]["indexes"]
    }
    plain_text = {"ascii": False, "caseSensitive": True, "normalize": False}
    assert definitions == {
        "i_t": ({"column": "t", "options": plain_text}, "regular"),
        "i_n": ({"column": "n", "options": {}}, "regular"),
        "i_me": ({"column": "m", "options": {}}, "regular"),
        "i_mk": ({"column": {"m": "$keys"}, "options": {}}, "regular"),
        "i_mv": ({"column": {"m": "$values"}, "options": {}}, "regular"),
        "i_l": ({"column": {"l": "$values"}, "options": {}}, "regular"),
        "i_v": ({"column": "v", "options": {"metric": "cosine", "sourceModel": "other"}}, "vector"),
        "i_w": ({"column": "w", "options": {"metric": "dot_product", "sourceModel": "bert"}}, "vector"),
    }
    assert len(await table.list_indexes()) == 8


@pytest.mark.parametrize(
    ("command", "definition", "code"),
    [
        ("createIndex", {"column": "nowhere"}, "UNKNOWN_INDEX_COLUMN"),
        ("createIndex", {"column": "v"}, "UNSUPPORTED_INDEXING_FOR_DATA_TYPES"),
        ("createIndex", {"column": "doc_id"}, "INVALID_DATABASE_QUERY"),  # the only partition key column
        ("createIndex", {"column": "lang"}, "INVALID_DATABASE_QUERY"),  # has one already
        ("createIndex", {"column": {"note": "$keys"}}, "INVALID_FORMAT_FOR_INDEX_CREATION_COLUMN"),
        ("createIndex", {"column": "note", "options": {"caseSensitive": False}}, "INVALID_INDEX_DEFINITION"),
        ("createVectorIndex", {"column": "lang"}, "UNSUPPORTED_VECTOR_INDEX_FOR_DATA_TYPES"),
        ("createVectorIndex", {"column": "w", "options": {"metric": "manhattan"}}, "UNKNOWN_VECTOR_METRIC"),
        (
            "createVectorIndex",
            {"column": "w", "options": {"sourceModel": "mine"}},
            "UNKNOWN_VECTOR_SOURCE_MODEL",
        ),
        ("createTextIndex", {"column": "note"}, "LEXICAL_NOT_AVAILABLE_FOR_DATABASE"),
    ],
)
async def test_bad_indexes_are_refused(
    tokens: AsyncTable[Any], command: str, definition: dict[str, Any], code: str
) -> None:
    before = await tokens.list_index_names()
    assert await fails(raw(tokens, command, {"name": "new", "definition": definition})) == code
    assert await tokens.list_index_names() == before


async def test_a_table_takes_ten_indexes_and_the_database_a_hundred(database: AsyncDatabase) -> None:
    definition = {"columns": {"k": "text"} | {f"c{n}": "int" for n in range(11)}, "primaryKey": "k"}
    for number in range(10):
        table = await database.create_table(f"t{number}", definition=definition)
        for column in range(10):
            await table.create_index(f"i_{number}_{column}", f"c{column}")
    assert await fails(table.create_index("i_more", "c10")) == "INVALID_DATABASE_QUERY"
    fresh = await database.create_table("fresh", definition=definition)
    assert await fails(fresh.create_index("i_fresh", "c0")) == "INVALID_DATABASE_QUERY"
    await database.drop_table_index("i_0_0")
    await fresh.create_index("i_fresh", "c0")
    assert await fails(database.drop_table_index("i_0_0")) == "CANNOT_DROP_UNKNOWN_INDEX"
    await database.drop_table_index("i_0_0", if_exists=True)


async def test_columns_are_added_and_dropped(tokens: AsyncTable[Any]) -> None:
    await tokens.insert_one({"doc_id": "a", "token_id": 0, "note": "x"})
    await tokens.alter(
        AlterTableAddColumns.coerce(
            {"columns": {"extra": {"type": "int"}, "u": {"type": "vector", "dimension": 2}}}
        )
    )
    await tokens.update_one(
        {"doc_id": "a", "token_id": 0}, {"$set": {"extra": 5, "u": DataAPIVector([1.0, 2.0])}}
    )
    await tokens.alter(AlterTableDropColumns.coerce({"columns": ["note"]}))
    row = await tokens.find_one({"doc_id": "a"}, projection={"extra": True, "u": True})
    assert row == {"extra": 5, "u": [1.0, 2.0]}
    assert "note" not in (await tokens.definition()).columns
    for names, code in (
        (["note"], "CANNOT_DROP_UNKNOWN_COLUMNS"),
        (["doc_id"], "CANNOT_DROP_PRIMARY_KEY_COLUMNS"),
        (["lang"], "CANNOT_DROP_INDEXED_COLUMNS"),
    ):
        assert await fails(tokens.alter(AlterTableDropColumns.coerce({"columns": names}))) == code
    again = AlterTableAddColumns.coerce({"columns": {"extra": {"type": "int"}}})
    assert await fails(tokens.alter(again)) == "CANNOT_ADD_EXISTING_COLUMNS"
    assert await fails(raw(tokens, "alterTable", {"operation": {}})) == "MISSING_ALTER_TABLE_OPERATIONS"


async def test_keyspaces(server: DataApiServer, database: AsyncDatabase) -> None:
    admin = database.get_database_admin()
    assert await admin.async_list_keyspaces() == ["default_keyspace"]
    await admin.async_create_keyspace("ks2")
    assert await admin.async_list_keyspaces() == ["default_keyspace", "ks2"]
    await database.create_table("t", keyspace="ks2", definition={"columns": {"k": "text"}, "primaryKey": "k"})
    assert await database.list_table_names() == []
    assert await database.list_table_names(keyspace="ks2") == ["t"]
    await admin.async_drop_keyspace("ks2")
    assert await fails(database.list_table_names(keyspace="ks2")) == "UNKNOWN_KEYSPACE"


# types


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
        ("vector", "text"),
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


# inserts


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
    await tokens.insert_one(big | {"note": "x" * 19 * 1024 * 1024})


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


# find


@pytest.mark.parametrize("page_size", [20, 50])
async def test_pages(server: DataApiServer, tokens: AsyncTable[Any], page_size: int) -> None:
    server.settings.page_size = page_size
    await tokens.insert_many(rows(3, 45), chunk_size=100)
    server.log.clear()
    found = [(row["doc_id"], row["token_id"]) async for row in tokens.find({})]
    assert len(found) == len(set(found)) == 135
    assert server.log.count("find") == math.ceil(135 / page_size)
    assert [row["token_id"] async for row in tokens.find({"doc_id": "d1"})] == list(range(45))
    assert await warnings_of(tokens) == ["ZERO_FILTER_OPERATIONS"]


@pytest.mark.parametrize("limit", [1, 50, 60, 100, 135, 500])
async def test_a_limit_holds_across_pages(server: DataApiServer, tokens: AsyncTable[Any], limit: int) -> None:
    await tokens.insert_many(rows(3, 45), chunk_size=100)
    server.log.clear()
    assert len([row async for row in tokens.find({}, limit=limit)]) == min(limit, 135)
    assert server.log.count("find") == math.ceil(min(limit, 135) / 50)


async def test_a_full_page_does_not_know_whether_it_is_the_last(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    await tokens.insert_many(rows(1, 100), chunk_size=100)
    for limit, pages in ((None, [50, 50, 0]), (100, [50, 50]), (101, [50, 50, 0])):
        server.log.clear()
        assert len([row async for row in tokens.find({"doc_id": "d0"}, limit=limit)]) == 100
        assert [request.rows_read for request in server.log.requests] == pages


async def test_page_states_resume_and_cannot_be_guessed(tokens: AsyncTable[Any]) -> None:
    await tokens.insert_many(rows(2, 60), chunk_size=100)
    first = await tokens.find({}).fetch_next_page()
    assert first.next_page_state is not None
    rest = [row async for row in tokens.find({}, initial_page_state=first.next_page_state)]
    again = [row async for row in tokens.find({}, initial_page_state=first.next_page_state)]
    assert rest == again
    everything = [row async for row in tokens.find({})]
    assert first.results + rest == everything
    second = await raw(tokens, "find", {"options": {"pageState": first.next_page_state}, "filter": {}})
    assert second["data"]["nextPageState"] not in (None, first.next_page_state)
    for state, clause in ((first.next_page_state, {"doc_id": "d0"}), ("1", {}), ("AAAA", {})):
        find = {"filter": clause, "options": {"pageState": state}}
        assert await fails(raw(tokens, "find", find)) == "INVALID_DATABASE_QUERY"
    assert (await raw(tokens, "find", {"filter": {"doc_id": "d0", "token_id": 3}}))["data"][
        "nextPageState"
    ] is None


async def test_a_page_goes_on_behind_a_row_that_was_deleted(tokens: AsyncTable[Any]) -> None:
    await tokens.insert_many(rows(1, 70), chunk_size=100)
    first = await tokens.find({"doc_id": "d0"}).fetch_next_page()
    assert first.next_page_state is not None
    await tokens.delete_many({"doc_id": "d0", "token_id": {"$gte": 45, "$lt": 55}})
    rest = tokens.find({"doc_id": "d0"}, initial_page_state=first.next_page_state)
    assert [row["token_id"] async for row in rest] == list(range(55, 70))


async def test_storage_order_is_by_token_then_by_clustering_columns(database: AsyncDatabase) -> None:
    definition = {
        "columns": {"p": "text", "c": "text", "d": "int"},
        "primaryKey": {"partitionBy": ["p"], "partitionSort": {"c": -1, "d": 1}},
    }
    table = await database.create_table("t", definition=definition)
    keys = [(p, c, d) for p in "abcdefgh" for c in "xy" for d in (3, 1, 2)]
    await table.insert_many([dict(zip("pcd", key, strict=True)) for key in keys])
    found = [tuple(row.values()) async for row in table.find({})]
    partitions = list(dict.fromkeys(key[0] for key in found))
    assert sorted(partitions) == list("abcdefgh")
    assert partitions != sorted(partitions)
    expected = [(p, c, d) for p in partitions for c in "yx" for d in (1, 2, 3)]
    assert found == expected


Test = Callable[[dict[str, Any]], bool]
FILTERS: list[tuple[dict[str, Any], Test]] = [
    ({"doc_id": "d1"}, lambda row: row["doc_id"] == "d1"),
    (
        {"doc_id": {"$in": ["d1", "d2"]}, "lang": {"$ne": "en"}},  # no index serves it
        lambda row: row["doc_id"] in ("d1", "d2") and row["lang"] != "en",
    ),
    ({"doc_id": {"$in": ["d1", "d2", "no"]}}, lambda row: row["doc_id"] in ("d1", "d2")),
    ({"doc_id": "d1", "token_id": 3}, lambda row: (row["doc_id"], row["token_id"]) == ("d1", 3)),
    (
        {"doc_id": "d1", "token_id": {"$gt": 3, "$lte": 5}},
        lambda row: row["doc_id"] == "d1" and 3 < row["token_id"] <= 5,
    ),
    ({"lang": "en"}, lambda row: row["lang"] == "en"),
    ({"lang": {"$ne": "en"}}, lambda row: row["lang"] != "en"),
    ({"lang": {"$nin": ["en", "de"]}}, lambda row: row["lang"] == "fr"),
    ({"year": {"$gte": 2003}, "lang": "de"}, lambda row: row["year"] >= 2003 and row["lang"] == "de"),
    ({"year": {"$lt": 2002}}, lambda row: row["year"] < 2002),
    ({"note": "n1"}, lambda row: row["note"] == "n1"),
    ({"note": "n1", "lang": "fr"}, lambda row: row["note"] == "n1" and row["lang"] == "fr"),
    ({"$or": [{"lang": "en"}, {"year": 2001}]}, lambda row: row["lang"] == "en" or row["year"] == 2001),
    ({"$or": [{"lang": "en"}, {"note": "n0"}]}, lambda row: row["lang"] == "en" or row["note"] == "n0"),
    ({"$and": [{"lang": "en"}, {"year": 2001}]}, lambda row: row["lang"] == "en" and row["year"] == 2001),
    ({"$not": {"lang": "en"}}, lambda row: row["lang"] != "en"),
    ({"$not": {"lang": "en", "year": 2001}}, lambda row: row["lang"] != "en" or row["year"] != 2001),
    (
        {"$not": {"$or": [{"lang": "en"}, {"year": {"$gt": 2001}}]}},
        lambda row: row["lang"] != "en" and row["year"] <= 2001,
    ),
    ({"$not": {"$not": {"lang": "en"}}}, lambda row: row["lang"] == "en"),
    ({"lang": {"$in": []}}, lambda row: False),
    ({"note": {"$in": []}}, lambda row: False),
    ({}, lambda row: True),
]


@one_loop
@pytest.mark.parametrize(("clause", "test"), FILTERS, ids=[json.dumps(clause) for clause, _ in FILTERS])
async def test_filters(shared_tokens: AsyncTable[Any], clause: dict[str, Any], test: Test) -> None:
    expected = {(row["doc_id"], row["token_id"]) for row in SHARED_ROWS if test(row)}
    if not clause:
        expected.add(("nulls", 0))
    found = [
        (row["doc_id"], row["token_id"]) async for row in shared_tokens.find(clause, projection={"v": False})
    ]
    assert len(found) == len(expected)
    assert set(found) == expected


COLLECTION_FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"tags": {"$in": ["x", "z"]}}, {"a", "b"}),
    ({"tags": {"$all": ["x", "y"]}}, {"a"}),
    ({"tags": {"$nin": ["x"]}}, {"b", "c"}),
    ({"$not": {"tags": {"$in": ["x"]}}}, {"b", "c"}),
    ({"names": {"$in": ["n1"]}}, {"a"}),
    ({"meta": {"$in": [["k", "1"]]}}, {"a"}),
    ({"meta": {"$nin": [["k", "1"]]}}, {"b", "c"}),
    ({"meta": {"$keys": {"$in": ["k"]}}}, {"a", "b"}),
    ({"meta": {"$values": {"$all": ["2"]}}}, {"b"}),
]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize(("clause", "expected"), COLLECTION_FILTERS)
async def test_filters_on_collections(
    database: AsyncDatabase, clause: dict[str, Any], expected: set[str], indexed: bool
) -> None:
    columns = {
        "k": "text",
        "tags": {"type": "set", "valueType": "text"},
        "names": {"type": "list", "valueType": "text"},
        "meta": {"type": "map", "keyType": "text", "valueType": "text"},
    }
    table = await database.create_table("t", definition={"columns": columns, "primaryKey": "k"})
    if indexed:
        for name, column in (
            ("1", "tags"),
            ("2", "names"),
            ("3", "meta"),
            ("4", {"meta": "$keys"}),
            ("5", {"meta": "$values"}),
        ):
            await table.create_index(f"i{name}", column)
    await table.insert_many(
        [
            {"k": "a", "tags": {"x", "y"}, "names": ["n1", "n1"], "meta": {"k": "1"}},
            {"k": "b", "tags": {"z"}, "names": ["n2"], "meta": {"k": "2", "l": "3"}},
            {"k": "c"},
        ]
    )
    assert {row["k"] async for row in table.find(clause)} == expected
    assert await warnings_of(table, filter=clause) == ([] if indexed else ["MISSING_INDEX"])


@one_loop
@pytest.mark.parametrize(
    ("clause", "code"),
    [
        ({"colour": "red"}, "UNKNOWN_TABLE_COLUMNS"),
        ({"lang": {"$in": [str(n) for n in range(101)]}}, "FILTER_INVALID_EXPRESSION"),
        ({"lang": {"$nin": [str(n) for n in range(101)]}}, "FILTER_INVALID_EXPRESSION"),
        ({"lang": {"$in": "en"}}, "FILTER_INVALID_EXPRESSION"),
        ({"$or": {"lang": "en"}}, "FILTER_INVALID_EXPRESSION"),
        ({"$and": [{"year": n} for n in range(65)]}, "FILTER_FIELDS_LIMIT_VIOLATION"),
        ({"lang": {"$like": "e"}}, "FILTER_UNSUPPORTED_OPERATOR"),
        ({"lang": {"$exists": True}}, "FILTER_UNSUPPORTED_OPERATOR"),
        ({"year": "2001"}, "INVALID_FILTER_COLUMN_VALUES"),
        ({"year": None}, "INVALID_FILTER_COLUMN_VALUES"),
        ({"v": [0.0] * DIM}, "UNSUPPORTED_FILTERING_FOR_COLUMN_TYPES"),
        ({"tags": "x"}, "INVALID_MAP_SET_LIST_FILTER"),
        ({"tags": {"$all": []}}, "FILTER_INVALID_EXPRESSION"),
        ({"$or": [{"doc_id": "a"}, {"lang": "en"}]}, "INVALID_DATABASE_QUERY"),
        ({"doc_id": {"$in": ["a", "b"]}, "lang": "en"}, "INVALID_DATABASE_QUERY"),
    ],
)
async def test_bad_filters_are_refused(
    shared_tokens: AsyncTable[Any], clause: dict[str, Any], code: str
) -> None:
    assert await fails(raw(shared_tokens, "find", {"filter": clause})) == code


async def test_the_greatest_filters_are_accepted(tokens: AsyncTable[Any]) -> None:
    await tokens.insert_one({"doc_id": "7", "token_id": 0, "year": 7})
    hundred = [str(number) for number in range(100)]
    assert [row["doc_id"] async for row in tokens.find({"doc_id": {"$in": hundred}})] == ["7"]
    many = {"$or": [{"year": number} for number in range(64)]}
    assert [row["doc_id"] async for row in tokens.find(many)] == ["7"]


@one_loop
@pytest.mark.parametrize(
    ("clause", "codes"),
    [
        ({}, ["ZERO_FILTER_OPERATIONS"]),
        ({"doc_id": "a"}, []),
        ({"doc_id": "a", "token_id": {"$gte": 3}}, []),
        ({"lang": "en"}, []),
        ({"year": {"$gte": 2001}}, []),
        ({"note": "x"}, ["MISSING_INDEX"]),
        ({"note": "x", "lang": "en"}, ["MISSING_INDEX"]),
        ({"doc_id": "a", "lang": "en"}, ["MISSING_INDEX"]),  # the key's columns have no index
        ({"token_id": 1}, ["INCOMPLETE_PRIMARY_KEY_FILTER"]),
        ({"lang": {"$ne": "en"}}, ["NOT_EQUALS_UNSUPPORTED_BY_INDEXING"]),
        ({"lang": {"$gt": "en"}}, ["COMPARISON_FILTER_UNSUPPORTED_BY_INDEXING"]),
        ({"lang": {"$nin": ["en"]}}, ["NOT_IN_FILTER_UNSUPPORTED_BY_INDEXING"]),
        ({"year": {"$ne": 2001}}, []),
    ],
)
async def test_warnings_of_slow_filters(
    shared_tokens: AsyncTable[Any], clause: dict[str, Any], codes: list[str]
) -> None:
    assert await warnings_of(shared_tokens, filter=clause) == codes


async def test_astrapy_logs_the_warnings(tokens: AsyncTable[Any], caplog: pytest.LogCaptureFixture) -> None:
    await tokens.find_one({"note": "x"})
    assert any("MISSING_INDEX" in record.getMessage() for record in caplog.records)


async def test_projections(tokens: AsyncTable[Any]) -> None:
    await tokens.insert_one({"doc_id": "a", "token_id": 0, "lang": "en", "note": "x"})
    reply = await raw(tokens, "find", {"projection": {"lang": True, "note": 1}})
    assert reply["data"]["documents"] == [{"lang": "en", "note": "x"}]
    assert reply["status"]["projectionSchema"] == {"lang": {"type": "text"}, "note": {"type": "text"}}
    assert await tokens.find_one({}, projection={"note": False, "v": False, "w": False, "tags": False}) == {
        "doc_id": "a",
        "token_id": 0,
        "lang": "en",
        "year": None,
    }
    for projection, code in (
        ({"colour": True}, "UNKNOWN_TABLE_COLUMNS"),
        ({"lang": True, "note": False}, "UNSUPPORTED_PROJECTION_PARAM"),
        ({"lang": "yes"}, "UNSUPPORTED_PROJECTION_PARAM"),
    ):
        assert await fails(raw(tokens, "find", {"projection": projection})) == code


@one_loop
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"options": {"limit": -1}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"options": {"limit": "many"}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"options": {"skip": 3}}, "COMMAND_FIELD_VALUE_INVALID"),
        ({"options": {"pageSize": 100}}, "COMMAND_FIELD_UNKNOWN"),
        ({"sort": {"token_id": 1}}, "INVALID_REGULAR_SORT_EXPRESSION"),
        ({"sort": {"colour": 1}}, "CANNOT_SORT_UNKNOWN_COLUMNS"),
        ({"sort": {"note": "late interaction"}}, "CANNOT_LEXICAL_SORT_NON_INDEXED_COLUMNS"),
    ],
)
async def test_bad_options_and_sorts_are_refused(
    shared_tokens: AsyncTable[Any], body: dict[str, Any], code: str
) -> None:
    assert await fails(raw(shared_tokens, "find", body)) == code


async def test_find_one(tokens: AsyncTable[Any]) -> None:
    assert await tokens.find_one({"doc_id": "a"}) is None
    assert (await raw(tokens, "findOne", {"filter": {"doc_id": "a"}}))["data"] == {"document": None}
    data = rows(1, 3)
    await tokens.insert_many(data)
    row = await tokens.find_one(sort={"v": data[2]["v"]}, include_similarity=True)
    assert row is not None
    assert row["token_id"] == 2
    assert row["$similarity"] == pytest.approx(1.0)


# vector search


def exact_similarities(
    metric: str, matrix: np.ndarray[Any, Any], query: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    scores: np.ndarray[Any, Any] = (1 + matrix @ query) / 2
    if metric == "cosine":
        scores = (1 + matrix @ query / np.linalg.norm(matrix, axis=1) / np.linalg.norm(query)) / 2
    elif metric == "euclidean":
        scores = 1 / (1 + ((matrix - query) ** 2).sum(axis=1))
    return scores


@pytest.mark.parametrize("metric", ["dot_product", "cosine", "euclidean"])
async def test_vector_search_is_exact(database: AsyncDatabase, metric: str) -> None:
    table = await make_tokens(database, metric)
    data = rows(10, 30)
    matrix = np.array([row["v"].data for row in data])
    if metric != "dot_product":  # which is for unit vectors
        matrix *= np.random.default_rng(1).uniform(0.5, 2, size=(len(matrix), 1))
    for row, vector in zip(data, matrix, strict=True):
        row["v"] = DataAPIVector(vector.tolist())
    await table.insert_many(data, chunk_size=100)
    query = np.random.default_rng(2).normal(size=DIM)
    scores = exact_similarities(metric, matrix, query)
    best = np.argsort(-scores)[:25]
    cursor = table.find(
        sort={"v": DataAPIVector(query.tolist())},
        limit=25,
        projection={"doc_id": True, "token_id": True},
        include_similarity=True,
        include_sort_vector=True,
    )
    found = [row async for row in cursor]
    assert [(row["doc_id"], row["token_id"]) for row in found] == [
        (data[position]["doc_id"], data[position]["token_id"]) for position in best
    ]
    assert [row["$similarity"] for row in found] == pytest.approx(scores[best].tolist(), abs=1e-6)
    assert await cursor.get_sort_vector() == pytest.approx(query.tolist(), abs=1e-6)


async def test_vector_search_answers_once_with_a_thousand_rows_at_most(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    await tokens.insert_many(rows(11, 100), chunk_size=100, concurrency=4)
    vector = {"v": DataAPIVector([1.0] + [0.0] * (DIM - 1))}
    server.log.clear()
    for options, length in (({}, 1000), ({"limit": 1000}, 1000), ({"limit": 70}, 70)):
        reply = await raw(tokens, "find", {"sort": {"v": [1.0] + [0.0] * (DIM - 1)}, "options": options})
        assert len(reply["data"]["documents"]) == length
        assert reply["data"]["nextPageState"] is None
        assert "warnings" not in reply["status"]
        assert "$similarity" not in reply["data"]["documents"][0]
    assert server.log.rows_read == 2070
    with pytest.raises(DataAPIResponseException) as caught:
        [row async for row in tokens.find(sort=vector, limit=1001)]
    assert caught.value.error_descriptors[0].error_code == "CANNOT_VECTOR_SORT_WITH_LIMIT_EXCEEDS_MAX"


@one_loop
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"sort": {"v": [0.0] * 7}}, "CANNOT_VECTOR_SORT_ON_MISMATCHED_VECTOR_DIMENSIONS"),
        ({"sort": {"w": [0.0] * DIM}}, "CANNOT_VECTOR_SORT_NON_INDEXED_VECTOR_COLUMNS"),
        ({"sort": {"lang": [0.0] * DIM}}, "CANNOT_VECTOR_SORT_NON_VECTOR_COLUMNS"),
        ({"sort": {"v": [0.0] * DIM, "w": [0.0] * DIM}}, "CANNOT_SORT_ON_MULTIPLE_VECTORS"),
        ({"sort": {"v": [0.0] * DIM, "lang": 1}}, "CANNOT_SORT_VECTOR_AND_NON_VECTOR_COLUMNS"),
        ({"sort": {"v": [0.0] * DIM}, "options": {"skip": 1}}, "CANNOT_VECTOR_SORT_WITH_SKIP_OPTION"),
        ({"sort": {"v": [0.0] * DIM}, "options": {"pageState": "x"}}, "INVALID_DATABASE_QUERY"),
        ({"sort": {"v": {"$binary": "AAA="}}}, "INVALID_VECTOR_SORT_EXPRESSION"),
        ({"sort": {"v": ["x"] * DIM}}, "INVALID_VECTOR_SORT_EXPRESSION"),
        ({"sort": {"v": "a text"}}, "CANNOT_VECTORIZE_SORT_WHEN_MISSING_VECTORIZE_DEFINITION"),
    ],
)
async def test_bad_vector_sorts_are_refused(
    shared_tokens: AsyncTable[Any], body: dict[str, Any], code: str
) -> None:
    assert await fails(raw(shared_tokens, "find", body)) == code


async def test_a_cosine_index_has_no_zero_vectors(database: AsyncDatabase) -> None:
    table = await make_tokens(database, "cosine")
    zero = DataAPIVector([0.0] * DIM)
    assert (
        await fails(table.insert_one({"doc_id": "a", "token_id": 0, "v": zero})) == "INVALID_DATABASE_QUERY"
    )
    assert await table.find_one({}) is None
    assert await fails(raw(table, "find", {"sort": {"v": [0.0] * DIM}})) == "INVALID_DATABASE_QUERY"
    await table.insert_one({"doc_id": "a", "token_id": 0, "w": zero})  # w has no index
    with pytest.raises(TableInsertManyException) as caught:
        await table.insert_many([{"doc_id": "b", "token_id": 0, "v": zero}, *rows(1, 2)], ordered=False)
    assert len(caught.value.inserted_ids) == 2


@one_loop
@pytest.mark.parametrize(
    ("clause", "test"),
    [
        ({"lang": "en"}, lambda row: row["lang"] == "en"),
        ({"lang": {"$in": ["en", "de"]}}, lambda row: row["lang"] in ("en", "de")),
        ({"year": {"$gte": 2004}}, lambda row: row["year"] >= 2004),
        ({"year": {"$ne": 2004}}, lambda row: row["year"] != 2004),
        ({"lang": "en", "year": 2003}, lambda row: row["lang"] == "en" and row["year"] == 2003),
        ({"$or": [{"lang": "en"}, {"year": 2003}]}, lambda row: row["lang"] == "en" or row["year"] == 2003),
        ({"doc_id": "d3"}, lambda row: row["doc_id"] == "d3"),
        ({"doc_id": "d3", "lang": "en"}, lambda row: row["doc_id"] == "d3" and row["lang"] == "en"),
        ({"tags": {"$in": ["even"]}}, lambda row: row["token_id"] % 2 == 0),
    ],
)
async def test_filters_come_before_vector_search(
    shared_tokens: AsyncTable[Any], clause: dict[str, Any], test: Test
) -> None:
    expected = [row for row in SHARED_ROWS if test(row)]
    query = np.random.default_rng(3).normal(size=DIM)
    scores = exact_similarities("dot_product", np.array([row["v"].data for row in expected]), query)
    order = np.argsort(-scores)[:10]
    found = shared_tokens.find(
        clause, sort={"v": DataAPIVector(query.tolist())}, limit=10, projection={"doc_id": 1, "token_id": 1}
    )
    assert [(row["doc_id"], row["token_id"]) async for row in found] == [
        (expected[position]["doc_id"], expected[position]["token_id"]) for position in order
    ]


@one_loop
@pytest.mark.parametrize(
    "clause",
    [
        {"note": "n1"},  # no index
        {"note": "n1", "lang": "en"},
        {"doc_id": "d3", "note": "n1"},
        {"doc_id": "d3", "token_id": 1},  # a clustering column without index
        {"doc_id": {"$in": ["d3", "d4"]}},  # IN on the partition key
        {"doc_id": {"$gt": "d3"}},
        {"$or": [{"doc_id": "d3"}, {"lang": "en"}]},
        {"lang": {"$ne": "en"}},  # an index, which does not serve the operator
        {"lang": {"$gt": "en"}},
        {"lang": {"$nin": ["en"]}},
    ],
)
async def test_vector_search_filters_on_indexed_columns_only(
    shared_tokens: AsyncTable[Any], clause: dict[str, Any]
) -> None:
    find = {"filter": clause, "sort": {"v": [1.0] * DIM}}
    assert await fails(raw(shared_tokens, "find", find)) == "INVALID_DATABASE_QUERY"


async def test_vector_search_sees_live_vectors_only(tokens: AsyncTable[Any]) -> None:
    data = rows(2, 3)
    await tokens.insert_many(data)
    await tokens.insert_one({"doc_id": "none", "token_id": 0})
    sort = {"v": data[0]["v"]}

    async def found() -> list[tuple[str, int]]:
        return [(row["doc_id"], row["token_id"]) async for row in tokens.find(sort=sort)]

    assert len(await found()) == 6
    assert (await found())[0] == ("d0", 0)
    await tokens.delete_one({"doc_id": "d0", "token_id": 0})
    await tokens.update_one({"doc_id": "d0", "token_id": 1}, {"$unset": {"v": ""}})
    assert len(await found()) == 4
    await tokens.insert_one({"doc_id": "d1", "token_id": 2, "v": data[0]["v"]})
    assert (await found())[0] == ("d1", 2)
    await tokens.delete_many({})
    assert await found() == []


async def test_an_index_takes_in_the_rows_that_exist(database: AsyncDatabase) -> None:
    table = await database.create_table("t", definition=CreateTableDefinition.coerce(TOKENS))
    data = rows(3, 4)
    await table.insert_many(data)
    await table.create_vector_index("i_v", "v", options=TableVectorIndexOptions(metric="dot_product"))
    await table.create_index("i_lang", "lang")
    found = [row["lang"] async for row in table.find({"lang": "en"}, sort={"v": data[0]["v"]})]
    assert found == ["en"] * 4


async def test_a_large_vector_search_is_quick(server: DataApiServer, database: AsyncDatabase) -> None:
    definition = {
        "columns": {"k": "int", "v": {"type": "vector", "dimension": 128}},
        "primaryKey": "k",
    }
    await database.create_table("big", definition=definition)
    table = database.get_table("big")
    await table.create_vector_index("big_v", "v", options=TableVectorIndexOptions(metric="dot_product"))
    vectors = np.random.default_rng(0).normal(size=(20_000, 128)).astype(np.float32)
    stored: Table = server._storage.keyspaces["default_keyspace"]["big"]
    for key, vector in enumerate(vectors):
        stored.write((key,), {"v": vector}, insert=True)
    server.log.clear()
    for _ in range(5):
        await raw(
            table,
            "find",
            {"sort": {"v": vectors[7].tolist()}, "projection": {"k": True}, "options": {"limit": 1000}},
        )
    durations = [request.finished - request.started for request in server.log.requests if request.finished]
    assert min(durations) < 0.1


# updates and deletes


async def test_update_one_is_an_upsert(tokens: AsyncTable[Any]) -> None:
    key = {"doc_id": "a", "token_id": 0}
    await tokens.update_one(key, {"$set": {"note": "x", "year": 2001}})
    assert await tokens.find_one(key, projection={"note": True, "year": True}) == {"note": "x", "year": 2001}
    await tokens.update_one(key, {"$unset": {"year": ""}, "$set": {"lang": "en"}})
    assert await tokens.find_one(key, projection={"lang": True, "year": True}) == {"lang": "en", "year": None}
    reply = await raw(tokens, "updateOne", {"filter": key, "update": {"$set": {"note": None, "lang": None}}})
    assert reply["status"] == {"matchedCount": 1, "modifiedCount": 1}
    assert await tokens.find_one(key) is None  # no INSERT ever marked the row, and its last cell is gone
    await tokens.insert_one(key)
    await tokens.update_one(key, {"$unset": {"note": ""}})
    assert await tokens.find_one(key) is not None


@pytest.mark.parametrize(
    ("clause", "update", "code"),
    [
        ({}, {"$set": {"note": "x"}}, "MISSING_FILTER_FOR_UPDATE_DELETE"),
        ({"doc_id": "a"}, {"$set": {"note": "x"}}, "MISSING_FULL_PRIMARY_KEY_FOR_UPDATE_DELETE"),
        (
            {"doc_id": "a", "token_id": {"$gt": 0}},
            {"$set": {"note": "x"}},
            "UNSUPPORTED_FILTER_FOR_UPDATE_ONE_DELETE_ONE",
        ),
        (
            {"doc_id": {"$in": ["a"]}, "token_id": 0},
            {"$set": {"note": "x"}},
            "UNSUPPORTED_FILTER_FOR_UPDATE_ONE_DELETE_ONE",
        ),
        (
            {"doc_id": "a", "lang": "en"},
            {"$set": {"note": "x"}},
            "UNSUPPORTED_NON_PRIMARY_KEY_FILTER_FOR_UPDATE_DELETE",
        ),
        ({"doc_id": "a", "token_id": 0}, {}, "MISSING_UPDATE_OPERATIONS"),
        ({"doc_id": "a", "token_id": 0}, {"$set": {}}, "MISSING_UPDATE_OPERATIONS"),
        (
            {"doc_id": "a", "token_id": 0},
            {"$set": {"token_id": 1}},
            "UNSUPPORTED_UPDATE_FOR_PRIMARY_KEY_COLUMNS",
        ),
        ({"doc_id": "a", "token_id": 0}, {"$set": {"colour": 1}}, "UNKNOWN_TABLE_COLUMNS"),
        ({"doc_id": "a", "token_id": 0}, {"$mul": {"year": 1}}, "UNSUPPORTED_UPDATE_OPERATIONS_FOR_TABLE"),
        (
            {"doc_id": "a", "token_id": 0},
            {"$set": {"year": 1}, "$unset": {"year": ""}},
            "UNSUPPORTED_OVERLAPPING_UPDATE_OPERATIONS",
        ),
    ],
)
async def test_bad_updates_are_refused(
    tokens: AsyncTable[Any], clause: dict[str, Any], update: dict[str, Any], code: str
) -> None:
    assert await fails(tokens.update_one(clause, update)) == code
    assert await tokens.find_one({}) is None


async def test_deletes(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    await tokens.insert_many(rows(3, 10))

    async def left(document: str) -> list[int]:
        return [row["token_id"] async for row in tokens.find({"doc_id": document})]

    await tokens.delete_one({"doc_id": "d0", "token_id": 4})
    await tokens.delete_one({"doc_id": "nowhere", "token_id": 4})
    assert await left("d0") == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    await tokens.delete_many({"doc_id": "d0", "token_id": {"$gte": 7}})
    assert await left("d0") == [0, 1, 2, 3, 5, 6]
    await tokens.delete_many({"doc_id": "d0", "token_id": {"$in": [0, 1, 44]}})
    assert await left("d0") == [2, 3, 5, 6]
    await tokens.delete_many({"doc_id": {"$in": ["d0", "d1"]}})
    assert (await left("d0"), await left("d1")) == ([], [])
    assert await left("d2") == list(range(10))
    assert (await raw(tokens, "deleteMany", {"filter": {"doc_id": "d2", "token_id": 0}}))["status"] == {
        "deletedCount": -1
    }
    assert server.log.requests[-1].rows_written == 1
    await tokens.delete_many({})
    assert await left("d2") == []


@pytest.mark.parametrize(
    ("command", "clause", "code"),
    [
        ("deleteOne", {}, "MISSING_FILTER_FOR_UPDATE_DELETE"),
        ("deleteOne", {"doc_id": "a"}, "MISSING_FULL_PRIMARY_KEY_FOR_UPDATE_DELETE"),
        (
            "deleteOne",
            {"doc_id": "a", "c": 1, "d": {"$lt": 1}},
            "UNSUPPORTED_FILTER_FOR_UPDATE_ONE_DELETE_ONE",
        ),
        ("deleteOne", {"x": 1}, "UNSUPPORTED_NON_PRIMARY_KEY_FILTER_FOR_UPDATE_DELETE"),
        ("deleteMany", None, "MISSING_FILTER_FOR_UPDATE_DELETE"),
        ("deleteMany", {"x": 1}, "UNSUPPORTED_NON_PRIMARY_KEY_FILTER_FOR_UPDATE_DELETE"),
        ("deleteMany", {"c": 1}, "INVALID_PRIMARY_KEY_FILTER"),
        ("deleteMany", {"doc_id": "a", "d": 1}, "INVALID_PRIMARY_KEY_FILTER"),
        ("deleteMany", {"doc_id": "a", "c": {"$gt": 1}, "d": 1}, "INVALID_DATABASE_QUERY"),
        ("deleteMany", {"doc_id": {"$gt": "a"}}, "INVALID_DATABASE_QUERY"),
        ("deleteMany", {"doc_id": {"$ne": "a"}}, "INVALID_DATABASE_QUERY"),
        ("deleteMany", {"$or": [{"doc_id": "a"}, {"doc_id": "b"}]}, "INVALID_DATABASE_QUERY"),
    ],
)
async def test_bad_deletes_are_refused(database: AsyncDatabase, command: str, clause: Any, code: str) -> None:
    definition = {
        "columns": {"doc_id": "text", "c": "int", "d": "int", "x": "int"},
        "primaryKey": {"partitionBy": ["doc_id"], "partitionSort": {"c": 1, "d": 1}},
    }
    table = await database.create_table("t", definition=definition)
    await table.insert_one({"doc_id": "a", "c": 1, "d": 1, "x": 1})
    assert await fails(raw(table, command, {"filter": clause})) == code
    assert await table.find_one({}) is not None
    await table.delete_many({"doc_id": "a", "c": 1, "d": {"$gte": 1}})
    assert await table.find_one({}) is None


CELL = st.one_of(st.none(), st.integers(0, 3))
WRITE = st.tuples(
    st.sampled_from(["insert", "update", "delete_one", "delete_partition"]),
    st.sampled_from("ab"),
    st.integers(0, 2),
    st.dictionaries(st.sampled_from(["x", "y"]), CELL, min_size=1),
)


@pytest.fixture(scope="module")
def shared_server() -> Iterator[DataApiServer]:
    with run_in_thread() as running:
        yield running


@settings(max_examples=25, deadline=None)
@given(writes=st.lists(WRITE, max_size=12))
def test_any_sequence_of_writes_leaves_what_cassandra_leaves(
    shared_server: DataApiServer, writes: list[tuple[str, str, int, dict[str, int | None]]]
) -> None:
    database = shared_server.database(api_options=PLAIN_VALUES)
    definition = {
        "columns": {"p": "text", "c": "int", "x": "int", "y": "int"},
        "primaryKey": {"partitionBy": ["p"], "partitionSort": {"c": 1}},
    }
    table = database.create_table("model", definition=definition, if_not_exists=True)
    table.create_index("model_x", "x", if_not_exists=True)
    table.delete_many({})
    cells: dict[tuple[str, int], dict[str, int]] = {}
    marked: set[tuple[str, int]] = set()
    for kind, p, c, values in writes:
        key = (p, c)
        if kind == "insert":
            table.insert_one({"p": p, "c": c, **values})
            marked.add(key)
        elif kind == "update":
            table.update_one({"p": p, "c": c}, {"$set": values})
        elif kind == "delete_one":
            table.delete_one({"p": p, "c": c})
        else:
            table.delete_many({"p": p})
        if kind in ("insert", "update"):
            merged = cells.get(key, {}) | values
            cells[key] = {name: value for name, value in merged.items() if value is not None}
        for gone in [one for one in cells if one == key or (kind == "delete_partition" and one[0] == p)]:
            if kind.startswith("delete"):
                del cells[gone]
                marked.discard(gone)
    alive = {key: row for key, row in cells.items() if row or key in marked}
    found = {
        (row["p"], row["c"]): {name: row[name] for name in "xy" if row[name] is not None}
        for row in table.find({})
    }
    assert found == alive
    for x in range(4):
        by_index = {(row["p"], row["c"]) for row in table.find({"x": x})}
        assert by_index == {key for key, row in alive.items() if row.get("x") == x}


# requests


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
    server.settings.latency_ms = 50
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


# switches


async def test_ann_loses_recall_by_chance(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    data = rows(10, 100)
    await tokens.insert_many(data, chunk_size=100)

    async def recall() -> float:
        exact = exact_similarities("dot_product", np.array([row["v"].data for row in data]), np.ones(DIM))
        best = {
            (data[position]["doc_id"], data[position]["token_id"]) for position in np.argsort(-exact)[:200]
        }
        found = {
            (row["doc_id"], row["token_id"])
            async for row in tokens.find(sort={"v": DataAPIVector([1.0] * DIM)}, limit=200)
        }
        assert len(found) == 200
        return len(found & best) / 200

    assert await recall() == 1
    server.settings.ann_recall_loss = 0.3
    assert 0.6 < await recall() < 0.8
    server.settings.ann_recall_loss = 0
    assert await recall() == 1


async def test_the_same_seed_loses_the_same_rows() -> None:
    found = []
    for seed in (1, 1, 2):
        async with DataApiServer(Settings(ann_recall_loss=0.5), seed=seed) as running:
            table = await make_tokens(running.async_database())
            await table.insert_many(rows(1, 60), chunk_size=100)
            cursor = table.find(sort={"v": DataAPIVector([1.0] * DIM)}, limit=20)
            found.append([row["token_id"] async for row in cursor])
    assert found[0] == found[1] != found[2]


async def test_ann_sees_new_rows_late(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    data = rows(1, 3)

    async def found() -> list[int]:
        return [row["token_id"] async for row in tokens.find(sort={"v": data[0]["v"]})]

    await tokens.insert_one(data[0])
    server.settings.ann_delay_s = math.inf
    await tokens.insert_one(data[1])
    assert await found() == [0]
    assert len([row async for row in tokens.find({"doc_id": "d0"})]) == 2
    server.release_ann()
    assert len(await found()) == 2
    server.settings.ann_delay_s = 0.1
    await tokens.insert_one(data[2])
    assert len(await found()) == 2
    await asyncio.sleep(0.12)
    assert len(await found()) == 3


async def test_latency(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    server.settings.latency_ms, server.settings.latency_jitter_ms = 40, 40
    server.log.clear()
    await asyncio.gather(*(tokens.find_one({"doc_id": "a"}) for _ in range(20)))
    durations = [request.finished - request.started for request in server.log.requests if request.finished]
    assert min(durations) >= 0.039
    assert max(durations) - min(durations) > 0.01


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


@pytest.mark.parametrize("applied", [False, True])
async def test_fault_hang(server: DataApiServer, tokens: AsyncTable[Any], applied: bool) -> None:
    server.settings.faults.append(Fault("hang", "insertOne", applied=applied))
    impatient = APIOptions(timeout_options=TimeoutOptions(request_timeout_ms=100))
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


async def test_rules_fire_with_their_probability(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    fault = Fault("error_envelope", "findOne", probability=0.25)
    server.settings.faults.append(fault)
    await asyncio.gather(*(tokens.find_one({"doc_id": "a"}) for _ in range(200)), return_exceptions=True)
    assert fault.matched == 200
    assert 25 < fault.fired < 75


# ways to run it


def test_in_a_thread_for_synchronous_callers() -> None:
    with run_in_thread(Settings(page_size=20), token="t", keyspace="ks") as server:
        table = server.database().create_table("t", definition=CreateTableDefinition.coerce(TOKENS))
        table.insert_many(rows(1, 45))
        assert len(list(table.find({}))) == 45
        assert server.log.count("find") == 3
        server.settings.page_size = 50
        assert len(list(table.find({}))) == 45
        assert server.log.count("find") == 4
        endpoint = server.endpoint
    with pytest.raises(httpx.ConnectError):
        httpx.post(endpoint)


def test_stopping_lets_go_of_requests_that_hang() -> None:
    with run_in_thread(Settings(faults=[Fault("hang")])) as server:
        impatient = APIOptions(timeout_options=TimeoutOptions(request_timeout_ms=50))
        with pytest.raises(DataAPITimeoutException):
            server.database(api_options=impatient).list_table_names()
        started = time.monotonic()
    assert time.monotonic() - started < 2


def test_as_a_process() -> None:
    command = [
        sys.executable,
        "-m",
        "tools.data_api",
        "--port",
        "0",
        "--page-size",
        "20",
        "--token",
        "secret",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            printed = dict(process.stdout.readline().strip().split("=", 1) for _ in range(3))
            client = DataAPIClient(printed["ASTRA_DB_APPLICATION_TOKEN"])
            database = client.get_database(
                printed["ASTRA_DB_API_ENDPOINT"], keyspace=printed["ASTRA_DB_KEYSPACE"]
            )
            table = database.create_table("t", definition={"columns": {"k": "int"}, "primaryKey": "k"})
            table.insert_many([{"k": number} for number in range(45)])
            assert len(table.find({}).fetch_next_page().results) == 20
        finally:
            process.terminate()
