"""How searches that run side by side share the cores."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from late_interaction import PrecomputedEmbeddings, SyncPipeline
from late_interaction.cores import n_cores, product, side_by_side
from late_interaction.pooling import pool_document
from late_interaction.stores.local import store as local_store

rng = np.random.default_rng(0)


@pytest.fixture
def two_blas_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many multiplications each of the products has that BLAS is asked for."""
    asked, matmul = [], np.matmul

    def recorded(rows: Any, columns: Any, **kwargs: Any) -> Any:
        asked.append(rows.shape[-2] * rows.shape[-1] * columns.shape[-1])
        return matmul(rows, columns, **kwargs)

    monkeypatch.setattr(np, "matmul", recorded)
    return asked


@pytest.mark.usefixtures("two_blas_threads")
@pytest.mark.parametrize(
    ("n", "dim", "n_columns"),
    [
        (0, 128, 32),
        (1, 128, 32),
        (64, 128, 32),
        (65, 128, 32),
        (2048, 128, 28),
        (999, 96, 7),
        (500, 1024, 64),
        (9, 128, 0),
    ],
)
def test_a_product_is_the_same_alone_and_beside_others(n: int, dim: int, n_columns: int):
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    columns = rng.normal(size=(n_columns, dim)).astype(np.float32).T
    expected = rows.astype(np.float64) @ columns

    np.testing.assert_allclose(product(rows, columns), expected, atol=1e-3)
    with side_by_side(), side_by_side():
        out = np.full((n, n_columns), np.nan, np.float32)
        assert product(rows, columns, out) is out
        np.testing.assert_allclose(out, expected, atol=1e-3)
        np.testing.assert_allclose(product(rows[::3], columns), expected[::3], atol=1e-3)


@pytest.mark.usefixtures("two_blas_threads")
def test_from_a_second_search_on_until_there_is_none_products_are_small(products: list[int]):
    rows, columns = np.ones((2048, 128), np.float32), np.ones((128, 32), np.float32)

    def largest() -> int:
        products.clear()
        product(rows, columns)
        return max(products)

    whole = 2048 * 128 * 32
    assert largest() == whole
    with side_by_side():
        assert largest() == whole
        with side_by_side():
            assert largest() == 64 * 128 * 32
        assert largest() == 64 * 128 * 32
    assert largest() == whole
    with pytest.raises(ZeroDivisionError), side_by_side(), side_by_side():
        1 / 0  # noqa: B018
    with side_by_side():
        assert largest() == whole


def test_where_blas_has_one_thread_products_are_whole(products: list[int]):
    with threadpool_limits(1, user_api="blas"), side_by_side(), side_by_side():
        product(np.ones((2048, 128), np.float32), np.ones((128, 32), np.float32))
    assert products == [2048 * 128 * 32]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.usefixtures("two_blas_threads")
def test_a_forked_child_counts_from_none(products: list[int]):
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(side_by_side())
        child = os.fork()
        if child == 0:
            with side_by_side():
                product(np.ones((2048, 128), np.float32), np.ones((128, 32), np.float32))
            os._exit(0 if products == [2048 * 128 * 32] else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.usefixtures("two_blas_threads")
def test_searches_of_a_folder_are_few_at_a_time_and_share_the_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, products: list[int]
):
    find, guard, now, most = local_store.find_candidates, threading.Lock(), 0, 0

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal now, most
        with guard:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        try:
            return find(*args, **kwargs)
        finally:
            with guard:
                now -= 1

    monkeypatch.setattr(local_store, "find_candidates", counted)
    vectors = rng.normal(size=(60, 40, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    with SyncPipeline(tmp_path, PrecomputedEmbeddings(64, "made"), doc_pool_factor=1) as pipeline:
        pipeline.index_embeddings([{"doc_id": str(i), "content": "x"} for i in range(60)], list(vectors))
        products.clear()
        alone = pipeline.search_with_embeddings(vectors[7], k=3)
        assert max(products) == 60 * 40 * 64 * 40
        products.clear()
        with ThreadPoolExecutor(4 * n_cores()) as pool:
            found = list(
                pool.map(lambda _: pipeline.search_with_embeddings(vectors[7], k=3), range(8 * n_cores()))
            )
    assert 1 < most <= n_cores() + 1
    assert min(products) <= 1 << 18
    for results in found:
        assert [result.doc_id for result in results] == [result.doc_id for result in alone]
        assert [result.score for result in results] == pytest.approx([result.score for result in alone])


@pytest.mark.usefixtures("two_blas_threads")
def test_a_document_is_pooled_on_one_core(products: list[int]):
    matrix = rng.normal(size=(150, 128)).astype(np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    assert len(pool_document(matrix, 2)) == 75
    assert products
    assert max(products) <= 1 << 18
