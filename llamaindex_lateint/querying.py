"""Run LlamaIndex's queries on a pipeline: some filters before the search, the others after it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from llama_index.core.schema import BaseNode, MetadataMode
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryMode
from numpy.typing import ArrayLike

from late_interaction import (
    Document,
    LateInteractionPipeline,
    SearchOptions,
    SearchResult,
    SearchResults,
    load_image,
)
from late_interaction.adapting import (
    DocId,
    FoundBy,
    ImageSource,
    Mode,
    check_mmr,
    check_names,
    check_not_negative,
    check_positive,
    diversify,
    filled,
)
from late_interaction.explain import check_explains, matched_parts
from late_interaction.filters import And, Filter, parse_filter
from late_interaction.filters import matches as matches_core
from llamaindex_lateint.filters import check_filters, matches, of_documents, push_down
from llamaindex_lateint.no_embedding import QueryEmbedding
from llamaindex_lateint.nodes import encoded_text

if TYPE_CHECKING:
    from PIL import Image

CARRIED = SCORE_KEY, ID_KEY, MATCHED_KEY = "score", "id", "matched"
"""The metadata keys that `with_scores` and `explain` add to nodes."""

_OVERFETCH = 4
_MMR_PREFETCH = 4
_MMR_LAMBDA = 0.5
_MODES: dict[VectorStoreQueryMode, Mode | None] = {
    VectorStoreQueryMode.DEFAULT: None,
    VectorStoreQueryMode.MMR: None,
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
    VectorStoreQueryMode.SPARSE: "lexical",
}
"""What to search by in each mode; None for what the options say."""
_FIELDS_OF: dict[Mode | None, tuple[str, ...]] = {
    None: (),
    "hybrid": ("alpha", "sparse_top_k", "hybrid_top_k"),
    "lexical": ("sparse_top_k",),
}
_OF_SOME_MODES = ("alpha", "sparse_top_k", "hybrid_top_k", "output_fields", "embedding_field")


def id_list(name: str, ids: Sequence[DocId] | None) -> list[str] | None:
    """Return the ids, each once; raise a TypeError for a bare str, which would be taken for a list of its letters."""
    if isinstance(ids, str):
        raise TypeError(f"{name} takes a list of ids, not a bare str: [{ids!r:.40}].")
    return None if ids is None else list(dict.fromkeys(map(str, ids)))


@dataclass(frozen=True, slots=True)
class Selection:
    """The documents that may be found.

    Attributes:
        pushed: the part of the filters that the store applies. It finds every document that may be found, and maybe
            others.
        filters: LlamaIndex's filters, which decide.
        node_ids: only these documents.
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
            TypeError: a filter or a list of ids has the wrong type.
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
        """Return whether a document that the store found with `pushed` may be found."""
        return self.filters is None or matches(self.filters, metadata)

    async def documents(self, pipeline: LateInteractionPipeline) -> list[Document]:
        """Return all documents that may be found, without using vectors."""
        if self.node_ids is None:
            found = await pipeline.find(self.pushed)
        else:
            found = [
                document
                for document in await pipeline.get_documents(self.node_ids)
                if self.pushed is None or matches_core(self.pushed, document.metadata, document.content)
            ]
        return [document for document in found if self.accepts(document.metadata)]


@dataclass(frozen=True, slots=True)
class Search:
    """A checked query.

    Attributes:
        texts: what to search for. The vectors of several texts are one query together.
        matrix: (n_tokens, dim) vectors to search with instead of the texts.
        image: what to search for instead of the texts.
        k: how many documents.
        offset: how many of the best to leave out before them.
        n: how many documents to choose these from.
        mmr_lambda: λ of maximal marginal relevance; None to rank by relevance alone.
        selection: which documents may be found.
        options: further arguments of the pipeline's search.
        with_scores: add each node's score and id to its metadata.
        explain: add the words that answered to each node's metadata.
        with_twins: where MMR has fewer than k documents, fill up with those of a content that is there already.
    """

    texts: tuple[str, ...]
    matrix: ArrayLike | None
    image: ImageSource | None
    k: int
    offset: int
    n: int
    mmr_lambda: float | None
    selection: Selection
    options: SearchOptions
    with_scores: bool = False
    explain: bool = False
    with_twins: bool = False

    @classmethod
    def of(
        cls,
        query: VectorStoreQuery,
        *,
        query_image: ImageSource | None = None,
        query_matrix: ArrayLike | None = None,
        node_ids: Sequence[str] | None = None,
        mmr_threshold: float | None = None,
        mmr_prefetch_k: int | None = None,
        with_scores: bool = False,
        explain: bool = False,
        **options: Unpack[SearchOptions],
    ) -> Search:
        """Check the arguments of `LateInteractionVectorStore.query`, which documents them."""
        check_names(SearchOptions, options)
        k = query.similarity_top_k
        check_positive("similarity_top_k", k)
        is_mmr = VectorStoreQueryMode(query.mode) == VectorStoreQueryMode.MMR
        k, n_listed = _search_by(query, options)
        texts, image = _texts_and_image(query, query_image)
        if query_matrix is not None and image is not None:
            raise ValueError("an image and query_matrix are both the query: give one of them.")
        if not is_mmr and (mmr_threshold, mmr_prefetch_k, query.mmr_threshold) != (None, None, None):
            raise ValueError("mmr_threshold and mmr_prefetch_k are for the query mode 'mmr'.")
        doc_ids = id_list("doc_ids", query.doc_ids)
        parents = None if doc_ids is None else of_documents(doc_ids)
        # LlamaIndex gives an empty list where it has no ids to give.
        node_ids = _both(query.node_ids or None, _both(node_ids, id_list("ids", options.pop("ids", None))))
        selection = Selection.of(query.filters, node_ids, parents, options.pop("filter", None))
        offset = check_not_negative("offset", options.pop("offset", 0))
        with_twins = is_mmr and not options.get("distinct")
        if is_mmr:
            options.setdefault("distinct", True)
        if node_ids is not None and options.keys() & {"n_ann_tokens", "n_maxsim_candidates"}:
            raise ValueError(
                "With node_ids every one of these nodes is scored: n_ann_tokens and n_maxsim_candidates have no effect."
            )
        if explain and (image is not None or query_matrix is not None):
            raise ValueError("explain=True tells which words answered a text, and the query is not a text.")
        if not texts and image is None and query_matrix is None and selection == Selection():
            raise ValueError(
                "This query has nothing to search for and no filters. This store encodes queries itself: give it a "
                "query_str, or an image or token vectors as vector_store_kwargs={'query_image': …} or "
                "{'query_matrix': …}. The query_embedding of another model is not enough."
            )
        return cls(
            texts,
            query_matrix,
            image,
            k,
            offset,
            _prefetch(k + offset, mmr_prefetch_k) if is_mmr else max(k + offset, n_listed),
            _mmr_lambda(query, mmr_threshold) if is_mmr else None,
            selection,
            options,
            with_scores,
            explain,
            with_twins,
        )

    async def run(self, pipeline: LateInteractionPipeline) -> SearchResults | list[Document]:
        """Return the results, best first; or, if there is nothing to search for, documents that match the filters."""
        query: ArrayLike | None
        if self.matrix is not None:
            query = self.matrix
        elif self.texts and self.options.get("mode") == "lexical":
            query = None
        elif items := await self._items(pipeline):
            query = np.concatenate(await pipeline.encode_queries(items))
        else:
            return (await self.selection.documents(pipeline))[self.offset :][: self.k]
        results = await self._search(pipeline, query)
        if self.mmr_lambda is not None:
            most = self.offset + self.k
            results = await diversify(pipeline, results, most, self.mmr_lambda)
            if len(results) < most and self.with_twins:
                twins = replace(self, n=most, options={**self.options, "distinct": False})
                results = filled(results, await twins._search(pipeline, query), most)  # noqa: SLF001 - a copy
        return SearchResults(results[self.offset :][: self.k], results.stats)

    async def add_to(
        self,
        pipeline: LateInteractionPipeline,
        nodes: Sequence[BaseNode],
        found: SearchResults | list[Document],
        scores: Sequence[float] | None,
    ) -> None:
        """Add to the nodes' metadata what the query asks for; models that embed or answer are not shown it."""
        added: list[dict[str, Any]] = [{} for _ in nodes]
        if self.with_scores:
            for position, node in enumerate(nodes):
                added[position] = {ID_KEY: node.node_id}
                if scores is not None:
                    added[position][SCORE_KEY] = scores[position]
        if self.explain and isinstance(found, SearchResults) and found:
            check_explains(pipeline.model)
            matrix = np.concatenate(await pipeline.encode_queries(self.texts))
            asked = FoundBy(pipeline, matrix, self.texts[0] if len(self.texts) == 1 else None)
            for extra, node, result in zip(added, nodes, found, strict=True):
                extra[MATCHED_KEY] = await _matched(asked, node, result)
        for node, extra in zip(nodes, added, strict=True):
            add_metadata(node, extra)

    async def _items(self, pipeline: LateInteractionPipeline) -> Sequence[str | Image.Image]:
        """Return what to encode, the texts or the image."""
        if self.image is None:
            return self.texts
        if not pipeline.model.supports_images:
            raise ValueError(f"The query is an image, and {pipeline.model.model_name} encodes text only.")
        return [await asyncio.to_thread(load_image, self.image, allow_urls=pipeline.settings.allow_urls)]

    async def _search(self, pipeline: LateInteractionPipeline, query: ArrayLike | None) -> SearchResults:
        """Search for more until enough documents pass the filters, or the store has no more."""
        asked = self.n
        text = " ".join(self.texts) or None
        options: SearchOptions = {
            **self.options,
            "filter": self.selection.pushed,
            "ids": self.selection.node_ids,
        }
        while True:
            if query is None:
                found = await pipeline.search(text or "", asked, **options)
            else:
                found = await pipeline.search_with_embeddings(query, asked, text=text, **options)
            accepted = [result for result in found if self.selection.accepts(result.metadata)]
            if len(accepted) >= self.n or len(found) < asked:
                return SearchResults(accepted[: self.n], found.stats)
            asked *= _OVERFETCH


async def _matched(asked: FoundBy, node: BaseNode, result: SearchResult) -> list[dict[str, Any]]:
    """Return what of a node answered; positions are in its text, without the metadata that were encoded with it."""
    document = Document(result.doc_id, result.content, result.content_type, result.metadata)
    explanation = await asked.aexplain(result, encoded_text(document))
    content = node.get_content(MetadataMode.NONE)
    start = max(0, explanation.content.rfind(content))
    return matched_parts(explanation, start, start + len(content))


def add_metadata(node: BaseNode, extra: Mapping[str, Any]) -> None:
    """Add to a node's metadata what models that embed or answer are not shown."""
    node.metadata.update(extra)
    for keys in (node.excluded_embed_metadata_keys, node.excluded_llm_metadata_keys):
        keys.extend(name for name in extra if name not in keys)


def _search_by(query: VectorStoreQuery, options: SearchOptions) -> tuple[int, int]:
    """Put into the options what a query's mode says; return how many documents it wants, and among how many at least.

    Raises:
        NotImplementedError: the store does not have the mode.
        ValueError: the query has a field that the mode has no use for, or the options another mode.
    """
    query_mode = VectorStoreQueryMode(query.mode)
    if query_mode not in _MODES:
        known = ", ".join(repr(mode.value) for mode in _MODES)
        raise NotImplementedError(f"The query mode must be one of {known}, not {query_mode.value!r}.")
    mode = _MODES[query_mode]
    if given := [
        name for name in _OF_SOME_MODES if getattr(query, name) is not None and name not in _FIELDS_OF[mode]
    ]:
        raise ValueError(
            f"This store has no use for {', '.join(given)} of a query in the mode {query_mode.value!r}: leave them out."
        )
    if mode is not None:
        if options.setdefault("mode", mode) != mode:
            raise ValueError(
                f"The query mode {query_mode.value!r} and mode={options['mode']!r} exclude each other."
            )
        if query.alpha is not None:
            if options.get("lexical_weight") is not None:
                raise ValueError("alpha is 1 - lexical_weight: give one of them.")
            if not 0 <= query.alpha <= 1:
                raise ValueError(f"alpha must be from 0 to 1, not {query.alpha!r:.40}.")
            options["lexical_weight"] = 1 - query.alpha
    for name in ("sparse_top_k", "hybrid_top_k"):
        if getattr(query, name) is not None:
            check_positive(name, getattr(query, name))
    if mode == "lexical":
        return query.sparse_top_k or query.similarity_top_k, 0
    return query.hybrid_top_k or query.similarity_top_k, query.sparse_top_k or 0


def _texts_and_image(
    query: VectorStoreQuery, query_image: ImageSource | None
) -> tuple[tuple[str, ...], ImageSource | None]:
    """Return the texts and the image to search for; the embedding of `NoEmbedding` carries them, or `query_str` does.

    An embedding of another model is not used: LlamaIndex makes one where an index was not given `NoEmbedding`.
    """
    carried = query.query_embedding
    if isinstance(carried, QueryEmbedding):
        texts, image = carried.texts, carried.image
    else:
        texts, image = (query.query_str or "",), None
    if query_image is not None and image is not None:
        raise ValueError("the query has an image, and query_image is another: give one of them.")
    return tuple(text for text in texts if text.strip()), image if query_image is None else query_image


def _both(ids: Sequence[str] | None, others: Sequence[str] | None) -> list[str] | None:
    """Return the ids that are in both lists, where None allows all."""
    one, other = id_list("node_ids", ids), id_list("node_ids", others)
    if one is None or other is None:
        return one if other is None else other
    allowed = set(other)
    return [doc_id for doc_id in one if doc_id in allowed]


def _mmr_lambda(query: VectorStoreQuery, mmr_threshold: float | None) -> float:
    given = query.mmr_threshold if mmr_threshold is None else mmr_threshold
    mmr_lambda = _MMR_LAMBDA if given is None else given
    check_mmr(query.similarity_top_k, mmr_lambda)
    return mmr_lambda


def _prefetch(k: int, mmr_prefetch_k: int | None) -> int:
    """Return how many documents MMR chooses from."""
    if mmr_prefetch_k is None:
        return _MMR_PREFETCH * k
    check_positive("mmr_prefetch_k", mmr_prefetch_k)
    return max(k, mmr_prefetch_k)
