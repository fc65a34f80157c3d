"""How long a call goes on asking a service that does not answer, and what is said of it meanwhile."""

from __future__ import annotations

import contextvars
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

LOADING_S = 60.0
"""What a restart of a node takes (30 to 50 s), and some more."""
SEARCHING_S = 15.0
"""What somebody who searches waits for."""

_TOLD_EVERY_S = 10.0
_TOLD_AT_LEAST_EVERY_S = 600.0
_CALM_S = 60.0


@dataclass(slots=True)
class Patience:
    """The time that the requests of one call have between them, from the first one that was lost.

    Attributes:
        for_s: seconds; 0 for no second attempt.
        lost_since: when each request that was lost, and is not answered yet, was first sent.
    """

    for_s: float
    lost_since: dict[object, float] = field(default_factory=dict)

    @property
    def left_s(self) -> float:
        """Return the seconds that are left."""
        if not self.lost_since:
            return self.for_s
        return self.for_s - (time.monotonic() - min(self.lost_since.values()))

    def timeout_s(self, longest_s: float) -> float:
        """Return when the next attempt counts as lost: early enough for another one, and at most `longest_s`.

        An attempt that begins when the time is over, as to find out what became of a write, has a quarter of it.
        """
        if not self.for_s:
            return longest_s
        left_s = max(self.left_s, self.for_s / 4) if self.lost_since else self.for_s / 2
        return min(longest_s, left_s)


_of_the_call: contextvars.ContextVar[Patience | None] = contextvars.ContextVar("patience", default=None)


@contextmanager
def one_call(for_s: float) -> Iterator[None]:
    """Give the requests of the block one `Patience` between them; of nested blocks the outermost one counts."""
    if _of_the_call.get() is not None:
        yield
        return
    token = _of_the_call.set(Patience(for_s))
    try:
        yield
    finally:
        _of_the_call.reset(token)


def patience_of_the_call(for_s: float) -> Patience:
    """Return that of the call under way; outside of any a new one."""
    return _of_the_call.get() or Patience(for_s)


class LossLog:
    """Say that requests are lost: at the first one, and then seldom.

    Args:
        host: which service, for the message.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._n_untold = 0
        self._last_s = self._next_s = -float("inf")
        self._pause_s = _TOLD_EVERY_S

    def lost(self, what: str, reason: object, left_s: float) -> None:
        """Count a lost request that is sent again, and log a line if it is time for one."""
        now, since = time.monotonic(), time.monotonic() - self._last_s
        self._last_s = now
        self._n_untold += 1
        if since > _CALM_S:
            self._pause_s, self._next_s = _TOLD_EVERY_S, now
        if now < self._next_s:
            return
        others = f", and {self._n_untold - 1:,} others before it" if self._n_untold > 1 else ""
        logger.warning(
            "%s at %s was lost%s: %s. It is sent again for up to %.0f s.",
            what,
            self._host,
            others,
            reason,
            max(1, left_s),
        )
        self._n_untold = 0
        self._next_s = now + self._pause_s
        self._pause_s = min(_TOLD_AT_LEAST_EVERY_S, 2 * self._pause_s)
