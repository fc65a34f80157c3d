"""The engines that the tests of the LlamaIndex adapter run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from llamaindex_lateint import LateInteractionVectorStore
from tests.adapters.llamaindex.stores import MakeStore, stores_in


@pytest.fixture(params=["folder", "astra"], scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_store(engine: str, tmp_path: Path) -> Iterator[MakeStore]:
    with stores_in(engine, tmp_path) as make:
        yield make


@pytest.fixture
def store(make_store: MakeStore) -> LateInteractionVectorStore:
    return make_store()
