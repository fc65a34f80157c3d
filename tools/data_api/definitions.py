"""Commands on keyspaces, tables and indexes. ``ifNotExists`` and ``ifExists`` look at names alone."""

from typing import Any

from tools.data_api.context import Context
from tools.data_api.errors import DataApiError, invalid_query, invalid_structure
from tools.data_api.lexical import TextIndex, parse_analyzer
from tools.data_api.limits import MAX_INDEXES, MAX_INDEXES_PER_TABLE, MAX_TABLE_NAME, SYSTEM_KEYSPACES
from tools.data_api.schema import (
    IndexSchema,
    check_name,
    parse_columns,
    parse_index,
    parse_table,
    parse_text_index,
    parse_vector_index,
)
from tools.data_api.tables import Index, Table

Reply = dict[str, Any]
_OK: Reply = {"status": {"ok": 1}}


def create_keyspace(context: Context, body: dict[str, Any]) -> Reply:
    """Create a keyspace; an existing one stays unchanged."""
    context.database.keyspaces.setdefault(check_name("keyspace", body.get("name"), MAX_TABLE_NAME), {})
    return _OK


def find_keyspaces(context: Context, body: dict[str, Any]) -> Reply:
    """Return the names of the keyspaces, those of the system too."""
    return {"status": {"keyspaces": sorted([*context.database.keyspaces, *SYSTEM_KEYSPACES])}}


def drop_keyspace(context: Context, body: dict[str, Any]) -> Reply:
    """Drop a keyspace with all it holds."""
    context.database.keyspaces.pop(str(body.get("name")), None)
    return _OK


def create_table(context: Context, body: dict[str, Any]) -> Reply:
    """Create a table."""
    schema = parse_table(body.get("name"), body.get("definition") or {})
    if schema.name not in context.tables:
        context.tables[schema.name] = Table(schema)
    elif not _option(body, "ifNotExists"):
        raise DataApiError("SCHEMA", "CANNOT_ADD_EXISTING_TABLE", f"Table '{schema.name}' exists.")
    return _OK


def drop_table(context: Context, body: dict[str, Any]) -> Reply:
    """Drop a table with its indexes."""
    if context.tables.pop(str(body.get("name")), None) is None and not _option(body, "ifExists"):
        raise DataApiError("SCHEMA", "CANNOT_DROP_UNKNOWN_TABLE", f"There is no table '{body.get('name')}'.")
    return _OK


def list_tables(context: Context, body: dict[str, Any]) -> Reply:
    """Return the tables: names, or definitions if asked to explain."""
    tables = sorted(context.tables.items())
    if _option(body, "explain"):
        return {"status": {"tables": [table.schema.describe() for _, table in tables]}}
    return {"status": {"tables": [name for name, _ in tables]}}


def alter_table(context: Context, body: dict[str, Any]) -> Reply:
    """Add columns, or drop columns that are in no key and no index."""
    table = context.table
    match body.get("operation"):
        case {"add": {"columns": dict(columns)}} if columns:
            if existing := [name for name in columns if name in table.schema.columns]:
                raise DataApiError(
                    "SCHEMA", "CANNOT_ADD_EXISTING_COLUMNS", f"Columns exist: {', '.join(existing)}."
                )
            table.add_columns(parse_columns(columns))
        case {"drop": {"columns": list(names)}} if names:
            indexed = {index.schema.column for index in table.indexes.values()}
            for code, wrong in (
                ("CANNOT_DROP_UNKNOWN_COLUMNS", [name for name in names if name not in table.schema.columns]),
                (
                    "CANNOT_DROP_PRIMARY_KEY_COLUMNS",
                    [name for name in names if name in table.schema.primary_key],
                ),
                ("CANNOT_DROP_INDEXED_COLUMNS", [name for name in names if name in indexed]),
            ):
                if wrong:
                    raise DataApiError("SCHEMA", code, f"Columns cannot be dropped: {', '.join(wrong)}.")
            table.drop_columns(names)
        case operation:
            raise invalid_structure(f"Expected columns to add or drop, not {operation!r}.")
    return _OK


def create_index(context: Context, body: dict[str, Any]) -> Reply:
    """Index a scalar column, or the keys, values or entries of a collection."""
    return _create(
        context, body, parse_index(context.table.schema, body.get("name"), body.get("definition") or {})
    )


def create_vector_index(context: Context, body: dict[str, Any]) -> Reply:
    """Index a vector column."""
    schema = parse_vector_index(context.table.schema, body.get("name"), body.get("definition") or {})
    return _create(context, body, schema)


def create_text_index(context: Context, body: dict[str, Any]) -> Reply:
    """Index the words of a text column, for lexical sorts and ``$match``."""
    definition = body.get("definition") or {}
    analyzer = parse_analyzer(definition.get("options"))
    schema = parse_text_index(context.table.schema, body.get("name"), definition, analyzer)
    return _create(context, body, schema, TextIndex)


def _create(context: Context, body: dict[str, Any], schema: IndexSchema, kind: type[Index] = Index) -> Reply:
    tables = context.tables.values()
    if any(schema.name in table.indexes for table in tables):
        if _option(body, "ifNotExists"):
            return _OK
        raise DataApiError(
            "SCHEMA", "CANNOT_ADD_EXISTING_INDEX", f"Index '{schema.name}' exists in the keyspace."
        )
    everywhere = sum(
        len(table.indexes) for named in context.database.keyspaces.values() for table in named.values()
    )
    for limit, indexes, where in (
        (MAX_INDEXES_PER_TABLE, len(context.table.indexes), f"on table {schema.table}"),
        (MAX_INDEXES, everywhere, "in the database"),
    ):
        if context.settings.guardrails and indexes >= limit:
            raise invalid_query(f"Cannot have more than {limit} storage-attached indexes {where}")
    context.table.add_index(schema, kind)
    return _OK


def list_indexes(context: Context, body: dict[str, Any]) -> Reply:
    """Return the indexes of the table: names, or definitions if asked to explain."""
    indexes = dict(sorted(context.table.indexes.items()))
    if _option(body, "explain"):
        return {"status": {"indexes": [index.schema.describe() for index in indexes.values()]}}
    return {"status": {"indexes": list(indexes)}}


def drop_index(context: Context, body: dict[str, Any]) -> Reply:
    """Drop an index, found by its name in the keyspace."""
    for table in context.tables.values():
        if table.indexes.pop(str(body.get("name")), None):
            return _OK
    if not _option(body, "ifExists"):
        raise DataApiError(
            "DATABASE", "UNEXPECTED_DRIVER_ERROR", f"Index '{body.get('name')}' doesn't exist."
        )
    return _OK


def _option(body: dict[str, Any], name: str) -> bool:
    return bool((body.get("options") or {}).get(name))
