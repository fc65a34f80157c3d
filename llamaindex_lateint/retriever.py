"""LateInteractionRetriever: a retriever directly on the store, without an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.constants import DEFAULT_SIMILARITY_TOP_K
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import (
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llamaindex_lateint.no_embedding import carrying
from llamaindex_lateint.querying import id_list
from llamaindex_lateint.vector_store import LateInteractionVectorStore


class LateInteractionRetriever(BaseRetriever):
    """Retrieves nodes from a `LateInteractionVectorStore`, without an index and without an embedding model.

    >>> from llama_index.core.schema import TextNode
    >>> from llamaindex_lateint import LateInteractionRetriever, LateInteractionVectorStore
    >>> with LateInteractionVectorStore(model="demo", path="my_index") as store:
    ...     ids = store.add([TextNode(text="The dog guards the house."), TextNode(text="The car needs petrol.")])
    ...     found = LateInteractionRetriever(store, similarity_top_k=1).retrieve("who watches my home?")
    >>> found[0].text
    'The dog guards the house.'

    With a model that encodes images, a `QueryBundle` that has an `image_path` is searched by that image and not by its
    text. A query engine still asks its language model by the text.

    Args:
        vector_store: where to search.
        similarity_top_k: how many nodes.
        filters: only nodes whose metadata match.
        doc_ids: only nodes of these documents.
        vector_store_query_mode: "default", "mmr", "hybrid", "semantic_hybrid", "text_search" or "sparse".
        alpha: how much MaxSim counts in a hybrid mode, from 0 to 1; 0.7 by default.
        sparse_top_k: as for `LateInteractionVectorStore.query`.
        hybrid_top_k: as for `LateInteractionVectorStore.query`.
        with_scores: put each node's score under "score" and its id under "id" into its metadata.
        explain: put the words that answered under "matched" into each node's metadata, as `{"start", "end",
            "text", "contribution", "answers", "lexical"}`; of a page its patches (see
            `LateInteractionVectorStore.query`).
        vector_store_kwargs: further arguments of `LateInteractionVectorStore.query`.
        callback_manager: LlamaIndex's callbacks.
    """

    def __init__(
        self,
        vector_store: LateInteractionVectorStore,
        *,
        similarity_top_k: int = DEFAULT_SIMILARITY_TOP_K,
        filters: MetadataFilters | None = None,
        doc_ids: Sequence[str] | None = None,
        vector_store_query_mode: VectorStoreQueryMode | str = VectorStoreQueryMode.DEFAULT,
        alpha: float | None = None,
        sparse_top_k: int | None = None,
        hybrid_top_k: int | None = None,
        with_scores: bool = False,
        explain: bool = False,
        vector_store_kwargs: Mapping[str, Any] | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        super().__init__(callback_manager=callback_manager)
        self._vector_store = vector_store
        self._similarity_top_k = similarity_top_k
        self._filters = filters
        self._doc_ids = id_list("doc_ids", doc_ids)
        self._mode = VectorStoreQueryMode(vector_store_query_mode)
        self._alpha, self._sparse_top_k, self._hybrid_top_k = alpha, sparse_top_k, hybrid_top_k
        asked = {
            name: True for name, wanted in (("with_scores", with_scores), ("explain", explain)) if wanted
        }
        self._kwargs = {**asked, **(vector_store_kwargs or {})}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(self._vector_store.query(self._query(query_bundle), **self._kwargs))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(await self._vector_store.aquery(self._query(query_bundle), **self._kwargs))

    def _query(self, query_bundle: QueryBundle) -> VectorStoreQuery:
        return VectorStoreQuery(
            query_str=query_bundle.query_str,
            query_embedding=carrying(query_bundle).embedding,
            similarity_top_k=self._similarity_top_k,
            filters=self._filters,
            doc_ids=self._doc_ids,
            mode=self._mode,
            alpha=self._alpha,
            sparse_top_k=self._sparse_top_k,
            hybrid_top_k=self._hybrid_top_k,
        )


def _scored(result: VectorStoreQueryResult) -> list[NodeWithScore]:
    nodes = result.nodes or ()
    scores = [None] * len(nodes) if result.similarities is None else result.similarities
    return [NodeWithScore(node=node, score=score) for node, score in zip(nodes, scores, strict=True)]
