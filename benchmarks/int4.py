"""Measure a packing of 4 bits a value beside int8: bytes, error of scores, nDCG@10, and the time of stage 2.

    python benchmarks/int4.py --cache ~/encoded

A value is `round(x · 7 / max|x|)`, two of them in a byte (one of each half of the vector), with a float32 scale for
each token. Documents are pooled by 2. Stage 2 is what a search does with 240 documents: widen the codes to int8, then
`maxsim`; medians of 15, in turn.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from encoded import collection, demo_model, encoded
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import RaggedTokens
from late_interaction.evaluation.metrics import evaluate
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack_many
from late_interaction.pooling import pool_document

STAGE_2, ROUNDS = 240, 15


def to_nibbles(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    codes = np.rint(matrix * (7 / np.abs(matrix).max(axis=1, keepdims=True))).astype(np.int8)
    half = codes.shape[1] // 2
    scales = 1 / np.linalg.norm(codes.astype(np.float32), axis=1)
    return (codes[:, :half] & 15) | (codes[:, half:] << 4), scales.astype(np.float32)


def from_nibbles(packed: np.ndarray) -> np.ndarray:
    half = packed.shape[1]
    codes = np.empty((len(packed), 2 * half), np.int8)
    np.left_shift(packed, 4, out=codes[:, :half])
    codes[:, :half] >>= 4
    np.right_shift(packed, 4, out=codes[:, half:])
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True, help="where token matrices are kept")
    arguments = parser.parse_args()
    table = Table(title="4 bits beside 8")
    for heading in ("collection", "packing", "bytes a token", "score error", "nDCG@10", "stage 2, ms"):
        table.add_column(heading, justify="right")
    with threadpool_limits(1):
        for name in ("cranfield", "cisi"):
            judged = collection(name)
            documents, queries = encoded(judged, demo_model(), arguments.cache)
            matrices = [
                pool_document(documents.matrix(i), 2, protected_tokens=1) for i in range(len(documents))
            ]
            exact = RaggedTokens.from_matrices(matrices)
            eight = unpack_many([pack(matrix) for matrix in matrices])
            nibbles, scales = to_nibbles(exact.tokens)
            four = RaggedTokens(from_nibbles(nibbles), exact.offsets, scales)
            first = exact.offsets[: STAGE_2 + 1]
            times: dict[str, list[float]] = {"int8": [], "int4": []}
            query = next(iter(queries.values()))
            for _ in range(ROUNDS):
                started = time.thread_time()
                part = RaggedTokens(eight.tokens[: first[-1]], first, eight.scales[: first[-1]])
                maxsim(query, part)
                times["int8"].append(time.thread_time() - started)
                started = time.thread_time()
                widened = from_nibbles(nibbles[: first[-1]])
                maxsim(query, RaggedTokens(widened, first, scales[: first[-1]]))
                times["int4"].append(time.thread_time() - started)
            ids, dim = list(judged.documents), exact.tokens.shape[1]
            scores = {"int8": eight, "int4": four}
            truth = np.stack([maxsim(q, exact) for q in queries.values()])
            for packing, ragged in scores.items():
                found = np.stack([maxsim(q, ragged) for q in queries.values()])
                run = {
                    query_id: {ids[i]: float(row[i]) for i in np.argsort(-row)[:100]}
                    for query_id, row in zip(queries, found, strict=True)
                }
                table.add_row(
                    name,
                    packing,
                    str((dim if packing == "int8" else dim // 2) + 4),
                    f"{np.abs(found - truth).mean():.3f}",
                    f"{evaluate(run, judged.qrels)['ndcg@10']:.4f}",
                    f"{np.median(times[packing]) * 1e3:.2f}",
                )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
