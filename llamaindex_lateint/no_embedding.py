"""What stands where LlamaIndex asks for an embedding model and none is needed."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

_NOTHING = 0.0
_MOST = 2048


class NoEmbedding(BaseEmbedding):
    """An embedding model that computes nothing: the store encodes text itself, as a matrix and not as one vector.

    LlamaIndex resolves an embedding model for every index, to OpenAI's unless told otherwise, and an
    `IngestionPipeline` hands only nodes that have an embedding to its store. So give this one to both:
    `VectorStoreIndex(…, embed_model=NoEmbedding())` (`store.as_index()` does), and as the last transformation of
    a pipeline. Every embedding is `[0.0]`.
    """

    model_name: str = "none"
    embed_batch_size: int = _MOST

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's serialised settings."""
        return "LateInteractionNoEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return [_NOTHING]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [_NOTHING]

    def _get_text_embedding(self, text: str) -> list[float]:
        return [_NOTHING]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return [_NOTHING]
