"""Token matrices as bytes: the same bytes in SQLite and in Astra's blob column.

Layout, little-endian: a 16-byte header (magic `LIM`, format version, dtype code, 3 zero bytes, n_tokens as
uint32, dim as uint32), then the rows, one per token. An int8 row is its float32 scale and then its codes.
int8 keeps each row's direction: codes are `round(x · 127 / max|x|)`, and the scale is `‖x‖ / ‖codes‖`, so
that a unit row comes back as a unit row and packing what was unpacked gives the same codes. Rows are unit rows: a
value far above 1, or not a number, is damage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.types import FloatMatrix, PackingDtype, RaggedTokens
from late_interaction.validation import check_one_of

_HEADER = np.dtype(
    {
        "names": ["magic", "version", "dtype", "n_tokens", "dim"],
        "formats": ["S3", "u1", "u1", "<u4", "<u4"],
        "offsets": [0, 3, 4, 8, 12],
        "itemsize": 16,
    }
)
HEADER_BYTES = _HEADER.itemsize
_SCALE = np.dtype("<f4")
_MAGIC = b"LIM"
_VERSION = 1
_LARGEST = 2.0  # far above every value of a unit row, its rounding included
_CODES: dict[str, int] = {"int8": 1, "float16": 2, "float32": 3}
_NAMES = {code: name for name, code in _CODES.items()}


def pack(matrix: FloatMatrix, dtype: PackingDtype = "int8") -> bytes:
    """Pack a (n_tokens, dim) float32 matrix.

    int8 takes dim + 4 bytes per token and moves a cosine by at most about 0.005; float16 takes 2·dim bytes,
    float32 4·dim.
    """
    check_packing(dtype)
    n_tokens, dim = matrix.shape
    header = np.zeros((), _HEADER)
    header["magic"], header["version"], header["dtype"] = _MAGIC, _VERSION, _CODES[dtype]
    header["n_tokens"], header["dim"] = n_tokens, dim
    if dtype != "int8":
        return b"".join((header.tobytes(), matrix.astype(np.dtype(dtype).newbyteorder("<")).tobytes()))
    peaks = np.abs(matrix).max(axis=1, keepdims=True)
    codes = np.rint(matrix * (127 / np.where(peaks > 0, peaks, 1)))
    lengths = np.linalg.norm(codes, axis=1)
    scales = np.linalg.norm(matrix, axis=1) / np.where(lengths > 0, lengths, 1)
    scale_bytes = scales.astype(_SCALE)[:, None].view(np.int8)
    return b"".join((header.tobytes(), np.hstack([scale_bytes, codes.astype(np.int8)]).tobytes()))


def check_packing(dtype: str) -> None:
    """Raise `ValueError` unless `dtype` is one that `pack` knows."""
    check_one_of("packing", dtype, get_args(PackingDtype))


def unpack(blob: bytes) -> FloatMatrix:
    """Return the (n_tokens, dim) float32 matrix of a packed one, which may have no rows.

    Raises:
        StoreError: the bytes are not what `pack` writes.
    """
    if has_vectors(blob):
        return unpack_many([blob]).matrix(0)
    header = np.frombuffer(blob, _HEADER)[0]
    if header["magic"] != _MAGIC or header["version"] != _VERSION or header["n_tokens"]:
        raise StoreError("a packed token matrix is damaged: its length is not the one that its header says.")
    return np.empty((0, int(header["dim"])), np.float32)


def has_vectors(blob: bytes) -> bool:
    """Return whether a packed matrix has rows; that of a blank text has none."""
    return len(blob) != HEADER_BYTES


def unpack_many(blobs: Sequence[bytes], dim: int | None = None) -> RaggedTokens:
    """Return packed matrices, each with rows, side by side, in the dtype they are packed in: nothing is widened yet.

    Args:
        blobs: packed matrices of one dtype and dim.
        dim: needed only where `blobs` may be empty.

    Raises:
        StoreError: the bytes are not what `pack` writes, or differ in dtype or dim.
    """
    if not blobs:
        return RaggedTokens.from_matrices([], dim)
    return unpack_parts(
        b"".join([blob[:HEADER_BYTES] for blob in blobs]),
        np.fromiter(map(len, blobs), np.int64, len(blobs)),
        b"".join([memoryview(blob)[HEADER_BYTES:] for blob in blobs]),
    )


def unpack_parts(headers: bytes, sizes: NDArray[np.int64], rows: bytes) -> RaggedTokens:
    """Return packed matrices that were cut into headers and rows, as `unpack_many` does.

    Args:
        headers: the first `HEADER_BYTES` of each, one after the other.
        sizes: (n,) how many bytes each had, n ≥ 1.
        rows: what followed the header of each, one after the other.

    Raises:
        StoreError: the bytes are not what `pack` writes, or differ in dtype or dim.
    """
    if len(headers) != len(sizes) * HEADER_BYTES:
        raise StoreError("a packed token matrix is damaged: it is shorter than its header.")
    fields = np.frombuffer(headers, _HEADER)
    first = fields[0]
    if first["magic"] != _MAGIC or int(first["dtype"]) not in _NAMES:
        raise StoreError("a packed token matrix is damaged: its header is not one of ours.")
    if first["version"] != _VERSION:
        raise StoreError(
            f"packed token matrices have format {first['version']}; this release reads {_VERSION}."
        )
    if np.any(fields[["magic", "version", "dtype", "dim"]] != first[["magic", "version", "dtype", "dim"]]):
        raise StoreError("packed token matrices differ in format, dtype or dim, or one of them is damaged.")
    name, width = _NAMES[int(first["dtype"])], int(first["dim"])
    dtype = np.dtype(name).newbyteorder("<")
    n_tokens = fields["n_tokens"].astype(np.int64)
    row_bytes = width * dtype.itemsize + (_SCALE.itemsize if name == "int8" else 0)
    offsets = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(n_tokens, out=offsets[1:])
    fits = np.all(sizes == HEADER_BYTES + n_tokens * row_bytes) and len(rows) == int(offsets[-1]) * row_bytes
    if not width or not n_tokens.all() or not fits:
        raise StoreError("a packed token matrix is damaged: its length is not the one that its header says.")
    if name != "int8":
        values = np.frombuffer(rows, dtype)
        if not _is_within_bounds(values):
            raise StoreError("a packed token matrix is damaged: a value is not one of a unit vector.")
        return RaggedTokens(values.reshape(-1, width), offsets)
    codes = np.frombuffer(rows, np.int8).reshape(-1, row_bytes)
    scales: NDArray[np.float32] = np.ndarray(len(codes), _SCALE, rows, strides=(row_bytes,)).copy()
    if not (scales.min() >= 0 and scales.max() <= _LARGEST / 127):
        raise StoreError("a packed token matrix is damaged: a scale is not one of a unit vector.")
    return RaggedTokens(codes[:, _SCALE.itemsize :], offsets, scales)


def _is_within_bounds(values: NDArray[np.floating[Any]]) -> bool:
    """Whether all values are numbers between -`_LARGEST` and `_LARGEST`.

    Floats without their sign are ordered as the whole numbers of the same bits, NaN last, and numpy compares those
    9 times as fast as float16.
    """
    bits = np.dtype(f"<u{values.itemsize}")
    magnitudes = values.view(bits) & (np.iinfo(bits).max >> 1)
    return bool(magnitudes.max() <= np.array(_LARGEST, values.dtype).view(bits))
