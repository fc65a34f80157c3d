"""Prepare what comes next in threads, while what is ready is computed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def prefetched(
    prepare: Callable[[T], R],
    items: Iterable[T],
    num_workers: int,
    n_ahead: int | None = None,
    begin: Callable[[], None] | None = None,
) -> Generator[R, None, None]:
    """Yield `prepare(item)` of each item, in order; threads prepare the next ones while the caller works on one.

    An error of `prepare` is raised in its place. When the generator is closed, or an error has ended it, nothing more
    is begun, and the threads have ended. An item that comes alone is prepared in the caller's thread.

    >>> list(prefetched(abs, [-3, 2, -1], num_workers=2))
    [3, 2, 1]

    Args:
        prepare: called from several threads at a time, unless `num_workers` is 1.
        items: taken in the caller's thread, when there is room for the next one.
        num_workers: how many threads prepare.
        n_ahead: most items that are prepared, or being prepared, beside the one that the caller has. None is
            `num_workers`.
        begin: what each thread does first.
    """
    remaining = iter(items)
    n_ahead = num_workers if n_ahead is None else n_ahead
    first = list(islice(remaining, 2))
    if len(first) < 2:
        yield from map(prepare, first)
        return
    under_way: deque[Future[R]] = deque()
    executor = ThreadPoolExecutor(num_workers, "late-interaction-prefetch", initializer=begin)
    try:
        for item in chain(first, remaining):
            under_way.append(executor.submit(prepare, item))
            if len(under_way) > n_ahead:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
