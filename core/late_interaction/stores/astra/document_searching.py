"""Stage 1 by document vectors: one ANN query, and the few documents that have no vector of the reduction in use.

A query's vector is only compared with vectors of its own reduction. Where a new one is being written, both are asked,
each by a query of its own. A document with a vector of neither, or with none, is found through the index on the column
`reduction`, and scored exactly. Before the first reduction that is every document.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from late_interaction.filters import Filter
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.filters import Pushed
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.reading import EXISTS, Reader, judged_columns, row_matches
from late_interaction.stores.astra.reductions import Fitted, Reductions
from late_interaction.stores.astra.rows import is_whole
from late_interaction.stores.astra.schema import Tables
from late_interaction.stores.astra.searching import nearest, nothing, score_all, score_rows
from late_interaction.stores.astra.tasks import both
from late_interaction.stores.base import Candidates
from late_interaction.types import QueryVectors

_ROUNDS = 3
"""How often a search begins again because it met vectors of a reduction that it did not know."""


def other_than(live: Sequence[int]) -> Row:
    """Return the Data API's filter of documents with a vector of none of these reductions; no blank one is found."""
    bounds = sorted(live)
    between = [
        {"$and": [{"reduction": {"$gt": low}}, {"reduction": {"$lt": high}}]}
        for low, high in pairwise(bounds)
    ]
    return {"$or": [{"reduction": {"$lt": bounds[0]}}, *between, {"reduction": {"$gt": bounds[-1]}}]}


class DocumentSearcher:
    """Stage 1 of a search in one index with document vectors.

    Args:
        client: requests to the keyspace.
        tables: of the open index.
        reader: reads its docs table.
        reductions: of the index.
        limits: sizes of requests.
    """

    def __init__(
        self, client: DataApiClient, tables: Tables, reader: Reader, reductions: Reductions, limits: Limits
    ) -> None:
        self._client, self._tables, self._reader = client, tables, reader
        self._reductions, self._limits = reductions, limits

    async def candidates(
        self, query: QueryVectors, n: int, depth: int | None, filter: Filter | None
    ) -> Candidates:
        """Return the candidates of one ANN query of `depth` documents; with None every document is scored instead."""
        pushed = self._reader.push_down(filter)
        if pushed.matches_nothing:
            return nothing(depth)
        for _ in range(_ROUNDS):
            fitted = self._reductions.fitted
            if depth is None or not fitted.live:
                break
            found = await self._look(query, n, depth, filter, pushed, fitted)
            if found is not None:
                return found
            if await self._reductions.refresh() == fitted:
                break  # Its parts are gone: only the documents themselves are left.
        found = await score_all(self._reader, query, filter)
        if not self._reductions.fitted.live:
            await self._reductions.refresh()  # Another client may have fitted one.
        return found

    async def _look(
        self,
        query: QueryVectors,
        n: int,
        depth: int,
        filter: Filter | None,
        pushed: Pushed,
        fitted: Fitted,
    ) -> Candidates | None:
        """Return the candidates; None if the state that this client knows is not that of the index any more."""
        residual = None if pushed.exact else filter
        if self._reductions.is_old:
            await self._reductions.refresh()  # For the next search: others may have fitted, or written a lot.
        if fitted.next is None:
            lists, others = await both(
                self._lists(query, depth, pushed.where, residual, fitted),
                self._others(pushed.where, residual, fitted),
            )
        else:  # Documents pass from the others into a list now, and one that passes must not be in neither.
            others = await self._others(pushed.where, residual, fitted)
            lists = await self._lists(query, depth, pushed.where, residual, fitted)
        newest = fitted.live[-1]
        if lists is None or any(row["reduction"] > newest for row in others):
            if await self._reductions.refresh() != fitted:
                return None
            if lists is None:
                return None
        matching = [_matching(rows, residual, generation) for generation, rows in lists.items()]
        listed = [row for rows in matching for row in rows[:n] if row["n_tokens"]]
        rest = [row for row in others if row["n_tokens"]]
        complete = all(len(rows) < depth for rows in lists.values()) and all(
            len(rows) <= n for rows in matching
        )
        exact_ids, exact_scores = await asyncio.to_thread(
            score_rows, query, [row for row in (*listed, *rest) if "packed" in row]
        )
        unscored = {row["doc_id"]: 2 * row["$similarity"] - 1 for row in listed if "packed" not in row}
        for doc_id in exact_ids:
            unscored.pop(doc_id, None)
        scored = dict(zip(exact_ids, exact_scores.tolist(), strict=True))
        order = sorted(scored, key=lambda doc_id: (-scored[doc_id], doc_id))
        doc_ids = [*order, *sorted(unscored, key=lambda doc_id: (-unscored[doc_id], doc_id))]
        return Candidates(
            doc_ids=doc_ids,
            scores=np.array([scored.get(one, unscored.get(one)) for one in doc_ids], np.float32),
            exact=np.arange(len(doc_ids)) < len(scored),
            bound=-math.inf if complete else math.inf,
            n_ann_tokens=depth,
        )

    async def _lists(
        self, query: QueryVectors, depth: int, where: Row | None, residual: Filter | None, fitted: Fitted
    ) -> dict[int, list[Row]] | None:
        """Return the list of one ANN query for each live reduction; None if one of them is not there any more."""
        columns = [*EXISTS, "reduction", *(() if residual is None else judged_columns(residual))]
        if depth * self._reader.packed_bytes <= self._limits.ann_bytes:
            columns.append("packed")
        vectors: dict[int, NDArray[np.float32]] = {}
        for generation in fitted.live:
            reduction = await self._reductions.get(generation)
            if reduction is None:
                return None
            vectors[generation] = reduction.query(query)
        if len(vectors) == 1:
            ((generation, vector),) = vectors.items()
            return {generation: await self.nearest(vector, depth, where, columns)}
        return {
            generation: await self.nearest(vector, depth, _all_of(where, {"reduction": generation}), columns)
            for generation, vector in vectors.items()  # The older one first, likewise.
        }

    async def nearest(
        self, vector: NDArray[np.float32], n: int, where: Row | None, columns: Sequence[str]
    ) -> list[Row]:
        """Return the rows of the `n` documents whose vectors are most similar: `columns` and `$similarity` of each."""
        found = await nearest(self._client, self._tables.docs, "document_vector", vector, n, where, columns)
        rows = [row for row in found if is_whole(row, columns)]
        self._reader.learn_sizes(rows)
        return rows

    async def _others(self, where: Row | None, residual: Filter | None, fitted: Fitted) -> list[Row]:
        """Return the rows, with their matrices, of documents that have no vector of a live reduction."""
        columns = [*EXISTS, "reduction", "packed", *(() if residual is None else judged_columns(residual))]
        pages = self._client.pages(self._tables.docs, columns, where=_all_of(where, other_than(fitted.live)))
        return [
            row
            async for page in pages
            for row in page
            if is_whole(row, columns) and (residual is None or row_matches(residual, row))
        ]


def _matching(rows: Sequence[Row], residual: Filter | None, generation: int) -> list[Row]:
    """Return the rows of one list that match, without vectors of another reduction."""
    return [
        row
        for row in rows
        if row.get("reduction") == generation and (residual is None or row_matches(residual, row))
    ]


def _all_of(*filters: Mapping[str, object] | None) -> Row | None:
    given = [dict(one) for one in filters if one]
    return {"$and": given} if len(given) > 1 else (given[0] if given else None)
