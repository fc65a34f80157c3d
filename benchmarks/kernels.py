"""Time MaxSim kernels beside the bare matrix product, one thread, interleaved: `python benchmarks/kernels.py`.

Times are CPU times, as ratios to `query @ tokens.T` over float32 tokens, medians; 1.0 is that product alone, which
`maxsim` can beat because it multiplies tiles that stay in the cache. "padded" is the usual zero-padded einsum.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import RaggedTokens
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack_many

SHAPES = [
    (32, 128, 80, 100),
    (32, 128, 80, 1000),
    (32, 128, 80, 10_000),
    (10, 128, 40, 1000),
    (20, 384, 80, 1000),
    (32, 128, 1030, 100),
]
REPEATS = 9


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def padded(query: np.ndarray, matrices: list[np.ndarray]) -> np.ndarray:
    """Score as earlier libraries do: pad to the longest document, multiply, take the maximum."""
    block = np.zeros((len(matrices), max(map(len, matrices)), query.shape[1]), np.float32)
    for i, matrix in enumerate(matrices):
        block[i, : len(matrix)] = matrix
    return np.einsum("qd,ntd->nqt", query, block, optimize=True).max(axis=2).sum(axis=1)


def main() -> None:
    rng = np.random.default_rng(0)
    table = Table(title="Time of MaxSim / time of the bare matrix product")
    for heading in (
        "query",
        "documents",
        "bare ms",
        "maxsim float32",
        "maxsim int8",
        "maxsim float16",
        "padded",
    ):
        table.add_column(heading, justify="right")
    with threadpool_limits(1):
        for n_query, dim, length, n_docs in SHAPES:
            lengths = rng.integers(length // 2, length * 3 // 2 + 1, n_docs)
            matrices = [unit(rng, n, dim) for n in lengths]
            query, full = unit(rng, n_query, dim), RaggedTokens.from_matrices(matrices)
            int8 = unpack_many([pack(matrix) for matrix in matrices])
            float16 = unpack_many([pack(matrix, "float16") for matrix in matrices])
            kernels: dict[str, Callable[[], object]] = {
                "bare": lambda q=query, d=full: q @ d.tokens.T,
                "float32": lambda q=query, d=full: maxsim(q, d),
                "int8": lambda q=query, d=int8: maxsim(q, d),
                "float16": lambda q=query, d=float16: maxsim(q, d),
                "padded": lambda q=query, m=matrices: padded(q, m),
            }
            times: dict[str, list[float]] = {name: [] for name in kernels}
            for _ in range(REPEATS):
                for name, kernel in kernels.items():
                    started = time.process_time()
                    kernel()
                    times[name].append(time.process_time() - started)
            median = {name: float(np.median(values)) for name, values in times.items()}
            table.add_row(
                f"{n_query} × {dim}",
                f"{n_docs:,} × {length}",
                f"{median['bare'] * 1e3:.1f}",
                *(
                    f"{median[name] / median['bare']:.2f}"
                    for name in ("float32", "int8", "float16", "padded")
                ),
            )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
