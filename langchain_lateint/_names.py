"""The names that users of other stores type: each does what a method of ours does."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from numpy.typing import ArrayLike

from langchain_lateint._operations import Filter
from langchain_lateint._searches import SearchMethods
from late_interaction.adapting import FloatMatrix, PipelineHolder, Query


class UsualNames(PipelineHolder, SearchMethods):
    """Names of Chroma, Qdrant, PGVector and Astra for the methods of `LateInteractionVectorStore`."""

    def delete_collection(self) -> None:
        """Delete the index, as `drop` does."""
        self.drop()

    async def adelete_collection(self) -> None:
        """Await `delete_collection` on any event loop."""
        await self.adrop()

    def update_document(self, document_id: str, document: Document | Blob) -> None:
        """Replace the document of this id, or add it."""
        self.add_documents([document], ids=[document_id])  # type: ignore[list-item]

    async def aupdate_document(self, document_id: str, document: Document | Blob) -> None:
        """Await `update_document` on any event loop."""
        await self.aadd_documents([document], ids=[document_id])  # type: ignore[list-item]

    def similarity_search_with_vectors(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Return documents with their stored vectors, as `similarity_search_with_embeddings` does."""
        return self.similarity_search_with_embeddings(query, k, filter, **kwargs)

    async def asimilarity_search_with_vectors(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Await `similarity_search_with_vectors` on any event loop."""
        return await self.asimilarity_search_with_embeddings(query, k, filter, **kwargs)

    def max_marginal_relevance_search_with_score_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return what `max_marginal_relevance_search_with_score` does."""
        return self.max_marginal_relevance_search_with_score(
            embedding, k, fetch_k, lambda_mult, filter, **kwargs
        )

    async def amax_marginal_relevance_search_with_score_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Await `max_marginal_relevance_search_with_score_by_vector` on any event loop."""
        return await self.amax_marginal_relevance_search_with_score(
            embedding, k, fetch_k, lambda_mult, filter, **kwargs
        )
