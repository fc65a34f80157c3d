"""What became of the documents of one write, and the error that reports it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from late_interaction.errors import DocumentError, RowFailure, StoreWriteError
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.rows import PreparedDocument


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
