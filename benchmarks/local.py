"""The embedded store against brute force, on real token matrices, one thread, same process, interleaved.

    python benchmarks/local.py ../shared/data/tokens_5k.npz --documents 1000 2000 5000
    python benchmarks/token_matrices.py 20000 tokens_20k.npz && python benchmarks/local.py tokens_20k.npz
    python benchmarks/local.py tokens_20k.npz --by-k
    python benchmarks/local.py tokens_20k.npz --fit

Brute force is `maxsim` over all documents as float32 in memory. The store is asked through the pipeline, at its
default parameters, for k = 10; its time is that of the whole search but for encoding. `--by-k` shows its recall for
other k, and how many documents were scored for it. `--fit` shows how many candidates, all of them scored, reach a
recall of 0.97, from which `LocalStore.scaling` was fitted.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    QueryVectors,
    RaggedTokens,
)
from late_interaction.maxsim import maxsim

K = 10
KS = (1, 2, 5, 10, 20, 50, 100)


def load(path: Path, n: int | None) -> tuple[RaggedTokens, np.ndarray]:
    with np.load(path) as file:
        offsets = file["offsets"][: None if n is None else n + 1]
        tokens = file["codes"][: offsets[-1]].astype(np.float32)
        queries = file["queries"]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return RaggedTokens(tokens, offsets), queries


async def fill(pipeline: LateInteractionPipeline, documents: RaggedTokens) -> tuple[float, float]:
    """Seconds to write the documents, and to build the index afterwards."""
    started = time.perf_counter()
    for first in range(0, len(documents), 500):
        rows = range(first, min(first + 500, len(documents)))
        batch = [EncodedDocument(Document(str(i), f"document {i}"), documents.matrix(i)) for i in rows]
        # As index_documents does, but with no index built on the way, so that its time can be told apart.
        pipeline.store._upsert.__wrapped__(pipeline.store, batch)  # noqa: SLF001
    written = time.perf_counter()
    await pipeline.optimize()
    return written - started, time.perf_counter() - written


async def measure(path: Path, n: int | None, folder: Path, table: Table) -> None:
    documents, queries = load(path, n)
    model = PrecomputedEmbeddings(documents.tokens.shape[1], path.name)
    pipeline = LateInteractionPipeline(folder, model, doc_pool_factor=1)
    async with pipeline:
        write_s, build_s = await fill(pipeline, documents)
        info = await pipeline.store.info()
        await pipeline.search_with_embeddings(queries[0], K)  # what is imported now is not counted below
    started = time.perf_counter()
    await pipeline.initialize()
    await pipeline.search_with_embeddings(queries[0], K)
    open_s = time.perf_counter() - started
    brute, store, recall = [], [], []
    for query in queries:
        started = time.perf_counter()
        scores = maxsim(query, documents)
        best = np.argpartition(-scores, K)[:K]
        brute.append(time.perf_counter() - started)
        started = time.perf_counter()
        results = await pipeline.search_with_embeddings(query, K)
        store.append(time.perf_counter() - started)
        recall.append(len({str(i) for i in best} & {r.doc_id for r in results}) / K)
    await pipeline.aclose()
    packed = info["packed_bytes"]
    table.add_row(
        f"{len(documents):,}",
        f"{len(documents.tokens) / len(documents):.0f}",
        f"{np.median(brute) * 1e3:.1f}",
        f"{np.median(store) * 1e3:.1f}",
        f"{np.median(np.array(brute) / np.array(store)):.1f} ×",
        f"{np.mean(recall):.3f}",
        f"{100 * info['index_bytes'] / packed:.1f} %",
        f"{write_s:.1f}",
        f"{build_s:.1f}",
        f"{open_s:.2f}",
    )


async def by_k(path: Path, n: int | None, folder: Path) -> Table:
    documents, queries = load(path, n)
    model = PrecomputedEmbeddings(documents.tokens.shape[1], path.name)
    exact = [np.argsort(-maxsim(query, documents)) for query in queries]
    table = Table(title="Recall at default parameters", caption=f"{len(documents):,} documents")
    for heading in ("k", "recall", "scored, mean", "scored, median", "at most"):
        table.add_column(heading, justify="right")
    async with LateInteractionPipeline(folder, model, doc_pool_factor=1) as pipeline:
        await fill(pipeline, documents)
        for k in KS:
            recall, scored = [], []
            for query, best in zip(queries, exact, strict=True):
                results = await pipeline.search_with_embeddings(query, k)
                recall.append(len({str(i) for i in best[:k]} & {r.doc_id for r in results}) / k)
                scored.append(results.stats.n_scored)
            most = pipeline.store.scaling.n_maxsim_candidates(k)
            table.add_row(
                str(k),
                f"{np.mean(recall):.3f}",
                f"{np.mean(scored):.0f}",
                f"{np.median(scored):.0f}",
                str(most),
            )
    return table


async def fit(path: Path, n: int | None, folder: Path) -> Table:
    documents, queries = load(path, n)
    model = PrecomputedEmbeddings(documents.tokens.shape[1], path.name)
    depths = (4000, 6000, 8000)
    sizes = [25, 50, 75, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800, 1000, 1200, 1500, 2000]
    table = Table(title="Candidates that reach recall 0.97", caption=f"{len(documents):,} documents")
    for heading in ("n_ann_tokens", *(f"k = {k}" for k in KS)):
        table.add_column(heading, justify="right")
    exact = [np.argsort(-maxsim(query, documents)) for query in queries]
    async with LateInteractionPipeline(folder, model, doc_pool_factor=1) as pipeline:
        await fill(pipeline, documents)
        for depth in depths:
            orders = []
            for query in queries:
                weights = np.ones(len(query), np.float32)
                found = await pipeline.store.candidates(
                    QueryVectors(query, weights), sizes[-1], n_ann_tokens=depth
                )
                orders.append([int(doc_id) for doc_id in found.doc_ids])
            cells = []
            for k in KS:
                recalls = {
                    size: np.mean(
                        [
                            len(set(order[:size]) & set(best[:k])) / k
                            for order, best in zip(orders, exact, strict=True)
                        ]
                    )
                    for size in sizes
                }
                cells.append(str(next((size for size, recall in recalls.items() if recall >= 0.97), "more")))
            table.add_row(f"{depth:,}", *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokens", type=Path, help="matrices as token_matrices.py makes them")
    parser.add_argument(
        "--documents", type=int, nargs="*", default=[None], help="how many of them; all by default"
    )
    parser.add_argument("--by-k", action="store_true")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    table = Table(title=f"Embedded store and brute force, k = {K}, one thread")
    for heading in (
        "documents", "tokens each", "brute ms", "store ms", "faster", "recall@10", "index size",
        "write s", "build s", "open s",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for i, n in enumerate(arguments.documents):
            if arguments.fit or arguments.by_k:
                make = fit if arguments.fit else by_k
                table = asyncio.run(make(arguments.tokens, n, Path(folder, str(i))))
            else:
                asyncio.run(measure(arguments.tokens, n, Path(folder, str(i)), table))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
