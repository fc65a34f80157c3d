"""Stage 1 of the embedded store: what a small collection, or the index, gives for a query."""

from __future__ import annotations

import itertools
import math
import sqlite3

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.filters import Filter
from late_interaction.maxsim import query_maxsim
from late_interaction.stores.base import Candidates
from late_interaction.stores.local.matrices import read_by_id, read_matrices
from late_interaction.stores.local.view import Rows, View, Views
from late_interaction.types import QueryVectors, RaggedTokens

_SOONER = 2
"""With a filter, the index is used from so many times fewer tokens on: to score 80,000 takes nearly twice as long."""


def find_candidates(
    connection: sqlite3.Connection,
    views: Views,
    view: View,
    query: QueryVectors,
    n: int,
    n_ann_tokens: int | None,
    filter: Filter | None,
    exact_tokens: int,
) -> Candidates:
    """Return the candidates of a query. Few documents, and those that the index does not cover, are scored exactly."""
    indexed, unindexed = view.indexed.alive, view.unindexed.alive
    n_indexed, indexed_tokens = view.indexed.n_alive, view.indexed.tokens_alive
    if filter is not None:
        indexed, unindexed = views.allowed(connection, filter, view)
        n_indexed, indexed_tokens = int(indexed.sum()), int(view.indexed.n_tokens[indexed].sum())
        exact_tokens //= _SOONER  # The index is there, and what it costs is paid.
    scored = _score(connection, query, view.unindexed, unindexed, view.matrices)
    parts = [_best_n(view.unindexed, *scored, n, exact=True)]
    if n_indexed <= n or indexed_tokens <= exact_tokens:
        n_ann_tokens = None
    if n_ann_tokens is None:
        parts.append(_best_n(view.indexed, *_score(connection, query, view.indexed, indexed), n, exact=True))
    elif view.index is not None:
        scores = view.index.approximate(query, n_ann_tokens)
        if n_indexed < len(scores):
            scores[~indexed] = -np.inf
        parts.append(_best_n(view.indexed, None, scores, n, exact=False))
    doc_ids = [doc_id for part in parts for doc_id in part[0]]
    scores, exact = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    order = np.argsort(-scores, kind="stable")
    return Candidates(
        doc_ids=[doc_ids[i] for i in order.tolist()],
        scores=scores[order],
        exact=exact[order],
        bound=-math.inf if n_ann_tokens is None else math.inf,
        n_ann_tokens=n_ann_tokens,
    )


def score_documents(
    connection: sqlite3.Connection, view: View | None, query: QueryVectors, doc_ids: list[str], dim: int
) -> tuple[list[str], NDArray[np.float32]]:
    """Return those of the documents that exist and have vectors, in the order asked, and their exact MaxSim.

    Args:
        connection: sees the documents.
        view: the view of what the connection sees, if there is one: by row id, documents are read faster.
        query: the query.
        doc_ids: which documents.
        dim: the width of a token vector.
    """
    scores = np.full(len(doc_ids), np.nan, np.float32)
    if view is not None:
        places = view.table.find(doc_ids)
        order = np.argsort(places)
        order = order[np.searchsorted(places, 0, sorter=order) :]
        places = places[order]
        row_ids = view.indexed.row_ids[places]
        for found, tokens in read_matrices(connection, row_ids, view.indexed.n_tokens[places], dim):
            scores[order[np.searchsorted(row_ids, found)]] = query_maxsim(query, tokens)
    missing = np.flatnonzero(np.isnan(scores)).tolist()
    if missing:
        others, tokens = read_by_id(connection, [doc_ids[i] for i in missing], dim)
        score_of = dict(zip(others, query_maxsim(query, tokens).tolist(), strict=True))
        scores[missing] = [score_of.get(doc_ids[i], np.nan) for i in missing]
    there = ~np.isnan(scores)
    return list(itertools.compress(doc_ids, there.tolist())), scores[there]


def _score(
    connection: sqlite3.Connection,
    query: QueryVectors,
    rows: Rows,
    chosen: NDArray[np.bool_],
    tokens: RaggedTokens | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return positions and exact MaxSim of the chosen rows; `tokens` are all rows' matrices if they are in memory."""
    positions = np.flatnonzero(chosen)
    if tokens is not None and 2 * len(positions) > len(rows.row_ids):
        return positions, query_maxsim(query, tokens, positions)
    batches = read_matrices(
        connection, rows.row_ids[positions], rows.n_tokens[positions], query.vectors.shape[1]
    )
    scores = [query_maxsim(query, batch) for _, batch in batches]
    if sum(map(len, scores)) != len(positions):
        raise StoreError("The index is damaged: token matrices are missing. Put a backup in its place.")
    return positions, np.concatenate([np.empty(0, np.float32), *scores])


def _best_n(
    rows: Rows, positions: NDArray[np.int64] | None, scores: NDArray[np.float32], n: int, *, exact: bool
) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the `n` best of the rows at some positions (None: of all), without those at minus infinity."""
    best = np.argpartition(-scores, n - 1)[:n] if n < len(scores) else np.arange(len(scores))
    best = best[np.isfinite(scores[best])]
    doc_ids = rows.ids.take(best if positions is None else positions[best])
    return doc_ids, scores[best], np.full(len(best), exact)
