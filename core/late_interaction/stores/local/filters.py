r"""Metadata filters as SQL over a column of JSON text, for SQLite's built-in JSON functions (3.38 or later).

The expression selects exactly the rows whose metadata `filters.matches`. Where SQLite's own reading of JSON
loses something, it is not relied on:

- Equality compares JSON text (`->`), not values: an integer beyond 64 bits is read as a float, and a string
  may end at its first NUL. A scalar has one text, a number two or three: 1 is `1` or `1.0`.
- Order compares values, and guards against the same two losses.
- A path finds a key by the key's JSON text, but no path can hold a `"`. A key with one is looked up in the
  document with every `"` inside a string written as `\u0022`.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
import string
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from late_interaction.filters import And, Comparison, Exists, Filter, Not, Or, Value

Fragment: TypeAlias = tuple[str, list[Any]]
"""An SQL expression, and the values of its `?` in their order."""


def to_json(metadata: Mapping[str, Any]) -> str:
    """Metadata as the text that `to_sql` reads: in ASCII, with numbers as Python writes them.

    Raises:
        TypeError: a value is not a JSON value.
        ValueError: a number is not finite, a value holds itself, or a key has a NUL in it: to SQLite, since
            3.45, a key ends there.
    """
    text = json.dumps(metadata, allow_nan=False, separators=(",", ":"))
    if _KEY_WITH_NUL.search(text):
        raise ValueError("A metadata key has a NUL character in it; keys must be without.")
    return text


# An escaped NUL (an odd backslash before u0000) in a string that a colon follows.
_KEY_WITH_NUL = re.compile(r'(?<!\\)(?:\\\\)*\\u0000(?:[^"\\]|\\.)*":')


def matching(
    connection: sqlite3.Connection,
    filter: Filter | None,
    columns: str,
    where: str = "1",
    values: Sequence[Any] = (),
) -> Iterator[tuple[Any, ...]]:
    """Yield these columns of the documents that match, in the order they were written."""
    condition, bound = ("1", []) if filter is None else to_sql(filter)
    query = f"SELECT {columns} FROM documents WHERE {where} AND {condition} ORDER BY rid"
    yield from connection.execute(query, [*values, *bound])


def to_sql(filter: Filter, column: str = "metadata") -> Fragment:
    """A filter as a WHERE expression.

    Args:
        filter: the parsed filter.
        column: the column of JSON text that `to_json` wrote, never NULL. It becomes part of the SQL as it is;
            everything that comes from the filter is a bound parameter.

    Returns:
        The expression, which is 1 or 0 and never NULL, and the values of its `?` in their order.
    """
    match filter:
        case And(filters):
            return _join("AND", [to_sql(one, column) for one in filters])
        case Or(filters):
            return _join("OR", [to_sql(one, column) for one in filters])
        case Not(negated):
            return _fill("(NOT {negated})", negated=to_sql(negated, column))
        case Exists(field):
            return _fill("({type} IS NOT NULL)", type=_node(field, column).type)
        case Comparison():
            node = _node(filter.field, column)
            return _fill(
                "CASE WHEN {itself} THEN 1 WHEN {type} IS 'array' THEN"
                " EXISTS (SELECT 1 FROM json_each({document}, {path}) AS item WHERE {element}) ELSE 0 END",
                document=node.document,
                path=node.path,
                type=node.type,
                itself=_holds(filter, node),
                element=_holds(filter, node.below("'[' || item.key || ']'")),
            )


@dataclass(frozen=True, slots=True)
class _Node:
    """A place in a JSON document, as SQL expressions.

    Attributes:
        document: the document's text.
        path: the path of the place.
        dumps: gives the JSON text that a scalar has in this document.
    """

    document: Fragment
    path: Fragment
    dumps: Callable[[Value], str]

    def below(self, suffix: str) -> _Node:
        """The place whose path has this SQL expression appended."""
        return replace(self, path=_fill(f"({{path}} || {suffix})", path=self.path))

    @property
    def type(self) -> Fragment:
        """Its JSON type; NULL where there is no such place."""
        return _fill("json_type({document}, {path})", document=self.document, path=self.path)

    @property
    def text(self) -> Fragment:
        """Its JSON text; NULL where there is no such place."""
        return _fill("({document} -> {path})", document=self.document, path=self.path)

    @property
    def value(self) -> Fragment:
        """Its value as SQLite reads it; NULL where there is no such place."""
        return _fill("json_extract({document}, {path})", document=self.document, path=self.path)


def _node(field: str, column: str) -> _Node:
    dumps: Callable[[Value], str] = json.dumps
    if '"' in field:
        column = rf"replace(replace({column}, '\\', '\u005c'), '\"', '\u0022')"
        dumps = _dumps_without_quotes
    whole, nested = (
        "$" + "".join(f'."{dumps(key)[1:-1]}"' for key in keys) for keys in ([field], field.split("."))
    )
    path: Fragment = ("?", [whole])
    if nested != whole:
        path = (f"CASE WHEN json_type({column}, ?) IS NULL THEN ? ELSE ? END", [whole, nested, whole])
    return _Node((column, []), path, dumps)


def _dumps_without_quotes(scalar: Value) -> str:
    # Backslashes first, and from the left: the one before a quote may be half of an escaped backslash.
    return json.dumps(scalar).replace(r"\\", r"\u005c").replace(r"\"", r"\u0022")


def _holds(comparison: Comparison, node: _Node) -> Fragment:
    """Whether the comparison holds for a place, without looking into a list."""
    match comparison.op, comparison.value:
        case "$in", tuple(values):
            return _is_one_of(values, node)
        case "$eq", value:
            return _is_one_of((value,), node)
        case op, str(bound):
            return _string_order(_ORDER[op], bound, node)
        case op, int() | float() as bound:
            return _number_order(_ORDER[op], bound, node)
    raise TypeError(f"{comparison} was not made by parse_filter.")


_ORDER = {"$gt": ">", "$gte": ">=", "$lt": "<", "$lte": "<="}
_MIRRORED = {">": "<", ">=": "<=", "<": ">", "<=": ">="}


def _is_one_of(values: tuple[Value, ...], node: _Node) -> Fragment:
    """The place equals one of the values; one that is not there is null.

    All values together are two parameters at most: SQLite limits the number of parameters.
    """
    texts = [text for value in values if not isinstance(value, tuple) for text in _texts(value, node)]
    lists = [dict(_texts_by_path(value, node)) for value in values if isinstance(value, tuple)]
    scalar = _fill(
        "ifnull({text}, 'null') IN (SELECT value FROM json_each({texts}))",
        text=node.text,
        texts=_parameter(json.dumps(texts)),
    )
    if not lists:
        return scalar
    # A list is equal when nothing in it, itself included, is other than it should be.
    inner = node.below("inner.key")
    return _fill(
        "CASE WHEN {scalar} THEN 1 WHEN {type} IS 'array' THEN"
        " EXISTS (SELECT 1 FROM json_each({lists}) AS list WHERE NOT EXISTS"
        " (SELECT 1 FROM json_each(list.value) AS inner WHERE ifnull({found}, '') NOT IN"
        " (SELECT value FROM json_each(inner.value)))) ELSE 0 END",
        scalar=scalar,
        type=node.type,
        lists=_parameter(json.dumps(lists)),
        found=_fill(
            "CASE {type} WHEN 'array' THEN 'array of ' || json_array_length({document}, {path}) ELSE {text} END",
            type=inner.type,
            document=inner.document,
            path=inner.path,
            text=inner.text,
        ),
    )


def _texts(scalar: Value, node: _Node) -> list[str]:
    """The JSON texts of everything that equals the scalar."""
    if isinstance(scalar, bool) or not isinstance(scalar, int | float):
        return [node.dumps(scalar)]
    equal = {"0.0", "-0.0"} if scalar == 0 else set()
    if int(scalar) == scalar:
        equal.add(repr(int(scalar)))
    if _nearest_float(scalar) == scalar:
        equal.add(repr(float(scalar)))
    return sorted(equal)


def _texts_by_path(value: Value, node: _Node, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """What each place in a list must be, the list itself first."""
    if isinstance(value, tuple):
        yield path, [f"array of {len(value)}"]
        for index, element in enumerate(value):
            yield from _texts_by_path(element, node, f"{path}[{index}]")
    else:
        yield path, _texts(value, node)


def _string_order(operator: str, bound: str, node: _Node) -> Fragment:
    r"""The place is a string that compares so with the bound, by code point, as UTF-8 does by byte.

    SQLite may read a string only up to its first NUL. So where there may be one, the bound and the string are
    compared with NUL written as two \u0001, and \u0001 as \u0001\u0002, which keeps their order.
    """
    without_nul = bound.replace("\1", "\1\2").replace("\0", "\1\1")
    return _fill(
        "CASE WHEN {type} IS NOT 'text' THEN 0"
        rf" WHEN instr({{text}}, '\u000') = 0 THEN {{value}} {operator} CAST({{bound}} AS TEXT)"
        r" ELSE json_extract(replace(replace(replace({text}, '\\', '\u005c'), '\u0001', '\u0001\u0002'),"
        rf" '\u0000', '\u0001\u0001'), '$') {operator} CAST({{without_nul}} AS TEXT) END",
        type=node.type,
        text=node.text,
        value=node.value,
        bound=_parameter(_utf8(bound)),
        without_nul=_parameter(_utf8(without_nul)),
    )


def _utf8(text: str) -> bytes:
    # A lone surrogate (Python has them in file names) cannot be bound as text.
    return text.encode("utf-8", "surrogatepass")


def _number_order(operator: str, bound: float, node: _Node) -> Fragment:
    """The place is a number that compares so with the bound.

    SQLite reads an integer beyond 64 bits as a float near it, which is good enough next to a bound within
    64 bits.
    """
    value = _fill(f"{{value}} {operator} {{bound}}", value=node.value, bound=_parameter(bound))
    integer = value
    if abs(bound) >= 2**63:
        integer, value = _large_order(operator, int(bound), node)
    return _fill(
        "CASE {type} WHEN 'integer' THEN {integer} WHEN 'real' THEN {value} ELSE 0 END",
        type=node.type,
        integer=integer,
        value=value,
    )


def _large_order(operator: str, bound: int, node: _Node) -> tuple[Fragment, Fragment]:
    """How a place that holds an integer, and one that holds a float, compares with a bound beyond 64 bits."""
    # Integers of the bound's sign compare by their number of digits, then by their digits; the others are 0.
    negative = bound < 0
    digits = str(abs(bound))
    integer = _fill(
        f"(CASE WHEN {{text}} < '0' THEN {{negative}} ELSE {{positive}} END, ltrim({{text}}, '-'))"
        f" {_MIRRORED[operator] if negative else operator} ({{length}}, {{digits}})",
        text=node.text,
        negative=_fill("length({text}) - 1", text=node.text) if negative else ("0", []),
        positive=("0", []) if negative else _fill("length({text})", text=node.text),
        length=_parameter(len(digits)),
        digits=_parameter(digits),
    )
    # A float compares with the bound as with the float beside it, on the side where the answer is the same.
    beside = _nearest_float(bound)
    if operator in (">", "<=") and beside > bound:
        beside = math.nextafter(beside, -math.inf)
    if operator in (">=", "<") and beside < bound:
        beside = math.nextafter(beside, math.inf)
    return integer, _fill(f"{{value}} {operator} {{beside}}", value=node.value, beside=_parameter(beside))


def _nearest_float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def _parameter(value: Any) -> Fragment:
    return "?", [value]


def _fill(template: str, **parts: Fragment) -> Fragment:
    """The template with each `{name}` replaced by that fragment."""
    sql, parameters = "", []
    for text, name, _, _ in string.Formatter().parse(template):
        sql += text
        if name is not None:
            sql += parts[name][0]
            parameters += parts[name][1]
    return sql, parameters


def _join(conjunction: str, conditions: list[Fragment]) -> Fragment:
    """All conditions joined, as a balanced tree: SQLite limits the depth of an expression."""
    if len(conditions) == 1:
        return conditions[0]
    middle = len(conditions) // 2
    return _fill(
        f"({{left}} {conjunction} {{right}})",
        left=_join(conjunction, conditions[:middle]),
        right=_join(conjunction, conditions[middle:]),
    )
