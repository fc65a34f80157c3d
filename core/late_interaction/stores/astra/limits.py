"""Sizes of requests and waits between attempts: what a test or an unusual service may want otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from late_interaction.reduction import WIDTH


class InsertSizes(Protocol):
    """How large an insert should be now."""

    @property
    def rows(self) -> int:
        """Rows in it."""

    @property
    def request_bytes(self) -> int:
        """Bytes of them, about."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a request may be, and how long to wait before the next attempt.

    Attributes:
        rows: rows in one insert. The maintainers of the Data API measured no gain from more; 100 are allowed.
        request_bytes: bytes of rows in one insert, about. 20 MB are allowed, but a request should not take long.
        ids: ids in one read: the service's page, so that no read takes two. It shrinks where pages turn out smaller.
        read_bytes: bytes of packed matrices in one read, about: the reads of one search run concurrently.
        ann_bytes: packed matrices that an ANN query by document vectors may bring along, about; where there would be
            more, they are read afterwards, side by side.
        part_bytes: of a reduction in one row of the catalogue.
        document_width: values in a document vector of a new index.
        fitted_from: documents from which on document vectors are fitted by themselves.
        fitted_on: documents that the fit looks at, at most.
        first_wait_s: the longest wait before the first repetition of a lost request; it doubles each time.
        longest_wait_s: where the doubling ends.
    """

    rows: int = 50
    request_bytes: int = 2 * 1024 * 1024
    ids: int = 50
    read_bytes: int = 1024 * 1024
    ann_bytes: int = 24 * 1024 * 1024
    part_bytes: int = 1024 * 1024
    document_width: int = WIDTH
    fitted_from: int = 300
    fitted_on: int = 1000
    first_wait_s: float = 0.25
    longest_wait_s: float = 5.0

    def wait_s(self, number: int) -> float:
        """Return how long to wait at most after so many repetitions: hours of them are more than a float can double."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(number, 100))


DOCUMENT_BYTES = 10 * 1024 * 1024
"""The largest document's row: what the service documents for one field."""
ID_BYTES = 65_535
"""The largest partition key."""
