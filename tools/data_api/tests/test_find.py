"""find and findOne: pages, limits, filters, projections."""

import json
import math
from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable

from tools.data_api import DataApiServer
from tools.data_api.tests.helpers import DIM, SHARED_ROWS, Test, fails, one_loop, raw, rows, warnings_of


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
        ({"lang": {"$exists": True}}, "INTERNAL_SERVER_ERROR"),
        ({"year": "2001"}, "INVALID_FILTER_COLUMN_VALUES"),
        ({"year": None}, "INTERNAL_SERVER_ERROR"),
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
