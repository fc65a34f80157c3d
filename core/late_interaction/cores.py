"""How searches that run side by side share the cores.

OpenBLAS, which NumPy brings, computes a product by one thread for each core, and these spin while they wait for each
other. A search that is alone is a little faster for it. Searches side by side are slowed down: on two cores, four
threads did two thirds of what they do with one core each (docs/speed.md). What is small OpenBLAS leaves to the thread
that asks. So a search that is not alone, and pooling, have their products computed in small pieces, by one call of
NumPy.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from late_interaction.types import FloatMatrix

_SMALL = 1 << 18
"""How many multiplications OpenBLAS leaves to the thread that asks (`GEMM_MULTITHREAD_THRESHOLD` · 65,536)."""
_ROWS = 8
"""Pieces have a multiple of so many rows, as many as the kernels take at a time."""


class _Searches:
    """How many compute now, and whether each has one core for its products."""

    def __init__(self) -> None:
        self.begin_anew()

    def begin_anew(self) -> None:
        """Count from none, as in a child of a fork: it has none of the parent's threads, nor what they hold."""
        self.lock = threading.Lock()
        self.n = 0
        self.share = False


_searches = _Searches()
if hasattr(os, "register_at_fork"):  # There is no fork on Windows.
    os.register_at_fork(after_in_child=_searches.begin_anew)


def n_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def side_by_side() -> Iterator[None]:
    """Compute a search; from when there is another one until there is none, each has one core for its products."""
    with _searches.lock:
        _searches.n += 1
        _searches.share = _searches.share or (_searches.n > 1 and _blas_threads() > 1)
    try:
        yield
    finally:
        with _searches.lock:
            _searches.n -= 1
            _searches.share = _searches.share and _searches.n > 0


def product(
    rows: FloatMatrix, columns: FloatMatrix, out: FloatMatrix | None = None, *, one_core: bool = False
) -> FloatMatrix:
    """Return `rows @ columns`, on one core while searches share them.

    Args:
        rows: (n, dim) float32.
        columns: (dim, m) float32.
        out: (n, m) float32, where the product is written; None for a new one.
        one_core: compute on one core in any case.
    """
    (n, dim), n_columns = rows.shape, columns.shape[1]
    if out is None:
        out = np.empty((n, n_columns), np.float32)
    whole = 0
    if one_core or _searches.share:
        piece = _SMALL // max(1, dim * n_columns) // _ROWS * _ROWS
        whole = n - n % piece if piece else 0
    if whole:
        np.matmul(
            rows[:whole].reshape(-1, piece, dim), columns, out=out[:whole].reshape(-1, piece, n_columns)
        )
    if whole < n:
        np.matmul(rows[whole:], columns, out=out[whole:])
    return out


def _blas_threads() -> int:
    """Return how many threads NumPy's BLAS uses at most, 1 if it does not tell."""
    return max((library.num_threads or 1 for library in _blas()), default=1)


@functools.cache
def _blas() -> list[Any]:
    from threadpoolctl import ThreadpoolController

    libraries: list[Any] = ThreadpoolController().select(internal_api="openblas").lib_controllers
    return libraries
