"""LateInteractionAdapter: traverse a store as a graph, with langchain-graph-retriever.

It is not among the names of `langchain_lateint`, because it needs a package of its own: `pip install
langchain-graph-retriever`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from langchain_lateint._operations import Filter, Operation, to_langchain
from langchain_lateint.embeddings import unit_rows
from langchain_lateint.vectorstores import LateInteractionVectorStore
from late_interaction import LateInteractionPipeline, SearchOptions
from late_interaction.adapting import FloatMatrix, check_names, relevance
from late_interaction.filters import matches, parse_filter

try:
    from graph_retriever import Content
    from graph_retriever.adapters import Adapter
    from graph_retriever.edges import Edge, IdEdge, MetadataEdge
except ImportError as error:
    raise ImportError(
        "LateInteractionAdapter needs a package: pip install langchain-graph-retriever"
    ) from error


class QueryEmbedding(list[float]):
    """A query as graph-retriever sees it: a unit vector whose cosine with a found content is its mean MaxSim.

    Attributes:
        matrix: (n_tokens, dim), the query's vectors.
    """

    def __init__(self, matrix: FloatMatrix) -> None:
        super().__init__([1.0, *[0.0] * matrix.shape[1]])
        self.matrix = matrix


class LateInteractionAdapter(Adapter):  # type: ignore[misc]
    """Lets the `GraphRetriever` of langchain-graph-retriever traverse a `LateInteractionVectorStore`.

    `GraphRetriever(store=LateInteractionAdapter(store), edges=[("habitat", "habitat")])` goes from the documents that
    a query finds to those whose metadata link to them.

    What it needs of an embedding is its cosine. That of the query with a content is the mean MaxSim per query token,
    and that of two contents comes near that of their mean vectors. A content that is got by its id alone has a cosine
    of 0 with every query.

    Args:
        vector_store: the store; it stays yours to close.
    """

    def __init__(self, vector_store: LateInteractionVectorStore) -> None:
        if not isinstance(vector_store, LateInteractionVectorStore):
            raise TypeError(
                f"vector_store must be a LateInteractionVectorStore, not {type(vector_store).__name__}."
            )
        super().__init__()
        self.vector_store = vector_store

    def search_with_embedding(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> tuple[list[float], list[Content]]:
        """Return the query's embedding, and the `k` contents with the highest MaxSim."""
        return self.vector_store.pipeline.run(_found(query, k, filter, kwargs))

    async def asearch_with_embedding(
        self, query: str, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> tuple[list[float], list[Content]]:
        """Await `search_with_embedding` on any event loop."""
        return await self.vector_store.pipeline.arun(_found(query, k, filter, kwargs))

    def search(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Content]:
        """Return the `k` contents with the highest MaxSim for a query's embedding, or its vectors."""
        return self.vector_store.pipeline.run(_searched(embedding, k, [filter], [], None, kwargs))

    async def asearch(
        self, embedding: list[float], k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Content]:
        """Await `search` on any event loop."""
        return await self.vector_store.pipeline.arun(_searched(embedding, k, [filter], [], None, kwargs))

    def get(self, ids: Sequence[str], filter: Filter | None = None, **kwargs: Any) -> list[Content]:
        """Return contents by id, each once, leaving out unknown ids and those whose metadata do not match."""
        return self.vector_store.pipeline.run(_got(ids, filter, kwargs))

    async def aget(self, ids: Sequence[str], filter: Filter | None = None, **kwargs: Any) -> list[Content]:
        """Await `get` on any event loop."""
        return await self.vector_store.pipeline.arun(_got(ids, filter, kwargs))

    def adjacent(
        self,
        edges: set[Edge],
        query_embedding: list[float],
        k: int,
        filter: Filter | None,
        **kwargs: Any,
    ) -> Iterable[Content]:
        """Return the `k` contents with the highest MaxSim among those that one of the edges leads to."""
        filters, ids = self._ends(edges, filter)
        return self.vector_store.pipeline.run(_searched(query_embedding, k, filters, ids, filter, kwargs))

    async def aadjacent(
        self,
        edges: set[Edge],
        query_embedding: list[float],
        k: int,
        filter: Filter | None,
        **kwargs: Any,
    ) -> Iterable[Content]:
        """Await `adjacent` on any event loop."""
        filters, ids = self._ends(edges, filter)
        operation = _searched(query_embedding, k, filters, ids, filter, kwargs)
        return await self.vector_store.pipeline.arun(operation)

    def _ends(self, edges: set[Edge], filter: Filter | None) -> tuple[list[Filter | None], list[str]]:
        """Return the filters and the ids of what the edges lead to."""
        filters: list[Filter | None] = []
        ids: list[str] = []
        for edge in edges:
            if isinstance(edge, MetadataEdge):
                ends = self._metadata_filter(edge)
                filters.append({"$and": [ends, filter]} if filter else ends)
            elif isinstance(edge, IdEdge):
                ids.append(edge.id)
            else:
                raise TypeError(f"an edge leads to metadata or to an id, unlike {edge!r:.80}.")
        return filters, ids


def _found(
    query: str, k: int, filter: Filter | None, options: dict[str, Any]
) -> Operation[tuple[list[float], list[Content]]]:
    async def found(pipeline: LateInteractionPipeline) -> tuple[list[float], list[Content]]:
        [matrix] = await pipeline.encode_queries([query])
        embedding = QueryEmbedding(matrix)
        return embedding, await _searched(embedding, k, [filter], [], None, options)(pipeline)

    return found


def _searched(
    embedding: list[float],
    k: int,
    filters: Sequence[Filter | None],
    ids: Sequence[str],
    filter_of_ids: Filter | None,
    options: dict[str, Any],
) -> Operation[list[Content]]:
    """Return an operation that finds the best of what one of the filters, or one of the ids, allows."""
    check_names(SearchOptions, options)

    async def searched(pipeline: LateInteractionPipeline) -> list[Content]:
        if k == 0:
            return []
        matrix = _vectors(embedding, pipeline.model.dim)
        asked: list[dict[str, Any]] = [{**options, "filter": one} for one in filters]
        if ids:
            asked.append({**options, "filter": filter_of_ids, "ids": ids})
        lists = await asyncio.gather(*(pipeline.search_with_embeddings(matrix, k, **one) for one in asked))
        results = {result.doc_id: result for found in lists for result in found}
        best = sorted(results.values(), key=lambda result: -result.score)[:k]
        matrices = await pipeline.get_matrices([result.doc_id for result in best])
        return [
            _content(
                result,
                matrices.get(result.doc_id),
                2 * relevance(result.score, len(matrix)) - 1,
                pipeline.model.dim,
            )
            for result in best
        ]

    return searched


def _vectors(embedding: list[float], dim: int) -> FloatMatrix:
    return embedding.matrix if isinstance(embedding, QueryEmbedding) else unit_rows(embedding, dim)


def _got(ids: Sequence[str], filter: Filter | None, unknown: dict[str, Any]) -> Operation[list[Content]]:
    if unknown:
        raise TypeError(f"get takes ids and filter, not {', '.join(unknown)}.")
    wanted, parsed = list(dict.fromkeys(ids)), parse_filter(filter)

    async def got(pipeline: LateInteractionPipeline) -> list[Content]:
        documents = await pipeline.get_documents(wanted)
        matching = [one for one in documents if parsed is None or matches(parsed, one.metadata, one.content)]
        matrices = await pipeline.get_matrices([document.doc_id for document in matching])
        dim = pipeline.model.dim
        return [_content(document, matrices.get(document.doc_id), 0.0, dim) for document in matching]

    return got


def _content(stored: Any, matrix: FloatMatrix | None, similarity: float, dim: int) -> Content:
    """Return a content whose embedding has this cosine with the query's; the rest of it is the mean vector."""
    document = to_langchain(stored)
    mean = np.eye(1, dim, dtype=np.float32)[0] if matrix is None else matrix.mean(axis=0)
    mean /= np.linalg.norm(mean) or 1.0
    rest = math.sqrt(max(0.0, 1 - similarity**2))
    return Content(
        id=stored.doc_id,
        content=document.page_content,
        embedding=[similarity, *(rest * mean).tolist()],
        metadata=document.metadata,
    )
