"""Vector search: similarities, limits, filters."""

from typing import Any

import numpy as np
import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.data_types import DataAPIVector
from astrapy.exceptions import (
    DataAPIResponseException,
    TableInsertManyException,
)
from astrapy.info import (
    CreateTableDefinition,
    TableVectorIndexOptions,
)

from tools.data_api import DataApiServer
from tools.data_api.tables import Table
from tools.data_api.tests.helpers import (
    DIM,
    SHARED_ROWS,
    TOKENS,
    Test,
    exact_similarities,
    fails,
    make_tokens,
    one_loop,
    raw,
    rows,
)


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


@pytest.mark.slow
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
