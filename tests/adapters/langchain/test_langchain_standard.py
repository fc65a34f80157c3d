"""LangChain's own suites, unmodified and with no switch turned off, each against one store that its tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from late_interaction import ColBERTModel

MakeStore = Callable[..., LateInteractionVectorStore]


@pytest.fixture(scope="module")
def embedded_store(make: MakeStore) -> LateInteractionVectorStore:
    return make("embedded")


@pytest.fixture(scope="module")
def astra_store(make: MakeStore) -> LateInteractionVectorStore:
    return make("astra")


@pytest.fixture(scope="module")
def embedded_store_with_minilm(make: MakeStore, minilm: ColBERTModel) -> LateInteractionVectorStore:
    return make("embedded", model=minilm)


@pytest.fixture(scope="module")
def astra_store_with_minilm(make: MakeStore, minilm: ColBERTModel) -> LateInteractionVectorStore:
    return make("astra", model=minilm)


class Suite(VectorStoreIntegrationTests):
    fixture: str

    @pytest.fixture
    def vectorstore(self, request: pytest.FixtureRequest) -> Iterator[VectorStore]:
        store = request.getfixturevalue(self.fixture)
        try:
            yield store
        finally:
            store.clear()


class TestEmbedded(Suite):
    fixture = "embedded_store"


class TestAstra(Suite):
    fixture = "astra_store"


@pytest.mark.slow
class TestEmbeddedWithMiniLM(Suite):
    fixture = "embedded_store_with_minilm"


@pytest.mark.slow
class TestAstraWithMiniLM(Suite):
    fixture = "astra_store_with_minilm"


class TestOneVectorPerText(VectorStoreIntegrationTests):
    @pytest.fixture(params=["embedded", "astra"])
    def vectorstore(self, make: MakeStore, request: pytest.FixtureRequest) -> Iterator[VectorStore]:
        with make(request.param, model=self.get_embeddings()) as store:
            yield store
            store.drop()


class RetrieverSuite(RetrieversIntegrationTests):
    fixture: str

    @pytest.fixture(autouse=True)
    def filled(self, request: pytest.FixtureRequest) -> Iterator[None]:
        self.store = request.getfixturevalue(self.fixture)
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


class TestRetrieverOfEmbedded(RetrieverSuite):
    fixture = "embedded_store"


class TestRetrieverOfAstra(RetrieverSuite):
    fixture = "astra_store"


@pytest.mark.slow
class TestRetrieverOfEmbeddedWithMiniLM(RetrieverSuite):
    fixture = "embedded_store_with_minilm"


@pytest.mark.slow
class TestRetrieverOfAstraWithMiniLM(RetrieverSuite):
    fixture = "astra_store_with_minilm"
