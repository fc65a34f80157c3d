"""LateInteractionVectorStore: a LangChain vector store that encodes its own texts and images, a vector per token."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias

import langchain_core
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from numpy.typing import ArrayLike
from typing_extensions import override

from langchain_lateint._operations import (
    Filter,
    adding,
    all_to_langchain,
    as_document,
    clear,
    copying,
    deleting,
    finding,
    getting,
    scored,
    searching,
    searching_diverse,
    searching_with_matrices,
    to_langchain,
    updating,
)
from langchain_lateint.embeddings import EmbeddingsModel, Model, as_model
from late_interaction import SearchResults, SyncPipeline
from late_interaction.connection import Connection, Use
from late_interaction.images.storing import StoreImages
from late_interaction.pipeline import Query
from late_interaction.ranking import relevance
from late_interaction.stores.astra.database import astra_database
from late_interaction.types import FloatMatrix, PackingDtype

if TYPE_CHECKING:
    from astrapy import AsyncDatabase
    from astrapy.authentication import TokenProvider

RelevanceFn: TypeAlias = Callable[[float, int], float]


class LateInteractionVectorStore(VectorStore):
    """Documents found by late interaction (ColBERT, MaxSim), in a folder or in Astra DB.

    Every method has an async twin, which may be awaited on any number of event loops; sync methods may be called
    from any thread, and inside a running loop, which they block. The index is created, or attached to, at the
    first call that needs it.

    Scores are raw MaxSim sums, higher is better; relevance scores are the same on a scale from 0 to 1. A filter is
    a mapping such as `{"lang": "en", "year": {"$gte": 2000}}` (see `late_interaction.filters`). All searches also
    take `n_ann_tokens`, `n_maxsim_candidates` and `exact`, as `LateInteractionPipeline.search` does.

    With a model that encodes images, a document that has one under "image" in its metadata is encoded by it, and a
    query may be an image: one of Pillow, a `Path`, or the bytes of a file.

    Args:
        pipeline: the index, as a pipeline that you close yourself. With it come none of the others but
            `relevance_score_fn`.
        model: encodes queries and documents: a `LateInteractionModel`, the name of a checkpoint (ColBERT, or of images
            such as ColQwen2), or a LangChain `Embeddings`, which gives one vector per text.
        table_name: the index's name, "late_interaction" by default.
        path: the folder of the embedded store; without it the index is in Astra DB, HCD or DSE.
        token: for Astra, by default ASTRA_DB_APPLICATION_TOKEN of the environment.
        api_endpoint: for Astra, by default ASTRA_DB_API_ENDPOINT.
        keyspace: for Astra, by default ASTRA_DB_KEYSPACE, or else "default_keyspace".
        namespace: another name of keyspace.
        environment: astrapy's ("prod", "hcd", "dse", …), by default ASTRA_DB_ENVIRONMENT, or else as the endpoint
            shows.
        filterable: metadata fields that Astra is to look up, and their types, such as `{"year": int}`; any other
            field is looked at by us, which costs more. In a folder every field is looked up.
        doc_pool_factor: as for `LateInteractionPipeline`, and so are the three after it.
        query_pool_distance: query vectors closer than this are pooled.
        packing: how token matrices are stored.
        concurrency: searches and writes in flight at a time.
        store_images: what is stored of an image, "reference", "thumbnail" or "full", as for `LateInteractionPipeline`.
        allow_urls: fetch images that are given as URLs.
        relevance_score_fn: makes a relevance score of a raw score and the number of query tokens, in place of the
            mean similarity per query token moved from [-1, 1] to [0, 1].
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
        filterable: Mapping[str, Any] | None = None,
        doc_pool_factor: float = 2,
        query_pool_distance: float = 0.03,
        packing: PackingDtype = "int8",
        concurrency: int = 16,
        store_images: StoreImages = "reference",
        allow_urls: bool = False,
        relevance_score_fn: RelevanceFn = relevance,
    ) -> None:
        self._owns_pipeline = pipeline is None
        of_images = (store_images, allow_urls) != ("reference", False)
        if pipeline is None:
            if model is None:
                raise ValueError(
                    "a store is made from a pipeline, or from a model and a place: give model=…."
                )
            model = as_model(model)
            if of_images and not model.supports_images:
                raise ValueError(
                    f"store_images and allow_urls are for images, and {model.model_name} encodes text."
                )
            pipeline = SyncPipeline(
                _database(path, token, api_endpoint, _one_of(keyspace, namespace), environment),
                model,
                table_name,
                doc_pool_factor=doc_pool_factor,
                query_pool_distance=query_pool_distance,
                packing=packing,
                concurrency=concurrency,
                filterable=filterable,
                store_images=store_images,
                allow_urls=allow_urls,
            )
        elif not isinstance(pipeline, SyncPipeline):
            raise TypeError(
                "pipeline must be a SyncPipeline, which any thread and event loop may use, not "
                f"{pipeline!r:.60}: a model is given as model=…, a folder as path=…."
            )
        elif (
            of_images
            or any(
                part is not None
                for part in (
                    *(model, table_name, path, token, api_endpoint),
                    *(keyspace, namespace, environment, filterable),
                )
            )
            or (doc_pool_factor, query_pool_distance, packing, concurrency) != (2, 0.03, "int8", 16)
        ):
            raise ValueError("a pipeline has its model, place and settings: leave the other arguments out.")
        self._pipeline = pipeline
        self._connection = Connection(pipeline)
        self._relevance = relevance_score_fn

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pipeline!r})"

    def __copy__(self) -> Self:
        """The same store: it stands for an index, and there is one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} holds an open index and cannot be pickled: make one in the other process."
        )

    @property
    def pipeline(self) -> SyncPipeline:
        """The index, for what LangChain has no method for. It is open after the store's first use."""
        return self._pipeline

    @property
    @override
    def embeddings(self) -> Embeddings | None:
        """The LangChain `Embeddings` that the store was made with; None for a late-interaction model."""
        return self._pipeline.model.embeddings if isinstance(self._pipeline.model, EmbeddingsModel) else None

    @override
    def _get_retriever_tags(self) -> list[str]:
        return [type(self).__name__, type(self.embeddings or self._pipeline.model).__name__]

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

    def clear(self) -> None:
        """Delete every document; the index stays."""
        self._connection.run(clear)

    async def aclear(self) -> None:
        """`clear`, to be awaited on any event loop."""
        await self._connection.arun(clear)

    def drop(self) -> None:
        """Delete the index; the next call makes a new one."""
        self._connection.drop()

    async def adrop(self) -> None:
        """`drop`, to be awaited on any event loop."""
        await self._connection.adrop()

    def copy_to(self, other: LateInteractionVectorStore) -> int:
        """Copy every document with its vectors into another store, such as one in Astra; nothing is encoded again.

        Returns:
            How many documents were copied.

        Raises:
            IndexMismatchError: the other store has another model, pooling or packing.
        """
        return self._connection.run(self._copying(other))

    async def acopy_to(self, other: LateInteractionVectorStore) -> int:
        """`copy_to`, to be awaited on any event loop."""
        return await self._connection.arun(self._copying(other))

    @staticmethod
    def _copying(other: LateInteractionVectorStore) -> Use[int]:
        if not isinstance(other, LateInteractionVectorStore):
            raise TypeError(
                f"copy_to takes another LateInteractionVectorStore, not {other!r:.60}: make one of that place, with "
                "this store's model."
            )
        return copying(other._connection)

    # --- writing

    @override
    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 128,
        **kwargs: Any,
    ) -> list[str]:
        """Encode texts and write them, each replacing the document of the same id.

        Args:
            texts: none may be empty, but those of images.
            metadatas: a mapping of JSON values for each text. A model that encodes images takes what is under "image"
                in place of the text, which is then a caption: a path, a URL (with `allow_urls`), base64, a data URI,
                bytes, an image of Pillow or a page of `pdf_pages`.
            ids: an id for each text; one that is None, or all by default, gets a random one. Where an id comes
                twice, the last text wins.
            batch_size: texts encoded and written together.
            kwargs: ignored with a warning; frameworks pass what other stores know.

        Returns:
            The id of each text, in order.

        Raises:
            ValueError: there are not as many metadatas or ids as texts.
            DocumentError: some texts could not be indexed; it names each, and the others are in the index.
            StoreError: the store failed; its `.indexed` has the ids that were written before.
        """
        return self._connection.run(adding(texts, metadatas, ids, batch_size, kwargs))

    @override
    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 128,
        **kwargs: Any,
    ) -> list[str]:
        """`add_texts`, to be awaited on any event loop."""
        return await self._connection.arun(adding(texts, metadatas, ids, batch_size, kwargs))

    @override
    def add_documents(self, documents: Sequence[Document | Blob], **kwargs: Any) -> list[str]:
        """`add_texts` for documents, and for images in a `Blob`, by its path or its bytes.

        Args:
            documents: each under its own id, or a random one.
            kwargs: as for `add_texts`; `ids` take the place of the documents' own.
        """
        return super().add_documents([as_document(document) for document in documents], **kwargs)

    @override
    async def aadd_documents(self, documents: Sequence[Document | Blob], **kwargs: Any) -> list[str]:
        """`add_documents`, to be awaited on any event loop."""
        return await super().aadd_documents([as_document(document) for document in documents], **kwargs)

    def update_documents(
        self, ids: Sequence[str], documents: Sequence[Document | Blob], **kwargs: Any
    ) -> list[str]:
        """Replace the documents of these ids, or add them: `add_documents` with the ids first."""
        return self.add_documents(documents, ids=ids, **kwargs)

    async def aupdate_documents(
        self, ids: Sequence[str], documents: Sequence[Document | Blob], **kwargs: Any
    ) -> list[str]:
        """`update_documents`, to be awaited on any event loop."""
        return await self.aadd_documents(documents, ids=ids, **kwargs)

    def update_metadata(self, id_to_metadata: Mapping[str, Mapping[str, Any]]) -> int:
        """Set metadata keys of documents; their other keys and their texts stay, and nothing is encoded again.

        Args:
            id_to_metadata: the keys to set, by document id.

        Returns:
            How many of the documents there are.
        """
        return self._connection.run(updating(id_to_metadata))

    async def aupdate_metadata(self, id_to_metadata: Mapping[str, Mapping[str, Any]]) -> int:
        """`update_metadata`, to be awaited on any event loop."""
        return await self._connection.arun(updating(id_to_metadata))

    @override
    def delete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """Delete documents by id, or all that match a filter; ids that are not there are no error.

        Returns:
            True.

        Raises:
            ValueError: neither ids nor a filter is given, or both, or the filter is empty. `clear` deletes
                everything.
        """
        return self._connection.run(deleting(ids, filter, kwargs))

    @override
    async def adelete(
        self, ids: Sequence[str] | None = None, *, filter: Filter | None = None, **kwargs: Any
    ) -> bool:
        """`delete`, to be awaited on any event loop."""
        return await self._connection.arun(deleting(ids, filter, kwargs))

    # --- reading

    @override
    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """The documents of these ids in their order, each once; ids that are not there are left out."""
        return self._connection.run(getting(ids))

    @override
    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """`get_by_ids`, to be awaited on any event loop."""
        return await self._connection.arun(getting(ids))

    def search_by_metadata(self, filter: Filter | None = None, *, limit: int | None = None) -> list[Document]:
        """Documents by metadata alone, in the order they were written.

        Args:
            filter: those that match; all by default.
            limit: how many at most; which ones, is up to a database.
        """
        return self._connection.run(finding(filter, limit))

    async def asearch_by_metadata(
        self, filter: Filter | None = None, *, limit: int | None = None
    ) -> list[Document]:
        """`search_by_metadata`, to be awaited on any event loop."""
        return await self._connection.arun(finding(filter, limit))

    # --- searching

    @override
    def similarity_search(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """The `k` documents with the highest MaxSim, best first, for a text or an image."""
        return all_to_langchain(self._connection.run(searching(query, k, filter, kwargs)))

    @override
    async def asimilarity_search(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search`, to be awaited on any event loop."""
        return all_to_langchain(await self._connection.arun(searching(query, k, filter, kwargs)))

    @override
    def similarity_search_with_score(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search`, with the raw MaxSim of each document: higher is better, at most one per query token."""
        return scored(self._connection.run(searching(query, k, filter, kwargs)))

    @override
    async def asimilarity_search_with_score(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score`, to be awaited on any event loop."""
        return scored(await self._connection.arun(searching(query, k, filter, kwargs)))

    @override
    def _similarity_search_with_relevance_scores(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(self._connection.run(searching(query, k, filter, kwargs)))

    @override
    async def _asimilarity_search_with_relevance_scores(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        return self._relevant(await self._connection.arun(searching(query, k, filter, kwargs)))

    def _relevant(self, results: SearchResults) -> list[tuple[Document, float]]:
        n = results.stats.n_query_tokens
        return [(to_langchain(result), self._relevance(result.score, n)) for result in results]

    def similarity_search_with_embeddings(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """`similarity_search`, with the (n_tokens, dim) float32 vectors of each document as stored."""
        return self._connection.run(searching_with_matrices(query, k, filter, kwargs))

    async def asimilarity_search_with_embeddings(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """`similarity_search_with_embeddings`, to be awaited on any event loop."""
        return await self._connection.arun(searching_with_matrices(query, k, filter, kwargs))

    @override
    def similarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search` by a query's vectors.

        Args:
            embedding: (n_tokens, dim), or (dim,) for one; each is scaled to length 1.
            k: how many documents.
            filter: only documents whose metadata match.
            kwargs: as for all searches.
        """
        return all_to_langchain(self._connection.run(searching(embedding, k, filter, kwargs)))

    @override
    async def asimilarity_search_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[Document]:
        """`similarity_search_by_vector`, to be awaited on any event loop."""
        return all_to_langchain(await self._connection.arun(searching(embedding, k, filter, kwargs)))

    def similarity_search_with_score_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_by_vector`, with the raw MaxSim of each document."""
        return scored(self._connection.run(searching(embedding, k, filter, kwargs)))

    async def asimilarity_search_with_score_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """`similarity_search_with_score_by_vector`, to be awaited on any event loop."""
        return scored(await self._connection.arun(searching(embedding, k, filter, kwargs)))

    # --- searching for relevant documents that differ

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
        """`k` documents that are relevant and unlike each other (see `late_interaction.ranking`).

        Args:
            query: what to look for, a text or an image.
            k: how many documents.
            fetch_k: how many of the most relevant documents to choose from.
            lambda_mult: from 0, as unlike each other as can be, to 1, by relevance alone.
            filter: only documents whose metadata match.
            kwargs: as for all searches.
        """
        return all_to_langchain(
            self._connection.run(searching_diverse(query, k, fetch_k, lambda_mult, filter, kwargs))
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
        """`max_marginal_relevance_search`, to be awaited on any event loop."""
        return all_to_langchain(
            await self._connection.arun(searching_diverse(query, k, fetch_k, lambda_mult, filter, kwargs))
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
        """`max_marginal_relevance_search` by a query's vectors, as for `similarity_search_by_vector`."""
        return all_to_langchain(
            self._connection.run(searching_diverse(embedding, k, fetch_k, lambda_mult, filter, kwargs))
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
        """`max_marginal_relevance_search_by_vector`, to be awaited on any event loop."""
        return all_to_langchain(
            await self._connection.arun(searching_diverse(embedding, k, fetch_k, lambda_mult, filter, kwargs))
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
        """`max_marginal_relevance_search` by a text, an image or a query's vectors, with raw MaxSim scores."""
        return scored(self._connection.run(searching_diverse(query, k, fetch_k, lambda_mult, filter, kwargs)))

    async def amax_marginal_relevance_search_with_score(
        self,
        query: Query | ArrayLike,
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        filter: Filter | None = None,
        **kwargs: Any,
    ) -> list[tuple[Document, float]]:
        """`max_marginal_relevance_search_with_score`, to be awaited on any event loop."""
        return scored(
            await self._connection.arun(searching_diverse(query, k, fetch_k, lambda_mult, filter, kwargs))
        )

    # --- making one with documents in it

    @override
    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 128,
        **kwargs: Any,
    ) -> Self:
        """A store with these texts in it.

        Args:
            texts: as for `add_texts`, and so are metadatas, ids and batch_size.
            embedding: the model, under the name that LangChain gives it.
            metadatas: a mapping for each text.
            ids: an id for each text.
            batch_size: texts encoded and written together.
            kwargs: as for the class.
        """
        store = cls(**_constructing(embedding, kwargs))
        try:
            store.add_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        except BaseException:
            store.close()
            raise
        return store

    @override
    @classmethod
    async def afrom_texts(
        cls,
        texts: Iterable[str],
        embedding: Model | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        batch_size: int = 128,
        **kwargs: Any,
    ) -> Self:
        """`from_texts`, to be awaited on any event loop."""
        # In a thread, as a model that is given by its name is loaded here.
        store = await asyncio.to_thread(lambda: cls(**_constructing(embedding, kwargs)))
        try:
            await store.aadd_texts(texts, metadatas, ids=ids, batch_size=batch_size)
        except BaseException:
            await store.aclose()
            raise
        return store

    @override
    @classmethod
    def from_documents(
        cls, documents: Sequence[Document | Blob], embedding: Model | None = None, **kwargs: Any
    ) -> Self:
        """A store with these documents in it; the arguments are those of `from_texts`."""
        return cls.from_texts(embedding=embedding, **(_parts(documents) | kwargs))

    @override
    @classmethod
    async def afrom_documents(
        cls, documents: Sequence[Document | Blob], embedding: Model | None = None, **kwargs: Any
    ) -> Self:
        """`from_documents`, to be awaited on any event loop."""
        return await cls.afrom_texts(embedding=embedding, **(_parts(documents) | kwargs))


def _database(
    path: str | Path | None,
    token: str | TokenProvider | None,
    api_endpoint: str | None,
    keyspace: str | None,
    environment: str | None,
) -> str | Path | AsyncDatabase:
    if path is None:
        return astra_database(
            token,
            api_endpoint,
            keyspace=keyspace,
            environment=environment,
            callers=[("langchain", langchain_core.__version__)],
        )
    if any(part is not None for part in (token, api_endpoint, keyspace, environment)):
        raise ValueError(
            "path is of the embedded store, and the other arguments of Astra: give one or the other."
        )
    return path


def _one_of(keyspace: str | None, namespace: str | None) -> str | None:
    if keyspace is not None and namespace is not None:
        raise ValueError("keyspace and namespace are two names of the same: give one.")
    return namespace if keyspace is None else keyspace


def _constructing(embedding: Model | None, kwargs: dict[str, Any]) -> dict[str, Any]:
    if embedding is None:
        return kwargs
    if kwargs.get("model") is not None:
        raise ValueError("the model is given twice, as `embedding` and as `model`; one is enough.")
    return {**kwargs, "model": embedding}


def _parts(given: Sequence[Document | Blob]) -> dict[str, Any]:
    documents = [as_document(document) for document in given]
    return {
        "texts": [document.page_content for document in documents],
        "metadatas": [document.metadata for document in documents],
        "ids": [document.id for document in documents],
    }
