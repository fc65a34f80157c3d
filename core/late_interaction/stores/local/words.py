"""The index of words of the embedded store: an FTS5 table in the file of the documents, written in their transactions.

The table is kept in step with the documents (`in_step`). It has no copy of the texts (`content=''`). To delete a
document from it, FTS5 is given the text again, which is read from the document.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.filters import Filter
from late_interaction.lexical import is_prefix, searchable
from late_interaction.stems import CREATE_WORDS, check_fts5, has_fts5
from late_interaction.stores.base import WordMatches
from late_interaction.stores.local.allowed import positions_of
from late_interaction.stores.local.ids import Ids
from late_interaction.stores.local.in_step import InStep
from late_interaction.stores.local.tables import read_state, select_in
from late_interaction.stores.local.view import View, Views

_RARE = 20
_RARE_TOGETHER = 50


@dataclass(frozen=True, slots=True)
class Words(InStep):
    """The index of words as a transaction sees it."""

    name: ClassVar[str] = "words"
    version: ClassVar[int] = 2

    @classmethod
    def read(cls, connection: sqlite3.Connection, generation: int) -> Words | None:
        """Return the index of words, or None if there is none that is in step, or SQLite has no FTS5."""
        return super(Words, cls).read(connection, generation) if has_fts5() else None

    def add(self, connection: sqlite3.Connection, documents: Iterable[tuple[int, str]]) -> None:
        """Add documents, row ids and contents; those that are still to come by `fill` are left to it."""
        rows = ((rid, searchable(content)) for rid, content in documents if self.covers(rid))
        connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", rows)

    def delete(self, connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
        """Delete documents that are in the table of documents still."""
        covered = [rid for rid in row_ids if self.covers(rid)]
        rows = select_in(connection, "rid, content FROM documents", "rid", covered)
        texts = [(rid, searchable(content)) for rid, content in rows]
        connection.executemany("INSERT INTO words (words, rowid, text) VALUES ('delete', ?, ?)", texts)


def create_words(connection: sqlite3.Connection) -> None:
    """Make the index of words of a new index, if this Python's SQLite can."""
    if has_fts5():
        connection.execute(CREATE_WORDS)
        Words(0).write(connection, read_state(connection).generation)


def clear_words(connection: sqlite3.Connection) -> None:
    """Delete all documents from the index of words."""
    connection.execute("INSERT INTO words (words) VALUES ('delete-all')")


def compact_words(connection: sqlite3.Connection) -> None:
    """Take what deleted documents left out of the index of words, where there is one: FTS5 notes a deletion beside."""
    if has_fts5() and _has_table(connection):
        connection.execute("INSERT INTO words (words) VALUES ('optimize')")


def _has_table(connection: sqlite3.Connection) -> bool:
    return bool(connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'words_data'").fetchone())


def fill_words(connection: sqlite3.Connection) -> None:
    """Bring some more documents of an earlier release into the index of words.

    To be called in a write transaction, again and again. The documents' generation does not move.
    """
    generation = read_state(connection).generation
    words = Words.read(connection, generation)
    if words is None:
        connection.execute("DROP TABLE IF EXISTS words")
        connection.execute(CREATE_WORDS)
        words = Words(generation, 0)
    if not words.fill(connection, "content", partial(Words(generation).add, connection)):
        compact_words(connection)


def check_words(connection: sqlite3.Connection, location: str) -> None:
    """Check that words can be searched.

    Raises:
        StoreError: SQLite has no FTS5, or the index of words does not cover all documents.
    """
    check_fts5(location)
    if not Words.is_ready(connection, read_state(connection).generation):
        raise StoreError(
            f"The index in {location} has no index of words that covers all documents, because an earlier release "
            "wrote to it: call optimize() once (`late-interaction optimize`)."
        )


def find_words(
    connection: sqlite3.Connection,
    views: Views,
    view: View,
    words: Sequence[str],
    n: int,
    filter: Filter | None,
    also: Sequence[str],
) -> WordMatches:
    """Return the `n` documents of a view that match a filter with the highest BM25, and the BM25 of others."""
    rows = (view.indexed, view.unindexed)
    row_ids, scores = bm25(connection, words)
    alive = [each.alive for each in rows]
    allowed = alive if filter is None else views.allowed(connection, filter, view)
    best, others = list[tuple[str, float]](), dict[str, float]()
    id_of = {
        rid: doc_id for doc_id, rid in select_in(connection, "doc_id, rid FROM documents", "doc_id", also)
    }
    asked = np.fromiter(id_of, np.int64, len(id_of))
    for part, is_alive, is_allowed in zip(rows, alive, allowed, strict=True):
        places = np.searchsorted(part.row_ids, row_ids)
        found = places < len(part.row_ids)
        found[found] = part.row_ids[places[found]] == row_ids[found]
        places, part_scores = places[found], scores[found]
        keep = is_alive[places]
        places, part_scores = places[keep], part_scores[keep]
        known = np.isin(part.row_ids[places], asked, assume_unique=True)
        known_ids = map(id_of.__getitem__, part.row_ids[places[known]].tolist())
        others.update(zip(known_ids, part_scores[known].tolist(), strict=True))
        keep = is_allowed[places]
        best += _best_n(part.ids, places[keep], part_scores[keep], n)
    return WordMatches(dict(sorted(best, key=lambda pair: (-pair[1], pair[0]))[:n]), others)


def find_rare(
    connection: sqlite3.Connection, views: Views, view: View, terms: Sequence[str], filter: Filter | None
) -> list[str]:
    """Return the documents of a view's index that match a filter and have a rare term, those of the rarest first.

    Documents outside of the index are left out: a search scores each of them.
    """
    if not Words.is_ready(connection, view.state.generation):
        return []
    statement = "SELECT rowid FROM words WHERE words MATCH ? LIMIT ?"
    lists = (connection.execute(statement, (f'"{term}"', _RARE + 1)).fetchall() for term in terms)
    rarest = sorted((rows for rows in lists if len(rows) <= _RARE), key=len)
    row_ids = list(dict.fromkeys(row_id for rows in rarest for (row_id,) in rows))
    allowed = view.indexed.alive if filter is None else views.allowed(connection, filter, view)[0]
    found = positions_of(view.indexed.row_ids, np.array(row_ids, np.int64))
    return view.indexed.ids.take(found[allowed[found]][:_RARE_TOGETHER])


def _best_n(
    ids: Ids, places: NDArray[np.int64], scores: NDArray[np.float64], n: int
) -> list[tuple[str, float]]:
    """Return the `n` highest scores with their ids, and all that equal the last of them."""
    if n < len(scores):
        keep = scores >= np.partition(scores, -n)[-n]
        places, scores = places[keep], scores[keep]
    return list(zip(ids.take(places), scores.tolist(), strict=True))


def bm25(
    connection: sqlite3.Connection, words: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return row ids and BM25 of all documents that have one of the words, ascending by row id."""
    # A word has no quotes in it (`query_words`), and in quotes nothing is syntax.
    query = " OR ".join(f'"{word}"{" *" if is_prefix(word) else ""}' for word in words)
    statement = "SELECT rowid, -bm25(words) FROM words WHERE words MATCH ?"
    rows = connection.execute(statement, (query,)).fetchall() if words else []
    table = np.array(rows, np.float64).reshape(-1, 2)
    return table[:, 0].astype(np.int64), table[:, 1]


def words_bytes(connection: sqlite3.Connection) -> int:
    """Return about how much room the index of words takes."""
    if not _has_table(connection):
        return 0
    query = "SELECT coalesce(sum(length(block) + 12), 0) FROM words_data"
    docsize = "SELECT coalesce(sum(length(sz) + 10), 0) FROM words_docsize"
    return sum(int(connection.execute(each).fetchone()[0]) for each in (query, docsize))
