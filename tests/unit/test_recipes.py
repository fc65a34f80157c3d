"""What is pickled or copied is made anew from its recipe, or refused at once."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from langchain_lateint import LateInteractionReranker
from langchain_lateint import LateInteractionVectorStore as LangChainStore
from late_interaction import (
    ColBERTModel,
    LateInteractionPipeline,
    LocalStore,
    PickleError,
    PrecomputedEmbeddings,
    SyncPipeline,
)
from late_interaction.adapting import AstraPlace
from late_interaction.demo import model_folder
from late_interaction.errors import (
    DocumentError,
    FilterError,
    IndexMismatchError,
    LateInteractionError,
    MissingExtraError,
    ModelError,
    RowFailure,
    StoreWriteError,
)
from late_interaction.portal import LoopPortal
from llamaindex_lateint import LateInteractionVectorStore as LlamaIndexStore
from tests.support.models import HashModel
from tests.support.paths import ROOT
from tools.data_api import run_in_thread

COPIES: dict[str, Callable[[Any], Any]] = {
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
    "deepcopy": copy.deepcopy,
}


class Locked(HashModel):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


@pytest.fixture(params=COPIES)
def copied(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    return COPIES[request.param]


def test_a_model_of_ones_own_is_copied_without_its_thread(copied: Callable[[Any], Any]) -> None:
    model = HashModel(dim=8)
    asyncio.run(model.aencode_documents(["one"]))
    for other in (copied(model), copy.copy(model)):
        assert not any("executor" in name for name in vars(other))
        assert np.array_equal(
            asyncio.run(other.aencode_documents(["two"]))[0], model.encode_documents(["two"])[0]
        )


@pytest.mark.slow
def test_a_checkpoint_is_loaded_anew(copied: Callable[[Any], Any]) -> None:
    model = ColBERTModel(model_folder(), device="cpu", document_length=32)
    model.model_name = "demo"
    other = copied(model)
    assert other is not model
    assert other.model_name == "demo"
    assert other.fingerprint == model.fingerprint
    assert np.allclose(other.encode_documents(["a text"])[0], model.encode_documents(["a text"])[0])
    old = {name: value for name, value in model.fingerprint.items() if name != "long_documents"}
    assert copied(model.as_built(old)).fingerprint == old


def test_what_a_model_holds_that_cannot_be_copied_is_named(copied: Callable[[Any], Any]) -> None:
    for thing in (Locked(), SyncPipeline("folder", Locked())):
        if isinstance(thing, SyncPipeline):
            with pytest.raises(PickleError, match=r"holds a lock \(lock\)"):
                pickle.dumps(thing)
            thing.close()
        else:
            with pytest.raises(PickleError, match=r"holds a lock \(lock\)"):
                copied(thing)


def test_a_store_of_a_folder(tmp_path: Path, copied: Callable[[Any], Any]) -> None:
    with SyncPipeline(LocalStore(tmp_path, "mine"), PrecomputedEmbeddings(2, "m")) as pipeline:
        pipeline.index_embeddings([{"content": "x"}], [[[1, 0]]])
    store = LocalStore(tmp_path, name="mine", lock_timeout=3)
    other = copied(store)
    assert (other.location, other.name) == (store.location, "mine")
    with SyncPipeline(other, PrecomputedEmbeddings(2, "m")) as pipeline:
        assert pipeline.count() == 1


def test_pipelines_of_a_folder_are_pickled_open_or_not(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel(), "mine", doc_pool_factor=1, store_images="full") as pipeline:
        pipeline.index_document({"doc_id": "a", "content": "one two"})
        other = pickle.loads(pickle.dumps(pipeline))
        with other:
            assert other.search("two")[0].doc_id == "a"
            other.index_document({"doc_id": "b", "content": "three"})
        assert pipeline.count() == 2
        assert (
            copy.deepcopy(pipeline) is copy.copy(pipeline) is pipeline
        )  # It stands for an index: there is one.

    async def main() -> int:
        made = LateInteractionPipeline(tmp_path, HashModel(), "mine", doc_pool_factor=1)
        async with pickle.loads(pickle.dumps(made)) as again:
            return await again.count()

    assert asyncio.run(main()) == 2


@pytest.mark.slow
def test_in_another_process(tmp_path: Path) -> None:
    folder = tmp_path / "index"
    with LangChainStore(model=HashModel(), path=folder, doc_pool_factor=1) as store:
        store.add_texts(["one two", "three"], ids=["a", "b"])
        (tmp_path / "store").write_bytes(pickle.dumps(store))
    script = (
        "import pickle, sys\n"
        f"store = pickle.load(open({str(tmp_path / 'store')!r}, 'rb'))\n"
        "with store: print(store.similarity_search('three', k=1)[0].id)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert ended.stdout == "b\n"


@pytest.mark.parametrize("store", [LangChainStore, LlamaIndexStore])
def test_a_store_is_made_anew_and_closes_what_is_its_own(tmp_path: Path, store: Any) -> None:
    settings = {"raw_scores": True} if store is LlamaIndexStore else {"relevance_score_fn": max}
    with store(model=HashModel(), path=tmp_path, **settings) as made:
        again = pickle.loads(pickle.dumps(made))
        assert again._beside_pipeline() == made._beside_pipeline()
        assert settings.items() <= again._beside_pipeline().items()
        again.clear()
        again.close()
        with pytest.raises(Exception, match="is closed"):
            again.clear()
        assert copy.deepcopy(made) is made
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        held = pickle.loads(pickle.dumps(store(pipeline)))
        held.close()
        held.clear()
        held._pipeline.close()


def test_a_reranker(copied: Callable[[Any], Any]) -> None:
    assert copied(LateInteractionReranker(model=HashModel(), top_n=1)).top_n == 1
    with pytest.raises(PickleError, match="lock"):
        copied(LateInteractionReranker(model=Locked()))


def test_no_secret_is_pickled_and_live_connections_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with run_in_thread() as server:
        place = AstraPlace(server.token, server.endpoint, server.keyspace)
        assert server.token not in repr(place)
        with SyncPipeline(place, HashModel(), "recipes") as pipeline:
            pipeline.index_document({"doc_id": "a", "content": "one"})
            pickled = pickle.dumps(pipeline)
        assert server.token.encode() not in pickled
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
        with pickle.loads(pickled) as again:
            assert again.search("one")[0].doc_id == "a"
        for database in (server.database(), server.async_database()):
            with SyncPipeline(database, HashModel(), "recipes") as pipeline:
                with pytest.raises(PickleError, match="cannot be pickled") as caught:
                    pickle.dumps(pipeline)
                assert server.token not in str(caught.value)


def test_a_portal_of_ones_own_is_refused(tmp_path: Path) -> None:
    with (
        LoopPortal() as portal,
        SyncPipeline(tmp_path, HashModel(), portal=portal) as pipeline,
        pytest.raises(PickleError, match="portal of its own"),
    ):
        pickle.dumps(pipeline)


@pytest.mark.parametrize(
    "error",
    [
        ModelError("a message"),
        MissingExtraError("a feature", "colbert", "torch"),
        FilterError("a message"),
        DocumentError([RowFailure(3, "d3", "a reason")], ["d1"], {"d1": 0.5}),
        StoreWriteError("a reason.", ["d1"], ["d2"], ["d3"]),
        IndexMismatchError("an index", {"dim": (96, 128)}),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_leave_a_process_whole(error: LateInteractionError, copied: Callable[[Any], Any]) -> None:
    error.__notes__ = ["a note"]
    again = copied(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)
    assert again.__notes__ == ["a note"]
