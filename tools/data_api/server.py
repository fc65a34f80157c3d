"""The HTTP side: paths, authentication, latency, faults, and the life of the server."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from types import TracebackType
from typing import Any, Self

import numpy as np
import orjson
from aiohttp import web
from astrapy import AsyncDatabase, DataAPIClient, Database
from astrapy.api_options import APIOptions

from tools.data_api.commands import carry_out
from tools.data_api.context import Context
from tools.data_api.context import Database as Storage
from tools.data_api.errors import DataApiError, injected
from tools.data_api.faults import Fault
from tools.data_api.limits import MAX_BODY_BYTES
from tools.data_api.log import Request, RequestLog
from tools.data_api.settings import Settings
from tools.data_api.throttle import Throttle, rows_of

_DDL = {
    "alterTable",
    "createIndex",
    "createTable",
    "createTextIndex",
    "createVectorIndex",
    "dropIndex",
    "dropTable",
}
_UNKNOWN = {"UNKNOWN_COLLECTION_OR_TABLE", "UNKNOWN_KEYSPACE"}
_PATHS = ("/v1", "/api/json/v1")  # of self-hosted environments, and of Astra


class DataApiServer:
    """A local Data API, in memory, for tables.

    Args:
        settings: the switches; they stay reachable as ``server.settings`` and may be changed at any time.
        keyspace: the keyspace that exists from the start.
        token: what the ``Token`` header must say.
        host: where to listen.
        port: where to listen; 0 picks a free port.
        seed: of every chance (recall loss, jitter, faults).

    Attributes:
        settings: the switches.
        keyspace: as given.
        token: as given.
        log: the requests so far.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        keyspace: str = "default_keyspace",
        token: str = "local-token",
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
    ) -> None:
        self.settings = settings or Settings()
        self.keyspace = keyspace
        self.token = token
        self.log = RequestLog()
        self._host, self._port = host, port
        self._storage = Storage({keyspace: {}})
        self._random = np.random.default_rng(seed)
        self._throttle = Throttle()
        self._one_row_at_a_time = asyncio.Lock()
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """Listen, on the running event loop."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        for path in _PATHS:
            for suffix in ("", "/{keyspace}", "/{keyspace}/{table}"):
                app.router.add_post(path + suffix, self._handle)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; requests that hang are released."""
        self._closing.set()
        if self._runner:
            await self._runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def endpoint(self) -> str:
        """Return the API endpoint to give to astrapy."""
        return f"http://{self._host}:{self._port}"

    def database(self, *, environment: str = "hcd", api_options: APIOptions | None = None) -> Database:
        """Return a real astrapy ``Database`` on this server.

        Args:
            environment: an astrapy ``Environment``; those of Astra reach the server as well.
            api_options: further options of the client, timeouts for example.
        """
        client = self._client(environment, api_options)
        return client.get_database(self.endpoint, keyspace=self.keyspace)

    def async_database(
        self, *, environment: str = "hcd", api_options: APIOptions | None = None
    ) -> AsyncDatabase:
        """Return an asynchronous database; otherwise as ``database``."""
        client = self._client(environment, api_options)
        return client.get_async_database(self.endpoint, keyspace=self.keyspace)

    def _client(self, environment: str, api_options: APIOptions | None) -> DataAPIClient:
        return DataAPIClient(self.token, environment=environment, api_options=api_options or APIOptions())

    def release_ann(self) -> None:
        """Make every row written so far visible to ANN."""
        for tables in self._storage.keyspaces.values():
            for table in tables.values():
                table.visible_at[:] = 0

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        request = self.log.begin()
        request.keyspace, request.table = http.match_info.get("keyspace"), http.match_info.get("table")
        request.user_agent = http.headers.get("User-Agent", "")
        request.bytes_in = http.content_length or 0
        try:
            return await self._respond(http, request)
        except web.HTTPRequestEntityTooLarge:
            request.status = 413
            return web.Response(status=413)
        finally:
            self.log.end(request)

    async def _respond(self, http: web.Request, request: Request) -> web.StreamResponse:
        try:
            body = await self._admit(http, request)
        except DataApiError as error:
            return await self._send(http, request, _failure(request, error), status=error.http_status)
        settings = self.settings
        await asyncio.sleep((settings.latency_ms + settings.latency_jitter_ms * self._random.random()) / 1000)
        if not self._throttle.admits(settings.rows_per_s, body):
            return await self._send(http, request, b"", status=429, content_type="text/html")
        if settings.row_ms and request.command.startswith("insert"):
            async with self._one_row_at_a_time:
                await asyncio.sleep(settings.row_ms * rows_of(body) / 1000)
        if settings.hold is not None:
            await settings.hold(request)
        fault = next(
            (one for one in settings.faults if one.fires(request.command, request.table, self._random)), None
        )
        if fault is None:
            return await self._send(http, request, await self._carry_out_in_time(request, body))
        request.fault = fault.action
        return await self._fail(http, request, body, fault)

    async def _admit(self, http: web.Request, request: Request) -> Any:
        """Return the body of the command, from a request that may be heard."""
        token = http.headers.get("Token")
        if token is None:
            raise DataApiError("SECURITY", "MISSING_AUTHENTICATION_TOKEN", "The request has no Token header.")
        if token != self.token:
            raise DataApiError(
                "SECURITY", "UNAUTHENTICATED_REQUEST", "Authentication failed due to invalid token."
            )
        if http.content_type != "application/json":
            raise DataApiError("", "UNSUPPORTED_CONTENT_TYPE", "The Content-Type must be application/json.")
        try:
            command = json.loads(await http.read(), parse_float=Decimal, parse_constant=_no_constant)
        except ValueError as error:
            raise DataApiError("", "REQUEST_NOT_JSON", f"Request not valid JSON: {error}.") from None
        if not isinstance(command, dict) or len(command) != 1:
            raise DataApiError("", "REQUEST_STRUCTURE_MISMATCH", "A request is an object with one command.")
        request.command, body = next(iter(command.items()))
        if isinstance(body, dict):
            request.body = {
                name: value for name, value in body.items() if name not in ("document", "documents")
            }
        return body

    async def _carry_out_in_time(self, request: Request, body: Any) -> bytes:
        """Carry out a command, which takes longer where it changes the schema."""
        if request.command not in _DDL:
            return self._carry_out(request, body, None)
        before = self._storage.schema()
        reply = self._carry_out(request, body, None)
        if self._storage.schema() != before:
            settings = self.settings
            await asyncio.sleep(min(settings.ddl_s, settings.ddl_timeout_s))
            if settings.ddl_s > settings.ddl_timeout_s:
                cause = f"Query timed out after PT{settings.ddl_timeout_s:g}S"
                return _failure(request, injected("UNEXPECTED_DRIVER_ERROR", cause))
        return reply

    def _carry_out(self, request: Request, body: Any, fault: Fault | None) -> bytes:
        context = Context(self._storage, self.settings, self._random, request)
        if fault is not None and fault.action == "partial_insert":
            context.failing_rows = fault.failing_rows
            context.failure = _injected(fault)
            context.failures_applied = fault.applied
        try:
            reply = carry_out(context, body)
        except DataApiError as error:
            return _failure(request, error)
        request.error_codes = [error["errorCode"] for error in reply.get("errors", ())]
        return orjson.dumps(reply, option=orjson.OPT_SERIALIZE_NUMPY)

    async def _fail(self, http: web.Request, request: Request, body: Any, fault: Fault) -> web.StreamResponse:
        if fault.action == "repeat":
            await self._carry_out_in_time(request, body)
        if fault.action in ("partial_insert", "repeat"):
            return await self._send(http, request, self._carry_out(request, body, fault))
        reply = b'{"status":{"ok":1},"data":{"documents":[]}}'
        if fault.applied:
            reply = self._carry_out(request, body, None)
        match fault.action:
            case "http_error":
                page = f"<html><body><h1>{fault.status}</h1></body></html>".encode()
                return await self._send(http, request, page, status=fault.status, content_type="text/html")
            case "error_envelope":
                return await self._send(http, request, _failure(request, _injected(fault)))
            case "malformed_json":
                return await self._send(http, request, reply[: len(reply) // 2])
            case "reset":
                return await self._reset(http, request, reply)
            case _:
                await self._closing.wait()
                return web.Response(status=503)

    async def _send(
        self,
        http: web.Request,
        request: Request,
        reply: bytes,
        *,
        status: int = 200,
        content_type: str = "application/json",
    ) -> web.StreamResponse:
        response = web.Response(body=reply, status=status, content_type=content_type)
        request.status, request.bytes_out = status, len(reply)
        await response.prepare(http)
        await response.write_eof()
        return response

    async def _reset(self, http: web.Request, request: Request, reply: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        response.content_length = len(reply)
        await response.prepare(http)
        await response.write(reply[: len(reply) // 2])
        request.bytes_out = len(reply) // 2
        if http.transport is not None:
            http.transport.abort()
        return response


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _injected(fault: Fault) -> DataApiError:
    return injected(fault.error_code, "A fault injected by the test.")


def _failure(request: Request, error: DataApiError) -> bytes:
    request.error_codes = [error.code]
    status: dict[str, Any] = {}
    if request.command in _DDL and error.scope in ("SCHEMA", "DATABASE") and error.code not in _UNKNOWN:
        status["ok"] = 0
    if error.warnings:
        status["warnings"] = [warning.as_json() for warning in error.warnings]
    reply = {"errors": [error.as_json()]}
    return orjson.dumps({"status": status, **reply} if status else reply)


@contextmanager
def run_in_thread(settings: Settings | None = None, **options: Any) -> Iterator[DataApiServer]:
    """Run a server on an event loop and in a thread of its own, for callers that are not asynchronous.

    Args:
        settings: as of ``DataApiServer``.
        options: as of ``DataApiServer``.

    Yields:
        The running server.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="data-api", daemon=True)
    thread.start()
    server = DataApiServer(settings, **options)
    try:
        asyncio.run_coroutine_threadsafe(server.start(), loop).result()
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
