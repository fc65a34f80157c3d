"""The one place that decides which store an index is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from late_interaction.stores.base import Store

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database
    from astrapy.authentication import TokenProvider

DEFAULT_NAME = "late_interaction"
"""The name of an index that is given none."""
ASTRA = "astra:"
"""What begins a place in the database that the environment names, as in "astra:my_index"."""

Place: TypeAlias = "str | Path | Store | AsyncDatabase | Database"


def open_store(
    where: Place | None,
    name: str | None = None,
    *,
    filterable: Mapping[str, Any] | None = None,
    token: str | TokenProvider | None = None,
    api_endpoint: str | None = None,
    keyspace: str | None = None,
    environment: str | None = None,
    callers: Sequence[tuple[str, str]] = (),
) -> Store:
    """Return the store of an index, which need not exist yet; nothing is read or written.

    Args:
        where: a folder, "astra:NAME", a database of astrapy (async or not) or a `Store`; None for the database that
            `token` and the arguments after it name, or else the environment.
        name: the index's name, "late_interaction" by default; not with a `Store` or "astra:NAME", which have their own.
        filterable: metadata fields that a database looks up, and their types, as for `AstraStore`; not with a `Store`.
        token: for Astra, by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: for Astra, by default ASTRA_DB_API_ENDPOINT.
        keyspace: for Astra, by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else what the endpoint
            shows.
        callers: names and versions of what calls us, for Astra's statistics.

    Raises:
        ValueError: arguments exclude each other, or the name or `filterable` is not valid.
        TypeError: it is not a place.
        StoreError: it is on Astra, and neither the arguments nor the environment say where.
    """
    parts = (token, api_endpoint, keyspace, environment)
    on_astra = where is None or (isinstance(where, str) and where.startswith(ASTRA))
    if not on_astra and any(part is not None for part in parts):
        raise ValueError(
            "token, api_endpoint, keyspace and environment say where in Astra an index is: give them, or another place."
        )
    if isinstance(where, Store):
        if name is not None:
            raise ValueError("a Store has a name of its own: leave base_table_name out.")
        if filterable is not None:
            raise ValueError("a Store has declarations of its own: leave filterable out.")
        return where
    if isinstance(where, str) and on_astra:
        if name is not None:
            raise ValueError(f"{where!r} names the index already: leave the other name out.")
        name = where.removeprefix(ASTRA)
    elif name is None:
        name = DEFAULT_NAME
    if on_astra:
        from late_interaction.stores.astra.database import astra_database
        from late_interaction.stores.astra.store import AstraStore

        database = astra_database(
            token, api_endpoint, keyspace=keyspace, environment=environment, callers=callers
        )
        return AstraStore(database, name, filterable=filterable)
    if isinstance(where, str | Path):
        from late_interaction.stores.local.store import LocalStore

        if filterable is not None:
            from late_interaction.stores.astra.schema import type_names

            type_names(filterable)  # What a database would refuse is refused here too.
        return LocalStore(where, name)
    if type(where).__module__.partition(".")[0] == "astrapy":
        from astrapy import AsyncDatabase, Database

        from late_interaction.stores.astra.store import AstraStore

        if isinstance(where, AsyncDatabase | Database):
            return AstraStore(where, name, filterable=filterable)
    raise TypeError(
        f"db must be a folder (str or Path), {ASTRA}NAME, an astrapy database or a Store, not {type(where).__name__}."
    )


def copy_target(where: Place, source: Store) -> Store:
    """Return the store that `source` is copied to: in a folder or a database it gets the same name."""
    has_name = isinstance(where, Store) or (isinstance(where, str) and where.startswith(ASTRA))
    return open_store(where, None if has_name else source.name)
