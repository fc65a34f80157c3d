"""The index of metadata of the embedded store: which documents have a value in a field, so that a filter reads few.

Two tables in the file of the documents, written in their transactions (`in_step`). A term is a field with one value.
The documents that have it are its postings: a row for each 8,192 row ids, with two bytes a document.

    terms       id, the field's name and the value, both as JSON text
    postings    id of the term · 2²⁰ + row id // 8192; the row ids' remainders as uint16, in no order

A term says of a document what is enough to judge it by the term alone: a list has a term for each of its elements, as a
list of that one; an object one for each of its keys. Fields inside of objects have their dotted names. A filter's
condition is asked of the terms of its field, as of documents that have nothing else, by `filters.matching`. So there is
one meaning of a filter. A value that is too long has the term `LONG`, and its documents are asked one by one; so are
those with very many terms.
"""

from __future__ import annotations

import functools
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from late_interaction.conditions import And, Comparison, Exists, Filter, Not, Or, fields, leaves, matches
from late_interaction.errors import StoreError
from late_interaction.filters import CONTENT
from late_interaction.metadata import DATETIME, MARK, dumps, instant
from late_interaction.stores.local.allowed import positions_of
from late_interaction.stores.local.filters import matching, texts_equal_to
from late_interaction.stores.local.in_step import InStep
from late_interaction.stores.local.tables import read_state, select_in, to_metadata

Term: TypeAlias = tuple[str, str]
"""A field's name and a value, as JSON text."""

LONG = "?"
"""Stands for a value whose text is longer than `_LONGEST`; JSON text it is not."""
_OVERFULL: Term = ("", LONG)
"""The one term of a document that would have too many; a name as JSON text has quotes."""
_LONGEST = 200
_MOST_TERMS = 200
_MOST_ASKED = 2000
"""Documents that are asked one by one at most; with more of them all are read."""
_BLOCK = 13
_BLOCKS = 20
_DATETIME = f'{{"{DATETIME}"'
"""How the JSON text of a datetime begins."""
_OFFSET = np.dtype("<u2")

_SCHEMA = """
CREATE TABLE terms (id INTEGER PRIMARY KEY, field TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (field, value));
CREATE TABLE postings (id INTEGER PRIMARY KEY, rids BLOB NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Terms(InStep):
    """The index of metadata as a transaction sees it."""

    name: ClassVar[str] = "terms"
    version: ClassVar[int] = 1

    def change(
        self, connection: sqlite3.Connection, changes: Iterable[tuple[int, str | None, str | None]]
    ) -> None:
        """Bring into the index how documents changed: row id, metadata as stored before and after; None of none."""
        added, removed = defaultdict[Term, list[int]](list), defaultdict[Term, list[int]](list)
        for row_id, before, after in changes:
            if self.covers(row_id):
                old, new = _terms_in(before), _terms_in(after)
                for term in new - old:
                    added[term].append(row_id)
                for term in old - new:
                    removed[term].append(row_id)
        for term, row_ids in removed.items():
            _remove(connection, term, np.array(row_ids, np.int64))
        for term, row_ids in added.items():
            _add(connection, term, np.array(row_ids, np.int64))

    def delete(self, connection: sqlite3.Connection, row_ids: Sequence[int]) -> None:
        """Delete documents that are in the table of documents still."""
        rows = select_in(connection, "rid, metadata FROM documents", "rid", row_ids)
        self.change(connection, [(row_id, text, None) for row_id, text in rows])


def create_terms(connection: sqlite3.Connection) -> None:
    """Make the index of metadata of a new index."""
    for statement in _SCHEMA.split(";"):
        connection.execute(statement)
    Terms(0).write(connection, read_state(connection).generation)


def clear_terms(connection: sqlite3.Connection) -> None:
    """Delete all documents from the index of metadata."""
    connection.execute("DELETE FROM postings")
    connection.execute("DELETE FROM terms")


def fill_terms(connection: sqlite3.Connection) -> None:
    """Bring some more documents of an earlier release into the index of metadata.

    To be called in a write transaction, again and again. The documents' generation does not move.
    """
    generation = read_state(connection).generation
    terms = Terms.read(connection, generation)
    if terms is None:
        for table in ("terms", "postings"):
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        create_terms(connection)
        terms = Terms(generation, 0)

    def add(rows: list[tuple[int, str]]) -> None:
        Terms(generation).change(connection, ((row_id, None, text) for row_id, text in rows))

    terms.fill(connection, "metadata", add)


def terms_bytes(connection: sqlite3.Connection) -> int:
    """Return about how much room the index of metadata takes."""
    if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'postings'").fetchone():
        return 0
    postings = "SELECT coalesce(sum(length(rids) + 12), 0) FROM postings"
    terms = "SELECT coalesce(sum(2 * (length(field) + length(value)) + 24), 0) FROM terms"
    return sum(int(connection.execute(each).fetchone()[0]) for each in (postings, terms))


# --- a document's terms


def terms_of(metadata: Mapping[str, Any]) -> set[Term]:
    """Return the terms of a document, without the mark of `sync`.

    >>> sorted(terms_of({"tags": ["a", "b"], "author": {"name": "Ada"}}))
    [('"author"', '{"name":null}'), ('"author.name"', '"Ada"'), ('"tags"', '["a"]'), ('"tags"', '["b"]')]
    """
    terms = set[Term]()
    for name, value in _named(metadata):
        field = json.dumps(name)
        for part in _parts(value):
            text = _text(part)
            terms.add((field, text if len(text) <= _LONGEST else LONG))
            if len(terms) > _MOST_TERMS:
                return {_OVERFULL}
    return terms


def _terms_in(stored: str | None) -> set[Term]:
    """Return the terms of stored metadata; damaged ones are asked one by one, which says that they are damaged."""
    try:
        return set() if stored is None else terms_of(to_metadata(stored))
    except StoreError:
        return {_OVERFULL}


def _named(metadata: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields that a filter can name: a top-level one comes before one inside of objects."""
    for key, value in metadata.items():
        if key != MARK:
            yield key, value
            if "." not in key:
                yield from ((name, inner) for name, inner in _inside(key, value) if name not in metadata)


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if "." not in key:
                yield f"{name}.{key}", inner
                yield from _inside(f"{name}.{key}", inner)


def _text(part: Any) -> str:
    if part is None or type(part) in (str, int, float, bool):
        return json.dumps(part)  # The same, in a third of the time.
    if type(part) is list and part and type(part[0]) in (str, int):
        return f"[{json.dumps(part[0])}]"
    return dumps([part])[1:-1]


def _parts(value: Any) -> Iterator[Any]:
    """Yield values such that a condition holds for one of them where it holds for this one."""
    if isinstance(value, list):
        yield from ([element] for element in value) if value else ([],)
    elif isinstance(value, Mapping):
        yield from ({key: None} for key in value) if value else ({},)
    else:
        yield value


def _add(connection: sqlite3.Connection, term: Term, row_ids: NDArray[np.int64]) -> None:
    number = _number(connection, term)
    if number is None:
        number = connection.execute("INSERT INTO terms (field, value) VALUES (?, ?)", term).lastrowid
        assert number is not None
    statement = (
        "INSERT INTO postings VALUES (?, ?) "
        "ON CONFLICT (id) DO UPDATE SET rids = CAST(rids || excluded.rids AS BLOB)"
    )
    connection.executemany(statement, ((key, rids.tobytes()) for key, rids in _blocks(number, row_ids)))


def _remove(connection: sqlite3.Connection, term: Term, row_ids: NDArray[np.int64]) -> None:
    number = _number(connection, term)
    if number is None:
        return
    for key, gone in _blocks(number, row_ids):
        row = connection.execute("SELECT rids FROM postings WHERE id = ?", (key,)).fetchone()
        if row is not None:
            rids = _offsets(row[0])
            left = rids[~np.isin(rids, gone)]
            if len(left):
                connection.execute("UPDATE postings SET rids = ? WHERE id = ?", (left.tobytes(), key))
            else:
                connection.execute("DELETE FROM postings WHERE id = ?", (key,))
    query = "SELECT 1 FROM postings WHERE id BETWEEN ? AND ?"
    if not connection.execute(query, (number << _BLOCKS, (number + 1 << _BLOCKS) - 1)).fetchone():
        connection.execute("DELETE FROM terms WHERE id = ?", (number,))


def _offsets(rids: Any) -> NDArray[np.uint16]:
    if not isinstance(rids, bytes) or len(rids) % _OFFSET.itemsize:
        raise StoreError("its index of metadata is damaged. Put a backup in its place.")
    return np.frombuffer(rids, _OFFSET)


def _number(connection: sqlite3.Connection, term: Term) -> int | None:
    row = connection.execute("SELECT id FROM terms WHERE field = ? AND value = ?", term).fetchone()
    return None if row is None else int(row[0])


def _blocks(number: int, row_ids: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint16]]]:
    blocks = row_ids >> _BLOCK
    for block in np.unique(blocks).tolist():
        yield (number << _BLOCKS) + block, (row_ids[blocks == block] & ((1 << _BLOCK) - 1)).astype(_OFFSET)


# --- which documents match


def find_matching(
    connection: sqlite3.Connection, generation: int, filter: Filter, row_ids: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    """Return which of some documents match a filter; None where all documents' metadata must be read for it.

    Args:
        connection: sees the documents of this generation.
        generation: of the documents.
        filter: the filter.
        row_ids: (n,) of the documents, ascending; it does not matter which others there are.
    """
    if not Terms.is_ready(connection, generation) or not all(map(_is_answered, leaves(filter))):
        return None
    finder = _Finder(connection, row_ids)
    field, value = _OVERFULL
    try:
        mask = finder.matching(filter)
        finder.ask(filter, finder.postings(finder.terms_among(field, [value])), mask)
    except _TooManyError:
        return None
    return mask


def _is_answered(leaf: Comparison | Exists) -> bool:
    """Return whether terms say enough for a condition: not of the content, nor of whole lists."""
    if leaf.field == CONTENT or leaf.field.split(".")[0] == MARK:
        return False
    if isinstance(leaf, Exists) or leaf.op == "$between" or not isinstance(leaf.value, tuple):
        return True
    return leaf.op == "$in" and not any(isinstance(value, tuple) for value in leaf.value)


class _TooManyError(Exception):
    """More documents would be asked one by one than is worth it."""


class _Finder:
    """Finds which of some documents match.

    Args:
        connection: sees the documents.
        row_ids: of the documents, ascending.
    """

    def __init__(self, connection: sqlite3.Connection, row_ids: NDArray[np.int64]) -> None:
        self._connection = connection
        self._row_ids = row_ids

    def matching(self, filter: Filter) -> NDArray[np.bool_]:
        """Return which documents match, those with too many terms left out."""
        if isinstance(filter, Not):
            return ~self.matching(filter.filter)
        names = fields(filter)
        if len(names) == 1 and (isinstance(filter, Comparison | Exists) or self._is_single(*names)):
            return self._of_field(filter, *names)
        match filter:
            case And(filters):
                return functools.reduce(np.logical_and, map(self.matching, self._by_field(filters)))
            case Or(filters):
                return functools.reduce(np.logical_or, map(self.matching, filters))
        raise AssertionError(filter)

    def _by_field(self, filters: Sequence[Filter]) -> Iterator[Filter]:
        """Yield filters that must all hold; those of one field as one, where a term says all of them."""
        groups = defaultdict[frozenset[str], list[Filter]](list)
        for one in filters:
            groups[frozenset(fields(one))].append(one)
        for names, group in groups.items():
            together = len(group) > 1 and len(names) == 1 and self._is_single(*names)
            yield from (And(tuple(group)),) if together else group

    def _is_single(self, field: str) -> bool:
        """Return whether each document has one term of a field at most: then it says all of several conditions."""
        query = (
            "SELECT 1 FROM terms WHERE field = :field AND (value = :long OR value BETWEEN '[' AND '[~' "
            f"OR value >= '{{' AND value < '{_DATETIME}:' OR value >= '{_DATETIME};') LIMIT 1"
        )
        given = {"field": json.dumps(field), "long": LONG}
        return self._connection.execute(query, given).fetchone() is None

    def _of_field(self, filter: Filter, name: str) -> NDArray[np.bool_]:
        field = json.dumps(name)
        mask = np.zeros(len(self._row_ids), bool)
        mask[self.postings(self._holding(filter, field))] = True
        self.ask(filter, self.postings(self.terms_among(field, [LONG])), mask)
        if matches(filter, {}):
            without = np.ones(len(mask), bool)
            without[self.postings(self.terms_of(field))] = False
            mask |= without
        return mask

    def _holding(self, filter: Filter, field: str) -> list[int]:
        """Return the terms of a field of which a filter holds."""
        if isinstance(filter, Exists):
            return self.terms_of(field)
        if isinstance(filter, Comparison) and filter.op in ("$eq", "$in"):
            values = filter.value if isinstance(filter.value, tuple) else (filter.value,)
            if all(instant(value) is None for value in values):  # A date has many texts.
                texts = [text for value in values for text in texts_equal_to(value)]
                texts += [f"[{text}]" for text in texts]
                return self.terms_among(field, texts)
        source = (
            "(SELECT id + 0 AS rid, '{' || field || ':' || value || '}' AS metadata, '' AS content "
            "FROM terms WHERE field = :field AND value != :long)"
        )
        given = {"field": field, "long": LONG}
        found = matching(self._connection, filter, "rid", source=source, parameters=given)
        return [number for (number,) in found]

    def terms_of(self, field: str) -> list[int]:
        """Return the terms of a field."""
        rows = self._connection.execute("SELECT id FROM terms WHERE field = ?", (field,)).fetchall()
        return [number for (number,) in rows]

    def terms_among(self, field: str, values: Sequence[str]) -> list[int]:
        """Return those of the terms of a field that have one of some values."""
        query = "SELECT id FROM terms WHERE field = ? AND value IN (SELECT value FROM json_each(?))"
        return [number for (number,) in self._connection.execute(query, (field, json.dumps(values)))]

    def postings(self, numbers: Sequence[int]) -> NDArray[np.int64]:
        """Return the positions of the documents that have one of the terms, in no order; some may be twice."""
        last = (1 << _BLOCKS) - 1
        query = (
            f"SELECT p.id & {last}, p.rids FROM json_each(?) AS t JOIN postings AS p "
            f"ON p.id BETWEEN t.value << {_BLOCKS} AND (t.value << {_BLOCKS}) + {last}"
        )
        rows = self._connection.execute(query, (json.dumps(numbers),)).fetchall() if numbers else []
        offsets = [_offsets(rids) for _, rids in rows]
        first = np.array([block << _BLOCK for block, _ in rows], np.int64)
        row_ids = np.repeat(first, list(map(len, offsets))) + np.concatenate([*offsets, _offsets(b"")])
        return positions_of(self._row_ids, row_ids)

    def ask(self, filter: Filter, positions: NDArray[np.int64], mask: NDArray[np.bool_]) -> None:
        """Ask some documents one by one, and write into the mask whether they match."""
        if len(positions) > _MOST_ASKED:
            raise _TooManyError
        if len(positions):
            row_ids = self._row_ids[positions]
            found = matching(self._connection, filter, "rid", among=row_ids.tolist())
            mask[positions] = np.isin(row_ids, [row_id for (row_id,) in found])
