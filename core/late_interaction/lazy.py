"""Packages whose names are imported at their first use, so that importing the package costs nothing."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Iterable[str]], *, needs: str | None = None, extra: str = ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the `__getattr__` and the `__dir__` of a package.

    Args:
        package: the package's `__name__`.
        homes: the names that each module has.
        needs: a package that the modules need, which an extra of ours installs.
        extra: that extra.
    """
    home_of = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            value = getattr(importlib.import_module(home_of[name]), name)
        except ModuleNotFoundError as error:
            if needs is None or (error.name or "").partition(".")[0] != needs:
                raise
            from late_interaction.errors import MissingExtraError

            raise MissingExtraError(f"{package}.{name}", extra, needs.replace("_", "-")) from error
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *home_of})

    return get, names
