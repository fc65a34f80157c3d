"""The connections of one event loop to the Data API, through astrapy.

Commands are sent as raw payloads through `AsyncCollection.command`, which posts to `…/{keyspace}/{name}` whatever the
name stands for. `AsyncTable.command` posts the same but reads every number as a `Decimal`, which takes four times
the CPU on a list of similarities (benchmarks/astra_cost.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from late_interaction.errors import StoreError
from late_interaction.stores.astra.failures import NOT_THE_DATA_API, RequestFailedError
from late_interaction.stores.astra.pace import Pace

if TYPE_CHECKING:
    from astrapy import AsyncCollection, AsyncDatabase

Row: TypeAlias = dict[str, Any]

_NEVER_MS = 86_400_000


@dataclass(frozen=True)
class Connections:
    """Clients that belong to one event loop of one process."""

    loop: asyncio.AbstractEventLoop
    pid: int
    database: AsyncDatabase
    pace: Pace
    tables: dict[str, AsyncCollection[Any]] = field(default_factory=dict)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)

    @classmethod
    def to(cls, database: AsyncDatabase, pace: Pace) -> Self:
        """Return the connections of the running loop; each is opened at its first request.

        Raises:
            StoreError: the token cannot be sent.
        """
        # Else httpcore would show it in its debug log. No variable here may hold it either: tracebacks show those.
        if not _fits_a_header(database.api_options.token.get_token() or ""):
            raise StoreError(
                "The token holds a character that no HTTP header can, such as the line's end behind it in a file: pass "
                "token.strip()."
            )
        return cls(asyncio.get_running_loop(), os.getpid(), database, pace)

    def are_here(self) -> bool:
        """Tell whether they belong to the running loop of this process."""
        return self.loop is asyncio.get_running_loop() and self.pid == os.getpid()

    async def post(self, table: str | None, body: Row) -> Row:
        """Send a command to a table, or to the keyspace, and return the reply as it is."""
        name = (
            table or ""
        )  # An empty name is the keyspace. `AsyncDatabase.command` leaves its connection open.
        if name not in self.tables:
            self.tables[name] = self.database.get_collection(name)
            self.open.push_async_exit(self.tables[name])
        client = self.tables[name]
        # The timeout that counts is that of `attempt`; astrapy's are for each part of a request.
        with _readable():
            reply = await client.command(body, raise_api_errors=False, timeout_ms=_NEVER_MS)
        if not isinstance(reply, dict):  # Another server may answer with any JSON at all.
            raise RequestFailedError(NOT_THE_DATA_API, retryable=True)
        return reply


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and token == token.strip()


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the errors that astrapy raises on a reply of another shape into ours."""
    try:
        yield
    except (AttributeError, KeyError, TypeError):
        raise RequestFailedError(NOT_THE_DATA_API, retryable=True) from None


# --- warnings of the service that we expect

_expected: contextvars.ContextVar[Sequence[str]] = contextvars.ContextVar("expected", default=())


@contextmanager
def expecting(codes: Sequence[str]) -> Iterator[None]:
    """Keep astrapy from logging warnings of these codes inside the block."""
    token = _expected.set(codes)
    try:
        yield
    finally:
        _expected.reset(token)


def install_warning_filter() -> None:
    """Keep the warnings that a block expects out of astrapy's log."""
    logging.getLogger("astrapy.utils.api_commander").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    codes = _expected.get()
    return not codes or not any(code in record.getMessage() for code in codes)
