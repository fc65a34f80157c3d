"""Make a database of astrapy from arguments and from the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from late_interaction.errors import StoreError

if TYPE_CHECKING:
    from astrapy import AsyncDatabase
    from astrapy.authentication import TokenProvider

_WHAT_TO_SET = (
    "Set ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN (and ASTRA_DB_KEYSPACE, unless it is default_keyspace) "
    "to say which database to use, or pass api_endpoint and token."
)


@dataclass(frozen=True, slots=True)
class Parts:
    """Which database, without the token: what a copy in another process needs to connect to the same one."""

    api_endpoint: str
    keyspace: str
    environment: str
    callers: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(
        cls,
        api_endpoint: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        callers: Sequence[tuple[str, str]] = (),
    ) -> Parts:
        """Complete what is given from the environment.

        Raises:
            StoreError: there is no endpoint, or it has a password in it.
        """
        from astrapy.admin import parse_api_endpoint
        from astrapy.constants import Environment

        api_endpoint = api_endpoint or os.environ.get("ASTRA_DB_API_ENDPOINT")
        if not api_endpoint:
            raise StoreError(_WHAT_TO_SET)
        if urlsplit(api_endpoint).password is not None:
            raise StoreError(
                "The API endpoint must not have a password in it: pass the token as token=… instead."
            )
        keyspace = keyspace or os.environ.get("ASTRA_DB_KEYSPACE") or "default_keyspace"
        environment = environment or os.environ.get("ASTRA_DB_ENVIRONMENT")
        if environment is None:
            astra = parse_api_endpoint(api_endpoint)
            environment = astra.environment if astra else Environment.HCD
        return cls(api_endpoint, keyspace, environment, tuple(callers))

    def to_dict(self) -> dict[str, Any]:
        """Return the parts by name."""
        return {name: getattr(self, name) for name in self.__slots__}


def astra_database(
    token: str | TokenProvider | None = None,
    api_endpoint: str | None = None,
    *,
    keyspace: str | None = None,
    environment: str | None = None,
    callers: Sequence[tuple[str, str]] = (),
) -> AsyncDatabase:
    """Return a database of astrapy; no request is made yet.

    Args:
        token: by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: by default ASTRA_DB_API_ENDPOINT.
        keyspace: by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's: "prod", "hcd", "dse", …; by default ASTRA_DB_ENVIRONMENT, or else by the endpoint: one
            that is not Astra's is taken to be HCD's.
        callers: names and versions of the calling libraries, for the service's statistics.

    Raises:
        StoreError: there is no token, or no endpoint.
    """
    from astrapy import DataAPIClient

    parts = Parts.of(api_endpoint, keyspace, environment, callers)
    token = token or os.environ.get("ASTRA_DB_APPLICATION_TOKEN")
    if not token:
        raise StoreError(_WHAT_TO_SET)
    client = DataAPIClient(token, environment=parts.environment, callers=list(parts.callers))
    return client.get_async_database(parts.api_endpoint, keyspace=parts.keyspace)
