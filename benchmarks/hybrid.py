"""Words and vectors together: nDCG@10 and recall@100 on judged collections, beside either alone and rank fusion.

    uv run python benchmarks/hybrid.py ../shared/data/cranfield ../shared/data/cisi
    uv run python benchmarks/hybrid.py ../shared/data/cranfield ../shared/data/cisi --astra documents
    uv run python benchmarks/hybrid.py --rare 800 --cache ~/encoded
    uv run python benchmarks/hybrid.py --latency 5000 20000 --tokens ../shared/data/tokens_5k.npz --keep ~/folders

MaxSim is exact, over vectors of the demo's model pooled by 2; words are those of a folder's FTS5 table; both are fused
as a search does it. With `--scores FOLDER` the scores of MaxSim are kept there, so that the second run encodes nothing.

`--astra` searches a folder and the local Data API (tools/data_api, by astrapy) at their defaults instead, in an index
with words that finds candidates by "documents" or "tokens" (which takes many minutes). `--rare` asks for codes that
one text has (rare_words.py), by each mode, in a folder.

`--latency` measures the modes side by side in a folder of so many documents, pooled by 2: real token matrices, beyond
their number those that growth.py makes of them, and texts of 80 words of 50,000, drawn by Zipf's law. Questions are
real queries, with words of one text: its 8 rarest, and 8 by chance that are not among the 20 most frequent. With
`--keep FOLDER` the folders stay there, so that the second run only searches.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import sqlite3
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np
from encoded import demo_model, encoded
from growth import made
from local import fill, load
from rare_words import rare_words

from late_interaction import (
    AstraStore,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    RaggedTokens,
    load_model,
)
from late_interaction.encoders.base import pooled
from late_interaction.evaluation import JudgedCollection, Run, bm25_run, evaluate, load_beir
from late_interaction.fusion import LISTED, fused
from late_interaction.lexical import query_words, searchable
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_query
from late_interaction.stems import CREATE_WORDS
from late_interaction.stores.local.words import bm25
from late_interaction.types import CandidatesBy
from tools.data_api import run_in_thread

WEIGHTS = (0.1, 0.2, 0.3, 0.5)
RRF_K = 60
WORDS, FREQUENT = 50_000, 20
"""Words that made texts have, and how many of them no question has."""


def late_scores(collection: JudgedCollection, path: Path | None) -> Run:
    """Return the exact MaxSim of every document, by query."""
    if path is not None and path.exists():
        ids, by_query = pickle.loads(path.read_bytes())
    else:
        model = load_model("demo", device="cpu")
        matrices = [
            pooled(model, each, 2) for each in model.encode_documents(list(collection.documents.values()))
        ]
        there = [
            (doc_id, each) for doc_id, each in zip(collection.documents, matrices, strict=True) if len(each)
        ]
        ids, tokens = [doc_id for doc_id, _ in there], RaggedTokens.from_matrices([each for _, each in there])
        by_query = {}
        for query_id, matrix in zip(
            collection.queries, model.encode_queries(list(collection.queries.values())), strict=True
        ):
            query = pool_query(matrix, 0.03)
            by_query[query_id] = maxsim(query.vectors, tokens, query.weights)
        if path is not None:
            path.write_bytes(pickle.dumps((ids, by_query)))
    return {query_id: dict(zip(ids, scores.tolist(), strict=True)) for query_id, scores in by_query.items()}


def lexical_scores(collection: JudgedCollection) -> tuple[Run, float]:
    """Return BM25 of every document that has a word, by query, and the median of milliseconds a query."""
    connection, ids = sqlite3.connect(":memory:"), list(collection.documents)
    connection.execute(CREATE_WORDS)
    texts = enumerate(map(searchable, collection.documents.values()))
    connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", texts)
    run: Run = {}
    seconds = []
    for query_id, text in collection.queries.items():
        started = time.process_time()
        row_ids, scores = bm25(connection, query_words(text))
        seconds.append(time.process_time() - started)
        run[query_id] = {
            ids[row]: score for row, score in zip(row_ids.tolist(), scores.tolist(), strict=True)
        }
    return run, 1000 * median(seconds)


def listed(scores: dict[str, float]) -> dict[str, float]:
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:LISTED])


def by_ranks(*lists: dict[str, float]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for each in lists:
        for rank, doc_id in enumerate(each, 1):
            scores[doc_id] = scores.get(doc_id, 0) + 1 / (RRF_K + rank)
    return scores


def measure(collection: JudgedCollection, scores: Path | None) -> None:
    late, (lexical, milliseconds) = late_scores(collection, scores), lexical_scores(collection)
    runs: dict[str, Run] = {"BM25 by bm25s": bm25_run(collection)}
    runs |= {"late": late, f"lexical, {milliseconds:.1f} ms": lexical}
    tops = {query_id: (listed(late[query_id]), listed(lexical[query_id])) for query_id in late}
    for weight in WEIGHTS:
        runs[f"hybrid {weight:g}"] = {
            query_id: fused(
                {doc_id: late[query_id][doc_id] for each in both for doc_id in each},
                lexical[query_id],
                weight,
            )
            for query_id, both in tops.items()
        }
    runs["reciprocal ranks, k = 60"] = {query_id: by_ranks(*both) for query_id, both in tops.items()}
    print(f"{collection.name}: {len(collection.documents):,} documents, {len(collection.queries):,} queries")
    for name, run in runs.items():
        metrics = evaluate({query_id: listed(each) for query_id, each in run.items()}, collection.qrels)
        print(f"  {name:28} nDCG@10 {metrics['ndcg@10']:.4f}  recall@100 {metrics['recall@100']:.4f}")


MODES = ("late", "hybrid", "lexical")


async def rare(n: int, cache: Path, folder: Path) -> None:
    """Print in how many cases the text with a rare code is first, and in ten, by form of the question and mode."""
    made = rare_words(n, cache)
    pipeline, _, _ = await fill(folder, made.documents, f"rare {n}", made.texts)
    print(f"{len(made.texts):,} texts, {len(made.answers)} codes: the text with the code first / among ten")
    async with pipeline:
        for form, questions in made.questions.items():
            shares = []
            for mode in MODES:
                ranks = []
                for (text, question), answer in zip(questions, made.answers, strict=True):
                    found = await pipeline.search_with_embeddings(question, 10, text=text, mode=mode)
                    ids = [result.doc_id for result in found]
                    ranks.append(ids.index(str(answer)) if str(answer) in ids else 10)
                shares.append(
                    f"{mode} {np.mean([r == 0 for r in ranks]):.2f} / {np.mean([r < 10 for r in ranks]):.2f}"
                )
            print(f"  {form:24} {'   '.join(shares)}")


async def by_store(
    collection: JudgedCollection, schemes: list[CandidatesBy], cache: Path, folder: Path
) -> None:
    """Print nDCG@10 by mode at the defaults, of a folder and of Astra, and the share of the folder's top 10 in it."""
    encoder = demo_model()
    documents, queries = encoded(collection, encoder, cache)
    matrices = [pooled(encoder, documents.matrix(i), 2) for i in range(len(documents))]
    rows = [{"doc_id": doc_id, "content": text} for doc_id, text in collection.documents.items()]
    model = PrecomputedEmbeddings(documents.tokens.shape[1], "demo")
    print(
        f"{collection.name}: {len(rows):,} documents, {len(queries):,} queries, nDCG@10 / share of the folder's top 10"
    )
    of_folder: dict[str, Run] = {}
    with run_in_thread() as server:
        stores: dict[str, LocalStore | AstraStore] = {"folder": LocalStore(folder)}
        for by in schemes:
            database, name = server.async_database(), f"{collection.name}_{by}"
            stores[f"Astra, {by}"] = AstraStore(database, name, candidates=by, lexical=True)
        for where, store in stores.items():
            cells = []
            async with LateInteractionPipeline(store, model, doc_pool_factor=1) as pipeline:
                await pipeline.index_embeddings(rows, matrices)
                for mode in MODES:
                    run: Run = {}
                    for query_id, text in collection.queries.items():
                        found = await pipeline.search_with_embeddings(
                            queries[query_id], 10, text=text, mode=mode
                        )
                        run[query_id] = {result.doc_id: result.score for result in found}
                    first = of_folder.setdefault(mode, run)
                    same = [
                        len(run[each].keys() & top.keys()) / len(top) for each, top in first.items() if top
                    ]
                    ndcg = evaluate(run, collection.qrels)["ndcg@10"]
                    cells.append(f"{mode} {ndcg:.4f} / {np.mean(same):.3f}")
            print(f"  {where:18} {'   '.join(cells)}", flush=True)


def drawn_words(n: int) -> np.ndarray:
    """Return the words of `n` texts as ranks by frequency, 0 … 49,999, (n, 80)."""
    shares = 1 / np.arange(1, WORDS + 1)
    return np.random.default_rng(0).choice(WORDS, size=(n, 80), p=shares / shares.sum())


async def latency(n: int, tokens: Path, folder: Path, built: bool, n_queries: int = 60) -> None:
    """Print CPU milliseconds of a search by mode, medians of interleaved queries."""
    real, queries = load(tokens, None, 2)
    words = drawn_words(n)
    if built:
        model = PrecomputedEmbeddings(real.tokens.shape[1], f"latency {n}")
        pipeline = LateInteractionPipeline(folder, model, doc_pool_factor=1)
    else:
        documents = RaggedTokens.from_matrices([each for some in made(real, n) for each in some])
        texts = [" ".join(f"w{word}" for word in row) for row in words]
        pipeline, _, _ = await fill(folder, documents, f"latency {n}", texts)
    rng = np.random.default_rng(1)
    spent: dict[tuple[str, str], list[float]] = {}
    having: dict[str, list[float]] = {}
    async with pipeline:
        for i in range(n_queries):
            row = np.unique(words[rng.integers(n)])
            for kind, asked in (("rare", row[-8:]), ("mixed", rng.permutation(row[row >= FREQUENT])[:8])):
                having.setdefault(kind, []).append(float(np.isin(words[:5000], asked).any(axis=1).mean()))
                text = " ".join(f"w{word}" for word in asked)
                for mode in MODES:
                    started = time.process_time()
                    await pipeline.search_with_embeddings(queries[i % len(queries)], 10, text=text, mode=mode)
                    spent.setdefault((kind, mode), []).append(time.process_time() - started)
    for (kind, mode), seconds in spent.items():
        ratio = median(a / b for a, b in zip(seconds, spent[kind, "late"], strict=True))
        print(
            f"  {n:>7,} documents, {kind:5} words (in {100 * np.mean(having[kind]):.1f} % of texts), {mode:8} "
            f"{1000 * median(seconds):7.1f} CPU ms, {ratio:.2f} × late"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--rare", type=int, nargs="*", default=[])
    parser.add_argument(
        "--astra",
        nargs="+",
        choices=get_args(CandidatesBy),
        default=[],
        help="search the collections by the local Data API",
    )
    parser.add_argument(
        "--cache", type=Path, default=Path("~/encoded").expanduser(), help="what is encoded is kept here"
    )
    parser.add_argument("--latency", type=int, nargs="*", default=[])
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--keep", type=Path, help="where the folders of --latency are kept")
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    for folder in arguments.collections:
        if arguments.astra:
            with tempfile.TemporaryDirectory() as temporary:
                asyncio.run(by_store(load_beir(folder), arguments.astra, arguments.cache, Path(temporary)))
            continue
        kept = None if arguments.scores is None else arguments.scores / f"{folder.name}.pkl"
        measure(load_beir(folder), kept)
    with tempfile.TemporaryDirectory() as temporary:
        for n in arguments.rare:
            asyncio.run(rare(n, arguments.cache, Path(temporary, f"rare {n}")))
        for n in arguments.latency:
            folder = (arguments.keep or Path(temporary)) / f"latency {n}"
            built = (folder / "late_interaction" / "centroids.npz").exists()
            asyncio.run(latency(n, arguments.tokens, folder, built))


if __name__ == "__main__":
    main()
