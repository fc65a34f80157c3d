"""Coroutines side by side, none of which outlives an error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def gather_or_cancel(coroutines: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run all of them at once; if one fails, cancel the others and raise after they have ended."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Run two coroutines of different results at once, as `gather_or_cancel` does."""
    found: list[Any] = await gather_or_cancel([first, second])
    return found[0], found[1]


async def for_each_concurrently(
    work: Callable[[T], Awaitable[None]], items: Iterable[T], concurrency: int
) -> None:
    """Run `work` on each item, `concurrency` at a time; an item is taken only when it is its turn."""
    waiting = iter(items)

    async def take() -> None:
        for item in waiting:
            await work(item)

    await gather_or_cancel([take() for _ in range(concurrency)])
