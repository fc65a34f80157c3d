"""What the doctor found out about an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from late_interaction.types import IndexSpec

RECALL_WANTED = 0.95
"""The share of stored vectors that must find themselves first; published values are 0.96 and more."""
TIE = 1e-3
"""Vectors this similar count as equal: stored as float16, their length is not exactly 1."""
STAGE_RECALL_WANTED = 0.9
"""The share of the exact top 10 that stage 1 should hand over by document vectors."""


@dataclass(slots=True)
class Health:
    """The result of `diagnose`.

    Attributes:
        location: index, keyspace and host.
        spec: what the index was built with.
        differences: tables, indexes and packed matrices (of the sample) that are not as they should be:
            name -> (found, wanted).
        complete: True if every row was read, so that the lists below are complete; otherwise they are of a sample.
        documents: how many rows of documents were read.
        tokens: how many token vectors they have.
        orphans: ids that have tokens and no document.
        stale: ids of documents whose tokens are missing or of another version, or whose declared fields are not stored
            as their metadata say.
        surplus: ids of documents that also have tokens of other versions, or beyond their last.
        young: ids that have tokens of a version that no document names: a write may be under way.
        torn: ids in the docs table that are not documents: rows deleted while their metadata were updated.
        sampled: stored vectors that were looked up.
        found_first: of those, how many found themselves first (or an equal vector).
        found: of those, how many found themselves at all.
        repaired: how many of the ids above, and of the indexes that were missing, were put right.
        expected_in_top: with document vectors, how many documents were in the exact top 10 of sampled ones.
        found_in_top: how many of them stage 1 hands over by default.
    """

    location: str
    spec: IndexSpec
    differences: dict[str, tuple[object, object]] = field(default_factory=dict)
    complete: bool = False
    documents: int = 0
    tokens: int = 0
    orphans: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    surplus: list[str] = field(default_factory=list)
    young: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    sampled: int = 0
    found_first: int = 0
    found: int = 0
    repaired: int = 0
    found_in_top: int = 0
    expected_in_top: int = 0

    def looked_up(self, similarities: Sequence[float], itself: Sequence[float], *, is_found: bool) -> None:
        """Count a stored vector that was looked up.

        Args:
            similarities: of all that were found.
            itself: those among them that are the vector's own.
            is_found: it, or an equal one, was found.
        """
        self.sampled += 1
        self.found += is_found
        self.found_first += is_found and (not itself or max(itself) >= max(similarities) - TIE)

    @property
    def recall(self) -> float:
        """Return the share of stored vectors that find themselves first; 1 if none was looked up."""
        return self.found_first / self.sampled if self.sampled else 1.0

    @property
    def stage_recall(self) -> float:
        """Return how much of the exact top 10 stage 1 hands over by document vectors; 1 if it was not measured."""
        return self.found_in_top / self.expected_in_top if self.expected_in_top else 1.0

    @property
    def refit(self) -> bool:
        """Tell whether the document vectors should be fitted anew: `optimize(refit=True)`."""
        return self.stage_recall < STAGE_RECALL_WANTED

    @property
    def leftovers(self) -> int:
        """Count the ids whose rows have something wrong."""
        return len({*self.orphans, *self.stale, *self.surplus, *self.torn})

    @property
    def healthy(self) -> bool:
        """Tell whether there is nothing to repair and the recall is as it should be."""
        found = self.recall >= RECALL_WANTED and not self.refit
        return not self.differences and not self.leftovers and found

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {
            **values,
            "spec": self.spec.to_dict(),
            "differences": {name: list(pair) for name, pair in self.differences.items()},
            "recall": self.recall,
            "stage_recall": self.stage_recall,
            "refit": self.refit,
            "healthy": self.healthy,
        }
