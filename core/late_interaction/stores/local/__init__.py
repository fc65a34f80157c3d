"""The embedded store: a folder with SQLite inside and a disposable centroid index beside it."""

from typing import TYPE_CHECKING

from late_interaction.lazy import lazy_names

if TYPE_CHECKING:
    from late_interaction.stores.local.store import LocalStore

__all__ = ["EXACT_TOKENS", "LocalStore"]

EXACT_TOKENS = 80_000
"""Up to this many stored tokens, scoring them all is as fast as going through the search index (measured by
benchmarks/local.py). The default of `Limits.exact_tokens` in this process, read when a store is made."""

__getattr__, __dir__ = lazy_names(__name__, {"late_interaction.stores.local.store": ["LocalStore"]})
