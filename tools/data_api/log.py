"""The log of requests: what a test counts and asserts on."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Request:
    """One request.

    Attributes:
        command: its name, empty where the request did not get so far as to name one.
        keyspace: from the path.
        table: from the path.
        body: the body of the command, without the documents of an insert.
        user_agent: the header, which carries the client's callers.
        bytes_in: of the request body.
        bytes_out: of the response body, as far as it was sent.
        rows_read: rows in the response.
        rows_written: rows inserted, updated or deleted.
        status: HTTP status; 0 while under way, and where no answer was given.
        error_codes: of the error envelope.
        fault: the action of the fault that befell it.
        started: by ``time.monotonic()``.
        finished: by ``time.monotonic()``, ``None`` while under way.
    """

    command: str = ""
    keyspace: str | None = None
    table: str | None = None
    body: dict[str, Any] = field(default_factory=dict)
    user_agent: str = ""
    bytes_in: int = 0
    bytes_out: int = 0
    rows_read: int = 0
    rows_written: int = 0
    status: int = 0
    error_codes: list[str] = field(default_factory=list)
    fault: str | None = None
    started: float = field(default_factory=time.monotonic)
    finished: float | None = None


class RequestLog:
    """Requests in the order of their arrival."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.in_flight = 0
        self.max_in_flight = 0

    def clear(self) -> None:
        """Begin again; requests under way still count as in flight."""
        self.requests = []
        self.max_in_flight = self.in_flight

    def begin(self) -> Request:
        """Note that a request arrives."""
        request = Request()
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return request

    def end(self, request: Request) -> None:
        """Note that a request is answered, or abandoned."""
        request.finished = time.monotonic()
        self.in_flight -= 1

    def select(self, command: str | None = None, table: str | None = None) -> list[Request]:
        """Return the requests of a command, on a table."""
        return [
            request
            for request in self.requests
            if command in (None, request.command) and table in (None, request.table)
        ]

    def count(self, command: str | None = None, table: str | None = None) -> int:
        """Count the requests of a command, on a table."""
        return len(self.select(command, table))

    @property
    def commands(self) -> Counter[str]:
        """Count the requests of each command."""
        return Counter(request.command for request in self.requests)

    @property
    def bytes_in(self) -> int:
        """Sum the request bodies."""
        return self._total(lambda request: request.bytes_in)

    @property
    def bytes_out(self) -> int:
        """Sum the response bodies."""
        return self._total(lambda request: request.bytes_out)

    @property
    def rows_read(self) -> int:
        """Sum the rows returned."""
        return self._total(lambda request: request.rows_read)

    @property
    def rows_written(self) -> int:
        """Sum the rows inserted, updated or deleted."""
        return self._total(lambda request: request.rows_written)

    def _total(self, amount: Callable[[Request], int]) -> int:
        return sum(amount(request) for request in self.requests)
