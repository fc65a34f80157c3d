"""What a filter may do: the errors of updates and deletes, the warnings of reads, the rules of ANN.

The Data API calls this its where clause analysis; the rules of ANN and of partition keys are Cassandra's
``StatementRestrictions``, which reach the client as INVALID_DATABASE_QUERY.
"""

from collections.abc import Iterable

from tools.data_api.errors import DataApiError, invalid_query
from tools.data_api.filters import RANGES, Comparison, Junction, comparisons, index_for
from tools.data_api.schema import TableSchema
from tools.data_api.tables import Table

_NOT_SERVED_BY_INDEX = {"text", "ascii", "boolean", "uuid"}  # by $ne, $nin and ranges
_INEFFICIENT = {
    "NOT_EQUALS_UNSUPPORTED_BY_INDEXING": {"$ne"},
    "COMPARISON_FILTER_UNSUPPORTED_BY_INDEXING": set(RANGES),
    "NOT_IN_FILTER_UNSUPPORTED_BY_INDEXING": {"$nin"},
}
_INDEX_NEEDED_BY_ANN = (
    "Ordering on non-clustering column requires each restricted column to be indexed except for"
    " fully-specified partition keys"
)


# reads


def read_warnings(table: Table, where: Junction) -> list[DataApiError]:
    """Return the warnings of a find; each one also means that the Data API adds ALLOW FILTERING."""
    filters = [comparison for comparison, _ in comparisons(where)]
    if not filters:
        return [_warning("ZERO_FILTER_OPERATIONS", "No filter was given: every row is read.")]
    key = table.schema.primary_key
    only_key = all(comparison.column in key for comparison in filters)
    warnings = []
    # a filter on columns beside the key counts the key's columns as unindexed too: so does the Data API
    unindexed = _names(one for one in filters if not only_key and index_for(table, one) is None)
    if unindexed:
        warnings.append(_warning("MISSING_INDEX", f"The filter names columns without an index: {unindexed}."))
    inefficient = [one for one in filters if index_for(table, one) and not _index_serves(table, one)]
    for code, operators in _INEFFICIENT.items():
        if names := _names(one for one in inefficient if one.operator in operators):
            warnings.append(_warning(code, f"The index does not serve this operator on columns: {names}."))
    if only_key and (problem := _key_problem(table.schema, filters)):
        warnings.append(_warning("INCOMPLETE_PRIMARY_KEY_FILTER", problem))
    return warnings


def check_read(table: Table, where: Junction, *, ann: bool) -> None:
    """Refuse what Cassandra refuses in a SELECT, with ALLOW FILTERING or without.

    With ANN every restricted column must be indexed for its operator, but for a partition key given in full
    by ``$eq``. ``$in`` on a partition column goes with no index at all, so neither with ANN nor beside the
    filter on an indexed column.
    """
    filters = list(comparisons(where))
    partition = table.schema.partition_by
    for comparison, nested in filters:
        if nested and comparison.column in partition:
            raise invalid_query(
                f"Restriction on partition key column {comparison.column} must not be nested under OR"
            )
    uses_index = ann or any(_index_serves(table, comparison) for comparison, _ in filters)
    if uses_index and any(one.column in partition and one.operator == "$in" for one, _ in filters):
        raise invalid_query(
            "Select on indexed columns and with IN clause for the PRIMARY KEY are not supported"
        )
    if not ann:
        return
    given = {one.column for one, nested in filters if one.operator == "$eq" and not nested}
    whole_partition = given.issuperset(partition)
    for comparison, _ in filters:
        if whole_partition and comparison.column in partition and comparison.operator == "$eq":
            continue
        if not _index_serves(table, comparison):
            raise invalid_query(f"{_INDEX_NEEDED_BY_ANN} (column {comparison.column})")


def _index_serves(table: Table, comparison: Comparison) -> bool:
    """Tell whether an index serves the comparison, without ALLOW FILTERING for its operator."""
    if index_for(table, comparison) is None:
        return False
    column_type = table.schema.columns[comparison.column].describe()["type"]
    return comparison.operator in ("$eq", "$in", "$all", "$match") or column_type not in _NOT_SERVED_BY_INDEX


# writes


def check_one_row(schema: TableSchema, where: Junction) -> None:
    """Check updateOne and deleteOne: the full primary key, by ``$eq`` only."""
    filters = _key_filters(schema, where)
    if others := _names(one for one in filters if one.operator != "$eq"):
        raise DataApiError(
            "FILTER",
            "UNSUPPORTED_FILTER_FOR_UPDATE_ONE_DELETE_ONE",
            f"updateOne and deleteOne take $eq only; other operators stand on columns: {others}.",
        )
    if missing := [name for name in schema.primary_key if name not in {one.column for one in filters}]:
        raise DataApiError(
            "FILTER",
            "MISSING_FULL_PRIMARY_KEY_FOR_UPDATE_DELETE",
            f"The filter lacks primary key columns: {', '.join(missing)}.",
        )


def check_many_rows(schema: TableSchema, where: Junction) -> None:
    """Check deleteMany: the whole partition key, then clustering columns in order, a range on the last one only."""
    filters = _key_filters(schema, where)
    if problem := _key_problem(schema, filters):
        raise DataApiError("FILTER", "INVALID_PRIMARY_KEY_FILTER", problem)
    by_column = {name: [one.operator for one in filters if one.column == name] for name in schema.primary_key}
    named = [name for name in schema.partition_sort if by_column[name]]
    for name, operators in by_column.items():
        for symbol in operators:
            if symbol in ("$ne", "$nin"):
                raise invalid_query(f"Unsupported '{symbol}' relation on column {name} in a DELETE")
            if symbol in RANGES and name in schema.partition_by:
                raise invalid_query(
                    "Only EQ and IN relation are supported on the partition key for DELETE statements"
                )
            if symbol in RANGES and name != named[-1]:
                raise invalid_query(
                    f'Clustering column "{named[named.index(name) + 1]}" cannot be restricted'
                    f' (preceding column "{name}" is restricted by a non-EQ relation)'
                )


def _key_filters(schema: TableSchema, where: Junction) -> list[Comparison]:
    filters = list(comparisons(where))
    if not filters:
        raise DataApiError(
            "FILTER",
            "MISSING_FILTER_FOR_UPDATE_DELETE",
            "updateOne and deleteOne need a filter on the primary key.",
        )
    if others := _names(one for one, _ in filters if one.column not in schema.primary_key):
        raise DataApiError(
            "FILTER",
            "UNSUPPORTED_NON_PRIMARY_KEY_FILTER_FOR_UPDATE_DELETE",
            f"Updates and deletes filter on the primary key only, not on: {others}.",
        )
    if any(nested for _, nested in filters):
        raise invalid_query("OR is not supported in UPDATE and DELETE statements")
    return [one for one, _ in filters]


def _key_problem(schema: TableSchema, filters: Iterable[Comparison]) -> str | None:
    named = {one.column for one in filters}
    missing = [name for name in schema.partition_by if name not in named]
    clustering = list(schema.partition_sort)
    present = [name in named for name in clustering]
    gap = present.index(False) if False in present else len(present)
    out_of_order = [name for name in clustering[gap:] if name in named]
    if missing or out_of_order:
        return (
            f"Missing partition keys: {', '.join(missing) or 'none'}."
            f" Out of order partition sort keys: {', '.join(out_of_order) or 'none'}."
        )
    return None


def _names(filters: Iterable[Comparison]) -> str:
    return ", ".join(sorted({comparison.column for comparison in filters}))


def _warning(code: str, message: str) -> DataApiError:
    return DataApiError("WARNING", code, message)
