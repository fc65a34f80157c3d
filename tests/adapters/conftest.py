"""Stores to test, in a folder and on a local Data API; the test's folder says of which framework."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from typing import Any, TypeAlias

import pytest

from tests.support.models import HashModel
from tools.data_api.server import DataApiServer

MakeStore: TypeAlias = Callable[..., Any]
ENGINES = ("folder", "astra")
OPTIONS: dict[str, dict[str, Any]] = {
    "langchain": {"doc_pool_factor": 1, "filterable": {"n": int, "colour": str, "tags": list[str]}},
    "llamaindex": {},
}

_names = (f"store_{number}" for number in count())


# Each request to the local Data API takes its time, so a quick run asks the folder alone.
@pytest.fixture(params=["folder", pytest.param("astra", marks=pytest.mark.slow)], scope="module")
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStore]:
    """Make stores on an engine, `make("astra", model=…)`; those of one `table_name` share an index."""
    framework = request.path.parent.name
    store_class = importlib.import_module(f"{framework}_lateint").LateInteractionVectorStore
    folder = tmp_path_factory.mktemp("stores")

    def make(engine: str, **options: Any) -> Any:
        place: dict[str, Any] = {"path": folder}
        if engine == "astra":
            server: DataApiServer = request.getfixturevalue("server")
            place = {"token": server.token, "api_endpoint": server.endpoint}
        options = {"model": HashModel(), "table_name": next(_names)} | OPTIONS[framework] | options
        return stores.enter_context(store_class(**place, **options))

    with ExitStack() as stores:
        yield make


@pytest.fixture
def make_store(make: MakeStore, engine: str) -> Iterator[MakeStore]:
    """Make stores for one test, which are dropped after it; those of one name share an index."""
    prefix = next(_names)
    made: dict[str, Any] = {}

    def make_store(name: str = "one", **options: Any) -> Any:
        made[name] = make(engine, table_name=f"{prefix}_{name}", **options)
        return made[name]

    yield make_store
    for name, store in made.items():
        store.close()
        drop(make(engine, table_name=f"{prefix}_{name}"))


@pytest.fixture
def store(make_store: MakeStore) -> Any:
    """Return an empty store."""
    return make_store()


def drop(store: Any) -> None:
    pipeline = store.client if hasattr(store, "client") else store.pipeline
    pipeline.drop()
