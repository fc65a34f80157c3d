"""Token matrices as bytes: the same bytes in SQLite and in Astra's blob column.

Layout, little-endian: a 16-byte header (magic `LIM`, format version, dtype code, 3 zero bytes, n_tokens as
uint32, dim as uint32), then for int8 one float32 scale per token, then the rows. int8 keeps each row's
direction: codes are `round(x · 127 / max|x|)`, and the scale is `‖x‖ / ‖codes‖`, so that a unit row comes back
as a unit row and packing what was unpacked gives the same codes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.types import FloatMatrix, PackingDtype, RaggedTokens

_HEADER = struct.Struct("<3sBB3xII")
_MAGIC = b"LIM"
_VERSION = 1
_CODES: dict[str, int] = {"int8": 1, "float16": 2, "float32": 3}
_NAMES = {code: name for name, code in _CODES.items()}


def pack(matrix: FloatMatrix, dtype: PackingDtype = "int8") -> bytes:
    """Pack a (n_tokens, dim) float32 matrix.

    int8 takes dim + 4 bytes per token and moves a cosine by at most about 0.005; float16 takes 2·dim bytes,
    float32 4·dim.
    """
    check_packing(dtype)
    n_tokens, dim = matrix.shape
    header = _HEADER.pack(_MAGIC, _VERSION, _CODES[dtype], n_tokens, dim)
    if dtype != "int8":
        rows: bytes = matrix.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
        return header + rows
    peaks = np.abs(matrix).max(axis=1, keepdims=True)
    codes = np.rint(matrix * (127 / np.where(peaks > 0, peaks, 1)))
    lengths = np.linalg.norm(codes, axis=1)
    scales = np.linalg.norm(matrix, axis=1) / np.where(lengths > 0, lengths, 1)
    return header + scales.astype("<f4").tobytes() + codes.astype(np.int8).tobytes()


def check_packing(dtype: str) -> None:
    """Raise `ValueError` unless `dtype` is one that `pack` knows."""
    if dtype not in _CODES:
        raise ValueError(f"packing must be one of {', '.join(get_args(PackingDtype))}, not {dtype!r}.")


def unpack(blob: bytes) -> FloatMatrix:
    """The (n_tokens, dim) float32 matrix of a packed one.

    Raises:
        StoreError: the bytes are not what `pack` writes.
    """
    return unpack_many([blob]).matrix(0)


def unpack_many(blobs: Sequence[bytes], dim: int | None = None) -> RaggedTokens:
    """Packed matrices side by side, in the dtype they are packed in: nothing is widened yet.

    Args:
        blobs: packed matrices of one dtype and dim.
        dim: needed only where `blobs` may be empty.

    Raises:
        StoreError: the bytes are not what `pack` writes, or differ in dtype or dim.
    """
    if not blobs:
        return RaggedTokens.from_matrices([], dim)
    name, _, width = _read_header(blobs[0])
    offsets = np.zeros(len(blobs) + 1, np.int64)
    rows: list[NDArray[Any]] = []
    scales: list[NDArray[np.float32]] = []
    dtype = np.dtype(name).newbyteorder("<")
    for index, blob in enumerate(blobs):
        this_name, n_tokens, this_width = _read_header(blob)
        if (this_name, this_width) != (name, width):
            raise StoreError(
                f"packed matrices differ: {name} of dim {width} beside {this_name} of dim {this_width}."
            )
        offsets[index + 1] = offsets[index] + n_tokens
        start = _HEADER.size
        if name == "int8":
            scales.append(np.frombuffer(blob, "<f4", n_tokens, start))
            start += 4 * n_tokens
        rows.append(np.frombuffer(blob, dtype, n_tokens * width, start))
    tokens = np.concatenate(rows).reshape(-1, width)
    return RaggedTokens(tokens, offsets, np.concatenate(scales) if scales else None)


def _read_header(blob: bytes) -> tuple[str, int, int]:
    """(dtype name, n_tokens, dim), after checking that the blob is whole."""
    if len(blob) < _HEADER.size:
        raise StoreError(f"a packed token matrix is damaged: {len(blob)} bytes, less than its header.")
    magic, version, code, n_tokens, dim = _HEADER.unpack_from(blob)
    if magic != _MAGIC or code not in _NAMES:
        raise StoreError("a packed token matrix is damaged: its header is not one of ours.")
    if version != _VERSION:
        raise StoreError(f"a packed token matrix has format {version}; this release reads format {_VERSION}.")
    name = _NAMES[code]
    row = dim + 4 if name == "int8" else dim * np.dtype(name).itemsize
    if len(blob) != _HEADER.size + n_tokens * row:
        raise StoreError(
            f"a packed token matrix is damaged: {len(blob)} bytes where {n_tokens} tokens of {dim} {name} need "
            f"{_HEADER.size + n_tokens * row}."
        )
    return name, n_tokens, dim
