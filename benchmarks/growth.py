"""Measure how the embedded store grows: its searches, filters, writes, build and memory, by the number of documents.

    python benchmarks/growth.py ../shared/data/tokens_5k.npz --documents 5000 20000 100000

Documents are pooled by 2 (the default). Beyond those of the file they are made of them: a third of a document's tokens
are another one's, and noise of length .35 is added to each. Recall on made documents is not recall on real ones. Each
size has a process of its own. Times are CPU time of the process, one BLAS thread, no encoder; medians, where not said
otherwise. Of a search with a filter it is the time of the whole search, the first time the filter is asked and later,
beside the same search without one just before. Memory is what a process that opens the folder has more of for itself
after 40 searches one after the other, in one thread: with more, it is chance how many keep buffers. Beside it is the
growing part, what it is above that of the smallest size. "Threads" is wall time: the queries a second of four or eight
threads on one pipeline, beside those of one, with one BLAS thread and with one for each core, as it is by default.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from local import load, worst_decile
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    RaggedTokens,
    SyncPipeline,
)
from late_interaction.cores import n_cores
from late_interaction.filters import matches, parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.stores.local.limits import Limits
from late_interaction.types import FloatMatrix

K, QUERIES, FILTERS, ROUNDS, PARTS = 10, 40, 12, 15, 1000
TOGETHER = 2000
OF = (2, 10, 100, 1000)
"""A filter lets one document of so many through."""
KINDS: dict[str, Callable[[int, int], dict[str, object]]] = {
    "equal": lambda of, start: {f"of {of}": start % of},
    "$in": lambda of, start: {"part": {"$in": list(range(start, start + PARTS // of))}},
    "range": lambda of, start: {"part": {"$gte": start, "$lt": start + PARTS // of}},
    "tag": lambda of, start: {"tags": f"{start % of} of {of}"},
}
SWAPPED, NOISE = 1 / 3, 0.35


def made(real: RaggedTokens, n: int) -> Iterator[list[FloatMatrix]]:
    """Yield `n` documents, some at a time: the real ones, then those made of them."""
    rng = np.random.default_rng(0)
    for first in range(0, n, TOGETHER):
        batch = []
        for i in range(first, min(first + TOGETHER, n)):
            matrix = real.matrix(i % len(real))
            if i >= len(real):
                other = real.matrix(int(rng.integers(len(real))))
                swapped = np.flatnonzero(rng.random(len(matrix)) < SWAPPED)
                matrix = matrix.copy()
                matrix[swapped] = other[rng.integers(len(other), size=len(swapped))]
                noise = rng.normal(size=matrix.shape).astype(np.float32)
                matrix += NOISE * noise / np.linalg.norm(noise, axis=1, keepdims=True)
                matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
            batch.append(matrix)
        yield batch


def metadata(i: int) -> dict[str, object]:
    shares = {f"of {of}": i % of for of in OF}
    return {
        "part": i % PARTS,
        **shares,
        "tags": [f"{i % of} of {of}" for of in OF],
        "file": f"f/{i // 10}.txt",
    }


def own_memory() -> int:
    """Return the bytes that the process has for itself, files it has mapped left out."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("RssAnon:")[1].split()[0])


async def cpu_ms(call: Callable[[], Awaitable[object]]) -> float:
    started = time.process_time()
    await call()
    return (time.process_time() - started) * 1e3


async def fill(
    folder: Path, real: RaggedTokens, queries: FloatMatrix, n: int
) -> tuple[dict[str, float], np.ndarray]:
    """Write the documents and build the index; return the CPU seconds of each, and the (queries, n) exact scores."""
    model, scores, write_s = PrecomputedEmbeddings(real.tokens.shape[1], "made"), [], 0.0
    # With this limit no index is built while documents are written, so each part has its own time.
    store = LocalStore(folder, limits=Limits(exact_tokens=10**9))
    async with LateInteractionPipeline(store, model, doc_pool_factor=1) as pipeline:
        number = 0
        for matrices in made(real, n):
            documents = [
                EncodedDocument(Document(str(i), f"document {i}", metadata=metadata(i)), matrix)
                for i, matrix in enumerate(matrices, number)
            ]
            number += len(matrices)
            write_s += await cpu_ms(lambda documents=documents: pipeline.store.upsert(documents)) / 1e3
            ragged = RaggedTokens.from_matrices(matrices)
            scores.append([maxsim(query, ragged) for query in queries])
    async with LateInteractionPipeline(folder, model, doc_pool_factor=1) as pipeline:
        build_s = await cpu_ms(pipeline.optimize) / 1e3
    return {"write": write_s, "build": build_s}, np.concatenate(scores, axis=1)


async def recall_and_ms(
    pipeline: LateInteractionPipeline,
    queries: FloatMatrix,
    scores: np.ndarray,
    allowed: np.ndarray | None = None,
    **options: object,
) -> tuple[list[float], list[float]]:
    recall, times = [], []
    for query, exact in zip(queries, scores, strict=True):
        if allowed is not None:
            exact = np.where(allowed, exact, -np.inf)
        best = {str(i) for i in np.argsort(-exact)[:K] if exact[i] > -np.inf}
        started = time.process_time()
        found = await pipeline.search_with_embeddings(query, K, **options)
        times.append((time.process_time() - started) * 1e3)
        recall.append(len(best & {result.doc_id for result in found}) / len(best))
    return recall, times


async def measure(path: Path, n: int, folder: Path) -> dict[str, str]:
    real, queries = load(path, None, 2)
    queries = queries[:QUERIES]
    seconds, scores = await fill(folder, real, queries, n)
    extra = [real.matrix(i) for i in range(ROUNDS)]
    del real
    model = PrecomputedEmbeddings(queries.shape[2], "made")
    row: dict[str, str] = {"documents": f"{n:,}"}
    async with LateInteractionPipeline(folder, model, doc_pool_factor=1) as pipeline:
        info = await pipeline.store.info()
        row["index MB"] = f"{info['index_bytes'] / 1e6:.1f}"
        recall, times = await recall_and_ms(pipeline, queries, scores)
        row["recall@10"], row["worst tenth"] = f"{np.mean(recall):.3f}", worst_decile(recall)
        row["search ms, p50 / p95"] = f"{np.median(times):.1f} / {np.quantile(times, 0.95):.1f}"
        part_of = [metadata(i) for i in range(PARTS)]
        for name, make in KINDS.items():
            for of in OF:
                recalls, first, later = [], [], []
                for start in range(FILTERS):
                    condition = make(of, start)
                    parsed = parse_filter(condition)
                    parts = [parsed is None or matches(parsed, one) for one in part_of]
                    allowed = np.array(parts)[np.arange(n) % PARTS]
                    one = queries[start : start + 1], scores[start : start + 1]
                    plain = (await recall_and_ms(pipeline, *one))[1][0]
                    recall, ms = await recall_and_ms(pipeline, *one, allowed, filter=condition)
                    recalls += recall
                    first.append(ms[0] / plain)
                    later.append(
                        (await recall_and_ms(pipeline, *one, allowed, filter=condition))[1][0] / plain
                    )
                row[f"filter, {name}, {100 / of:g} %: recall; time first, later"] = (
                    f"{np.mean(recalls):.3f}; {np.median(first):.2f}, {np.median(later):.2f}"
                )
        writes, searches = [], []
        for i, matrix in enumerate(extra):
            new = {"doc_id": f"new {i}", "content": "new", "metadata": metadata(i)}
            writes.append(await cpu_ms(lambda r=new, m=matrix: pipeline.index_embeddings([r], [m])))
            searches.append(await cpu_ms(lambda i=i: pipeline.search_with_embeddings(queries[i], K)))
        row["one more document ms"] = f"{np.median(writes):.1f}"
        row["search after it ms"] = f"{np.median(searches):.1f}"
        some = {"part": {"$lt": round(PARTS * min(1, 1000 / n))}}
        changed: list[int] = []

        async def update() -> None:
            changed.append(await pipeline.update_metadata(None, {"seen": 1}, filter=some))

        update_ms = await cpu_ms(update)
        row["metadata of 1,000 s"] = f"{update_ms * 1000 / changed[0] / 1e3:.2f}"
    row["write s"], row["build s"] = f"{seconds['write']:.1f}", f"{seconds['build']:.1f}"
    return row


def in_one_thread(pipeline: SyncPipeline) -> None:
    """Let a pipeline's searches read in one thread, before it has read anything."""

    async def set_executor(_: LateInteractionPipeline) -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))

    pipeline.run(set_executor)


def measure_opened(folder: Path, path: Path) -> dict[str, str | int]:
    """Measure what only a process that opens the folder anew can tell: its memory in bytes, and threads."""
    with np.load(path) as file:
        queries = file["queries"][:QUERIES]
    model = PrecomputedEmbeddings(queries.shape[2], "made")
    with tempfile.TemporaryDirectory() as small, SyncPipeline(small, model, doc_pool_factor=1) as pipeline:
        in_one_thread(pipeline)
        pipeline.index_embeddings([{"doc_id": "a", "content": "a"}], [queries[0]])
        for query in queries:
            pipeline.search_with_embeddings(query)  # What is imported now is not counted below.
    before = own_memory()
    with SyncPipeline(folder, model, doc_pool_factor=1) as pipeline:
        in_one_thread(pipeline)
        for query in queries:
            pipeline.search_with_embeddings(query, K)
        memory = own_memory() - before
        index_and_ids = (folder / "late_interaction" / "centroids.npz").stat().st_size
        index_and_ids += sum(len(d.doc_id) for d in pipeline.find())
    with SyncPipeline(folder, model, doc_pool_factor=1) as pipeline:

        def per_second(threads: int) -> float:
            with ThreadPoolExecutor(threads) as pool:
                started = time.perf_counter()
                list(pool.map(lambda query: pipeline.search_with_embeddings(query, K), [*queries] * 4))
                return 4 * len(queries) / (time.perf_counter() - started)

        def threads(blas_threads: int) -> str:
            with threadpool_limits(blas_threads, user_api="blas"):
                per_second(1)
                rounds = [[per_second(n) / per_second(1) for n in (4, 8)] for _ in range(3)]
            return " ".join(f"{ratio:.2f}" for ratio in np.median(rounds, axis=0))

        row = {"4, 8 threads, 1 = 1": threads(1), "with BLAS on all cores": threads(n_cores())}
    return {"memory": memory, "index and ids": index_and_ids, **row}


def tell_memory(rows: list[dict[str, str | int]]) -> None:
    """Make texts of the memory of each size, the smallest first."""
    sizes = [(int(row.pop("memory")), int(row.pop("index and ids"))) for row in rows]
    for row, (memory, index_and_ids) in zip(rows, sizes, strict=True):
        row["memory MB (× index and ids)"] = f"{memory / 1e6:.0f} ({memory / index_and_ids:.1f})"
        more, of = memory - sizes[0][0], index_and_ids - sizes[0][1]
        row["its growing part"] = f"{more / 1e6:.0f} ({more / of:.1f})" if of else ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokens", type=Path, help="matrices as token_matrices.py makes them")
    parser.add_argument("--documents", type=int, nargs="*", default=[5000, 20_000, 100_000])
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--opened", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.opened or arguments.one:
        with threadpool_limits(1):
            if arguments.opened:
                row = measure_opened(arguments.opened, arguments.tokens)
            else:
                row = asyncio.run(measure(arguments.tokens, arguments.documents[0], arguments.one))
        print(json.dumps(row))
        return
    rows: list[dict[str, str | int]] = []
    for n in sorted(arguments.documents):
        with tempfile.TemporaryDirectory() as folder:
            row: dict[str, str | int] = {}
            for how in (["--one", folder, "--documents", str(n)], ["--opened", folder]):
                command = [sys.executable, __file__, str(arguments.tokens), *how]
                row |= json.loads(
                    subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                )
            rows.append(row)
    tell_memory(rows)
    table = Table(title="Growth of the embedded store, CPU time")
    for i in range(len(rows) + 1):
        table.add_column("" if i == 0 else rows[i - 1]["documents"], justify="right" if i else "left")
    for name in rows[0]:
        if name != "documents":
            table.add_row(name, *(str(row[name]) for row in rows))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
