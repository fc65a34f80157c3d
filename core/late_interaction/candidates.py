"""Stage 1, the part that all engines share: how its parameters grow with k.

The form is the field's: `max(k, int(a + b·k + c·k·ln k))`, from colbert-live and astra-multivector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

Coefficients: TypeAlias = tuple[float, float, float]


def expand(k: int, coefficients: Coefficients) -> int:
    """`max(k, int(a + b·k + c·k·ln k))` for `coefficients` (a, b, c) and k ≥ 1."""
    a, b, c = coefficients
    return max(k, int(a + b * k + c * k * math.log(k)))


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an engine's stage-1 parameters grow with k, and the engine's limits.

    Attributes:
        ann_tokens: coefficients of `n_ann_tokens`.
        maxsim_candidates: coefficients of `n_maxsim_candidates`.
        max_ann_tokens: the engine's limit on `n_ann_tokens`, None where it has none.
        bounded: the engine bounds the scores of what it does not hand over, so that a deeper search can make the top
            k certain without scoring every document.
    """

    ann_tokens: Coefficients
    maxsim_candidates: Coefficients
    max_ann_tokens: int | None = None
    bounded: bool = False

    def n_ann_tokens(self, k: int) -> int:
        """Stored tokens to look at for each query vector."""
        return self.clamp_ann_tokens(expand(k, self.ann_tokens))

    def n_maxsim_candidates(self, k: int) -> int:
        """Documents to score exactly."""
        return expand(k, self.maxsim_candidates)

    def clamp_ann_tokens(self, n: int) -> int:
        """`n`, within the engine's limit."""
        return n if self.max_ann_tokens is None else min(n, self.max_ann_tokens)
