"""Definitions of tables and indexes: what the create commands accept, what the list commands give back."""

import re
from dataclasses import dataclass, replace
from typing import Any

from tools.data_api.columns import ColumnType, ListOf, MapOf, SetOf, Vector, parse_column_type
from tools.data_api.errors import DataApiError, invalid_query, invalid_structure
from tools.data_api.limits import MAX_INDEX_NAME, MAX_TABLE_NAME

_DEFAULT_METRIC = {
    "other": "cosine",
    "ada002": "dot_product",
    "bert": "dot_product",
    "cohere-v3": "dot_product",
    "gecko": "dot_product",
    "nv-qa-4": "dot_product",
    "openai-v3-large": "dot_product",
    "openai-v3-small": "dot_product",
}
_METRICS = ("cosine", "dot_product", "euclidean")
_TEXT_OPTIONS = {"ascii": False, "caseSensitive": True, "normalize": False}


def check_name(kind: str, name: Any, longest: int) -> str:
    """Check a name by the Data API's schema naming rule."""
    if not isinstance(name, str) or len(name) > longest or not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise DataApiError(
            "SCHEMA",
            "UNSUPPORTED_SCHEMA_NAME",
            f"A {kind} name must be 1 to {longest} letters, digits and underscores, not {name!r}.",
        )
    return name


@dataclass(frozen=True)
class TableSchema:
    """A table definition: columns in order, partition key, clustering columns with 1 or -1 for their order."""

    name: str
    columns: dict[str, ColumnType]
    partition_by: tuple[str, ...]
    partition_sort: dict[str, int]

    @property
    def primary_key(self) -> tuple[str, ...]:
        """Return the partition columns, then clustering columns."""
        return (*self.partition_by, *self.partition_sort)

    def describe(self) -> dict[str, Any]:
        """Return the table as listTables shows it when asked to explain."""
        return {
            "name": self.name,
            "definition": {
                "columns": self.describe_columns(self.columns),
                "primaryKey": {
                    "partitionBy": list(self.partition_by),
                    "partitionSort": dict(self.partition_sort),
                },
            },
        }

    def describe_columns(self, names: Any) -> dict[str, Any]:
        """Return column definitions by name: ``projectionSchema``, ``primaryKeySchema``."""
        return {name: self.columns[name].describe() for name in names}


def parse_columns(definition: Any) -> dict[str, ColumnType]:
    """Return columns by name, from the ``columns`` of a definition."""
    if not isinstance(definition, dict):
        raise invalid_structure(f"'columns' must be an object, not {definition!r}.")
    return {name: parse_column_type(name, column) for name, column in definition.items()}


def parse_table(name: Any, definition: dict[str, Any]) -> TableSchema:
    """Return the schema that a createTable command defines."""
    check_name("table", name, MAX_TABLE_NAME)
    columns = parse_columns(definition.get("columns"))
    key = definition.get("primaryKey")
    key = {"partitionBy": [key]} if isinstance(key, str) else key
    if not isinstance(key, dict):
        raise invalid_structure(f"'primaryKey' cannot be {key!r}.")
    if not isinstance(key.get("partitionBy"), list):
        raise DataApiError("", "UNEXPECTED_SERVER_ERROR", f"'primaryKey' without 'partitionBy': {key!r}.")
    schema = TableSchema(name, columns, tuple(key["partitionBy"]), dict(key.get("partitionSort") or {}))
    _check_primary_key(schema)
    return replace(schema, columns=in_order(schema, columns))


def in_order(schema: TableSchema, columns: dict[str, ColumnType]) -> dict[str, ColumnType]:
    """Return columns in the order in which the service shows them: the primary key, then the others by name."""
    others = sorted(columns.keys() - set(schema.primary_key))
    return {name: columns[name] for name in (*schema.primary_key, *others)}


def _check_primary_key(schema: TableSchema) -> None:
    if not schema.partition_by:
        raise DataApiError("SCHEMA", "MISSING_PARTITION_COLUMNS", "'partitionBy' names no column.")
    for code, names in (
        ("UNKNOWN_PARTITION_COLUMNS", schema.partition_by),
        ("UNKNOWN_PARTITION_SORT_COLUMNS", tuple(schema.partition_sort)),
    ):
        if unknown := [name for name in names if name not in schema.columns]:
            raise DataApiError(
                "SCHEMA", code, f"The primary key names undefined columns: {', '.join(unknown)}."
            )
    problem = None
    if len(set(schema.primary_key)) < len(schema.primary_key):
        problem = "a column stands in it twice"
    elif any(order not in (1, -1) for order in schema.partition_sort.values()):
        problem = "the order of a clustering column must be 1 or -1"
    elif any(not schema.columns[name].is_scalar for name in schema.primary_key):
        problem = "its columns must be of primitive types"
    if problem:
        raise DataApiError(
            "SCHEMA", "PRIMARY_KEY_DEFINITION_INCORRECT", f"The primary key is incorrect: {problem}."
        )


@dataclass(frozen=True)
class IndexSchema:
    """An index definition.

    ``function`` says which part of a map, set or list is indexed (``keys``, ``values``, ``entries``; ``None``
    for a scalar or a vector), or is ``terms`` for a text index; ``metric`` is set for a vector index only.
    """

    name: str
    table: str
    column: str
    function: str | None
    options: dict[str, Any]
    metric: str | None = None

    def describe(self) -> dict[str, Any]:
        """Return the index as listIndexes shows it when asked to explain."""
        whole = self.function in (None, "entries", "terms")
        column = self.column if whole else {self.column: f"${self.function}"}
        kind = "vector" if self.metric else "text" if self.function == "terms" else "regular"
        return {
            "name": self.name,
            "definition": {"column": column, "options": self.options},
            "indexType": kind,
        }


def parse_index(schema: TableSchema, name: Any, definition: dict[str, Any]) -> IndexSchema:
    """Return the index that a createIndex command defines."""
    check_name("index", name, MAX_INDEX_NAME)
    target = definition.get("column")
    column, component = (
        next(iter(target.items())) if isinstance(target, dict) and len(target) == 1 else (target, None)
    )
    column_type = _indexed_column(schema, column)
    if isinstance(column_type, Vector) or getattr(column_type, "name", None) == "blob":
        raise DataApiError(
            "SCHEMA",
            "UNSUPPORTED_INDEXING_FOR_DATA_TYPES",
            f"Column '{column}' is of a type that createIndex rejects.",
        )
    if schema.partition_by == (column,):
        raise invalid_query(f"Cannot create secondary index on the only partition key column {column}")
    functions: dict[Any, str] = {"$keys": "keys", "$values": "values"}
    if isinstance(column_type, MapOf):
        functions |= {None: "entries"}
    elif isinstance(column_type, ListOf | SetOf):
        functions = {None: "values", "$values": "values"}
    else:
        functions = {}
    if functions and component in functions:
        function: str | None = functions[component]
    elif component is None:
        function = None
    else:
        raise DataApiError(
            "SCHEMA",
            "INVALID_FORMAT_FOR_INDEX_CREATION_COLUMN",
            f"Column {target!r} cannot be indexed in this form.",
        )
    is_text = getattr(column_type, "name", None) in ("text", "ascii")
    options = dict(_TEXT_OPTIONS) if is_text else {}
    given = definition.get("options") or {}
    if is_text and any(options.get(option) != value for option, value in given.items()):
        raise DataApiError(
            "SCHEMA",
            "INVALID_INDEX_DEFINITION",
            f"This local server keeps indexes with their default options only: {options}.",
        )
    return IndexSchema(name, schema.name, str(column), function, options)


def parse_vector_index(schema: TableSchema, name: Any, definition: dict[str, Any]) -> IndexSchema:
    """Return the index that a createVectorIndex command defines; the metric defaults by the source model."""
    check_name("index", name, MAX_INDEX_NAME)
    column = definition.get("column")
    if not isinstance(_indexed_column(schema, column), Vector):
        raise DataApiError(
            "SCHEMA", "UNSUPPORTED_VECTOR_INDEX_FOR_DATA_TYPES", f"Column '{column}' is not a vector column."
        )
    options = definition.get("options") or {}
    source_model = options.get("sourceModel") or "other"
    if source_model not in _DEFAULT_METRIC:
        raise DataApiError(
            "SCHEMA",
            "UNKNOWN_VECTOR_SOURCE_MODEL",
            f"Unknown source model {source_model!r}, expected one of {', '.join(_DEFAULT_METRIC)}.",
        )
    metric = options.get("metric") or _DEFAULT_METRIC[source_model]
    if metric not in _METRICS:
        raise DataApiError(
            "SCHEMA",
            "UNKNOWN_VECTOR_METRIC",
            f"Unknown metric {metric!r}, expected one of {', '.join(_METRICS)}.",
        )
    return IndexSchema(
        name, schema.name, str(column), None, {"metric": metric, "sourceModel": source_model}, metric
    )


def parse_text_index(
    schema: TableSchema, name: Any, definition: dict[str, Any], analyzer: str
) -> IndexSchema:
    """Return the index that a createTextIndex command defines, with an analyzer that was checked."""
    check_name("index", name, MAX_INDEX_NAME)
    column = definition.get("column")
    if getattr(_indexed_column(schema, column), "name", None) not in ("text", "ascii"):
        raise DataApiError(
            "SCHEMA", "UNSUPPORTED_TEXT_INDEX_FOR_DATA_TYPES", f"Column '{column}' is not a text."
        )
    return IndexSchema(name, schema.name, str(column), "terms", {"analyzer": analyzer})


def _indexed_column(schema: TableSchema, column: Any) -> ColumnType:
    if column not in schema.columns:
        raise DataApiError(
            "SCHEMA", "UNKNOWN_INDEX_COLUMN", f"Table '{schema.name}' has no column {column!r}."
        )
    return schema.columns[column]
