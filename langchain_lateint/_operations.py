"""What the store's methods do with a pipeline, for a sync method to run and for its async twin to await.

Each function checks its arguments where it is called, and returns what is to be done with the pipeline.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from numpy.typing import ArrayLike
from typing_extensions import TypeIs

from langchain_lateint.embeddings import unit_rows
from late_interaction import Document as StoredDocument
from late_interaction import LateInteractionPipeline, SearchResult, SearchResults
from late_interaction.connection import Connection, Use
from late_interaction.images.storing import IMAGE_KEY
from late_interaction.pipeline import Query
from late_interaction.ranking import check_mmr, diversify
from late_interaction.rows import ImageDocument
from late_interaction.types import FloatMatrix

T = TypeVar("T")
Filter: TypeAlias = Mapping[str, Any]

CONTENT_TYPE_KEY = "content_type"
"""Metadata key by which a chain and a filter tell images, which have "image" there, from texts."""

_OPTIONS = ("exact", "n_ann_tokens", "n_maxsim_candidates")


def adding(
    texts: Iterable[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Sequence[str | None] | None,
    batch_size: int,
    unknown: dict[str, Any],
) -> Use[list[str]]:
    if unknown:
        warnings.warn(f"arguments that have no effect here: {', '.join(unknown)}.", stacklevel=3)
    texts = _listed("texts", texts)
    made = [str(uuid.uuid4()) if one is None else one for one in _for_each("ids", ids, texts)]
    kept = [{} if one is None else one for one in _for_each("metadatas", metadatas, texts)]
    for position, one in enumerate(kept):
        if not isinstance(one, Mapping):
            raise TypeError(f"metadatas[{position}] must be a mapping, not {type(one).__name__}.")
    given = list(zip(made, texts, kept, strict=True))

    async def add(pipeline: LateInteractionPipeline) -> list[str]:
        rows = (_row(*one, images=pipeline.model.supports_images) for one in given)
        return await pipeline.index_documents(rows, batch_size=batch_size)

    return add


def _for_each(name: str, values: Iterable[T] | None, texts: Sequence[str]) -> list[T | None]:
    if values is None:
        return [None] * len(texts)
    listed: list[T | None] = [*_listed(name, values)]
    if len(listed) != len(texts):
        raise ValueError(f"there are {len(texts)} texts, but {len(listed)} {name}.")
    return listed


def _listed(name: str, values: Iterable[T]) -> list[T]:
    """A list of them; a str would be one of its letters, and a mapping one of its keys."""
    if isinstance(values, str | Mapping):
        raise TypeError(f"{name} must be a list, not a bare {type(values).__name__}: {values!r:.40}.")
    return list(values)


def _row(doc_id: str, text: str, metadata: dict[str, Any], *, images: bool) -> StoredDocument | ImageDocument:
    """A row of an image where the metadata have one and the model encodes it, or else there is no text either."""
    image = metadata.get(IMAGE_KEY)
    if image is None or (text.strip() and not images):
        return StoredDocument(doc_id, text, metadata=metadata)
    others = {key: value for key, value in metadata.items() if key != IMAGE_KEY}
    kept = {CONTENT_TYPE_KEY: "image"} | others
    return ImageDocument(StoredDocument(doc_id, text if text.strip() else "", metadata=kept), image)


def as_document(given: Document | Blob) -> Document:
    """A document as it is; an image in a `Blob` as a document that has it in its metadata.

    Raises:
        TypeError: it is neither.
        ValueError: the blob is no image.
    """
    if isinstance(given, Document):
        return given
    if not isinstance(given, Blob):
        raise TypeError(
            f"what is added is a list of Documents (or of Blobs, which are images), and one is {type(given).__name__}; "
            "add_texts takes texts."
        )
    mimetype = given.mimetype or "image"
    if isinstance(given.data, str) or not mimetype.startswith("image"):
        what = "text" if isinstance(given.data, str) else mimetype
        raise ValueError(
            f"a Blob that is added is an image, and {given.source or given.id or 'one'} is {what}: make documents "
            "of it, with a parser of LangChain's or, for the pages of a PDF, late_interaction.pdf_pages."
        )
    image = Path(str(given.path)) if given.data is None else given.data
    source = {} if given.source is None else {"source": given.source}
    return Document("", id=given.id, metadata={**source, **given.metadata, IMAGE_KEY: image})


def updating(id_to_metadata: Mapping[str, Mapping[str, Any]]) -> Use[int]:
    if not isinstance(id_to_metadata, Mapping) or not all(
        isinstance(metadata, Mapping) for metadata in id_to_metadata.values()
    ):
        raise TypeError("update_metadata takes the keys to set by document id: {id: {key: value}}.")

    async def update(pipeline: LateInteractionPipeline) -> int:
        updates = (pipeline.update_metadata(*item) for item in id_to_metadata.items())
        updated = await asyncio.gather(
            *updates, return_exceptions=True
        )  # So that none goes on after an error.
        failures = {
            doc_id: result
            for doc_id, result in zip(id_to_metadata, updated, strict=True)
            if isinstance(result, BaseException)
        }
        for failure in failures.values():
            failure.add_note(f"Not updated: {', '.join(map(repr, failures))}; the others are.")
            raise failure
        return updated.count(True)

    return update


def deleting(ids: Sequence[str] | None, filter: Filter | None, unknown: dict[str, Any]) -> Use[bool]:
    if unknown:
        raise TypeError(f"delete takes ids or filter, not {', '.join(unknown)}.")
    selection = filter if ids is None else _listed("ids", ids)
    if selection is None or (ids is not None and filter is not None):
        raise ValueError("delete takes either ids or a filter; clear() deletes everything.")

    async def delete(pipeline: LateInteractionPipeline) -> bool:
        await pipeline.delete_documents(selection)
        return True

    return delete


def copying(other: Connection) -> Use[int]:
    return lambda pipeline: other.arun(pipeline.copy_to)


async def clear(pipeline: LateInteractionPipeline) -> None:
    await pipeline.clear()


def getting(ids: Sequence[str]) -> Use[list[Document]]:
    unique = list(dict.fromkeys(_listed("ids", ids)))

    async def get(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.get_documents(unique))

    return get


def finding(filter: Filter | None, limit: int | None) -> Use[list[Document]]:
    async def find(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.find(filter, limit=limit))

    return find


def searching(
    query: Query | ArrayLike, k: int, filter: Filter | None, options: dict[str, Any]
) -> Use[SearchResults]:
    if unknown := options.keys() - set(_OPTIONS):
        raise TypeError(
            f"this search does not take {', '.join(sorted(unknown))}; it takes k, filter, {', '.join(_OPTIONS)}."
        )
    if not _is_query(query) and (isinstance(query, Mapping) or not hasattr(query, "__len__")):
        raise TypeError(
            f"a query is a text, an image (a Path, bytes, or Pillow's) or vectors, not {type(query).__name__}. In a "
            "chain, pick the text out of its input first, as itemgetter('question') does."
        )

    async def search(pipeline: LateInteractionPipeline) -> SearchResults:
        if _is_query(query):
            return await pipeline.search(query, k, filter=filter, **options)
        vectors = unit_rows(query, pipeline.model.dim)
        return await pipeline.search_with_embeddings(vectors, k, filter=filter, **options)

    return search


def _is_query(query: Query | ArrayLike) -> TypeIs[Query]:
    """Whether it is a text or an image, and not vectors."""
    # Whoever has an image of Pillow has imported it.
    image = getattr(sys.modules.get("PIL.Image"), "Image", ())
    return isinstance(query, (str, Path, bytes, image))


def searching_with_matrices(
    query: Query, k: int, filter: Filter | None, options: dict[str, Any]
) -> Use[list[tuple[Document, FloatMatrix]]]:
    search = searching(query, k, filter, options)

    async def search_with_matrices(pipeline: LateInteractionPipeline) -> list[tuple[Document, FloatMatrix]]:
        results = await search(pipeline)
        matrices = await pipeline.get_matrices([result.doc_id for result in results])
        return [(to_langchain(r), matrices[r.doc_id]) for r in results if r.doc_id in matrices]

    return search_with_matrices


def searching_diverse(
    query: Query | ArrayLike,
    k: int,
    fetch_k: int,
    lambda_mult: float,
    filter: Filter | None,
    options: dict[str, Any],
) -> Use[SearchResults]:
    check_mmr(k, lambda_mult)
    search = searching(query, max(k, fetch_k), filter, options)

    async def search_diverse(pipeline: LateInteractionPipeline) -> SearchResults:
        return await diversify(pipeline, await search(pipeline), k, lambda_mult)

    return search_diverse


def to_langchain(stored: StoredDocument | SearchResult) -> Document:
    kind = {} if stored.content_type == "text" else {CONTENT_TYPE_KEY: stored.content_type}
    return Document(id=stored.doc_id, page_content=stored.content, metadata={**kind, **stored.metadata})


def all_to_langchain(found: Sequence[StoredDocument] | SearchResults) -> list[Document]:
    return [to_langchain(one) for one in found]


def scored(results: SearchResults) -> list[tuple[Document, float]]:
    return [(to_langchain(result), result.score) for result in results]
