"""The vector store beyond LangChain's own suite: how it is made, and what it is."""

from __future__ import annotations

import copy
import inspect
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

import langchain_lateint
from langchain_lateint import EmbeddingsModel, LateInteractionVectorStore
from late_interaction import (
    IndexMismatchError,
    SyncPipeline,
)
from tests.adapters.langchain.stores import in_folder
from tests.adapters.langchain.texts import IDS, TEXTS, ids
from tests.support.models import HashModel

# --- making one


async def test_what_is_made_with_documents_goes_on_as_it_began(tmp_path: Path) -> None:
    async def check(store: LateInteractionVectorStore) -> None:
        with store:
            before = len(store.search_by_metadata())
            assert store.add_texts(["same", "bad\ud800"])[:1] == store.add_texts(["same"])
            store.add_documents([Document("same")])
            assert len(store.search_by_metadata()) == before + 1

    made, place = LateInteractionVectorStore, {"ids": "content", "on_error": "skip"}
    first = [Document("first", id="a")]
    await check(made.from_texts([], HashModel(), path=tmp_path / "1", **place))
    await check(await made.afrom_texts([], HashModel(), path=tmp_path / "2", **place))
    await check(made.from_documents(first, HashModel(), path=tmp_path / "3", **place))
    await check(await made.afrom_documents(first, HashModel(), path=tmp_path / "4", **place))
    pairs = [("first", np.ones((1, HashModel().dim), np.float32))]
    await check(made.from_embeddings(pairs, HashModel(), path=tmp_path / "5", **place))
    await check(await made.afrom_embeddings(iter(pairs), HashModel(), path=tmp_path / "6", **place))


async def test_from_texts_and_documents(tmp_path: Path) -> None:
    documents = [Document("one", id="a", metadata={"n": 1}), Document("two", id="b")]
    made = [
        LateInteractionVectorStore.from_texts(
            ["one", "two"], HashModel(), [{"n": 1}, {}], ids=["a", "b"], path=tmp_path / "1"
        ),
        await LateInteractionVectorStore.afrom_texts(
            ["one", "two"], HashModel(), [{"n": 1}, {}], ids=["a", "b"], path=tmp_path / "2"
        ),
        LateInteractionVectorStore.from_documents(documents, HashModel(), path=tmp_path / "3"),
        await LateInteractionVectorStore.afrom_documents(documents, model=HashModel(), path=tmp_path / "4"),
        LateInteractionVectorStore.from_documents(
            documents[::-1], HashModel(), ids=["b", "a"], path=tmp_path / "5"
        ),
    ]
    for store in made:
        with store:
            assert store.get_by_ids(["a", "b"]) == documents


def test_from_texts_closes_what_it_could_not_fill(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 ids"):
        LateInteractionVectorStore.from_texts(["one", "two"], HashModel(), ids=["a"], path=tmp_path)
    with pytest.raises(ValueError, match="two names of the same thing"):
        LateInteractionVectorStore.from_texts(["one"], HashModel(), model=HashModel(), path=tmp_path)


def test_to_make_one_writes_nothing(tmp_path: Path) -> None:
    in_folder(tmp_path / "new").close()
    assert not (tmp_path / "new").exists()


def test_an_index_of_another_model_is_refused_at_the_first_use(tmp_path: Path) -> None:
    with in_folder(tmp_path) as store:
        store.add_texts(["one"])
    with (
        in_folder(tmp_path, model=HashModel(name="other")) as other,
        pytest.raises(IndexMismatchError, match=r"encoder\.model"),
    ):
        other.similarity_search("apple")


def test_several_tables_in_one_folder(tmp_path: Path) -> None:
    with in_folder(tmp_path, table_name="one") as one, in_folder(tmp_path, table_name="two") as two:
        one.add_texts(["apple"])
        assert two.similarity_search("apple") == []
        one.drop()
        assert two.similarity_search("apple") == []


def test_a_pipeline_that_is_given_stays_open(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        with LateInteractionVectorStore(pipeline) as store:
            store.add_texts(["one"])
            assert store.pipeline is pipeline
        assert pipeline.count() == 1


def test_wrong_parts(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="model must be a LateInteractionModel"):
        LateInteractionVectorStore(model=3, path=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"give a model as model=…, a folder as path=…"):
        LateInteractionVectorStore(HashModel(), path=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model"):
        LateInteractionVectorStore(path=tmp_path)


def test_what_stands_for_an_index_is_shared_by_copies_and_pickled_as_its_recipe(
    filled: LateInteractionVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "local-token")
    assert copy.copy(filled) is filled
    retriever = filled.as_retriever()
    assert ids(retriever.model_copy(deep=True).invoke("sea"))[0] == "d"
    with pickle.loads(pickle.dumps(filled)) as other:
        assert other is not filled
        assert ids(other.similarity_search("sea", k=1)) == ids(filled.similarity_search("sea", k=1))


# --- one vector per text


def test_embeddings_of_langchain_give_one_vector_per_text(tmp_path: Path) -> None:
    embeddings = DeterministicFakeEmbedding(size=24)
    with LateInteractionVectorStore(model=embeddings, path=tmp_path) as store:
        store.add_texts(TEXTS, ids=IDS)
        assert store.embeddings is embeddings
        assert store.as_retriever().tags == ["LateInteractionVectorStore", "DeterministicFakeEmbedding"]
        [(document, matrix)] = store.similarity_search_with_embeddings("red pear", k=1)
        assert (document.id, matrix.shape) == ("b", (1, 24))
        [(_, score)] = store.similarity_search_with_score("red pear", k=1)
        assert score == pytest.approx(1, abs=0.01)
        vector = embeddings.embed_query("green apple tree")
        assert ids(store.similarity_search_by_vector(vector, k=1)) == ["c"]


async def test_embeddings_model_sync_and_async(tmp_path: Path) -> None:
    model = EmbeddingsModel(DeterministicFakeEmbedding(size=8))
    assert (model.dim, model.model_name) == (8, "DeterministicFakeEmbedding")
    assert model.fingerprint["class"] == model.fingerprint["model"] == "DeterministicFakeEmbedding"
    for sync, other in (
        (model.encode_queries(["a", "b"]), await model.aencode_queries(["a", "b"])),
        (model.encode_documents(["a", "b"]), await model.aencode_documents(["a", "b"])),
    ):
        assert np.array_equal(sync, other)
        assert np.linalg.norm(sync, axis=-1) == pytest.approx(1)
    with pytest.raises(ValueError, match="position 1 is empty"):
        model.encode_documents(["a", ""])


def test_names_of_embeddings() -> None:
    class Service(DeterministicFakeEmbedding):
        model: str = "embed-3"
        api_key: str = "secret"

    model = EmbeddingsModel(Service(size=8))
    assert model.model_name == "embed-3"
    assert "secret" not in repr(model)
    assert EmbeddingsModel(Service(size=8), "mine", dim=8).model_name == "mine"


def test_a_late_interaction_model_is_no_embeddings(store: LateInteractionVectorStore) -> None:
    assert store.embeddings is None
    assert store.as_retriever().tags == ["LateInteractionVectorStore", "HashModel"]


# --- the shape of the class


def public(of: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(of, callable) if name[0] != "_"}


def test_every_method_has_its_async_twin_with_the_same_arguments() -> None:
    methods = public(LateInteractionVectorStore)
    sync = {name for name in methods if f"a{name}" in methods}
    assert sync >= {
        "add_texts",
        "add_documents",
        "update_metadata",
        "delete",
        "clear",
        "drop",
        "close",
        "get_by_ids",
    }
    for name in sync:
        one, other = (inspect.signature(methods[n]) for n in (name, f"a{name}"))
        assert list(one.parameters.values()) == list(other.parameters.values()), name
        assert inspect.iscoroutinefunction(methods[f"a{name}"]), name
    assert methods.keys() - sync - {f"a{name}" for name in sync} == {"as_retriever", "copy"}


def test_every_method_of_langchain_that_does_io_is_our_own() -> None:
    theirs = {
        "similarity_search_with_relevance_scores",
        "asimilarity_search_with_relevance_scores",
    }
    ours = {
        name
        for base in LateInteractionVectorStore.__mro__
        if not base.__module__.startswith("langchain_core")
        for name in vars(base)
    }
    inherited = {name for name in public(LateInteractionVectorStore) if name not in ours}
    assert inherited == theirs


@pytest.mark.parametrize("name", langchain_lateint.__all__)
def test_without_langchain_the_extra_is_named(name: str) -> None:
    code = f"""
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "langchain_core":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
import langchain_lateint
try:
    langchain_lateint.{name}
except ImportError as error:
    print(type(error).__name__, error)
"""
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert said.startswith("MissingExtraError")
    assert "pip install 'late-interaction[langchain]'" in said
