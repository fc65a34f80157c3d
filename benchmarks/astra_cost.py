"""Count what searching and indexing on Astra cost: requests, rows, bytes on the wire, CPU of the client.

    python benchmarks/astra_cost.py [--documents 2000] [--queries 10] [--matrices ../shared/data/tokens_5k.npz]

The local Data API (tools/data_api) runs in a process of its own, so the CPU time is the client's alone. The older
scheme is benchmarks/astra_baseline.py, with the same stage 1 and as many candidates. The last table is arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from astrapy import AsyncDatabase, DataAPIClient

import benchmarks.astra_baseline as baseline
from benchmarks.encoded import token_matrices
from late_interaction import (
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    SearchResults,
    SearchStats,
)
from late_interaction.pooling import pool_query
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.scaling import TOKENS_SCALING

COUNTS = ("requests", "rows", "of them in ANN lists", "other rows", "KB sent", "KB received", "CPU ms")
K = 10
LIMITS = Limits()
TOKEN_ROW_BYTES = 2700
"""Of 128 dims, with its part of the vector index, before compaction: 218,000 rows took 590 MB on the real engine."""


def serve(pipe: Connection) -> None:
    """Run the local Data API, and answer each message with the counts since the last one."""
    from tools.data_api import DataApiServer

    async def run() -> None:
        async with DataApiServer() as server:
            pipe.send((server.endpoint, server.token, server.keyspace))
            while await asyncio.to_thread(pipe.recv):
                log = server.log
                rows = log.rows_read + log.rows_written
                # Only ANN queries are sorted here.
                in_lists = sum(request.rows_read for request in log.requests if request.body.get("sort"))
                pipe.send((len(log.requests), rows, in_lists, rows - in_lists, log.bytes_in, log.bytes_out))
                log.clear()

    with suppress(EOFError):
        asyncio.run(run())


async def measured(pipe: Connection, n: int, work: Callable[[], Awaitable[Any]]) -> tuple[list[float], Any]:
    """Return the cost of the work divided by `n`, and what the work returned."""
    pipe.send(True)
    pipe.recv()
    started = time.process_time()
    result = await work()
    cpu_ms = (time.process_time() - started) * 1000
    pipe.send(True)
    *counts, bytes_in, bytes_out = pipe.recv()
    return [value / n for value in (*counts, bytes_in / 1000, bytes_out / 1000, cpu_ms)], result


def table(title: str, lines: dict[str, list[float]]) -> None:
    # Nothing is searched while indexing, and all rows are other rows.
    searched = any(values[2] for values in lines.values())
    shown = [i for i in range(len(COUNTS)) if searched or i not in (2, 3)]
    print(f"\n| {title} | {' | '.join(COUNTS[i] for i in shown)} |\n|{'---|' * (len(shown) + 1)}")
    for name, values in lines.items():
        cells = (f"{values[i]:,.1f}" if values[i] < 100 else f"{values[i]:,.0f}" for i in shown)
        print(f"| {name} | {' | '.join(cells)} |")


def growth() -> None:
    """Print what follows from the defaults at k = 10, for 40 stored tokens of 128 dims a document and 32 query vectors.

    Units are those that DataStax documented for Astra's serverless plans: a read for each 4 KB that a request
    returns, a write for each 1 KB of a row, and one more write for each index on it.
    """
    tokens, vectors, scaling = 40, 32, TOKENS_SCALING
    depth, candidates = scaling.n_ann_tokens(K), scaling.n_maxsim_candidates(K)
    packed, content = 16 + tokens * 132, 1000
    requests = vectors + math.ceil(candidates / LIMITS.ids) + 1
    units = vectors * math.ceil(depth * 60 / 4096)
    units += math.ceil(candidates * packed / 4096) + math.ceil(K * content / 4096)
    print(
        f"\nk = {K}: {requests} requests and about {units} read units a search, however many documents there are"
    )
    print(
        "\n| documents | token rows | GB | write units to load | requests to load | requests to count | doctor --full |"
    )
    print("|---|---|---|---|---|---|---|")
    for exponent in range(4, 10):
        n = 10**exponent
        size = n * (tokens * TOKEN_ROW_BYTES + packed + content) / 1e9
        writes = n * (tokens * 2 + math.ceil((packed + content) / 1000))
        to_load = n * tokens // LIMITS.rows + 2 * n // LIMITS.ids
        full = n * (tokens + 1) // LIMITS.ids
        counts = (f"{value:.0e}" for value in (writes, to_load, n / LIMITS.ids, full))
        print(f"| 10^{exponent} | {n * tokens:.0e} | {size:,.1f} | {' | '.join(counts)} |")


async def ours(pipeline: LateInteractionPipeline, queries: np.ndarray) -> list[SearchResults]:
    return [await pipeline.search_with_embeddings(query, k=K) for query in queries]


async def theirs(
    database: AsyncDatabase, name: str, queries: np.ndarray, stats: SearchStats
) -> list[list[tuple[str, float, str]]]:
    """Run the same queries with the baseline, one after the other, with as many tokens and candidates."""
    return [
        await baseline.search(
            database,
            name,
            pool_query(query, 0.03),
            K,
            n_ann_tokens=stats.n_ann_tokens or 0,
            n_candidates=stats.n_candidates,
        )
        for query in queries
    ]


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--baseline-queries", type=int, default=2)
    parser.add_argument("--matrices", type=Path, default=Path("../shared/data/tokens_5k.npz"))
    arguments = parser.parse_args()
    matrices, queries = token_matrices(arguments.matrices, arguments.documents)
    rows = [{"doc_id": f"doc-{i}", "content": f"passage {i} " * 40} for i in range(len(matrices))]
    queries = queries[: arguments.queries]

    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
    process.start()
    endpoint, token, keyspace = pipe.recv()

    def database() -> AsyncDatabase:
        return DataAPIClient(token, environment="hcd").get_async_database(endpoint, keyspace=keyspace)

    indexing, searching = {}, {}
    for factor in (1, 2, 3):
        n = len(rows) if factor == 1 else len(rows) // 4
        name = f"factor_{factor}"
        model = PrecomputedEmbeddings(128, "benchmark")
        async with LateInteractionPipeline(database(), model, name, doc_pool_factor=factor) as pipeline:
            load = partial(pipeline.index_embeddings, rows[:n], matrices[:n])
            indexing[f"pool factor {factor}"], _ = await measured(pipe, n, load)
            if factor == 1:
                await ours(pipeline, queries[:1])
                searching["ours"], found = await measured(
                    pipe, len(queries), partial(ours, pipeline, queries)
                )
                few, stats = queries[: arguments.baseline_queries], found[0].stats
                older = partial(theirs, database(), name, few, stats)
                searching["older scheme"], old = await measured(pipe, len(few), older)
                for mine, other_ones in zip(found, old, strict=False):
                    agree = len({r.doc_id for r in mine} & {doc_id for doc_id, _, _ in other_ones})
                    assert agree >= K - 1, "both schemes find the same documents"
    pairs = zip(searching["ours"], searching["older scheme"], strict=True)
    searching["times less"] = [older_cost / our_cost for our_cost, older_cost in pairs]
    print(
        f"{len(rows):,} documents of {np.mean(list(map(len, matrices))):.0f} tokens, 128 dims; k = {K}, defaults"
    )
    print(
        f"{stats.n_query_vectors} query vectors, {stats.n_ann_tokens} tokens each, {stats.n_candidates} candidates"
    )
    table("search, per query", searching)
    table("indexing, per document", indexing)
    growth()
    pipe.send(False)
    process.join()


if __name__ == "__main__":
    asyncio.run(main())
