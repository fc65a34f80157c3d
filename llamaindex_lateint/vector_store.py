"""`LateInteractionVectorStore`: an index of token vectors as a LlamaIndex vector store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from late_interaction import (
    DocumentError,
    LateInteractionModel,
    LateInteractionPipeline,
    RowFailure,
    StoreError,
    SyncPipeline,
    load_model,
)
from late_interaction.connection import Connection
from late_interaction.images.storing import StoreImages
from late_interaction.ranking import relevance
from late_interaction.rows import ImageDocument
from late_interaction.stores.astra.database import astra_database
from late_interaction.types import Document, PackingDtype
from llamaindex_lateint.ingestion import watch_ingestion
from llamaindex_lateint.no_embedding import NoEmbedding
from llamaindex_lateint.nodes import PARENT, EncodableNode, encodable_node, node_of
from llamaindex_lateint.querying import Search, Selection

if TYPE_CHECKING:
    from astrapy import AsyncDatabase
    from astrapy.authentication import TokenProvider

logger = logging.getLogger(__name__)

_SETTINGS = (2, 0.03, "int8", 16, "reference", False)
"""The defaults of what is a pipeline's."""


class LateInteractionVectorStore(BasePydanticVectorStore):
    """A vector store that encodes text and images itself, a vector per token, and needs no embedding model.

    The index is created, or attached to, by the first method that needs it. Each method has an async twin; both do
    their work on one private event loop, so that they may be called from scripts, notebooks, threads and any
    number of event loops. An async method does not block its caller's loop; a sync one does.

    LlamaIndex still asks for an embedding model: `as_index` answers for you, and `NoEmbedding` elsewhere.

    Scores are raw MaxSim: a sum over the query's tokens, higher is better.

    Args:
        pipeline: the index, as a pipeline that you close yourself. With it come none of the others but
            `batch_size` and `normalize_scores`.
        model: encodes queries and nodes: a `LateInteractionModel`, or the name of a checkpoint (ColBERT, or of images
            such as ColQwen2).
        table_name: the index's name, "late_interaction" by default.
        path: the folder of the embedded store; without it the index is in Astra DB, HCD or DSE.
        token: for Astra, by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: for Astra, by default ASTRA_DB_API_ENDPOINT.
        keyspace: for Astra, by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else as the endpoint
            shows.
        filterable: metadata fields that Astra is to look up, and their types, such as `{"year": int}`, eight at
            most besides the parent's id; any other field is looked at by us, which costs more. In a folder every
            field is looked up.
        doc_pool_factor: as for `LateInteractionPipeline`, and so are the three after it.
        query_pool_distance: query vectors closer than this are pooled.
        packing: how token matrices are stored.
        concurrency: searches and writes in flight at a time.
        store_images: what is stored of a node's image beside its path and URL: with "reference" nothing, so that an
            image given as bytes alone is refused; with "full" the image, as base64 in the node, which comes back as it
            was; with "thumbnail" a JPEG of at most 512 pixels in its place.
        allow_urls: fetch images that are given as URLs.
        batch_size: nodes encoded and written together.
        normalize_scores: give scores on a scale from 0 to 1, `(MaxSim / n_query_tokens + 1) / 2`, as a
            `SimilarityPostprocessor(similarity_cutoff=…)` wants them.
    """

    stores_text: bool = True
    is_embedding_query: bool = False
    flat_metadata: bool = False
    batch_size: int = Field(default=128, ge=1)
    normalize_scores: bool = False

    _pipeline: SyncPipeline = PrivateAttr()
    _connection: Connection = PrivateAttr()
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
        filterable: Mapping[str, Any] | None = None,
        doc_pool_factor: float = 2,
        query_pool_distance: float = 0.03,
        packing: PackingDtype = "int8",
        concurrency: int = 16,
        store_images: StoreImages = "reference",
        allow_urls: bool = False,
        batch_size: int = 128,
        normalize_scores: bool = False,
    ) -> None:
        fields: dict[str, Any] = {"batch_size": batch_size, "normalize_scores": normalize_scores}
        super().__init__(**fields)
        self._owns_pipeline = pipeline is None
        of_astra = (token, api_endpoint, keyspace, environment)
        settings = (doc_pool_factor, query_pool_distance, packing, concurrency, store_images, allow_urls)
        if pipeline is None:
            if model is None:
                raise ValueError(
                    "A store is made from a pipeline, or from a model and a place: give model=…."
                )
            if path is not None and of_astra != (None,) * 4:
                raise ValueError(
                    "path is of the embedded store, and the others of Astra: give one or the other."
                )
            pipeline = SyncPipeline(
                _database(*of_astra) if path is None else path,
                load_model(model) if isinstance(model, str) else model,
                table_name,
                doc_pool_factor=doc_pool_factor,
                query_pool_distance=query_pool_distance,
                packing=packing,
                concurrency=concurrency,
                filterable={PARENT: str} | dict(filterable or {}),
                store_images=store_images,
                allow_urls=allow_urls,
            )
        elif (model, table_name, path, filterable, *of_astra) != (None,) * 8 or settings != _SETTINGS:
            raise ValueError("A pipeline has its model, place and settings: leave the other arguments out.")
        elif not isinstance(pipeline, SyncPipeline):
            raise TypeError(
                f"pipeline must be a SyncPipeline, which any thread and event loop may use, not {pipeline!r:.60}."
            )
        self._pipeline = pipeline
        self._connection = Connection(pipeline)
        watch_ingestion()

    @classmethod
    def class_name(cls) -> str:
        """The name in LlamaIndex's serialised settings."""
        return "LateInteractionVectorStore"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pipeline!r})"

    __str__ = __repr__

    def __copy__(self) -> Self:
        """The same store: it stands for an index, and there is one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds an open index and cannot be pickled: make one in the other process."
        )

    @property
    def client(self) -> SyncPipeline:
        """The index, for what LlamaIndex has no method for. It is open after the store's first use."""
        return self._pipeline

    # --- opening and closing

    def close(self) -> None:
        """Let go of the index; a pipeline that you gave stays open. May be called twice."""
        if self._owns_pipeline:
            self._connection.close()

    async def aclose(self) -> None:
        """`close`, to be awaited on any event loop."""
        if self._owns_pipeline:
            await self._connection.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # --- an index on top

    def as_index(self, **kwargs: Any) -> VectorStoreIndex:
        """A `VectorStoreIndex` over what is in the store, which needs no embedding model.

        Args:
            **kwargs: as for `VectorStoreIndex`.
        """
        return VectorStoreIndex.from_vector_store(self, embed_model=NoEmbedding(), **kwargs)

    # --- writing

    def add(self, nodes: Sequence[BaseNode], **add_kwargs: Any) -> list[str]:
        """Encode nodes and store them, each replacing the node of the same id.

        A node's `embedding` is not used. An image is encoded as such by a model that can, and by its node's text
        otherwise; what is stored of it says `store_images`.

        Returns:
            The nodes' ids, in their order.

        Raises:
            ValueError: a node has nothing to encode, or its image would be lost; then none is stored.
            TypeError: these are no nodes.
            DocumentError: some nodes could not be stored, for example for metadata that are no JSON values or an image
                that cannot be read; it names each, and the others are in the index.
            StoreError: the store failed; its `.indexed` has the ids that were written before.
        """
        _refuse("add", add_kwargs)
        checked = _checked(nodes)
        return self._connection.run(lambda pipeline: self._add(pipeline, checked))

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add`, to be awaited."""
        _refuse("async_add", kwargs)
        checked = _checked(nodes)
        return await self._connection.arun(lambda pipeline: self._add(pipeline, checked))

    async def _add(self, pipeline: LateInteractionPipeline, nodes: Sequence[BaseNode]) -> list[str]:
        images, stored = pipeline.model.supports_images, pipeline.store_images

        def prepare() -> list[EncodableNode]:
            last_of = {node.node_id: node for node in nodes}
            return [encodable_node(node, images=images, store_images=stored) for node in last_of.values()]

        prepared = await asyncio.to_thread(prepare)
        adding = _Adding({node.node_id: position for position, node in enumerate(nodes)})
        truncated = 0
        for first in range(0, len(prepared), self.batch_size):
            batch = prepared[first : first + self.batch_size]
            if to_encode := {i: node.text for i, node in enumerate(batch) if node.text is not None}:
                texts = list(to_encode.values())
                matrices = await pipeline.model.aencode_documents(texts)
                truncated += await pipeline.model.run(pipeline.model.count_truncated, texts)
                rows = await asyncio.to_thread(_rows, [batch[i] for i in to_encode])
                await adding.account_for(pipeline.index_embeddings(rows, matrices))
            if pictures := [node for node in batch if node.text is None]:
                rows = await asyncio.to_thread(_rows, pictures)
                await adding.account_for(pipeline.index_documents(rows))
        if truncated:
            logger.warning(
                "%d of %d nodes are longer than %s reads: their ends were not encoded.",
                truncated,
                len(prepared),
                pipeline.model.model_name,
            )
        if adding.failures:
            raise DocumentError(adding.failures, adding.indexed)
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete every node of a document: those whose source has this id, not the node that has it."""
        _refuse("delete", delete_kwargs)
        self._connection.run(lambda pipeline: pipeline.delete_documents({PARENT: {"$eq": ref_doc_id}}))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete`, to be awaited."""
        _refuse("adelete", delete_kwargs)
        await self._connection.arun(lambda pipeline: pipeline.delete_documents({PARENT: {"$eq": ref_doc_id}}))

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Delete the nodes of these ids, or all that match the filters; with both, those of the ids that match.

        Raises:
            ValueError: neither is given; `clear` deletes everything.
        """
        _refuse("delete_nodes", delete_kwargs)
        selection = _to_delete(node_ids, filters)
        self._connection.run(lambda pipeline: _delete(pipeline, selection))

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes`, to be awaited."""
        _refuse("adelete_nodes", delete_kwargs)
        selection = _to_delete(node_ids, filters)
        await self._connection.arun(lambda pipeline: _delete(pipeline, selection))

    def clear(self) -> None:
        """Delete every node; the index stays."""
        self._connection.run(lambda pipeline: pipeline.clear())

    async def aclear(self) -> None:
        """`clear`, to be awaited."""
        await self._connection.arun(lambda pipeline: pipeline.clear())

    # --- reading

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Nodes by id, each once and in the order asked, by metadata, or both; by default all. No vectors involved."""
        selection = Selection.of(filters, node_ids)
        return self._connection.run(lambda pipeline: _nodes(pipeline, selection))

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes`, to be awaited."""
        selection = Selection.of(filters, node_ids)
        return await self._connection.arun(lambda pipeline: _nodes(pipeline, selection))

    # --- searching

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """The `similarity_top_k` nodes with the highest MaxSim, best first.

        Of the query count its `query_str`, `similarity_top_k`, `filters`, `doc_ids`, `mode` (default or mmr) and
        `mmr_threshold`. Its `node_ids` do not, because LlamaIndex fills them with the images of an index that was
        just built, whatever else is in it.

        Args:
            query: what to look for.
            **kwargs: a retriever's `vector_store_kwargs`. `query_image`: an image to search with in place of
                `query_str`, where the model encodes images: one of Pillow, a path, a URL (with `allow_urls`), base64 or
                bytes. `query_matrix`: (n_tokens, dim) unit vectors to search with instead. `filter`: one in the core's
                own language, with booleans and dotted names, on top of `query.filters`. `node_ids`: only these nodes,
                each of which is scored.
                `mmr_threshold`: λ of the mode mmr, from 0, nodes as unlike each other as can be, to 1, relevance alone;
                0.5 by default. `mmr_prefetch_k`: how many nodes that mode chooses from, 4 times `similarity_top_k` by
                default. `n_ann_tokens`, `n_maxsim_candidates`, `exact`: as for `LateInteractionPipeline.search`.

        Raises:
            NotImplementedError: the mode is another one.
            ValueError: there is nothing to search with, or something given has no meaning in this mode.
            FilterError: a filter is not well formed.
            TypeError: there is no such argument.
        """
        search = Search.of(query, **kwargs)
        return self._connection.run(lambda pipeline: self._query(pipeline, search))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query`, to be awaited."""
        search = Search.of(query, **kwargs)
        return await self._connection.arun(lambda pipeline: self._query(pipeline, search))

    async def _query(self, pipeline: LateInteractionPipeline, search: Search) -> VectorStoreQueryResult:
        results = await search.run(pipeline)

        def score(raw: float) -> float:
            return relevance(raw, results.stats.n_query_tokens) if self.normalize_scores else raw

        nodes = [node_of(Document(r.doc_id, r.content, r.content_type, r.metadata)) for r in results]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[score(r.score) for r in results], ids=[r.doc_id for r in results]
        )


def _database(
    token: str | TokenProvider | None, api_endpoint: str | None, keyspace: str | None, environment: str | None
) -> AsyncDatabase:
    callers = [("llama-index", version("llama-index-core"))]
    return astra_database(token, api_endpoint, keyspace=keyspace, environment=environment, callers=callers)


@dataclass(slots=True)
class _Adding:
    """What has become of nodes that are written batch by batch.

    Attributes:
        positions: of the nodes in the call, by id.
        indexed: the ids of those that were written.
        failures: those that were not.
    """

    positions: Mapping[str, int]
    indexed: list[str] = field(default_factory=list)
    failures: list[RowFailure] = field(default_factory=list)

    async def account_for(self, writing: Awaitable[list[str]]) -> None:
        """Wait for a batch to be written, and remember how it went."""
        try:
            self.indexed += await writing
        except DocumentError as error:
            self.indexed += error.indexed
            self.failures += [
                failure if failure.doc_id is None else replace(failure, row=self.positions[failure.doc_id])
                for failure in error.failures
            ]
        except StoreError as error:
            error.indexed = [*self.indexed, *error.indexed]
            raise


def _rows(nodes: Sequence[EncodableNode]) -> list[Document | ImageDocument]:
    return [node.row() for node in nodes]


def _checked(nodes: Iterable[BaseNode]) -> list[BaseNode]:
    if isinstance(nodes, BaseNode):
        raise TypeError("Pass a list of nodes, not a bare one: [node].")
    checked = list(nodes)
    for position, node in enumerate(checked):
        if not isinstance(node, BaseNode):
            raise TypeError(f"The node at position {position} is not one of LlamaIndex's but {node!r:.60}.")
    return checked


def _refuse(method: str, kwargs: Mapping[str, Any]) -> None:
    if kwargs:
        raise TypeError(
            f"LateInteractionVectorStore.{method} has no argument {', '.join(map(repr, kwargs))}."
        )


def _to_delete(node_ids: Sequence[str] | None, filters: MetadataFilters | None) -> Selection:
    selection = Selection.of(filters, node_ids)
    if node_ids is None and (filters is None or _are_empty(filters)):
        raise ValueError("Give node_ids or filters to say what to delete; clear() deletes everything.")
    return selection


def _are_empty(filters: MetadataFilters | MetadataFilter) -> bool:
    return isinstance(filters, MetadataFilters) and all(map(_are_empty, filters.filters))


async def _delete(pipeline: LateInteractionPipeline, selection: Selection) -> None:
    if selection.filters is None and selection.node_ids is not None:
        await pipeline.delete_documents(selection.node_ids)
    else:
        await pipeline.delete_documents([document.doc_id for document in await selection.documents(pipeline)])


async def _nodes(pipeline: LateInteractionPipeline, selection: Selection) -> list[BaseNode]:
    documents = await selection.documents(pipeline)
    return await asyncio.to_thread(lambda: [node_of(document) for document in documents])
