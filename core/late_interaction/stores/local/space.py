"""Giving the space of deleted documents back to the file system."""

from __future__ import annotations

import logging
import os
import sqlite3
from pathlib import Path

from late_interaction.stores.local.sqlite import SQLiteFile
from late_interaction.stores.local.tables import read_count, write_property
from late_interaction.stores.local.terms import terms_bytes
from late_interaction.stores.local.words import compact_words, words_bytes

logger = logging.getLogger(__name__)

_WASTED_SHARE = 0.2
_FEWEST_PAGES = 8
_ROW_BYTES = 64
"""What a document costs in the two tables and the index of ids, beside its content."""


def shrink(file: SQLiteFile) -> int:
    """Rewrite the file if much of it is empty; return how many bytes the folder has less.

    SQLite uses the space of deleted rows again, but never gives it back by itself. Writers wait meanwhile, and readers
    go on.
    """
    with file.reading() as connection:
        if not _may_be_due(connection):
            return 0
        due = _is_due(connection)
    if not due:
        with file.writing() as connection:
            write_property(connection, "deleted_bytes", "0")
        return 0
    with file.alone() as connection:
        before = _bytes_on_disk(file.path)
        write_property(connection, "deleted_bytes", "0")
        try:
            compact_words(connection)
            connection.execute("VACUUM")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
                raise
            logger.warning(
                "The space of deleted documents in %s was not given back: rewriting the file needs as much free space "
                "as its content takes, on the disk and in the folder for temporary files.",
                file.folder,
            )
            return 0
        # Else the log keeps a copy of everything until the last connection is closed.
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        freed = max(0, before - _bytes_on_disk(file.path))
    logger.info("Rewriting %s gave %d bytes back.", file.path, freed)
    return freed


def _may_be_due(connection: sqlite3.Connection) -> bool:
    """Ask for numbers that SQLite and our log of deletions keep, which costs nothing."""
    n_pages, n_free = _pragma(connection, "page_count"), _pragma(connection, "freelist_count")
    deleted = read_count(connection, "deleted_bytes") / _pragma(connection, "page_size")
    return n_free + deleted >= max(_FEWEST_PAGES, _WASTED_SHARE * n_pages)


def _is_due(connection: sqlite3.Connection) -> bool:
    """Measure: pages may be half empty, where small rows were deleted between others."""
    n_pages, n_free = _pragma(connection, "page_count"), _pragma(connection, "freelist_count")
    query = (
        "SELECT count(*), coalesce(sum(length(packed) + length(CAST(content AS BLOB)) + length(metadata) "
        "+ 2 * length(doc_id)), 0) FROM documents JOIN vectors USING (rid)"
    )
    n_documents, n_bytes = connection.execute(query).fetchone()
    indexes = words_bytes(connection) + terms_bytes(connection)
    used = (n_bytes + n_documents * _ROW_BYTES + indexes) / _pragma(connection, "page_size")
    wasted = max(n_free, n_pages - used)
    return bool(wasted >= max(_FEWEST_PAGES, _WASTED_SHARE * n_pages))


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


def _bytes_on_disk(path: Path) -> int:
    total = 0
    for each in (path, path.with_name(f"{path.name}-wal")):
        try:
            total += os.stat(each).st_size  # noqa: PTH116 - both may be replaced at any time
        except FileNotFoundError:
            continue
    return total
