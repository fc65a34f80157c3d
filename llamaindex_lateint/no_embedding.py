"""NoEmbedding: for the places where LlamaIndex asks for an embedding model and none is needed."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

_NOTHING = 0.0
_MOST = 2048


class NoEmbedding(BaseEmbedding):
    """An embedding model that computes nothing, because the store encodes text itself, as a matrix.

    LlamaIndex resolves an embedding model for every index, to OpenAI's unless told otherwise, and an
    `IngestionPipeline` gives its store only the nodes that have an embedding. So pass this model to an index
    (`VectorStoreIndex(…, embed_model=NoEmbedding())`; `store.as_index()` does it for you), and make it the last
    transformation of a pipeline:

    >>> from llama_index.core import Document
    >>> from llama_index.core.ingestion import IngestionPipeline
    >>> from llamaindex_lateint import LateInteractionVectorStore, NoEmbedding
    >>> with LateInteractionVectorStore(model="demo", path="my_index") as store:
    ...     pipeline = IngestionPipeline(transformations=[NoEmbedding()], vector_store=store)
    ...     nodes = pipeline.run(documents=[Document(text="The dog guards the house.", id_="dogs")])
    ...     [node.node_id for node in store.get_nodes()]
    ['dogs']

    Every embedding is `[0.0]`.
    """

    model_name: str = "none"
    embed_batch_size: int = _MOST

    @classmethod
    def class_name(cls) -> str:
        """Return the name in LlamaIndex's serialised settings."""
        return "LateInteractionNoEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        return [_NOTHING]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return [_NOTHING]

    def _get_text_embedding(self, text: str) -> list[float]:
        return [_NOTHING]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return [_NOTHING]
