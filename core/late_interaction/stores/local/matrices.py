"""Packed token matrices, read many at a time.

`sqlite3` lets other threads run before each row that it reads, and before each column of it. A thread that reads
hundreds of rows would lose its turn hundreds of times, which costs more than the reading. So SQLite itself puts the
rows of a batch together, and one row comes back.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.packing import HEADER_BYTES, has_vectors, unpack_many, unpack_parts
from late_interaction.stores.local.tables import BATCH, select_in
from late_interaction.types import RaggedTokens

VALUES = 1 << 21
"""How many values of token vectors are held in memory at a time, if one document does not have more."""


def read_matrices(
    connection: sqlite3.Connection, row_ids: NDArray[np.int64], n_tokens: NDArray[np.int32], dim: int
) -> Iterator[tuple[NDArray[np.int64], RaggedTokens]]:
    """Yield the matrices of the documents of these row ids that exist, in batches, each with its row ids.

    Args:
        connection: sees the documents.
        row_ids: (n,) ascending.
        n_tokens: (n,) about how many tokens each has.
        dim: the width of a token vector.

    Raises:
        StoreError: a matrix is damaged.
    """
    ends = np.cumsum(n_tokens)
    first = 0
    while first < len(row_ids):
        before = ends[first] - n_tokens[first]
        last = int(np.searchsorted(ends, before + max(1, VALUES // dim), side="right"))
        last = min(max(last, first + 1), first + BATCH, len(row_ids))
        batch = _read(connection, row_ids[first:last].tolist())
        if batch is not None:
            yield batch
        first = last


def _read(
    connection: sqlite3.Connection, row_ids: Sequence[int]
) -> tuple[NDArray[np.int64], RaggedTokens] | None:
    query = (
        "SELECT group_concat(rid || ',' || ifnull(length(packed), -1)), "
        f"CAST(group_concat(substr(packed, 1, {HEADER_BYTES}), '') AS BLOB), "
        f"CAST(group_concat(substr(packed, {HEADER_BYTES + 1}), '') AS BLOB) "
        f"FROM vectors WHERE rid IN ({', '.join('?' * len(row_ids))})"
    )
    numbers, headers, rows = connection.execute(query, row_ids).fetchone()
    if numbers is None:
        return None
    found_ids, n_bytes = np.fromstring(numbers, np.int64, sep=",").reshape(-1, 2).T
    if np.any(n_bytes < 0):
        raise StoreError("a packed token matrix is damaged: it is missing.")
    return found_ids, unpack_parts(headers, n_bytes, rows)


def read_by_id(
    connection: sqlite3.Connection, doc_ids: Sequence[str], dim: int
) -> tuple[list[str], RaggedTokens]:
    """Return those of the documents that exist and have vectors, in the order asked, and their matrices.

    Raises:
        StoreError: a matrix is damaged.
    """
    found = dict(
        select_in(connection, "doc_id, packed FROM documents JOIN vectors USING (rid)", "doc_id", doc_ids)
    )
    there = [doc_id for doc_id in doc_ids if doc_id in found and has_vectors(found[doc_id])]
    return there, unpack_many([found[doc_id] for doc_id in there], dim)
