"""Count what searching and indexing on Astra cost: requests, rows, bytes on the wire, CPU of the client; and recall.

    python benchmarks/astra_cost.py [--documents 2000] [--queries 10] [--matrices ../shared/data/tokens_5k.npz]
    python benchmarks/astra_cost.py --judged cranfield cisi [--cache FOLDER] [--schemes documents]

Three columns: document vectors, token rows, and the older scheme (benchmarks/astra_baseline.py), which has the stage 1
of token rows with as many tokens and candidates. All have documents pooled by 2. The local Data API (tools/data_api)
runs in a process of its own, so the CPU time is the client's alone. Documents come in the order of the file, and
document vectors are fitted by themselves meanwhile, as in an index that is just loaded. Recall is that of the exact
top 10, by MaxSim over the documents as they are packed. The last table is arithmetic.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from astrapy import AsyncDatabase, DataAPIClient

import benchmarks.astra_baseline as baseline
from benchmarks.encoded import DATA, collection, demo_model, encoded, token_matrices
from late_interaction import (
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    QueryVectors,
    RaggedTokens,
    SearchResults,
    SearchStats,
)
from late_interaction.evaluation.collections import Qrels
from late_interaction.evaluation.metrics import Run, evaluate
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack
from late_interaction.pooling import pool_document, pool_query
from late_interaction.reduction import WIDTH
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.scaling import TOKENS_SCALING, documents_scaling
from late_interaction.types import FloatMatrix

COUNTS = ("requests", "rows", "of them in ANN lists", "other rows", "KB sent", "KB received", "CPU ms")
OLDER = "older scheme"
SCHEMES = ("documents", "tokens", OLDER)
K = 10
QUALITIES = (f"recall@{K}", f"nDCG@{K}", f"nDCG@{K} of exact search")
POOL = 2
N_OLDER = 200
"""Documents that the older scheme writes, to count."""
LIMITS = Limits()
TOKEN_ROW_BYTES = 2700
"""Of 128 dims, with its part of the vector index, before compaction: 218,000 rows took 590 MB on the real engine."""


@dataclass
class Collection:
    """Token matrices as they are encoded, texts and queries by id, and judgments where there are some."""

    name: str
    texts: dict[str, str]
    matrices: list[FloatMatrix]
    queries: dict[str, FloatMatrix]
    qrels: Qrels | None = None


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


def table(title: str, names: tuple[str, ...], columns: dict[str, list[float]]) -> None:
    """Print a line for each name, but for those in which nothing is counted."""
    print(f"\n| {title} | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for name, *values in zip(names, *columns.values(), strict=False):
        if not any(value > 0 for value in values):
            continue
        digits = 3 if "@" in name else 1
        cells = (f"{value:,.{digits if value < 100 else 0}f}" for value in values)
        print(f"| {name} | {' | '.join(cells)} |")


def of_tokens_5k(path: Path, n_documents: int, n_queries: int) -> Collection:
    matrices, queries = token_matrices(path, n_documents)
    texts = {f"doc-{i}": f"passage {i} " * 40 for i in range(len(matrices))}
    return Collection("tokens_5k", texts, matrices, {f"q{i}": queries[i] for i in range(n_queries)})


def of_judged(name: str, cache: Path) -> Collection:
    judged = collection(name)
    documents, queries = encoded(judged, demo_model(), cache)
    matrices = [documents.matrix(i) for i in range(len(documents))]
    return Collection(name, judged.documents, matrices, queries, judged.qrels)


async def compare(
    some: Collection,
    schemes: list[str],
    n_older: int,
    pipe: Connection,
    database: Callable[[], AsyncDatabase],
) -> None:
    """Index a collection in each scheme, search it, and print both tables; the older scheme gets `n_older` queries."""
    rows = [{"doc_id": doc_id, "content": text} for doc_id, text in some.texts.items()]
    stored = RaggedTokens.from_matrices([unpack(pack(pool_document(one, POOL))) for one in some.matrices])
    queries = {query_id: pool_query(query, 0.03) for query_id, query in some.queries.items()}
    exact = {query_id: best(list(some.texts), stored, query) for query_id, query in queries.items()}
    dim = stored.tokens.shape[1]
    model = PrecomputedEmbeddings(dim, "benchmark")
    indexing: dict[str, list[float]] = {}
    searching: dict[str, list[float]] = {}
    stats = SearchStats()
    for scheme in schemes:
        if scheme == OLDER:
            few = dict(list(queries.items())[:n_older])
            # Stage 1 reads the token rows of ours; and what is written goes to an index of its own.
            cost, runs = await measured(pipe, len(few), partial(theirs, database(), some.name, few, stats))
            searching[scheme] = [*cost, *quality(some, runs, exact)]
            name, matrices = f"{some.name}_older", [stored.matrix(i) for i in range(min(len(rows), N_OLDER))]
            async with LateInteractionPipeline(database(), model, name, doc_pool_factor=POOL):
                load = partial(baseline.load, database(), name, rows[:N_OLDER], matrices)
                indexing[scheme], _ = await measured(pipe, len(matrices), load)
            continue
        name = some.name if scheme == "tokens" else f"{some.name}_documents"
        async with LateInteractionPipeline(
            database(), model, name, doc_pool_factor=POOL, candidates=scheme
        ) as pipeline:
            load = partial(pipeline.index_embeddings, rows, some.matrices)
            indexing[scheme], _ = await measured(pipe, len(rows), load)
            await ours(pipeline, dict(list(some.queries.items())[:1]))
            cost, found = await measured(pipe, len(queries), partial(ours, pipeline, some.queries))
        stats = next(iter(found.values())).stats
        runs = {query_id: {one.doc_id: one.score for one in results} for query_id, results in found.items()}
        searching[scheme] = [*cost, *quality(some, runs, exact)]
    print(
        f"\n{some.name}: {len(rows):,} documents of {len(stored.tokens) / len(rows):.0f} stored tokens, {dim} dims; "
        f"{len(queries)} queries of {np.mean([len(one.vectors) for one in queries.values()]):.0f} vectors"
    )
    table("search, per query", (*COUNTS, *QUALITIES), searching)
    kept = [i for i, name in enumerate(COUNTS) if name not in ("of them in ANN lists", "other rows")]
    written = {scheme: [costs[i] for i in kept] for scheme, costs in indexing.items()}
    table("indexing, per document", tuple(COUNTS[i] for i in kept), written)


def best(doc_ids: list[str], documents: RaggedTokens, query: QueryVectors) -> dict[str, float]:
    scores = maxsim(query.vectors, documents, query.weights)
    return {doc_ids[i]: float(scores[i]) for i in np.argsort(-scores, kind="stable")[:K]}


def quality(some: Collection, runs: Run, exact: Run) -> list[float]:
    """Return the share of the exact top 10 that is found, and nDCG@10 of what is found and of the exact top 10."""
    recall = float(np.mean([len(runs[query_id].keys() & exact[query_id].keys()) / K for query_id in runs]))
    if some.qrels is None:
        return [recall, math.nan, math.nan]
    qrels = {query_id: some.qrels[query_id] for query_id in runs}
    of_exact = {query_id: exact[query_id] for query_id in runs}
    return [recall, *(evaluate(one, qrels)["ndcg@10"] for one in (runs, of_exact))]


async def ours(
    pipeline: LateInteractionPipeline, queries: Mapping[str, FloatMatrix]
) -> dict[str, SearchResults]:
    return {
        query_id: await pipeline.search_with_embeddings(query, k=K) for query_id, query in queries.items()
    }


async def theirs(
    database: AsyncDatabase, name: str, queries: Mapping[str, QueryVectors], stats: SearchStats
) -> Run:
    """Run queries with the baseline, one after the other, with as many tokens and candidates as ours by tokens."""
    runs: Run = {}
    for query_id, query in queries.items():
        found = await baseline.search(
            database,
            name,
            query,
            K,
            n_ann_tokens=stats.n_ann_tokens or 0,
            n_candidates=stats.n_candidates,
        )
        runs[query_id] = {doc_id: score for doc_id, score, _ in found}
    return runs


def growth() -> None:
    """Print what follows from the defaults at k = 10, for 40 stored tokens of 128 dims a document and 32 query vectors.

    Units are those that DataStax documented for Astra's serverless plans: a read for each 4 KB that a request
    returns, a write for each 1 KB of a row, and one more write for each index on it.
    """
    tokens, vectors = 40, 22  # ANN queries for 32 query vectors, as those near to each other share one.
    packed, content = 16 + tokens * 132, 1000
    row = packed + content
    # The vector and its part of the index, as many times its bytes as with token rows.
    vector = WIDTH * 4 * TOKEN_ROW_BYTES / (128 * 4)
    print(
        "\n| documents | scheme | rows | GB | requests a search | read units a search | write units to load | "
        "requests to load | requests to count | doctor --full |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for exponent in range(4, 10):
        n = 10**exponent
        scaling = documents_scaling(n)
        candidates = min(scaling.n_ann_tokens(K), scaling.n_maxsim_candidates(K))
        inline = candidates * packed * 4 / 3 <= LIMITS.ann_bytes
        groups = (
            0 if inline else math.ceil(candidates / min(LIMITS.ids, LIMITS.read_bytes // (packed * 4 // 3)))
        )
        # One ANN query, documents without a vector, the candidates' matrices where they do not come along, the top k.
        requests = 1 + 1 + groups + 1
        units = math.ceil(candidates * packed / 4096) + 1 + math.ceil(K * content / 4096)
        units += 0 if inline else math.ceil(candidates * 60 / 4096)
        write = n * (math.ceil((row + WIDTH * 4) / 1000) + 2)
        per_insert = min(LIMITS.rows, LIMITS.request_bytes // int((row + WIDTH * 4) * 4 / 3))
        line("documents", n, n, n * (vector + row), requests, units, write, n / per_insert, n / LIMITS.ids)
        depth, candidates = TOKENS_SCALING.n_ann_tokens(K), TOKENS_SCALING.n_maxsim_candidates(K)
        requests = vectors + math.ceil(candidates / LIMITS.ids) + 1
        units = vectors * math.ceil(depth * 60 / 4096)
        units += math.ceil(candidates * packed / 4096) + math.ceil(K * content / 4096)
        write = n * (tokens * 2 + math.ceil(row / 1000))
        size, load = n * (tokens * TOKEN_ROW_BYTES + row), n * tokens / LIMITS.rows + 2 * n / LIMITS.ids
        line("tokens", n, n * (tokens + 1), size, requests, units, write, load, n * (tokens + 1) / LIMITS.ids)


def line(
    scheme: str,
    n: int,
    rows: int,
    size: float,
    requests: int,
    units: int,
    write_units: int,
    load: float,
    full: float,
) -> None:
    counts = (f"{value:.0e}" for value in (write_units, load, n / LIMITS.ids, full))
    print(
        f"| 10^{round(math.log10(n))} | {scheme} | {rows:.0e} | {size / 1e9:,.1f} | {requests} | {units} | "
        f"{' | '.join(counts)} |"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=2000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--older-queries", type=int, default=3)
    parser.add_argument("--matrices", type=Path, default=DATA / "tokens_5k.npz")
    parser.add_argument("--judged", nargs="*", help="judged collections in place of tokens_5k, by name")
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, choices=SCHEMES)
    parser.add_argument("--cache", type=Path, default=Path("document_vectors_cache"))
    arguments = parser.parse_args()
    if OLDER in arguments.schemes and "tokens" not in arguments.schemes:
        parser.error("the older scheme reads the rows of the scheme `tokens`: name both.")
    collections = [of_judged(name, arguments.cache) for name in arguments.judged or ()] or [
        of_tokens_5k(arguments.matrices, arguments.documents, arguments.queries)
    ]

    pipe, other = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(other,), daemon=True)
    process.start()
    endpoint, token, keyspace = pipe.recv()

    def database() -> AsyncDatabase:
        return DataAPIClient(token, environment="hcd").get_async_database(endpoint, keyspace=keyspace)

    for some in collections:
        schemes = [scheme for scheme in SCHEMES if scheme in arguments.schemes]
        await compare(some, schemes, arguments.older_queries, pipe, database)
    growth()
    pipe.send(False)
    process.join()


if __name__ == "__main__":
    asyncio.run(main())
