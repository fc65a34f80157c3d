"""What llama-index-core demands of `SimpleVectorStore` (its tests/vector_stores)."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQueryMode,
)

from late_interaction import StoreError
from llamaindex_lateint import LateInteractionVectorStore, NoEmbedding
from tests.adapters.conftest import MakeStore, drop
from tests.adapters.llamaindex.asking import ask, where

NODES = [
    (
        "a",
        "lorem ipsum",
        "test-0",
        {"weight": 1.0, "rank": "a", "quality": ["medium", "high"], "code": "6FTRun"},
    ),
    ("b", "dolor sit", "test-1", {"weight": 2.0, "rank": "c", "quality": ["medium"], "code": "6FTRgl"}),
    (
        "c",
        "lorem sit",
        "test-2",
        {"weight": 3.0, "rank": "c", "quality": ["low", "medium", "high"], "code": "7ztl"},
    ),
]
QUERY = "lorem sit"


def nodes() -> list[TextNode]:
    return [
        TextNode(
            id_=name,
            text=text,
            metadata=metadata,
            relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=source)},
            excluded_embed_metadata_keys=list(metadata),
        )
        for name, text, source, metadata in NODES
    ]


@pytest.fixture(scope="module")
def kept(make: MakeStore, engine: str) -> Any:
    store = make(engine, table_name="compat_kept")
    store.add(nodes())
    yield store
    drop(store)


def both(condition: FilterCondition | None, *filters: tuple[str, Any, str]) -> MetadataFilters:
    return MetadataFilters(
        filters=[
            MetadataFilter(key=key, value=value, operator=FilterOperator(op)) for key, value, op in filters
        ],
        condition=condition,
    )


def test_all_nodes_the_most_similar_first(kept: LateInteractionVectorStore) -> None:
    found = kept.query(ask(QUERY, 3)).ids
    assert found[0] == "c"
    assert sorted(found) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("k", "options", "expected"),
    [
        (3, {}, ["c", "b"]),
        (1, {}, ["c"]),
        (3, {"node_ids": ["c"]}, ["c"]),
        (3, {"doc_ids": ["test-1"]}, ["b"]),
        (3, {"node_ids": ["a", "c"], "doc_ids": ["test-1", "test-2"]}, ["c"]),
        (3, {"node_ids": ["a"]}, []),
        (3, {"doc_ids": []}, []),
        (3, {"doc_ids": ["missing"]}, []),
    ],
)
async def test_filters_ids_and_k_intersect(
    kept: LateInteractionVectorStore, k: int, options: dict, expected: list[str]
) -> None:
    query = ask(QUERY, k, filters=where("rank", "c"), **options)
    assert kept.query(query).ids == (await kept.aquery(query)).ids == expected


@pytest.mark.parametrize("mode", [VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR])
@pytest.mark.parametrize(
    ("doc_ids", "expected"),
    [(None, {"a", "b", "c"}), ([], set()), (["missing"], set()), (["test-0", "test-2"], {"a", "c"})],
)
def test_a_retriever_keeps_to_its_source_documents(
    kept: LateInteractionVectorStore,
    mode: VectorStoreQueryMode,
    doc_ids: list[str] | None,
    expected: set[str],
) -> None:
    retriever = kept.as_index().as_retriever(
        doc_ids=doc_ids, similarity_top_k=10, vector_store_query_mode=mode
    )
    assert {found.node.node_id for found in retriever.retrieve("test")} == expected


@pytest.mark.parametrize(
    ("key", "value", "op", "expected"),
    [
        ("weight", 1.0, "==", "a"),
        ("weight", 1.0, "!=", "bc"),
        ("weight", 1.5, ">", "bc"),
        ("weight", 1.0, ">=", "abc"),
        ("weight", 1.1, "<", "a"),
        ("weight", 1.0, "<=", "a"),
        ("rank", ["a", "c"], "in", "abc"),
        ("rank", ["c"], "nin", "a"),
        ("quality", "high", "contains", "ac"),
        ("quality", ["high", "low"], "any", "ac"),
        ("quality", ["medium", "high"], "all", "ac"),
        ("code", "6FTR", "text_match", "ab"),
        ("code", "6ftr", "text_match", ""),
        ("code", "6ftr", "text_match_insensitive", "ab"),
        ("no such key", None, "is_empty", "abc"),
        ("no such key", "c", "==", ""),
        ("no such key", "c", "!=", "abc"),
        ("no such key", ["c"], "nin", "abc"),
    ],
)
def test_each_operator(
    kept: LateInteractionVectorStore, key: str, value: Any, op: str, expected: str
) -> None:
    assert set(kept.query(ask(QUERY, filters=where(key, value, op))).ids) == set(expected)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (both(FilterCondition.AND, ("rank", "c", "=="), ("weight", 2.0, "==")), "b"),
        (both(None, ("rank", "a", "!="), ("weight", 3.0, ">=")), "c"),
        (both(FilterCondition.AND, ("weight", 2, "=="), ("weight", 3, "==")), ""),
        (both(FilterCondition.OR, ("rank", "c", "=="), ("weight", 1.0, "==")), "abc"),
        (both(FilterCondition.AND, ("rank", "c", "=="), ("weight", 1.0, "==")), ""),
        (both(FilterCondition.NOT, ("rank", "a", "==")), "bc"),
        (both(FilterCondition.NOT, ("no such key", "x", "==")), "abc"),
        (both(FilterCondition.AND, ("no such key", "x", "!="), ("rank", "a", "==")), "a"),
    ],
)
def test_each_condition(kept: LateInteractionVectorStore, filters: MetadataFilters, expected: str) -> None:
    assert set(kept.query(ask(QUERY, filters=filters)).ids) == set(expected)


def test_text_match_of_a_number_finds_nothing(kept: LateInteractionVectorStore) -> None:
    """SimpleVectorStore raises a TypeError for the first number it meets."""
    for op in ("text_match", "text_match_insensitive"):
        assert kept.query(ask(QUERY, filters=where("weight", "1", op))).ids == []


def test_a_query_that_has_only_an_embedding(kept: LateInteractionVectorStore) -> None:
    embedding = NoEmbedding().get_query_embedding(QUERY)
    assert kept.query(ask(None, 1, query_embedding=embedding)).ids == ["c"]


def test_a_query_that_has_only_filters(kept: LateInteractionVectorStore) -> None:
    assert set(kept.query(ask(None, filters=where("rank", "c"))).ids) == {"b", "c"}


def test_a_deleted_document_is_found_no_more(store: LateInteractionVectorStore) -> None:
    store.add(nodes())
    store.delete("test-1")
    assert store.query(ask(QUERY, 2)).ids == ["c", "a"]
    store.delete("no such document")
    store.delete_nodes(["a"])
    assert store.query(ask(QUERY)).ids == ["c"]


async def test_a_cleared_store_is_empty(store: LateInteractionVectorStore) -> None:
    store.add(nodes())
    await store.aclear()
    assert store.query(ask(QUERY)).ids == []
    store.add(nodes())
    store.clear()
    assert store.get_nodes() == []


@pytest.mark.parametrize(
    ("of_query", "of_call", "expected"),
    [
        (0.0, {}, {"a", "c"}),
        (1.0, {}, {"a", "b"}),
        (None, {"mmr_threshold": 0.0}, {"a", "c"}),
        (None, {"mmr_threshold": 1.0}, {"a", "b"}),
    ],
)
def test_where_the_mmr_threshold_comes_from(
    store: LateInteractionVectorStore, of_query: float | None, of_call: dict, expected: set[str]
) -> None:
    texts = {"a": "red apple", "b": "red apple tree", "c": "blue sea"}
    store.add([TextNode(id_=name, text=text) for name, text in texts.items()])
    query = ask("red apple", 2, mode=VectorStoreQueryMode.MMR, mmr_threshold=of_query)
    assert set(store.query(query, **of_call).ids) == expected


def test_what_is_written_is_there_after_closing(make_store: MakeStore) -> None:
    with make_store() as first:
        first.add(nodes())
    assert make_store().query(ask(QUERY, 1)).ids == ["c"]


@pytest.mark.parametrize("mode", ["svm", "linear_regression", "logistic_regression"])
def test_modes_that_are_not_there_are_refused(kept: LateInteractionVectorStore, mode: str) -> None:
    with pytest.raises(NotImplementedError, match=mode):
        kept.query(ask(QUERY, mode=VectorStoreQueryMode(mode)))


@pytest.mark.parametrize("mode", ["hybrid", "sparse"])
def test_modes_by_words_are_there_in_a_folder_and_refused_on_astra(
    kept: LateInteractionVectorStore, engine: str, mode: str
) -> None:
    query = ask(QUERY, 1, mode=VectorStoreQueryMode(mode))
    if engine == "folder":
        assert kept.query(query).ids == ["c"]
    else:
        with pytest.raises(
            StoreError, match="has no index of words, because it was made without lexical=True"
        ):
            kept.query(query)
