"""The stores of the adapters' tests, on a folder and on a local Data API."""

from tests.adapters.conftest import engine, make, make_store, store

__all__ = ["engine", "make", "make_store", "store"]
