"""Objects that are pickled and copied as the recipe to make them anew, never with a live connection."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from late_interaction.errors import PickleError


class Remade:
    """Pickled and deep-copied as its class and the arguments it was made with.

    Attributes:
        _kept: names of attributes that are carried over to the new object.
    """

    _arguments: tuple[tuple[Any, ...], dict[str, Any]]
    _kept: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments, on their way to `__init__`."""
        made = super().__new__(cls)
        made._arguments = args, kwargs
        return made

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        args, kwargs = self._arguments
        check_picklable(self, dict(enumerate(args)) | kwargs)
        return _remake, (type(self), args, kwargs, {name: getattr(self, name) for name in self._kept})

    def remade(self, **changes: Any) -> Self:
        """Make it anew, with other values for some of its keyword arguments."""
        args, kwargs = self._arguments
        kept = {name: getattr(self, name) for name in self._kept}
        made: Self = _remake(type(self), args, kwargs | changes, kept)
        return made


def _remake(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any], kept: dict[str, Any]) -> Any:
    made = cls(*args, **kwargs)
    for name, value in kept.items():
        setattr(made, name, value)
    return made


def check_picklable(of: object, parts: Mapping[Any, object]) -> None:
    """Check that each part of an object can be pickled, before half of it is.

    Raises:
        PickleError: one cannot; the message names it.
    """
    for name, value in parts.items():
        try:
            pickle.dumps(value)
        except PickleError:
            raise
        except Exception as error:
            raise PickleError(
                f"{of!r} cannot be pickled or copied, since it holds a {type(value).__name__} ({name}) that cannot: "
                f"{error}. Make a new one where it is needed, from a folder or a name rather than from live objects."
            ) from error
