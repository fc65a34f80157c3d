"""The switches: recall, delay, latency."""

import asyncio
import math
from typing import Any

import numpy as np
from astrapy import AsyncTable
from astrapy.data_types import DataAPIVector

from tools.data_api import DataApiServer, Settings
from tools.data_api.tests.helpers import (
    DIM,
    exact_similarities,
    make_tokens,
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
