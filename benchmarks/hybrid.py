"""Words and vectors together: nDCG@10 and recall@100 on judged collections, beside either alone and rank fusion.

    uv run python benchmarks/hybrid.py ../shared/data/cranfield ../shared/data/cisi

MaxSim is exact, over vectors of the demo's model pooled by 2; words are those of a folder's FTS5 table; both are fused
as a search does it. With `--scores FOLDER` the scores of MaxSim are kept there, so that the second run encodes nothing.
"""

from __future__ import annotations

import argparse
import pickle
import sqlite3
import time
from pathlib import Path
from statistics import median

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--scores", type=Path)
    arguments = parser.parse_args()
    for folder in arguments.collections:
        kept = None if arguments.scores is None else arguments.scores / f"{folder.name}.pkl"
        measure(load_beir(folder), kept)


if __name__ == "__main__":
    main()
