"""The names that users of Chroma, Qdrant, PGVector, Astra, FAISS and the in-memory store type.

Each does here what it does there, by a method of ours. Where stores differ in the order of arguments, the docstring
says whose it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from numpy.typing import ArrayLike

from langchain_lateint._operations import (
    Filter,
    Ids,
    Operation,
    add_operation,
    find_operation,
    get_operation,
    search_operation,
    search_with_matrices_operation,
    to_langchain,
)
from langchain_lateint._searches import SearchMethods
from late_interaction import IndexedIds, LateInteractionPipeline, SearchResults
from late_interaction.adapting import FloatMatrix, OnError, PipelineHolder, Query, check_not_negative
from late_interaction.filters import matches, parse_filter

ScoredWithId = tuple[Document, float, str]


class UsualNames(PipelineHolder, SearchMethods):
    """Names of other stores for the methods of `LateInteractionVectorStore`."""

    _on_error: OnError
    _ids: Literal["content"] | None

    def _adding(
        self,
        texts: Iterable[str],
        metadatas: Sequence[dict[str, Any]] | None,
        ids: Ids,
        options: dict[str, Any],
        embeddings: Sequence[ArrayLike] | None = None,
    ) -> Operation[IndexedIds]:
        options = {"on_error": self._on_error, **options}
        return add_operation(texts, metadatas, self._ids if ids is None else ids, options, embeddings)

    # --- the same under another name

    delete_collection = PipelineHolder.drop
    adelete_collection = PipelineHolder.adrop
    reset_collection = PipelineHolder.clear
    areset_collection = PipelineHolder.aclear
    similarity_search_with_vectors = SearchMethods.similarity_search_with_embeddings
    asimilarity_search_with_vectors = SearchMethods.asimilarity_search_with_embeddings
    max_marginal_relevance_search_with_score_by_vector = (
        SearchMethods.max_marginal_relevance_search_with_score
    )
    amax_marginal_relevance_search_with_score_by_vector = (
        SearchMethods.amax_marginal_relevance_search_with_score
    )
    similarity_search_by_image = SearchMethods.similarity_search
    asimilarity_search_by_image = SearchMethods.asimilarity_search

    # --- writing

    def update_document(self, document_id: str, document: Document | Blob) -> None:
        """Replace the document of this id, or add it."""
        self.add_documents([document], ids=[document_id])  # type: ignore[list-item]

    async def aupdate_document(self, document_id: str, document: Document | Blob) -> None:
        """Await `update_document` on any event loop."""
        await self.aadd_documents([document], ids=[document_id])  # type: ignore[list-item]

    def add_embeddings(
        self,
        texts: Iterable[Any],
        embeddings: Sequence[ArrayLike] | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Add texts whose vectors were made elsewhere by the store's model, as PGVector does.

        Args:
            texts: the texts; without `embeddings`, pairs of a text and its vectors, as for FAISS.
            embeddings: for each text (n_tokens, dim) vectors, or (dim,) for one; each is scaled to length 1.
            metadatas: as for `add_texts`.
            ids: as for `add_texts`.
            kwargs: as for `add_texts`.
        """
        texts, embeddings = _texts_and_vectors(texts, embeddings)
        return self._pipeline.run(self._adding(texts, metadatas, ids, kwargs, embeddings))

    async def aadd_embeddings(
        self,
        texts: Iterable[Any],
        embeddings: Sequence[ArrayLike] | None = None,
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Await `add_embeddings` on any event loop."""
        texts, embeddings = _texts_and_vectors(texts, embeddings)
        return await self._pipeline.arun(self._adding(texts, metadatas, ids, kwargs, embeddings))

    def add_images(
        self,
        uris: Sequence[Any],
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Add images without a text, as Chroma does: paths, URLs, base64, bytes or images of Pillow."""
        texts, with_images = _captions(uris, metadatas)
        return self._pipeline.run(self._adding(texts, with_images, ids, kwargs))

    async def aadd_images(
        self,
        uris: Sequence[Any],
        metadatas: Sequence[dict[str, Any]] | None = None,
        ids: Ids = None,
        **kwargs: Any,
    ) -> IndexedIds:
        """Await `add_images` on any event loop."""
        texts, with_images = _captions(uris, metadatas)
        return await self._pipeline.arun(self._adding(texts, with_images, ids, kwargs))

    def delete_by_metadata_filter(self, filter: Filter) -> int:
        """Delete the documents whose metadata match, as Astra does, and return how many there were."""
        return self._pipeline.delete_documents(filter)

    async def adelete_by_metadata_filter(self, filter: Filter) -> int:
        """Await `delete_by_metadata_filter` on any event loop."""
        return await self._pipeline.arun(lambda pipeline: pipeline.delete_documents(filter))

    def delete_by_document_id(self, document_id: str) -> bool:
        """Delete one document, as Astra does, and return whether there was one of this id."""
        return self._pipeline.delete_document(document_id)

    async def adelete_by_document_id(self, document_id: str) -> bool:
        """Await `delete_by_document_id` on any event loop."""
        return await self._pipeline.arun(lambda pipeline: pipeline.delete_document(document_id))

    # --- reading

    def metadata_search(self, filter: Filter | None = None, n: int = 5) -> list[Document]:
        """Return up to `n` documents by their metadata alone, as Astra does."""
        return self._pipeline.run(find_operation(filter, n))

    async def ametadata_search(self, filter: Filter | None = None, n: int = 5) -> list[Document]:
        """Await `metadata_search` on any event loop."""
        return await self._pipeline.arun(find_operation(filter, n))

    def get_by_document_id(self, document_id: str) -> Document | None:
        """Return the document of this id, or None, as Astra does."""
        return next(iter(self.get_by_ids([document_id])), None)

    async def aget_by_document_id(self, document_id: str) -> Document | None:
        """Await `get_by_document_id` on any event loop."""
        return next(iter(await self.aget_by_ids([document_id])), None)

    def get_by_document_ids(self, ids: Sequence[str]) -> list[Document]:
        """Return the documents of these ids, as `get_by_ids` does."""
        return self.get_by_ids(ids)

    async def aget_by_document_ids(self, ids: Sequence[str]) -> list[Document]:
        """Await `get_by_document_ids` on any event loop."""
        return await self.aget_by_ids(ids)

    def get(
        self,
        ids: str | Sequence[str] | None = None,
        where: Filter | None = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        include: Sequence[str] = ("metadatas", "documents"),
    ) -> dict[str, Any]:
        """Return documents as columns, as Chroma does.

        Args:
            ids: only these documents; one id or several.
            where: only documents whose metadata match.
            limit: how many at most.
            offset: how many to leave out before them.
            include: "metadatas", "documents" (the texts) and "embeddings" (the (n_tokens, dim) stored vectors).

        Returns:
            `{"ids": […], "documents": […], "metadatas": […], "embeddings": […]}`; None for what is not included.
        """
        return self._pipeline.run(_columns(ids, where, limit, offset, include))

    async def aget(
        self,
        ids: str | Sequence[str] | None = None,
        where: Filter | None = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        include: Sequence[str] = ("metadatas", "documents"),
    ) -> dict[str, Any]:
        """Await `get` on any event loop."""
        return await self._pipeline.arun(_columns(ids, where, limit, offset, include))

    # --- searching

    def similarity_search_with_score_id(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[ScoredWithId]:
        """Return documents with their raw MaxSim and their ids, as Astra does."""
        return _with_ids(self._pipeline.run(search_operation(query, k, filter, kwargs)))

    async def asimilarity_search_with_score_id(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[ScoredWithId]:
        """Await `similarity_search_with_score_id` on any event loop."""
        return _with_ids(await self._pipeline.arun(search_operation(query, k, filter, kwargs)))

    def similarity_search_with_score_id_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[ScoredWithId]:
        """Return documents for a query's vectors, with their raw MaxSim and their ids, as Astra does."""
        return _with_ids(self._pipeline.run(search_operation(embedding, k, filter, kwargs)))

    async def asimilarity_search_with_score_id_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[ScoredWithId]:
        """Await `similarity_search_with_score_id_by_vector` on any event loop."""
        return _with_ids(await self._pipeline.arun(search_operation(embedding, k, filter, kwargs)))

    def similarity_search_by_vector_with_relevance_scores(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents for a query's vectors, with their relevance from 0 to 1."""
        return self._relevant(self._pipeline.run(search_operation(embedding, k, filter, kwargs)))

    async def asimilarity_search_by_vector_with_relevance_scores(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Await `similarity_search_by_vector_with_relevance_scores` on any event loop."""
        return self._relevant(await self._pipeline.arun(search_operation(embedding, k, filter, kwargs)))

    def similarity_search_by_image_with_relevance_score(
        self, uri: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents for an image, a `Path`, bytes or one of Pillow, with their relevance from 0 to 1."""
        return self._relevant(self._pipeline.run(search_operation(uri, k, filter, kwargs)))

    async def asimilarity_search_by_image_with_relevance_score(
        self, uri: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Await `similarity_search_by_image_with_relevance_score` on any event loop."""
        return self._relevant(await self._pipeline.arun(search_operation(uri, k, filter, kwargs)))

    def similarity_search_with_embedding(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> tuple[FloatMatrix, list[tuple[Document, FloatMatrix]]]:
        """Return the query's vectors, and documents with their stored ones, as Astra does."""
        return self._pipeline.run(_with_query(query, k, filter, kwargs))

    async def asimilarity_search_with_embedding(
        self, query: Query, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> tuple[FloatMatrix, list[tuple[Document, FloatMatrix]]]:
        """Await `similarity_search_with_embedding` on any event loop."""
        return await self._pipeline.arun(_with_query(query, k, filter, kwargs))

    def similarity_search_with_embedding_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Return documents for a query's vectors, with their stored ones, as Astra does."""
        return self._pipeline.run(search_with_matrices_operation(embedding, k, filter, kwargs))

    async def asimilarity_search_with_embedding_by_vector(
        self, embedding: ArrayLike, k: int = 4, filter: Filter | None = None, **kwargs: Any
    ) -> list[tuple[Document, FloatMatrix]]:
        """Await `similarity_search_with_embedding_by_vector` on any event loop."""
        return await self._pipeline.arun(search_with_matrices_operation(embedding, k, filter, kwargs))


def _texts_and_vectors(
    texts: Iterable[Any], embeddings: Sequence[ArrayLike] | None
) -> tuple[list[str], Sequence[ArrayLike]]:
    texts = list(texts)
    if embeddings is None:
        pairs = [one for one in texts if isinstance(one, tuple | list) and len(one) == 2]
        if len(pairs) != len(texts):
            raise TypeError("add_embeddings takes texts and embeddings, or pairs of a text and its vectors.")
        texts, embeddings = [text for text, _ in pairs], [vectors for _, vectors in pairs]
    vectors = list(embeddings)
    if any(isinstance(one, Mapping) for one in vectors):
        raise TypeError("embeddings are vectors, not mappings: give metadatas=… by its name.")
    return texts, vectors


def _captions(
    uris: Sequence[Any], metadatas: Sequence[dict[str, Any]] | None
) -> tuple[list[str], list[dict[str, Any]]]:
    if isinstance(uris, str | bytes):
        raise TypeError(f"uris must be a list, not a bare {type(uris).__name__}.")
    uris = list(uris)
    given = [{} for _ in uris] if metadatas is None else [dict(one or {}) for one in metadatas]
    if len(given) != len(uris):
        raise ValueError(f"there are {len(uris)} images, but {len(given)} metadatas.")
    return [""] * len(uris), [{**one, "image": uri} for one, uri in zip(given, uris, strict=True)]


def _with_ids(results: SearchResults) -> list[ScoredWithId]:
    return [(to_langchain(result), result.score, result.doc_id) for result in results]


def _with_query(
    query: Query, k: int, filter: Filter | None, options: dict[str, Any]
) -> Operation[tuple[FloatMatrix, list[tuple[Document, FloatMatrix]]]]:
    search_operation(query, k, filter, options)  # which checks them

    async def search(
        pipeline: LateInteractionPipeline,
    ) -> tuple[FloatMatrix, list[tuple[Document, FloatMatrix]]]:
        [vectors] = await pipeline.encode_queries([query])
        return vectors, await search_with_matrices_operation(vectors, k, filter, options)(pipeline)

    return search


_INCLUDED = ("metadatas", "documents", "embeddings")


def _columns(
    ids: str | Sequence[str] | None,
    where: Filter | None,
    limit: int | None,
    offset: int | None,
    include: Sequence[str],
) -> Operation[dict[str, Any]]:
    if unknown := set(include) - set(_INCLUDED):
        raise ValueError(f"include takes {', '.join(_INCLUDED)}, not {', '.join(sorted(unknown))}.")
    parsed = parse_filter(where)
    first = check_not_negative("offset", offset or 0)
    last = None if limit is None else first + check_not_negative("limit", limit)

    async def get(pipeline: LateInteractionPipeline) -> dict[str, Any]:
        if ids is None:
            documents = await find_operation(where, limit, first)(pipeline)
        else:
            found = await get_operation([ids] if isinstance(ids, str) else ids)(pipeline)
            documents = [
                one for one in found if parsed is None or matches(parsed, one.metadata, one.page_content)
            ][first:last]
        doc_ids = [str(document.id) for document in documents]
        columns: dict[str, Any] = {"ids": doc_ids, **dict.fromkeys(_INCLUDED)}
        if "documents" in include:
            columns["documents"] = [document.page_content for document in documents]
        if "metadatas" in include:
            columns["metadatas"] = [document.metadata for document in documents]
        if "embeddings" in include:
            matrices = await pipeline.get_matrices(doc_ids)
            columns["embeddings"] = [matrices.get(doc_id) for doc_id in doc_ids]
        return columns

    return get
