"""Rows in memory: partitions in token order, rows in clustering order, postings of indexes, vectors in a matrix."""

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import total_ordering
from typing import Any

import numpy as np

from tools.data_api.columns import ColumnType, Vector
from tools.data_api.errors import invalid_query
from tools.data_api.schema import IndexSchema, TableSchema, in_order

Key = tuple[Any, ...]
Position = tuple[Any, ...]
_FIRST_CAPACITY = 1024


@total_ordering
class _Descending:
    """Reverses the order of a clustering column declared with -1."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Descending) and bool(self.value == other.value)

    def __hash__(self) -> int:
        return hash(self.value)

    def __lt__(self, other: "_Descending") -> bool:
        return bool(other.value < self.value)


class Row:
    """A row: its key, its place in the order of the table, its live cells (vectors apart), its slot."""

    __slots__ = ("cells", "key", "marked", "position", "slot")

    def __init__(self, key: Key, position: Position, slot: int) -> None:
        self.key = key
        self.position = position
        self.slot = slot
        self.cells: dict[str, Any] = {}
        self.marked = (
            False  # an INSERT was here: the row lives on without any cell. An UPDATE leaves no such mark
        )


def _position(row: Row) -> Position:
    return row.position


@dataclass
class Partition:
    """The rows of one partition, in clustering order."""

    token: int
    rows: list[Row] = field(default_factory=list)


class VectorCells:
    """The vectors of one column: row ``slot`` of a growing float32 matrix."""

    def __init__(self, dimension: int, capacity: int) -> None:
        self.matrix = np.zeros((capacity, dimension), dtype=np.float32)
        self.present = np.zeros(capacity, dtype=bool)

    def grow(self) -> None:
        """Make room for twice as many rows."""
        self.matrix = _doubled(self.matrix)
        self.present = _doubled(self.present)

    def put(self, slot: int, vector: np.ndarray[Any, np.dtype[np.float32]] | None) -> None:
        """Set or, with ``None``, unset the vector of a row."""
        self.present[slot] = vector is not None
        if vector is not None:
            self.matrix[slot] = vector


def _doubled(array: Any) -> Any:
    return np.concatenate([array, np.zeros_like(array)])


class Index:
    """A storage-attached index: for each term the slots of the rows that have it; for vectors, nothing."""

    def __init__(self, schema: IndexSchema) -> None:
        self.schema = schema
        self.postings: dict[Any, set[int]] = {}

    def add(self, value: Any, slot: int) -> None:
        """Add a cell."""
        for term in self._terms(value):
            self.postings.setdefault(term, set()).add(slot)

    def discard(self, value: Any, slot: int) -> None:
        """Forget a cell."""
        for term in self._terms(value):
            slots = self.postings[term]
            slots.discard(slot)
            if not slots:
                del self.postings[term]

    def clear(self) -> None:
        """Forget all cells."""
        self.postings.clear()

    def check(self, value: Any) -> None:
        """Refuse a cell that cannot be indexed."""
        if self.schema.metric:
            check_indexable(self.schema.metric, value)

    def _terms(self, value: Any) -> Iterable[Any]:
        match self.schema.function:
            case None:
                return (value,)
            case "entries":
                return list(value.items())
            case "values":
                return set(value.values() if isinstance(value, dict) else value)
            case _:
                return list(value)


class Table:
    """One table and its indexes.

    Writes are upserts and the last write of each column wins: commands are carried out one after the other,
    so the order of arrival is the order of the write timestamps.
    """

    def __init__(self, schema: TableSchema) -> None:
        self.schema = schema
        self.indexes: dict[str, Index] = {}
        self.is_cached = False  # A node of the API knows the table only after its first insert.
        self.truncate()

    def truncate(self) -> None:
        """Remove every row."""
        self.rows: dict[Key, Row] = {}
        self.partitions: dict[Key, Partition] = {}
        self.slots: list[Row | None] = []
        self.visible_at = np.zeros(_FIRST_CAPACITY)  # when a row becomes visible to ANN, in time.monotonic()
        self.vectors = {
            name: VectorCells(column.dimension, _FIRST_CAPACITY)
            for name, column in self.schema.columns.items()
            if isinstance(column, Vector)
        }
        self._order: list[tuple[int, Key]] = []
        self._free: list[int] = []
        for index in self.indexes.values():
            index.clear()

    # writes

    def write(self, key: Key, cells: Mapping[str, Any], *, insert: bool, visible_at: float = 0.0) -> None:
        """Upsert: set the cells given, delete those given as ``None``, leave the others.

        Args:
            key: values of the primary key.
            cells: values by column, without those of the key.
            insert: whether this is an INSERT, whose row exists even with no cell left, or an UPDATE.
            visible_at: the ``time.monotonic()`` from which ANN sees the row.

        Raises:
            DataApiError: Cassandra refuses a value; nothing is written then.
        """
        self._check(key, cells)
        row = self.rows.get(key) or self._new_row(key)
        for column, value in cells.items():
            self._put(row, column, value)
        self.visible_at[row.slot] = visible_at
        row.marked = row.marked or insert
        if not row.marked and not self._has_cells(row):
            self.remove(row)

    def _check(self, key: Key, cells: Mapping[str, Any]) -> None:
        if len(self.schema.partition_by) == 1 and key[0] in ("", b""):
            raise invalid_query("Key may not be empty")
        for index in self.indexes.values():
            value = cells.get(index.schema.column)
            if value is not None:
                index.check(value)

    def _new_row(self, key: Key) -> Row:
        partition_key = key[: len(self.schema.partition_by)]
        partition = self.partitions.get(partition_key)
        if partition is None:
            partition = self.partitions[partition_key] = Partition(_token(partition_key))
            insort(self._order, (partition.token, partition_key), key=lambda entry: entry[0])
        clustering = zip(key[len(partition_key) :], self.schema.partition_sort.values(), strict=True)
        position = (
            partition.token,
            *(value if order == 1 else _Descending(value) for value, order in clustering),
        )
        if self._free:
            slot = self._free.pop()
        else:
            slot = len(self.slots)
            self.slots.append(None)
        if slot >= len(self.visible_at):
            self.visible_at = _doubled(self.visible_at)
            for cells in self.vectors.values():
                cells.grow()
        row = Row(key, position, slot)
        self.slots[slot] = self.rows[key] = row
        insort(partition.rows, row, key=_position)
        for column, value in zip(self.schema.primary_key, key, strict=True):
            self._put(row, column, value)
        return row

    def _put(self, row: Row, column: str, value: Any) -> None:
        if column in self.vectors:
            self.vectors[column].put(row.slot, value)
            return
        old = row.cells.pop(column, None)
        if value is not None:
            row.cells[column] = value
        for index in self.indexes.values():
            if index.schema.column == column:
                if old is not None:
                    index.discard(old, row.slot)
                if value is not None:
                    index.add(value, row.slot)

    def _has_cells(self, row: Row) -> bool:
        has_vector = any(cells.present[row.slot] for cells in self.vectors.values())
        return has_vector or len(row.cells) > len(self.schema.primary_key)

    def remove(self, row: Row) -> None:
        """Delete a row."""
        for column in list(row.cells):
            self._put(row, column, None)
        for cells in self.vectors.values():
            cells.put(row.slot, None)
        partition_key = row.key[: len(self.schema.partition_by)]
        partition = self.partitions[partition_key]
        del partition.rows[bisect_left(partition.rows, row.position, key=_position)]
        if not partition.rows:
            del self.partitions[partition_key]
            self._order.remove((partition.token, partition_key))
        del self.rows[row.key]
        self.slots[row.slot] = None
        self._free.append(row.slot)

    # reads

    def scan(self, after: Position | None) -> Iterator[Row]:
        """Yield every row in token and clustering order, from behind a position."""
        start = 0 if after is None else bisect_left(self._order, after[0], key=lambda entry: entry[0])
        for token, partition_key in self._order[start:]:
            rows = self.partitions[partition_key].rows
            resumed = after is not None and token == after[0]
            yield from (row for row in rows if row.position > after) if resumed else rows  # type: ignore[operator]

    def value(self, row: Row, column: str) -> Any:
        """Return a cell, or ``None``."""
        if column in self.vectors:
            cells = self.vectors[column]
            return cells.matrix[row.slot] if cells.present[row.slot] else None
        return row.cells.get(column)

    # schema

    def add_index(self, schema: IndexSchema, kind: type[Index] = Index) -> None:
        """Index a column, rows that exist included."""
        if any(
            (index.schema.column, index.schema.function) == (schema.column, schema.function)
            for index in self.indexes.values()
        ):
            raise invalid_query("Cannot create more than one storage-attached index on the same column")
        index = kind(schema)
        if not schema.metric:
            for row in self.rows.values():
                if schema.column in row.cells:
                    index.add(row.cells[schema.column], row.slot)
        self.indexes[schema.name] = index

    def add_columns(self, columns: Mapping[str, ColumnType]) -> None:
        """Add columns, null in every row."""
        columns_now = in_order(self.schema, {**self.schema.columns, **columns})
        self.schema = replace(self.schema, columns=columns_now)
        for name, column in columns.items():
            if isinstance(column, Vector):
                self.vectors[name] = VectorCells(column.dimension, len(self.visible_at))

    def drop_columns(self, names: Iterable[str]) -> None:
        """Drop columns and their cells."""
        kept = {name: column for name, column in self.schema.columns.items() if name not in set(names)}
        for row in self.rows.values():
            row.cells = {name: value for name, value in row.cells.items() if name in kept}
        self.vectors = {name: cells for name, cells in self.vectors.items() if name in kept}
        self.schema = replace(self.schema, columns=kept)


def check_indexable(metric: str, vector: np.ndarray[Any, np.dtype[np.float32]]) -> None:
    """Refuse a vector that has no similarity, as a vector index does, in writes and in queries."""
    if not np.isfinite(vector).all():
        raise invalid_query("Vectors must have finite components")
    if metric == "cosine" and np.dot(vector, vector) <= 1e-10:
        raise invalid_query("Zero and near-zero vectors cannot be indexed or queried with cosine similarity")


def _token(partition_key: Key) -> int:
    """Stand in for Murmur3: an order of the partitions that has nothing to do with their keys."""
    return int.from_bytes(hashlib.blake2b(repr(partition_key).encode(), digest_size=8).digest())
