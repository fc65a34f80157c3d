"""Push down the part of a metadata filter that the Data API can decide by itself, in an ANN query too.

A condition is handed over only if the service finds exactly what `filters.matches` finds, or more: then the
metadata are checked again. These facts decide it (tools/data_api enforces all of them):

- An ANN query filters on indexed columns only, and only by what the index serves: equality on text and boolean
  columns, order as well on numbers and timestamps.
- A null cell satisfies nothing, so `$ne`, `$nin`, `$not` and null itself cannot be asked for.
- A set is asked whether it contains any of some values; a declared list holds nothing but strings.
- A date is stored as an instant, to the millisecond below. So only a bound of whole milliseconds, for `$gte` and `$lt`,
  is decided by the service.
- Parts of texts, and the content, cannot be asked for.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from late_interaction.filters import CONTENT, And, Comparison, Filter, Or, Value, fields
from late_interaction.metadata import instant
from late_interaction.stores.astra.schema import MAX_TERM_BYTES, Field, timestamp, timestamp_of

Where: TypeAlias = dict[str, Any]
_Part: TypeAlias = "tuple[Where | None, bool]"

MAX_IN_VALUES = 100
MAX_CONDITIONS = 64

_NOTHING: Where = {"$or": []}


@dataclass(frozen=True, slots=True)
class Pushed:
    """The part of a filter that the service decides.

    Attributes:
        where: the Data API's filter, None for none.
        exact: True if `where` finds exactly the documents that match; otherwise it finds all of them, and others.
        matches_nothing: True if no document can match.
        undeclared: metadata fields of the filter that are not declared.
    """

    where: Where | None
    exact: bool
    matches_nothing: bool = False
    undeclared: frozenset[str] = frozenset()


def push_down(filter: Filter | None, declared: Mapping[str, Field]) -> Pushed:
    """Return the part of a filter that the service can decide."""
    if filter is None:
        return Pushed(None, exact=True)
    undeclared = frozenset(fields(filter) - declared.keys() - {CONTENT})
    where, exact = _push(filter, declared)
    if where is _NOTHING:
        return Pushed(None, exact=True, matches_nothing=True, undeclared=undeclared)
    if where is not None and _n_conditions(where) > MAX_CONDITIONS:
        return Pushed(None, exact=False, undeclared=undeclared)
    return Pushed(where, exact, undeclared=undeclared)


def _push(filter: Filter, declared: Mapping[str, Field]) -> _Part:
    """Return what to ask (None: nothing can be asked), and whether that decides the filter."""
    match filter:
        case And(filters):
            return _all_of([_push(one, declared) for one in filters])
        case Or(filters):
            return _one_of([_push(one, declared) for one in filters])
        case Comparison(field=name) if name in declared:
            return _compare(filter, declared[name])
        case _:
            return None, False


def _all_of(parts: list[_Part]) -> _Part:
    """Join the parts of a conjunction: what cannot be asked is left out, and checked later."""
    if any(where is _NOTHING for where, _ in parts):
        return _NOTHING, True
    asked = [where for where, _ in parts if where is not None]
    where = {"$and": asked} if len(asked) > 1 else (asked[0] if asked else None)
    return where, all(exact for _, exact in parts)


def _one_of(parts: list[_Part]) -> _Part:
    """Join the parts of a disjunction: if one of them cannot be asked, none can."""
    possible = [part for part in parts if part[0] is not _NOTHING]
    if not possible:
        return _NOTHING, True
    if any(where is None for where, _ in possible):
        return None, False
    where = {"$or": [where for where, _ in possible]} if len(possible) > 1 else possible[0][0]
    return where, all(exact for _, exact in possible)


def _compare(comparison: Comparison, field: Field) -> _Part:
    if comparison.op == "$contains" and field.type == "list[str]":
        return _any_of((comparison.value,), field)
    if comparison.op in ("$eq", "$in"):
        assert comparison.op == "$eq" or isinstance(comparison.value, tuple)
        values = comparison.value if comparison.op == "$in" else (comparison.value,)
        return _any_of(values, field)  # type: ignore[arg-type]
    if comparison.op == "$between":
        assert isinstance(comparison.value, tuple)
        least, greatest = comparison.value
        return _all_of([_in_order("$gte", least, field), _in_order("$lte", greatest, field)])
    if comparison.op in ("$gt", "$gte", "$lt", "$lte"):
        return _in_order(comparison.op, comparison.value, field)
    return None, False


def _any_of(values: tuple[Value, ...], field: Field) -> _Part:
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
    """The service might not answer as `matches` does."""


def _term(value: str | bool | int | float | dt.datetime, kind: str) -> Any:
    """Return a value as the column holds it; None if the column cannot hold it."""
    if kind == "bool":
        return value if isinstance(value, bool) else None
    if kind in ("int", "float"):
        return None if isinstance(value, bool | str | dt.datetime) else _number(value, kind)
    if kind == "datetime":
        try:
            return timestamp(value) if isinstance(value, str | dt.datetime) else None
        except (ValueError, OverflowError):
            return None
    if instant(value) is not None:
        raise _NotServedError  # It has many texts.
    if not isinstance(value, str):
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


def _in_order(op: str, value: Value, field: Field) -> _Part:
    if field.type == "datetime":
        return _of_instants(op, value, field)
    if field.type not in ("int", "float"):
        # A text index does not serve order. No bool is above or below anything.
        return (_NOTHING, True) if field.type == "bool" else (None, False)
    if isinstance(value, str | dt.datetime):
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


def _of_instants(op: str, value: Value, field: Field) -> _Part:
    """Ask for the instants on one side of another; a string that is no date is compared with the text."""
    if (moment := instant(value)) is None:
        return (None, False) if isinstance(value, str) else (_NOTHING, True)
    milliseconds, rest = divmod(moment, 1000)
    exact = rest == 0 and op in ("$gte", "$lt")
    asked = op if exact else {"$gt": "$gte", "$lt": "$lte"}.get(op, op)
    try:
        return {field.column: {asked: timestamp_of(milliseconds)}}, exact
    except OverflowError:
        return None, False


def _n_conditions(where: Where) -> int:
    return sum(
        sum(map(_n_conditions, value)) if name in ("$and", "$or") else 1 for name, value in where.items()
    )
