"""The arithmetic of stage 1 on Astra: merge the lists of one ANN query per query vector by document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROUNDING = 4e-4
"""How far a cosine of the service may be off, in its fourth digit: a bound must not be below what it bounds."""


@dataclass(frozen=True, slots=True)
class AnnHits:
    """The documents of the lists, best first.

    Attributes:
        doc_ids: each once.
        scores: (n,) float32, the sum over the query vectors of weight · similarity, over the lists that a document
            is in. Where it is not, 0 stands for an unknown similarity: over token lists that ranks better than the
            list's last one (benchmarks/astra_recall.py).
        bounds: (n,) float32, no document's exact score is above its bound: where it is not in a list, its similarity
            is at most the list's last.
        unseen: the same for documents in no list: minus infinity where a list came back shorter than asked for, as
            then every document is in it.
    """

    doc_ids: list[str]
    scores: NDArray[np.float32]
    bounds: NDArray[np.float32]
    unseen: float

    def bound(self, n: int) -> float:
        """Return the bound of all documents but the first `n`."""
        return max(self.unseen, float(self.bounds[n:].max(initial=-np.inf)))


def merge_ann_lists(
    lists: Sequence[Sequence[Mapping[str, Any]]], weights: NDArray[np.float32], limit: int
) -> AnnHits:
    """Merge the lists that the ANN queries returned.

    Args:
        lists: for each query vector rows with `doc_id` and `$similarity`, of a dot-product index: (1 + cos) / 2.
        weights: (n_query_vectors,) how much each one counts.
        limit: how many rows each query asked for.
    """
    position: dict[str, int] = {}
    columns = [[position.setdefault(row["doc_id"], len(position)) for row in rows] for rows in lists]
    similarities = np.full((len(lists), len(position)), -np.inf, np.float32)
    last = np.full(len(lists), -1.0, np.float32)
    for index, (rows, column) in enumerate(zip(lists, columns, strict=True)):
        cosines = 2 * np.array([row["$similarity"] for row in rows], np.float32) - 1
        np.maximum.at(similarities[index], column, cosines)
        if len(rows):
            last[index] = cosines.min()
    in_list = np.isfinite(similarities)
    scores = weights @ np.where(in_list, similarities, 0)
    rounding = _ROUNDING * weights.sum()
    bounds = weights @ np.where(in_list, similarities, last[:, None]) + rounding
    complete = any(len(rows) < limit for rows in lists)
    unseen = -math.inf if complete else float(weights @ last + rounding)
    order = np.argsort(-scores, kind="stable")
    ids = list(position)
    return AnnHits([ids[i] for i in order], scores[order], bounds[order], unseen)
