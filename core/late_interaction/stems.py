"""Words as an index of words has them: SQLite's FTS5 cuts texts into words and takes Porter's stems, in memory too.

So an index on Astra, which gets its words from here, has the same ones as an index in a folder, and so has what is
marked in a text.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing

from late_interaction.errors import StoreError
from late_interaction.lexical import MOST_WORDS, Span, is_prefix, query_words, text_words

CREATE_WORDS = (
    "CREATE VIRTUAL TABLE words USING fts5(text, content='', "
    "tokenize=\"porter unicode61 remove_diacritics 2 categories 'L* N* M* Co'\")"
)
"""An index of words, in a folder (`stores/local/words.py`) and in memory."""


@functools.cache
def has_fts5() -> bool:
    """Return whether this Python's SQLite has FTS5: it is asked once, and not in every transaction."""
    with closing(sqlite3.connect(":memory:")) as connection:
        return ("fts5",) in connection.execute("SELECT name FROM pragma_module_list").fetchall()


def check_fts5(location: str) -> None:
    """Check that SQLite can cut texts into words.

    Raises:
        StoreError: it cannot.
    """
    if not has_fts5():
        raise StoreError(
            f"The SQLite {sqlite3.sqlite_version} of this Python has no FTS5, which searches by words in {location} "
            'need (mode="hybrid" and "lexical"): use another build of Python, or mode="late".'
        )


def stems(texts: Sequence[str]) -> list[list[str]]:
    """Return the stems of the words of each text, in its order; SQLite must have FTS5.

    A document's text is to be made `searchable` before, and of a query go the `query_words` in.

    >>> stems(["green apples", "Apple pie"])
    [['green', 'appl'], ['appl', 'pie']]
    """
    found: list[list[str]] = [[] for _ in texts]
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(CREATE_WORDS)
        connection.execute("CREATE VIRTUAL TABLE places USING fts5vocab(words, instance)")
        connection.executemany("INSERT INTO words (rowid, text) VALUES (?, ?)", enumerate(texts))
        for stem, row in connection.execute("SELECT term, doc FROM places ORDER BY doc, offset"):
            found[row].append(stem)
    return found


def word_hits(query: str, texts: Sequence[str]) -> list[list[Span]]:
    """Return the words of texts that a search by words finds: those with the stem of a word of the query.

    >>> text = "Pie of green apples"
    >>> [[text[start:end] for start, end in spans] for spans in word_hits("an apple", [text])]
    [['apples']]
    """
    if not has_fts5():
        return [[] for _ in texts]
    asked = query_words(query)[:MOST_WORDS]
    prefixes = tuple(filter(is_prefix, asked))
    units = [[(span, unit) for span, unit in text_words(text)] for text in texts]
    every = list({unit: None for each in units for _, unit in each})
    wanted, *of_units = stems([" ".join(asked), *every])
    hits = {
        unit
        for unit, found in zip(every, of_units, strict=True)
        if not set(found).isdisjoint(wanted) or unit.startswith(prefixes)
    }
    return [_joined(span for span, unit in each if unit in hits) for each in units]


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Return spans with those that overlap made one."""
    joined: list[Span] = []
    for start, end in spans:
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
