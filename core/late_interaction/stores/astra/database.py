"""A database of astrapy from what is given and what the environment says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from late_interaction.errors import StoreError

if TYPE_CHECKING:
    from astrapy import AsyncDatabase
    from astrapy.authentication import TokenProvider


def astra_database(
    token: str | TokenProvider | None = None,
    api_endpoint: str | None = None,
    *,
    keyspace: str | None = None,
    environment: str | None = None,
    callers: Sequence[tuple[str, str]] = (),
) -> AsyncDatabase:
    """Astrapy's database; nothing is asked of it yet.

    Args:
        token: by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: by default ASTRA_DB_API_ENDPOINT.
        keyspace: by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's: "prod", "hcd", "dse", …; by default ASTRA_DB_ENVIRONMENT, or else what the endpoint
            shows: one that is not of Astra is taken as HCD's.
        callers: names and versions of what calls us, for the service's statistics.

    Raises:
        StoreError: there is no token or no endpoint.
    """
    from astrapy import DataAPIClient
    from astrapy.admin import parse_api_endpoint
    from astrapy.constants import Environment

    token = token or os.environ.get("ASTRA_DB_APPLICATION_TOKEN")
    api_endpoint = api_endpoint or os.environ.get("ASTRA_DB_API_ENDPOINT")
    if not token or not api_endpoint:
        raise StoreError(
            "Set ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN (and ASTRA_DB_KEYSPACE, unless it is "
            "default_keyspace) to say which database to use, or give api_endpoint and token."
        )
    if environment is None:
        astra = parse_api_endpoint(api_endpoint)
        environment = os.environ.get("ASTRA_DB_ENVIRONMENT") or (
            astra.environment if astra else Environment.HCD
        )
    client = DataAPIClient(token, environment=environment, callers=list(callers))
    keyspace = keyspace or os.environ.get("ASTRA_DB_KEYSPACE") or "default_keyspace"
    return client.get_async_database(api_endpoint, keyspace=keyspace)
