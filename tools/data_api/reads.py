"""find and findOne: projection, the order of storage with pages, the order of similarity without."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tools.data_api.analysis import check_read, read_warnings
from tools.data_api.ann import Slots, nearest
from tools.data_api.columns import Vector, parse_vector
from tools.data_api.context import Context, PageState
from tools.data_api.errors import DataApiError, invalid_field, invalid_query
from tools.data_api.filters import Junction, bound, look_up, parse_filter, predicate
from tools.data_api.lexical import TextIndex, query_terms, text_index
from tools.data_api.limits import DEFAULT_LEXICAL_ROWS, MAX_ANN_ROWS, MAX_LEXICAL_ROWS
from tools.data_api.schema import TableSchema
from tools.data_api.tables import Row, Table, check_indexable

_FIND_OPTIONS = {"limit", "skip", "pageState", "includeSimilarity", "includeSortVector"}
_FIND_ONE_OPTIONS = {"includeSimilarity", "includeSortVector"}
Reply = dict[str, Any]


def find(context: Context, body: dict[str, Any]) -> Reply:
    """Return a page of rows."""
    query = Query.parse(context.table, body, _FIND_OPTIONS)
    rows, page_state = _run(context, query)
    status = _status(query, rows)
    return {"data": {"documents": rows.documents, "nextPageState": page_state}, "status": status}


def find_one(context: Context, body: dict[str, Any]) -> Reply:
    """Return the first row, or null."""
    query = Query.parse(context.table, body, _FIND_ONE_OPTIONS)
    query.limit = 1
    rows, _ = _run(context, query)
    return {
        "data": {"document": rows.documents[0] if rows.documents else None},
        "status": _status(query, rows),
    }


@dataclass
class VectorSort:
    """``{column: vector}``, the only key of its sort clause."""

    column: str
    metric: str
    vector: np.ndarray[Any, np.dtype[np.float32]]


@dataclass
class LexicalSort:
    """``{column: text}``, the only key of its sort clause."""

    index: TextIndex
    terms: list[str]


@dataclass
class Query:
    """A find command, checked against the table."""

    table: Table
    where: Junction
    projection: list[str]
    vector_sort: VectorSort | None
    lexical_sort: LexicalSort | None
    limit: int | None
    page_state: str | None
    include_similarity: bool
    include_sort_vector: bool
    identity: Any

    @classmethod
    def parse(cls, table: Table, body: dict[str, Any], known_options: set[str]) -> "Query":
        """Read the command; every rule that a request can break by itself is checked here."""
        options = body.get("options") or {}
        if unknown := sorted(options.keys() - known_options):
            raise DataApiError("", "COMMAND_FIELD_UNKNOWN", f"Unknown options: {', '.join(unknown)}.")
        limit, skip = (_not_negative(name, options.get(name)) for name in ("limit", "skip"))
        where = bound(table, parse_filter(table.schema, body.get("filter")))
        clause = body.get("sort") or {}
        lexical_sort = _lexical_sort(table, clause, skip)
        vector_sort = None if lexical_sort else _vector_sort(table, clause, limit, skip)
        sorted_by_index = vector_sort is not None or lexical_sort is not None
        if skip is not None:
            raise invalid_field("options.skip", skip, "this local server has no skip")
        try:
            check_read(table, where, ann=sorted_by_index)
        except DataApiError as error:
            error.warnings = _warnings(table, where, ann=sorted_by_index)
            raise
        return cls(
            table=table,
            where=where,
            projection=_projection(table.schema, body.get("projection")),
            vector_sort=vector_sort,
            lexical_sort=lexical_sort,
            limit=limit or None,  # 0 means no limit
            page_state=options.get("pageState") or None,
            include_similarity=bool(options.get("includeSimilarity")),
            include_sort_vector=bool(options.get("includeSortVector")),
            identity=(table.schema.name, body.get("filter"), body.get("sort")),
        )


@dataclass
class Rows:
    """What a query found, and the warnings it earned."""

    documents: list[dict[str, Any]]
    warnings: list[DataApiError]


def _run(context: Context, query: Query) -> tuple[Rows, str | None]:
    sorted_by_index = query.vector_sort is not None or query.lexical_sort is not None
    warnings = _warnings(query.table, query.where, ann=sorted_by_index)
    page_state = None
    if query.vector_sort:
        documents = _by_similarity(context, query, query.vector_sort)
    elif query.lexical_sort:
        documents = _by_words(context, query, query.lexical_sort)
    else:
        documents, page_state = _in_storage_order(context, query)
    context.request.rows_read = len(documents)
    return Rows(documents, warnings), page_state


def _warnings(table: Table, where: Junction, *, ann: bool) -> list[DataApiError]:
    return [one for one in read_warnings(table, where) if not (ann and one.code == "ZERO_FILTER_OPERATIONS")]


def _status(query: Query, rows: Rows) -> dict[str, Any]:
    status: dict[str, Any] = {"projectionSchema": query.table.schema.describe_columns(query.projection)}
    if query.include_sort_vector and query.vector_sort:
        status["sortVector"] = query.vector_sort.vector
    if rows.warnings:
        status["warnings"] = [warning.as_json() for warning in rows.warnings]
    return status


# clauses


def _not_negative(name: str, value: Any) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise invalid_field(f"options.{name}", value, "must be an integer greater than or equal to 0")
    return value


def _projection(schema: TableSchema, clause: Any) -> list[str]:
    if not clause:
        return list(schema.columns)
    if not isinstance(clause, dict) or any(value not in (True, False) for value in clause.values()):
        raise DataApiError(
            "PROJECTION", "UNSUPPORTED_PROJECTION_PARAM", "A projection maps columns to true or false."
        )
    if unknown := [name for name in clause if name not in schema.columns]:
        raise DataApiError(
            "PROJECTION",
            "UNKNOWN_TABLE_COLUMNS",
            f"The projection names unknown columns: {', '.join(unknown)}.",
        )
    if len(set(map(bool, clause.values()))) > 1:
        raise DataApiError(
            "PROJECTION",
            "UNSUPPORTED_PROJECTION_PARAM",
            "A projection cannot include and exclude columns at once.",
        )
    included = bool(next(iter(clause.values())))
    return [name for name in schema.columns if (name in clause) == included]


def _lexical_sort(table: Table, clause: dict[str, Any], skip: int | None) -> LexicalSort | None:
    schema = table.schema
    if unknown := [name for name in clause if name not in schema.columns]:
        raise DataApiError(
            "SORT",
            "CANNOT_SORT_UNKNOWN_COLUMNS",
            f"The sort clause names unknown columns: {', '.join(unknown)}.",
        )
    texts = [name for name, value in clause.items() if isinstance(value, str)]
    if not texts:
        return None
    column = texts[0]
    if isinstance(schema.columns[column], Vector):
        raise DataApiError(
            "SORT",
            "CANNOT_VECTORIZE_SORT_WHEN_MISSING_VECTORIZE_DEFINITION",
            f"Column '{column}' cannot be sorted by a text.",
        )
    if len(clause) > 1:
        raise DataApiError(
            "SORT",
            "CANNOT_SORT_ON_SPECIAL_WITH_OTHERS",
            f"The lexical sort on '{column}' must be the only key of the sort clause.",
        )
    if skip is not None:
        raise DataApiError(
            "SORT", "CANNOT_LEXICAL_SORT_WITH_SKIP_OPTION", "A lexical sort goes without 'skip'."
        )
    if (index := text_index(table, column)) is None:
        raise DataApiError(
            "SORT", "CANNOT_LEXICAL_SORT_NON_INDEXED_COLUMNS", f"Column '{column}' has no text index."
        )
    return LexicalSort(index, query_terms(index, clause[column]))


def _vector_sort(
    table: Table, clause: dict[str, Any], limit: int | None, skip: int | None
) -> VectorSort | None:
    schema = table.schema
    vectors = [name for name, value in clause.items() if isinstance(value, list | dict)]
    if not vectors:
        if clause:
            raise DataApiError(
                "SORT", "INVALID_REGULAR_SORT_EXPRESSION", "This local server sorts by vectors only."
            )
        return None
    column = vectors[0]
    if limit is not None and limit > MAX_ANN_ROWS:
        raise DataApiError(
            "SORT",
            "CANNOT_VECTOR_SORT_WITH_LIMIT_EXCEEDS_MAX",
            f"Vector sorting is limited to a maximum of {MAX_ANN_ROWS} rows; the limit was {limit}.",
        )
    if skip is not None:
        raise DataApiError(
            "SORT", "CANNOT_VECTOR_SORT_WITH_SKIP_OPTION", "A vector sort goes without 'skip'."
        )
    if len(vectors) > 1:
        raise DataApiError(
            "SORT", "CANNOT_SORT_ON_MULTIPLE_VECTORS", f"One vector sort only, not {', '.join(vectors)}."
        )
    if len(clause) > 1:
        raise DataApiError(
            "SORT",
            "CANNOT_SORT_VECTOR_AND_NON_VECTOR_COLUMNS",
            f"The vector sort on '{column}' must be the only key of the sort clause.",
        )
    column_type = schema.columns[column]
    if not isinstance(column_type, Vector):
        raise DataApiError(
            "SORT", "CANNOT_VECTOR_SORT_NON_VECTOR_COLUMNS", f"Column '{column}' is not a vector."
        )
    metric = next((one.schema.metric for one in table.indexes.values() if one.schema.column == column), None)
    if metric is None:
        raise DataApiError(
            "SORT", "CANNOT_VECTOR_SORT_NON_INDEXED_VECTOR_COLUMNS", f"Column '{column}' has no vector index."
        )
    try:
        vector = parse_vector(clause[column])
    except ValueError as error:
        raise DataApiError(
            "SORT", "INVALID_VECTOR_SORT_EXPRESSION", f"Sort on '{column}': {error}."
        ) from None
    if len(vector) != column_type.dimension:
        raise DataApiError(
            "SORT",
            "CANNOT_VECTOR_SORT_ON_MISMATCHED_VECTOR_DIMENSIONS",
            f"Column '{column}' has dimension {column_type.dimension}, the vector given {len(vector)}.",
        )
    check_indexable(metric, vector)
    return VectorSort(column, metric, vector)


# orders


def _by_similarity(context: Context, query: Query, sort: VectorSort) -> list[dict[str, Any]]:
    """Return one page, at most 1000 rows, no page state."""
    if query.page_state:
        raise invalid_query("Invalid value for the paging state")
    slots, scores = nearest(
        query.table,
        sort.column,
        sort.metric,
        sort.vector,
        query.limit or MAX_ANN_ROWS,
        among=_slots(query.table, query.where),
        now=time.monotonic(),
        recall_loss=context.settings.ann_recall_loss,
        rounding=context.settings.ann_rounding,
        mixed_ties=context.settings.ann_mixed_ties,
        random=context.random,
    )
    rows = (row for slot in slots.tolist() if (row := query.table.slots[slot]) is not None)
    documents = _documents(query, rows)
    if query.include_similarity:
        for document, score in zip(documents, scores, strict=True):
            document["$similarity"] = score
    return documents


def _by_words(context: Context, query: Query, sort: LexicalSort) -> list[dict[str, Any]]:
    """Return one page of the rows that have every word, by BM25, at most 1000; no page state."""
    if not context.settings.lexical:
        raise invalid_query("no viable alternative at input 'BM25'")
    if query.page_state:
        raise invalid_query("Invalid value for the paging state")
    limit = min(query.limit or DEFAULT_LEXICAL_ROWS, MAX_LEXICAL_ROWS)
    slots = sort.index.ranked(sort.terms, _slots(query.table, query.where), limit)
    return _documents(query, (row for slot in slots if (row := query.table.slots[slot]) is not None))


def _slots(table: Table, where: Junction) -> Slots | None:
    if not where.parts:
        return None
    found = look_up(table, where)
    if found is not None and found.exact:
        return np.fromiter(found.slots, dtype=np.int64, count=len(found.slots))
    return np.array([row.slot for row in _matching(table, where, None)], dtype=np.int64)


def _in_storage_order(context: Context, query: Query) -> tuple[list[dict[str, Any]], str | None]:
    """Return rows by the token of the partition, then by clustering columns, a page at a time.

    A full page has a page state even where nothing follows, as Cassandra does not look ahead: the last page may
    be empty.
    """
    after, remaining = None, query.limit
    if query.page_state:
        state = context.database.pages.find(query.page_state)
        if state is None or state.query != query.identity:
            raise invalid_query("Invalid value for the paging state")
        after, remaining = state.after, state.remaining
    page_size = context.settings.page_size
    wanted = page_size if remaining is None else min(page_size, remaining)
    rows = list(islice(_matching(query.table, query.where, after), wanted))
    left = None if remaining is None else remaining - wanted
    token = None
    if len(rows) == wanted and left != 0:
        token = context.database.pages.keep(PageState(query.identity, rows[-1].position, left))
    return _documents(query, rows), token


def _matching(table: Table, where: Junction, after: Any) -> Iterator[Row]:
    """Yield the rows that satisfy the filter, in storage order, from behind a position."""
    matches = predicate(where)
    found = look_up(table, where)
    if found is None:
        yield from (row for row in table.scan(after) if matches(row))
        return
    rows = [row for slot in found.slots if (row := table.slots[slot]) is not None]
    rows = [row for row in rows if (found.exact or matches(row)) and (after is None or row.position > after)]
    rows.sort(key=lambda row: row.position)
    yield from rows


def _documents(query: Query, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return rows as JSON, nulls and empty collections left out."""
    table = query.table
    columns = [(name, table.schema.columns[name].encode, name in table.vectors) for name in query.projection]
    documents = []
    for row in rows:
        document = {}
        for name, encode, is_vector in columns:
            value = table.value(row, name) if is_vector else row.cells.get(name)
            if value is not None:
                document[name] = encode(value)
        documents.append(document)
    return documents
