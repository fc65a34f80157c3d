"""Measure the latency of a search on Astra by tokens, and the recall of asking for less.

    python benchmarks/astra_latency.py [--matrices ../shared/data/tokens_5k.npz] [--queries 40] [--served 300]

Recall of the exact top 10 among the candidates is computed in numpy, with exact ANN over all documents, pooled by 2:

- query vectors closer than a distance share one ANN query (scores are of all vectors);
- the lists of frequent tokens, whose last similarity is highest, are shorter;
- stage 2 begins when a share of the lists is in.

Latency is that of the local Data API (tools/data_api), in a process of its own, over the first documents only, as it
scores every row of a list's table: what is compared is how long one waits, by requests and round trips.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import multiprocessing
import statistics
import time
from collections import defaultdict
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from astrapy import DataAPIClient
from tqdm import tqdm

from benchmarks.encoded import token_matrices
from late_interaction import LateInteractionPipeline, PrecomputedEmbeddings
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_document, pool_further, pool_query
from late_interaction.stores.astra import searching
from late_interaction.stores.astra.scaling import TOKENS_SCALING
from late_interaction.types import RaggedTokens

K = 10
DISTANCES = (0.0, 0.1, 0.2, 0.3, 0.4)
AT_DEFAULT = searching._ASKED_DISTANCE  # noqa: SLF001 - what is measured
LATENCIES_MS = (0, 5, 20)


def serve(pipe: Connection) -> None:
    """Run the local Data API; each message is a latency, and is answered by the requests since the last one."""
    from tools.data_api import DataApiServer

    async def run() -> None:
        async with DataApiServer() as server:
            pipe.send((server.endpoint, server.token, server.keyspace))
            while (latency_ms := await asyncio.to_thread(pipe.recv)) is not None:
                pipe.send((len(server.log.requests), server.log.rows_read))
                server.log.clear()
                server.settings.latency_ms = latency_ms

    with suppress(EOFError):
        asyncio.run(run())


def scores_of_lists(
    cosines: np.ndarray, weights: np.ndarray, depths: np.ndarray, owners: np.ndarray, n: int
) -> np.ndarray:
    """Return (n,) the documents' scores over the lists; what is in no list counts 0."""
    scores = np.zeros(n, np.float32)
    for row, weight, depth in zip(cosines, weights, depths, strict=True):
        listed = np.argpartition(-row, depth)[:depth]
        best = np.full(n, -2, np.float32)
        np.maximum.at(best, owners[listed], row[listed])
        scores += np.where(best > -2, weight * best, 0)
    return scores


def recall_of_less(documents: RaggedTokens, queries: np.ndarray) -> None:
    """Print the recall among the candidates, requests and rows, by what is asked for."""
    owners = np.repeat(np.arange(len(documents)), np.diff(documents.offsets))
    depth, n_candidates = TOKENS_SCALING.n_ann_tokens(K), TOKENS_SCALING.n_maxsim_candidates(K)
    found: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
    for matrix in tqdm(queries):
        query = pool_query(matrix, 0.03)
        exact = np.argsort(-maxsim(query.vectors, documents, query.weights), kind="stable")[:K]

        def add(
            what: str, cosines: np.ndarray, weights: np.ndarray, depths: np.ndarray, best: np.ndarray = exact
        ) -> None:
            scores = scores_of_lists(cosines, weights, depths, owners, len(documents))
            candidates = np.argsort(-scores, kind="stable")[:n_candidates]
            found[what].append((np.isin(best, candidates).mean(), len(cosines), depths.sum()))

        for distance in DISTANCES:
            asked, _ = pool_further(query, distance)
            cosines = asked.vectors @ documents.tokens.T
            depths = np.full(len(cosines), depth)
            add(f"one ANN query for vectors within {distance:g}", cosines, asked.weights, depths)
            if distance == AT_DEFAULT:
                longer = np.full(len(cosines), round(1.4 * depth))
                add(f"the same, and lists of {longer[0]}", cosines, asked.weights, longer)
            if distance:
                continue
            ends = np.partition(cosines, -depth, axis=1)[:, -depth]
            for share, short in ((0.5, 80), (0.5, 40), (0.75, 40)):
                depths = np.full(len(cosines), depth)
                depths[np.argsort(-ends)[: round(share * len(ends))]] = short
                add(f"lists of {short} for the {share:.0%} densest tokens", cosines, asked.weights, depths)
            order = np.random.default_rng(0).permutation(len(cosines))
            for share in (0.5, 0.8, 0.9):
                some = order[: round(share * len(order))]
                add(
                    f"stage 2 when {share:.0%} of the lists are in",
                    cosines[some],
                    asked.weights[some],
                    np.full(len(some), depth),
                )
    print(
        f"\n| of {len(documents):,} documents | recall of the top 10 | ANN queries | rows |\n|---|---|---|---|"
    )
    for what, values in found.items():
        recall, requests, rows = np.mean(values, axis=0)
        print(f"| {what} | {recall:.3f} | {requests:.1f} | {rows:,.0f} |")


async def latency(matrices: list[np.ndarray], queries: np.ndarray) -> None:
    """Print requests and milliseconds of a search, by the distance within which query vectors are asked for once."""
    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
    process.start()
    endpoint, token, keyspace = pipe.recv()
    database = DataAPIClient(token, environment="hcd").get_async_database(endpoint, keyspace=keyspace)
    model = PrecomputedEmbeddings(matrices[0].shape[1], "benchmark")
    async with LateInteractionPipeline(database, model) as pipeline:
        await pipeline.index_embeddings(
            [{"doc_id": str(i), "content": "x"} for i in range(len(matrices))], matrices
        )
        print("\n| latency | one ANN query for vectors within | requests | ms, median |\n|---|---|---|---|")
        for latency_ms in LATENCIES_MS:
            pipe.send(latency_ms)
            pipe.recv()
            took: dict[float, list[float]] = defaultdict(list)
            asked: dict[float, list[Any]] = defaultdict(list)
            for query, distance in itertools.product(queries, DISTANCES):
                searching._ASKED_DISTANCE = distance  # noqa: SLF001 - what is measured
                started = time.perf_counter()
                await pipeline.search_with_embeddings(query, k=K)
                took[distance].append(1000 * (time.perf_counter() - started))
                pipe.send(latency_ms)
                asked[distance].append(pipe.recv()[0])
            for distance in DISTANCES:
                requests, ms = statistics.mean(asked[distance]), statistics.median(took[distance])
                print(f"| {latency_ms} ms | {distance:g} | {requests:.1f} | {ms:.0f} |", flush=True)
    pipe.send(None)
    process.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--matrices", type=Path, default=Path("../shared/data/tokens_5k.npz"))
    parser.add_argument("--queries", type=int, default=40)
    parser.add_argument("--served", type=int, default=300, help="documents; 0 measures no latency")
    arguments = parser.parse_args()
    matrices, queries = token_matrices(arguments.matrices)
    queries = queries[: arguments.queries]
    if arguments.served:
        asyncio.run(latency(matrices[: arguments.served], queries))
    recall_of_less(RaggedTokens.from_matrices([pool_document(m, 2) for m in matrices]), queries)


if __name__ == "__main__":
    main()
