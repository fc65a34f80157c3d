"""What llama-index-vector-stores-qdrant demands of `QdrantVectorStore` (its tests)."""

from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llamaindex_lateint import LateInteractionVectorStore
from tests.adapters.llamaindex.asking import ask, ids, where

NAMES = [f"{n * 11111111}-1111-1111-1111-111111111111" for n in (1, 2, 3)]


@pytest.fixture
def filled(store: LateInteractionVectorStore) -> LateInteractionVectorStore:
    store.add(
        [
            TextNode(
                id_=name,
                text=f"test{n}",
                metadata={"some_key": value, "category": category, "price": n * 10},
                relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=f"test-{n % 2}")},
            )
            for n, (name, value, category) in enumerate(
                zip(NAMES, (1, 2, "3"), ("books", "books", "music"), strict=True), start=1
            )
        ]
    )
    return store


def one(key: str, value: Any, op: FilterOperator = FilterOperator.EQ) -> MetadataFilter:
    return MetadataFilter(key=key, value=value, operator=op)


def test_it_is_a_store_of_llamaindex(store: LateInteractionVectorStore) -> None:
    assert isinstance(store, BasePydanticVectorStore)


def test_deleted_nodes_are_gone(filled: LateInteractionVectorStore) -> None:
    filled.delete_nodes(NAMES[:1])
    assert ids(filled.get_nodes(NAMES)) == NAMES[1:]


async def test_deleted_nodes_are_gone_async(filled: LateInteractionVectorStore) -> None:
    await filled.adelete_nodes(NAMES[:1])
    assert ids(await filled.aget_nodes(NAMES)) == NAMES[1:]


async def test_no_node_is_left_after_clear(filled: LateInteractionVectorStore) -> None:
    """Qdrant's collection is gone then, and asking it is an error; ours is empty."""
    await filled.aclear()
    assert await filled.aget_nodes(NAMES) == filled.get_nodes() == []
    filled.add([TextNode(text="test", id_="new")])
    assert ids(filled.get_nodes()) == ["new"]


def test_every_node_has_its_vectors(filled: LateInteractionVectorStore) -> None:
    """Qdrant puts one vector into `node.embedding`; there is no place in a node for one of each token."""
    matrices = filled.client.get_matrices(NAMES)
    assert {name: matrix.shape for name, matrix in matrices.items()} == dict.fromkeys(
        NAMES, matrices[NAMES[0]].shape
    )
    assert all(node.embedding is None for node in filled.get_nodes(NAMES))


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (where("some_key", [1, 2], "in"), [0, 1]),
        (where("some_key", [1, 2], "nin"), [2]),
        (where("some_key", ["3"], "in"), [2]),
        (where("some_key", [3], "in"), []),
        (MetadataFilters(filters=[one("category", "books"), one("price", 10, FilterOperator.GT)]), [1]),
        (
            MetadataFilters(
                filters=[one("category", "books"), one("category", "music")], condition=FilterCondition.OR
            ),
            [0, 1, 2],
        ),
        (MetadataFilters(filters=[one("category", "books")], condition=FilterCondition.NOT), [2]),
        (
            MetadataFilters(
                filters=[
                    one("category", "books"),
                    MetadataFilters(filters=[one("price", 10)], condition=FilterCondition.NOT),
                ],
                condition=FilterCondition.AND,
            ),
            [1],
        ),
    ],
)
async def test_filters_of_nodes_and_of_queries(
    filled: LateInteractionVectorStore, filters: MetadataFilters, expected: list[int]
) -> None:
    wanted = {NAMES[position] for position in expected}
    assert set(ids(filled.get_nodes(filters=filters))) == wanted
    assert set(ids(await filled.aget_nodes(filters=filters))) == wanted
    assert set(filled.query(ask("test1", filters=filters)).ids) == wanted


def test_a_document_is_deleted_by_its_id(filled: LateInteractionVectorStore) -> None:
    filled.delete("test-1")
    assert ids(filled.get_nodes()) == NAMES[1:2]


def test_filtered_nodes_are_deleted(filled: LateInteractionVectorStore) -> None:
    filled.delete_nodes(filters=where("category", "books"))
    assert ids(filled.get_nodes()) == NAMES[2:]


async def test_a_query_gives_nodes_with_text_and_scores(filled: LateInteractionVectorStore) -> None:
    for result in (filled.query(ask("test1", 1)), await filled.aquery(ask("test1", 1))):
        assert [node.text for node in result.nodes] == ["test1"]
        assert result.ids == NAMES[:1]
        assert len(result.similarities) == 1
