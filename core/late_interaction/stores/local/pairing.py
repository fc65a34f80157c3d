"""Tells whether a database and the write-ahead log beside it belong together.

SQLite does not check it: a backup that is copied over a database, or put back beside the log of the old one, is
read together with changes made to another file. So every write counts up `user_version`, and every database
has an `application_id` of its own. Both stand in the database's first page, which therefore is in the log of
every write, and a log that continues the database begins at most one write after it.
"""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

_WAL_HEADER = 32
_FRAME_HEADER = 24
_PAGE_HEADER = 100
_WRITES = 60  # where user_version stands in the first page
_APPLICATION = 68


@dataclass(frozen=True, slots=True)
class Mark:
    """Which database it is, and how many writes it has seen; zeros in one of an earlier version."""

    application: int
    writes: int


def read_mark(connection: sqlite3.Connection) -> Mark:
    """Return the mark that a connection sees."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return Mark(int(application), int(connection.execute("PRAGMA user_version").fetchone()[0]))


def count_write(connection: sqlite3.Connection, new_application: int) -> None:
    """Count up the writes, in a write transaction; a database without an id gets the new one."""
    mark = read_mark(connection)
    connection.execute(f"PRAGMA user_version = {mark.writes % (2**31 - 1) + 1}")
    if mark.application == 0:
        connection.execute(f"PRAGMA application_id = {new_application}")


def belong_together(path: Path, seen: Mark) -> bool:
    """Return whether the database at `path` is the one that a transaction sees through its log and its caches.

    Args:
        path: the database.
        seen: its mark, as the transaction sees it. The transaction must still be open, so that no writer moves the
            database on beyond it.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    stored = _stored_mark(path)
    log = _marks_in_log(path, only_first=True)
    if not log:
        return stored == seen
    return _continues(stored, log[0], seen)


def log_belongs_to(path: Path) -> bool:
    """Return whether the log beside a database continues it; also where there is no log, or none with marks.

    Raises:
        sqlite3.Error: the database cannot be read.
    """
    log = _marks_in_log(path, only_first=False)
    return not log or _continues(_stored_mark(path), log[0], log[-1])


def _continues(stored: Mark, first: Mark, last: Mark) -> bool:
    never_marked = stored == Mark(0, 0)
    return (never_marked or stored.application == last.application) and (
        first.writes - 1 <= stored.writes <= last.writes
    )


def _stored_mark(path: Path) -> Mark:
    """Return the mark in the database itself, without its log."""
    # By a connection: SQLite keeps a process's locks on a file when one of several connections to it is closed.
    # Opened and closed by other means, the file would lose them.
    with closing(sqlite3.connect(f"{path.as_uri()}?immutable=1", uri=True)) as connection:
        # While another connection copies the log into the file, the first page may tell of pages that are not there
        # yet, and SQLite would call the file malformed. With this setting it does not look; only the mark is read.
        connection.execute("PRAGMA writable_schema = ON")
        return read_mark(connection)


def _marks_in_log(path: Path, *, only_first: bool) -> list[Mark]:
    """Return the marks of the writes in the log of a database, in their order."""
    marks: list[Mark] = []
    try:
        with path.with_name(path.name + "-wal").open("rb") as file:
            header = file.read(_WAL_HEADER)
            if len(header) < _WAL_HEADER:
                return marks
            page_size = struct.unpack(">I", header[8:12])[0]
            while len(frame := file.read(_FRAME_HEADER)) == _FRAME_HEADER:
                if frame[8:16] != header[16:24]:  # the salts: what follows is left from an earlier log
                    break
                following = file.tell() + page_size
                if struct.unpack(">I", frame[:4])[0] == 1:
                    page = file.read(_PAGE_HEADER)
                    if len(page) < _PAGE_HEADER:
                        break
                    mark = Mark(
                        *struct.unpack(
                            ">ii", page[_APPLICATION : _APPLICATION + 4] + page[_WRITES : _WRITES + 4]
                        )
                    )
                    if mark.application:
                        marks.append(mark)
                        if only_first:
                            break
                file.seek(following)
    except FileNotFoundError:
        pass
    return marks
