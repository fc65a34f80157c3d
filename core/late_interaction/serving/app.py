"""The application: the page and the API of an index, behind the guard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.serving.api import api_of
from late_interaction.serving.guards import Access, Guard
from late_interaction.serving.pages import error_page, pages_of
from late_interaction.serving.problems import RefusedError, problem_response, validation_refused
from late_interaction.serving.served import Served
from late_interaction.version import __version__

_ABOUT = """Search an index of late-interaction. Nothing in a request is ignored: a field that is not known is an error.
Errors are problem JSON (RFC 9457)."""


def make_app(pipeline: LateInteractionPipeline, access: Access, *, allow_writes: bool = False) -> ASGIApp:
    """Return an ASGI application of an index, which opens it at the start and closes it at the end.

    Args:
        pipeline: the index, with its model: one for all requests.
        access: who may ask.
        allow_writes: whether documents may be added and deleted.
    """
    served = Served(pipeline, allow_writes=allow_writes)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with pipeline:
            yield

    app = FastAPI(
        title="late-interaction",
        version=__version__,
        description=_ABOUT,
        openapi_url="/api/openapi.json",
        docs_url=None,  # Their scripts come from another server.
        redoc_url=None,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.include_router(api_of(served))
    app.include_router(pages_of(served))
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_exception_handler(Exception, _failed)
    return Guard(app, access)


async def _refused(request: Request, error: Exception) -> Response:
    refused = validation_refused(error) if isinstance(error, RequestValidationError) else error
    assert isinstance(refused, HTTPException)
    if request.url.path.startswith("/api/"):
        return problem_response(refused)
    return error_page(refused)


async def _failed(request: Request, error: Exception) -> Response:  # Starlette logs it.
    return await _refused(request, RefusedError(500, "A fault of the server's; its log says which."))
