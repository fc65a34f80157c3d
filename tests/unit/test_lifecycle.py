"""Opening at the first use: once, however many come first together."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from late_interaction import IndexSpec, LateInteractionPipeline, LocalStore, StoreError, SyncPipeline
from late_interaction.lifecycle import FirstUse
from tests.support.models import HashModel


class Opening:
    """Counts openings, the first of which fail."""

    def __init__(self, failures: int = 0) -> None:
        self.opened, self.closed, self.failures = 0, 0, failures
        self.now = self.most = 0

    async def open(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.02)
        self.now -= 1
        if self.failures:
            self.failures -= 1
            raise StoreError("not yet")
        self.opened += 1

    async def close(self) -> None:
        assert self.now == 0
        await asyncio.sleep(0.01)
        self.closed += 1


async def test_many_tasks_open_once() -> None:
    opening = Opening()
    first_use = FirstUse(opening.open)
    await asyncio.gather(*(first_use() for _ in range(50)))
    await first_use()
    assert (opening.opened, opening.most) == (1, 1)


@pytest.mark.slow
def test_many_threads_and_loops_open_once() -> None:
    for _ in range(20):
        opening, ready = Opening(), threading.Barrier(8)
        first_use = FirstUse(opening.open)

        def use(_: int, first_use: FirstUse = first_use, ready: threading.Barrier = ready) -> None:
            async def main() -> None:
                await asyncio.gather(first_use(), first_use())

            ready.wait()
            asyncio.run(main())

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(use, range(8)))
        assert (opening.opened, opening.most) == (1, 1)


async def test_all_that_wait_hear_of_a_failure_and_the_next_use_tries_again() -> None:
    opening = Opening(failures=1)
    first_use = FirstUse(opening.open)
    results = await asyncio.gather(*(first_use() for _ in range(5)), return_exceptions=True)
    assert [str(result) for result in results] == ["not yet"] * 5
    await first_use()
    assert (opening.opened, opening.most) == (1, 1)


async def test_a_cancelled_first_use_leaves_its_place_to_the_next() -> None:
    opening = Opening()
    first_use = FirstUse(opening.open)
    first = asyncio.create_task(first_use())
    others = [asyncio.create_task(first_use()) for _ in range(3)]
    await asyncio.sleep(0.005)
    first.cancel()
    others[0].cancel()
    results = await asyncio.gather(first, *others, return_exceptions=True)
    assert [isinstance(result, asyncio.CancelledError) for result in results] == [True, True, False, False]
    assert opening.opened == 1


async def test_a_change_waits_for_an_opening_and_the_next_use_opens_again() -> None:
    opening = Opening()
    first_use = FirstUse(opening.open)
    await asyncio.gather(first_use(), first_use.instead(opening.close), first_use.instead(opening.close))
    await first_use()
    assert (opening.opened, opening.closed, opening.most) == (2, 2, 1)
    await first_use.again()
    assert (opening.opened, opening.most) == (3, 1)


class Counting(LocalStore):
    opened = 0

    async def open(self, spec: IndexSpec) -> None:
        type(self).opened += 1
        await asyncio.sleep(0.01)
        await super().open(spec)


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    Counting.opened = 0
    return Counting(tmp_path)


async def test_a_pipeline_opens_at_its_first_use_once(store: LocalStore) -> None:
    pipeline = LateInteractionPipeline(store, HashModel())
    assert not store.folder.exists()
    rows = [{"doc_id": str(n), "content": f"word{n}"} for n in range(8)]
    await asyncio.gather(*(pipeline.index_document(row) for row in rows), pipeline.search("word1"))
    assert (Counting.opened, await pipeline.count()) == (1, 8)
    await pipeline.initialize()
    assert (await pipeline.search("word1", k=1))[0].doc_id == "1"
    await pipeline.aclose()
    for use in (pipeline.count(), pipeline.search("x"), pipeline.index_documents(rows), pipeline.clear()):
        with pytest.raises(StoreError, match=r"is closed: call initialize\(\) to open it again"):
            await use
    async with pipeline:
        assert await pipeline.count() == 8


def test_a_sync_pipeline_opens_at_its_first_use_once(store: LocalStore) -> None:
    pipeline = SyncPipeline(store, HashModel())
    ready = threading.Barrier(8)

    def use(n: int) -> Any:
        ready.wait()
        return pipeline.index_document({"doc_id": str(n), "content": "word"}) if n % 2 else pipeline.count()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(use, range(8)))
    assert (Counting.opened, pipeline.count()) == (1, 4)
    pipeline.drop()
    assert not store.folder.exists()
    assert pipeline.index_document({"doc_id": "new", "content": "word"}) == "new"
    assert pipeline.count() == 1
    pipeline.close()


async def test_wrong_arguments_open_nothing(store: LocalStore) -> None:
    pipeline = LateInteractionPipeline(store, HashModel())
    for call in (
        pipeline.search("x", k=0),
        pipeline.find(limit=-1),
        pipeline.count({"$or": []}),
        pipeline.get_documents("abc"),
        pipeline.update_metadata("a", {"b": object()}),
        pipeline.index_documents([], batch_size=0),
    ):
        with pytest.raises((ValueError, TypeError)):
            await call
    assert Counting.opened == 0
