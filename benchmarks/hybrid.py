"""Words and vectors together: nDCG@10 and recall@100 on judged collections, beside either alone and rank fusion.

    uv run python benchmarks/hybrid.py ../shared/data/cranfield ../shared/data/cisi
    uv run python benchmarks/hybrid.py --rare 800 --cache ~/rare
    uv run python benchmarks/hybrid.py --latency 5000 20000 --tokens ../shared/data/tokens_5k.npz

MaxSim is exact, over vectors of the demo's model pooled by 2; words are those of a folder's FTS5 table; both are fused
as a search does it. With `--scores FOLDER` the scores of MaxSim are kept there, so that the second run encodes nothing.
`--rare` asks for codes that one text has (rare_words.py), by each mode, in a folder. `--latency` measures the modes
side by side in a folder of so many documents: real token matrices, beyond their number again with noise, and texts of
80 words drawn by Zipf's law; queries are real ones, with the 8 rarest words of one text.
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

import numpy as np
from local import fill, load
from rare_words import rare_words

from late_interaction import RaggedTokens, load_model
from late_interaction.encoders.base import pooled
from late_interaction.evaluation import JudgedCollection, Run, bm25_run, evaluate, load_beir
from late_interaction.fusion import LISTED, fused
from late_interaction.lexical import query_words, searchable
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_query
from late_interaction.stems import CREATE_WORDS
from late_interaction.stores.local.words import bm25

WEIGHTS = (0.1, 0.2, 0.3, 0.5)
RRF_K = 60


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


async def latency(n: int, tokens: Path, folder: Path, n_queries: int = 60) -> None:
    """Print CPU milliseconds of a search by mode, medians of interleaved queries."""
    real, queries = load(tokens, None)
    rng = np.random.default_rng(0)
    matrices = [real.matrix(i % len(real)) for i in range(n)]
    for i in range(len(real), n):
        noisy = matrices[i] + rng.normal(scale=0.3 / np.sqrt(real.tokens.shape[1]), size=matrices[i].shape)
        matrices[i] = (noisy / np.linalg.norm(noisy, axis=1, keepdims=True)).astype(np.float32)
    words = np.minimum(rng.zipf(1.3, size=(n, 80)), 50_000)
    texts = [" ".join(f"w{word}" for word in row) for row in words]
    pipeline, _, _ = await fill(folder, RaggedTokens.from_matrices(matrices), f"latency {n}", texts)
    spent: dict[str, list[float]] = {mode: [] for mode in MODES}
    async with pipeline:
        for i in range(n_queries):
            rare_first = sorted(set(words[rng.integers(n)].tolist()))[-8:]
            asked = " ".join(f"w{word}" for word in rare_first)
            for mode in MODES:
                started = time.process_time()
                await pipeline.search_with_embeddings(queries[i % len(queries)], 10, text=asked, mode=mode)
                spent[mode].append(time.process_time() - started)
    late = spent["late"]
    for mode in MODES:
        ratio = median(a / b for a, b in zip(spent[mode], late, strict=True))
        print(f"  {n:>7,} documents, {mode:8} {1000 * median(spent[mode]):7.1f} CPU ms, {ratio:.2f} × late")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--rare", type=int, nargs="*", default=[])
    parser.add_argument("--cache", type=Path, default=Path("~/rare").expanduser())
    parser.add_argument("--latency", type=int, nargs="*", default=[])
    parser.add_argument("--tokens", type=Path)
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    for folder in arguments.collections:
        kept = None if arguments.scores is None else arguments.scores / f"{folder.name}.pkl"
        measure(load_beir(folder), kept)
    with tempfile.TemporaryDirectory() as temporary:
        for n in arguments.rare:
            asyncio.run(rare(n, arguments.cache, Path(temporary, f"rare {n}")))
        for n in arguments.latency:
            asyncio.run(latency(n, arguments.tokens, Path(temporary, f"latency {n}")))


if __name__ == "__main__":
    main()
