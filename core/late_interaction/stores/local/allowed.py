"""Which documents a filter allows, kept because a chain asks with the same few filters again.

After a write only the documents that were written, or whose metadata changed, are asked for.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from late_interaction.filters import Filter
from late_interaction.stores.local.filters import matching

_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What is known of one filter.

    Attributes:
        filter: the filter.
        indexed: which documents of the index match, in its order; deleted ones may be among them.
        others: row ids of the other documents that match, ascending; deleted ones may be among them.
        last_row_id: documents above it were not asked for yet.
        stale: row ids of documents whose metadata changed since.
    """

    filter: Filter
    indexed: NDArray[np.bool_]
    others: NDArray[np.int64]
    last_row_id: int
    stale: NDArray[np.int64]

    @classmethod
    def nothing_known(cls, filter: Filter, n_indexed: int) -> Allowed:
        """Return what is known of a filter before any document was asked for."""
        return cls(filter, np.zeros(n_indexed, bool), _NONE, 0, _NONE)

    @classmethod
    def all_known(
        cls, filter: Filter, indexed: NDArray[np.bool_], others: NDArray[np.int64], last_row_id: int
    ) -> Allowed:
        """Return what is known of a filter that was asked of all documents up to a row id."""
        return cls(filter, indexed, others, last_row_id, _NONE)

    def marked(self, updated: NDArray[np.int64]) -> Allowed:
        """Return the same with a note that these documents' metadata changed."""
        return replace(self, stale=np.union1d(self.stale, updated)) if len(updated) else self

    def completed(
        self, connection: sqlite3.Connection, indexed: NDArray[np.int64], last_row_id: int
    ) -> Allowed:
        """Return what is known once all documents were asked for; `indexed` are the row ids of the index."""
        if self.last_row_id >= last_row_id and not len(self.stale):
            return self
        found = list(matching(connection, self.filter, "rid", above=self.last_row_id))
        others, mask = self.others, self.indexed.copy()
        if len(self.stale):
            others = np.setdiff1d(others, self.stale, assume_unique=True)
            mask[positions_of(indexed, self.stale)] = False
            old = self.stale[self.stale <= self.last_row_id].tolist()
            found += matching(connection, self.filter, "rid", among=old)
        row_ids = np.array(sorted(row_id for (row_id,) in found), np.int64)
        positions = positions_of(indexed, row_ids)
        mask[positions] = True
        new = np.setdiff1d(row_ids, indexed[positions], assume_unique=True)
        return Allowed(self.filter, mask, np.union1d(others, new), last_row_id, _NONE)


def positions_of(ascending: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions of those of the ascending values that are there."""
    positions = np.searchsorted(ascending, values)
    found = positions < len(ascending)
    positions, values = positions[found], values[found]
    there: NDArray[np.int64] = positions[ascending[positions] == values]
    return there
