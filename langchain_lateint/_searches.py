"""The store's searches: by text, image or vectors; with scores, relevance or vectors; and by MMR."""

from __future__ import annotations

from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore
from numpy.typing import ArrayLike
from typing_extensions import override

from langchain_lateint._operations import (
    Filter,
    all_to_langchain,
    mmr_operation,
    of_search_type,
    scored,
    search_operation,
    search_with_matrices_operation,
    to_langchain,
)
from langchain_lateint._relevance import ScaleFn
from late_interaction import SearchResults, SyncPipeline
from late_interaction.adapting import FloatMatrix, Query, relevance, relevances


class SearchMethods(VectorStore):
    """The searches of `LateInteractionVectorStore`.

    All take the same last arguments; any other argument raises a TypeError:

    - `k`: how many documents.
    - `filter`: only documents whose metadata match. With a filter, an empty query returns the first documents that
      match, with scores of 0.
    - `offset`: leave out so many of the best, for pages.
    - `mode`: "late" (the default), "hybrid" or "lexical", and `lexical_weight`: see `SearchOptions`. A search by
      vectors takes the words as `text`. The scores of a hybrid search lie between 0 and 1, and are relative to
      each other.
    - `n_ann_tokens`, `n_maxsim_candidates`, `exact`: as for `LateInteractionPipeline.search`.
    - `with_scores=True`: put the raw score under "score" and the id under "id" into the documents' metadata.
    - `explain=True`: put the words that answered a text under "matched" into the metadata, as a list of
      `{"start", "end", "text", "contribution", "answers", "lexical"}`: positions in the text, the part of the score,
      what each word of the query has of it, and whether a hybrid or lexical search found it; of a page its patches, as
      `{"box", "contribution", "answers"}`. It encodes each document found once more, and needs a `ColBERTModel` or a
      `ColPaliModel`. `explain(query, id)` has the whole explanation.
    """

    _pipeline: SyncPipeline
    _relevance: ScaleFn

    @override
    def search(self, query: Query, search_type: str, **kwargs: Any) -> list[Document]:
        """Search by LangChain's search types, "hybrid" or "lexical"; the last two are modes of "similarity"."""
        kind, options = of_search_type(search_type, kwargs)
        return super().search(query, kind, **options)  # type: ignore[arg-type]

    @override
    async def asearch(self, query: Query, search_type: str, **kwargs: Any) -> list[Document]:
        """Await `search` on any event loop."""
        kind, options = of_search_type(search_type, kwargs)
        return await super().asearch(query, kind, **options)  # type: ignore[arg-type]

    # --- by a text or an image

    @override
    def similarity_search(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the `k` documents with the highest MaxSim for a text or an image, best first."""
        return all_to_langchain(self._pipeline.run(search_operation(query, k, filter, kwargs)))

    @override
    async def asimilarity_search(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Await `similarity_search` on any event loop."""
        return all_to_langchain(await self._pipeline.arun(search_operation(query, k, filter, kwargs)))

    @override
    def similarity_search_with_score(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their raw MaxSim: higher is better, at most 1 per query token."""
        return scored(self._pipeline.run(search_operation(query, k, filter, kwargs)))

    @override
    async def asimilarity_search_with_score(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Await `similarity_search_with_score` on any event loop."""
        return scored(await self._pipeline.arun(search_operation(query, k, filter, kwargs)))

    @override
    def _similarity_search_with_relevance_scores(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(self._pipeline.run(search_operation(query, k, filter, kwargs)))

    @override
    async def _asimilarity_search_with_relevance_scores(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(await self._pipeline.arun(search_operation(query, k, filter, kwargs)))

    def _relevant(self, results: SearchResults) -> list[tuple[Document, float]]:
        mode, n = results.stats.mode, results.stats.n_query_tokens
        if mode == "late" and not n:  # What matches a filter, without a query.
            scores = [0.0] * len(results)
        elif self._relevance is relevance:
            scores = relevances(results)
        else:
            scores = [self._relevance(result.score, max(1, n)) for result in results]
        return [(to_langchain(result), score) for result, score in zip(results, scores, strict=True)]

    def similarity_search_with_embeddings(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Return documents with their stored (n_tokens, dim) float32 vectors."""
        return self._pipeline.run(search_with_matrices_operation(query, k, filter, kwargs))

    async def asimilarity_search_with_embeddings(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Await `similarity_search_with_embeddings` on any event loop."""
        return await self._pipeline.arun(search_with_matrices_operation(query, k, filter, kwargs))

    # --- by a query's vectors

    @override
    def similarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Return the `k` documents with the highest MaxSim for a query's vectors, best first.

        Args:
            embedding: (n_tokens, dim), or (dim,) for one vector; each is scaled to length 1.
            k: how many documents.
            filter: only documents whose metadata match.
            kwargs: as for all searches.
        """
        return all_to_langchain(self._pipeline.run(search_operation(embedding, k, filter, kwargs)))

    @override
    async def asimilarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """Await `similarity_search_by_vector` on any event loop."""
        return all_to_langchain(await self._pipeline.arun(search_operation(embedding, k, filter, kwargs)))

    def similarity_search_with_score_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents for a query's vectors, with their raw MaxSim."""
        return scored(self._pipeline.run(search_operation(embedding, k, filter, kwargs)))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Await `similarity_search_with_score_by_vector` on any event loop."""
        return scored(await self._pipeline.arun(search_operation(embedding, k, filter, kwargs)))

    # --- for relevant documents that differ from each other

    @override
    def max_marginal_relevance_search(
        self,
        query: Query,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return `k` documents that are relevant and differ from each other, by maximal marginal relevance.

        Args:
            query: a text or an image.
            k: how many documents.
            fetch_k: how many of the most relevant documents to choose from.
            lambda_mult: from 0, as different as possible, to 1, by relevance alone.
            filter: only documents whose metadata match.
            kwargs: as for all searches.
        """
        return all_to_langchain(
            self._pipeline.run(mmr_operation(query, k, fetch_k, lambda_mult, filter, kwargs))
        )

    @override
    async def amax_marginal_relevance_search(
        self,
        query: Query,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Await `max_marginal_relevance_search` on any event loop."""
        return all_to_langchain(
            await self._pipeline.arun(mmr_operation(query, k, fetch_k, lambda_mult, filter, kwargs))
        )

    @override
    def max_marginal_relevance_search_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Return what `max_marginal_relevance_search` does, for a query's vectors."""
        return all_to_langchain(
            self._pipeline.run(mmr_operation(embedding, k, fetch_k, lambda_mult, filter, kwargs))
        )

    @override
    async def amax_marginal_relevance_search_by_vector(
        self,
        embedding: ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """Await `max_marginal_relevance_search_by_vector` on any event loop."""
        return all_to_langchain(
            await self._pipeline.arun(mmr_operation(embedding, k, fetch_k, lambda_mult, filter, kwargs))
        )

    def max_marginal_relevance_search_with_score(
        self,
        query: Query | ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Return what `max_marginal_relevance_search` does, for a text, an image or vectors, with raw MaxSim scores."""
        return scored(self._pipeline.run(mmr_operation(query, k, fetch_k, lambda_mult, filter, kwargs)))

    async def amax_marginal_relevance_search_with_score(
        self,
        query: Query | ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """Await `max_marginal_relevance_search_with_score` on any event loop."""
        return scored(
            await self._pipeline.arun(mmr_operation(query, k, fetch_k, lambda_mult, filter, kwargs))
        )
