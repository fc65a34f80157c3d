"""A server for each test, and one for all the tests of a file that change nothing."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable

from tools.data_api import DataApiServer
from tools.data_api.tests.helpers import PLAIN_VALUES, SHARED_ROWS, make_tokens, shared_fixture


@pytest.fixture
async def server() -> AsyncIterator[DataApiServer]:
    async with DataApiServer() as running:
        yield running


@pytest.fixture
async def database(server: DataApiServer) -> AsyncDatabase:
    return server.async_database(api_options=PLAIN_VALUES)


@pytest.fixture
async def tokens(database: AsyncDatabase) -> AsyncTable[dict[str, Any]]:
    return await make_tokens(database)


@shared_fixture
async def shared_database() -> AsyncIterator[AsyncDatabase]:
    async with DataApiServer() as running:
        yield running.async_database(api_options=PLAIN_VALUES)


@shared_fixture
async def shared_tokens(shared_database: AsyncDatabase) -> AsyncTable[dict[str, Any]]:
    """The table of tokens with ``SHARED_ROWS`` in it, and a row without any cell."""
    table = await make_tokens(shared_database)
    await table.insert_many(SHARED_ROWS, chunk_size=100)
    await table.insert_one({"doc_id": "nulls", "token_id": 0})
    return table
