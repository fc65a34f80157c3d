"""Creating tables and indexes: side by side where the service allows it, with progress.

Each takes about a second on an idle service, so that an index with nine declared fields would take some 25 s.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from late_interaction.progress import tqdm
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.tasks import for_each_concurrently

logger = logging.getLogger(__name__)

_SIDE_BY_SIDE = 5
_SHOWN_AFTER_S = 2.0

Definition = Callable[[], Awaitable[None]]


async def define(
    client: DataApiClient, tables: Mapping[str, Row], indexes: Mapping[str, Mapping[str, Row]]
) -> None:
    """Create the tables that do not exist, and then the indexes; definitions of those that exist are not compared.

    In a terminal or notebook a progress bar shows where it takes longer than two seconds.

    Args:
        client: requests to the keyspace.
        tables: definitions by name.
        indexes: for each table, definitions by name.

    Raises:
        ServiceError: one failed; what was created before stays, and another call creates the rest.
    """
    of_tables = {name: partial(client.create_table, name, each) for name, each in tables.items()}
    of_indexes = {
        name: partial(client.create_index, table, name, each)
        for table, definitions in indexes.items()
        for name, each in definitions.items()
    }
    with tqdm(
        desc="Creating tables and indexes",
        total=len(of_tables) + len(of_indexes),
        delay=_SHOWN_AFTER_S,
        leave=False,
        disable=None,
    ) as bar:
        await _create(of_tables, bar)
        await _create(of_indexes, bar)


async def _create(definitions: Mapping[str, Definition], bar: tqdm[None]) -> None:
    refused: dict[str, ServiceError] = {}

    async def create(name: str) -> None:
        try:
            await definitions[name]()
        except ServiceError as error:
            if error.outage:
                raise
            refused[name] = error
        else:
            created(name)

    def created(name: str) -> None:
        logger.info("%s is there.", name)
        bar.update()

    await for_each_concurrently(create, definitions, _SIDE_BY_SIDE)
    for name in refused:  # Perhaps only because others were under way.
        await definitions[name]()
        created(name)
