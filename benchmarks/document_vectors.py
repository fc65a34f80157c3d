"""Choose what one learned vector a document is made of: recall of the exact top 10 among the best n by it.

    python benchmarks/document_vectors.py [--only tokens_5k] [--cache FOLDER]     # minutes

Documents are pooled by 2, the arithmetic is exact (the vector index of the real service loses nothing against it), and
the truth is MaxSim over the documents as stored. It compares widths, samples, thresholds and ridges on tokens_5k (100
queries of 32 tokens), Cranfield and CISI (their own queries; all-MiniLM-L6-v2). How it goes on as a collection grows is
in benchmarks/document_vector_growth.py.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.encoded import DATA, collection, demo_model, encoded, token_matrices
from late_interaction import reduction as module
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_document, pool_query
from late_interaction.reduction import Reduction, fit
from late_interaction.types import QueryVectors, RaggedTokens

K = 10
WITHIN = (50, 100, 150, 200, 300)
COLLECTIONS = ("tokens_5k", "cranfield", "cisi")


def tokens_5k() -> tuple[RaggedTokens, list[QueryVectors]]:
    matrices, queries = token_matrices(DATA / "tokens_5k.npz")
    documents = RaggedTokens.from_matrices([pool_document(matrix, 2) for matrix in matrices])
    return documents, [pool_query(matrix, 0.03) for matrix in queries]


def judged(name: str, cache: Path) -> tuple[RaggedTokens, list[QueryVectors], np.ndarray]:
    """Return the documents pooled, the queries, and the documents' texts encoded as queries."""
    model, judged = demo_model(), collection(name)
    documents, queries = encoded(judged, model, cache)
    pooled = [pool_document(documents.matrix(i), 2) for i in range(len(documents))]
    texts = [text for text in judged.documents.values() if text.strip()][:1000]
    as_queries = np.concatenate(model.encode_queries(texts))
    return RaggedTokens.from_matrices(pooled), [pool_query(m, 0.03) for m in queries.values()], as_queries


def ranks(
    reduction: Reduction, documents: RaggedTokens, queries: list[QueryVectors], best: list
) -> np.ndarray:
    """Return for each query the ranks, from 0, that its exact top 10 have by the document vectors."""
    vectors = reduction.documents(documents)
    found = []
    for query, top in zip(queries, best, strict=True):
        scores = vectors @ reduction.query(query)
        found.append([(scores > scores[one]).sum() for one in top])
    return np.array(found)


def top(documents: RaggedTokens, queries: list[QueryVectors]) -> list[np.ndarray]:
    return [np.argsort(-maxsim(q.vectors, documents, q.weights), kind="stable")[:K] for q in queries]


def first(documents: RaggedTokens, n: int) -> RaggedTokens:
    """Return `n` of the documents, in a random order, as a fit reads them."""
    chosen = np.random.default_rng(1).permutation(len(documents))[:n]
    return RaggedTokens.from_matrices([documents.matrix(i) for i in chosen])


def choices(names: list[str], cache: Path) -> None:
    collections = {
        name: (*tokens_5k(), None) if name == "tokens_5k" else judged(name, cache) for name in names
    }
    settings = [
        *({"width": width} for width in (512, 1024, 1536, 2048)),
        {"width": 1536, "documents": 300},
        {"width": 1536, "sample": 2},
        {"width": 1536, "sample": 8},
        {"width": 1536, "ridge": 1e-3},
        {"width": 1536, "ridge": 1e-1},
        {"width": 1536, "quantile": 0.8},
        {"width": 1536, "quantile": 0.9},
        {"width": 1536, "as_queries": True},
    ]
    print(f"| collection | {' | '.join(map(str, WITHIN))} | fit s | ms a document | KB stored | choice |")
    print(f"|{'---|' * (len(WITHIN) + 5)}")
    for name, (documents, queries, as_queries) in collections.items():
        best = top(documents, queries)
        for setting in settings:
            if setting.get("as_queries") and as_queries is None:
                continue
            module.SAMPLE_PER_FEATURE = setting.get("sample", 4)
            module._RIDGE = setting.get("ridge", 1e-2)  # noqa: SLF001 - what is compared here
            module._QUANTILE = setting.get("quantile", 0.95)  # noqa: SLF001 - likewise
            some = first(documents, setting.get("documents", 1000))
            begin = time.process_time()
            made = fit(some, as_queries if setting.get("as_queries") else some.tokens, width=setting["width"])
            fit_s = time.process_time() - begin
            size = len(made.to_bytes()) / 1000
            begin = time.process_time()
            found = ranks(made, documents, queries, best)
            ms = (time.process_time() - begin) * 1000 / len(documents)
            recalls = " | ".join(f"{(found < n).mean():.3f}" for n in WITHIN)
            shown = ", ".join(f"{key} {value}" for key, value in setting.items())
            print(f"| {name} | {recalls} | {fit_s:.1f} | {ms:.1f} | {size:,.0f} | {shown} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, default=Path("document_vectors_cache"))
    parser.add_argument("--only", nargs="+", default=COLLECTIONS, choices=COLLECTIONS)
    arguments = parser.parse_args()
    choices(arguments.only, arguments.cache)


if __name__ == "__main__":
    main()
