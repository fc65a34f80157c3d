"""The switches: recall, delay, latency."""

import asyncio
import math
import time
from typing import Any

import numpy as np
import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.data_types import DataAPIVector
from astrapy.exceptions import DataAPIHttpException

from tools.data_api import DataApiServer, Fault, Settings
from tools.data_api.tests.helpers import (
    DIM,
    exact_similarities,
    fails,
    make_tokens,
    raw,
    rows,
)


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


async def test_ties_of_ann_come_in_any_order(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    vector = rows(1, 1)[0]["v"]
    await tokens.insert_many([{"doc_id": "d", "token_id": i, "v": vector} for i in range(20)])

    async def found() -> list[int]:
        return [row["token_id"] async for row in tokens.find(sort={"v": vector})]

    assert await found() == list(range(20))
    server.settings.ann_mixed_ties = True
    mixed = await found()
    assert mixed != list(range(20))
    assert sorted(mixed) == list(range(20))


async def test_similarities_are_float32_and_may_be_off(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    data = rows(4, 50)
    await tokens.insert_many(data, chunk_size=100)
    body = {"sort": {"v": [1.0] * DIM}, "options": {"limit": 200, "includeSimilarity": True}}

    async def found() -> np.ndarray[Any, Any]:
        reply = await tokens.command({"find": body})
        return np.array([float(row["$similarity"]) for row in reply["data"]["documents"]])

    exact = exact_similarities("dot_product", np.array([row["v"].data for row in data]), np.ones(DIM))
    exact = -np.sort(-exact)
    plain = await found()
    assert np.array_equal(plain, plain.astype(np.float32).astype(str).astype(float))
    np.testing.assert_allclose(plain, exact, atol=1e-6)
    server.settings.ann_rounding = 1e-3
    off = await found()
    assert 1e-5 < np.abs(off - exact).max() < 1.1e-3
    assert np.all(np.diff(off) <= 0)


async def test_guardrails_can_be_switched_off(server: DataApiServer, database: AsyncDatabase) -> None:
    server.settings.guardrails = False
    columns = {"k": "text"} | {f"c{n}": "int" for n in range(11)}
    table = await database.create_table("t", definition={"columns": columns, "primaryKey": "k"})
    for number in range(11):
        await table.create_index(f"i{number}", f"c{number}")
    assert len(await table.list_index_names()) == 11


async def test_definitions_take_time_and_are_repeated(server: DataApiServer, tokens: AsyncTable[Any]) -> None:
    server.settings.ddl_s = 0.1
    server.settings.faults = [Fault("repeat", "createIndex")]
    started = time.monotonic()
    assert await fails(tokens.create_index("i", "note")) == "CANNOT_ADD_EXISTING_INDEX"
    assert time.monotonic() - started >= 0.1
    assert "i" in await tokens.list_index_names()


async def test_a_definition_that_takes_too_long_takes_effect_all_the_same(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    server.settings.ddl_s, server.settings.ddl_timeout_s = 0.1, 0.05
    assert await fails(tokens.create_index("i", "note")) == "UNEXPECTED_DRIVER_ERROR"
    assert "i" in await tokens.list_index_names()
    started = time.monotonic()
    await tokens.create_index("i", "note", if_not_exists=True)
    assert time.monotonic() - started < 0.05  # It changes nothing.


async def test_beyond_so_many_rows_a_second_the_service_has_no_room(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    server.settings.rows_per_s = 100
    await tokens.insert_many(rows(1, 90), chunk_size=90)
    with pytest.raises(DataAPIHttpException) as refused:
        await tokens.insert_many(rows(1, 50), chunk_size=50)
    assert refused.value.response.status_code == 429
    await asyncio.sleep(0.5)
    await tokens.insert_many(rows(1, 50), chunk_size=50)


async def test_the_first_insert_into_a_new_table_may_fail(
    server: DataApiServer, tokens: AsyncTable[Any]
) -> None:
    server.settings.cold_tables = True
    body = {"documents": [{"doc_id": "a", "token_id": 0}]}
    assert await fails(raw(tokens, "insertMany", body)) == "UNEXPECTED_SERVER_ERROR"
    assert (await raw(tokens, "insertMany", body))["status"]["insertedIds"] == [["a", 0]]


async def test_refusals_carry_what_the_service_puts_beside_the_errors(tokens: AsyncTable[Any]) -> None:
    async def reply(command: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await tokens.command({command: body}, raise_api_errors=False)
        assert isinstance(answer, dict)
        return answer

    refused = await reply("createIndex", {"name": "new", "definition": {"column": "nowhere"}})
    assert refused["status"] == {"ok": 0}
    unindexed = {"filter": {"note": "x"}, "sort": {"v": [1.0] * DIM}}
    refused = await reply("find", unindexed)
    assert [one["errorCode"] for one in refused["status"]["warnings"]] == ["MISSING_INDEX"]
    refused = await reply("insertOne", {"document": {"doc_id": "a"}})
    assert refused.keys() == {"errors"}
