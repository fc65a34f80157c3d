"""Another name of `tests.support.models`, which programs outside of this repository import."""

from tests.support.models import HashModel

__all__ = ["HashModel"]
