"""Faults by rule: which requests go wrong, and how."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

Action = Literal[
    "http_error", "hang", "reset", "malformed_json", "error_envelope", "partial_insert", "repeat"
]


@dataclass
class Fault:
    """A rule that makes requests fail.

    Attributes:
        action: what the client meets:
            ``http_error``: an HTTP status with a page of HTML, as a gateway answers;
            ``hang``: no answer at all, until the client gives up;
            ``reset``: half of the answer, then the connection is reset;
            ``malformed_json``: an answer that breaks off, under a length that fits;
            ``error_envelope``: HTTP 200 with an error of the Data API's SERVER family;
            ``repeat``: the server carries the command out twice and gives the second answer, as it does with a
                definition that took too long: a createIndex without ifNotExists meets CANNOT_ADD_EXISTING_INDEX;
            ``partial_insert``: an insertMany of which the rows in ``failing_rows`` fail with that error.
        command: only this command.
        table: only on this table.
        nth: only the nth request that matches, counted from 1.
        times: at most so many times.
        probability: with this probability.
        applied: whether the command (or the failing row) takes effect although the client is told it failed.
        status: of ``http_error``.
        error_code: of ``error_envelope`` and ``partial_insert``, of the family SERVER.
        failing_rows: of ``partial_insert``, positions in the request.
        matched: how many requests the rule has matched so far, fired or not.
        fired: how many it has made fail.
    """

    action: Action
    command: str | None = None
    table: str | None = None
    nth: int | None = None
    times: int | None = None
    probability: float = 1.0
    applied: bool = False
    status: int = 503
    error_code: str = "UNAVAILABLE_DATABASE"
    failing_rows: tuple[int, ...] = (0,)
    matched: int = field(default=0, init=False)
    fired: int = field(default=0, init=False)

    def fires(self, command: str, table: str | None, random: np.random.Generator) -> bool:
        """Tell whether this request goes wrong, and count it."""
        if self.command not in (None, command) or self.table not in (None, table):
            return False
        self.matched += 1
        if self.nth not in (None, self.matched) or self.times == self.fired:
            return False
        if random.random() >= self.probability:
            return False
        self.fired += 1
        return True
