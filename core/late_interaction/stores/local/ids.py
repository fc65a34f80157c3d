"""Ids of many documents in little memory: side by side as UTF-8, and found again by a hash."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BATCH = 4096
"""How many ids are Python objects at a time."""


@dataclass(frozen=True, slots=True)
class Ids:
    """A list of texts without half surrogates, 4 bytes and its UTF-8 each.

    Attributes:
        text: all of them, one behind the other; as UTF-8, or a str if they are ASCII, which takes as much and is
            faster to cut.
        offsets: (n + 1,) uint32, or int64 where `text` is too long for it; id i is `text[offsets[i]:offsets[i + 1]]`.
    """

    text: bytes | str
    offsets: NDArray[np.uint32] | NDArray[np.int64]

    @classmethod
    def of(cls, ids: Sequence[str]) -> Ids:
        """Keep some ids."""
        text = "".join(ids)
        if text.isascii():
            return cls._of(text, np.fromiter(map(len, ids), np.int64, len(ids)))
        encoded = [each.encode() for each in ids]
        return cls._of(b"".join(encoded), np.fromiter(map(len, encoded), np.int64, len(ids)))

    @classmethod
    def joined(cls, parts: Sequence[Ids]) -> Ids:
        """Return the ids of one list after the other."""
        lengths = np.concatenate([np.empty(0, np.int64), *(part.lengths() for part in parts)])
        texts = [part.text for part in parts if isinstance(part.text, str)]
        if len(texts) == len(parts):
            return cls._of("".join(texts), lengths)
        return cls._of(b"".join([_encoded(part.text) for part in parts]), lengths)

    @classmethod
    def _of(cls, text: bytes | str, lengths: NDArray[np.int64]) -> Ids:
        small = len(text) <= np.iinfo(np.uint32).max
        offsets: NDArray[Any] = np.zeros(len(lengths) + 1, np.uint32 if small else np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return cls(text, offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def lengths(self) -> NDArray[np.int64]:
        """Return the (n,) length of each id in bytes."""
        return np.diff(self.offsets).astype(np.int64)

    def take(self, positions: NDArray[np.integer]) -> list[str]:
        """Return the ids at some positions."""
        starts, stops = self.offsets[positions].tolist(), self.offsets[positions + 1].tolist()
        text = self.text
        if isinstance(text, str):
            return [text[start:stop] for start, stop in zip(starts, stops, strict=True)]
        return [text[start:stop].decode() for start, stop in zip(starts, stops, strict=True)]

    def part(self, first: int, last: int) -> Ids:
        """Return a copy of the ids from position `first` up to but without `last`."""
        offsets = self.offsets[first : last + 1]
        return self._of(self.text[offsets[0] : offsets[-1]], self.lengths()[first:last])

    def chosen(self, chosen: NDArray[np.bool_]) -> Ids:
        """Return a copy of those of the ids where the mask is true."""
        lengths = self.lengths()
        kept = np.frombuffer(_encoded(self.text), np.uint8)[np.repeat(chosen, lengths)].tobytes()
        return self._of(kept.decode() if isinstance(self.text, str) else kept, lengths[chosen])

    def spread(self, positions: NDArray[np.int64], n: int) -> Ids:
        """Return `n` ids, these at the ascending positions, and empty ones elsewhere."""
        lengths = np.zeros(n, np.int64)
        lengths[positions] = self.lengths()
        return self._of(self.text, lengths)


@dataclass(frozen=True, slots=True)
class IdTable:
    """Tells at which position of a list an id is, 8 bytes an id.

    Ids of one hash are told apart by their text: a hash that says little makes it slow, and never wrong.

    Attributes:
        ids: the list.
        hash_of: gives the hash of an id.
        hashes: (m,) uint32, ascending: of those ids that can be found.
        positions: (m,) int32, where the id of each hash is.
    """

    ids: Ids
    hash_of: Callable[[str], int]
    hashes: NDArray[np.uint32]
    positions: NDArray[np.int32]

    @classmethod
    def of(cls, ids: Ids, positions: NDArray[np.int64], hash_of: Callable[[str], int] = hash) -> IdTable:
        """Make the table of those of the ids that are at `positions`, each a different one."""
        hashes = np.empty(len(positions), np.uint32)
        for first in range(0, len(positions), _BATCH):
            batch = slice(first, first + _BATCH)
            hashes[batch] = _hashed(ids.take(positions[batch]), hash_of)
        order = np.argsort(hashes)
        return cls(ids, hash_of, hashes[order], positions[order].astype(np.int32))

    def find(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the (n,) positions of some ids, -1 where an id is not there."""
        wanted = _hashed(ids, self.hash_of)
        order = np.argsort(wanted)  # Neighbours are found faster one after the other.
        wanted = wanted[order]
        first = np.searchsorted(self.hashes, wanted, "left")
        counts = np.searchsorted(self.hashes, wanted, "right") - first
        number = np.repeat(order, counts)
        within = np.arange(len(number)) - np.repeat(np.cumsum(counts) - counts, counts)
        positions = self.positions[np.repeat(first, counts) + within]
        asked = map(ids.__getitem__, number.tolist())
        same = np.fromiter(map(operator.eq, self.ids.take(positions), asked), bool, len(positions))
        found = np.full(len(ids), -1, np.int64)
        found[number[same]] = positions[same]
        return found


def _encoded(text: bytes | str) -> bytes:
    return text.encode() if isinstance(text, str) else text


def _hashed(ids: Sequence[str], hash_of: Callable[[str], int]) -> NDArray[np.uint32]:
    """Return the lower half of each hash."""
    return np.fromiter(map(hash_of, ids), np.int64, len(ids)).astype(np.uint32)
