"""What the suites count."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field


def times(n: int) -> int:
    """Return `n`, times the factor in the environment variable TORTURE."""
    return max(1, round(n * float(os.environ.get("TORTURE", "1"))))


@dataclass
class Figures:
    """What came of one suite.

    Attributes:
        cases: how many kills, runs, steps or inputs were tried.
        lost: acknowledged documents, or changes to them, that are not there afterwards.
        doubled: documents that are there, or found, twice.
        wrong: documents with another content, metadata or matrix than their own, and answers that are not right.
        foreign: exceptions that are not the library's own.
        notes: one line for each of these, at most twenty.
        counts: whatever else is worth telling.
        longest_s: how long the longest call took, where that is measured.
    """

    cases: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    foreign: int = 0
    notes: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    longest_s: float = 0.0

    def note(self, kind: str, text: str, n: int = 1) -> None:
        """Count something of a kind (lost, doubled, wrong, foreign), and say what it was."""
        setattr(self, kind, getattr(self, kind) + n)
        if len(self.notes) < 20:
            self.notes.append(f"{kind}: {text}"[:500])

    def add(self, other: Figures) -> None:
        """Add what came of another run."""
        self.cases += other.cases
        for kind in ("lost", "doubled", "wrong", "foreign"):
            setattr(self, kind, getattr(self, kind) + getattr(other, kind))
        self.notes = [*self.notes, *other.notes][:20]
        self.counts += other.counts
        self.longest_s = max(self.longest_s, other.longest_s)

    @property
    def bad(self) -> int:
        """How much went wrong."""
        return self.lost + self.doubled + self.wrong + self.foreign
