"""LangChain's own suites, unmodified and with no switch turned off, each against one store that its tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_lateint import LateInteractionRetriever
from tests.adapters.conftest import MakeStore, drop


@pytest.fixture(
    scope="module", params=[None, pytest.param("minilm", marks=pytest.mark.slow)], ids=["hash", "minilm"]
)
def shared(request: pytest.FixtureRequest, make: MakeStore, engine: str) -> Iterator[Any]:
    """A store with a model of words, or with a real one."""
    store = (
        make(engine) if request.param is None else make(engine, model=request.getfixturevalue(request.param))
    )
    yield store
    drop(store)


class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, shared: VectorStore) -> Iterator[VectorStore]:
        try:
            yield shared
        finally:
            shared.clear()  # type: ignore[attr-defined]


class TestOneVectorPerText(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, make_store: MakeStore) -> Iterator[VectorStore]:
        return make_store(model=self.get_embeddings())


class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, shared: Any) -> Iterator[None]:
        self.store = shared
        self.store.add_texts(["one two three", "two three four", "three four five", "six"])
        try:
            yield
        finally:
            self.store.clear()

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return LateInteractionRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"vectorstore": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "two four"
