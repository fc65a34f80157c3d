"""Stage 1 of the embedded store: what a small collection, or the index, gives for a query."""

from __future__ import annotations

import itertools
import math
import sqlite3

import numpy as np
from numpy.typing import NDArray

from late_interaction.filters import Filter
from late_interaction.maxsim import query_maxsim
from late_interaction.packing import unpack_many
from late_interaction.stores.base import Candidates
from late_interaction.stores.local.tables import BATCH, select_in
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
    parts = [_best_n(*scored, n, exact=True)]
    if n_indexed <= n or indexed_tokens <= exact_tokens:
        n_ann_tokens = None
    if n_ann_tokens is None:
        parts.append(_best_n(*_score(connection, query, view.indexed, indexed), n, exact=True))
    elif view.index is not None:
        scores = view.index.approximate(query, n_ann_tokens)
        scores[~indexed] = -np.inf
        parts.append(_best_n(view.indexed.doc_ids, scores, n, exact=False))
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


def _score(
    connection: sqlite3.Connection,
    query: QueryVectors,
    rows: Rows,
    chosen: NDArray[np.bool_],
    tokens: RaggedTokens | None = None,
) -> tuple[list[str], NDArray[np.float32]]:
    """Return ids and exact MaxSim of the chosen rows; `tokens` are all rows' matrices if they are in memory."""
    positions = np.flatnonzero(chosen)
    doc_ids = [rows.doc_ids[i] for i in positions.tolist()]
    if tokens is not None and 2 * len(positions) > len(rows.row_ids):
        return doc_ids, query_maxsim(query, tokens, positions)
    scores = np.empty(len(positions), np.float32)
    row_ids = rows.row_ids[positions].tolist()
    packed = (blob for (blob,) in select_in(connection, "packed FROM vectors", "rid", row_ids))
    for first in range(0, len(positions), BATCH):
        batch = unpack_many(list(itertools.islice(packed, BATCH)))
        scores[first : first + BATCH] = query_maxsim(query, batch)
    return doc_ids, scores


def _best_n(
    doc_ids: list[str], scores: NDArray[np.float32], n: int, *, exact: bool
) -> tuple[list[str], NDArray[np.float32], NDArray[np.bool_]]:
    """Return the `n` best of some scored documents, without those at minus infinity."""
    best = np.argpartition(-scores, n - 1)[:n] if n < len(scores) else np.arange(len(scores))
    best = best[np.isfinite(scores[best])]
    return [doc_ids[i] for i in best.tolist()], scores[best], np.full(len(best), exact)
