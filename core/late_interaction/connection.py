"""What the adapters to frameworks share: an index that is opened at its first use, from sync and async methods."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeAlias, TypeVar

from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.sync import SyncPipeline

T = TypeVar("T")
Use: TypeAlias = Callable[[LateInteractionPipeline], Awaitable[T]]


class Connection:
    """A pipeline whose index is created or attached to at the first use: to make one does no I/O.

    Args:
        pipeline: initialized or not.
    """

    def __init__(self, pipeline: SyncPipeline) -> None:
        self._pipeline = pipeline
        self._opened = False
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return repr(self._pipeline)

    def run(self, use: Use[T]) -> T:
        """Run `use(pipeline)` and wait for what it returns; as `SyncPipeline.run`."""
        return self._pipeline.run(partial(self._use, use))

    async def arun(self, use: Use[T]) -> T:
        """Run `use(pipeline)` and await what it returns, from any event loop; as `SyncPipeline.arun`."""
        return await self._pipeline.arun(partial(self._use, use))

    async def _use(self, use: Use[T], pipeline: LateInteractionPipeline) -> T:
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    await self._pipeline.ainitialize()
                    self._opened = True
        return await use(pipeline)

    def drop(self) -> None:
        """Delete the index, also one that was built otherwise and cannot be opened; the next use makes a new one."""
        self._pipeline.run(self._drop)

    async def adrop(self) -> None:
        """`drop`, to be awaited on any event loop."""
        await self._pipeline.arun(self._drop)

    async def _drop(self, pipeline: LateInteractionPipeline) -> None:
        async with self._opening:
            await pipeline.drop()
            self._opened = False

    def close(self) -> None:
        """Let go of the index for good; the model stays open. May be called twice."""
        self._pipeline.close()

    async def aclose(self) -> None:
        """`close`, to be awaited on any event loop."""
        await self._pipeline.aclose()
