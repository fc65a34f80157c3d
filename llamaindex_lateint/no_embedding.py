"""NoEmbedding: for the places where LlamaIndex asks for an embedding model and none is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.schema import QueryBundle

_MOST = 2048


class QueryEmbedding(list[float]):
    """The vector `[0.0]`, which carries what to search for through LlamaIndex to the store.

    Attributes:
        texts: the texts of the query. HyDE gives hypothetical answers, for example.
        image: the path of an image to search with instead.
    """

    def __init__(self, texts: Sequence[str] = (), image: Any = None) -> None:
        super().__init__([0.0])
        self.texts = tuple(texts)
        self.image = image


def carrying(query: QueryBundle) -> QueryBundle:
    """Return a copy of a query whose embedding carries what to search for."""
    embedding = query.embedding
    if not isinstance(embedding, QueryEmbedding):
        image = None if query.image_path is None else Path(query.image_path)
        embedding = QueryEmbedding(query.embedding_strs, image)
    return QueryBundle(query.query_str, embedding=embedding)


class NoEmbedding(MultiModalEmbedding):
    """An embedding model that computes nothing, because the store encodes texts and images itself, as matrices.

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

    Every embedding is `[0.0]`. That of a query also carries the query's texts, or its image, so that the store gets
    them from everything in LlamaIndex that passes on embeddings alone.
    """

    model_config = ConfigDict(extra="forbid")

    model_name: str = "none"
    embed_batch_size: int = _MOST

    @classmethod
    def class_name(cls) -> str:
        """Return the name in LlamaIndex's serialised settings."""
        return "LateInteractionNoEmbedding"

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """Return an embedding that carries all texts, where other models return the mean of their embeddings."""
        return QueryEmbedding(queries)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., list[float]] | None = None
    ) -> list[float]:
        """Await `get_agg_embedding_from_queries`."""
        return QueryEmbedding(queries)

    def _get_query_embedding(self, query: str) -> list[float]:
        return QueryEmbedding([query])

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return QueryEmbedding([query])

    def _get_text_embedding(self, text: str) -> list[float]:
        return [0.0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return [0.0]

    def _get_image_embedding(self, img_file_path: Any) -> list[float]:
        is_path = isinstance(img_file_path, str | PathLike)
        return QueryEmbedding(image=Path(fspath(img_file_path)) if is_path else img_file_path)

    async def _aget_image_embedding(self, img_file_path: Any) -> list[float]:
        return self._get_image_embedding(img_file_path)
