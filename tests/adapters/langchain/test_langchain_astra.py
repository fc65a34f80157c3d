"""What only a store in Astra has: credentials, what the service is told, failures half way."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from langchain_core import __version__ as langchain_version
from langchain_core.documents import Document
from langchain_core.load import dumpd, dumps
from langchain_core.tracers.run_collector import RunCollectorCallbackHandler

from langchain_lateint import LateInteractionRetriever, LateInteractionVectorStore
from late_interaction import (
    DocumentError,
    IndexMismatchError,
    LateInteractionPipeline,
    StoreError,
    SyncPipeline,
)
from late_interaction.stores.astra.store import AstraStore
from tests.support.models import HashModel
from tools.data_api.faults import Fault
from tools.data_api.server import DataApiServer, run_in_thread

TOKEN = "AstraCS:a-secret"
VARIABLES = ("APPLICATION_TOKEN", "API_ENDPOINT", "KEYSPACE", "ENVIRONMENT")

_names = (f"table_{number}" for number in count())


@pytest.fixture(scope="module")
def server() -> Iterator[DataApiServer]:
    with run_in_thread(keyspace="mine", token=TOKEN) as server:
        yield server


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"ASTRA_DB_{name}", raising=False)


@pytest.fixture
def store(server: DataApiServer) -> Iterator[LateInteractionVectorStore]:
    with LateInteractionVectorStore(
        model=HashModel(), table_name=next(_names), token=TOKEN, api_endpoint=server.endpoint, keyspace="mine"
    ) as store:
        yield store
        server.settings.faults = []
        store.drop()


def test_credentials_from_the_environment(server: DataApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, (TOKEN, server.endpoint, "mine", "hcd"), strict=True):
        monkeypatch.setenv(f"ASTRA_DB_{name}", value)
    with LateInteractionVectorStore(model=HashModel(), table_name=next(_names)) as store:
        store.add_texts(["one"], ids=["a"])
        with LateInteractionVectorStore(model=HashModel(), path="unused") as embedded:
            assert "LocalStore" in repr(embedded)
        assert "mine at 127.0.0.1" in repr(store)
        store.drop()


def test_no_credentials_at_all() -> None:
    with pytest.raises(StoreError, match="ASTRA_DB_APPLICATION_TOKEN"):
        LateInteractionVectorStore(model=HashModel(), api_endpoint="http://127.0.0.1:1")
    with pytest.raises(StoreError, match="ASTRA_DB_API_ENDPOINT"):
        LateInteractionVectorStore(model=HashModel(), token=TOKEN)


def test_namespace_is_another_name_of_keyspace(server: DataApiServer) -> None:
    parts: dict[str, Any] = {"model": HashModel(), "token": TOKEN, "api_endpoint": server.endpoint}
    with LateInteractionVectorStore(namespace="mine", **parts) as store:
        assert "(mine at" in repr(store)
    with pytest.raises(ValueError, match="two names"):
        LateInteractionVectorStore(namespace="mine", keyspace="mine", **parts)


@pytest.mark.parametrize("part", [{"token": TOKEN}, {"api_endpoint": "http://x"}, {"namespace": "n"}])
def test_a_folder_or_astra(tmp_path: Path, part: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="one or the other"):
        LateInteractionVectorStore(model=HashModel(), path=tmp_path, **part)


def test_a_pipeline_comes_alone(store: LateInteractionVectorStore, tmp_path: Path) -> None:
    for part in ({"token": TOKEN}, {"doc_pool_factor": 3}):
        with pytest.raises(ValueError, match="leave the other arguments out"):
            LateInteractionVectorStore(store.pipeline, **part)
    pipeline: Any = LateInteractionPipeline(tmp_path, HashModel())
    with pytest.raises(TypeError, match="must be a SyncPipeline"):
        LateInteractionVectorStore(pipeline)


def test_candidates_by_document_vectors(server: DataApiServer) -> None:
    parts: dict[str, Any] = {"token": TOKEN, "api_endpoint": server.endpoint, "keyspace": "mine"}
    name = next(_names)
    with LateInteractionVectorStore(
        model=HashModel(), table_name=name, candidates="documents", **parts
    ) as store:
        store.add_texts([f"word{i} of many" for i in range(30)])
        store.pipeline.fit_candidates()
        assert store.similarity_search("word7", k=1)[0].page_content == "word7 of many"
    with (
        pytest.raises(IndexMismatchError, match="candidates"),
        LateInteractionVectorStore(model=HashModel(), table_name=name, candidates="tokens", **parts) as other,
    ):
        other.similarity_search("word7")


def test_the_service_is_told_who_calls(store: LateInteractionVectorStore, server: DataApiServer) -> None:
    server.log.clear()
    store.add_texts(["one"])
    assert server.log.requests
    for request in server.log.requests:
        assert f"langchain/{langchain_version} late-interaction/" in request.user_agent


def test_the_token_is_shown_nowhere(store: LateInteractionVectorStore, server: DataApiServer) -> None:
    store.add_texts(["one"])
    retriever = LateInteractionRetriever(vectorstore=store)
    collector = RunCollectorCallbackHandler()
    retriever.invoke("one", {"callbacks": [collector]})
    shown = [
        repr(store),
        str(store),
        repr(retriever),
        dumps(retriever),
        str(dumpd(store)),
        str(dumpd(store.as_retriever())),
    ]
    shown += [
        run.model_dump_json() if hasattr(run, "model_dump_json") else str(run)
        for run in collector.traced_runs
    ]
    assert len(shown) == 7
    with LateInteractionVectorStore(
        model=HashModel(), token=f"{TOKEN}-wrong", api_endpoint=server.endpoint, keyspace="mine"
    ) as refused:
        with pytest.raises(StoreError) as caught:
            LateInteractionRetriever(vectorstore=refused).invoke("one", {"callbacks": [collector]})
        shown += [
            repr(refused),
            str(caught.value),
            repr(caught.value.__cause__),
            str(collector.traced_runs[1].error),
        ]
    for text in shown:
        assert TOKEN not in text


async def test_nothing_blocks_the_callers_loop(server: DataApiServer) -> None:
    with blockbuster_ctx():
        store = await LateInteractionVectorStore.afrom_texts(
            ["one", "two"],
            HashModel(),
            token=TOKEN,
            api_endpoint=server.endpoint,
            keyspace="mine",
            table_name=next(_names),
        )
        retriever = LateInteractionRetriever(vectorstore=store, k=1)
        assert [d.page_content for d in await retriever.ainvoke("two")] == ["two"]
        assert len(await store.amax_marginal_relevance_search("two")) == 2
        await store.adelete(filter={"x": 1})
        await store.adrop()
        await store.aclose()


@pytest.fixture
def once(server: DataApiServer) -> Iterator[LateInteractionVectorStore]:
    """A store that tries each request once."""
    name = next(_names)
    with SyncPipeline(AstraStore(server.async_database(), name, retries=0), HashModel()) as pipeline:
        yield LateInteractionVectorStore(pipeline)
        server.settings.faults = []
        pipeline.drop()


DOCUMENTS = [Document(f"text {name}", id=name) for name in "abcdef"]


def found(store: LateInteractionVectorStore) -> set[str | None]:
    return {document.id for document in store.search_by_metadata()}


def test_an_outage_half_way_says_which_ids_were_written(
    once: LateInteractionVectorStore, server: DataApiServer
) -> None:
    docs = once.pipeline.run(documents_table)
    server.settings.faults = [Fault("http_error", command="insertMany", table=docs, nth=2)]
    with pytest.raises(StoreError, match="503") as caught:
        once.add_documents(DOCUMENTS, batch_size=2)
    server.settings.faults = []
    assert list(caught.value.indexed) == ["a", "b"]
    assert found(once) == {"a", "b"}
    once.add_documents(DOCUMENTS, batch_size=2)
    assert found(once) == {*"abcdef"}


def test_documents_that_the_service_refuses_are_named_and_the_others_are_there(
    once: LateInteractionVectorStore, server: DataApiServer
) -> None:
    docs = once.pipeline.run(documents_table)
    code = "INVALID_DATABASE_QUERY"
    server.settings.faults = [
        Fault("partial_insert", command="insertMany", table=docs, error_code=code, failing_rows=(1,), times=1)
    ]
    with pytest.raises(DocumentError, match=code) as caught:
        once.add_documents(DOCUMENTS, batch_size=3, on_error="continue")
    assert [failure.doc_id for failure in caught.value.failures] == ["b"]
    assert caught.value.indexed == ["a", "c", "d", "e", "f"]
    assert found(once) == {*"acdef"}


async def documents_table(pipeline: LateInteractionPipeline) -> str:
    return f"{pipeline.store.name}_docs"


async def test_a_store_moves_from_a_folder_to_astra_without_encoding_again(
    store: LateInteractionVectorStore, server: DataApiServer, tmp_path: Path
) -> None:
    model = HashModel()
    with LateInteractionVectorStore.from_texts(
        ["red apple", "blue sea"], model, ids=["a", "b"], path=tmp_path
    ) as folder:
        encoded = len(model.encoded)
        assert folder.copy_to(store) == await folder.acopy_to(store) == 2
        assert len(model.encoded) == encoded
        before, after = (s.similarity_search_with_score("sea") for s in (folder, store))
    assert [document for document, _ in after] == [document for document, _ in before]
    assert [score for _, score in after] == pytest.approx([score for _, score in before], abs=1e-4)
    with (
        LateInteractionVectorStore(model=HashModel(name="other"), path=tmp_path / "other") as other,
        pytest.raises(IndexMismatchError, match=r"encoder\.model"),
    ):
        store.copy_to(other)
