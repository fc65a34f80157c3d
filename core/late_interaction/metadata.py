"""Metadata: one plain form for each value, the JSON text that stores keep, and the instant that a date means.

Plain values are None, bool, int, float, str, `datetime.datetime`, and lists and dicts of them. `plain_value` makes one
of what loaders, pandas and numpy leave in metadata; documents, updates and filters all go through it. docs/filters.md
has the table.

JSON has no datetimes. In the text a datetime is `{"$datetime": "2024-05-01T12:00:00+02:00"}`, and a dict of a user's
that looks like it is wrapped: `{"$literal": {"$datetime": …}}`.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import json
import math
import numbers
import os
import re
import uuid
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any, NoReturn

import numpy as np

from late_interaction.validation import check_flag, shown

MAX_DEPTH = 100
"""How deep objects and lists in metadata may nest."""
DATETIME = "$datetime"
"""The key that marks a datetime in JSON text."""
LITERAL = "$literal"
"""The key that marks a dict which only looks like a datetime in JSON text."""

_MAX_BITS = 10_000
"""Of an integer in metadata: Python itself writes and reads 4,300 digits at most."""
_MAX_DIGITS = 3_000
_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 - instants are counted without a zone
_MICROSECOND = dt.timedelta(microseconds=1)
_ISO = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d(:\d\d(\.\d{1,6})?)?)?)?)?", re.ASCII
)
_PLAIN = "None, a bool, a number, a str, a datetime, a list or a dict"
_HINTS: tuple[tuple[type | tuple[type, ...], str], ...] = (
    ((bytes, bytearray, memoryview), "decode it, or write it as base64"),
    ((dt.timedelta, np.timedelta64), "write its total_seconds()"),
)

MARK = "_sync"
"""Key under which a store keeps the mark of a document that `sync` wrote; no part of its metadata."""


class NotPlainError(ValueError):
    """A value has no plain form.

    Attributes:
        path: where it is, such as "authors[0].photo"; "" for the whole.
        reason: what it is, as the rest of a sentence.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} {reason}".strip())
        self.path, self.reason = path, reason


def check_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata with each value in its plain form, a deep copy.

    >>> check_metadata({"id": uuid.UUID(int=7), "tags": {"b", "a"}, "share": float("nan")})
    {'id': '00000000-0000-0000-0000-000000000007', 'tags': ['a', 'b'], 'share': None}

    Raises:
        TypeError: they are not a mapping, or a key is not a str.
        ValueError: a key holds a NUL character or is reserved, they nest too deep, or a value has no plain form.
    """
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata are a mapping such as {{'lang': 'en'}}, not {shown(metadata)}.")
    if MARK in metadata:
        raise ValueError(f"the metadata key {MARK!r} is reserved for what sync keeps of a document.")
    try:
        return {check_key(key): plain_value(value, str(key), 1) for key, value in metadata.items()}
    except NotPlainError as error:
        raise ValueError(f"metadata {error.path[:80]!r} {error.reason}") from None


def with_mark(metadata: Mapping[str, Any], mark: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what a store keeps as metadata: them, and the mark of `sync` under its reserved key."""
    return dict(metadata) if mark is None else {**metadata, MARK: dict(mark)}


def without_mark(stored: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the metadata in what `with_mark` made, and the mark."""
    mark = stored.pop(MARK, None)
    return stored, mark


@dataclasses.dataclass(frozen=True, slots=True)
class MetadataChange:
    """How the metadata of a document change.

    Attributes:
        values: keys to set, with plain values.
        remove: keys to take away; those that are not there do not matter.
        replace: take away every other key too.
    """

    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remove: Collection[str] = ()
    replace: bool = False

    @classmethod
    def of(cls, values: Mapping[str, Any] | None, remove: Collection[str], replace: bool) -> MetadataChange:
        """Check what a caller asks for.

        Raises:
            TypeError: an argument is of another type.
            ValueError: there is nothing to do, a key is both set and removed, or a value has no plain form.
        """
        check_flag("replace", replace)
        if isinstance(remove, str | Mapping) or not isinstance(remove, Collection):
            raise TypeError(f"remove must be a list of keys, not {shown(remove)}.")
        if values is None and (replace or not remove):
            raise ValueError("give the metadata to set, or the keys to remove.")
        made = cls({} if values is None else check_metadata(values), tuple(map(check_key, remove)), replace)
        if replace and made.remove:
            raise ValueError("replace=True leaves no other key: there is nothing to remove.")
        if both := made.values.keys() & set(made.remove):
            raise ValueError(f"{', '.join(map(shown, sorted(both)))} cannot be both set and removed.")
        return made

    def apply(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """Return what becomes of metadata."""
        kept = {k: v for k, v in metadata.items() if k == MARK or not (self.replace or k in self.remove)}
        return {**kept, **self.values}


def as_change(change: object) -> MetadataChange:
    """Return a change as a store was given it, or the one that a dict of keys to set means.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(change, MetadataChange):
        return change
    if not isinstance(change, dict):
        raise TypeError(f"metadata must be a dict, not {shown(change)}.")
    return MetadataChange(change)


def check_key(key: object) -> str:
    """Return a metadata key as a str.

    Raises:
        TypeError: it is not a str.
        ValueError: it holds a NUL character.
    """
    if not isinstance(key, str):
        raise TypeError(f"metadata keys are str, not {type(key).__name__} ({shown(key)}).")
    if "\0" in key:
        raise ValueError(f"metadata key {shown(key)} holds a NUL character.")
    return str.__str__(key)


def plain_value(value: object, path: str = "", depth: int = 0) -> Any:
    """Return a value in its plain form, a deep copy.

    Args:
        value: what a caller gave.
        path: where it is, for the message.
        depth: how many lists and mappings are around it.

    Raises:
        NotPlainError: it has none, or holds something that has none.
        TypeError: a key is not a str.
    """
    if value is None or type(value) in (str, bool):
        return value
    if type(value) in (int, float):
        return _number(value, path)
    if depth > MAX_DEPTH:
        raise NotPlainError(path, f"nests too deep, or holds itself: {MAX_DEPTH} levels is the most.")
    match value:
        case enum.Enum():
            return plain_value(value.value, path, depth + 1)
        case str():
            return str.__str__(value)
        case dt.datetime():
            return _moment(value)
        case np.datetime64():
            return _moment_of_numpy(value, path)
        case dt.date() | dt.time():
            return value.isoformat()
        case np.bool_():
            return bool(value)
        case np.timedelta64():
            pass
        case numbers.Real() | decimal.Decimal():
            return _number(value, path)
        case uuid.UUID():
            return str(value)
        case os.PathLike():
            return plain_value(os.fspath(value), path, depth + 1)
        case Mapping():
            return {
                check_key(key): plain_value(item, f"{path}.{key}", depth + 1) for key, item in value.items()
            }
        case bytes() | bytearray() | memoryview():
            pass
        case Set():
            return _sorted([plain_value(item, f"{path}[…]", depth + 1) for item in value])
        case Sequence():
            return [
                plain_value(item, f"{path}[{position}]", depth + 1) for position, item in enumerate(value)
            ]
        case _ if type(value).__name__ == "NAType":  # pandas.NA
            return None
        case np.ndarray() if value.dtype.kind in "mMV":
            return plain_value(list(value) if value.ndim else value[()], path, depth + 1)
        case _ if not isinstance(value, np.generic) and hasattr(type(value), "__array__"):
            if callable(tolist := getattr(value, "tolist", None)):  # of numpy, pandas, torch, …
                return plain_value(tolist(), path, depth + 1)
    hint = next((hint for kinds, hint in _HINTS if isinstance(value, kinds)), f"use {_PLAIN}")
    if hasattr(type(value), "model_dump") or dataclasses.is_dataclass(value):
        hint = "write its fields as a dict, by model_dump() or dataclasses.asdict"
    raise NotPlainError(path, f"is a {type(value).__name__}, which has no plain form: {hint}.")


def _number(value: Any, path: str) -> int | float | None:
    """Return a number as an int where it is one or its type is exact and it is whole, else as the nearest float."""
    if isinstance(value, decimal.Decimal):
        if value.is_nan():
            return None
        if value.is_finite() and value.adjusted() > _MAX_DIGITS:
            raise NotPlainError(path, f"is {shown(value)}, which is too large.")
        whole = value.is_finite() and value == value.to_integral_value()
    else:
        whole = isinstance(value, numbers.Integral) or (
            isinstance(value, fractions.Fraction) and value.denominator == 1
        )
    if whole:
        number = int(value)
        if number.bit_length() > _MAX_BITS:
            raise NotPlainError(path, f"is an integer of {number.bit_length():,} bits, which is too long.")
        return number
    try:
        real = float(value)
    except OverflowError:
        real = math.inf
    if math.isnan(real):
        return None
    if math.isinf(real):
        raise NotPlainError(
            path, f"is {shown(value)}, which has no plain form: use None, or a finite number."
        )
    return real


def _moment(value: dt.datetime) -> dt.datetime | None:
    """Return a datetime of Python itself, with a fixed offset for a zone; None for pandas' NaT."""
    if value != value:  # NaT is not equal to itself.
        return None
    offset = value.utcoffset()
    zone = None if offset is None else dt.timezone(offset) if offset else dt.UTC
    date, time = (value.year, value.month, value.day), (value.hour, value.minute, value.second)
    return dt.datetime(*date, *time, value.microsecond, tzinfo=zone)


def _moment_of_numpy(value: np.datetime64, path: str) -> dt.datetime | None:
    if np.isnat(value):
        return None
    moment = value.astype("datetime64[us]").item()
    if not isinstance(moment, dt.datetime):
        raise NotPlainError(path, f"is {shown(value)}, outside of the years 1 to 9999.")
    return moment


def _sorted(values: list[Any]) -> list[Any]:
    """Sort the elements of a set, so that equal sets have one form."""
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=dumps)


# --- instants


def instant(value: object) -> int | None:
    """Return the instant that a datetime or an ISO 8601 string means, in microseconds since 1970; None for all else.

    Without an offset it is in UTC; a date is its midnight.

    >>> instant("2024-05-01T12:00:00+02:00") == instant("2024-05-01 10:00:00Z")
    True
    """
    if isinstance(value, str):
        return _instant_of_text(value) if value[4:5] == "-" else None
    return _instant_of(value) if isinstance(value, dt.datetime) else None


def _instant_of(moment: dt.datetime) -> int:
    offset = moment.utcoffset() or dt.timedelta()
    return (moment.replace(tzinfo=None) - _EPOCH - offset) // _MICROSECOND


@functools.lru_cache(maxsize=4096)
def _instant_of_text(text: str) -> int | None:
    if not _ISO.fullmatch(text):
        return None
    try:
        return _instant_of(dt.datetime.fromisoformat(text))
    except ValueError:
        return None


# --- JSON


def dumps(value: Any, *, sort_keys: bool = False) -> str:
    """Return a plain value as JSON text: in ASCII, with numbers as Python writes them.

    Raises:
        TypeError: a value is not plain.
        ValueError: a number is not finite, or a value holds itself.
        RecursionError: it nests too deep.
    """
    text = _written(value, sort_keys)
    # A dict that only looks like a datetime is rare enough to look for it in the text.
    return _written(_wrapped(value, top=True), sort_keys) if f'"{DATETIME}"' in text else text


def loads(text: str) -> Any:
    """Return the plain value that `dumps` wrote; text that an earlier release wrote means what it meant.

    Raises:
        ValueError, TypeError, RecursionError: it is not JSON text.
    """
    value = _DECODER.decode(text)
    return _unwrapped(value, top=True) if f'"{DATETIME}"' in text else value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse)
"""Told what to do with a constant, `json.loads` makes a decoder at each call, which takes longer than to read."""


def _written(value: Any, sort_keys: bool) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":"), sort_keys=sort_keys, default=_tagged)


def _tagged(value: object) -> dict[str, str]:
    if isinstance(value, dt.datetime):
        return {DATETIME: value.isoformat()}
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _wrapped(value: Any, *, top: bool = False) -> Any:
    if isinstance(value, dt.datetime):
        return _tagged(value)
    if isinstance(value, Mapping):
        inner = {key: _wrapped(item) for key, item in value.items()}
        return {LITERAL: inner} if _looks_marked(inner) and not top else inner
    return [_wrapped(item) for item in value] if isinstance(value, list | tuple) else value


def _unwrapped(value: Any, *, top: bool = False) -> Any:
    if isinstance(value, list):
        return [_unwrapped(item) for item in value]
    if not isinstance(value, dict):
        return value
    if _looks_marked(value) and not top:
        if (moment := _moment_of_tag(value)) is not None:
            return moment
        if LITERAL in value:
            value = value[LITERAL]
    return {key: _unwrapped(item) for key, item in value.items()}


def _looks_marked(value: object) -> bool:
    """Return whether a value is `{"$datetime": …}`, or that in any number of wrappings."""
    return (
        isinstance(value, Mapping)
        and len(value) == 1
        and (DATETIME in value or _looks_marked(value.get(LITERAL)))
    )


def _moment_of_tag(value: Mapping[str, Any]) -> dt.datetime | None:
    """Return the datetime of a tag; None for a dict of somebody else's."""
    text = value.get(DATETIME)
    try:
        moment = dt.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    return moment if moment is not None and moment.isoformat() == text else None
