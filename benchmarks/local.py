"""Measure the embedded store beside brute force, on real token matrices, one thread, one process, interleaved.

    python benchmarks/local.py ../shared/data/tokens_5k.npz --documents 1000 2000 5000
    python benchmarks/token_matrices.py 20000 tokens_20k.npz && python benchmarks/local.py tokens_20k.npz
    python benchmarks/local.py tokens_20k.npz --by-k
    python benchmarks/local.py tokens_20k.npz --fit
    python benchmarks/local.py ../shared/data/tokens_5k.npz --pool 2 --rare 800 8000 --cache ~/rare

Brute force is `maxsim` over all documents as float32 in memory. The store is searched through the pipeline
with default parameters and k = 10; its time is that of the whole search without encoding. `--by-k` prints the recall
for other k, and how many documents were scored. `--pool` pools the documents first. `--rare` adds questions that
rest on a rare code (rare_words.py), among so many documents: in how many the right document is first, and among the
first ten, by the default search and by an exact one. "Worst tenth" is the recall that nine queries of ten reach (the
10th percentile), and the mean of the tenth that is worst. `--fit` prints how many candidates, all of them scored,
reach a recall of 0.97; `folder_scaling` began from it.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from rare_words import rare_words
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    QueryVectors,
    RaggedTokens,
)
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_document
from late_interaction.stores.local.limits import Limits

K = 10
KS = (1, 2, 5, 10, 20, 50, 100)


def load(path: Path, n: int | None, factor: float = 1) -> tuple[RaggedTokens, np.ndarray]:
    with np.load(path) as file:
        offsets = file["offsets"][: None if n is None else n + 1]
        tokens = file["codes"][: offsets[-1]].astype(np.float32)
        queries = file["queries"]
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return pooled(RaggedTokens(tokens, offsets), factor), queries


def pooled(documents: RaggedTokens, factor: float, protected: int = 0) -> RaggedTokens:
    if factor == 1:
        return documents
    matrices = (documents.matrix(i) for i in range(len(documents)))
    return RaggedTokens.from_matrices(
        [pool_document(m, factor, protected_tokens=protected) for m in matrices]
    )


def worst_decile(recall: list[float]) -> str:
    """Return the recall that nine queries of ten reach, and the mean of the tenth that is worst."""
    worst = np.mean(np.sort(recall)[: max(1, len(recall) // 10)])
    return f"{np.quantile(recall, 0.1, method='lower'):.2f} / {worst:.2f}"


async def fill(
    folder: Path, documents: RaggedTokens, name: str, texts: list[str] | None = None
) -> tuple[LateInteractionPipeline, float, float]:
    """Write the documents, then build the index; return the open pipeline and the seconds of each."""
    model = PrecomputedEmbeddings(documents.tokens.shape[1], name)
    contents = texts or [f"document {i}" for i in range(len(documents))]
    # With this limit no index is built while documents are written, so each part has its own time.
    without_index = LocalStore(folder, limits=Limits(exact_tokens=len(documents.tokens)))
    started = time.perf_counter()
    async with LateInteractionPipeline(without_index, model, doc_pool_factor=1) as pipeline:
        for first in range(0, len(documents), 500):
            rows = range(first, min(first + 500, len(documents)))
            batch = [EncodedDocument(Document(str(i), contents[i]), documents.matrix(i)) for i in rows]
            await pipeline.store.upsert(batch)
        written = time.perf_counter()
    pipeline = LateInteractionPipeline(folder, model, doc_pool_factor=1)
    await pipeline.initialize()
    await pipeline.optimize()
    return pipeline, written - started, time.perf_counter() - written


async def measure(path: Path, n: int | None, factor: float, folder: Path, table: Table) -> None:
    documents, queries = load(path, n, factor)
    pipeline, write_s, build_s = await fill(folder, documents, path.name)
    async with pipeline:
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
        worst_decile(recall),
        f"{100 * info['index_bytes'] / packed:.1f} %",
        f"{write_s:.1f}",
        f"{build_s:.1f}",
        f"{open_s:.2f}",
    )


async def rare(n: int, factor: float, cache: Path, folder: Path, table: Table) -> None:
    made = rare_words(n, cache)
    documents = pooled(made.documents, factor, protected=1)
    pipeline, _, _ = await fill(folder, documents, f"rare {n}", made.texts)
    async with pipeline:
        for form, questions in made.questions.items():
            found, recall, seconds = [], [], []
            for (text, question), answer in zip(questions, made.answers, strict=True):
                times = [time.process_time()]
                await pipeline.search_with_embeddings(question, K)
                times.append(time.process_time())
                default = [r.doc_id for r in await pipeline.search_with_embeddings(question, K, text=text)]
                times.append(time.process_time())
                exact = [r.doc_id for r in await pipeline.search_with_embeddings(question, K, exact=True)]
                seconds.append(np.diff(times))
                found.append([str(answer) in ids for ids in (default[:1], exact[:1], default, exact)])
                recall.append(len(set(default) & set(exact)) / K)
            table.add_row(
                f"{len(documents):,}",
                form,
                *(f"{share:.2f}" for share in np.mean(found, axis=0)),
                f"{np.mean(recall):.3f}",
                worst_decile(recall),
                f"{np.divide(*np.median(seconds, axis=0)[::-1]):.2f}",
            )


async def by_k(path: Path, n: int | None, folder: Path) -> Table:
    documents, queries = load(path, n)
    exact = [np.argsort(-maxsim(query, documents)) for query in queries]
    table = Table(title="Recall at default parameters", caption=f"{len(documents):,} documents")
    for heading in ("k", "recall", "scored, mean", "scored, median", "at most"):
        table.add_column(heading, justify="right")
    pipeline, _, _ = await fill(folder, documents, path.name)
    async with pipeline:
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
    depths = (4000, 6000, 8000)
    sizes = [25, 50, 75, 100, 150, 200, 250, 300, 350, 400, 500, 600, 800, 1000, 1200, 1500, 2000]
    table = Table(title="Candidates that reach recall 0.97", caption=f"{len(documents):,} documents")
    for heading in ("n_ann_tokens", *(f"k = {k}" for k in KS)):
        table.add_column(heading, justify="right")
    exact = [np.argsort(-maxsim(query, documents)) for query in queries]
    pipeline, _, _ = await fill(folder, documents, path.name)
    async with pipeline:
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
    parser.add_argument("--pool", type=float, default=1, help="pool documents by this factor first")
    parser.add_argument("--rare", type=int, nargs="*", default=[], help="questions for rare words in so many")
    parser.add_argument("--cache", type=Path, help="where the encoded texts of --rare are kept")
    parser.add_argument("--by-k", action="store_true")
    parser.add_argument("--fit", action="store_true")
    arguments = parser.parse_args()
    table = Table(title=f"Embedded store and brute force, k = {K}, one thread")
    for heading in (
        "documents", "tokens each", "brute ms", "store ms", "faster", "recall@10", "worst tenth",
        "index size", "write s", "build s", "open s",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    with threadpool_limits(1), tempfile.TemporaryDirectory() as folder:
        for i, n in enumerate(arguments.documents):
            if arguments.fit or arguments.by_k:
                make = fit if arguments.fit else by_k
                table = asyncio.run(make(arguments.tokens, n, Path(folder, str(i))))
            else:
                asyncio.run(measure(arguments.tokens, n, arguments.pool, Path(folder, str(i)), table))
        words = Table(title="The document with a rare code, by the default search and by an exact one")
        for heading in (
            "documents", "question", "first", "exact", "in ten", "exact", "recall@10", "worst tenth",
            "time, without words = 1",
        ):  # fmt: skip
            words.add_column(heading, justify="right")
        for n in arguments.rare:
            cache = arguments.cache or Path(folder)
            asyncio.run(rare(n, arguments.pool, cache, Path(folder, f"rare {n}"), words))
    Console(width=120).print(table)
    if arguments.rare:
        Console(width=120).print(words)


if __name__ == "__main__":
    main()
