"""What became of the documents of one write, and the error that reports it."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field

from late_interaction.errors import DocumentError, RowFailure, StoreWriteError
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.rows import PreparedDocument

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What has become of the documents of one write so far.

    Attributes:
        doc_ids: all of them, in order.
        refused: those that the service does not take, and why.
        written: those that are in the index.
        unanswered: those whose row may be in the index: it was sent, and no answer came.
        repeated: those whose row was sent more than once.
        outage: why the write could not go on.
    """

    doc_ids: list[str]
    refused: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    unanswered: set[str] = field(default_factory=set)
    repeated: set[str] = field(default_factory=set)
    outage: ServiceError | None = None

    def accepted(self, documents: Sequence[PreparedDocument]) -> list[PreparedDocument]:
        """Return the documents that have not been refused."""
        return [one for one in documents if one.doc_id not in self.refused]

    def failure(self) -> StoreWriteError | DocumentError | None:
        """Return the error to raise; None if every document is written."""
        if self.outage is not None:
            unanswered = [one for one in self.doc_ids if one in self.unanswered]
            written = [one for one in self.doc_ids if one in self.written]
            others = [one for one in self.doc_ids if one not in self.written | self.unanswered]
            return StoreWriteError(str(self.outage), written, others, unanswered)
        if not self.refused:
            return None
        failures = [
            RowFailure(number, doc_id, self.refused[doc_id])
            for number, doc_id in enumerate(self.doc_ids)
            if doc_id in self.refused
        ]
        return DocumentError(failures, [one for one in self.doc_ids if one in self.written])


class Leftovers:
    """Warn of token rows that could not be deleted: at the first ones, and of all of them at the end of a run.

    Args:
        location: index, keyspace and host, for messages.
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._n = self._n_told = 0
        self._why = ""

    def add(self, versions: Mapping[str, Sized], why: ServiceError) -> None:
        """Count documents whose versions (all of them, if none is named) are left over."""
        self._n += sum(map(bool, versions.values())) or len(versions)
        self._why = str(why)
        if not self._n_told:
            self.tell()

    def tell(self) -> None:
        """Warn, unless nothing was left over since the last warning."""
        if self._n == self._n_told:
            return
        self._n_told = self._n
        logger.warning(
            "Token rows of up to %s documents are left over in %s: %s Searches are right all the same; "
            "`late-interaction doctor --repair` deletes them.",
            f"{self._n:,}",
            self._location,
            self._why,
        )
