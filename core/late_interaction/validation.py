"""A check of arguments that many functions share."""

from __future__ import annotations

from numbers import Integral


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
