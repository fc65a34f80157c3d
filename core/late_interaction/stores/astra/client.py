"""Requests to the Data API through astrapy: one event loop, a limit on those in flight, retries where they may help.

Commands are sent as raw payloads through `AsyncCollection.command`, which posts to `…/{keyspace}/{name}` whatever the
name stands for. `AsyncTable.command` posts the same but reads every number as a `Decimal`, which takes four times
the CPU on a list of similarities (benchmarks/astra_cost.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from late_interaction.errors import StoreError
from late_interaction.stores.astra.failures import (
    NOT_THE_DATA_API,
    RequestFailedError,
    ServiceError,
    attempt,
    failure_of,
)
from late_interaction.stores.astra.limits import Limits

if TYPE_CHECKING:
    from astrapy import AsyncCollection, AsyncDatabase, Database

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

_SCHEMA_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class _Connections:
    """Clients that belong to one event loop of one process."""

    loop: asyncio.AbstractEventLoop
    pid: int
    database: AsyncDatabase
    in_flight: asyncio.Semaphore
    tables: dict[str, AsyncCollection[Any]] = field(default_factory=dict)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)


@dataclass(slots=True)
class Inserted:
    """What became of the rows of one insert.

    Attributes:
        refused: for each row that the service refused, by its position, the reason; all others are written.
        repeated: True if a row was sent more than once: an earlier attempt may have been carried out too.
    """

    refused: dict[int, str] = field(default_factory=dict)
    repeated: bool = False


class DataApiClient:
    """Commands on the tables of one keyspace.

    Args:
        database: astrapy's; it is copied, so that its own connections stay its own.
        concurrency: requests in flight at a time.
        timeout_s: seconds until a request counts as lost.
        retries: further attempts at a request that was lost.
        limits: the waits between attempts.
    """

    def __init__(
        self,
        database: Database | AsyncDatabase,
        *,
        concurrency: int,
        timeout_s: float,
        retries: int,
        limits: Limits,
    ) -> None:
        from astrapy import AsyncDatabase, Database
        from astrapy.api_options import APIOptions, SerdesOptions

        if not isinstance(database, AsyncDatabase | Database):
            raise TypeError(
                "database must be a database of astrapy, as get_async_database(…) returns it, "
                f"not {type(database).__name__}."
            )
        if database.keyspace is None:
            raise ValueError("the database has no keyspace: pass one to get_async_database(keyspace=…).")
        self.library_version = version("late-interaction")  # Read from files, and so not on the event loop.
        options = APIOptions(
            callers=[*database.api_options.callers, ("late-interaction", self.library_version)],
            serdes_options=SerdesOptions(use_decimals_in_collections=False),
        )
        self._copy: Callable[[], AsyncDatabase] = (
            (lambda: database.to_async(api_options=options))
            if isinstance(database, Database)
            else (lambda: database.with_options(api_options=options))
        )
        self.keyspace = database.keyspace
        url = urlsplit(database.api_endpoint)
        self.host = f"{url.hostname}:{url.port}" if url.port else str(url.hostname)
        self.concurrency = concurrency
        self._timeout_ms = max(1, _ms(timeout_s))  # 0 would be no limit.
        self._retries = retries
        self._limits = limits
        self._connections: _Connections | None = None
        _install_warning_filter()

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        connections, self._connections = self._connections, None
        # Those of another loop, or of the process before a fork, cannot be closed from here.
        if connections is not None and _is_here(connections):
            await connections.open.aclose()

    # --- the schema

    async def tables(self) -> dict[str, Row]:
        """Return the definition of each table of the keyspace, as `listTables` reports it."""

        async def ask(connections: _Connections) -> dict[str, Row]:
            with _readable():
                found = await connections.database.list_tables(timeout_ms=_ms(_SCHEMA_TIMEOUT_S))
            return {table.name: (table.raw_descriptor or {}).get("definition", {}) for table in found}

        return await self._with_retries("listTables", ask)

    async def create_table(self, name: str, definition: Row) -> None:
        """Create a table unless one of this name exists, whatever its definition."""

        async def ask(connections: _Connections) -> None:
            await connections.database.create_table(
                name, definition=definition, if_not_exists=True, timeout_ms=_ms(_SCHEMA_TIMEOUT_S)
            )

        await self._with_retries(f"createTable {name}", ask)

    async def drop_table(self, name: str) -> None:
        """Drop a table and its indexes, if it exists."""

        async def ask(connections: _Connections) -> None:
            await connections.database.drop_table(name, if_exists=True, timeout_ms=_ms(_SCHEMA_TIMEOUT_S))

        await self._with_retries(f"dropTable {name}", ask)

    async def indexes(self, table: str) -> dict[str, Row]:
        """Return the definition of each index of a table, as `listIndexes` reports it."""
        reply = await self.command(
            table, {"listIndexes": {"options": {"explain": True}}}, timeout_s=_SCHEMA_TIMEOUT_S
        )
        return {index["name"]: index.get("definition", {}) for index in reply["status"].get("indexes", [])}

    async def create_index(self, table: str, name: str, definition: Row, *, vector: bool = False) -> None:
        """Create an index unless one of this name exists, whatever its definition."""
        command = "createVectorIndex" if vector else "createIndex"
        body = {"name": name, "definition": definition, "options": {"ifNotExists": True}}
        await self.command(table, {command: body}, timeout_s=_SCHEMA_TIMEOUT_S)

    # --- rows

    async def command(self, table: str, body: Row, *, timeout_s: float | None = None) -> Row:
        """Send one command to a table and return the reply.

        Raises:
            ServiceError: it failed for good.
        """
        timeout_ms = self._timeout_ms if timeout_s is None else max(self._timeout_ms, _ms(timeout_s))
        name = next(iter(body))

        async def ask(connections: _Connections) -> Row:
            reply = await _post(connections, table, body, timeout_ms)
            match name, reply:
                case _, {"errors": [_, *_] as errors}:
                    raise failure_of(errors)
                case "find", {"data": {"documents": list(rows)}} if all(
                    isinstance(row, dict) for row in rows
                ):
                    return reply
                case _, {"status": dict()} if name != "find":
                    return reply
            raise RequestFailedError(NOT_THE_DATA_API, retryable=True)

        return await self._with_retries(f"{name} {table}", ask)

    async def insert(self, table: str, rows: Sequence[Row]) -> Inserted:
        """Upsert rows by one `insertMany`; rows that failed and may be tried again are sent again.

        Raises:
            ServiceError: for some rows it is not known whether they are written.
        """
        pending, inserted, attempts = list(range(len(rows))), Inserted(), 0

        async def ask(connections: _Connections) -> None:
            nonlocal pending, attempts
            attempts += 1
            inserted.repeated = attempts > 1
            options = {"ordered": False, "returnDocumentResponses": True}
            body = {"insertMany": {"documents": [rows[i] for i in pending], "options": options}}
            reply = await _post(connections, table, body, self._timeout_ms)
            errors, outcomes = _outcomes(reply, len(pending))
            again, failure = [], None
            for position, outcome in zip(pending, outcomes, strict=True):
                if outcome.get("status") == "OK":
                    continue
                number = outcome.get("errorsIdx")
                one = failure_of(
                    errors[number : number + 1] if number in range(len(errors)) else errors  # type: ignore[operator]
                )
                if one.retryable:
                    again.append(position)
                    failure = one
                else:
                    inserted.refused[position] = str(one)
            pending = again
            if failure is not None:
                raise failure

        await self._with_retries(f"insertMany {table}", ask)
        return inserted

    async def pages(
        self,
        table: str,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        expected: Sequence[str] = (),
    ) -> AsyncIterator[list[Row]]:
        """Yield the rows of a table, a page of the service's own size at a time.

        Args:
            table: its name.
            columns: what to read; a column that is null is left out of a row.
            where: a filter of the Data API.
            limit: the most rows in all.
            expected: codes of warnings that need not be logged.
        """
        body: Row = {"projection": dict.fromkeys(columns, True), "options": {}}
        if where:
            body["filter"] = where
        if limit is not None:
            body["options"]["limit"] = limit
        while True:
            with _expecting(expected):
                reply = await self.command(table, {"find": body})
            yield reply["data"]["documents"]
            if (state := reply["data"].get("nextPageState")) is None:
                return
            body["options"] = {**body["options"], "pageState": state}

    # --- one request and its repetitions

    async def _with_retries(self, what: str, ask: Callable[[_Connections], Awaitable[T]]) -> T:
        """Ask, and ask again after a loss, each time after a random part of a doubling wait (full jitter)."""
        for number in range(self._retries + 1):
            connections = self._connected()
            try:
                async with connections.in_flight:
                    return await attempt(ask, connections)
            except RequestFailedError as error:
                failure = error
            if not failure.retryable:
                break
            if number < self._retries:
                longest = min(self._limits.longest_wait_s, self._limits.first_wait_s * 2**number)
                wait_s = max(failure.wait_s, random.uniform(0, longest))  # noqa: S311
                logger.info("%s at %s: %s; again in %.2f s.", what, self.host, failure, wait_s)
                await asyncio.sleep(wait_s)
        tried = f" ({self._retries + 1} attempts)" if failure.retryable else ""
        raise ServiceError(
            f"{what} at {self.host} failed{tried}: {failure}.",
            outage=failure.retryable,
            no_table=failure.no_table,
        ) from None  # The cause holds the request, and with it the token.

    def _connected(self) -> _Connections:
        """Return the clients of the running loop: astrapy's async clients only work on the loop they first ran on."""
        connections = self._connections
        if connections is not None and _is_here(connections):
            return connections
        if connections is not None and connections.pid == os.getpid() and not connections.loop.is_closed():
            raise StoreError(
                f"The connections to {self.host} belong to another event loop, which still exists: use one loop, "
                "or a SyncPipeline (or a LoopPortal), whose methods may be called from any loop and thread."
            )
        database = self._copy()
        # Else httpcore would show it in its debug log. No variable here may hold it either: tracebacks show those.
        if not _fits_a_header(database.api_options.token.get_token() or ""):
            raise StoreError(
                "The token holds a character that no HTTP header can, such as the line's end behind it in a file: pass "
                "token.strip()."
            )
        connections = _Connections(
            asyncio.get_running_loop(), os.getpid(), database, asyncio.Semaphore(self.concurrency)
        )
        connections.open.push_async_exit(connections.database)
        self._connections = connections
        return connections


def _fits_a_header(token: str) -> bool:
    return token.isascii() and token.isprintable() and token == token.strip()


async def _post(connections: _Connections, table: str, body: Row, timeout_ms: int) -> Row:
    client = connections.tables.get(table)
    if client is None:
        client = connections.tables[table] = connections.database.get_collection(table)
        connections.open.push_async_exit(client)
    with _readable():
        reply = await client.command(body, raise_api_errors=False, timeout_ms=timeout_ms)
    if not isinstance(reply, dict):  # Another server may answer with any JSON at all.
        raise RequestFailedError(NOT_THE_DATA_API, retryable=True)
    return reply


@contextmanager
def _readable() -> Iterator[None]:
    """Turn the errors that astrapy raises on a reply of another shape into ours."""
    try:
        yield
    except (AttributeError, KeyError, TypeError):
        raise RequestFailedError(NOT_THE_DATA_API, retryable=True) from None


def _outcomes(reply: Row, n_rows: int) -> tuple[Sequence[Any], Sequence[Row]]:
    """Return the errors of an insert, and for each row what became of it."""
    match reply:
        case {"status": {"documentResponses": list(outcomes)}} if len(outcomes) == n_rows and all(
            isinstance(outcome, dict) for outcome in outcomes
        ):
            return reply.get("errors") or [], outcomes
        case {"errors": [_, *_] as errors}:
            raise failure_of(errors)
    raise RequestFailedError("its answer does not say what was written", retryable=True)


def _is_here(connections: _Connections) -> bool:
    return connections.loop is asyncio.get_running_loop() and connections.pid == os.getpid()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# --- warnings of the service that we expect

_expected: contextvars.ContextVar[Sequence[str]] = contextvars.ContextVar("expected", default=())


@contextmanager
def _expecting(codes: Sequence[str]) -> Iterator[None]:
    """Keep astrapy from logging warnings of these codes inside the block."""
    token = _expected.set(codes)
    try:
        yield
    finally:
        _expected.reset(token)


def _install_warning_filter() -> None:
    logging.getLogger("astrapy.utils.api_commander").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    codes = _expected.get()
    return not codes or not any(code in record.getMessage() for code in codes)
