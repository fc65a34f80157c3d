"""What a filter is once it is parsed, a tree of five classes, and what it means: which documents match it."""

from __future__ import annotations

import dataclasses
import datetime as dt
import operator
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from late_interaction.metadata import instant
from late_interaction.patterns import finds
from late_interaction.validation import shown

Operator: TypeAlias = Literal[
    "$eq", "$in", "$gt", "$gte", "$lt", "$lte", "$between", "$contains", "$icontains", "$startswith", "$regex"
]
Value: TypeAlias = "bool | int | float | str | dt.datetime | tuple[Value, ...] | None"

CONTENT = "$content"
"""The field that is a document's content."""


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
    return {leaf.field for leaf in leaves(filter)}


_MISSING = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}


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


def has_order(value: Any) -> bool:
    """Return whether other values may be above or below a plain value."""
    return _kind(value) in ("number", "string", "datetime")


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


def leaves(filter: Filter) -> Iterable[Comparison | Exists]:
    """Yield the conditions on fields that a filter is made of."""
    match filter:
        case And(filters) | Or(filters):
            for one in filters:
                yield from leaves(one)
        case Not(negated):
            yield from leaves(negated)
        case _:
            yield filter
