"""Vector search: exact, by numpy over the stored float32 vectors, and made worse where the switches say so."""

from typing import Any

import numpy as np

from tools.data_api.tables import Table

Floats = np.ndarray[Any, np.dtype[np.float32]]
Slots = np.ndarray[Any, np.dtype[np.int64]]


def similarities(metric: str, matrix: Floats, query: Floats) -> Floats:
    """Return Cassandra's ``similarity_<metric>``, in [0, 1] for unit vectors.

    dot_product ``(1 + a·b) / 2``, cosine ``(1 + cos) / 2``, euclidean ``1 / (1 + |a - b|²)``, all in float32.

    Args:
        metric: the metric of the vector index.
        matrix: shape ``(n, dim)``.
        query: shape ``(dim,)``.

    Returns:
        Shape ``(n,)``.
    """
    scores: Floats
    if metric == "euclidean":
        differences = matrix - query
        scores = np.reciprocal(1 + np.einsum("nd,nd->n", differences, differences))
        return scores
    scores = matrix @ query
    if metric == "cosine":
        norms = np.sqrt(np.einsum("nd,nd->n", matrix, matrix) * (query @ query))
        scores /= np.maximum(norms, np.finfo(np.float32).tiny)
    scores += 1
    scores /= 2
    return scores


def nearest(
    table: Table,
    column: str,
    metric: str,
    query: Floats,
    limit: int,
    *,
    among: Slots | None,
    now: float,
    recall_loss: float,
    rounding: float,
    mixed_ties: bool,
    random: np.random.Generator,
) -> tuple[Slots, Floats]:
    """Return the rows most similar to a query, best first.

    Args:
        table: where the vectors are.
        column: the vector column.
        metric: the metric of its index.
        query: shape ``(dim,)``.
        limit: how many rows at most.
        among: slots that a filter leaves, ``None`` for all.
        now: the time by ``time.monotonic()``; rows written too recently are not seen.
        recall_loss: probability with which each row is passed over; the next best takes its place.
        rounding: up to how much each similarity is off.
        mixed_ties: whether equal similarities come in any order, and not in that of their slots.
        random: the source of these chances.

    Returns:
        Slots and similarities, both of length ``<= limit``.
    """
    cells = table.vectors[column]
    rows = len(table.slots)
    seen = cells.present[:rows] & (table.visible_at[:rows] <= now)
    slots = np.flatnonzero(seen) if among is None else among[seen[among]]
    if recall_loss:
        slots = slots[random.random(len(slots)) >= recall_loss]
    if mixed_ties:
        slots = random.permutation(slots)
    if len(slots) * 4 > rows:
        scores = similarities(metric, cells.matrix[:rows], query)[slots]
    else:
        scores = similarities(metric, cells.matrix[slots], query)
    if rounding:
        scores = scores + random.uniform(-rounding, rounding, len(scores)).astype(np.float32)
    if len(scores) > limit:
        best = np.argpartition(scores, -limit)[-limit:]
        slots, scores = slots[best], scores[best]
    order = np.argsort(-scores, kind="stable") if mixed_ties else np.lexsort((slots, -scores))
    return slots[order], scores[order]
