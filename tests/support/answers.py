"""Short forms of what a search found."""

from __future__ import annotations

from collections.abc import Iterable

from late_interaction import SearchResult


def ids(results: Iterable[SearchResult]) -> list[str]:
    return [result.doc_id for result in results]
