"""Embeddings of LangChain as a model: whose index it is, through wrappers, and by the vector of one word."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import RunnableLambda

from langchain_lateint import EmbeddingsModel, LateInteractionVectorStore
from late_interaction import IndexMismatchError


class Named(Embeddings):
    """Random vectors by a seed, and a service's noise on top."""

    def __init__(self, model: str | None = None, seed: int = 0, *, noise: float = 0.0, **more: Any) -> None:
        if model is not None:
            self.model = model
        self.seed, self.noise = seed, noise
        vars(self).update(more)

    def embed_query(self, text: str) -> list[float]:
        vector = np.random.default_rng([zlib.crc32(text.encode()), self.seed]).normal(size=8)
        noise = np.random.default_rng().normal(size=8)
        return (vector / np.linalg.norm(vector) + self.noise * noise).tolist()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]


class Wrapper(Embeddings):
    """Embeddings around others, as CacheBackedEmbeddings are."""

    def __init__(self, inner: Embeddings, within: bool = False) -> None:
        self.underlying_embeddings: Any = [inner] if within else inner

    def _inner(self) -> Embeddings:
        inner = self.underlying_embeddings
        return inner[0] if isinstance(inner, list) else inner

    def embed_query(self, text: str) -> list[float]:
        return self._inner().embed_query(text)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._inner().embed_documents(texts)


class Hypothetical(Wrapper):
    """Embeddings of what a language model writes for a query, as HypotheticalDocumentEmbedder: never twice the same."""

    def __init__(self, inner: Embeddings) -> None:
        super().__init__(inner)
        self.llm_chain = RunnableLambda(lambda text: text)

    def embed_query(self, text: str) -> list[float]:
        vector = np.array(super().embed_query(self.llm_chain.invoke(text)))
        return (vector + 0.05 * np.random.default_rng().normal(size=8)).tolist()


def opens(path: Path, model: Any) -> bool:
    with LateInteractionVectorStore(model=model, path=path) as store:
        try:
            store.add_texts(["apple", "pear"], ids=["a", "b"])
        except IndexMismatchError:
            return False
        assert store.similarity_search("pear", k=1)[0].id == "b"
        return True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Named("m-one", 1), Named("m-two", 2)),
        (Wrapper(Named("m-one", 1)), Wrapper(Named("m-two", 2))),
        (Wrapper(Wrapper(Named("m-one")), within=True), Wrapper(Wrapper(Named("m-two")), within=True)),
        (Named("ada", deployment="ada"), Named("ada", deployment="three-small")),
        (Named(seed=1), Named(seed=2)),
        (Wrapper(Named(seed=1)), Wrapper(Named(seed=2))),
        (Hypothetical(Named(seed=1)), Hypothetical(Named(seed=2))),
        (Wrapper(Hypothetical(Wrapper(Named(seed=1)))), Wrapper(Hypothetical(Wrapper(Named(seed=2))))),
        (Wrapper(Named("m-one", 1)), Named("m-one", 1)),
        (EmbeddingsModel(Named(seed=1), "mine"), EmbeddingsModel(Named(seed=2), "mine")),
        (EmbeddingsModel(Named("a"), dim=8), EmbeddingsModel(Named("b"), dim=8)),
    ],
)
def test_an_index_of_other_embeddings_is_refused(tmp_path: Path, one: Any, other: Any) -> None:
    assert opens(tmp_path, one)
    assert opens(tmp_path, one)
    assert not opens(tmp_path, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Named("m", noise=1e-4), Named("m", noise=1e-4)),
        (Named("m"), EmbeddingsModel(Named("m"), dim=8)),
        (EmbeddingsModel(Named("m"), dim=8), Named("m")),
        (Hypothetical(Named("m")), Hypothetical(Named("m"))),
        (Wrapper(Hypothetical(Wrapper(Named("m")))), Wrapper(Hypothetical(Wrapper(Named("m"))))),
        (EmbeddingsModel(Named("m"), "mine"), EmbeddingsModel(Named("changed", seed=0), "mine")),
    ],
)
def test_an_index_of_the_same_embeddings_opens(tmp_path: Path, one: Any, other: Any) -> None:
    assert opens(tmp_path, one)
    assert opens(tmp_path, other)
    assert opens(tmp_path, one)


@pytest.mark.parametrize(
    ("embeddings", "name", "kept"),
    [(Named("m"), None, "m"), (Wrapper(Named("m")), None, "Wrapper"), (Named("m"), "mine", "mine")],
)
def test_an_index_made_before_the_names_inside_were_kept_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embeddings: Embeddings, name: str | None, kept: str
) -> None:
    before = {"family": "langchain-embeddings", "class": type(embeddings).__name__, "model": kept}
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddingsModel, "fingerprint", before)
        assert opens(tmp_path, EmbeddingsModel(embeddings, name))
    assert opens(tmp_path, EmbeddingsModel(embeddings, name))
    assert not opens(tmp_path, Named("another"))


def test_the_fingerprint_is_json_and_holds_no_secret() -> None:
    model = EmbeddingsModel(Wrapper(Named("m-one", api_key="secret", openai_api_key="secret")))
    assert model.model_name == "m-one"
    assert "secret" not in json.dumps(model.fingerprint)
    assert model.fingerprint["names"] == {
        "underlying_embeddings.class": "Named",
        "underlying_embeddings.model": "m-one",
    }
