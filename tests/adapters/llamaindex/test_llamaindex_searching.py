"""What is asked for is found, sync and async alike."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from llama_index.core.schema import (
    TextNode,
)
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from late_interaction.maxsim import maxsim
from llamaindex_lateint import LateInteractionRetriever, LateInteractionVectorStore
from tests.adapters.llamaindex.asking import ask, ids, where
from tests.adapters.llamaindex.trees import WORDS, trees
from tests.support.models import HashModel


async def test_the_best_by_maxsim_first(make_store: Any) -> None:
    model = HashModel()
    store = make_store(model=model, doc_pool_factor=1, packing="float32", raw_scores=True)
    nodes = [node.model_copy(update={"excluded_embed_metadata_keys": ["rank"]}) for node in trees()]
    store.add(nodes)
    query = model.encode_queries(["cedar tree"])[0]
    scores = maxsim(query, model.encode_documents([node.text for node in nodes]))
    expected = np.argsort(-scores)[:4]
    for result in (store.query(ask("cedar tree", 4)), await store.aquery(ask("cedar tree", 4))):
        assert result.ids == ids(result.nodes) == [WORDS[i] for i in expected]
        assert result.similarities == pytest.approx(scores[expected].tolist(), rel=1e-4)


def test_a_query_by_its_matrix(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    matrix = HashModel().encode_queries(["larch tree"])[0]
    assert store.query(ask(None), query_matrix=matrix) == store.query(ask("larch tree"))
    assert (
        store.query(ask(None, 2), query_matrix=matrix, node_ids=WORDS).ids
        == store.query(ask("larch tree", 2)).ids
    )
    with pytest.raises(ValueError, match=r"must have shape \(n_tokens ≥ 1, 32\)"):
        store.query(ask(None), query_matrix=matrix[0])


async def test_pages(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    every = store.query(ask("oak tree", 10)).ids or []
    assert store.query(ask("oak tree", 3), offset=3).ids == every[3:6]
    assert (await store.aquery(ask("oak tree", 9), offset=len(every) - 1)).ids == every[-1:]
    not_oak = where("rank", 0, "!=")
    some = store.query(ask("oak tree", 9, filters=not_oak)).ids or []
    assert store.query(ask("oak tree", 2, filters=not_oak), offset=2).ids == some[2:4]
    mmr = VectorStoreQueryMode.MMR
    diverse = store.query(ask("oak tree", 8, mode=mmr), mmr_prefetch_k=9).ids or []
    assert store.query(ask("oak tree", 3, mode=mmr), mmr_prefetch_k=9, offset=2).ids == diverse[2:5]
    pages = [store.query(ask(None, 3, filters=not_oak), offset=n).ids or [] for n in (0, 3, 6, 9)]
    assert sorted(name for page in pages for name in page) == sorted(some)
    retriever = LateInteractionRetriever(store, similarity_top_k=2, vector_store_kwargs={"offset": 1})
    assert [found.node.node_id for found in retriever.retrieve("oak tree")] == every[1:3]
    with pytest.raises(ValueError, match="offset must be"):
        store.query(ask("oak tree"), offset=-1)


def test_a_filter_on_the_content(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    for text in ("oak tree", None):
        for node_ids in (None, ["oak", "elm", "ash"]):
            found = store.query(ask(text, 9), filter={"$content": {"$regex": "oak|elm"}}, node_ids=node_ids)
            assert sorted(found.ids or []) == ["elm", "oak"]


def test_doc_ids_are_honoured(store: LateInteractionVectorStore) -> None:
    for parent, words in (("a", WORDS[:3]), ("b", WORDS[3:6]), (None, WORDS[6:])):
        store.add([node for node in trees(parent) if node.node_id in words])
    assert set(store.query(ask("oak tree", 10, doc_ids=["a", "c"])).ids or ()) == set(WORDS[:3])
    assert store.query(ask("oak tree", 10, doc_ids=[])).ids == []


def test_node_ids_among_the_arguments(
    store: LateInteractionVectorStore,
) -> None:
    store.add(trees())
    everything = store.query(ask("oak tree", 10))
    some = store.query(ask("oak tree", 2), node_ids=["ash", "oak", "ash", "pine", "none"])
    assert some.ids is not None
    assert some.ids[0] == "oak"
    assert len(some.ids) == 2
    both = store.query(ask("oak tree", 9, filters=where("rank", 8, "!=")), node_ids=["ash", "oak"])
    assert both.ids == ["ash"]
    assert store.query(ask("oak tree"), node_ids=["ash", "oak"], filter={"rank": {"$gt": 5}}).ids == ["oak"]
    score_of = dict(zip(everything.ids or (), everything.similarities or (), strict=True))
    assert some.similarities == pytest.approx([score_of[one] for one in some.ids], rel=1e-4)


async def test_maximal_marginal_relevance(store: LateInteractionVectorStore) -> None:
    texts = {"a": "red red green", "b": "red green green", "c": "red blue", "d": "grey"}
    store.add([TextNode(id_=name, text=text) for name, text in texts.items()])
    alike = store.query(ask("red green", 2))
    assert set(alike.ids or ()) == {"a", "b"}
    mmr = VectorStoreQueryMode.MMR
    for query, options in (
        (ask("red green", 2, mode=mmr), {"mmr_threshold": 0.3}),
        (ask("red green", 2, mode=mmr, mmr_threshold=0.3), {}),
        (ask("red green", 2, mode=mmr, mmr_threshold=1.0), {"mmr_threshold": 0.3}),
    ):
        diverse = await store.aquery(query, **options)
        assert (diverse.ids or [])[0] == (alike.ids or [])[0]
        assert (diverse.ids or [])[1] in ("c", "d")
    assert store.query(ask("red green", 2, mode=mmr), mmr_threshold=1.0) == alike
    two = store.query(ask("red green", 2, mode=mmr), mmr_threshold=0.0, mmr_prefetch_k=2)
    assert set(two.ids or ()) == {"a", "b"}


async def test_scores_between_0_and_1(make_store: Any) -> None:
    store = make_store()
    store.add([TextNode(id_="x", text="one two"), TextNode(id_="y", text="six seven eight")])
    result = store.query(ask("one two", 2))
    assert result.ids == ["x", "y"]
    assert result.similarities == pytest.approx([(2 * s + 1) / 2 for s in (0.5, 0)], abs=0.4)
    assert all(0 <= score <= 1 for score in result.similarities or ())
    assert (await store.aquery(ask("one two", 2), node_ids=["y", "x"])).similarities == pytest.approx(
        result.similarities, rel=1e-4
    )


@pytest.mark.parametrize(
    ("query", "options", "error", "message"),
    [
        (ask(None), {}, ValueError, "nothing to search for and no filters"),
        (VectorStoreQuery(query_embedding=[0.1]), {}, ValueError, "embedding of another model is not enough"),
        (ask("x", alpha=0.5), {}, ValueError, "alpha"),
        (ask("x"), {"mmr_threshold": 0.5}, ValueError, "query mode 'mmr'"),
        (ask("x", mode=VectorStoreQueryMode.MMR), {"mmr_threshold": 2}, ValueError, "from 0 to 1"),
        (ask("x", 0), {}, ValueError, "similarity_top_k must be at least 1"),
        (ask("x"), {"n_ann_tokens": 0}, ValueError, "n_ann_tokens must be at least 1"),
        (ask("x"), {"n_maxsim_candidates": 0}, ValueError, "n_maxsim_candidates must be at least 1"),
        (
            ask("x", mode=VectorStoreQueryMode.MMR),
            {"mmr_prefetch_k": 0},
            ValueError,
            "mmr_prefetch_k must be",
        ),
        (ask("x", mode="svm"), {}, NotImplementedError, "'hybrid', .* not 'svm'"),
        (ask("x", mode="sparse", alpha=0.5), {}, ValueError, "no use for alpha"),
        (ask("x", mode="text_search", hybrid_top_k=5), {}, ValueError, "no use for hybrid_top_k"),
        (ask("x", sparse_top_k=5), {}, ValueError, "no use for sparse_top_k"),
        (ask("x", mode="hybrid", sparse_top_k=0), {}, ValueError, "sparse_top_k must be at least 1"),
        (ask("x", mode="hybrid", alpha=2), {}, ValueError, "alpha must be from 0 to 1"),
        (
            ask("x", mode="hybrid", alpha=0.5),
            {"lexical_weight": 0.5},
            ValueError,
            "alpha is 1 - lexical_weight",
        ),
        (ask("x", mode="hybrid"), {"mode": "late"}, ValueError, "exclude each other"),
        (ask("x"), {"node_ids": ["x"], "n_ann_tokens": 9}, ValueError, "every one of these nodes is scored"),
        (ask("x"), {"node_ids": "x"}, TypeError, r"node_ids takes a list of ids, not a bare str: \['x'\]"),
        (ask("x", doc_ids="x"), {}, TypeError, "doc_ids takes a list"),
        (ask("x", filters={"rank": 1}), {}, TypeError, "filters must be MetadataFilters, not dict"),
        (ask("x"), {"top_p": 1}, TypeError, "top_p"),
        (ask("x"), {"filter": {"a": {"$near": 1}}}, ValueError, "near"),
    ],
)
async def test_what_is_not_understood_is_refused(
    store: LateInteractionVectorStore,
    query: VectorStoreQuery,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        store.query(query, **options)
    with pytest.raises(error, match=message):
        await store.aquery(query, **options)


def test_arguments_that_mean_nothing_are_refused(store: LateInteractionVectorStore) -> None:
    for call in (
        lambda: store.delete("x", force=True),
        lambda: store.delete_nodes(["x"], force=True),
    ):
        with pytest.raises(TypeError, match="has no argument"):
            call()
    for call in (
        lambda: store.get_nodes("ash"),
        lambda: store.delete_nodes("ash"),
        lambda: LateInteractionRetriever(store, doc_ids="ash"),
    ):
        with pytest.raises(TypeError, match="takes a list of ids, not a bare str"):
            call()
    for filters in ({"rank": 1}, MetadataFilters.model_construct(filters=[{"rank": 1}])):
        with pytest.raises(TypeError, match="filters must be MetadataFilters, not dict"):
            store.delete_nodes(filters=filters)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Pass a list of nodes, not a bare one"):
        store.add(trees()[0])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="node at position 1 is not a LlamaIndex node but 'oak'"):
        store.add([trees()[0], "oak"])  # type: ignore[list-item]
    assert store.get_nodes() == []


def test_an_exact_search_is_certain(store: LateInteractionVectorStore) -> None:
    store.add(trees())
    assert store.query(ask("fir tree"), exact=True) == store.query(
        ask("fir tree"), n_ann_tokens=4000, n_maxsim_candidates=10
    )


async def test_mmr_gives_twins_last(store: LateInteractionVectorStore) -> None:
    store.add([TextNode(id_=str(n), text=text) for n, text in enumerate(["foo", "foo", "fou", "foy"])])
    query = VectorStoreQuery(query_str="foo", similarity_top_k=10, mode=VectorStoreQueryMode.MMR)
    for result in (store.query(query), await store.aquery(query)):
        assert sorted(node.get_content() for node in (result.nodes or ())[:3]) == ["foo", "fou", "foy"]
        assert sorted(result.ids or ()) == ["0", "1", "2", "3"]
        assert len(result.similarities or ()) == 4
    assert len(store.query(query, distinct=True).ids or ()) == 3


def test_a_filter_by_the_text_also_decides_among_given_nodes(store: LateInteractionVectorStore) -> None:
    store.add([TextNode(id_="a", text="a cat"), TextNode(id_="b", text="a dog")])
    by_text = {"$content": {"$contains": "cat"}}
    found = store.query(VectorStoreQuery(), filter=by_text, node_ids=["a", "b"])
    assert found.ids == ["a"]
