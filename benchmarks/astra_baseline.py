"""Search by token vectors on Astra the older way, for comparison: as colbert-live and astra-multivector do.

Stage 1 finds token rows with their vectors; stage 2 fetches every token row of every candidate. It runs on the same
tables through `AsyncTable.find`, with the same stage-1 parameters.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict

import numpy as np
from astrapy import AsyncDatabase
from astrapy.data_types import DataAPIVector

from late_interaction.types import QueryVectors


async def search(
    database: AsyncDatabase, name: str, query: QueryVectors, k: int, *, n_ann_tokens: int, n_candidates: int
) -> list[tuple[str, float, str]]:
    """Return the `k` best documents: id, score and content."""
    tokens, docs = database.get_table(f"{name}_tokens"), database.get_table(f"{name}_docs")
    async with tokens, docs:

        async def nearest(vector: np.ndarray) -> list[dict]:
            cursor = tokens.find(
                sort={"token_embedding": DataAPIVector(vector.tolist())},
                limit=n_ann_tokens,
                include_similarity=True,
                projection={"doc_id": True, "token_id": True, "token_embedding": True},
            )
            return await cursor.to_list()

        async def matrix(doc_id: str) -> np.ndarray:
            rows = await tokens.find({"doc_id": doc_id}, projection={"token_embedding": True}).to_list()
            return np.array([list(row["token_embedding"]) for row in rows], np.float32)

        approximate: dict[str, float] = defaultdict(float)
        for rows, weight in zip(
            await asyncio.gather(*map(nearest, query.vectors)), query.weights, strict=True
        ):
            best: dict[str, float] = {}
            for row in rows:
                best[row["doc_id"]] = max(best.get(row["doc_id"], 0.0), float(row["$similarity"]))
            for doc_id, similarity in best.items():
                approximate[doc_id] += float(weight) * (2 * similarity - 1)
        candidates = sorted(approximate, key=lambda doc_id: -approximate[doc_id])[:n_candidates]
        matrices = await asyncio.gather(*map(matrix, candidates))
        scores = {
            doc_id: float((query.vectors @ m.T).max(axis=1) @ query.weights)
            for doc_id, m in zip(candidates, matrices, strict=True)
        }
        top = sorted(scores, key=lambda doc_id: -scores[doc_id])[:k]
        found = await docs.find(
            {"doc_id": {"$in": top}}, projection={"doc_id": True, "content": True}
        ).to_list()
        contents = {row["doc_id"]: row["content"] for row in found}
    return [(doc_id, scores[doc_id], contents[doc_id]) for doc_id in top]


async def load(
    database: AsyncDatabase, name: str, rows: list[dict[str, str]], matrices: list[np.ndarray]
) -> None:
    """Write documents and their token vectors, 50 rows to a request, as many at a time as astrapy sends by default."""
    tokens, docs = database.get_table(f"{name}_tokens"), database.get_table(f"{name}_docs")
    async with tokens, docs:
        await tokens.insert_many(
            [
                {
                    "doc_id": row["doc_id"],
                    "generation": 1,
                    "token_id": i,
                    "token_embedding": DataAPIVector(vector.tolist()),
                }
                for row, matrix in zip(rows, matrices, strict=True)
                for i, vector in enumerate(matrix)
            ]
        )
        await docs.insert_many(rows)
