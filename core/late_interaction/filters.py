"""Metadata filters: one small language, parsed once into a tree that every store reads.

A filter is written as MongoDB and astrapy users know it: a mapping whose entries must all hold.

    {"lang": "en", "year": {"$gte": 2000, "$lt": 2010}}
    {"$or": [{"tags": {"$in": ["physics", "optics"]}}, {"author.name": "Ada"}]}

`field: value` is `$eq`. A field takes `$eq $ne $gt $gte $lt $lte $between $in $nin $exists $not` and, for texts,
`$contains $icontains $startswith $like $ilike $regex`; whole filters are combined by `$and`, `$or` and `$not`. The
field `"$content"` is the document's content. What they mean is what `matches` does:

- A field that holds a list matches when the list matches or any one of its elements does. So `$eq` of a
  list finds the equal list (and a list of lists that has it as an element).
- `$ne`, `$nin` and `$not` are exact negations, so they match where the field is missing. `$not` of a list of filters
  is that none of them holds.
- `$eq` of None (and `$in` with None) matches null, and where the field is missing. `$exists` tells the two
  apart: it holds for null.
- Equal are equal JSON values: 1 and 1.0 are, 1 and True are not. Objects are not compared whole; `"a.b"`
  reaches into them.
- Datetimes, and strings of ISO 8601 such as "2024-05-01" and "2024-05-01T12:00:00+02:00", are compared as the instants
  that they mean, with each other too. Without an offset they are in UTC.
- `$gt $gte $lt $lte` compare two numbers (True is not one), two instants, or two strings by code point; anything else
  does not match. `$between` takes the least and the greatest value.
- `$contains` finds a part of a text, a whole element of a list or a key of an object; `$icontains` does so whatever
  the case.
- `$startswith`, `$like` (`%` is any text, `_` any character, after a backslash they are themselves), `$ilike` (the
  same, whatever the case) and `$regex` (of RE2, somewhere in the text) look at texts, and at the elements of lists.
- `"a.b"` is the field `b` of the object in field `a`, unless there is a top-level field that is called
  "a.b": that one comes first. A dotted name does not reach through lists.

Values take their plain form first, as metadata do (`late_interaction.metadata`).

`$ne`, `$nin` and `{"$exists": False}` are parsed as `Not` of their opposite, so that a reader of the tree has
five classes to deal with.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, cast

from late_interaction.conditions import (
    CONTENT,
    And,
    Comparison,
    Exists,
    Filter,
    Not,
    Operator,
    Or,
    Value,
    check_parsed,
    fields,
    has_order,
    in_order,
    leaves,
    matches,
    same,
    value_of,
)
from late_interaction.errors import FilterError
from late_interaction.metadata import NotPlainError, plain_value
from late_interaction.patterns import check_pattern, like
from late_interaction.validation import shown

__all__ = [
    "CONTENT",
    "MAX_CONDITIONS",
    "MAX_DEPTH",
    "And",
    "Comparison",
    "Exists",
    "Filter",
    "Not",
    "Operator",
    "Or",
    "Value",
    "check_parsed",
    "fields",
    "in_order",
    "matches",
    "parse_filter",
    "same",
    "value_of",
]

MAX_DEPTH = 32
"""How deep `$and`, `$or`, `$not` and lists may nest."""
MAX_CONDITIONS = 1000
"""How many conditions on fields a filter may have; a `$in` is one, however long its list."""


def parse_filter(spec: Mapping[str, Any] | Filter | None) -> Filter | None:
    """Parse a filter, checking all of it.

    Args:
        spec: the filter as a mapping; one parsed already is returned as it is.

    Returns:
        The filter's tree, or None for no filter at all: None or an empty mapping.

    Raises:
        FilterError: the filter is not well formed; the message says where and why.
    """
    if spec is None or isinstance(spec, Filter):
        return spec
    if not isinstance(spec, Mapping):
        raise FilterError(f"A filter is a mapping such as {{'lang': 'en'}}, not {_type(spec)}.")
    if not spec:
        return None
    parsed = _parse(spec, "filter", 1)
    if (conditions := sum(1 for _ in leaves(parsed))) > MAX_CONDITIONS:
        raise FilterError(
            f"The filter has {conditions} conditions, more than {MAX_CONDITIONS}. "
            "Many values for one field are one condition when written with '$in'."
        )
    return parsed


_ON_FIELDS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$between", "$in", "$nin", "$exists", "$not",
    "$contains", "$icontains", "$startswith", "$like", "$ilike", "$regex",
)  # fmt: skip
_ON_FILTERS = ("$and", "$or", "$not", CONTENT)


def _parse(spec: object, place: str, depth: int) -> Filter:
    """Parse a filter given as a mapping; `depth` counts the filters around it, this one included."""
    _check_depth(depth, place)
    if not isinstance(spec, Mapping):
        raise FilterError(f"{place}: a filter is a mapping such as {{'lang': 'en'}}, not {_type(spec)}.")
    conditions: list[Filter] = []
    for name, operand in spec.items():
        if not isinstance(name, str):
            raise FilterError(f"{place}: a field's name is a string, not {_type(name)}.")
        if "\0" in name:
            raise FilterError(f"{place}: the name {name!r} has a NUL character in it; no field's name may.")
        here = f"{place}[{name!r}]"
        match name:
            case "$and":
                conditions.append(_all(_parse_list(operand, here, depth), here))
            case "$or":
                alternatives = _parse_list(operand, here, depth)
                conditions.append(alternatives[0] if len(alternatives) == 1 else Or(tuple(alternatives)))
            case "$not" if isinstance(operand, list | tuple):
                none_of = _parse_list(operand, here, depth)
                conditions.append(Not(none_of[0] if len(none_of) == 1 else Or(tuple(none_of))))
            case "$not":
                conditions.append(Not(_parse(operand, here, depth + 1)))
            case "$content":
                conditions += _parse_field(name, operand, here, depth)
            case _ if name in _ON_FIELDS:
                raise FilterError(f"{here}: {name!r} belongs to a field, as in {{'field': {{{name!r}: …}}}}.")
            case _ if name.startswith("$"):
                raise FilterError(f"{here}: {_unknown(name, _ON_FILTERS)}")
            case _:
                conditions += _parse_field(name, operand, here, depth)
    return _all(conditions, place)


def _parse_list(operand: object, place: str, depth: int) -> list[Filter]:
    if not isinstance(operand, list | tuple) or not operand:
        what = "an empty one" if operand in ([], ()) else _type(operand)
        raise FilterError(f"{place}: takes a list of at least one filter, not {what}.")
    return [_parse(one, f"{place}[{index}]", depth + 1) for index, one in enumerate(operand)]


def _parse_field(field: str, condition: object, place: str, depth: int) -> list[Filter]:
    """Parse the conditions on one field, which must all hold."""
    _check_depth(depth, place)
    if not isinstance(condition, Mapping):
        return [Comparison(field, "$eq", _value(condition, place))]
    if not condition:
        raise FilterError(f"{place}: an empty mapping is no condition. " + _ABOUT_OBJECTS)
    return [
        _parse_operator(field, op, operand, f"{place}[{shown(op)}]", depth)
        for op, operand in condition.items()
    ]


def _parse_operator(field: str, op: object, operand: object, place: str, depth: int) -> Filter:
    match op:
        case "$eq":
            return Comparison(field, op, _value(operand, place))
        case "$ne":
            return Not(Comparison(field, "$eq", _value(operand, place)))
        case "$in" | "$nin":
            values = None if isinstance(operand, Mapping) else _value(operand, place)
            if not isinstance(values, tuple):
                raise FilterError(f"{place}: takes a list of values, not {_type(operand)}.")
            among = Comparison(field, "$in", values)
            return among if op == "$in" else Not(among)
        case "$gt" | "$gte" | "$lt" | "$lte":
            return Comparison(field, op, _bound(operand, place))
        case "$between":
            if not isinstance(operand, list | tuple) or len(operand) != 2:
                raise FilterError(f"{place}: takes the least and the greatest value, not {_type(operand)}.")
            return Comparison(field, op, tuple(_bound(bound, place) for bound in operand))
        case "$contains":
            value = _value(operand, place)
            if value is None or isinstance(value, tuple):
                raise FilterError(f"{place}: takes a text or a number, not {_type(operand)}.")
            return Comparison(field, op, value)
        case "$icontains" | "$startswith" | "$like" | "$ilike" | "$regex":
            text = _value(operand, place)
            if not isinstance(text, str):
                raise FilterError(f"{place}: takes a text, not {_type(operand)}.")
            return _parse_text_operator(field, op, text, place)
        case "$exists":
            exists = _value(operand, place)
            if not isinstance(exists, bool):
                raise FilterError(f"{place}: takes True or False, not {_type(operand)}.")
            return Exists(field) if exists else Not(Exists(field))
        case "$not":
            if not isinstance(operand, Mapping):
                raise FilterError(f"{place}: takes operators, as in {{'$gt': 3}}; for a value use '$ne'.")
            return Not(_all(_parse_field(field, operand, place, depth + 1), place))
        case "$and" | "$or":
            raise FilterError(f"{place}: {op!r} combines filters: {{{op!r}: [{{{field!r}: …}}, …]}}.")
        case str() if op.startswith("$"):
            raise FilterError(f"{place}: {_unknown(op, _ON_FIELDS)}")
        case _:
            near = f" Did you mean '${op}'?" if f"${op}" in _ON_FIELDS else ""
            raise FilterError(f"{place}: is not an operator.{near} " + _ABOUT_OBJECTS)


def _parse_text_operator(field: str, op: str, text: str, place: str) -> Filter:
    if op in ("$icontains", "$startswith"):
        return Comparison(field, cast("Operator", op), text)
    try:
        pattern = check_pattern(text if op == "$regex" else like(text, ignore_case=op == "$ilike"))
    except ValueError as error:
        raise FilterError(f"{place}: {error}") from None
    return Comparison(field, "$regex", pattern)


def _bound(operand: object, place: str) -> Value:
    """Return a value that others may be above or below."""
    value = _value(operand, place)
    if not has_order(value):
        raise FilterError(f"{place}: takes a number, a string or a datetime, not {_type(operand)}.")
    return value


_ABOUT_OBJECTS = "Objects are not compared whole; reach into them with a dotted name, 'a.b'."


def _all(conditions: Sequence[Filter], place: str) -> Filter:
    if not conditions:
        raise FilterError(f"{place}: an empty mapping is no condition.")
    return conditions[0] if len(conditions) == 1 else And(tuple(conditions))


def _value(value: object, place: str) -> Value:
    """Return a value in its plain form, with tuples for lists."""
    try:
        plain = plain_value(value)
    except NotPlainError as error:
        raise FilterError(f"{place}{error.path}: {error.reason}") from None
    except (TypeError, ValueError) as error:  # A mapping's key is no str.
        raise FilterError(f"{place}: {error}") from None
    return _freeze(plain, place, 1)


def _freeze(value: Any, place: str, depth: int) -> Value:
    _check_depth(depth, place)
    if isinstance(value, dict):
        raise FilterError(f"{place}: {_ABOUT_OBJECTS}")
    if isinstance(value, list):
        return tuple(_freeze(element, place, depth + 1) for element in value)
    return cast("Value", value)


def _check_depth(depth: int, place: str) -> None:
    if depth > MAX_DEPTH:
        raise FilterError(f"{place}: nested more than {MAX_DEPTH} deep.")


def _unknown(op: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(op.lower(), known, n=1)
    suggestion = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no operator {op!r} here.{suggestion} There are {', '.join(known)}."


def _type(value: object) -> str:
    return "None" if value is None else f"{type(value).__name__} {shown(value, 80)}"
