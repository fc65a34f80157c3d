"""LlamaIndex's queries as searches of a pipeline: filters before the search, the rest of them after it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryMode
from numpy.typing import ArrayLike

from late_interaction import LateInteractionPipeline
from late_interaction.encoders.base import Item
from late_interaction.filters import And, Filter, parse_filter
from late_interaction.filters import matches as matches_core
from late_interaction.images.loading import ImageSource, load_image
from late_interaction.indexing import check_matrix
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_query
from late_interaction.ranking import check_mmr, diversify
from late_interaction.types import Document, FloatMatrix, SearchResult, SearchResults, SearchStats
from late_interaction.validation import check_positive
from llamaindex_lateint.filters import check_filters, matches, push_down
from llamaindex_lateint.nodes import PARENT

_OVERFETCH = 4
_MMR_PREFETCH = 4
_OF_OTHER_MODES = ("alpha", "sparse_top_k", "hybrid_top_k", "output_fields", "embedding_field")


def id_list(name: str, ids: Sequence[str] | None) -> list[str] | None:
    """The ids, each once; a bare str, which would be taken for a list of its letters, raises a TypeError."""
    if isinstance(ids, str):
        raise TypeError(f"{name} takes a list of ids, not a bare str: [{ids!r:.40}].")
    return None if ids is None else list(dict.fromkeys(ids))


@dataclass(frozen=True, slots=True)
class Selection:
    """Which documents count: what a store can tell before it searches, and what is left to look at.

    Attributes:
        pushed: for the store; finds every document that counts, and maybe others.
        filters: LlamaIndex's filters, which have the last word.
        node_ids: only these.
    """

    pushed: Filter | None = None
    filters: MetadataFilters | None = None
    node_ids: list[str] | None = None

    @classmethod
    def of(
        cls,
        filters: MetadataFilters | None,
        node_ids: Sequence[str] | None = None,
        *also: Mapping[str, Any] | Filter | None,
    ) -> Selection:
        """Check and translate filters.

        Raises:
            FilterError: a filter is not well formed.
            TypeError: something is no filter, or no list of ids.
        """
        if filters is not None:
            check_filters(filters)
        parts = [None if filters is None else push_down(filters), *map(parse_filter, also)]
        pushed = tuple(part for part in parts if part is not None)
        return cls(
            And(pushed) if len(pushed) > 1 else pushed[0] if pushed else None,
            filters,
            id_list("node_ids", node_ids),
        )

    def accepts(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document that the store found with `pushed` counts."""
        return self.filters is None or matches(self.filters, metadata)

    async def documents(self, pipeline: LateInteractionPipeline) -> list[Document]:
        """All that count; no vectors involved."""
        if self.node_ids is None:
            found = await pipeline.find(self.pushed)
        else:
            found = [
                document
                for document in await pipeline.get_documents(self.node_ids)
                if self.pushed is None or matches_core(self.pushed, document.metadata)
            ]
        return [document for document in found if self.accepts(document.metadata)]


@dataclass(frozen=True, slots=True)
class Search:
    """A checked query.

    Attributes:
        text: what to look for.
        matrix: its (n_tokens, dim) vectors, where they are given in place of the text.
        image: what to look for, where that is given in place of the text.
        k: how many documents.
        n: how many to choose them from.
        mmr_lambda: λ of maximal marginal relevance; None to go by relevance alone.
        selection: which documents count.
        options: further arguments of the pipeline's search.
    """

    text: str | None
    matrix: ArrayLike | None
    image: ImageSource | None
    k: int
    n: int
    mmr_lambda: float | None
    selection: Selection
    options: dict[str, Any]

    @classmethod
    def of(
        cls,
        query: VectorStoreQuery,
        *,
        query_image: ImageSource | None = None,
        query_matrix: ArrayLike | None = None,
        filter: Mapping[str, Any] | Filter | None = None,
        node_ids: Sequence[str] | None = None,
        mmr_threshold: float | None = None,
        mmr_prefetch_k: int | None = None,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        exact: bool = False,
    ) -> Search:
        """Check what `LateInteractionVectorStore.query` was given, which documents the arguments."""
        mode = VectorStoreQueryMode(query.mode)
        if mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            raise NotImplementedError(f"The query mode is 'default' or 'mmr', not {mode.value!r}.")
        if given := [name for name in _OF_OTHER_MODES if getattr(query, name) is not None]:
            raise ValueError(f"{', '.join(given)} of a query mean nothing to this store; leave them out.")
        if query_matrix is not None and query_image is not None:
            raise ValueError("query_image and query_matrix are both the query: give one of them.")
        if query_matrix is None and query_image is None and not query.query_str:
            raise ValueError(
                "This store encodes the query itself and needs its query_str, or else an image or its token vectors as "
                "vector_store_kwargs={'query_image': …} or {'query_matrix': …}; a query_embedding is one vector, "
                "which is not enough."
            )
        k, mmr_lambda = query.similarity_top_k, None
        check_positive("similarity_top_k", k)
        if mode == VectorStoreQueryMode.MMR:
            given_lambda = query.mmr_threshold if mmr_threshold is None else mmr_threshold
            mmr_lambda = 0.5 if given_lambda is None else given_lambda
            check_mmr(k, mmr_lambda)
        elif (mmr_threshold, mmr_prefetch_k, query.mmr_threshold) != (None, None, None):
            raise ValueError("mmr_threshold and mmr_prefetch_k are for the query mode 'mmr'.")
        if mmr_prefetch_k is not None:
            check_positive("mmr_prefetch_k", mmr_prefetch_k)
        if node_ids is not None and (n_ann_tokens, n_maxsim_candidates) != (None, None):
            raise ValueError(
                "With node_ids each of these nodes is scored: n_ann_tokens and n_maxsim_candidates mean nothing."
            )
        default = k if mmr_lambda is None else _MMR_PREFETCH * k
        prefetch = default if mmr_prefetch_k is None else mmr_prefetch_k
        doc_ids = id_list("doc_ids", query.doc_ids)
        parents = None if doc_ids is None else {PARENT: {"$in": doc_ids}}
        return cls(
            query.query_str,
            query_matrix,
            query_image,
            k,
            max(k, prefetch),
            mmr_lambda,
            Selection.of(query.filters, node_ids, parents, filter),
            {"n_ann_tokens": n_ann_tokens, "n_maxsim_candidates": n_maxsim_candidates, "exact": exact},
        )

    async def run(self, pipeline: LateInteractionPipeline) -> SearchResults:
        """The documents found, best first."""
        query = self.matrix
        if query is None:
            query = (await pipeline.encode_queries([await self._item(pipeline)]))[0]
        if self.selection.node_ids is None:
            results = await self._search(pipeline, query)
        else:
            results = await self._score(pipeline, check_matrix(query, pipeline.model.dim))
        if self.mmr_lambda is None:
            return results
        return await diversify(pipeline, results, self.k, self.mmr_lambda)

    async def _item(self, pipeline: LateInteractionPipeline) -> Item:
        """What to encode: the text, or the image."""
        if self.image is None:
            return self.text or ""
        if not pipeline.model.supports_images:
            raise ValueError(f"query_image is an image, and {pipeline.model.model_name} encodes text.")
        return await asyncio.to_thread(load_image, self.image, allow_urls=pipeline.allow_urls)

    async def _search(self, pipeline: LateInteractionPipeline, query: ArrayLike) -> SearchResults:
        """Search for more until enough of what is found counts, or the store has no more."""
        asked = self.n
        while True:
            found = await pipeline.search_with_embeddings(
                query, asked, filter=self.selection.pushed, **self.options
            )
            accepted = [result for result in found if self.selection.accepts(result.metadata)]
            if len(accepted) >= self.n or len(found) < asked:
                return SearchResults(accepted[: self.n], found.stats)
            asked *= _OVERFETCH

    async def _score(self, pipeline: LateInteractionPipeline, query: FloatMatrix) -> SearchResults:
        """Score the documents that count, all of them."""
        documents = await self.selection.documents(pipeline)
        matrices = await pipeline.get_matrices([document.doc_id for document in documents])
        there = [document for document in documents if document.doc_id in matrices]
        pooled = pool_query(query, pipeline.query_pool_distance)
        scores = await asyncio.to_thread(maxsim, pooled.vectors, list(matrices.values()), pooled.weights)
        results = [
            SearchResult(d.doc_id, score, d.content, d.content_type, d.metadata)
            for d, score in zip(there, scores.tolist(), strict=True)
        ]
        results.sort(key=lambda result: -result.score)
        return SearchResults(results[: self.n], SearchStats(n_query_tokens=len(query)))
