"""How many rows are taken at once, and what the run waits for meanwhile.

They are as many as are done within a second or so, and as their text has room in memory.
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from typing import TypeAlias, TypeVar, cast

import numpy as np

from late_interaction.rows import Row, row_text
from late_interaction.validation import shown

T = TypeVar("T")
Items: TypeAlias = Iterable[T] | AsyncIterable[T]
Rows: TypeAlias = Items[Row]

_FIRST = 16
_FEWEST = 4
_QUICK_S = 0.3
_LONG_S = 3.0
_CHARACTERS = 500_000
"""Text of rows that is encoded together: some 200 MB of vectors at 384 dimensions, before they are pooled."""


class Waits:
    """What a run waited for so far: the encoder, or writes, and of those what the store says they wait for.

    Args:
        of_store: returns the seconds that the store has waited so far, by what for.

    Example:
        >>> waits = Waits(dict)
        >>> with waits.of("encoder"):
        ...     time.sleep(0.01)
        >>> print(waits)
        waits for encoder 100 %
    """

    def __init__(self, of_store: Callable[[], Mapping[str, float]]) -> None:
        self._of_store, self._at_first = of_store, of_store()
        self._seconds: dict[str, float] = {}

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """Count the seconds of the block as a wait for the "encoder" or for "writing"."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - started

    def shares(self) -> dict[str, float]:
        """Return what was waited for, with its share of all waiting, the largest first."""
        seconds = dict(self._seconds)
        of_store = {what: n - self._at_first.get(what, 0.0) for what, n in self._of_store().items()}
        if sum(of_store.values()) > 0:
            writing = seconds.pop("writing", 0.0)
            for what, n in of_store.items():
                seconds[what] = seconds.get(what, 0.0) + writing * n / sum(of_store.values())
        total = sum(seconds.values()) or 1.0
        return {what: n / total for what, n in sorted(seconds.items(), key=lambda item: -item[1])}

    def __str__(self) -> str:
        shown = [f"{what} {share:.0%}".replace("%", " %") for what, share in self.shares().items()]
        return "waits for " + ", ".join(one for one in shown if not one.endswith(" 0 %"))


class Pace:
    """How many rows go together: twice as many where they took less than 0.3 s, half as many where more than 3 s.

    Args:
        most: how many at most.

    Attributes:
        size: how many by now.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.size = min(_FIRST, most)

    def took(self, n_rows: int, seconds: float) -> None:
        """Take note of how long a batch of so many rows took."""
        if seconds > _LONG_S:
            self.size = max(min(_FEWEST, self._most), self.size // 2)
        elif seconds < _QUICK_S and n_rows >= self.size:
            self.size = min(self._most, 2 * self.size)


async def paced_batches(rows: Rows, pace: Pace) -> AsyncGenerator[list[Row], None]:
    """Yield the rows in lists of the pace's size, or shorter ones behind 500,000 characters. No row is taken ahead.

    An error of the rows comes behind those that were taken before it.
    """
    batch: list[Row] = []
    characters = 0
    try:
        async for row in each(rows):
            batch.append(row)
            characters += len(row_text(row))
            if len(batch) >= pace.size or characters >= _CHARACTERS:
                yield batch
                batch, characters = [], 0
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def batches(items: Items[T], size: int) -> AsyncGenerator[list[T], None]:
    """Yield lists of `size` items, the last one shorter; no item is taken ahead, and an error comes behind them."""
    batch: list[T] = []
    try:
        async for item in each(items):
            batch.append(item)
            if len(batch) == size:
                yield batch
                batch = []
    except Exception:
        if batch:
            yield batch
        raise
    if batch:
        yield batch


async def each(items: Items[T]) -> AsyncGenerator[T, None]:
    """Yield the items of an iterable or an async iterable; copies, where it is not known to hold them all.

    Raises:
        TypeError: it is neither, or a str, bytes, a mapping or a DataFrame, which would be taken for its letters, keys
            or columns.
    """
    check_no_table(items)
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield copied(item)
    elif isinstance(items, str | bytes | Mapping) or not isinstance(items, Iterable):
        raise TypeError(f"pass a list of rows or another iterable, not {shown(items)}.")
    else:
        holds_them = isinstance(items, Sequence | np.ndarray)
        for item in items:
            yield item if holds_them else copied(item)


def check_no_table(items: object) -> None:
    """Check that it is no DataFrame of pandas, polars or their like, which iterates over its columns.

    Raises:
        TypeError: it is one; the message says how its rows are had.
    """
    if hasattr(items, "columns") and (hasattr(items, "iloc") or hasattr(items, "to_dict")):
        rows = "df.to_dicts()" if hasattr(items, "to_dicts") else 'df.to_dict("records")'
        raise TypeError(
            f"pass the rows of a {type(items).__name__}, which gives its columns: {rows} has them."
        )


def copied(item: T) -> T:
    """Return a row or a matrix as it is now: an iterator may fill the same dict or array for each of its items."""
    if isinstance(item, Mapping):
        return cast("T", dict(item))
    if isinstance(item, np.ndarray):
        return cast("T", item.copy())
    if hasattr(type(item), "__array__") and callable(clone := getattr(item, "clone", None)):  # of torch
        return cast("T", clone())
    return item
