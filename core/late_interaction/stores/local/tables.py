"""The tables of the embedded store's SQLite file, and the SQL that several modules share.

Every write gives a document a new, larger row id (the column `rid`). A row id is never used again.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from late_interaction.types import Document

BATCH = 500
"""How many rows are asked for, or held in memory, at a time."""

DOCUMENT = "doc_id, content, content_type, metadata"
"""The columns that `to_document` takes."""

_SCHEMA = """
CREATE TABLE properties (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    rid INTEGER PRIMARY KEY AUTOINCREMENT,
    doc_id TEXT NOT NULL UNIQUE,
    content TEXT NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    n_tokens INTEGER NOT NULL
);
CREATE TABLE vectors (
    rid INTEGER PRIMARY KEY REFERENCES documents (rid) ON DELETE CASCADE,
    packed BLOB NOT NULL
);
"""


def create_tables(connection: sqlite3.Connection, properties: dict[str, str]) -> None:
    """Create the tables of a new index."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.executemany("INSERT INTO properties VALUES (?, ?)", properties.items())


def read_property(connection: sqlite3.Connection, name: str) -> str:
    """Return the value of a property that every index has."""
    value: str = connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchone()[0]
    return value


def to_document(row: tuple[Any, ...]) -> Document:
    """Make a document of a row that begins with the columns `DOCUMENT`."""
    return Document(row[0], row[1], row[2], json.loads(row[3]))


def select_in(
    connection: sqlite3.Connection, what: str, key: str, values: Sequence[str] | Sequence[int]
) -> Iterator[tuple[Any, ...]]:
    """Run `SELECT {what} WHERE {key} IN values`, a batch of values at a time; ascending by key in each batch.

    Read it to the end while you hold the connection: afterwards another thread may have it.
    """
    for first in range(0, len(values), BATCH):
        batch = values[first : first + BATCH]
        marks = ", ".join("?" * len(batch))
        yield from connection.execute(f"SELECT {what} WHERE {key} IN ({marks})", batch)


def delete_ids(connection: sqlite3.Connection, doc_ids: Sequence[str]) -> int:
    """Delete documents by id; return how many there were."""
    # Ids are bound one by one: as JSON, SQLite would read an id only up to its first NUL.
    return connection.executemany("DELETE FROM documents WHERE doc_id = ?", ((i,) for i in doc_ids)).rowcount
