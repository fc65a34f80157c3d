"""Checks and small conversions of arguments that many modules share."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_positive(name: str, value: object) -> None:
    """Refuse what is no whole number of at least 1; `name` is the argument's, for the message.

    Raises:
        TypeError: it is no whole number.
        ValueError: it is below 1.
    """
    if not isinstance(value, Integral):
        raise TypeError(f"{name} must be a whole number, not {value!r:.40}.")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, not {value}.")


def unit_rows(matrix: NDArray[Any]) -> NDArray[np.float32]:
    """Return the rows as float32 of unit length, also where they come from a narrower type; a zero row stays zero."""
    rows: NDArray[np.float32] = matrix.astype(np.float32)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return rows
