"""An index served in this process, and a client that asks it without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from late_interaction import LateInteractionPipeline
from late_interaction.serving.app import make_app
from late_interaction.serving.guards import Access

LOCAL = Access.to("127.0.0.1", None)


@asynccontextmanager
async def client_of(
    pipeline: LateInteractionPipeline, access: Access = LOCAL, *, allow_writes: bool = False, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an app; what the app raises is an answer, as it is over a socket."""
    app = make_app(pipeline, access, allow_writes=allow_writes)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        pipeline,
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000", **options) as client,
    ):
        yield client
