"""Choose what one learned vector a document is made of: recall of the exact top 10 among the best n by it.

    python benchmarks/document_vectors.py choices [--cache FOLDER]     # minutes
    python benchmarks/document_vectors.py growth [--documents 5000 20000 50000 100000] [--widths 1024 1536 2048]

Documents are pooled by 2, the arithmetic is exact (the vector index of the real service loses nothing against it), and
the truth is MaxSim over the documents as stored. `choices` compares widths, samples and ridges on tokens_5k (100
queries of 32 tokens), Cranfield and CISI (their own queries; all-MiniLM-L6-v2). `growth` resamples tokens_5k: a third
of each document's tokens comes from another one, and all have noise, so that there are near-duplicates of everything:
harder than a real collection. It prints how many candidates a recall of .97 and .98 takes at each size.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.encoded import DATA, collection, demo_model, encoded, token_matrices
from late_interaction import reduction as module
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_document, pool_query
from late_interaction.reduction import Reduction, fit
from late_interaction.types import QueryVectors, RaggedTokens

K = 10
WITHIN = (50, 100, 150, 200, 300)
_NOISE = 0.35


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


def all_scores(documents: RaggedTokens, queries: list[QueryVectors]) -> np.ndarray:
    """Return (n_queries, n_docs) MaxSim of all queries at once, in one product for each group of documents."""
    vectors = np.concatenate([query.vectors * query.weights[:, None] for query in queries])
    starts = np.cumsum([0, *(len(query.vectors) for query in queries[:-1])])
    scores = np.empty((len(queries), len(documents)), np.float32)
    for a in tqdm(range(0, len(documents), 100), desc="Exact"):
        offsets = documents.offsets[a : a + 101]
        best = np.maximum.reduceat(
            documents.tokens[offsets[0] : offsets[-1]] @ vectors.T, offsets[:-1] - offsets[0]
        )
        scores[:, a : a + len(best)] = np.add.reduceat(best, starts, axis=1).T
    return scores


def first(documents: RaggedTokens, n: int) -> RaggedTokens:
    """Return `n` of the documents, in a random order, as a fit reads them."""
    chosen = np.random.default_rng(1).permutation(len(documents))[:n]
    return RaggedTokens.from_matrices([documents.matrix(i) for i in chosen])


def choices(cache: Path) -> None:
    plain = tokens_5k()
    collections = {"tokens_5k": (*plain, None)}
    for name in ("cranfield", "cisi"):
        collections[name] = judged(name, cache)
    settings = [
        *({"width": width} for width in (512, 1024, 1536, 2048)),
        {"width": 1536, "documents": 300},
        {"width": 1536, "sample": 2},
        {"width": 1536, "sample": 8},
        {"width": 1536, "ridge": 1e-3},
        {"width": 1536, "ridge": 1e-1},
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
            module._QUANTILE = setting.get("quantile", 0.8)  # noqa: SLF001 - likewise
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


def resampled(documents: RaggedTokens, n: int) -> RaggedTokens:
    """Return `n` documents, first these, then others made of them: a third of the tokens another's, noise on all."""
    rng = np.random.default_rng(0)
    made = [documents.matrix(i) for i in range(min(n, len(documents)))]
    for i in tqdm(range(len(documents), n), desc="Resampling", disable=n <= len(documents)):
        matrix, other = documents.matrix(i % len(documents)), documents.matrix(rng.integers(len(documents)))
        swapped = rng.random(len(matrix)) < 1 / 3
        matrix[swapped] = other[rng.integers(len(other), size=swapped.sum())]
        matrix += _NOISE * rng.normal(size=matrix.shape).astype(np.float32) / np.sqrt(matrix.shape[1])
        made.append(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))
    return RaggedTokens.from_matrices(made)


def growth(sizes: list[int], widths: list[int], fitted_on: int, sample: int) -> None:
    module.SAMPLE_PER_FEATURE = sample
    documents, queries = tokens_5k()
    everything = resampled(documents, max(sizes))
    scores = all_scores(everything, queries)
    print(f"| documents | width | {' | '.join(map(str, (*WITHIN, 500, 700, 1000)))} | for .97 | for .98 |")
    print(f"|{'---|' * (len(WITHIN) + 7)}")
    for width in widths:
        some = first(RaggedTokens.from_matrices([everything.matrix(i) for i in range(min(sizes))]), fitted_on)
        made = fit(some, some.tokens, width=width)
        vectors = made.documents(everything)
        approximate = np.stack([vectors @ made.query(query) for query in queries])
        for n in sizes:
            best = np.argsort(-scores[:, :n], axis=1, kind="stable")[:, :K]
            found = np.array(
                [[(row[:n] > row[i]).sum() for i in top] for row, top in zip(approximate, best, strict=True)]
            )
            recalls = " | ".join(f"{(found < m).mean():.3f}" for m in (*WITHIN, 500, 700, 1000))
            needed = " | ".join(f"{int(np.quantile(found, q)) + 1:,}" for q in (0.97, 0.98))
            print(f"| {n:,} | {width} | {recalls} | {needed} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["choices", "growth"])
    parser.add_argument("--cache", type=Path, default=Path("document_vectors_cache"))
    parser.add_argument("--documents", type=int, nargs="+", default=[5_000, 20_000, 50_000, 100_000])
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 1536, 2048])
    parser.add_argument("--fitted-on", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=module.SAMPLE_PER_FEATURE)
    arguments = parser.parse_args()
    if arguments.what == "choices":
        choices(arguments.cache)
    else:
        growth(arguments.documents, arguments.widths, arguments.fitted_on, arguments.sample)


if __name__ == "__main__":
    main()
