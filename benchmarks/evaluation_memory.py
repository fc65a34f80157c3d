"""Measure the memory of `evaluate_model` on a large collection, with an encoder that makes vectors at random.

    python benchmarks/evaluation_memory.py [--documents 57000] [--tokens 130] [--dim 128] [--pool-factors 2]

FiQA has 57,600 documents of about 130 tokens. Prints the largest resident memory, and what the vectors would take as
float32.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from late_interaction import LateInteractionModel
from late_interaction.evaluation import JudgedCollection, evaluate_model
from late_interaction.types import FloatMatrix


class RandomModel(LateInteractionModel):
    """Gives each text so many random unit vectors, the same each time."""

    model_name = "random"

    def __init__(self, dim: int, n_tokens: int) -> None:
        self.dim, self._n_tokens = dim, n_tokens

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Name the model."""
        return {"model": self.model_name}

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """Return (n_tokens, dim) for each text."""
        return [self._vectors(text, self._n_tokens) for text in documents]

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """Return (32, dim) for each text."""
        return [self._vectors(text, 32) for text in queries]

    def _vectors(self, text: str, n: int) -> FloatMatrix:
        drawn = np.random.default_rng(zlib.crc32(text.encode())).standard_normal((n, self.dim), np.float32)
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the memory of an evaluation.")
    parser.add_argument("--documents", type=int, default=57_000)
    parser.add_argument("--tokens", type=int, default=130)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--pool-factors", type=float, nargs="+", default=[2])
    arguments = parser.parse_args()

    documents = {str(n): f"document {n}" for n in range(arguments.documents)}
    queries = {str(n): f"query {n}" for n in range(arguments.queries)}
    qrels = {query: {query: 1} for query in queries}
    collection = JudgedCollection("random", documents, queries, qrels)
    model = RandomModel(arguments.dim, arguments.tokens)
    before, started = megabytes(), time.process_time()
    results = asyncio.run(
        evaluate_model(collection, model, pool_factors=arguments.pool_factors, show_progress=True)
    )
    as_float32 = (results[0].n_vectors or 0) * arguments.dim * 4 / 2**20
    print(
        f"{len(documents):,} documents of {arguments.tokens} tokens, {arguments.dim} dimensions, pool factors "
        f"{arguments.pool_factors}: {megabytes():,.0f} MB at most, {before:,.0f} MB before; the vectors as float32 are "
        f"{as_float32:,.0f} MB; {time.process_time() - started:,.0f} s of CPU"
    )


if __name__ == "__main__":
    main()
