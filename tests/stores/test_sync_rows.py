"""SyncPipeline: rows from generators, which run in the caller's thread."""

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from late_interaction import PrecomputedEmbeddings
from late_interaction.errors import LateInteractionError
from late_interaction.portal import LoopPortal
from late_interaction.sync import SyncPipeline
from tests.support.sync import ROWS, make


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[SyncPipeline]:
    with make(tmp_path) as pipeline:
        yield pipeline


@pytest.fixture
def filled(pipeline: SyncPipeline) -> SyncPipeline:
    pipeline.index_documents(ROWS)
    return pipeline


def test_a_generator_runs_in_the_callers_thread_and_leaves_the_portal_free(pipeline: SyncPipeline) -> None:
    threads, counted_by_others = set(), []

    def rows() -> Iterator[dict[str, Any]]:
        for row in ROWS:
            threads.add(threading.get_ident())
            with ThreadPoolExecutor(1) as other:  # while this generator waits, others are served
                counted_by_others.append(other.submit(pipeline.count).result(timeout=10))
            pipeline.search("word1")  # and it may call the pipeline that waits for it
            yield row

    assert pipeline.index_documents(rows(), batch_size=7) == [row["doc_id"] for row in ROWS]
    assert threads == {threading.get_ident()}
    assert counted_by_others[0] == 0
    assert counted_by_others[-1] >= 7
    assert pipeline.count() == 30


def test_a_generator_is_taken_a_batch_at_a_time(pipeline: SyncPipeline) -> None:
    taken = 0

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal taken
        for row in ROWS:
            assert taken - pipeline.count() <= 3 * 4
            taken += 1
            yield row

    pipeline.index_documents(rows(), batch_size=4)
    assert taken == 30


@pytest.mark.parametrize("n", [0, 1, 4, 5, 8])
def test_any_number_of_rows(pipeline: SyncPipeline, n: int) -> None:
    assert len(pipeline.index_documents(iter(ROWS[:n]), batch_size=4)) == n
    assert pipeline.count() == n


def test_rows_that_know_their_number_show_it(
    pipeline: SyncPipeline, capfd: pytest.CaptureFixture[str]
) -> None:
    class Sized:
        def __len__(self) -> int:
            return 30

        def __iter__(self) -> Iterator[dict[str, Any]]:
            return iter(ROWS)

    pipeline.index_documents(Sized(), show_progress=True)  # type: ignore[arg-type]
    assert "30/30" in capfd.readouterr().err


def test_a_generator_may_fill_one_dict_and_one_array_for_all(tmp_path: Path) -> None:
    row: dict[str, Any] = {}
    matrix, unit = np.zeros((1, 8), np.float32), np.eye(8, dtype=np.float32)

    def rows() -> Iterator[dict[str, Any]]:
        for i in range(8):
            row.update(doc_id=str(i), content=f"text {i}")
            yield row

    def matrices() -> Iterator[np.ndarray]:
        for i in range(8):
            matrix[:] = unit[i]
            yield matrix

    async def rows_on_the_loop() -> AsyncIterator[dict[str, Any]]:
        for one in rows():
            yield one

    model = PrecomputedEmbeddings(8, "mine")
    with SyncPipeline(tmp_path, model) as pipeline:
        for given in (rows, rows_on_the_loop):
            pipeline.index_embeddings(given(), matrices())
            assert [(d.doc_id, d.content) for d in pipeline.find()] == [
                (str(i), f"text {i}") for i in range(8)
            ]
            for i in range(8):
                assert pipeline.search_with_embeddings(unit[i : i + 1], k=1)[0].doc_id == str(i)
            pipeline.clear()
        assert pipeline.index_embeddings(list(rows()), torch.eye(8)[:, None]) == ["7"] * 8


class Table:
    """What a DataFrame has that tells what it is; it iterates over its columns."""

    columns = ("doc_id", "content")

    def to_dict(self, orient: str = "dict") -> object:
        return [] if orient == "records" else {}

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


class Polars(Table):
    def to_dicts(self) -> list[dict[str, Any]]:
        return []


@pytest.mark.parametrize(("table", "rows"), [(Table(), r'to_dict\("records"\)'), (Polars(), r"to_dicts\(\)")])
def test_a_table_is_refused_and_its_rows_are_named(pipeline: SyncPipeline, table: Any, rows: str) -> None:
    calls: list[Callable[[Any], object]] = [
        pipeline.add,
        pipeline.index_documents,
        pipeline.sync,
        lambda table: pipeline.run(lambda inner: inner.add(table)),
        lambda table: pipeline.run(lambda inner: inner.index_documents(table, on_error="raise")),
        lambda table: pipeline.run(lambda inner: inner.sync(table)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match=rows):
            call(table)
    assert pipeline.count() == 0


def test_an_error_of_the_generator_comes_through(pipeline: SyncPipeline) -> None:
    class OwnError(Exception):
        pass

    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS[:10]
        raise OwnError("why")

    with pytest.raises(OwnError, match="why") as caught:
        pipeline.index_documents(rows(), batch_size=4)
    assert pipeline.count() == 10
    assert vars(caught.value)["indexed"] == [row["doc_id"] for row in ROWS[:10]]
    assert pipeline.index_documents(ROWS, skip_existing=True) == [row["doc_id"] for row in ROWS]


def test_an_interrupt_in_the_generator_ends_the_call(pipeline: SyncPipeline) -> None:
    def rows() -> Iterator[dict[str, Any]]:
        yield from ROWS[:10]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.index_documents(rows(), batch_size=4)
    assert pipeline.index_documents(ROWS) == [row["doc_id"] for row in ROWS]
    assert pipeline.count() == 30


def test_a_portal_that_closes_ends_the_call(tmp_path: Path) -> None:
    portal = LoopPortal()
    pipeline = make(tmp_path, portal=portal)
    pipeline.initialize()

    def rows() -> Iterator[dict[str, Any]]:
        yield ROWS[0]
        with ThreadPoolExecutor(1) as other:
            other.submit(portal.close).result()
        yield ROWS[1]

    with pytest.raises(LateInteractionError, match="portal is closed"):
        pipeline.index_documents(rows(), batch_size=1)
