"""Stage 1 on Astra: candidates from ANN queries, or every document scored exactly."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from late_interaction.cores import side_by_side
from late_interaction.filters import Filter
from late_interaction.maxsim import query_maxsim
from late_interaction.packing import unpack_many
from late_interaction.stores.astra.ann import AnnHits, Asked, merge_ann_lists
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.reading import Reader, judged_columns, row_matches
from late_interaction.stores.astra.rows import binary_vector, matrix_of
from late_interaction.stores.astra.scaling import MAX_ANN_ROWS
from late_interaction.stores.astra.schema import Tables
from late_interaction.stores.astra.tasks import gather_or_cancel
from late_interaction.stores.base import Candidates
from late_interaction.types import QueryVectors

_ASKED_DISTANCE = 0.2
"""Query vectors closer than this are one ANN query, unless the lists are as long as they can be. It saves a third of
the requests at the same recall, since all vectors are scored (benchmarks/astra_latency.py)."""
_WAVE = 100
"""Candidates whose metadata are read together for a filter that the service cannot decide."""
_SCORED_TOGETHER = 200
"""Documents scored together where every one is."""


class Searcher:
    """Stage 1 of a search in one index.

    Args:
        client: requests to the keyspace.
        tables: of the open index.
        reader: reads its docs table.
    """

    def __init__(self, client: DataApiClient, tables: Tables, reader: Reader) -> None:
        self._client, self._tables, self._reader = client, tables, reader

    async def candidates(
        self, query: QueryVectors, n: int, n_ann_tokens: int | None, filter: Filter | None
    ) -> Candidates:
        """Run one ANN query per query vector, concurrently, fetching only ids and similarities.

        With `n_ann_tokens=None` every document is scored exactly instead.
        """
        pushed = self._reader.push_down(filter)
        if pushed.matches_nothing:
            return nothing(n_ann_tokens)
        if n_ann_tokens is None:
            return await score_all(self._reader, query, filter)
        asked = Asked.of(query, 0 if n_ann_tokens == MAX_ANN_ROWS else _ASKED_DISTANCE)
        lists = await gather_or_cancel(
            [self.nearest(vector, n_ann_tokens, pushed.where) for vector in asked.vectors]
        )
        hits = merge_ann_lists(lists, asked, n_ann_tokens)
        if pushed.exact:
            chosen, n_seen = np.arange(min(n, len(hits.doc_ids))), n
        else:
            assert filter is not None
            chosen, n_seen = await self._choose(hits, n, filter)
        return Candidates(
            doc_ids=[hits.doc_ids[i] for i in chosen],
            scores=hits.scores[chosen],
            exact=np.zeros(len(chosen), bool),
            bound=hits.bound(n_seen),
            n_ann_tokens=n_ann_tokens,
        )

    async def nearest(
        self,
        vector: NDArray[np.float32],
        n: int,
        where: Row | None = None,
        *,
        columns: Sequence[str] = ("doc_id",),
    ) -> list[Row]:
        """Return the `n` stored tokens most similar to a vector: `columns` and `$similarity` of each."""
        return await nearest(self._client, self._tables.tokens, "token_embedding", vector, n, where, columns)

    async def _choose(self, hits: AnnHits, n: int, filter: Filter) -> tuple[NDArray[np.int64], int]:
        """Return the best `n` documents whose metadata match, and how many were looked at to find them."""
        chosen: list[int] = []
        seen = 0
        while len(chosen) < n and seen < len(hits.doc_ids):
            wave = range(seen, min(len(hits.doc_ids), seen + max(_WAVE, 2 * (n - len(chosen)))))
            rows = await self._reader.rows([hits.doc_ids[i] for i in wave], judged_columns(filter))
            for i in wave:
                row = rows.get(hits.doc_ids[i])
                if len(chosen) < n:
                    seen = i + 1
                    if row is not None and row_matches(filter, row):
                        chosen.append(i)
        return np.array(chosen, np.int64), seen


async def nearest(
    client: DataApiClient,
    table: str,
    column: str,
    vector: NDArray[np.float32],
    n: int,
    where: Row | None,
    columns: Sequence[str],
) -> list[Row]:
    """Return the `n` rows of a table with the most similar vectors: `columns` and `$similarity` of each."""
    body: Row = {
        "projection": dict.fromkeys(columns, True),
        "sort": {column: binary_vector(vector)},
        "options": {"limit": n, "includeSimilarity": True},
    }
    if where:
        body["filter"] = where
    rows: list[Row] = (await client.command(table, {"find": body}))["data"]["documents"]
    return rows


async def score_all(reader: Reader, query: QueryVectors, filter: Filter | None) -> Candidates:
    """Score every document that matches exactly, a few pages of the service at a time."""
    doc_ids: list[str] = []
    scores: list[NDArray[np.float32]] = [np.empty(0, np.float32)]
    batch: list[Row] = []

    async def score() -> None:
        some, of_them = await asyncio.to_thread(score_rows, query, batch)
        doc_ids.extend(some)
        scores.append(of_them)
        batch.clear()

    async for row in reader.matching(filter, ("packed",)):
        if row["n_tokens"]:
            batch.append(row)
        if len(batch) == _SCORED_TOGETHER:
            await score()
    await score()
    joined = np.concatenate(scores)
    order = np.argsort(-joined, kind="stable")
    return Candidates([doc_ids[i] for i in order], joined[order], np.ones(len(order), bool), -math.inf, None)


@side_by_side()
def score_rows(query: QueryVectors, rows: Sequence[Row]) -> tuple[list[str], NDArray[np.float32]]:
    """Return the ids of rows that were read with their packed matrices, none of them blank, and their exact scores."""
    if not rows:
        return [], np.empty(0, np.float32)
    tokens = unpack_many([matrix_of(row) for row in rows])
    return [row["doc_id"] for row in rows], query_maxsim(query, tokens)


def nothing(n_ann_tokens: int | None) -> Candidates:
    """Return no candidates, where no document can match."""
    return Candidates([], np.empty(0, np.float32), np.empty(0, bool), -math.inf, n_ann_tokens)
