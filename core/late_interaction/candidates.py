"""How stage 1's parameters grow with k, on all engines.

The form is the field's: `max(k, int(a + b·k + c·k·ln k))`, from colbert-live and astra-multivector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from late_interaction.validation import LARGEST

Coefficients: TypeAlias = tuple[float, float, float]


def expand(k: int, coefficients: Coefficients) -> int:
    """Return `max(k, int(a + b·k + c·k·ln k))` for `coefficients` (a, b, c) and k ≥ 1."""
    a, b, c = coefficients
    return max(k, int(a + b * k + c * k * math.log(k)))


@dataclass(frozen=True, slots=True)
class Scaling:
    """How an engine's stage-1 parameters grow with k, and the engine's limits.

    Attributes:
        ann_tokens: coefficients of `n_ann_tokens`.
        maxsim_candidates: coefficients of `n_maxsim_candidates`.
        first_candidates: coefficients of how many of them are scored first, to tell by these which of the others may
            reach the top k (`searching.may_reach_top_k`) and are worth scoring too; None where all are scored at once.
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
        """Return how many stored tokens to look at for each query vector."""
        return self.clamp_ann_tokens(expand(k, self.ann_tokens))

    def n_maxsim_candidates(self, k: int) -> int:
        """Return how many documents to score exactly, at most."""
        return expand(k, self.maxsim_candidates)

    def n_first_candidates(self, k: int) -> int | None:
        """Return how many documents to score before the others are judged by them; None to score all at once."""
        return None if self.first_candidates is None else expand(k, self.first_candidates)

    def clamp_ann_tokens(self, n: int) -> int:
        """Return `n`, within the engine's limit."""
        return min(n, LARGEST if self.max_ann_tokens is None else self.max_ann_tokens)
