"""Filters: JSON to a small tree, the tree to a predicate, and the rows that keys and indexes find.

``$not`` is carried down to the comparisons (``$not $eq`` becomes ``$ne``), as the Data API does, and a null
cell satisfies no comparison, as in CQL.
"""

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from tools.data_api.columns import ListOf, MapOf, SetOf, Vector
from tools.data_api.errors import DataApiError
from tools.data_api.lexical import not_indexed, query_terms, text_index
from tools.data_api.limits import MAX_FILTER_PROPERTIES, MAX_IN_VALUES
from tools.data_api.schema import TableSchema
from tools.data_api.tables import Index, Row, Table

Predicate = Callable[[Row], bool]

_NEGATED = {"$eq": "$ne", "$gt": "$lte", "$gte": "$lt", "$in": "$nin"}
_NEGATED |= {negative: positive for positive, negative in _NEGATED.items()}
RANGES: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
_SCALAR_OPERATORS = {"$eq", "$ne", "$in", "$nin", *RANGES}
_COLLECTION_OPERATORS = {"$in", "$nin", "$all"}


@dataclass(frozen=True)
class Comparison:
    """``column operator operand``; ``function`` names the part of a map, set or list that is compared."""

    column: str
    operator: str
    operand: Any
    function: str | None = None


@dataclass(frozen=True)
class Junction:
    """Parts that must all hold, or of which any must."""

    any_of: bool
    parts: tuple["Comparison | Junction", ...]


Node = Comparison | Junction


def comparisons(node: Node, *, nested: bool = False) -> Iterator[tuple[Comparison, bool]]:
    """Yield every comparison, and whether it stands under an OR."""
    if isinstance(node, Comparison):
        yield node, nested
        return
    for part in node.parts:
        yield from comparisons(part, nested=nested or node.any_of)


# parsing


def parse_filter(schema: TableSchema, clause: Any) -> Junction:
    """Return the tree of a ``filter`` clause; without a clause, a conjunction without parts.

    Raises:
        DataApiError: the filter breaks a rule or limit of the Data API.
    """
    tree = _parse_object(schema, clause or {}, negated=False)
    if (count := sum(1 for _ in comparisons(tree))) > MAX_FILTER_PROPERTIES:
        raise DataApiError(
            "FILTER",
            "FILTER_FIELDS_LIMIT_VIOLATION",
            f"Filter has {count} fields, exceeds maximum allowed ({MAX_FILTER_PROPERTIES}).",
        )
    return tree


def _parse_object(schema: TableSchema, clause: Any, *, negated: bool) -> Junction:
    if not isinstance(clause, dict):
        raise DataApiError(
            "FILTER", "FILTER_UNSUPPORTED_DATA_TYPE", f"A filter must be an object, not {clause!r}."
        )
    parts: list[Node] = []
    for name, value in clause.items():
        if name == "$not":
            parts.append(_parse_object(schema, value, negated=not negated))
        elif name in ("$and", "$or"):
            if not isinstance(value, list):
                raise _invalid(f"{name} needs an array of filters")
            branches = tuple(_parse_object(schema, branch, negated=negated) for branch in value)
            parts.append(_flat(Junction((name == "$or") != negated, branches)))
        else:
            parts.extend(_parse_column(schema, name, value, negated=negated))
    return _flat(Junction(negated, tuple(parts)))


def _flat(junction: Junction) -> Junction:
    """Dissolve inner junctions of one part, or of the same kind: ``$and`` at the top adds no nesting."""
    parts: list[Node] = []
    for part in junction.parts:
        if isinstance(part, Junction) and (len(part.parts) == 1 or part.any_of == junction.any_of):
            parts.extend(part.parts)
        else:
            parts.append(part)
    any_of = junction.any_of and len(parts) > 1
    if len(parts) == 1 and isinstance(parts[0], Junction):
        return parts[0]
    return Junction(any_of, tuple(parts))


def _parse_column(schema: TableSchema, name: str, value: Any, *, negated: bool) -> Iterator[Comparison]:
    if name not in schema.columns:
        known = ", ".join(schema.columns)
        raise DataApiError(
            "FILTER",
            "UNKNOWN_TABLE_COLUMNS",
            f"The filter names the unknown column '{name}'; the table has {known}.",
        )
    column = schema.columns[name]
    if isinstance(column, Vector):
        raise DataApiError(
            "FILTER",
            "UNSUPPORTED_FILTERING_FOR_COLUMN_TYPES",
            f"Vector column '{name}' cannot be filtered on.",
        )
    if not isinstance(value, dict) or value.keys() == {"$binary"}:
        value = {"$eq": value}
    for symbol, operand in value.items():
        if isinstance(column, MapOf) and symbol in ("$keys", "$values"):
            inner = operand.items() if isinstance(operand, dict) else [(symbol, operand)]
            parse = column.key.parse if symbol == "$keys" else column.value.parse
            for inner_symbol, inner_operand in inner:
                yield _in_collection(name, inner_symbol, inner_operand, symbol[1:], parse, negated=negated)
        elif isinstance(column, MapOf):
            yield _in_collection(name, symbol, operand, "entries", column.parse_entry, negated=negated)
        elif isinstance(column, ListOf | SetOf):
            yield _in_collection(name, symbol, operand, "values", column.element.parse, negated=negated)
        else:
            yield _on_scalar(name, symbol, operand, column, negated=negated)


def _on_scalar(name: str, symbol: str, operand: Any, column: Any, *, negated: bool) -> Comparison:
    if symbol == "$exists" or operand is None:
        raise DataApiError("", "INTERNAL_SERVER_ERROR", f"The server fails on '{symbol}' of '{name}'.")
    if symbol == "$match" and getattr(column, "name", None) in ("text", "ascii") and not negated:
        (text,) = _parsed(name, [operand], column.parse)
        return Comparison(name, symbol, text, "terms")
    if symbol not in _SCALAR_OPERATORS:
        raise DataApiError(
            "FILTER",
            "FILTER_UNSUPPORTED_OPERATOR",
            f"Unsupported filter operator '{symbol}' on column '{name}'.",
        )
    values = _operands(symbol, operand) if symbol in ("$in", "$nin") else [operand]
    parsed = _parsed(name, values, column.parse)
    symbol = _NEGATED[symbol] if negated else symbol
    return Comparison(name, symbol, frozenset(parsed) if symbol in ("$in", "$nin") else parsed[0])


def _in_collection(
    name: str, symbol: str, operand: Any, function: str, parse: Callable[[Any], Any], *, negated: bool
) -> Comparison:
    if symbol not in _COLLECTION_OPERATORS or (negated and symbol == "$all"):
        raise DataApiError(
            "FILTER",
            "INVALID_MAP_SET_LIST_FILTER",
            f"Column '{name}' is a map, set or list: use $in, $nin or (outside $not) $all, not '{symbol}'.",
        )
    parsed = frozenset(_parsed(name, _operands(symbol, operand), parse))
    return Comparison(name, _NEGATED[symbol] if negated else symbol, parsed, function)


def _operands(symbol: str, operand: Any) -> list[Any]:
    if not isinstance(operand, list):
        raise _invalid(f"'{symbol}' operator must have an array")
    if symbol != "$all" and len(operand) > MAX_IN_VALUES:
        raise _invalid(f"'{symbol}' operator must have at most {MAX_IN_VALUES} values")
    if symbol == "$all" and not operand:
        raise _invalid("'$all' operator must have at least one value")
    return operand


def _parsed(name: str, values: list[Any], parse: Callable[[Any], Any]) -> list[Any]:
    try:
        return [parse(value) for value in values]
    except ValueError as error:
        raise DataApiError(
            "FILTER",
            "INVALID_FILTER_COLUMN_VALUES",
            f"The filter on column '{name}' has a wrong value: {error}.",
        ) from None


def _invalid(problem: str) -> DataApiError:
    return DataApiError("FILTER", "FILTER_INVALID_EXPRESSION", f"Unsupported filter clause: {problem}.")


def bound(table: Table, junction: Junction) -> Junction:
    """Return the tree with what only the table's indexes know: the rows of each ``$match``.

    Raises:
        DataApiError: a column has no text index.
    """
    return Junction(junction.any_of, tuple(_bound(table, part) for part in junction.parts))


def _bound(table: Table, node: Node) -> Node:
    if isinstance(node, Junction):
        return bound(table, node)
    if node.operator != "$match":
        return node
    if (index := text_index(table, node.column)) is None:
        raise not_indexed(node.column)
    slots = index.matching(query_terms(index, node.operand))
    return Comparison(node.column, node.operator, frozenset(slots), node.function)


# matching


def predicate(node: Node) -> Predicate:
    """Return the test of one row."""
    if isinstance(node, Junction):
        tests = [predicate(part) for part in node.parts]
        return (lambda row: any(test(row) for test in tests)) if node.any_of else _all(tests)
    column, operand, part = node.column, node.operand, _part(node.function)
    if node.operator == "$match":
        return lambda row: row.slot in operand
    if node.function is not None:
        match node.operator:
            case "$in":
                return lambda row: not operand.isdisjoint(part(row.cells.get(column)))
            case "$nin":
                return lambda row: operand.isdisjoint(part(row.cells.get(column)))
            case _:
                return lambda row: operand.issubset(part(row.cells.get(column)))
    test = _term_test(node)
    return lambda row: (value := row.cells.get(column)) is not None and test(value)


def _all(tests: list[Predicate]) -> Predicate:
    return lambda row: all(test(row) for test in tests)


def _part(function: str | None) -> Callable[[Any], Any]:
    match function:
        case "entries":
            return lambda cell: set(cell.items()) if cell else ()
        case "values":
            return lambda cell: (set(cell.values()) if isinstance(cell, dict) else set(cell)) if cell else ()
        case _:
            return lambda cell: set(cell) if cell else ()


def _term_test(comparison: Comparison) -> Callable[[Any], bool]:
    operand = comparison.operand
    match comparison.operator:
        case "$eq":
            return lambda value: bool(value == operand)
        case "$ne":
            return lambda value: bool(value != operand)
        case "$in":
            return lambda value: value in operand
        case "$nin":
            return lambda value: value not in operand
        case symbol:
            compare = RANGES[symbol]
            return lambda value: bool(compare(value, operand))


# looking up


@dataclass(frozen=True)
class Found:
    """Slots of rows; ``exact`` when they are the answer itself and need no predicate."""

    slots: set[int]
    exact: bool


def look_up(table: Table, node: Node) -> Found | None:
    """Return what the partition keys and the indexes find of a filter; ``None`` if they do not help."""
    if isinstance(node, Comparison):
        index = index_for(table, node)
        return _from_postings(index, node) if index else None
    found = [look_up(table, part) for part in node.parts]
    known = [one for one in found if one is not None]
    exact = len(known) == len(found) and all(one.exact for one in known)
    if node.any_of:
        return Found(set().union(*(one.slots for one in known)), exact) if len(known) == len(found) else None
    partitions = _partitions(table, node)
    if partitions is not None:
        return Found(partitions, exact=False)
    if not known:
        return None
    smallest, *others = sorted((one.slots for one in known), key=len)
    return Found(smallest.intersection(*others), exact)


def index_for(table: Table, comparison: Comparison) -> Index | None:
    """Return the index that can serve a comparison, if there is one."""
    for index in table.indexes.values():
        if (index.schema.column, index.schema.function) == (comparison.column, comparison.function):
            return index
    return None


def _from_postings(index: Index, comparison: Comparison) -> Found | None:
    postings, operand = index.postings, comparison.operand
    if comparison.operator == "$match":
        return Found(set(operand), exact=True)
    if comparison.function is not None:
        if comparison.operator == "$nin":
            return None  # the rows without a collection match too, and no index knows them
        sets = [postings.get(term, set()) for term in operand]
        slots = set.intersection(*sets) if comparison.operator == "$all" else set().union(*sets)
        return Found(slots, exact=True)
    if comparison.operator == "$eq":
        return Found(postings.get(operand, set()), exact=True)
    if comparison.operator == "$in":
        return Found(set().union(*(postings.get(term, ()) for term in operand)), exact=True)
    test = _term_test(comparison)
    return Found(set().union(*(slots for term, slots in postings.items() if test(term))), exact=True)


def _partitions(table: Table, node: Junction) -> set[int] | None:
    choices = []
    for column in table.schema.partition_by:
        values = [
            part.operand if part.operator == "$in" else (part.operand,)
            for part in node.parts
            if isinstance(part, Comparison) and part.column == column and part.operator in ("$eq", "$in")
        ]
        if not values:
            return None
        choices.append(values[0])
    return {
        row.slot for key in product(*choices) if key in table.partitions for row in table.partitions[key].rows
    }
