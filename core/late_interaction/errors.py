"""The library's own errors: one shallow tree, so that one `except` catches all that we raise on purpose.

A wrong argument is a plain `ValueError` or `TypeError`; everything that depends on data, on an index or on the world
outside is a `LateInteractionError`::

    LateInteractionError
    ├── MissingExtraError      (and ImportError)   packages of an extra are not installed
    ├── ModelError                                 a checkpoint cannot be loaded, or used
    ├── FilterError            (and ValueError)    a metadata filter is not well formed
    ├── DocumentError          (and ValueError)    some rows could not be indexed
    ├── PickleError            (and TypeError)     something cannot be pickled or copied
    └── StoreError                                 a store could not do what was asked
        ├── StoreWriteError                        it failed in the middle of writing
        ├── StoreLockedError                       other processes were writing for too long
        ├── IndexNotFoundError                     there is no such index
        └── IndexMismatchError                     the index was built with other settings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN = 200


class LateInteractionError(Exception):
    """Base of every error that this library raises on purpose. Each can be pickled, to leave a process."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args), vars(self)


def _restored(of: type[LateInteractionError], args: tuple[Any, ...]) -> LateInteractionError:
    """Return an error with its message, without its `__init__`, which makes the message of other arguments."""
    error = of.__new__(of)
    error.args = args
    return error


class MissingExtraError(LateInteractionError, ImportError):
    """A feature needs packages that are not installed; the message names the extra that brings them."""

    def __init__(
        self, feature: str, extra: str, missing: str | None = None, installed: str | None = None
    ) -> None:
        what = f" ({missing} is not installed{f', but {installed}' if installed else ''})" if missing else ""
        super().__init__(f"{feature} needs an extra{what}: pip install 'late-interaction[{extra}]'")
        self.extra = extra


class PickleError(LateInteractionError, TypeError):
    """An object holds something that cannot be pickled or copied; the message says what, and what to do instead."""


class ModelError(LateInteractionError):
    """A checkpoint cannot be loaded, or is not one that the chosen class can encode with."""


class FilterError(LateInteractionError, ValueError):
    """A metadata filter is not well formed; the message says where."""


class StoreError(LateInteractionError):
    """A store could not do what was asked: unreachable, damaged, full, closed.

    Attributes:
        indexed: where it ended a call that indexes, the ids of the rows that were written before, in their order.
            Of the others some may be in the index too; all of them may be indexed again.
    """

    indexed: Sequence[str] = ()


class StoreWriteError(StoreError):
    """A store failed in the middle of writing documents.

    Attributes:
        written: the ids that are in the index as they were to be.
        unwritten: the ids that are not; the documents that had them before are unchanged.
        unknown: the ids of which the store could no longer tell; they may be written again.
    """

    def __init__(
        self, reason: str, written: Sequence[str], unwritten: Sequence[str], unknown: Sequence[str] = ()
    ) -> None:
        self.written, self.unwritten, self.unknown = list(written), list(unwritten), list(unknown)
        counts = f"{len(self.written)} documents were written, {len(self.unwritten)} were not"
        if self.unknown:
            counts += f", {len(self.unknown)} are unknown"
        super().__init__(f"{reason} {counts} (see .written, .unwritten, .unknown).")


class StoreLockedError(StoreError):
    """Another process is writing to this index; the message names it where that is known."""


class IndexNotFoundError(StoreError):
    """There is no index of this name where one was expected."""


class IndexMismatchError(StoreError):
    """The existing index was built with other settings; the message names each field that differs.

    Attributes:
        differences: field name -> (value in the index, value asked for).
    """

    def __init__(self, index: str, differences: dict[str, tuple[object, object]]) -> None:
        lines = [
            f"  {name}: the index has {_shown(have)}, this pipeline has {_shown(want)}"
            for name, (have, want) in differences.items()
        ]
        super().__init__(
            f"The index {index} was built with other settings than this pipeline has:\n"
            + "\n".join(lines)
            + "\nOpen it with the settings it was built with, or choose another base_table_name, "
            "or drop it and index again."
        )
        self.differences = differences


def _shown(value: object) -> str:
    """Return a value for a message, shortened; the whole one is in the error's attributes."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


@dataclass(frozen=True, slots=True)
class RowFailure:
    """One row that could not be indexed: its position in the call, its id where it has one, and why."""

    row: int
    doc_id: str | None
    reason: str

    def __str__(self) -> str:
        name = f"row {self.row}" if self.doc_id is None else f"row {self.row} (doc_id {self.doc_id!r})"
        return f"{name}: {self.reason}"


class DocumentError(LateInteractionError, ValueError):
    """Some rows could not be indexed. Every other row is in the index, unless `on_error="raise"` kept them out.

    Attributes:
        failures: the rows that failed, each with its reason.
        indexed: the ids of the rows of the call that are in the index, in their order.
        truncated: those of them that were not encoded to their end, as in `IndexedIds`.
    """

    SHOWN = 10

    def __init__(
        self,
        failures: Sequence[RowFailure],
        indexed: Sequence[str] = (),
        truncated: Mapping[str, float | None] | None = None,
    ) -> None:
        self.failures = list(failures)
        self.indexed = list(indexed)
        self.truncated = dict(truncated or {})
        shown = [f"  {failure}" for failure in self.failures[: self.SHOWN]]
        if len(self.failures) > self.SHOWN:
            shown.append(f"  … and {len(self.failures) - self.SHOWN} more (see .failures)")
        count = len(self.failures)
        super().__init__(
            f"{count} {'row was' if count == 1 else 'rows were'} not indexed "
            f"(indexed: {len(self.indexed)}, see .indexed):\n" + "\n".join(shown)
        )
