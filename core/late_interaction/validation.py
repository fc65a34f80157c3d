"""Checks and small conversions of arguments that many modules share."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from late_interaction.types import Document, EncodedDocument, FloatMatrix, IndexSpec, QueryVectors

LARGEST = 2**63 - 1
"""The largest whole number that an argument may be: what SQLite and array indexes hold."""

_DAY_S = 86_400.0
_UNIT_TOLERANCE = 0.02
_UNSEEN = frozenset({"Zs", "Zl", "Zp", "Cc", "Cf"})
"""Unicode's categories of spaces, line ends, control and format characters."""


def check_positive(name: str, value: object) -> int:
    """Return a whole number from 1 to 2^63 - 1; `name` is the argument's, for the message.

    Raises:
        TypeError: it is not a whole number (True and False are not).
        ValueError: it is out of range.
    """
    return _check_whole(name, value, 1)


def check_not_negative(name: str, value: object) -> int:
    """Return a whole number from 0 to 2^63 - 1; otherwise as `check_positive`."""
    return _check_whole(name, value, 0)


def check_seconds(name: str, value: object) -> float:
    """Return a number of seconds from 0 to a day; otherwise as `check_positive`."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, not {shown(value)}.")
    if not 0 <= value <= _DAY_S:
        bound = "at least 0" if value < 0 else "at most a day (86,400)"
        raise ValueError(f"{name} must be {bound}, not {shown(value)}.")
    return float(value)


def _check_whole(name: str, value: object, least: int) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {shown(value)}.")
    number = int(value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, not {shown(number)}.")
    if number > LARGEST:
        raise ValueError(f"{name} must be at most 2^63 - 1, not {shown(number)}.")
    return number


def check_one_of(name: str, value: object, allowed: Sequence[str]) -> None:
    """Raise a ValueError unless the value is one of those allowed; `name` is the argument's."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {shown(value)}.")


def check_flag(name: str, value: object) -> None:
    """Raise a TypeError unless the value is True or False; `name` is the argument's."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {shown(value)}.")


def is_blank(text: str) -> bool:
    """Return whether a text has nothing to read: no characters but spaces, line ends, and control and format ones."""
    return all(unicodedata.category(character) in _UNSEEN for character in text)


def check_unicode(text: str, name: str) -> str:
    """Return a text that can be encoded as UTF-8; `name` is the field's, for the message.

    Raises:
        ValueError: it holds half of a surrogate pair.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{name!r} holds half of a surrogate pair at position {error.start}.") from None
    return str.__str__(text)


def unit_rows(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows as float32 of unit length, also where they come from a narrower type; a zero row stays zero."""
    rows: NDArray[np.float32] = matrix.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return rows


def check_matrix(matrix: ArrayLike, dim: int) -> FloatMatrix:
    """Return token vectors made elsewhere, or by a model of the user's own, as (n_tokens, dim) float32.

    Raises:
        ValueError: they are not real numbers, the shape is another, there is no token, or a row is not a unit vector.
    """
    array = _real(matrix, dim)
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        raise ValueError(f"token vectors must have shape (n_tokens ≥ 1, {dim}), not {array.shape}.")
    with np.errstate(all="ignore"):
        lengths = np.linalg.norm(array, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"token vectors must have length 1, and row {wrong[0]} has {lengths[wrong[0]]:.4g}: divide each row by "
            "its length."
        )
    return array


def check_encoded(documents: Iterable[EncodedDocument], dim: int) -> list[EncodedDocument]:
    """Return documents as a store takes them: each id once, texts and metadata of their types, matrices of float32.

    A matrix may have no rows: that of a blank text, or of one that has no token.

    Raises:
        TypeError: something is not of its type; the message names the document and its position.
        ValueError: an id is empty or given twice, or a matrix is not one of unit vectors.
    """
    checked: dict[str, EncodedDocument] = {}
    for number, encoded in enumerate(documents):
        if not isinstance(encoded, EncodedDocument) or not isinstance(encoded.document, Document):
            raise TypeError(f"document {number} must be an EncodedDocument, not {shown(encoded)}.")
        document = encoded.document
        where = f"document {number} (doc_id {shown(document.doc_id)})"
        for name, kind in (("doc_id", str), ("content", str), ("content_type", str), ("metadata", dict)):
            if not isinstance(value := getattr(document, name), kind):
                raise TypeError(f"{where}: {name} must be a {kind.__name__}, not {shown(value)}.")
        if not document.doc_id:
            raise ValueError(f"document {number}: doc_id must not be empty.")
        if document.doc_id in checked:
            raise ValueError(f"{where}: the id is given twice in one call.")
        try:
            if np.shape(encoded.matrix) == (0, dim):
                matrix = np.empty((0, dim), np.float32)
            else:
                matrix = check_matrix(encoded.matrix, dim)
            checked[document.doc_id] = replace(encoded, matrix=matrix)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    return list(checked.values())


def _real(matrix: ArrayLike, dim: int) -> FloatMatrix:
    wanted = f"token vectors must be real numbers of shape (n_tokens ≥ 1, {dim})"
    try:
        given = np.asarray(matrix)
        with np.errstate(all="ignore"):
            array = np.asarray(given.real, np.float32)
    except Exception as error:
        raise ValueError(
            f"{wanted}; this cannot be read as such: {type(error).__name__}: {error}."
        ) from error
    if given.dtype.kind == "c" or isinstance(matrix, np.ma.MaskedArray):
        raise ValueError(f"{wanted}, not a {'complex' if given.dtype.kind == 'c' else 'masked'} array.")
    return array


def check_ids(doc_ids: object) -> list[str]:
    """Check the types of ids, and return those that a document may have.

    Raises:
        TypeError: it is not a collection of str.
    """
    if isinstance(doc_ids, str):
        raise TypeError(f"ids must be a list of str, not the one str {shown(doc_ids)}.")
    if not isinstance(doc_ids, Iterable) or isinstance(doc_ids, Mapping):
        raise TypeError(f"ids must be a list of str, not {shown(doc_ids)}.")
    ids = list(doc_ids)
    for doc_id in ids:
        if not isinstance(doc_id, str):
            raise TypeError(f"an id must be a str, not {shown(doc_id)}.")
    # Half of a surrogate pair cannot be asked for, and no id has one.
    if "".join(ids).isascii():
        return ids
    return [doc_id for doc_id in ids if not any("\ud800" <= each <= "\udfff" for each in doc_id)]


def check_spec(spec: object) -> IndexSpec:
    """Return a spec.

    Raises:
        TypeError: it is not one.
    """
    if not isinstance(spec, IndexSpec):
        raise TypeError(
            f"a store is opened with an IndexSpec, such as a pipeline's .spec, not {shown(spec)}."
        )
    return spec


def check_query(query: object, dim: int) -> QueryVectors:
    """Return a query whose vectors have the index's width.

    Raises:
        TypeError: it is no `QueryVectors` of arrays.
        ValueError: the vectors or the weights have another shape.
    """
    if not isinstance(query, QueryVectors) or not isinstance(query.vectors, np.ndarray):
        raise TypeError(f"a store is asked with QueryVectors, as pool_query makes them, not {shown(query)}.")
    shape, weights = query.vectors.shape, np.shape(query.weights)
    if len(shape) != 2 or shape[1] != dim or not shape[0] or weights != shape[:1]:
        raise ValueError(
            f"a query's vectors must have shape (n ≥ 1, {dim}) and its weights (n,), not {shape} and {weights}."
        )
    return query


def first_line(error: BaseException, most: int = 200) -> str:
    """Return the first line of what another library's error says, as a sentence, for a message of ours."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = lines[0] if len(lines[0]) <= most else f"{lines[0][:most]}…"
    return said if said[-1] in ".!?…" else f"{said}."


def shown(value: object, most: int = 60) -> str:
    """Return a value as a message shows it: its repr, shortened, whatever the repr does."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - a repr of somebody else's, or one that nests too deep
        return f"a {type(value).__name__}"
    return text if len(text) <= most else f"{text[: most - 1]}…"
