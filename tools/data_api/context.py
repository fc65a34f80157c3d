"""What a command works with: the database, the switches, and the record of its request."""

import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tools.data_api.errors import DataApiError
from tools.data_api.log import Request
from tools.data_api.settings import Settings
from tools.data_api.tables import Position, Table

_PAGES_KEPT = 10_000
Tables = dict[str, Table]


@dataclass(frozen=True)
class PageState:
    """Where a find goes on: behind a row, with so many rows left to return, for the same query only."""

    query: Any
    after: Position
    remaining: int | None


class PageStates:
    """Page states under random names: a client can only hand back what it was given."""

    def __init__(self) -> None:
        self._states: OrderedDict[str, PageState] = OrderedDict()

    def keep(self, state: PageState) -> str:
        """Keep a state and return its token."""
        token = secrets.token_urlsafe(18)
        self._states[token] = state
        if len(self._states) > _PAGES_KEPT:
            self._states.popitem(last=False)
        return token

    def find(self, token: str) -> PageState | None:
        """Return the state of a token; a token may be used again."""
        return self._states.get(token)


@dataclass
class Database:
    """Everything the server holds: tables by keyspace and name, and page states."""

    keyspaces: dict[str, Tables]
    pages: PageStates = field(default_factory=PageStates)

    def schema(self) -> set[tuple[str, ...]]:
        """Return the names of tables with their columns, and of indexes: what a definition changes."""
        return {
            (keyspace, name, *table.schema.columns, "", *table.indexes)
            for keyspace, tables in self.keyspaces.items()
            for name, table in tables.items()
        }


@dataclass
class Context:
    """One command at work."""

    database: Database
    settings: Settings
    random: np.random.Generator
    request: Request
    failing_rows: Sequence[int] = ()
    failure: DataApiError | None = None
    failures_applied: bool = False

    @property
    def tables(self) -> Tables:
        """Return the tables of the keyspace in the path."""
        try:
            return self.database.keyspaces[self.request.keyspace or ""]
        except KeyError:
            raise DataApiError(
                "SCHEMA", "UNKNOWN_KEYSPACE", f"There is no keyspace '{self.request.keyspace}'."
            ) from None

    @property
    def table(self) -> Table:
        """Return the table in the path."""
        try:
            return self.tables[self.request.table or ""]
        except KeyError:
            raise DataApiError(
                "SCHEMA", "UNKNOWN_COLLECTION_OR_TABLE", f"There is no table '{self.request.table}'."
            ) from None
