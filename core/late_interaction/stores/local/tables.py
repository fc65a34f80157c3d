"""The tables of the embedded store's SQLite file, and the SQL that several modules share.

Every write gives a document a new, larger row id (the column `rid`). A row id is never used again. Every write
transaction moves the generation on by one and gives it a random stamp, and `changes` says for the last few
generations what was deleted and whose metadata changed. So whoever knows an earlier generation learns what is new
without reading the rest, and notices when the file was replaced by a copy with another history.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.metadata import loads, without_mark
from late_interaction.stems import CREATE_WORDS
from late_interaction.types import Document, IndexSpec, PackingDtype

if TYPE_CHECKING:
    from late_interaction.stores.local.terms import Terms
    from late_interaction.stores.local.words import Words

BATCH = 500
"""How many rows are asked for, or held in memory, at a time."""

_TOGETHER = 20
"""How many documents are read as one row, which SQLite keeps below 1 GB."""

SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""What SQLite raises: its message about a damaged file, or a damaged column, may not be text."""

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

# Indexes of earlier releases get it at the first write. A deletion of many documents is recorded as NULL: to read
# everything again costs no more than such a deletion.
_CHANGES = """
CREATE TABLE IF NOT EXISTS changes (
    generation INTEGER PRIMARY KEY,
    stamp TEXT NOT NULL,
    deleted BLOB,
    updated BLOB
)
"""
# One row, since other threads get a turn before each.
_READ_STATE = "SELECT " + ", ".join(
    f"(SELECT value FROM properties WHERE name = '{name}')"
    for name in ("index_id", "generation", "stamp", "build")
)
_CHANGES_KEPT = 256
_ROWS_KEPT = 4096
_ROW_ID = np.dtype("<i8")


@dataclass(frozen=True, slots=True)
class State:
    """Which content the file has.

    Attributes:
        index_id: names the index; a copy has the same.
        generation: counts the write transactions.
        stamp: a random name of the last write; None after a write by an earlier release to a new file.
        build: names the index file that belongs to the documents; None before the first build of this release.
    """

    index_id: str
    generation: int
    stamp: str | None
    build: str | None


@dataclass(slots=True)
class Change:
    """What a write transaction does; to existing documents, by row id.

    Attributes:
        deleted: documents that were deleted or replaced.
        updated: documents whose metadata changed.
        deleted_bytes: how much space the deleted ones took.
        everything: all documents were deleted.
        words: the index of words, where it is in step with the documents before the transaction, and is kept so.
        terms: the index of metadata, likewise.
        written: how many documents were written.
    """

    deleted: list[int] = field(default_factory=list)
    updated: list[int] = field(default_factory=list)
    deleted_bytes: int = 0
    everything: bool = False
    words: Words | None = None
    terms: Terms | None = None
    written: int = 0


def create_tables(connection: sqlite3.Connection, properties: dict[str, str]) -> None:
    """Create the tables of a new index."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    connection.executemany("INSERT INTO properties VALUES (?, ?)", {**properties, "generation": "0"}.items())
    record_change(connection, Change())


def check_schema(connection: sqlite3.Connection, folder: Path) -> None:
    """Check that nothing in the file runs code: what looks like a table may be a view that never ends.

    Raises:
        StoreError: there is a trigger, or a view or a virtual table in the place of a table.
    """
    query = (
        "SELECT type, name FROM sqlite_schema WHERE type = 'trigger' OR (name = 'words' AND sql != ?) OR (name IN "
        "('properties', 'documents', 'vectors', 'changes', 'terms', 'postings', 'words_data', 'words_idx', "
        "'words_docsize', 'words_config') AND sql NOT LIKE 'CREATE TABLE %')"
    )
    if found := connection.execute(query, (CREATE_WORDS,)).fetchone():
        raise StoreError(
            f"The index in {folder} cannot be trusted: its file has the {found[0]} {found[1]!r:.100}, which no release "
            "of ours makes."
        )


def read_property(connection: sqlite3.Connection, name: str) -> str | None:
    """Return the value of a property, or None."""
    row = connection.execute("SELECT value FROM properties WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row[0])


def read_count(connection: sqlite3.Connection, name: str) -> int:
    """Return a property that counts something, 0 if it is missing or damaged: counts only say when to tidy up."""
    try:
        return int(read_property(connection, name) or 0)
    except ValueError:
        return 0


def write_property(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Set a property."""
    statement = "INSERT INTO properties VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    connection.execute(statement, (name, value))


class Connection(sqlite3.Connection):
    """A connection that asks SQLite once for what stays the same while a transaction reads.

    Attributes:
        reads: whether its transaction only reads.
        content: what `read_content` returned in such a transaction.
    """

    reads = False
    content: tuple[Any, ...] | None = None


def begin_again(connection: sqlite3.Connection) -> None:
    """Begin a transaction that reads anew: it sees the latest content."""
    connection.execute("ROLLBACK")
    connection.execute("BEGIN")
    if isinstance(connection, Connection):
        connection.content = None


def read_content(connection: sqlite3.Connection) -> tuple[Any, ...]:
    """Return the properties of which `State` is made, unchecked."""
    remembered = connection.content if isinstance(connection, Connection) else None
    content = remembered or tuple(connection.execute(_READ_STATE).fetchone())
    if isinstance(connection, Connection) and connection.reads:
        connection.content = content
    return content


def read_state(connection: sqlite3.Connection) -> State:
    """Read which content the transaction sees.

    Raises:
        StoreError: the file is damaged.
    """
    index_id, generation, stamp, build = read_content(connection)
    try:
        number = int(generation)
    except (TypeError, ValueError):
        number = None
    if index_id is None or number is None:
        raise StoreError(
            f"its properties are damaged: {index_id=!r:.100}, {generation=!r:.100}. Put a backup in its place."
        )
    return State(str(index_id), number, stamp and str(stamp), build and str(build))


def record_change(connection: sqlite3.Connection, change: Change) -> int:
    """Move the generation on, and record what changed for those who know the one before; return the new one."""
    stamp = secrets.token_hex(8)
    connection.execute(_CHANGES)
    connection.execute("UPDATE properties SET value = value + 1 WHERE name = 'generation'")
    write_property(connection, "stamp", stamp)
    generation = int(read_property(connection, "generation") or 0)
    n_rows = len(change.deleted) + len(change.updated)
    known = not change.everything and n_rows <= _ROWS_KEPT
    blobs = (_to_blob(change.deleted), _to_blob(change.updated)) if known else (None, None)
    connection.execute("INSERT OR REPLACE INTO changes VALUES (?, ?, ?, ?)", (generation, stamp, *blobs))
    connection.execute("DELETE FROM changes WHERE generation <= ?", (generation - _CHANGES_KEPT,))
    if change.deleted_bytes:
        deleted_bytes = read_count(connection, "deleted_bytes") + change.deleted_bytes
        write_property(connection, "deleted_bytes", str(deleted_bytes))
    if change.deleted:
        # Only what this release builds has these two. Without them the index is compacted later, no more.
        indexed_to = read_count(connection, "indexed_to")
        from_index = sum(row_id <= indexed_to for row_id in change.deleted)
        statement = "UPDATE properties SET value = value + ? WHERE name = 'deleted_from_index'"
        connection.execute(statement, (from_index,))
    return generation


def read_changes(
    connection: sqlite3.Connection, since: State, until: State
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return the row ids deleted and those updated between two states, ascending.

    Return None if the file does not tell: `since` is too long ago, or the file has another history.
    """
    if since.index_id != until.index_id or since.stamp is None or until.stamp is None:
        return None
    if since.generation > until.generation:
        return None
    query = "SELECT generation, stamp, deleted, updated FROM changes WHERE generation BETWEEN ? AND ?"
    rows = connection.execute(query, (since.generation, until.generation)).fetchall()
    stamps = {row[0]: row[1] for row in rows}
    if len(rows) != until.generation - since.generation + 1:
        return None
    if stamps[since.generation] != since.stamp or stamps[until.generation] != until.stamp:
        return None
    blobs = [row[2:] for row in rows if row[0] != since.generation]
    if any(not isinstance(blob, bytes) or len(blob) % _ROW_ID.itemsize for pair in blobs for blob in pair):
        return None
    deleted, updated = (
        np.unique(np.frombuffer(b"".join(pair[i] for pair in blobs), _ROW_ID)) for i in (0, 1)
    )
    return deleted, updated


def parse_spec(text: str | None, location: str) -> IndexSpec:
    """Return the spec that an index was built with, from the property that holds it.

    Raises:
        StoreError: it is damaged.
    """
    try:
        values = json.loads(text or "")
        spec = IndexSpec.from_dict(values)
        if isinstance(spec.dim, int) and spec.dim > 0 and spec.packing in get_args(PackingDtype):
            spec.to_dict()
            return spec
    except (ValueError, TypeError, AttributeError, RecursionError):
        pass
    raise StoreError(
        f"The index in {location} is damaged: what it was built with reads {text!r:.100}. Put a backup in its place."
    )


def last_row_id(connection: sqlite3.Connection) -> int:
    """Return the largest row id ever given, 0 if that is damaged."""
    row = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'documents'").fetchone()
    return row[0] if row is not None and isinstance(row[0], int) else 0


def _to_blob(row_ids: list[int]) -> bytes:
    return np.array(row_ids, _ROW_ID).tobytes()


def to_document(row: Sequence[Any]) -> Document:
    """Make a document of a row that begins with the columns `DOCUMENT`.

    Raises:
        StoreError: the row is damaged.
    """
    if not all(isinstance(text, str) for text in row[:3]):
        raise StoreError(
            f"The document {row[0]!r:.100} is damaged: a column is not text. Put a backup in its place."
        )
    return Document(row[0], row[1], row[2], *without_mark(to_metadata(row[3])))


def to_metadata(text: Any) -> dict[str, Any]:
    """Read the column `metadata`.

    Raises:
        StoreError: it is damaged.
    """
    try:
        metadata = loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise StoreError(f"A document's metadata are damaged: {error}. Put a backup in its place.") from error
    if not isinstance(metadata, dict):
        raise StoreError(
            f"A document's metadata are damaged: they read {text!r:.100}. Put a backup in its place."
        )
    return metadata


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


def read_documents(connection: sqlite3.Connection, doc_ids: Sequence[str]) -> list[Document]:
    """Return the stored documents, those that exist, in the order asked.

    Raises:
        StoreError: one of them is damaged.
    """
    found: dict[str, Document] = {}
    # SQLite puts some together in one row, since other threads get a turn before each row, and each column of it.
    query = f"json_group_array(json_array({DOCUMENT})) FROM documents"
    for first in range(0, len(doc_ids), _TOGETHER):
        batch = doc_ids[first : first + _TOGETHER]
        try:
            rows = [
                row for (text,) in select_in(connection, query, "doc_id", batch) for row in json.loads(text)
            ]
        except SQLITE_ERRORS:  # They are too long for one row, or one of them is damaged.
            rows = list(select_in(connection, f"{DOCUMENT} FROM documents", "doc_id", batch))
        found |= {row[0]: to_document(row) for row in rows}
    return [found[doc_id] for doc_id in doc_ids if doc_id in found]


def row_ids_of(connection: sqlite3.Connection, doc_ids: Sequence[str]) -> list[int]:
    """Return the row ids of those of the documents that exist, ascending."""
    # Ids are bound one by one: as JSON, SQLite would read an id only up to its first NUL.
    return sorted({row_id for (row_id,) in select_in(connection, "rid FROM documents", "doc_id", doc_ids)})


def delete_rows(connection: sqlite3.Connection, row_ids: Sequence[int], change: Change) -> int:
    """Delete existing documents by row id; return how many there were."""
    size = "length(packed) + length(CAST(content AS BLOB)) + length(metadata)"
    sizes = select_in(connection, f"{size} FROM documents JOIN vectors USING (rid)", "rid", row_ids)
    change.deleted_bytes += sum(n_bytes for (n_bytes,) in sizes)
    connection.executemany("DELETE FROM documents WHERE rid = ?", ((row_id,) for row_id in row_ids))
    change.deleted += row_ids
    return len(row_ids)


def insert(connection: sqlite3.Connection, row: tuple[str, str, str, str, int], packed: bytes) -> int:
    """Write a document, the columns `DOCUMENT` and its number of tokens, and its packed matrix; return its row id."""
    statement = f"INSERT INTO documents ({DOCUMENT}, n_tokens) VALUES (?, ?, ?, ?, ?)"
    row_id = connection.execute(statement, row).lastrowid
    assert row_id is not None
    connection.execute("INSERT INTO vectors VALUES (?, ?)", (row_id, packed))
    return row_id
