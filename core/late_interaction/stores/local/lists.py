"""The documents near each centroid, packed so that a search gathers them in large pieces.

A list is cut into chunks of at most 16 documents, each stored as the position of its first document and 16 distances
from it. That takes about half of the memory of plain positions, and NumPy copies a whole chunk as fast as one position.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

BLOCK = 1 << 16
"""Values of an index read or hashed at a time: the C library keeps as much memory as the largest piece freed."""
_CHUNK = 16
_WINDOW_BITS = 16


@dataclass(frozen=True, slots=True)
class Lists:
    """Lists of positions of documents, each ascending.

    Attributes:
        starts: (n_lists + 1,) int64; list i is the chunks from `starts[i]` up to but without `starts[i + 1]`.
        firsts: (n_chunks,) int32, the first position of each chunk.
        offsets: (n_chunks, 16) uint16, what each position is above the first. A chunk of fewer repeats its last one.
        n_entries: how many positions there are.
    """

    starts: NDArray[np.int64]
    firsts: NDArray[np.int32]
    offsets: NDArray[np.uint16]
    n_entries: int

    @classmethod
    def empty(cls, n_lists: int) -> Lists:
        """Return so many lists without an entry."""
        return cls.of(np.zeros(n_lists + 1, np.int64), np.empty(0, np.int32), 0)

    @classmethod
    def of(cls, bounds: NDArray[np.int64], entries: NDArray[np.int32], n_positions: int) -> Lists:
        """Do `read` with entries that are in memory."""
        at = 0

        def read(n: int) -> NDArray[np.int32]:
            nonlocal at
            at += n
            return entries[at - n : at]

        return cls.read(bounds, n_positions, read)

    @classmethod
    def read(
        cls, bounds: NDArray[np.int64], n_positions: int, read: Callable[[int], NDArray[np.integer]]
    ) -> Lists:
        """Pack lists that stand one behind the other.

        Args:
            bounds: (n_lists + 1,) ascending from 0; list i is the entries from `bounds[i]` up to `bounds[i + 1]`.
            n_positions: positions are below it.
            read: returns the next n entries.

        Raises:
            ValueError: a list does not ascend, or a position is not one.
        """
        n_lists, n_entries = len(bounds) - 1, int(bounds[-1])
        n_windows = 1 + (max(0, n_positions - 1) >> _WINDOW_BITS)
        most = n_entries // _CHUNK + n_lists * n_windows
        # What is never written to takes no memory.
        firsts, offsets = np.empty(most, np.int32), np.empty((most, _CHUNK), np.uint16)
        starts = np.zeros(n_lists + 1, np.int64)
        first, n_chunks = 0, 0
        while first < n_lists:
            last = int(np.searchsorted(bounds, bounds[first] + BLOCK, side="right")) - 1
            last = max(last, first + 1)
            entries = read(int(bounds[last] - bounds[first]))
            _check(entries, bounds[first : last + 1] - bounds[first], n_positions)
            chunks = _packed(entries, np.diff(bounds[first : last + 1]))
            stop = n_chunks + len(chunks[1])
            starts[first + 1 : last + 1] = n_chunks + np.cumsum(chunks[0])
            firsts[n_chunks:stop], offsets[n_chunks:stop] = chunks[1:]
            first, n_chunks = last, stop
        return cls(starts, firsts[:n_chunks], offsets[:n_chunks], n_entries)

    def bounds(self) -> NDArray[np.int64]:
        """Return the (n_lists + 1,) bounds of the lists, in entries."""
        ends = np.zeros(len(self.firsts) + 1, np.int64)
        for first in range(0, len(self.firsts), BLOCK // _CHUNK):
            block = self.offsets[first : first + BLOCK // _CHUNK]
            ends[first + 1 : first + 1 + len(block)] = _is_entry(block).sum(axis=1)
        np.cumsum(ends, out=ends)
        return ends[self.starts]

    def entries(self) -> NDArray[np.int32]:
        """Return the entries of all lists, one behind the other."""
        return np.concatenate([np.empty(0, np.int32), *self.pieces()])

    def pieces(self) -> Iterator[NDArray[np.int32]]:
        """Yield the entries of all lists in pieces."""
        for first in range(0, len(self.firsts), BLOCK // _CHUNK):
            block = self.offsets[first : first + BLOCK // _CHUNK]
            positions = self.firsts[first : first + len(block), None] + block
            yield positions[_is_entry(block)]


def _check(entries: NDArray[np.integer], bounds: NDArray[np.int64], n_positions: int) -> None:
    if not len(entries):
        return
    if entries.min() < 0 or entries.max() >= n_positions:
        raise ValueError("a list names a document that is not in it")
    descents = 1 + np.flatnonzero(entries[1:] <= entries[:-1])
    if not np.array_equal(bounds[np.searchsorted(bounds, descents)], descents):
        raise ValueError("a list does not ascend")


def _packed(
    entries: NDArray[np.integer], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.integer], NDArray[np.integer]]:
    """Return how many chunks each list has, and the chunks' firsts and offsets."""
    list_of = np.repeat(np.arange(len(lengths)), lengths)
    # An offset has 16 bits, so a chunk ends where the higher bits change.
    is_new = np.ones(len(entries), bool)
    is_new[1:] = (np.diff(list_of) != 0) | (np.diff(entries >> _WINDOW_BITS) != 0)
    places = np.arange(len(entries))
    within = (places - np.maximum.accumulate(np.where(is_new, places, 0))) % _CHUNK
    begins = np.flatnonzero(within == 0)
    chunk_of = np.cumsum(within == 0) - 1
    firsts = entries[begins]
    lasts = entries[np.append(begins[1:], len(entries))[: len(begins)] - 1]
    offsets = np.repeat((lasts - firsts).astype(np.uint16)[:, None], _CHUNK, axis=1)
    offsets[chunk_of, within] = entries - firsts[chunk_of]
    return np.bincount(list_of[begins], minlength=len(lengths)), firsts, offsets


def _is_entry(offsets: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Return which offsets are not there to fill up a chunk."""
    is_entry = np.ones(offsets.shape, bool)
    is_entry[:, 1:] = offsets[:, 1:] != offsets[:, :-1]
    return is_entry
