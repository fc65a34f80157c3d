"""A limit on rows a second, beyond which requests are answered by HTTP 429."""

import time
from typing import Any


def rows_of(body: Any) -> int:
    """Return how many rows a request counts for: those that it inserts, or one."""
    documents = body.get("documents") if isinstance(body, dict) else None
    return len(documents) if isinstance(documents, list) else 1


class Throttle:
    """A bucket that holds the rows of one second."""

    def __init__(self) -> None:
        self._left = float("inf")
        self._at = time.monotonic()

    def admits(self, rows_per_s: float | None, body: Any) -> bool:
        """Tell whether there is room for a request, and take it: for its rows, or for one."""
        if rows_per_s is None:
            self._left = float("inf")
            return True
        now = time.monotonic()
        self._left = min(rows_per_s, self._left + (now - self._at) * rows_per_s)
        self._at = now
        rows = rows_of(body)
        if self._left < min(rows, rows_per_s):
            return False
        self._left -= rows
        return True
