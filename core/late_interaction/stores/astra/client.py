"""Requests to the Data API through astrapy: one event loop, a limit on those in flight, retries of what is worth it.

Commands go as raw payloads through `AsyncCollection.command`, which posts to `…/{keyspace}/{name}` whatever the
name stands for. `AsyncTable.command` posts the same but reads every number as a `Decimal`, which takes four times
the CPU on a list of similarities (benchmarks/astra_cost.py).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import random
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from late_interaction.errors import StoreError

if TYPE_CHECKING:
    from astrapy import AsyncCollection, AsyncDatabase, Database
    from astrapy.exceptions import DataAPIHttpException

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

_SCHEMA_TIMEOUT_S = 60.0
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 20.0
_NEVER_RETRIED = {"INVALID_DATABASE_QUERY", "UNSUPPORTED_DATABASE_QUERY", "UNAUTHORIZED_ACCESS"}
"""Of the SERVER family, and yet the request's own fault: another try gets the same answer."""
_STRANGE = "the answer is not one of the Data API"
_UNKNOWN_TABLE = {"UNKNOWN_COLLECTION_OR_TABLE", "COLLECTION_NOT_EXIST", "TABLE_NOT_EXIST"}


class ServiceError(StoreError):
    """A request failed for good.

    Attributes:
        outage: True where the service did not answer as it should, however often it was asked: a write may or may
            not have been applied. False where it refused the request.
        no_table: the table is not there.
    """

    def __init__(self, message: str, *, outage: bool, no_table: bool = False) -> None:
        super().__init__(message)
        self.outage = outage
        self.no_table = no_table


class _TroubleError(Exception):
    """One attempt failed."""

    def __init__(
        self, reason: str, *, again: bool, wait_s: float = 0.0, codes: frozenset[str] = frozenset()
    ) -> None:
        super().__init__(reason)
        self.again = again
        self.wait_s = wait_s
        self.codes = codes


@dataclass(frozen=True)
class _Connections:
    """Clients that live on one event loop of one process."""

    loop: asyncio.AbstractEventLoop
    pid: int
    database: AsyncDatabase
    slots: asyncio.Semaphore
    tables: dict[str, AsyncCollection[Any]] = field(default_factory=dict)
    open: AsyncExitStack = field(default_factory=AsyncExitStack)


class Requests:
    """Commands on the tables of one keyspace.

    Args:
        database: astrapy's; it is copied, so that its own connections stay its own.
        concurrency: requests in flight at a time.
        timeout_s: seconds until a request counts as lost.
        retries: further attempts at a request that was lost.
    """

    def __init__(
        self, database: Database | AsyncDatabase, *, concurrency: int, timeout_s: float, retries: int
    ) -> None:
        from astrapy import AsyncDatabase, Database
        from astrapy.api_options import APIOptions, SerdesOptions

        if not isinstance(database, AsyncDatabase | Database):
            raise TypeError(
                f"database must be one of astrapy, as get_async_database(…) gives it, not {type(database).__name__}."
            )
        if database.keyspace is None:
            raise ValueError("the database has no keyspace: give one to get_async_database(keyspace=…).")
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
        self._connections: _Connections | None = None
        _let_expected_warnings_pass()

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        connections, self._connections = self._connections, None
        # Those of another loop, or of the process before a fork, cannot be closed from here.
        if connections is not None and _is_here(connections):
            await connections.open.aclose()

    # --- the schema

    async def tables(self) -> dict[str, Row]:
        """The definition of each table of the keyspace, as `listTables` gives it."""

        async def ask(connections: _Connections) -> dict[str, Row]:
            found = await connections.database.list_tables(timeout_ms=_ms(_SCHEMA_TIMEOUT_S))
            return {table.name: (table.raw_descriptor or {}).get("definition", {}) for table in found}

        return await self._persist("listTables", ask)

    async def create_table(self, name: str, definition: Row) -> None:
        """Create a table unless there is one of this name, be it another."""

        async def ask(connections: _Connections) -> None:
            await connections.database.create_table(
                name, definition=definition, if_not_exists=True, timeout_ms=_ms(_SCHEMA_TIMEOUT_S)
            )

        await self._persist(f"createTable {name}", ask)

    async def drop_table(self, name: str) -> None:
        """Drop a table and its indexes, if it is there."""

        async def ask(connections: _Connections) -> None:
            await connections.database.drop_table(name, if_exists=True, timeout_ms=_ms(_SCHEMA_TIMEOUT_S))

        await self._persist(f"dropTable {name}", ask)

    async def indexes(self, table: str) -> dict[str, Row]:
        """The definition of each index of a table, as `listIndexes` gives it."""
        reply = await self.command(
            table, {"listIndexes": {"options": {"explain": True}}}, timeout_s=_SCHEMA_TIMEOUT_S
        )
        return {index["name"]: index.get("definition", {}) for index in reply["status"]["indexes"]}

    async def create_index(self, table: str, name: str, definition: Row, *, vector: bool = False) -> None:
        """Create an index unless there is one of this name, be it another."""
        command = "createVectorIndex" if vector else "createIndex"
        body = {"name": name, "definition": definition, "options": {"ifNotExists": True}}
        await self.command(table, {command: body}, timeout_s=_SCHEMA_TIMEOUT_S)

    # --- rows

    async def command(self, table: str, body: Row, *, timeout_s: float | None = None) -> Row:
        """One command on a table.

        Raises:
            ServiceError: it failed for good.
        """
        timeout_ms = self._timeout_ms if timeout_s is None else max(self._timeout_ms, _ms(timeout_s))
        name = next(iter(body))

        async def ask(connections: _Connections) -> Row:
            reply = await _post(connections, table, body, timeout_ms)
            match name, reply:
                case _, {"errors": [_, *_] as errors}:
                    raise _trouble_of(errors)
                case "find", {"data": {"documents": list()}}:
                    return reply
                case _, {"status": dict()} if name != "find":
                    return reply
            raise _TroubleError(_STRANGE, again=True)

        return await self._persist(f"{name} {table}", ask)

    async def insert(self, table: str, rows: Sequence[Row]) -> dict[int, str]:
        """Upsert rows by one `insertMany`; what failed and may be tried again is tried again.

        Returns:
            For each row that the service refused, by its position, the reason; all others are written.

        Raises:
            ServiceError: some rows are not known to be written.
        """
        pending, refused = list(range(len(rows))), {}

        async def ask(connections: _Connections) -> None:
            nonlocal pending
            options = {"ordered": False, "returnDocumentResponses": True}
            body = {"insertMany": {"documents": [rows[i] for i in pending], "options": options}}
            reply = await _post(connections, table, body, self._timeout_ms)
            errors = reply.get("errors") or []
            outcomes = (reply.get("status") or {}).get("documentResponses")
            if not errors and outcomes is None:
                raise _TroubleError("its answer does not say what was written", again=True)
            if outcomes is None or len(outcomes) != len(pending):
                raise _trouble_of(errors)
            again, trouble = [], None
            for position, outcome in zip(pending, outcomes, strict=True):
                if outcome.get("status") == "OK":
                    continue
                one = _trouble_of([errors[outcome["errorsIdx"]]] if "errorsIdx" in outcome else errors)
                if one.again:
                    again.append(position)
                    trouble = one
                else:
                    refused[position] = str(one)
            pending = again
            if trouble is not None:
                raise trouble

        await self._persist(f"insertMany {table}", ask)
        return refused

    async def pages(
        self,
        table: str,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any] | None = None,
        limit: int | None = None,
        expected: Sequence[str] = (),
    ) -> AsyncIterator[list[Row]]:
        """Rows of a table, a page of the service's own size at a time.

        Args:
            table: its name.
            columns: what to read; a column that is null is left out of a row.
            where: a filter of the Data API.
            limit: of the rows in all.
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

    async def _persist(self, what: str, ask: Callable[[_Connections], Awaitable[T]]) -> T:
        """Try, and after a loss try again, each time after a random part of a doubling wait (full jitter)."""
        for attempt in range(self._retries + 1):
            connections = self._connected()
            try:
                async with connections.slots:
                    return await _attempt(ask, connections)
            except _TroubleError as error:
                trouble = error
            if not trouble.again:
                break
            if attempt < self._retries:
                longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2**attempt)
                wait_s = max(trouble.wait_s, random.uniform(0, longest))  # noqa: S311
                logger.info("%s at %s: %s; again in %.2f s.", what, self.host, trouble, wait_s)
                await asyncio.sleep(wait_s)
        tried = f" ({self._retries + 1} attempts)" if trouble.again else ""
        raise ServiceError(
            f"{what} at {self.host} failed{tried}: {trouble}.",
            outage=trouble.again,
            no_table=not trouble.codes.isdisjoint(_UNKNOWN_TABLE),
        ) from None  # The cause holds the request, and with it the token.

    def _connected(self) -> _Connections:
        """The clients of the running loop. astrapy's async clients work on the loop they first ran on alone."""
        connections = self._connections
        if connections is not None and _is_here(connections):
            return connections
        if connections is not None and connections.pid == os.getpid() and not connections.loop.is_closed():
            raise StoreError(
                f"The connections to {self.host} belong to another event loop, which is still there: use one loop, "
                "or a SyncPipeline (or a LoopPortal), whose methods may be called from any loop and thread."
            )
        connections = _Connections(
            asyncio.get_running_loop(), os.getpid(), self._copy(), asyncio.Semaphore(self.concurrency)
        )
        connections.open.push_async_exit(connections.database)
        self._connections = connections
        return connections


async def together(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run them all at once; when one fails, cancel the others, and raise once they have ended."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def in_parallel(work: Callable[[T], Awaitable[None]], items: Iterable[T], n: int) -> None:
    """`work` on each item, `n` at a time; an item is taken from the iterable when it is its turn."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    await together([take() for _ in range(n)])


async def _post(connections: _Connections, table: str, body: Row, timeout_ms: int) -> Row:
    client = connections.tables.get(table)
    if client is None:
        client = connections.tables[table] = connections.database.get_collection(table)
        connections.open.push_async_exit(client)
    reply = await client.command(body, raise_api_errors=False, timeout_ms=timeout_ms)
    if not isinstance(reply, dict):  # Any JSON at all may come from what is no Data API.
        raise _TroubleError(_STRANGE, again=True)
    return reply


async def _attempt(ask: Callable[[_Connections], Awaitable[T]], connections: _Connections) -> T:
    """Ask, with every way in which astrapy and httpx fail as a `_TroubleError`. Their texts may hold the token."""
    import httpx
    from astrapy.exceptions import (
        DataAPIHttpException,
        DataAPIResponseException,
        DataAPITimeoutException,
        UnexpectedDataAPIResponseException,
    )

    try:
        return await ask(connections)
    except DataAPIHttpException as error:
        raise _trouble_of_status(error) from None
    except DataAPITimeoutException:
        raise _TroubleError("no answer came in time", again=True) from None
    except DataAPIResponseException as error:
        described = [
            {"errorCode": one.error_code, "message": one.message, "family": one.family}
            for one in error.error_descriptors
        ]
        raise _trouble_of(described) from None
    except UnexpectedDataAPIResponseException:
        raise _TroubleError(_STRANGE, again=True) from None
    except (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL, UnicodeError):
        raise _TroubleError(
            "the request cannot be sent: the endpoint is no URL, or the token has a character that no header can hold",
            again=False,
        ) from None
    except httpx.TransportError as error:
        raise _TroubleError(f"the connection failed ({type(error).__name__})", again=True) from None


def _trouble_of(errors: Sequence[Mapping[str, Any]]) -> _TroubleError:
    """The Data API's error objects as one trouble; there is another try only if every one allows it."""
    codes = frozenset(str(error.get("errorCode")) for error in errors)
    reasons = dict.fromkeys(
        f"{error.get('errorCode')}: {error.get('message')}".rstrip(".") for error in errors
    )
    again = bool(errors) and all(
        error.get("family") == "SERVER" and error.get("errorCode") not in _NEVER_RETRIED for error in errors
    )
    return _TroubleError("; ".join(reasons) or "the service gave no reason", again=again, codes=codes)


def _trouble_of_status(error: DataAPIHttpException) -> _TroubleError:
    status = error.response.status_code
    described = "; ".join(f"{one.error_code}: {one.message}" for one in error.error_descriptors)
    if status in (401, 403):
        return _TroubleError(
            f"the service does not accept the token (HTTP {status}{described and ', ' + described})",
            again=False,
        )
    reason = f"HTTP {status}{described and ', ' + described}"
    try:
        wait_s = min(float(error.response.headers.get("Retry-After", 0)), _LONGEST_WAIT_S)
    except ValueError:  # A date: rare, and no more exact than our own waits.
        wait_s = 0.0
    return _TroubleError(reason, again=status in (408, 429) or status >= 500, wait_s=wait_s)


def _is_here(connections: _Connections) -> bool:
    return connections.loop is asyncio.get_running_loop() and connections.pid == os.getpid()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


# --- warnings of the service that we know of

_expected: contextvars.ContextVar[Sequence[str]] = contextvars.ContextVar("expected", default=())


@contextmanager
def _expecting(codes: Sequence[str]) -> Iterator[None]:
    """In this block, warnings of these codes are not logged by astrapy."""
    token = _expected.set(codes)
    try:
        yield
    finally:
        _expected.reset(token)


def _let_expected_warnings_pass() -> None:
    logging.getLogger("astrapy.utils.api_commander").addFilter(_is_unexpected)


def _is_unexpected(record: logging.LogRecord) -> bool:
    codes = _expected.get()
    return not codes or not any(code in record.getMessage() for code in codes)
