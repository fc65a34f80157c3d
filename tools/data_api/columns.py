"""Column types: what the Data API takes for each, and the form in which it gives the value back.

Values are kept as Python objects that hash and compare as Cassandra's do. ``parse`` raises ``ValueError`` with
the reason; the caller makes it the error of its own clause (INVALID_COLUMN_VALUES and its like).
"""

import base64
import binascii
import datetime as dt
import math
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

import numpy as np
import orjson

from tools.data_api.errors import DataApiError, invalid_structure

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_NOT_A_NUMBER = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


class WrongJsonTypeError(ValueError):
    """A JSON value of a type from which the column has no way to convert."""


class ColumnType(Protocol):
    """A column type: JSON in, Python value inside, JSON out."""

    @property
    def is_scalar(self) -> bool:
        """Tell whether the type may be in a primary key, and inside a list, set or map."""
        ...

    def parse(self, value: Any) -> Any:
        """Return the Python value of a JSON value; ``None`` for an empty collection, which Cassandra stores as null."""
        ...

    def encode(self, value: Any) -> Any:
        """Return the JSON value that a read returns."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return the column definition, as listTables and projectionSchema give it."""
        ...


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise WrongJsonTypeError("expected a string")
    return value


def _ascii(value: Any) -> str:
    if not _text(value).isascii():
        raise ValueError("String contains non-ASCII character")
    return str(value)


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise WrongJsonTypeError("expected a boolean")
    return value


def _number(value: Any) -> int | Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise WrongJsonTypeError("expected a number")
    return value


def _integer(bits: int | None) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number = _number(value)
        if number != int(number):
            raise ValueError("Rounding necessary")
        if bits is not None and not -(1 << bits - 1) <= number < 1 << bits - 1:
            raise ValueError(f"Overflow: {number} does not fit {bits} bits")
        return int(number)

    return parse


def _decimal(value: Any) -> Decimal:
    return Decimal(_number(value))


def _double(value: Any) -> float:
    if isinstance(value, str):
        if value not in _NOT_A_NUMBER:
            raise ValueError(f"Unsupported String value: only {', '.join(_NOT_A_NUMBER)}")
        return _NOT_A_NUMBER[value]
    return float(_number(value))


def _float(value: Any) -> np.float32:
    with np.errstate(over="ignore"):  # too large becomes infinite, as in Java
        return np.float32(_double(value))


def _encode_floating(value: Any) -> Any:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    return value


def _binary(value: Any) -> bytes:
    if not isinstance(value, dict) or value.keys() != {"$binary"} or not isinstance(value["$binary"], str):
        raise WrongJsonTypeError('expected {"$binary": "<base64>"}')
    try:
        return base64.b64decode(value["$binary"], validate=True)
    except binascii.Error as error:
        raise ValueError(f"not valid base64: {error}") from None


def _encode_binary(value: bytes) -> dict[str, str]:
    return {"$binary": base64.b64encode(value).decode()}


def _uuid(value: Any) -> uuid.UUID:
    if len(_text(value)) != 36:
        raise ValueError(f"Invalid UUID string: {value}")
    return uuid.UUID(value)


def _date(value: Any) -> dt.date:
    return dt.date.fromisoformat(_text(value))


def _timestamp(value: Any) -> int:
    moment = dt.datetime.fromisoformat(_text(value))
    if moment.tzinfo is None:
        raise ValueError(f"Text '{value}' has no time zone")
    return (moment - _EPOCH) // dt.timedelta(milliseconds=1)


def _encode_timestamp(value: int) -> str:
    moment = _EPOCH + dt.timedelta(milliseconds=value)
    precision = "milliseconds" if value % 1000 else "seconds"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def _as_is(value: Any) -> Any:
    return value


def _encode_exact(value: int | Decimal) -> orjson.Fragment:
    return orjson.Fragment(str(value))  # every digit, whatever the size


@dataclass(frozen=True)
class Scalar:
    """One of the primitive types."""

    name: str
    parse: Callable[[Any], Any]
    encode: Callable[[Any], Any] = _as_is
    is_scalar: bool = True

    def describe(self) -> dict[str, Any]:
        return {"type": self.name}


SCALARS = {
    scalar.name: scalar
    for scalar in (
        Scalar("ascii", _ascii),
        Scalar("bigint", _integer(64)),
        Scalar("blob", _binary, _encode_binary),
        Scalar("boolean", _boolean),
        Scalar("date", _date, str),
        Scalar("decimal", _decimal, _encode_exact),
        Scalar("double", _double, _encode_floating),
        Scalar("float", _float, _encode_floating),
        Scalar("int", _integer(32)),
        Scalar("smallint", _integer(16)),
        Scalar("text", _text),
        Scalar("timestamp", _timestamp, _encode_timestamp),
        Scalar("tinyint", _integer(8)),
        Scalar("uuid", _uuid, str),
        Scalar("varint", _integer(None), _encode_exact),
    )
}


@dataclass(frozen=True)
class ListOf:
    """``list`` of a scalar."""

    element: Scalar
    is_scalar: bool = False

    def parse(self, value: Any) -> tuple[Any, ...] | None:
        return tuple(_elements(self.element, value)) or None

    def encode(self, value: Iterable[Any]) -> list[Any]:
        return [self.element.encode(item) for item in value]

    def describe(self) -> dict[str, Any]:
        return {"type": "list", "valueType": self.element.name}


@dataclass(frozen=True)
class SetOf:
    """``set`` of a scalar; read back in sorted order."""

    element: Scalar
    is_scalar: bool = False

    def parse(self, value: Any) -> frozenset[Any] | None:
        return frozenset(_elements(self.element, value)) or None

    def encode(self, value: Iterable[Any]) -> list[Any]:
        return [self.element.encode(item) for item in sorted(value)]

    def describe(self) -> dict[str, Any]:
        return {"type": "set", "valueType": self.element.name}


@dataclass(frozen=True)
class MapOf:
    """``map`` of scalars: a JSON object, or an array of ``[key, value]`` pairs; read back sorted by key."""

    key: Scalar
    value: Scalar
    is_scalar: bool = False

    def parse(self, value: Any) -> dict[Any, Any] | None:
        pairs = value.items() if isinstance(value, dict) else value
        if not isinstance(value, dict | list) or any(len(pair) != 2 for pair in pairs):
            raise ValueError("expected an object, or an array of [key, value] pairs")
        if any(key is None or item is None for key, item in pairs):
            raise ValueError("null is not allowed inside a map")
        return {self.key.parse(key): self.value.parse(item) for key, item in pairs} or None

    def parse_entry(self, pair: Any) -> tuple[Any, Any]:
        """Return one ``[key, value]`` pair, the form in which filters name an entry."""
        if not isinstance(pair, list) or len(pair) != 2:
            raise ValueError("expected a [key, value] pair")
        return self.key.parse(pair[0]), self.value.parse(pair[1])

    def encode(self, value: dict[Any, Any]) -> dict[str, Any] | list[list[Any]]:
        pairs = [[self.key.encode(key), self.value.encode(item)] for key, item in sorted(value.items())]
        return dict(pairs) if self.key.name in ("text", "ascii") else pairs

    def describe(self) -> dict[str, Any]:
        return {"type": "map", "keyType": self.key.name, "valueType": self.value.name}


@dataclass(frozen=True)
class Vector:
    """``vector`` of float32: an array of numbers or big-endian ``$binary`` in, always an array out."""

    dimension: int
    is_scalar: bool = False

    def parse(self, value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return a float32 array of shape ``(dimension,)``."""
        vector = parse_vector(value)
        if len(vector) != self.dimension:
            raise ValueError(f"expected vector of length {self.dimension}, got {len(vector)} elements")
        return vector

    def encode(self, value: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float32]]:
        return value  # written by the serialiser in the shortest digits of float32, as Java does

    def describe(self) -> dict[str, Any]:
        return {"type": "vector", "dimension": self.dimension}


def parse_vector(value: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a float32 vector of whatever length, from either JSON form."""
    if isinstance(value, dict):
        packed = _binary(value)
        if len(packed) % 4:
            raise ValueError(f"{len(packed)} bytes are not a whole number of float32 values")
        return np.frombuffer(packed, dtype=">f4").astype(np.float32)
    if not isinstance(value, list):
        raise WrongJsonTypeError('expected an array of numbers or {"$binary": "<base64>"}')
    return np.array([float(_number(item)) for item in value], dtype=np.float32)


def _elements(element: Scalar, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise WrongJsonTypeError("expected an array")
    if any(item is None for item in value):
        raise ValueError("null is not allowed inside a collection")
    return [element.parse(item) for item in value]


def parse_column_type(column: str, definition: Any) -> ColumnType:
    """Return the type of a column definition, in either form: ``"text"`` or ``{"type": "text"}``."""
    if isinstance(definition, str):
        return _scalar(definition, "UNKNOWN_PRIMITIVE_DATA_TYPE")
    if not isinstance(definition, dict) or not isinstance(definition.get("type"), str):
        raise invalid_structure(f"Column '{column}' has no usable type: {definition!r}.")
    match definition["type"]:
        case "vector":
            return Vector(_dimension(column, definition))
        case "list":
            return ListOf(_scalar(definition.get("valueType"), "UNSUPPORTED_LIST_DEFINITION"))
        case "set":
            return SetOf(_scalar(definition.get("valueType"), "UNSUPPORTED_SET_DEFINITION"))
        case "map":
            return MapOf(
                _scalar(definition.get("keyType"), "UNSUPPORTED_MAP_DEFINITION"),
                _scalar(definition.get("valueType"), "UNSUPPORTED_MAP_DEFINITION"),
            )
        case name:
            return _scalar(name, "UNKNOWN_PRIMITIVE_DATA_TYPE")


def _scalar(definition: Any, code: str) -> Scalar:
    name = definition.get("type") if isinstance(definition, dict) else definition
    if name in ("duration", "inet", "time"):
        raise DataApiError(
            "SCHEMA",
            "UNSUPPORTED_DATA_TYPE_TABLE_CREATION",
            f"This local server has no columns of type '{name}'.",
        )
    if name not in SCALARS:
        known = ", ".join(SCALARS)
        raise DataApiError(
            "SCHEMA", code, f"The type {name!r} cannot be used here. Supported types: {known}."
        )
    return SCALARS[name]


def _dimension(column: str, definition: dict[str, Any]) -> int:
    dimension = definition.get("dimension")
    if dimension is None:
        raise DataApiError(
            "SCHEMA", "MISSING_DIMENSION_IN_VECTOR_COLUMN", f"Vector column '{column}' has no dimension."
        )
    if isinstance(dimension, bool) or not isinstance(dimension, int) or dimension < 1:
        raise DataApiError(
            "SCHEMA",
            "UNSUPPORTED_VECTOR_DIMENSION",
            f"Vector column '{column}' has the dimension {dimension!r}.",
        )
    return dimension
