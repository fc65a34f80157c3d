"""The engines that the tests of the LlamaIndex adapter run on: a folder, and Astra's tables on the local Data API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from late_interaction import LateInteractionModel
from llamaindex_lateint import LateInteractionVectorStore
from tests.data_api import DataApiServer, run_in_thread
from tests.models import HashModel

MakeStore: TypeAlias = Callable[..., LateInteractionVectorStore]


@pytest.fixture
def data_api() -> Iterator[DataApiServer]:
    with run_in_thread() as server:
        yield server


@pytest.fixture(params=["folder", "astra"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Makes stores in one place, and closes them; the same name gives the same index."""
    made: list[LateInteractionVectorStore] = []
    if request.param == "folder":
        place = {"path": tmp_path}
    else:
        place = {"database": request.getfixturevalue("data_api").async_database()}

    def make(
        name: str = "nodes", model: LateInteractionModel | None = None, **options: object
    ) -> LateInteractionVectorStore:
        model = HashModel() if model is None else model
        store = LateInteractionVectorStore(model=model, table_name=name, **place, **options)
        made.append(store)
        return store

    yield make
    for store in made:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> LateInteractionVectorStore:
    return make_store()
