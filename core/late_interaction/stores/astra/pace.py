"""How many requests are in flight at a time, and how many rows one insert takes: both follow what the service bears.

Both grow by addition and shrink by halving (AIMD, as in TCP): a service that throttles, or takes long, soon gets less,
and one that has room again gets more, without anybody knowing its limits.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from late_interaction.stores.astra.limits import Limits

_SLOW_S = 2.0
"""An insert that takes longer waits for others, or has too many rows, and costs much if it is lost."""
_QUICK_S = 0.5
_FEWEST_IN_FLIGHT = 4
"""With so few at a time, what is slow has too many rows."""
_FEWEST_ROWS = 5


class Pace:
    """A limit on requests in flight, entered by `async with`, and the size of inserts.

    Args:
        most: requests in flight at most; it begins with as many.
        limits: sizes of requests; inserts begin with its `rows`, and never have more.

    Attributes:
        in_flight: how many requests may be in flight now.
        rows: how many rows an insert should have now.
        request_bytes: how many bytes it should have at most.
    """

    def __init__(self, most: int, limits: Limits) -> None:
        self.in_flight = float(most)
        self.rows = limits.rows
        self.request_bytes = limits.request_bytes
        self._most, self._most_rows = most, limits.rows
        self._busy = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._shrunk_at = -float("inf")
        self._n_quick = 0

    async def __aenter__(self) -> Self:
        if not self._waiting and self._busy < int(self.in_flight):
            self._busy += 1
            return self
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # It was given a place, and does not take it.
                self._leave()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._busy -= 1
        while self._waiting and self._busy < int(self.in_flight):
            turn = self._waiting.popleft()
            if not turn.done():
                self._busy += 1
                turn.set_result(None)

    def answered(self, sent_at: float, n_rows: int = 0) -> None:
        """Note that a request was answered, and for an insert how many rows it had.

        Args:
            sent_at: when it was sent, by `time.monotonic()`.
            n_rows: rows of an insert.
        """
        took_s = time.monotonic() - sent_at
        if n_rows and took_s > _SLOW_S:
            if self.in_flight > _FEWEST_IN_FLIGHT:
                self.overloaded(sent_at)
            elif self._shrinks(sent_at):
                self.rows = max(min(_FEWEST_ROWS, self.rows), self.rows // 2)
            return
        self.in_flight = min(float(self._most), self.in_flight + 1 / self.in_flight)
        if n_rows and took_s < _QUICK_S:
            self._n_quick += 1
            if self._n_quick >= self.in_flight:  # About once in a round trip.
                self.rows, self._n_quick = min(self._most_rows, self.rows + 1), 0

    def overloaded(self, sent_at: float) -> None:
        """Note that the service had no room for a request that was sent at that time."""
        if self._shrinks(sent_at):
            self.in_flight = max(1.0, self.in_flight / 2)

    def _shrinks(self, sent_at: float) -> bool:
        """Tell whether a request was sent since the last time: all that were in flight together count once."""
        if sent_at <= self._shrunk_at:
            return False
        self._shrunk_at = time.monotonic()
        return True


@dataclass(slots=True)
class Waits:
    """What the requests of a client waited for, in seconds that are added up over requests side by side.

    Attributes:
        network_s: the way there and back: for each request as long as the quickest one took.
        service_s: the rest of what the service took to answer, and waits for it after lost requests.
    """

    network_s: float = 0.0
    service_s: float = 0.0
    _quickest_s: float = math.inf

    def answered(self, took_s: float) -> None:
        """Add a request that was answered."""
        self._quickest_s = min(self._quickest_s, took_s)
        self.network_s += self._quickest_s
        self.service_s += took_s - self._quickest_s
