"""Fixtures of the stores' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tools.data_api import DataApiServer


@pytest.fixture
async def server() -> AsyncIterator[DataApiServer]:
    """A local Data API of the test's own."""
    async with DataApiServer() as running:
        yield running
