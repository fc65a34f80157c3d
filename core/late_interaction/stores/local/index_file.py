"""The embedded store's index file: a NumPy archive that is written whole, and checked wholly when it is read.

The file may come from anywhere: damaged, made by another release, or made by hand. So nothing in it is believed before
it was checked, in milliseconds: names, types, shapes, ranges, order, finiteness and the digest of its content, which is
its name. What a wrong but well-formed index could still do is to order candidates badly; the scores of what is found
come from the documents.
"""

from __future__ import annotations

import os
import stat
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.stores.local.centroids import CentroidIndex
from late_interaction.stores.local.lists import BLOCK, Lists

_FORMAT = 1
_LONGEST_NAME = 64
_LARGEST_HEADER = 1024


class UnusableIndexError(StoreError):
    """An index file that is damaged, or that no release of ours wrote; the message says what is wrong."""


@contextmanager
def written_index(index: CentroidIndex, path: Path, mode: int = 0o600) -> Iterator[Path]:
    """Write an index to a temporary file beside `path`, to be renamed within the block; else it is deleted.

    The file gets a random name, is created exclusively, and follows no link.

    Args:
        index: what to write.
        path: where it is to be.
        mode: the permissions of the file.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)
            np.savez(
                file,
                format=np.int64(_FORMAT),
                index_id=np.array(index.index_id),
                build_id=np.array(index.build_id),
                centroids=index.centroids.astype(np.float16),
                starts=index.lists.bounds(),
                postings=index.lists.entries(),
                rids=index.row_ids,
                trained_tokens=np.int64(index.trained_tokens),
            )
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files that a killed build left beside `path`; only for whoever builds alone."""
    for leftover in (path.with_name(f"{path.name}.tmp"), *path.parent.glob(f"{path.name}.*.tmp")):
        if leftover.is_symlink() or leftover.is_file():
            leftover.unlink(missing_ok=True)


def load_index(path: Path, dim: int) -> CentroidIndex:
    """Read an index and check all of it.

    Args:
        path: the file.
        dim: the width of a token vector.

    Raises:
        UnusableIndexError: something is wrong with it.
    """
    try:
        with _opened(path) as file, zipfile.ZipFile(file) as archive:
            size = os.fstat(file.fileno()).st_size
            _check(all(member.file_size <= size for member in archive.infolist()), "it is cut off")
            return _read(archive, dim)
    except UnusableIndexError:
        raise
    except Exception as error:
        raise UnusableIndexError(f"it cannot be read ({type(error).__name__}: {error})") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    # Not blocking, since to open a pipe would wait for its writer.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        _check(stat.S_ISREG(os.fstat(handle).st_mode), "it is not a regular file")
        yield file


def _read(archive: zipfile.ZipFile, dim: int) -> CentroidIndex:
    version = _array(archive, "format", np.int64, ())
    _check(version == _FORMAT, f"it has format {version}, and this release reads {_FORMAT}")
    index_id = _name(archive, "index_id")
    build_id = _name(archive, "build_id") if "build_id.npy" in archive.namelist() else ""
    centroids = _array(archive, "centroids", np.float16, (None, dim), np.float32)
    bounds = _array(archive, "starts", np.int64, (len(centroids) + 1,))
    row_ids = _array(archive, "rids", np.int64, (None,))
    trained_tokens = int(_array(archive, "trained_tokens", np.int64, ()))
    _check(len(centroids) > 0, "it has no centroids")
    values = centroids.ravel()
    finite = (np.isfinite(values[i : i + BLOCK]).all() for i in range(0, len(values), BLOCK))
    _check(all(finite), "a centroid is not finite")
    _check(bounds[0] == 0 and bool(np.all(np.diff(bounds) >= 0)), "the lists' starts descend")
    _check(bool(np.all(np.diff(row_ids) > 0)), "the row ids do not ascend")
    _check(not len(row_ids) or row_ids[0] > 0, "a row id is not positive")
    _check(trained_tokens > 0, "it was trained on nothing")
    with _values(archive, "postings", np.int32, (None,)) as (shape, read):
        _check(shape[0] == bounds[-1], "the lists do not fit their starts")
        try:
            lists = Lists.read(bounds, len(row_ids), read)
        except ValueError as error:
            raise UnusableIndexError(str(error)) from error
    index = CentroidIndex(
        index_id=index_id,
        build_id=build_id,
        centroids=centroids,
        lists=lists,
        row_ids=row_ids,
        trained_tokens=trained_tokens,
    )
    # Values that are possible, and not those that were written, would find less than they should.
    _check(not build_id or build_id == index.digest(), "its content is not what was written")
    return index


def _name(archive: zipfile.ZipFile, name: str) -> str:
    return str(_array(archive, name, np.str_, ()))


def _array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
    widened: type[np.generic] | None = None,
) -> NDArray[Any]:
    """Read an array, in a wider dtype if one is given; it is checked before there is memory for it."""
    with _values(archive, name, dtype, shape) as (found_shape, read):
        array = np.empty(found_shape, widened or read(0).dtype)
        values = array.reshape(-1)
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            block[:] = read(len(block))
    return array


@contextmanager
def _values(
    archive: zipfile.ZipFile, name: str, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> Iterator[tuple[tuple[int, ...], Callable[[int], NDArray[Any]]]]:
    """Check an array's type and shape, and give its shape and what reads its next n values."""
    member = archive.getinfo(f"{name}.npy")
    _check(member.compress_type == zipfile.ZIP_STORED, f"{name} is compressed")
    with archive.open(member) as file:
        version = npy.read_magic(file)
        _check(version == (1, 0), f"{name} has an unknown layout")
        header = npy.read_array_header_1_0(file, max_header_size=_LARGEST_HEADER)
        found_shape, fortran, found_dtype = header
        if dtype is np.str_:
            known = found_dtype.kind == "U" and found_dtype.itemsize <= 4 * _LONGEST_NAME
        else:
            known = found_dtype == np.dtype(dtype)
        _check(known, f"{name} has the type {found_dtype}")
        fits = len(found_shape) == len(shape) and all(
            wanted in (None, found) for wanted, found in zip(shape, found_shape, strict=True)
        )
        _check(fits and not (fortran and len(shape) > 1), f"{name} has the shape {found_shape}")
        n_bytes = found_dtype.itemsize
        for length in found_shape:
            n_bytes *= length
        n_there = member.file_size - file.tell()
        _check(n_there == n_bytes, f"{name} has {n_there} bytes instead of {n_bytes}")
        yield found_shape, lambda n: np.frombuffer(file.read(n * found_dtype.itemsize), found_dtype)


def _check(condition: bool | np.bool_, problem: str) -> None:
    if not condition:
        raise UnusableIndexError(problem)
