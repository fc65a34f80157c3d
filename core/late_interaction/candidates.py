"""Stage 1, the part that all engines share: how its parameters grow with k.

The form is the field's: `max(k, int(a + b·k + c·k·ln k))`, from colbert-live and astra-multivector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Coefficients: TypeAlias = tuple[float, float, float]


def expand(k: int, coefficients: Coefficients) -> int:
    """`max(k, int(a + b·k + c·k·ln k))` for `coefficients` (a, b, c) and k ≥ 1."""
    a, b, c = coefficients
    return max(k, int(a + b * k + c * k * math.log(k)))


_ERROR_SPREAD = 2.35
"""Standard deviations; benchmarks/local.py shows the recall that comes of it."""


def hopeful(
    approximate: NDArray[np.float32], to_beat: float, errors: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Which candidates may well reach a score, judged by how stage 1 was wrong about those already scored.

    Args:
        approximate: (n,) approximate scores of candidates not scored yet.
        to_beat: the k-th best exact score so far.
        errors: (m,) exact minus approximate score of candidates like them, m ≥ 1.

    Returns:
        (n,) bool: the approximate score, plus the errors' mean and 2.35 of their standard deviations, reaches
        `to_beat`.
    """
    chances: NDArray[np.bool_] = approximate >= to_beat - errors.mean() - _ERROR_SPREAD * errors.std()
    return chances


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an engine's stage-1 parameters grow with k, and the engine's limits.

    Attributes:
        ann_tokens: coefficients of `n_ann_tokens`.
        maxsim_candidates: coefficients of `n_maxsim_candidates`.
        first_candidates: coefficients of how many of them are scored first, to tell by these which of the others are
            `hopeful` and worth scoring too; None where all are scored at once.
        max_ann_tokens: the engine's limit on `n_ann_tokens`, None where it has none.
        bounded: the engine bounds the scores of what it does not hand over, so that a deeper search can make the top
            k certain without scoring every document.
    """

    ann_tokens: Coefficients
    maxsim_candidates: Coefficients
    first_candidates: Coefficients | None = None
    max_ann_tokens: int | None = None
    bounded: bool = False

    def n_ann_tokens(self, k: int) -> int:
        """Stored tokens to look at for each query vector."""
        return self.clamp_ann_tokens(expand(k, self.ann_tokens))

    def n_maxsim_candidates(self, k: int) -> int:
        """Documents to score exactly, at most."""
        return expand(k, self.maxsim_candidates)

    def n_first_candidates(self, k: int) -> int | None:
        """Documents to score exactly before the others are judged by them; None where all are scored at once."""
        return None if self.first_candidates is None else expand(k, self.first_candidates)

    def clamp_ann_tokens(self, n: int) -> int:
        """`n`, within the engine's limit."""
        return n if self.max_ann_tokens is None else min(n, self.max_ann_tokens)
