"""Short forms of what the tests ask of a store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
)


def ask(text: str | None, k: int = 3, **options: Any) -> VectorStoreQuery:
    return VectorStoreQuery(query_str=text, similarity_top_k=k, **options)


def where(key: str, value: Any, op: str = "==") -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator(op))])


def ids(nodes: Sequence[BaseNode] | None) -> list[str]:
    return [node.node_id for node in nodes or ()]
