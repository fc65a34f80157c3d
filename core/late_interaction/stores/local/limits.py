"""The sizes at which the embedded store changes its ways; tests make them small."""

from __future__ import annotations

from dataclasses import dataclass, field

from late_interaction.stores import local
from late_interaction.validation import check_not_negative, check_positive


@dataclass(frozen=True, slots=True)
class Limits:
    """When the search index is built, and how much is kept in memory.

    Attributes:
        exact_tokens: up to this many stored tokens they are all scored; beyond, the search index is built. By default
            `late_interaction.stores.local.EXACT_TOKENS` as it is now.
        filters_kept: how many filters' row ids are kept for the next search, at least 1.

    Raises:
        TypeError, ValueError: one is not a whole number, or too small.
    """

    exact_tokens: int = field(default_factory=lambda: local.EXACT_TOKENS)
    filters_kept: int = 16

    def __post_init__(self) -> None:
        check_not_negative("exact_tokens", self.exact_tokens)
        check_positive("filters_kept", self.filters_kept)
