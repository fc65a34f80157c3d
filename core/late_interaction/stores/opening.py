"""The one place that decides which store an index is in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from late_interaction.stores.base import Store
from late_interaction.stores.local.place import INDEX_FILE
from late_interaction.types import CandidatesBy
from late_interaction.validation import shown

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database
    from astrapy.authentication import TokenProvider

DEFAULT_NAME = "late_interaction"
"""The name of an index that is given none."""
ASTRA = "astra:"
"""What begins a place in the database that the environment names, as in "astra:my_index"."""
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|:memory:")


@dataclass(frozen=True, slots=True)
class AstraPlace:
    """A database of Astra, HCD or DSE, by what is needed to connect to it; what is None comes from the environment.

    It can be pickled, but for the token, which is then looked up in the environment again.

    Attributes:
        token: by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: by default ASTRA_DB_API_ENDPOINT.
        keyspace: by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else what the endpoint
            shows.
        callers: names and versions of what calls us, for Astra's statistics.
    """

    token: str | TokenProvider | None = field(default=None, repr=False)
    api_endpoint: str | None = None
    keyspace: str | None = None
    environment: str | None = None
    callers: tuple[tuple[str, str], ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return AstraPlace, (None, self.api_endpoint, self.keyspace, self.environment, self.callers)


Place: TypeAlias = "str | Path | Store | AstraPlace | AsyncDatabase | Database"


def place_of(path: str | Path | None, astra: AstraPlace) -> str | Path | AstraPlace:
    """Return a folder, or where there is none the database, for constructors that take both by their parts.

    Raises:
        ValueError: a part of each is given.
    """
    if path is None:
        return astra
    if replace(astra, callers=()) != AstraPlace():
        raise ValueError(
            "path is for a folder, and the other arguments are for Astra: give one or the other."
        )
    return path


def open_store(
    where: Place,
    name: str | None = None,
    *,
    filterable: Mapping[str, Any] | None = None,
    retry_for_s: float | None = None,
    candidates: CandidatesBy | None = None,
    lexical: bool | None = None,
) -> Store:
    """Return the store of an index, which need not exist yet; nothing is read or written.

    Args:
        where: a folder, "astra:NAME" in the database that the environment names, an `AstraPlace`, a database of
            astrapy (async or not), or a `Store`.
        name: the index's name, "late_interaction" by default; not with a `Store` or "astra:NAME", which have their own.
        filterable: metadata fields that a database looks up, and their types, as for `AstraStore`; not with a `Store`.
        retry_for_s: how long a database is asked again, as for `AstraStore`; not with a `Store`.
        candidates: how an index on Astra finds candidates, as for `AstraStore`; not with a `Store`.
        lexical: whether an index on Astra has an index of words, as for `AstraStore`; not with a `Store`.

    Raises:
        ValueError: arguments exclude each other, or the name or `filterable` is not valid.
        TypeError: it is not a place.
        StoreError: it is on Astra, and neither the place nor the environment says where.
    """
    if name is not None and not isinstance(name, str):
        raise TypeError(f"base_table_name, the name of an index, must be a str, not {shown(name)}.")
    if isinstance(where, Store):
        if name is not None:
            raise ValueError("a Store has a name of its own: leave base_table_name out.")
        if filterable is not None:
            raise ValueError("a Store has declarations of its own: leave filterable out.")
        if retry_for_s is not None:
            raise ValueError("a Store has a retry_for_s of its own: leave it out.")
        if candidates is not None:
            raise ValueError("a Store finds candidates in its own way: leave candidates out.")
        if lexical is not None:
            raise ValueError("a Store has an index of words or not: leave lexical out.")
        return where
    if isinstance(where, str) and where.startswith(ASTRA):
        if name is not None:
            raise ValueError(f"{where!r} names the index already: leave the other name out.")
        name = where.removeprefix(ASTRA)
        where = AstraPlace()
    if isinstance(where, str | Path):
        where, name = _folder(where, name)
    name = DEFAULT_NAME if name is None else name
    if isinstance(where, str | Path):
        from late_interaction.stores.local.store import LocalStore

        if filterable is not None:
            from late_interaction.stores.astra.schema import type_names

            type_names(filterable)  # What a database would refuse is refused here too.
        if candidates == "documents":
            raise ValueError(
                'candidates="documents" is for an index on Astra: a folder finds candidates by tokens.'
            )
        if lexical is False:
            raise ValueError("a folder always has an index of words: leave lexical=False out.")
        return LocalStore(where, name)
    if isinstance(where, AstraPlace):
        from late_interaction.stores.astra.store import AstraStore

        return AstraStore.from_environment(
            name,
            token=where.token,
            api_endpoint=where.api_endpoint,
            keyspace=where.keyspace,
            environment=where.environment,
            callers=where.callers,
            filterable=filterable,
            retry_for_s=retry_for_s,
            candidates=candidates,
            lexical=lexical,
        )
    if type(where).__module__.partition(".")[0] == "astrapy":
        from astrapy import AsyncDatabase, Database

        from late_interaction.stores.astra.store import AstraStore

        if isinstance(where, AsyncDatabase | Database):
            return AstraStore(
                where,
                name,
                filterable=filterable,
                candidates=candidates,
                lexical=lexical,
                retry_for_s=retry_for_s,
            )
    raise TypeError(
        f"db must be a folder (str or Path), {ASTRA}NAME, an astrapy database or a Store, not {type(where).__name__}."
    )


def _folder(where: str | Path, name: str | None) -> tuple[Path, str | None]:
    """Return the folder and the name of an index; the folder of the index itself, as messages show it, is known.

    Raises:
        ValueError: it is blank or an address, or the index would lie within another one.
    """
    folder = Path(where)
    if not str(where).strip():
        raise ValueError("the folder of an index is needed, and its name is empty; the current one is '.'.")
    if isinstance(where, str) and _ADDRESS.match(where) and not folder.exists():
        raise ValueError(
            f"{where!r} looks like an address, and no folder is called so: an index is in a folder, or in the database "
            f"that the environment names, as {ASTRA}NAME. For a new folder of this name give a Path."
        )
    if not (folder / INDEX_FILE).is_file():
        return folder, name
    if name not in (None, folder.name):
        raise ValueError(
            f"{folder} is an index itself, and {name!r} would lie within it: give the folder above, {folder.parent}."
        )
    folder = folder.absolute()
    return folder.parent, folder.name


def copy_target(where: Place, source: Store) -> Store:
    """Return the store that `source` is copied to: in a folder or a database it gets the same name."""
    has_name = isinstance(where, Store) or (isinstance(where, str) and where.startswith(ASTRA))
    return open_store(where, None if has_name else source.name)
