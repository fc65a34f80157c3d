"""`serve`: a search page and an HTTP API on an index. `mcp`: tools for agents."""

from __future__ import annotations

import asyncio
import errno
import importlib
import logging
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from late_interaction.cli._shared import (
    DbOption,
    DeviceOption,
    ModelOption,
    NameOption,
    attached,
    err,
    errors_reported,
    load_model,
    pipeline_for,
)
from late_interaction.errors import LateInteractionError, MissingExtraError
from late_interaction.images.storing import StoreImages
from late_interaction.serving import TOKEN_VARIABLE
from late_interaction.stores.opening import DEFAULT_NAME

RootOption = Annotated[
    Path | None,
    typer.Option(help="The folder that was indexed, where its images are; by default the one we are in."),
]


def serve(
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    host: Annotated[
        str, typer.Option(help="The address to listen at. Others than this machine's own need a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(
            help=f"A secret that each request has to bring. Better in the variable {TOKEN_VARIABLE}: others on this "
            "machine can read a command line.",
            show_default=False,
        ),
    ] = None,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", help="A name that the server is reached by too, such as a proxy's."),
    ] = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let clients add and delete documents.")
    ] = False,
    store_images: Annotated[
        StoreImages, typer.Option(help="What is stored of an image that a client adds.")
    ] = "thumbnail",
    allow_urls: Annotated[
        bool, typer.Option("--allow-urls", help="Fetch images that clients add by their URL.")
    ] = False,
    root: RootOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Serve a search page and an HTTP API, with one model for all requests."""
    with errors_reported():
        _check_extra("late-interaction serve", "serve", "fastapi", "uvicorn", "jinja2")
        from late_interaction.serving.guards import Access

        access = Access.to(
            host, os.environ.get(TOKEN_VARIABLE) if token is None else token, tuple(allowed_hosts or ())
        )
        listening = _listening(host, port)

        async def run() -> None:
            import uvicorn

            from late_interaction.serving.app import make_app

            async with attached(db, name) as (store, spec):
                encoder = load_model(model, device, spec)
                pipeline = pipeline_for(
                    store,
                    encoder,
                    spec,
                    store_images=store_images,
                    allow_urls=allow_urls,
                    image_root=root,
                    must_exist=True,
                )
                app = make_app(pipeline, access, allow_writes=allow_writes)
                documents = await store.count()
                err.print(
                    f"{documents:,} documents of {store.location}, "
                    f"{'which clients may change' if allow_writes else 'read-only'}, at {_address(listening, host)} – "
                    "Ctrl-C ends it.",
                    soft_wrap=True,
                )
                is_verbose = logging.getLogger("late_interaction").isEnabledFor(logging.DEBUG)
                if is_verbose:
                    logging.getLogger("uvicorn").setLevel(logging.INFO)
                config = uvicorn.Config(
                    app, log_config=None, access_log=is_verbose, server_header=False, lifespan="on"
                )
                server = uvicorn.Server(config)
                await server.serve(sockets=[listening])

        # uvicorn raises the signal again once it has ended; by then there may be nothing left that it interrupts.
        with listening, suppress(KeyboardInterrupt):
            asyncio.run(run())
        err.print("Ended.")


def mcp(
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    root: RootOption = None,
    model: ModelOption = None,
    device: DeviceOption = None,
) -> None:
    """Let an agent search an index: an MCP server on stdin and stdout, which an MCP client starts."""

    async def run() -> None:
        from late_interaction.serving.served import Served
        from late_interaction.serving.tools import serve_stdio

        async with attached(db, name) as (store, spec):
            encoder = load_model(model, device, spec)
            pipeline = pipeline_for(store, encoder, spec, image_root=root, must_exist=True)
            # A thread waits for the client's next line; only the end of the process ends that, so Ctrl-C is it.
            before = signal.signal(signal.SIGINT, signal.SIG_DFL)
            try:
                await serve_stdio(Served(pipeline))
            finally:
                signal.signal(signal.SIGINT, before)

    with errors_reported():
        _check_extra("late-interaction mcp", "mcp", "mcp")
        asyncio.run(run())


def _check_extra(feature: str, extra: str, *packages: str) -> None:
    """Check that the packages of an extra can be imported.

    Raises:
        MissingExtraError: one cannot.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except ModuleNotFoundError as error:
            raise MissingExtraError(feature, extra, error.name) from error


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens, before a model is loaded.

    Raises:
        LateInteractionError: the port is taken, or the address is not this machine's.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        made = socket.create_server((str(address[0]), port), family=family, backlog=2048)
        # asyncio turns Nagle's algorithm off only where the protocol is named; with it each answer waits 40 ms.
        return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=made.detach())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = f"Port {port} of {host} is taken: give another with --port, or --port 0 for a free one."
        elif error.errno == errno.EACCES:
            reason = f"Port {port} is closed to you: give one above 1023 with --port."
        else:
            reason = f"The server cannot listen at {host}: {error.strerror or error}. Give an address of this machine."
        raise LateInteractionError(reason) from error


def _address(listening: socket.socket, host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"
