"""LateInteractionAdapter: langchain-graph-retriever traverses a store by its documents' metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore

pytest.importorskip("langchain_graph_retriever", reason="langchain-graph-retriever is not installed")

from graph_retriever.edges import Id, IdEdge, MetadataEdge
from graph_retriever.strategies import Eager, Mmr, Scored
from langchain_graph_retriever import GraphRetriever

from langchain_lateint.graph import LateInteractionAdapter

ANIMALS = [
    Document("the lion roars", id="lion", metadata={"habitat": "savanna", "eats": "zebra", "n": 1}),
    Document("stripes of black", id="zebra", metadata={"habitat": "savanna", "n": 2}),
    Document("the whale sings", id="whale", metadata={"habitat": "sea", "n": 3}),
    Document("a long neck", id="giraffe", metadata={"habitat": ["savanna", "zoo"], "n": 4}),
    Document("", id="blank", metadata={"habitat": "savanna", "n": 5}),
]


@pytest.fixture
def adapter(store: LateInteractionVectorStore) -> LateInteractionAdapter:
    store.add_documents(ANIMALS)
    return LateInteractionAdapter(store)


def names(found: Any) -> set[str]:
    return {one.id for one in found}


async def test_a_graph_of_metadata(adapter: LateInteractionAdapter) -> None:
    for edge, wanted in (
        (("habitat", "habitat"), {"lion", "zebra", "giraffe"}),
        (("eats", Id()), {"lion", "zebra"}),
    ):
        for strategy in (Eager(k=5, start_k=1, max_depth=1), Mmr(k=5, start_k=1, max_depth=1)):
            retriever = GraphRetriever(store=adapter, edges=[edge], strategy=strategy)
            assert names(retriever.invoke("the lion roars")) == wanted
            assert names(await retriever.ainvoke("the lion roars")) == wanted
    scored = GraphRetriever(
        store=adapter,
        edges=[("habitat", "habitat")],
        strategy=Scored(k=2, start_k=1, max_depth=1, scorer=lambda node: node.metadata["n"]),
    )
    assert names(scored.invoke("the lion roars")) == {"giraffe", "zebra"}


async def test_a_filter_and_a_root_by_its_id(adapter: LateInteractionAdapter) -> None:
    retriever = GraphRetriever(
        store=adapter, edges=[("habitat", "habitat")], strategy=Eager(k=5, start_k=1, max_depth=1)
    )
    assert names(retriever.invoke("the lion roars", filter={"n": {"$lt": 4}})) == {"lion", "zebra"}
    assert names(await retriever.ainvoke("the lion", initial_roots=["whale", "blank"])) >= {"whale", "blank"}


async def test_the_cosine_of_the_embeddings_is_the_mean_maxsim(
    store: LateInteractionVectorStore, adapter: LateInteractionAdapter
) -> None:
    query, contents = adapter.search_with_embedding("the lion roars", k=3)
    scores = {
        document.id: score for document, score in store.similarity_search_with_score("the lion roars", 3)
    }
    for content in contents:
        assert np.linalg.norm(content.embedding) == pytest.approx(1, abs=1e-3)
        assert np.dot(query, content.embedding) == pytest.approx(scores[content.id] / 3, abs=1e-3)
    assert [one.id for one in adapter.search(query, k=3)] == [one.id for one in contents]
    assert [one.id for one in await adapter.asearch(query, k=3)] == list(scores)
    vector = store.pipeline.run(lambda pipeline: pipeline.encode_queries(["whale"]))[0][0]
    assert [one.id for one in adapter.search(vector.tolist(), k=1)] == ["whale"]
    assert adapter.search(query, k=0) == []


async def test_contents_by_id(adapter: LateInteractionAdapter) -> None:
    found = adapter.get(["zebra", "none", "blank", "zebra"])
    assert [one.id for one in found] == ["zebra", "blank"]
    assert [np.linalg.norm(one.embedding) for one in found] == pytest.approx([1, 1])
    assert len(found[0].embedding) == len(found[1].embedding)
    assert [one.id for one in await adapter.aget(["zebra", "lion"], {"eats": "zebra"})] == ["lion"]


async def test_what_several_edges_lead_to_is_ranked_together(adapter: LateInteractionAdapter) -> None:
    query, _ = await adapter.asearch_with_embedding("stripes of the whale")
    edges = {MetadataEdge("habitat", "savanna"), IdEdge("whale"), IdEdge("none")}
    found = adapter.adjacent(edges, query, 2, None)
    assert [one.id for one in found] == ["zebra", "whale"]
    filtered = await adapter.aadjacent(edges, query, 5, {"n": {"$gt": 2}})
    assert [one.id for one in filtered] == ["whale", "giraffe"]


def test_wrong_arguments_are_refused(adapter: LateInteractionAdapter) -> None:
    with pytest.raises(TypeError, match="must be a LateInteractionVectorStore, not str"):
        LateInteractionAdapter("store")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'where'"):
        adapter.search_with_embedding("x", where={})
    with pytest.raises(TypeError, match="get takes ids and filter, not where"):
        adapter.get(["a"], where={})
    with pytest.raises(TypeError, match="an edge leads to metadata or to an id"):
        adapter.adjacent({"edge"}, [1.0], 1, None)
