"""What of a metadata filter the Data API can decide by itself, in an ANN query too.

A condition is handed over only where the service's answer is exactly that of `filters.matches`, or has more:
then it is checked again on the metadata. Facts that decide it (all enforced by tools/data_api):

- An ANN query filters on indexed columns only, and only by what the index serves: of text and boolean columns
  that is equality, of numbers and timestamps order as well.
- A null cell satisfies nothing, so `$ne`, `$nin`, `$not` and null itself cannot be asked for.
- A set is asked whether it contains any of some values; a declared list holds nothing but strings.
- A date is stored as its instant, and compared in metadata as the string it is. Two strings written as we demand
  are in the order of their instants but for offsets, `T` or space, and fractions, which is less than 3 days.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from late_interaction.filters import And, Comparison, Filter, Not, Or, Value, fields
from late_interaction.stores.astra.schema import MAX_TERM_BYTES, Field, timestamp

Where: TypeAlias = dict[str, Any]

MAX_IN_VALUES = 100
MAX_CONDITIONS = 64

_DATE_MARGIN = dt.timedelta(days=3)
_NOTHING: Where = {"$or": []}


@dataclass(frozen=True, slots=True)
class Pushed:
    """A filter, as far as the service decides it.

    Attributes:
        where: the Data API's filter, None for none.
        exact: what `where` finds are exactly the documents that match; else it finds all of them, and more.
        never: no document matches.
        undeclared: fields of the filter that are not declared.
    """

    where: Where | None
    exact: bool
    never: bool = False
    undeclared: frozenset[str] = frozenset()


def push_down(filter: Filter | None, declared: Mapping[str, Field]) -> Pushed:
    """The part of a filter that the service can decide."""
    if filter is None:
        return Pushed(None, exact=True)
    undeclared = frozenset(fields(filter) - declared.keys())
    where, exact = _push(filter, declared)
    if where is _NOTHING:
        return Pushed(None, exact=True, never=True, undeclared=undeclared)
    if where is not None and _n_conditions(where) > MAX_CONDITIONS:
        return Pushed(None, exact=False, undeclared=undeclared)
    return Pushed(where, exact, undeclared=undeclared)


def _push(filter: Filter, declared: Mapping[str, Field]) -> tuple[Where | None, bool]:
    """What to ask (None: nothing can be asked), and whether that is all of it."""
    match filter:
        case And(filters):
            parts = [_push(one, declared) for one in filters]
            if any(where is _NOTHING for where, _ in parts):
                return _NOTHING, True
            asked = [where for where, _ in parts if where is not None]
            where = {"$and": asked} if len(asked) > 1 else (asked[0] if asked else None)
            return where, all(exact for _, exact in parts)
        case Or(filters):
            parts = [part for part in (_push(one, declared) for one in filters) if part[0] is not _NOTHING]
            if not parts:
                return _NOTHING, True
            if any(where is None for where, _ in parts):
                return None, False
            where = {"$or": [where for where, _ in parts]} if len(parts) > 1 else parts[0][0]
            return where, all(exact for _, exact in parts)
        case Comparison(field=name) if name in declared:
            return _compare(filter, declared[name])
        case Not() | _:
            return None, False


def _compare(comparison: Comparison, field: Field) -> tuple[Where | None, bool]:
    if comparison.op in ("$eq", "$in"):
        assert comparison.op == "$eq" or isinstance(comparison.value, tuple)
        values = comparison.value if comparison.op == "$in" else (comparison.value,)
        return _any_of(values, field)  # type: ignore[arg-type]
    return _in_order(comparison, field)


def _any_of(values: tuple[Value, ...], field: Field) -> tuple[Where | None, bool]:
    terms: list[Any] = []
    exact = field.type != "datetime"
    for value in values:
        if value is None or isinstance(value, tuple):
            return None, False  # Null also means missing; a list is compared whole.
        try:
            term = _term(value, field.type)
        except _NotServedError:
            return None, False
        if term is not None and term not in terms:
            terms.append(term)
    if not terms:
        return _NOTHING, True
    if len(terms) > MAX_IN_VALUES:
        return None, False
    if len(terms) == 1 and field.type != "list[str]":
        return {field.column: terms[0]}, exact
    return {field.column: {"$in": terms}}, exact


class _NotServedError(Exception):
    """The service may not answer as `matches` does."""


def _term(value: str | bool | int | float, kind: str) -> Any:
    """A value as the column holds it; None where the column can hold no such value."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind in ("int", "float"):
        if isinstance(value, bool | str):
            return None
        return _number(value, kind)
    if not isinstance(value, str):
        return None
    if kind == "datetime":
        try:
            return timestamp(value)
        except (ValueError, OverflowError):
            return None
    try:
        encoded = value.encode()
    except UnicodeEncodeError:
        return None
    if not encoded:
        raise _NotServedError  # Whether an index holds the empty string depends on its version.
    return None if len(encoded) > MAX_TERM_BYTES else value


def _number(value: int | float, kind: str) -> int | float | None:
    if kind == "int":
        whole = int(value)
        return whole if whole == value and -(2**63) <= whole < 2**63 else None
    try:
        return float(value) + 0.0 if float(value) == value else None
    except OverflowError:
        return None


def _in_order(comparison: Comparison, field: Field) -> tuple[Where | None, bool]:
    op, value = comparison.op, comparison.value
    if field.type == "datetime" and isinstance(value, str):
        return _around(op, value, field)
    if field.type not in ("int", "float"):
        # A text index serves no order. No bool is above or below anything.
        return (_NOTHING, True) if field.type == "bool" else (None, False)
    if isinstance(value, str):
        return _NOTHING, True
    assert isinstance(value, int | float)
    if field.type == "int":
        bound = math.floor(value) if op in ("$gt", "$lte") else math.ceil(value)
        # $gt 2.5 is $gt 2, $lt 2.5 is $lt 3, and so on.
        if not -(2**63) <= bound < 2**63:
            return None, False
        return {field.column: {op: bound}}, True
    number = _number(value, "float")
    return (None, False) if number is None else ({field.column: {op: number}}, True)


def _around(op: str, value: str, field: Field) -> tuple[Where | None, bool]:
    """The instants that a string may come before or after, with a margin."""
    try:
        moment = dt.datetime.fromisoformat(timestamp(value))
        moment += -_DATE_MARGIN if op in ("$gt", "$gte") else _DATE_MARGIN
    except (ValueError, OverflowError):
        return None, False
    bound = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {field.column: {"$gte" if op in ("$gt", "$gte") else "$lte": bound}}, False


def _n_conditions(where: Where) -> int:
    return sum(
        sum(map(_n_conditions, value)) if name in ("$and", "$or") else 1 for name, value in where.items()
    )
