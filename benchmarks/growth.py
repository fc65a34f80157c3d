"""Measure what one more document costs as the embedded store grows: its write, and the first search afterwards.

    python benchmarks/growth.py --documents 1000 8000 40000 80000

Documents are made up: 8 tokens of 32 dimensions. No encoder runs. Times are medians in milliseconds of the whole call
through the pipeline, one thread.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import Document, EncodedDocument, LateInteractionPipeline, PrecomputedEmbeddings

DIM, TOKENS, ROUNDS = 32, 8, 15


def matrix(seed: int, n: int = TOKENS) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await call()
    return (time.perf_counter() - started) * 1e3


async def measure(n: int, folder: Path) -> list[str]:
    model = PrecomputedEmbeddings(DIM, "made up")
    async with LateInteractionPipeline(folder, model, doc_pool_factor=1) as pipeline:
        for first in range(0, n, 2000):
            batch = [
                EncodedDocument(Document(str(i), f"document {i}", metadata={"half": i % 2}), matrix(i))
                for i in range(first, min(first + 2000, n))
            ]
            await pipeline.store.upsert(batch)
        started = time.perf_counter()
        await pipeline.optimize()
        build_s = time.perf_counter() - started
        query = matrix(10**9, 6)

        async def write(i: int) -> None:
            row = {"doc_id": f"new {i}", "content": "new", "metadata": {"half": 1}}
            await pipeline.index_embeddings([row], [matrix(n + i)])

        async def search() -> None:
            await pipeline.search_with_embeddings(query, 10)

        async def filtered() -> None:
            await pipeline.search_with_embeddings(query, 10, filter={"half": 0})

        await search()
        await filtered()
        times: dict[str, list[float]] = {"write": [], "first": [], "next": [], "filter": [], "delete": []}
        for i in range(ROUNDS):
            times["write"].append(await timed(lambda i=i: write(i)))
            times["first"].append(await timed(search))
            times["next"].append(await timed(search))
            times["filter"].append(await timed(filtered))
            times["delete"].append(await timed(lambda i=i: pipeline.delete_documents([f"{i}"])))
    return [f"{n:,}", *(f"{np.median(values):.1f}" for values in times.values()), f"{build_s:.1f}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="*", default=[1000, 8000, 40_000, 80_000])
    arguments = parser.parse_args()
    table = Table(title="One more document, ms")
    for heading in (
        "documents", "index one", "first search after it", "next search", "filter asked before",
        "delete one", "build s",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for n in arguments.documents:
            table.add_row(*asyncio.run(measure(n, Path(folder, str(n)))))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
