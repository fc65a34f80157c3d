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

import dataclasses
import datetime as dt
import difflib
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from late_interaction.errors import FilterError
from late_interaction.metadata import NotPlainError, instant, plain_value
from late_interaction.patterns import check_pattern, finds, like
from late_interaction.validation import shown

Operator: TypeAlias = Literal[
    "$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$between", "$contains", "$icontains", "$startswith", "$regex"
]
Value: TypeAlias = "bool | int | float | str | dt.datetime | tuple[Value, ...] | None"

CONTENT = "$content"
"""The field that is a document's content."""

MAX_DEPTH = 32
"""How deep `$and`, `$or`, `$not` and lists may nest."""
MAX_CONDITIONS = 1000
"""How many conditions on fields a filter may have; a `$in` is one, however long its list."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A field, or the content, compared with a value.

    Two comparisons are equal when they mean the same: `$eq` 1 and 1.0 are, 1 and True are not.

    Attributes:
        field: the field's name, dotted where it reaches into objects.
        op: the operator.
        value: a plain value with tuples for lists; for `$in` the tuple of values, for `$between` the two bounds.
        keys: what stands for the value (for `$in`: each of its values) in tests of equality.
        bound: the value again, where equal ones may mean different things: the order of strings, and parts of them, go
            by their text.
    """

    field: str
    op: Operator
    value: Value = dataclasses.field(compare=False)
    keys: frozenset[Hashable] = dataclasses.field(init=False, repr=False)
    bound: Value = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bound", None if self.op in ("$eq", "$in") else self.value)
        values = cast("tuple[Value, ...]", self.value) if self.op == "$in" else (self.value,)
        object.__setattr__(self, "keys", frozenset(map(_key, values)))


@dataclass(frozen=True, slots=True)
class Exists:
    """The field is there, be it null."""

    field: str


@dataclass(frozen=True, slots=True)
class And:
    """Every one of the filters holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one of the filters holds."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The filter does not hold."""

    filter: Filter


Filter: TypeAlias = Comparison | Exists | And | Or | Not


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
    if (conditions := sum(1 for _ in _leaves(parsed))) > MAX_CONDITIONS:
        raise FilterError(
            f"The filter has {conditions} conditions, more than {MAX_CONDITIONS}. "
            "Many values for one field are one condition when written with '$in'."
        )
    return parsed


def check_parsed(filter: object) -> Filter | None:
    """Return a filter that `parse_filter` made, or None.

    Raises:
        TypeError: it is something else, such as a mapping, which would match nothing.
    """
    if filter is None or isinstance(filter, Filter):
        return filter
    raise TypeError(
        f"a store takes a filter of parse_filter({shown(filter)}), not a {type(filter).__name__}."
    )


def matches(filter: Filter, metadata: Mapping[str, Any], content: str = "") -> bool:
    """Return whether a document with these metadata (plain values by field) and this content matches the filter."""
    match filter:
        case And(filters):
            return all(matches(one, metadata, content) for one in filters)
        case Or(filters):
            return any(matches(one, metadata, content) for one in filters)
        case Not(negated):
            return not matches(negated, metadata, content)
        case Exists(field):
            return field == CONTENT or _lookup(metadata, field) is not _MISSING
        case Comparison():
            value = content if filter.field == CONTENT else value_of(metadata, filter.field)
            if _holds(filter, value):
                return True
            if filter.op in ("$contains", "$icontains"):
                return isinstance(value, list | tuple | Mapping) and any(
                    _is_element(filter, one) for one in value
                )
            return isinstance(value, list | tuple) and any(_holds(filter, element) for element in value)


def value_of(metadata: Mapping[str, Any], field: str) -> Any:
    """Return the value of a field, dotted or not; None if it is missing."""
    found = _lookup(metadata, field)
    return None if found is _MISSING else found


def fields(filter: Filter) -> set[str]:
    """Return the names of the fields that the filter looks at."""
    return {leaf.field for leaf in _leaves(filter)}


_MISSING = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_ON_FIELDS = (
    "$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$between", "$in", "$nin", "$exists", "$not",
    "$contains", "$icontains", "$startswith", "$like", "$ilike", "$regex",
)  # fmt: skip
_ON_FILTERS = ("$and", "$or", "$not", CONTENT)


def _lookup(metadata: Mapping[str, Any], name: str) -> Any:
    if name in metadata:
        return metadata[name]
    node: Any = metadata
    for part in name.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return _MISSING
        node = node[part]
    return node


def _holds(comparison: Comparison, value: Any) -> bool:
    """Return whether the comparison holds for one value, without looking into a list."""
    wanted: Any = comparison.value
    match comparison.op:
        case "$eq" | "$in":
            return _key(value) in comparison.keys
        case "$between":
            return in_order("$gte", value, wanted[0]) and in_order("$lte", value, wanted[1])
        case "$gt" | "$gte" | "$lt" | "$lte" as op:
            return in_order(op, value, wanted)
        case _ if not isinstance(value, str) or not isinstance(wanted, str):
            return False
        case "$contains":
            return wanted in value
        case "$icontains":
            return wanted.casefold() in value.casefold()
        case "$startswith":
            return value.startswith(wanted)
        case "$regex":
            return finds(wanted, value)


def _is_element(comparison: Comparison, element: Any) -> bool:
    """Return whether a list with this element, or an object with this key, contains what is looked for."""
    if comparison.op == "$icontains" and isinstance(element, str):
        return element.casefold() == cast("str", comparison.value).casefold()
    return _key(element) in comparison.keys


def same(value: Any, other: Any) -> bool:
    """Return whether two plain values are equal, as `$eq` means it; objects are not told apart."""
    return _key(value) == _key(other)


def in_order(op: str, value: Any, bound: Any) -> bool:
    """Return whether a plain value is `$gt`, `$gte`, `$lt` or `$lte` a bound."""
    compare = _ORDER[op]
    if (moment := instant(bound)) is not None and (other := instant(value)) is not None:
        return compare(other, moment)
    return (kind := _kind(value)) == _kind(bound) and kind in ("number", "string") and compare(value, bound)


def _kind(value: Any) -> str:
    """Return the JSON type of a value, with one name for all numbers: Python's True is 1, JSON's is not."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case dt.datetime():
            return "datetime"
        case list() | tuple():
            return "array"
        case _:
            return "object"


def _key(value: Any) -> Hashable:
    """Return a key that is equal for equal plain values, and only for them. All objects have one: none is compared."""
    match kind := _kind(value):
        case "array":
            return kind, tuple(map(_key, value))
        case "object":
            return kind
        case "string" | "datetime" if (moment := instant(value)) is not None:
            return "datetime", moment
        case _:
            return kind, value


def _leaves(filter: Filter) -> Iterable[Comparison | Exists]:
    match filter:
        case And(filters) | Or(filters):
            for one in filters:
                yield from _leaves(one)
        case Not(negated):
            yield from _leaves(negated)
        case _:
            yield filter


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
    if _kind(value) not in ("number", "string", "datetime"):
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
