"""Requests to the Data API: one event loop, a limit on those in flight, retries where they may help."""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from late_interaction.errors import StoreError
from late_interaction.stores.astra.connections import (
    Connections,
    expecting,
    install_warning_filter,
)
from late_interaction.stores.astra.failures import (
    NOT_THE_DATA_API,
    RequestFailedError,
    ServiceError,
    attempt,
    failure_of,
)
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.pace import Pace, Waits
from late_interaction.stores.astra.patience import (
    LOADING_S,
    SEARCHING_S,
    LossLog,
    one_call,
    patience_of_the_call,
)

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database

logger = logging.getLogger(__name__)

T = TypeVar("T")
Row: TypeAlias = dict[str, Any]

_READS = ("find", "listIndexes", "listTables")


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
        concurrency: requests in flight at a time, at most.
        timeout_s: seconds until a request, of any kind, counts as lost.
        retry_for_s: seconds for which lost requests are sent again; None for 60 while writing and 15 while searching.
        retries: further attempts at a request that was lost, at most; None for as many as there is time for.
        limits: sizes of requests, and the waits between attempts.

    Attributes:
        pace: how many requests are in flight, and how large inserts are.
        waits: what requests waited for so far.
    """

    def __init__(
        self,
        database: Database | AsyncDatabase,
        *,
        concurrency: int,
        timeout_s: float,
        retry_for_s: float | None,
        retries: int | None,
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
        self.pace = Pace(concurrency, limits)
        self.waits = Waits()
        self._timeout_s = timeout_s
        self._load_for_s = LOADING_S if retry_for_s is None else retry_for_s
        self._search_for_s = SEARCHING_S if retry_for_s is None else retry_for_s
        self._retries = math.inf if retries is None else retries
        self._limits = limits
        self._losses = LossLog(self.host)
        self._connections: Connections | None = None
        install_warning_filter()

    def loading(self) -> AbstractContextManager[None]:
        """Give the requests of the block, one call that writes, the time of loading between them."""
        return one_call(self._load_for_s)

    async def aclose(self) -> None:
        """Close the connections; the next request opens new ones."""
        connections, self._connections = self._connections, None
        # Those of another loop, or of the process before a fork, cannot be closed from here.
        if connections is not None and connections.are_here():
            await connections.open.aclose()

    # --- the schema

    async def tables(self) -> dict[str, Row]:
        """Return the definition of each table of the keyspace, as `listTables` reports it."""
        return self._definitions(
            "tables", await self.command(None, {"listTables": {"options": {"explain": True}}})
        )

    async def create_table(self, name: str, definition: Row) -> None:
        """Create a table unless one of this name exists, whatever its definition."""
        await self._define(
            None, {"createTable": {"name": name, "definition": definition, "options": {"ifNotExists": True}}}
        )

    async def drop_table(self, name: str) -> None:
        """Drop a table and its indexes, if it exists."""
        await self.command(None, {"dropTable": {"name": name, "options": {"ifExists": True}}})

    async def indexes(self, table: str) -> dict[str, Row]:
        """Return the definition of each index of a table, as `listIndexes` reports it."""
        return self._definitions(
            "indexes", await self.command(table, {"listIndexes": {"options": {"explain": True}}})
        )

    def _definitions(self, of: str, reply: Row) -> dict[str, Row]:
        try:
            return {one["name"]: one.get("definition", {}) for one in reply["status"][of]}
        except (AttributeError, KeyError, TypeError):
            raise ServiceError(
                f"The list of {of} of {self.host} cannot be read: {NOT_THE_DATA_API}.", outage=True
            ) from None

    async def create_index(self, table: str, name: str, definition: Row) -> None:
        """Create an index unless one of this name exists, whatever its definition."""
        options = definition.get("options", {})
        kinds = {"analyzer": "createTextIndex", "metric": "createVectorIndex"}
        command = next((kind for option, kind in kinds.items() if option in options), "createIndex")
        body = {"name": name, "definition": definition, "options": {"ifNotExists": True}}
        await self._define(table, {command: body})

    async def _define(self, table: str | None, body: Row) -> None:
        try:
            await self.command(table, body)
        except ServiceError as error:
            if not error.exists_already:  # The service may have repeated a definition that took effect.
                raise

    # --- rows

    async def command(self, table: str | None, body: Row, *, patient: bool = False) -> Row:
        """Send one command to a table, or to the keyspace, and return the reply.

        Args:
            table: its name; None for the keyspace.
            body: the command.
            patient: take as long for a read as for a write.

        Raises:
            ServiceError: it failed for good.
        """
        name = next(iter(body))

        async def ask(connections: Connections) -> Row:
            reply = await connections.post(table, body)
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

        on = table or body[name].get("name")
        for_s = self._search_for_s if name in _READS and not patient else self._load_for_s
        return await self._with_retries(f"{name} {on}" if on else name, ask, for_s)

    async def insert(self, table: str, rows: Sequence[Row]) -> Inserted:
        """Upsert rows by one `insertMany`; rows that failed and may be tried again are sent again.

        Raises:
            ServiceError: for some rows it is not known whether they are written.
        """
        pending, inserted, attempts = list(range(len(rows))), Inserted(), 0

        async def ask(connections: Connections) -> None:
            nonlocal pending, attempts
            attempts += 1
            inserted.repeated = attempts > 1
            options = {"ordered": False, "returnDocumentResponses": True}
            body = {"insertMany": {"documents": [rows[i] for i in pending], "options": options}}
            reply = await connections.post(table, body)
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

        await self._with_retries(f"insertMany {table}", ask, self._load_for_s, n_rows=len(rows))
        return inserted

    async def pages(
        self,
        table: str,
        columns: Sequence[str],
        *,
        where: Mapping[str, Any] | None = None,
        sort: Mapping[str, Any] | None = None,
        limit: int | None = None,
        expected: Sequence[str] = (),
        patient: bool = False,
    ) -> AsyncIterator[list[Row]]:
        """Yield the rows of a table, a page of the service's own size at a time.

        Args:
            table: its name.
            columns: what to read; a column that is null is left out of a row.
            where: a filter of the Data API.
            sort: its sort clause.
            limit: the most rows in all.
            expected: codes of warnings that need not be logged.
            patient: take as long as for a write.
        """
        body: Row = {"projection": dict.fromkeys(columns, True), "options": {}}
        if where:
            body["filter"] = where
        if sort:
            body["sort"] = sort
        if limit is not None:
            body["options"]["limit"] = limit
        while True:
            with expecting(expected):
                reply = await self.command(table, {"find": body}, patient=patient)
            yield reply["data"]["documents"]
            if (state := reply["data"].get("nextPageState")) is None:
                return
            body["options"] = {**body["options"], "pageState": state}

    # --- one request and its repetitions

    async def _with_retries(
        self, what: str, ask: Callable[[Connections], Awaitable[T]], for_s: float, *, n_rows: int = 0
    ) -> T:
        """Ask, and ask again after a loss, each time after a random part of a doubling wait (full jitter).

        Args:
            what: the command and its table, for messages.
            ask: sends it once.
            for_s: for how long, outside of any call.
            n_rows: how many rows an insert has.
        """
        patience, request = patience_of_the_call(for_s), object()
        for number in itertools.count():
            connections = self._connected()
            async with connections.pace as pace:
                sent_at = time.monotonic()
                try:
                    answer = await attempt(ask, connections, patience.timeout_s(self._timeout_s))
                except RequestFailedError as error:
                    failure = error
                else:
                    pace.answered(sent_at, n_rows)
                    self.waits.answered(time.monotonic() - sent_at)
                    patience.lost_since.pop(request, None)
                    return answer
                if not failure.retryable:
                    patience.lost_since.pop(request, None)  # It is answered.
                    break
                if number >= self._retries:
                    break
                patience.lost_since.setdefault(request, sent_at)
                wait_s = max(failure.wait_s, random.uniform(0, self._limits.wait_s(number)))  # noqa: S311
                left_s = patience.left_s - wait_s
                if left_s <= 0:
                    break
                self._losses.lost(what, failure, left_s)
                logger.debug("%s at %s: %s; again in %.2f s.", what, self.host, failure, wait_s)
                self.waits.service_s += time.monotonic() - sent_at + wait_s
                if failure.overload:
                    pace.overloaded(sent_at)
                    # In its place among those in flight, so that no other is sent.
                    await asyncio.sleep(wait_s)
                    continue
            await asyncio.sleep(wait_s)
        several = f" ({number + 1} attempts)" if number else " (1 attempt)"
        raise ServiceError(
            f"{what} at {self.host} failed{several if failure.retryable else ''}: {failure}.",
            outage=failure.retryable,
            no_table=failure.no_table,
            exists_already=failure.exists_already,
        ) from None  # The cause holds the request, and with it the token.

    def _connected(self) -> Connections:
        """Return the clients of the running loop: astrapy's async clients only work on the loop they first ran on."""
        connections = self._connections
        if connections is not None and connections.are_here():
            return connections
        if connections is not None and connections.pid == os.getpid() and not connections.loop.is_closed():
            raise StoreError(
                f"The connections to {self.host} belong to another event loop, which still exists: use one loop, "
                "or a SyncPipeline (or a LoopPortal), whose methods may be called from any loop and thread."
            )
        self.pace = Pace(self.concurrency, self._limits)
        connections = Connections.to(self._copy(), self.pace)
        self._connections = connections
        return connections


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
