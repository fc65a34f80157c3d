"""insertOne, insertMany, updateOne, deleteOne, deleteMany."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tools.data_api.analysis import check_many_rows, check_one_row
from tools.data_api.columns import SCALARS, Vector
from tools.data_api.context import Context
from tools.data_api.errors import DataApiError, injected, invalid_field
from tools.data_api.filters import Comparison, Junction, look_up, parse_filter, predicate
from tools.data_api.limits import MAX_INSERT_DOCUMENTS, MAX_MUTATION_BYTES
from tools.data_api.schema import TableSchema
from tools.data_api.tables import Key, Row, Table

Reply = dict[str, Any]
Cells = dict[str, Any]
_DELETED = {"deletedCount": -1}  # tables never say how many


# inserts


@dataclass
class Insertion:
    """One document of an insert: its key once known, then OK, ERROR or SKIPPED."""

    key: Key | None = None
    cells: Cells | None = None
    error: DataApiError | None = None
    skipped: bool = False


def insert_one(context: Context, body: dict[str, Any]) -> Reply:
    """Insert or overwrite one row."""
    return _insert(context, [body.get("document")], ordered=False, per_document=False)


def insert_many(context: Context, body: dict[str, Any]) -> Reply:
    """Insert or overwrite rows, each by itself: some may fail while others succeed."""
    documents = body.get("documents")
    if not isinstance(documents, list) or not documents:
        raise invalid_field("documents", documents, "must be an array that is not empty")
    if len(documents) > MAX_INSERT_DOCUMENTS:
        raise invalid_field(
            "documents",
            f"{len(documents)} documents",
            f"amount of documents to insert is over the max limit of {MAX_INSERT_DOCUMENTS}",
        )
    if context.settings.cold_tables and not context.table.is_cached:
        context.table.is_cached = True
        raise injected("UNEXPECTED_SERVER_ERROR", "Expected schema object type Collection but got Table.")
    options = body.get("options") or {}
    return _insert(
        context,
        documents,
        ordered=bool(options.get("ordered")),
        per_document=bool(options.get("returnDocumentResponses")),
    )


def _insert(context: Context, documents: list[Any], *, ordered: bool, per_document: bool) -> Reply:
    table = context.table
    insertions = [_shred(table.schema, document) for document in documents]
    failed = False
    for position, insertion in enumerate(insertions):
        if insertion.error is None and ordered and failed:
            insertion.skipped = True
        elif insertion.error is None:
            _apply(context, insertion, fails=position in context.failing_rows)
        failed = failed or insertion.error is not None
    return _insert_reply(table.schema, insertions, per_document=per_document)


def _shred(schema: TableSchema, document: Any) -> Insertion:
    """Read a document before any is written: a faulty one is an ERROR even behind another, ordered or not."""
    try:
        key, cells = _key_and_cells(schema, document)
    except DataApiError as error:
        return Insertion(error=error)
    return Insertion(key, cells)


def _key_and_cells(schema: TableSchema, document: Any) -> tuple[Key, Cells]:
    if not isinstance(document, dict):
        raise invalid_field("documents", document, "a document must be an object")
    if unknown := [name for name in document if name not in schema.columns]:
        raise DataApiError(
            "DOCUMENT",
            "UNKNOWN_TABLE_COLUMNS",
            f"The document names unknown columns: {', '.join(unknown)}; known are {', '.join(schema.columns)}.",
        )
    if missing := [name for name in schema.primary_key if document.get(name) is None]:
        raise DataApiError(
            "DOCUMENT",
            "MISSING_PRIMARY_KEY_COLUMNS",
            f"The document lacks primary key columns: {', '.join(missing)}.",
        )
    cells = _parse_cells(schema, document, "DOCUMENT", "INVALID_COLUMN_VALUES")
    return tuple(cells.pop(name) for name in schema.primary_key), cells


def _parse_cells(schema: TableSchema, cells: Cells, scope: str, code: str) -> Cells:
    values, problems = {}, []
    for name, value in cells.items():
        if scope == "DOCUMENT" and isinstance(schema.columns[name], Vector) and isinstance(value, str):
            raise DataApiError(
                scope,
                "UNSUPPORTED_VECTORIZE_WHEN_MISSING_VECTORIZE_DEFINITION",
                f"Vector column '{name}' has no embedding service, and the document has a text for it.",
            )
        try:
            values[name] = None if value is None else schema.columns[name].parse(value)
        except ValueError as error:
            problems.append(f"'{name}': {error}")
    if problems:
        raise DataApiError(
            scope, code, f"Columns had values that their types do not allow: {'; '.join(problems)}."
        )
    return values


def _apply(context: Context, insertion: Insertion, *, fails: bool) -> None:
    assert insertion.key is not None
    assert insertion.cells is not None
    if fails:
        insertion.error = context.failure
    elif _size(insertion) > MAX_MUTATION_BYTES:
        insertion.error = injected(
            "FAILED_WRITE_REQUEST", "The write failed. It is safe to retry the request."
        )
        return
    if not fails or context.failures_applied:
        visible_at = time.monotonic() + context.settings.ann_delay_s
        try:
            context.table.write(insertion.key, insertion.cells, insert=True, visible_at=visible_at)
            context.request.rows_written += 1
        except DataApiError as error:
            insertion.error = error


def _size(insertion: Insertion) -> int:
    """Return the bytes of a row, about."""
    assert insertion.key is not None
    assert insertion.cells is not None
    values = (*insertion.key, *insertion.cells.values())
    return sum(len(value) if isinstance(value, bytes | str) else 16 for value in values)


def _insert_reply(schema: TableSchema, insertions: list[Insertion], *, per_document: bool) -> Reply:
    errors: list[DataApiError] = []
    responses = []
    for insertion in insertions:
        response: dict[str, Any] = {"_id": _row_id(schema, insertion.key), "status": "OK"}
        if insertion.error is not None:
            response |= {"status": "ERROR", "errorsIdx": _index_of(errors, insertion.error)}
        elif insertion.skipped:
            response["status"] = "SKIPPED"
        responses.append(response)
    inserted = [response["_id"] for response in responses if response["status"] == "OK"]
    if errors and not per_document and not inserted:
        return {"errors": [error.as_json() for error in errors]}
    status: dict[str, Any] = {}
    if inserted or per_document:
        status["primaryKeySchema"] = schema.describe_columns(schema.primary_key)
    if per_document:
        status["documentResponses"] = responses
    elif inserted:
        status["insertedIds"] = inserted
    reply: Reply = {"status": status}
    if errors:
        reply["errors"] = [error.as_json() for error in errors]
    return reply


def _index_of(errors: list[DataApiError], error: DataApiError) -> int:
    """Return the position of an error in ``errors``; the same error is reported once."""
    for position, seen in enumerate(errors):
        if (seen.code, seen.message) == (error.code, error.message):
            return position
    errors.append(error)
    return len(errors) - 1


def _row_id(schema: TableSchema, key: Key | None) -> list[Any]:
    if key is None:
        return []
    row_id = []
    for name, value in zip(schema.primary_key, key, strict=True):
        column = schema.columns[name]
        encoded = column.encode(value)
        row_id.append(
            encoded["$binary"] if column is SCALARS["blob"] else encoded
        )  # a bare string in row ids
    return row_id


# updates


def update_one(context: Context, body: dict[str, Any]) -> Reply:
    """Upsert one row by its key; always counted as one matched and modified."""
    table = context.table
    if body.get("sort"):
        raise DataApiError("SORT", "UNSUPPORTED_SORT_FOR_TABLE_UPDATE_COMMAND", "updateOne takes no sort.")
    where = parse_filter(table.schema, body.get("filter"))
    check_one_row(table.schema, where)
    cells = _assignments(table.schema, body.get("update") or {})
    visible_at = time.monotonic() + context.settings.ann_delay_s
    table.write(_key(table.schema, where), cells, insert=False, visible_at=visible_at)
    context.request.rows_written = 1
    return {"status": {"matchedCount": 1, "modifiedCount": 1}}


def _assignments(schema: TableSchema, update: dict[str, dict[str, Any]]) -> Cells:
    if unsupported := sorted(update.keys() - {"$set", "$unset"}):
        raise DataApiError(
            "UPDATE",
            "UNSUPPORTED_UPDATE_OPERATIONS_FOR_TABLE",
            f"This local server has $set and $unset, not {', '.join(unsupported)}.",
        )
    setting, unsetting = update.get("$set") or {}, update.get("$unset") or {}
    named = [*setting, *unsetting]
    if not named:
        raise DataApiError("UPDATE", "MISSING_UPDATE_OPERATIONS", "The update names no column.")
    for code, wrong in (
        ("UNKNOWN_TABLE_COLUMNS", [name for name in named if name not in schema.columns]),
        (
            "UNSUPPORTED_UPDATE_FOR_PRIMARY_KEY_COLUMNS",
            [name for name in named if name in schema.primary_key],
        ),
        ("UNSUPPORTED_OVERLAPPING_UPDATE_OPERATIONS", sorted(setting.keys() & unsetting.keys())),
    ):
        if wrong:
            raise DataApiError("UPDATE", code, f"The update cannot change columns: {', '.join(wrong)}.")
    cells = {**setting, **dict.fromkeys(unsetting)}
    return _parse_cells(schema, cells, "UPDATE", "INVALID_UPDATE_COLUMN_VALUES")


# deletes


def delete_one(context: Context, body: dict[str, Any]) -> Reply:
    """Delete one row by its key, if it is there."""
    table = context.table
    if body.get("sort"):
        raise DataApiError("SORT", "UNSUPPORTED_SORT_FOR_TABLE_DELETE_COMMAND", "deleteOne takes no sort.")
    where = parse_filter(table.schema, body.get("filter"))
    check_one_row(table.schema, where)
    if row := table.rows.get(_key(table.schema, where)):
        table.remove(row)
        context.request.rows_written = 1
    return {"status": _DELETED}


def delete_many(context: Context, body: dict[str, Any]) -> Reply:
    """Delete a partition or a range of it; an empty filter truncates the table."""
    table = context.table
    if body.get("filter") == {}:
        context.request.rows_written = len(table.rows)
        table.truncate()
        return {"status": _DELETED}
    where = parse_filter(table.schema, body.get("filter"))
    check_many_rows(table.schema, where)
    for row in list(_rows_of(table, where)):
        table.remove(row)
        context.request.rows_written += 1
    return {"status": _DELETED}


def _rows_of(table: Table, where: Junction) -> Iterator[Row]:
    found = look_up(table, where)
    assert found is not None, "the whole partition key is given"
    matches = predicate(where)
    rows = (table.slots[slot] for slot in found.slots)
    return (row for row in rows if row is not None and matches(row))


def _key(schema: TableSchema, where: Junction) -> Key:
    values = {part.column: part.operand for part in where.parts if isinstance(part, Comparison)}
    return tuple(values[name] for name in schema.primary_key)
