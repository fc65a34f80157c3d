"""The arithmetic of stage 1 on Astra: merge the lists of one ANN query per query vector by document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.pooling import pool_further
from late_interaction.types import FloatMatrix, QueryVectors

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


@dataclass(frozen=True, slots=True)
class Asked:
    """The vectors that ANN is asked for: those of a query, or fewer that stand for them.

    Attributes:
        vectors: (n, dim) float32, unit rows.
        weights: (n,) float32, how much each one counts.
        members: for each one the weights of the query's vectors that it stands for, and their angles to it.
    """

    vectors: FloatMatrix
    weights: NDArray[np.float32]
    members: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]

    @classmethod
    def of(cls, query: QueryVectors, distance: float) -> Asked:
        """Return as few vectors as stand for a query's, merged up to a cosine distance."""
        pooled, labels = pool_further(query, distance)
        cosines = np.einsum("nd,nd->n", query.vectors, pooled.vectors[labels])
        angles = np.arccos(np.clip(cosines, -1, 1))
        angles[np.bincount(labels)[labels] == 1] = 0  # It is itself.
        members = [(query.weights[labels == i], angles[labels == i]) for i in range(len(pooled.vectors))]
        return cls(pooled.vectors, pooled.weights, members)

    def bound(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the most that a query's score can be, by cosines (n, …) to these vectors.

        What has the angle a to a vector has no less than a - b to another one that is at the angle b to it.
        """
        bound = np.full(cosines.shape[1:], _ROUNDING * self.weights.sum(), np.float32)
        for cosine, (weights, angles) in zip(cosines, self.members, strict=True):
            if not angles.any():
                bound += weights.sum() * cosine
                continue
            angle = np.arccos(np.clip(cosine, -1, 1))
            for weight, between in zip(weights, angles, strict=True):
                bound += weight * np.cos(np.maximum(0, angle - between))
        return bound


def merge_ann_lists(lists: Sequence[Sequence[Mapping[str, Any]]], asked: Asked, limit: int) -> AnnHits:
    """Merge the lists that the ANN queries returned.

    Args:
        lists: for each vector asked for, rows with `doc_id` and `$similarity`, of a dot-product index: (1 + cos) / 2.
        asked: the vectors.
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
    scores = asked.weights @ np.where(in_list, similarities, 0)
    bounds = asked.bound(np.where(in_list, similarities, last[:, None]))
    complete = any(len(rows) < limit for rows in lists)
    unseen = -math.inf if complete else float(asked.bound(last))
    order = np.argsort(-scores, kind="stable")
    ids = list(position)
    return AnnHits([ids[i] for i in order], scores[order], bounds[order], unseen)
