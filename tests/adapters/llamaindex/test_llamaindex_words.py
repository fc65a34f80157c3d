"""LlamaIndex's modes that search by words, or by words and vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import TextNode

from llamaindex_lateint import LateInteractionRetriever, LateInteractionVectorStore
from tests.adapters.llamaindex.asking import ask, where
from tests.support.models import HashModel

TEXTS = {
    "pie": "apple pie with cinnamon",
    "sea": "the tide comes in at noon",
    "ship": "a ship leaves at high tide",
}


@pytest.fixture
def store(tmp_path: Path) -> LateInteractionVectorStore:
    store = LateInteractionVectorStore(model=HashModel(), path=tmp_path)
    store.add([TextNode(id_=name, text=text, metadata={"kind": name[0]}) for name, text in TEXTS.items()])
    return store


@pytest.mark.parametrize("mode", ["text_search", "sparse"])
async def test_modes_of_words(store: LateInteractionVectorStore, mode: str) -> None:
    assert store.query(ask("tides", mode=mode)).ids == ["sea", "ship"]
    assert store.query(ask("tides", mode=mode, sparse_top_k=1)).ids == ["sea"]
    found = await store.aquery(ask("tides", mode=mode, filters=where("kind", "s")))
    assert found.ids == ["sea", "ship"]
    assert all(0 < score < 1 for score in found.similarities or ())
    assert store.query(ask("zebra", mode=mode)).ids == []


@pytest.mark.parametrize("mode", ["hybrid", "semantic_hybrid"])
def test_alpha_is_the_weight_of_vectors(store: LateInteractionVectorStore, mode: str) -> None:
    late = store.query(ask("the noon tides"))
    assert store.query(ask("the noon tides", mode=mode, alpha=1)).ids == late.ids
    words = store.query(ask("cinnamon", mode=mode, alpha=0))
    assert (words.ids or [""])[0] == "pie"
    assert words.similarities == [1, 0, 0]
    by_default, given = (
        store.query(ask("tides", mode=mode, **weight)).similarities for weight in ({}, {"alpha": 0.7})
    )
    assert by_default == pytest.approx(given)


def test_how_many_come_back(store: LateInteractionVectorStore) -> None:
    assert len(store.query(ask("tides", 1, mode="hybrid")).ids or ()) == 1
    assert len(store.query(ask("tides", 1, mode="hybrid", hybrid_top_k=2)).ids or ()) == 2
    assert len(store.query(ask("tides", 2, mode="hybrid", sparse_top_k=12)).ids or ()) == 2


def test_options_of_the_core(store: LateInteractionVectorStore) -> None:
    expected = store.query(ask("tides", mode="hybrid", alpha=0.6)).similarities
    options: dict[str, Any] = {"mode": "hybrid", "lexical_weight": 0.4}
    assert store.query(ask("tides"), **options).similarities == pytest.approx(expected)
    assert store.query(ask("tides", 2, mode="mmr"), **options).ids
    retriever = LateInteractionRetriever(
        store, vector_store_query_mode="hybrid", alpha=0.6, similarity_top_k=3
    )
    assert [node.score for node in retriever.retrieve("tides")] == pytest.approx(expected)
    (node,) = (
        store.as_index()
        .as_retriever(vector_store_query_mode="text_search", similarity_top_k=1)
        .retrieve("cinnamon")
    )
    assert node.node_id == "pie"
