"""Tables that are in step with the documents, written in their transactions.

A property says up to which generation of the documents such a table is in step, and how far it has come:

- A release that does not know the table writes documents and moves the generation on. Whoever comes next sees it.
- An index made before gets the table by `optimize`, some documents a transaction, so that others write meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from late_interaction.stores.local.tables import read_property, write_property

COMPLETE = -1
FILLED_TOGETHER = 2000
"""How many documents of an earlier release are brought into a table in one transaction."""


@dataclass(frozen=True, slots=True)
class InStep:
    """A table as a transaction sees it.

    Attributes:
        name: of the table and its property.
        version: counts the ways in which documents became rows; a table of another one is made anew.
        generation: of the documents with which it is in step.
        up_to: the last row id that it covers; -1 if it covers all, and those that will be written.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    generation: int
    up_to: int = COMPLETE

    @classmethod
    def read(cls, connection: sqlite3.Connection, generation: int) -> Self | None:
        """Return the table, or None if there is none that is in step with this generation of the documents."""
        try:
            version, of, up_to = map(int, (read_property(connection, cls.name) or "").split())
        except ValueError:
            return None
        return cls(generation, up_to) if (version, of) == (cls.version, generation) else None

    @classmethod
    def is_ready(cls, connection: sqlite3.Connection, generation: int) -> bool:
        """Return whether the table is in step with this generation of the documents, and covers all of them."""
        table = cls.read(connection, generation)
        return table is not None and table.is_complete

    @property
    def is_complete(self) -> bool:
        """Whether every document is in it."""
        return self.up_to == COMPLETE

    def write(self, connection: sqlite3.Connection, generation: int) -> None:
        """Record that the table is in step with this generation of the documents."""
        write_property(connection, self.name, f"{self.version} {generation} {self.up_to}")

    def covers(self, row_id: int) -> bool:
        """Return whether a document is in the table, and not left to the filling."""
        return self.is_complete or row_id <= self.up_to

    def fill(
        self, connection: sqlite3.Connection, column: str, add: Callable[[list[tuple[int, Any]]], None]
    ) -> bool:
        """Bring the next documents of an earlier release into the table, and record it; return whether there are more.

        Args:
            connection: in a write transaction. The documents' generation does not move.
            column: of the documents, that the table needs. It becomes part of the SQL as it is.
            add: writes row ids and that column into the table.
        """
        query = f"SELECT rid, {column} FROM documents WHERE rid > ? ORDER BY rid LIMIT ?"
        rows = connection.execute(query, (self.up_to, FILLED_TOGETHER)).fetchall()
        add(rows)
        is_last = len(rows) < FILLED_TOGETHER
        replace(self, up_to=COMPLETE if is_last else rows[-1][0]).write(connection, self.generation)
        return not is_last
