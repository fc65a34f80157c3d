"""Error objects of the Data API: families, scopes, codes and titles of its ``errors.yaml``; the texts are ours.

An error travels in the ``errors`` of an HTTP 200 reply, except where an HTTP status is given here. A warning
has the same form under ``status.warnings``.
"""

import uuid
from typing import Any

_TITLES: dict[str, dict[str, str]] = {
    "": {
        "COMMAND_FIELD_UNKNOWN": "Command field unknown",
        "COMMAND_FIELD_VALUE_INVALID": "Command field value invalid",
        "COMMAND_UNKNOWN": "Command is not recognized by Data API",
        "INTERNAL_SERVER_ERROR": "Internal server error",
        "REQUEST_NOT_JSON": "Request not valid JSON",
        "REQUEST_STRUCTURE_MISMATCH": "Request structure not valid",
        "UNEXPECTED_SERVER_ERROR": "Unexpected server error",
        "UNSUPPORTED_CONTENT_TYPE": "Unsupported Content-Type",
        "UNSUPPORTED_TABLE_COMMAND": "Command is not supported by tables",
    },
    "SECURITY": {
        "MISSING_AUTHENTICATION_TOKEN": "Authentication token missing",
        "UNAUTHENTICATED_REQUEST": "Authentication failed",
    },
    "DOCUMENT": {
        "INVALID_COLUMN_VALUES": "Column values in documents are not valid",
        "MISSING_PRIMARY_KEY_COLUMNS": "Primary key columns missing",
        "UNKNOWN_TABLE_COLUMNS": "Columns in documents are not defined in the table schema",
        "UNSUPPORTED_VECTORIZE_WHEN_MISSING_VECTORIZE_DEFINITION": (
            "Vectorize cannot be used on vector columns without vectorize definition"
        ),
    },
    "FILTER": {
        "FILTER_FIELDS_LIMIT_VIOLATION": "Filter fields size limitation violated",
        "FILTER_INVALID_EXPRESSION": "Unsupported filter clause",
        "FILTER_UNSUPPORTED_DATA_TYPE": "Unsupported filter data type",
        "FILTER_UNSUPPORTED_OPERATOR": "Unsupported filter operator",
        "INVALID_FILTER_COLUMN_VALUES": "Column value in filter is not valid",
        "INVALID_MAP_SET_LIST_FILTER": "Command has invalid filter against a map, set, or list column",
        "INVALID_PRIMARY_KEY_FILTER": "Primary key filtering must specify columns in schema order",
        "MISSING_FILTER_FOR_UPDATE_DELETE": "Update and delete commands require a filter",
        "MISSING_FULL_PRIMARY_KEY_FOR_UPDATE_DELETE": (
            "updateOne and deleteOne commands require filtering on the full primary key"
        ),
        "UNKNOWN_TABLE_COLUMNS": "Columns in the filter are not defined in the table schema",
        "UNSUPPORTED_FILTERING_FOR_COLUMN_TYPES": (
            "Column types in the filter do not support the filter operations"
        ),
        "UNSUPPORTED_FILTER_FOR_UPDATE_ONE_DELETE_ONE": (
            "updateOne and deleteOne commands only support filtering using $eq"
        ),
        "UNSUPPORTED_NON_PRIMARY_KEY_FILTER_FOR_UPDATE_DELETE": (
            "Update and delete commands only support filtering on the primary key"
        ),
    },
    "PROJECTION": {
        "UNKNOWN_TABLE_COLUMNS": "Columns in the projection are not defined in the table schema",
        "UNSUPPORTED_PROJECTION_PARAM": "Unsupported projection parameter",
    },
    "SCHEMA": {
        "CANNOT_ADD_EXISTING_COLUMNS": "Columns with the same name are defined in the table schema",
        "CANNOT_ADD_EXISTING_INDEX": "Index with the same name exists in the keyspace schema",
        "CANNOT_ADD_EXISTING_TABLE": "Table with the same name exists in the keyspace schema",
        "CANNOT_DROP_INDEXED_COLUMNS": "Columns used in the indexes cannot be dropped",
        "CANNOT_DROP_PRIMARY_KEY_COLUMNS": "Primary key columns cannot be dropped from the table schema",
        "CANNOT_DROP_UNKNOWN_COLUMNS": (
            "Columns cannot be dropped if they are not defined in the table schema"
        ),
        "CANNOT_DROP_UNKNOWN_TABLE": "Dropped table is not defined in the keyspace schema",
        "INVALID_FORMAT_FOR_INDEX_CREATION_COLUMN": (
            "Unable to create index, format for index creation column is invalid."
        ),
        "INVALID_INDEX_DEFINITION": "Provided index configuration is not valid.",
        "LEXICAL_NOT_AVAILABLE_FOR_DATABASE": "Lexical search is not available on this database",
        "MISSING_DIMENSION_IN_VECTOR_COLUMN": (
            "Dimension is required for vector column if embedding service is not specified"
        ),
        "MISSING_PARTITION_COLUMNS": "Partitioning keys are required for tables",
        "PRIMARY_KEY_DEFINITION_INCORRECT": "Primary key definition provided is incorrect.",
        "UNKNOWN_COLLECTION_OR_TABLE": "Collection or table does not exist",
        "UNKNOWN_INDEX_COLUMN": "Index column is not defined in the table schema",
        "UNKNOWN_KEYSPACE": "Keyspace does not exist in the Database",
        "UNKNOWN_PARTITION_COLUMNS": "Partition columns are not defined in the table schema",
        "UNKNOWN_PARTITION_SORT_COLUMNS": "Partition sort columns are not defined in the table schema",
        "UNKNOWN_PRIMITIVE_DATA_TYPE": "Primitive data type is unknown",
        "UNKNOWN_VECTOR_METRIC": "Vector metric is unknown",
        "UNKNOWN_VECTOR_SOURCE_MODEL": "Vector source model is unknown",
        "UNSUPPORTED_DATA_TYPE_TABLE_CREATION": "Table creation with unsupported data types",
        "UNSUPPORTED_INDEXING_FOR_DATA_TYPES": "Indexing not supported by data types",
        "UNSUPPORTED_LIST_DEFINITION": "List definition contains unsupported data types",
        "UNSUPPORTED_MAP_DEFINITION": "Map definition contains unsupported data types",
        "UNSUPPORTED_SCHEMA_NAME": "The used schema name is not supported",
        "UNSUPPORTED_SET_DEFINITION": "Set definition contains unsupported data types",
        "UNSUPPORTED_TEXT_INDEX_FOR_DATA_TYPES": "Text index not supported by data types",
        "UNSUPPORTED_VECTOR_DIMENSION": "Vector definition contains unsupported dimension",
        "UNSUPPORTED_VECTOR_INDEX_FOR_DATA_TYPES": "Vector index not supported by data types",
    },
    "SORT": {
        "CANNOT_LEXICAL_SORT_NON_INDEXED_COLUMNS": "Lexical sort cannot be used for non-indexed columns",
        "CANNOT_LEXICAL_SORT_WITH_SKIP_OPTION": "Skip option cannot be used with lexical sort",
        "CANNOT_SORT_ON_MULTIPLE_VECTORS": "More than one vector sort provided",
        "CANNOT_SORT_ON_SPECIAL_WITH_OTHERS": (
            "Special (lexical/vector/vectorize) sort cannot be combined with other sort expressions"
        ),
        "CANNOT_SORT_UNKNOWN_COLUMNS": "Sorted columns are not defined in the table schema",
        "CANNOT_SORT_VECTOR_AND_NON_VECTOR_COLUMNS": "Vector sort cannot be used with non vector sorting",
        "CANNOT_VECTORIZE_SORT_WHEN_MISSING_VECTORIZE_DEFINITION": (
            "Vectorize sort not supported on column with missing vectorize configuration"
        ),
        "CANNOT_VECTOR_SORT_NON_INDEXED_VECTOR_COLUMNS": (
            "Vector sort cannot be used for non indexed vector columns"
        ),
        "CANNOT_VECTOR_SORT_NON_VECTOR_COLUMNS": "Vector sort columns are not `vector` type",
        "CANNOT_VECTOR_SORT_ON_MISMATCHED_VECTOR_DIMENSIONS": (
            "Vector sort cannot be used with mismatched vector dimensions"
        ),
        "CANNOT_VECTOR_SORT_WITH_LIMIT_EXCEEDS_MAX": "Limit exceeds the maximum allowed for vector sort",
        "CANNOT_VECTOR_SORT_WITH_SKIP_OPTION": "Skip option cannot be used with vector sort",
        "INVALID_REGULAR_SORT_EXPRESSION": "Sort expression is not valid for regular sort",
        "INVALID_VECTOR_SORT_EXPRESSION": "Sort expression is not valid for vector/vectorize sort",
        "UNSUPPORTED_SORT_FOR_TABLE_DELETE_COMMAND": "Sorting not supported by delete command on tables",
        "UNSUPPORTED_SORT_FOR_TABLE_UPDATE_COMMAND": "Sorting not supported by update command on tables",
    },
    "UPDATE": {
        "INVALID_UPDATE_COLUMN_VALUES": "Column value in update clause is not valid",
        "MISSING_UPDATE_OPERATIONS": "Update operation requires at least one operation",
        "UNKNOWN_TABLE_COLUMNS": "Columns in the update are not defined in the table schema",
        "UNSUPPORTED_OVERLAPPING_UPDATE_OPERATIONS": (
            "Columns cannot be changed by multiple update operations"
        ),
        "UNSUPPORTED_UPDATE_FOR_PRIMARY_KEY_COLUMNS": "Primary key columns cannot be updated",
        "UNSUPPORTED_UPDATE_OPERATIONS_FOR_TABLE": "Update operation not supported by tables",
    },
    "WARNING": {
        "COMPARISON_FILTER_UNSUPPORTED_BY_INDEXING": (
            "Use of $lt, $gt, $lte, $gte (comparison filter) on indexed columns"
        ),
        "INCOMPLETE_PRIMARY_KEY_FILTER": "Incomplete filter on table primary key",
        "MISSING_INDEX": "Filter includes columns that are not indexed",
        "NOT_EQUALS_UNSUPPORTED_BY_INDEXING": "Use of $ne (not equals) on indexed columns",
        "NOT_IN_FILTER_UNSUPPORTED_BY_INDEXING": "Use of $nin on indexed columns",
        "ZERO_FILTER_OPERATIONS": "Zero operations provided in query filter",
    },
    "DATABASE": {
        "FAILED_READ_REQUEST": "Failed database request",
        "FAILED_TO_CONNECT_TO_DATABASE": "Data API Failed to connect to the database",
        "FAILED_TRUNCATION": "Failed database Truncate operation",
        "FAILED_WRITE_REQUEST": "Failed database request",
        "INVALID_DATABASE_QUERY": "Invalid database query",
        "TIMEOUT_READING_DATA": "Timeout reading data from the database",
        "TIMEOUT_WRITING_DATA": "Timeout writing data to the database",
        "UNAVAILABLE_DATABASE": "The database is unavailable",
        "UNEXPECTED_DRIVER_ERROR": "Unexpected error from the database driver",
    },
}

_SERVER_CODES = {"INTERNAL_SERVER_ERROR", "UNEXPECTED_SERVER_ERROR"}
"""Codes of family SERVER that have no scope."""

_HTTP_STATUS = {
    "MISSING_AUTHENTICATION_TOKEN": 401,
    "UNAUTHENTICATED_REQUEST": 401,
    "UNSUPPORTED_CONTENT_TYPE": 415,
}


class DataApiError(Exception):
    """One error (or warning) object of the Data API.

    Args:
        scope: the part of the request or server at fault, ``""`` for none; scope DATABASE is of family
            SERVER, every other of family REQUEST but for a few codes.
        code: a code that the Data API has in that scope.
        message: what was wrong and what to do.

    Attributes:
        warnings: warnings that the request had earned before it was refused.
    """

    def __init__(self, scope: str, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.scope = scope
        self.code = code
        self.title = _TITLES[scope][code]
        self.message = message
        self.http_status = _HTTP_STATUS.get(code, 200)
        self.warnings: list[DataApiError] = []

    def as_json(self) -> dict[str, Any]:
        """Return the object of ``errors`` and ``status.warnings``, under a fresh id."""
        return {
            "id": str(uuid.uuid4()),
            "family": "SERVER" if self.scope == "DATABASE" or self.code in _SERVER_CODES else "REQUEST",
            "scope": self.scope,
            "errorCode": self.code,
            "title": self.title,
            "message": self.message,
        }


def injected(code: str, cause: str) -> DataApiError:
    """Make an error as a fault or a switch of the server gives it; those of the database in several paragraphs."""
    scope = next(one for one in ("DATABASE", *_TITLES) if code in _TITLES[one])
    if scope != "DATABASE":
        return DataApiError(scope, code, cause)
    paragraphs = (
        "The Data API generated a database query that did not succeed.",
        "This may be due to a temporary capacity issue with the database, or a wider outage.",
        f"The command generated the CQL values: ['...'].\nThe database error: {cause}",
        "It is safe to retry this request.",
    )
    return DataApiError(scope, code, "\n\n".join(paragraphs))


def invalid_structure(message: str) -> DataApiError:
    """Make the error for a request whose JSON has another form than the command."""
    return DataApiError("", "REQUEST_STRUCTURE_MISMATCH", message)


def invalid_query(message: str) -> DataApiError:
    """Make the error for what Cassandra refuses, not the Data API: family SERVER, though trying again never helps."""
    return DataApiError("DATABASE", "INVALID_DATABASE_QUERY", f"The database refused the query: {message}.")


def invalid_field(field: str, value: object, problem: str) -> DataApiError:
    """Make the error for a field of the command that breaks one of the Data API's own constraints."""
    return DataApiError(
        "", "COMMAND_FIELD_VALUE_INVALID", f"Command field '{field}' value {value!r} not valid: {problem}."
    )
