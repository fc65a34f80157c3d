"""updateOne, deleteOne and deleteMany."""

from collections.abc import Iterator
from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.data_api import DataApiServer, run_in_thread
from tools.data_api.tests.helpers import PLAIN_VALUES, fails, raw, rows


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


@pytest.mark.slow
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
