"""The embedded store: a folder with SQLite inside and a disposable centroid index beside it."""

from late_interaction.stores.local.store import LocalStore

__all__ = ["LocalStore"]
