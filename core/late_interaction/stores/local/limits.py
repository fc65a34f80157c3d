"""The sizes at which the embedded store changes its ways; tests make them small."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """When the search index is built, and how much is kept in memory.

    Attributes:
        exact_tokens: up to this many stored tokens, scoring them all is as fast as going through the search index
            (measured by benchmarks/local.py).
        filters_kept: how many filters' row ids are kept for the next search.
    """

    exact_tokens: int = 80_000
    filters_kept: int = 16


DEFAULT_LIMITS = Limits()
