"""LateInteractionIndex: what `LateInteractionVectorStore.as_index` returns."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
)
from llama_index.core.indices.vector_store import VectorIndexRetriever
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQueryResult

from llamaindex_lateint.no_embedding import carrying
from llamaindex_lateint.querying import CARRIED, add_metadata

if TYPE_CHECKING:
    from llamaindex_lateint.vector_store import LateInteractionVectorStore


def _parameters(*functions: Any) -> frozenset[str]:
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return frozenset(
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind not in kinds and name != "self"
    )


_OF_RETRIEVER = _parameters(VectorIndexRetriever.__init__) - {"index", "callback_manager", "object_map"}
_OF_RESULTS = ("with_scores", "explain")
_OF_RETRIEVER |= {"filter", "vector_store_kwargs", *_OF_RESULTS}
_OF_ENGINES = _parameters(
    RetrieverQueryEngine.from_args,
    CondenseQuestionChatEngine.from_defaults,
    ContextChatEngine.from_defaults,
    CondensePlusContextChatEngine.from_defaults,
) - {"filter"}


class IndexRetriever(VectorIndexRetriever):
    """The retriever of a `LateInteractionIndex`. The store gets the whole query, also HyDE's texts or an image."""

    fills_node_ids = False

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found: list[NodeWithScore] = super()._retrieve(carrying(query_bundle))
        return found

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        found: list[NodeWithScore] = await super()._aretrieve(carrying(query_bundle))
        return found

    def _insert_fetched_nodes_into_query_result(
        self, query_result: VectorStoreQueryResult, fetched_nodes: list[BaseNode]
    ) -> Sequence[BaseNode]:
        """Keep what a result carries where LlamaIndex puts an image's node from its document store in its place."""
        nodes: Sequence[BaseNode] = super()._insert_fetched_nodes_into_query_result(
            query_result, fetched_nodes
        )
        if any(self._kwargs.get(name) for name in _OF_RESULTS):
            found = {node.node_id: node.metadata for node in query_result.nodes or ()}
            for node in nodes:
                carried = found[node.node_id]
                add_metadata(node, {name: carried[name] for name in CARRIED if name in carried})
        return nodes


class LateInteractionIndex(VectorStoreIndex):
    """A `VectorStoreIndex` that refuses arguments that LlamaIndex would ignore, such as a misspelt filter."""

    def as_retriever(self, **kwargs: Any) -> IndexRetriever:
        """Return a retriever.

        Args:
            **kwargs: as for LlamaIndex's `VectorIndexRetriever`; `filter`, a filter in the core's language such as
                `{"lang": "en"}`; `with_scores` and `explain`, what the nodes carry in their metadata (see the store's
                `query`).

        Raises:
            TypeError: an argument is unknown to the retriever and to engines.
        """
        if unknown := kwargs.keys() - _OF_RETRIEVER - _OF_ENGINES:
            raise TypeError(
                f"a retriever does not take {', '.join(sorted(unknown))}; it takes {', '.join(sorted(_OF_RETRIEVER))}."
            )
        given = kwargs.pop("filter", None)
        if given is not None:
            _add_filter(kwargs, given)
        asked = {name: kwargs.pop(name) for name in _OF_RESULTS if name in kwargs}
        if asked:
            kwargs["vector_store_kwargs"] = {**(kwargs.get("vector_store_kwargs") or {}), **asked}
        return IndexRetriever(
            self, callback_manager=self._callback_manager, object_map=self._object_map, **kwargs
        )


def _add_filter(kwargs: dict[str, Any], filter: Mapping[str, Any] | MetadataFilters) -> None:
    """Put a filter where LlamaIndex's retriever takes it."""
    if isinstance(filter, MetadataFilters):
        place, name = kwargs, "filters"
    else:
        place, name = dict(kwargs.get("vector_store_kwargs") or {}), "filter"
        kwargs["vector_store_kwargs"] = place
    if place.get(name) is not None:
        raise ValueError(f"there are two filters, {place[name]!r:.60} and {filter!r:.60}: give one.")
    place[name] = filter


class StoredHashes(SimpleDocumentStore):
    """A document store that also knows the hashes of the documents whose nodes are in a vector store.

    `refresh_ref_docs` asks for them, to insert only what is new and to replace only what has changed.
    """

    def __init__(self, vector_store: LateInteractionVectorStore) -> None:
        super().__init__()
        self._vector_store = vector_store

    def get_document_hash(self, doc_id: str) -> str | None:
        """Return a document's hash, or None if neither this store nor the vector store has it."""
        return self._vector_store.document_hash(doc_id) or super().get_document_hash(doc_id)

    async def aget_document_hash(self, doc_id: str) -> str | None:
        """Await `get_document_hash` on any event loop."""
        stored = await self._vector_store.adocument_hash(doc_id)
        return stored or await super().aget_document_hash(doc_id)
