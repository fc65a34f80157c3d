"""Definitions of tables, indexes and keyspaces."""

from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.data_types import DataAPIVector
from astrapy.info import (
    AlterTableAddColumns,
    AlterTableDropColumns,
    TableVectorIndexOptions,
)

from tools.data_api import DataApiServer
from tools.data_api.limits import SYSTEM_KEYSPACES
from tools.data_api.tests.helpers import DIM, fails, make_tokens, raw


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
    assert (await table.list_indexes())[0].definition.column == "lang"


@pytest.mark.parametrize(
    ("name", "definition", "code"),
    [
        ("t" * 49, {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("a-b", {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("", {"columns": {"k": "text"}, "primaryKey": "k"}, "UNSUPPORTED_SCHEMA_NAME"),
        ("t", {"columns": {"k": "strange"}, "primaryKey": "k"}, "UNKNOWN_PRIMITIVE_DATA_TYPE"),
        ("t", {"columns": {"k": "duration"}, "primaryKey": "k"}, "UNSUPPORTED_DATA_TYPE_TABLE_CREATION"),
        ("t", {"columns": {"k": {}}, "primaryKey": "k"}, "REQUEST_STRUCTURE_MISMATCH"),
        ("t", {"columns": {"k": "text"}, "primaryKey": "x"}, "UNKNOWN_PARTITION_COLUMNS"),
        ("t", {"columns": {"k": "text"}, "primaryKey": {"partitionBy": []}}, "MISSING_PARTITION_COLUMNS"),
        ("t", {"columns": {"k": "text"}}, "REQUEST_STRUCTURE_MISMATCH"),
        ("t", {"columns": {"k": "text"}, "primaryKey": {}}, "UNEXPECTED_SERVER_ERROR"),
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
        ("createTextIndex", {"column": "year"}, "UNSUPPORTED_TEXT_INDEX_FOR_DATA_TYPES"),
        ("createTextIndex", {"column": "nowhere"}, "UNKNOWN_INDEX_COLUMN"),
        ("createTextIndex", {"column": "note", "options": {"analyzer": "no such"}}, "INVALID_DATABASE_QUERY"),
    ],
)
async def test_bad_indexes_are_refused(
    tokens: AsyncTable[Any], command: str, definition: dict[str, Any], code: str
) -> None:
    before = await tokens.list_index_names()
    assert await fails(raw(tokens, command, {"name": "new", "definition": definition})) == code
    assert await tokens.list_index_names() == before


@pytest.mark.slow
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
    assert await fails(database.drop_table_index("i_0_0")) == "UNEXPECTED_DRIVER_ERROR"
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
    assert await fails(raw(tokens, "alterTable", {"operation": {}})) == "REQUEST_STRUCTURE_MISMATCH"


async def test_keyspaces(server: DataApiServer, database: AsyncDatabase) -> None:
    admin = database.get_database_admin()
    assert await admin.async_list_keyspaces() == sorted(["default_keyspace", *SYSTEM_KEYSPACES])
    await admin.async_create_keyspace("ks2")
    assert await admin.async_list_keyspaces() == sorted(["default_keyspace", "ks2", *SYSTEM_KEYSPACES])
    await database.create_table("t", keyspace="ks2", definition={"columns": {"k": "text"}, "primaryKey": "k"})
    assert await database.list_table_names() == []
    assert await database.list_table_names(keyspace="ks2") == ["t"]
    await admin.async_drop_keyspace("ks2")
    assert await fails(database.list_table_names(keyspace="ks2")) == "UNKNOWN_KEYSPACE"
