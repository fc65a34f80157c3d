r"""Metadata filters in SQLite: SQL decides what is simple, and `filters.matches` has the last word.

A filter becomes an SQL expression over the column of JSON text that is 1 (the document matches), 0 (it does not) or
NULL (SQL cannot tell). SQL's three-valued logic carries the NULLs through AND, OR and NOT, so one condition that SQL
cannot judge leaves open only what hangs on it. Whatever is left open is read, and `matches` judges it. So there is one
meaning of a filter, and a new operator needs nothing here: its NULL is right, only slower.

SQL judges with care, since SQLite's reading of JSON loses something:

- Equality compares JSON text (`->`), not values: an integer beyond 64 bits is read as a float, and a string may end
  at its first NUL. A scalar has one text, a number two or three: 1 is `1` or `1.0`.
- Order compares values, but not of strings with a NUL or a surrogate, nor of floats very near to the bound.
- A date has many texts, so its day is compared, and left open within three days: an offset moves an instant by less.
- In a list, SQL only says that no element can be equal. A field's name with a `"` fits in no path.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from late_interaction.filters import (
    CONTENT,
    And,
    Comparison,
    Exists,
    Filter,
    Not,
    Or,
    Value,
    fields,
    matches,
)
from late_interaction.metadata import DATETIME, LITERAL, dumps, instant
from late_interaction.stores.local.tables import to_metadata

_UNKNOWN = "NULL"
_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_OF_TEXTS = {op: f"{{0}} {sign} {{1}}" for op, sign in _ORDER.items()} | {
    "$contains": "instr({0}, {1}) > 0",
    "$startswith": "substr({0}, 1, length({1})) = {1}",
}
_FEW = 8
_NEAR = 1e-12
"""SQLite reads a float from its text with a relative error below this."""
_NEAR_DAYS = 3
_MICROSECONDS_A_DAY = 86_400_000_000
_DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"
_TAG = f'{{"{DATETIME}":"'


def to_json(metadata: Mapping[str, Any]) -> str:
    """Return metadata as the text that `matching` reads.

    Raises:
        TypeError: a value is not plain.
        ValueError: a number is not finite, a value holds itself, or a key has a NUL in it: to SQLite, since
            3.45, a key ends there.
    """
    text = dumps(metadata)
    if _KEY_WITH_NUL.search(text):
        raise ValueError("A metadata key has a NUL character in it; keys must be without.")
    return text


# An escaped NUL (an odd backslash before u0000) in a string that a colon follows.
_KEY_WITH_NUL = re.compile(r'(?<!\\)(?:\\\\)*\\u0000(?:[^"\\]|\\.)*":')


def matching(
    connection: sqlite3.Connection,
    filter: Filter,
    columns: str,
    *,
    above: int = 0,
    among: Sequence[int] | None = None,
    source: str = "documents",
    parameters: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Any, ...]]:
    """Yield columns of the documents whose metadata match, in the order they were written.

    Args:
        connection: sees the documents.
        filter: the filter.
        columns: what to select. It becomes part of the SQL as it is.
        above: only documents with larger row ids.
        among: only documents with these row ids.
        source: the table, or a query, with the columns `rid`, `metadata` and `content`. It becomes part of the SQL.
        parameters: of the source, by name; no name of them is a `p` with a number.
    """
    sql = Verdict(filter)
    where = f"rid > {int(above)}"
    if among is not None:
        where += f" AND rid IN ({', '.join(str(int(row_id)) for row_id in among)})"
    content = "content" if CONTENT in fields(filter) else "''"
    # The limit keeps SQLite from judging twice: it does not merge a query that has one with the one around it.
    judged = (
        f"SELECT {columns}, metadata AS text, {content} AS body, {sql.expression} AS verdict FROM {source} "
        f"WHERE {where} ORDER BY rid LIMIT -1"
    )
    open_text = "CASE WHEN verdict THEN NULL ELSE text END, CASE WHEN verdict THEN NULL ELSE body END"
    query = f"SELECT {columns}, {open_text} FROM ({judged}) WHERE verdict IS NOT 0"
    for row in connection.execute(query, {**sql.parameters, **(parameters or {})}):
        if row[-2] is None or matches(filter, to_metadata(row[-2]), row[-1]):
            yield row[:-2]


class Verdict:
    """A filter as an SQL expression over the columns `content` and `metadata`, which holds what `to_json` wrote.

    Attributes:
        expression: 1, 0, or NULL if SQL cannot tell.
        parameters: the values of its named parameters. All that comes from the filter is among them.
    """

    def __init__(self, filter: Filter) -> None:
        self.parameters: dict[str, Any] = {}
        self.expression = self._judge(filter)

    def _judge(self, filter: Filter) -> str:
        match filter:
            case And(filters):
                return _join("AND", [self._judge(one) for one in filters])
            case Or(filters):
                return _join("OR", [self._judge(one) for one in filters])
            case Not(negated):
                return f"(NOT {self._judge(negated)})"
            case Comparison("$content", "$contains", str(text)) if text.isprintable():
                return f"(instr(content, {self._bind(text)}) > 0)"
            case Exists(field) | Comparison(field) if _fits_in_no_path(field):
                return _UNKNOWN
            case Exists(field):
                return f"(json_type(metadata, {self._path(field)}) IS NOT NULL)"
            case Comparison(value=value):
                return self._compare(filter.op, value, self._path(filter.field))
        return _UNKNOWN

    def _compare(self, op: str, value: Value, path: str) -> str:
        match op, value:
            case "$in", tuple(values):
                return self._equals_one_of(values, path)
            case "$eq", value:
                return self._equals_one_of((value,), path)
            case "$between", (least, greatest):
                # Open for a list, where two elements may be on the two sides.
                return f"({self._compare('$gte', least, path)} AND {self._compare('$lte', greatest, path)})"
            case op, (str() | dt.datetime()) as bound if op in _ORDER and instant(bound) is not None:
                return self._order_of_days(op, bound, path)
            case op, str(bound) if op in _OF_TEXTS and bound.isprintable():
                return self._of_text(op, bound, path)
            case op, (int() | float()) as bound if op in _ORDER and abs(bound) < 2**63:
                return self._number_order(_ORDER[op], bound, path)
        return _UNKNOWN

    def _equals_one_of(self, values: tuple[Value, ...], path: str) -> str:
        """Compare texts; a missing field is null. Many values are one parameter: SQLite limits their number."""
        texts = [text for value in values for text in texts_equal_to(value)]
        found = f"(metadata -> {path})"
        if len(texts) <= _FEW:
            names = [self._bind(text) for text in texts]
            among = ", ".join(names)
            holds = " OR ".join(f"instr({found}, {name})" for name in names) or "0"
        else:
            among = f"SELECT value FROM json_each({self._bind(json.dumps(texts))})"
            holds = f"EXISTS (SELECT 1 FROM ({among}) AS text WHERE instr({found}, text.value))"
        moments = [value for value in values if instant(value) is not None]
        if moments or any(isinstance(value, tuple) for value in values):
            holds = "1"
        days = f"WHEN {self._near(moments, path)} THEN NULL " if moments else ""
        return (
            f"CASE WHEN ifnull({found}, 'null') IN ({among}) THEN 1 "
            f"WHEN json_type(metadata, {path}) IS 'array' AND ({holds}) THEN NULL {days}ELSE 0 END"
        )

    def _of_text(self, op: str, bound: str, path: str) -> str:
        """Judge a text by the bytes of UTF-8, which order as code points do."""
        found = f"(metadata -> {path})"
        of_object = _UNKNOWN if op == "$contains" else "0"
        holds = _OF_TEXTS[op].format(f"json_extract(metadata, {path})", self._bind(bound))
        return (
            f"CASE json_type(metadata, {path}) WHEN 'array' THEN NULL WHEN 'object' THEN {of_object} WHEN 'text' THEN "
            rf"CASE WHEN instr({found}, '\u000') OR instr({found}, '\ud') THEN NULL ELSE {holds} END ELSE 0 END"
        )

    def _order_of_days(self, op: str, bound: str | dt.datetime, path: str) -> str:
        """Compare days. A text that only begins with one is a date to SQL; a bound that is a text is above it too."""
        day, (first, last) = _day(path), map(self._bind, _days_around(bound))
        before, after = ("1", "0") if op in ("$lt", "$lte") else ("0", "1")
        if isinstance(bound, str):
            others = self._of_text(op, bound, path)
        else:
            is_date = f"(CASE json_type(metadata, {path}) WHEN 'object' THEN 1 END)"
            before, after = (f"({side} AND {is_date})" for side in (before, after))
            others = f"CASE json_type(metadata, {path}) WHEN 'array' THEN NULL ELSE 0 END"
        return (
            f"CASE WHEN {day} < {first} THEN {before} WHEN {day} > {last} THEN {after} "
            f"WHEN {day} IS NOT NULL THEN NULL ELSE {others} END"
        )

    def _near(self, moments: Sequence[Value], path: str) -> str:
        """Return the condition that a value is within three days of one of these dates."""
        day = _day(path)
        if len(moments) > _FEW:
            return f"{day} IS NOT NULL"
        around = [map(self._bind, _days_around(moment)) for moment in moments]
        return "(" + " OR ".join(f"{day} BETWEEN {first} AND {last}" for first, last in around) + ")"

    def _number_order(self, operator: str, bound: float, path: str) -> str:
        """Compare numbers. SQLite reads an integer beyond 64 bits as a float, which is beyond the bound as well."""
        value, name = f"json_extract(metadata, {path})", self._bind(bound)
        near = self._bind(abs(bound) * _NEAR)
        return (
            f"CASE json_type(metadata, {path}) WHEN 'array' THEN NULL WHEN 'integer' THEN {value} {operator} {name} "
            f"WHEN 'real' THEN CASE WHEN abs({value} - {name}) <= {near} THEN NULL ELSE {value} {operator} {name} END "
            "ELSE 0 END"
        )

    def _path(self, field: str) -> str:
        """Return the path of a field: a top-level one of that name comes before one inside of objects."""
        whole = self._bind(_path_of([field]))
        if "." not in field:
            return whole
        nested = self._bind(_path_of(field.split(".")))
        return f"(CASE WHEN json_type(metadata, {whole}) IS NULL THEN {nested} ELSE {whole} END)"

    def _bind(self, value: Any) -> str:
        name = f"p{len(self.parameters)}"
        self.parameters[name] = value
        return f":{name}"


def _fits_in_no_path(field: str) -> bool:
    return field == CONTENT or '"' in field or not {DATETIME, LITERAL}.isdisjoint(field.split("."))


def _day(path: str) -> str:
    """Return the expression for the day that a text or a datetime begins with; it is NULL for all else."""
    found = f"(metadata -> {path})"
    return (
        f"(CASE WHEN {found} GLOB '\"{_DAY}' THEN substr({found}, 2, 10) "
        f"WHEN {found} GLOB '{_TAG}{_DAY}' THEN substr({found}, {len(_TAG) + 1}, 10) END)"
    )


def _days_around(date: Value) -> tuple[str, str]:
    moment = instant(date)
    assert moment is not None
    day = dt.date(1970, 1, 1).toordinal() + moment // _MICROSECONDS_A_DAY
    around = (day - _NEAR_DAYS, day + _NEAR_DAYS)
    first, last = (min(max(one, dt.date.min.toordinal()), dt.date.max.toordinal()) for one in around)
    return dt.date.fromordinal(first).isoformat(), dt.date.fromordinal(last).isoformat()


def _path_of(keys: list[str]) -> str:
    return "$" + "".join(f'."{json.dumps(key)[1:-1]}"' for key in keys)


def texts_equal_to(scalar: Value) -> list[str]:
    """Return the JSON texts of all that equals the scalar, but for other dates."""
    if isinstance(scalar, tuple):
        return []
    if isinstance(scalar, dt.datetime):
        return [dumps(scalar)]
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return [json.dumps(scalar)]
    equal = {"0.0", "-0.0"} if scalar == 0 else set()
    if int(scalar) == scalar:
        equal.add(repr(int(scalar)))
    try:
        if float(scalar) == scalar:
            equal.add(repr(float(scalar)))
    except OverflowError:
        pass
    return sorted(equal)


def _join(conjunction: str, conditions: list[str]) -> str:
    """Join the conditions as a balanced tree: SQLite limits the depth of an expression."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return (
        f"({_join(conjunction, conditions[:middle])} {conjunction} {_join(conjunction, conditions[middle:])})"
    )
