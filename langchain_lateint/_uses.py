"""What the store's methods do with a pipeline, for a sync method to run and for its async twin to await.

Each function checks its arguments where it is called, and returns what is to be done with the pipeline.
"""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from langchain_core.documents import Document
from numpy.typing import ArrayLike

from langchain_lateint.embeddings import unit_rows
from late_interaction import Document as StoredDocument
from late_interaction import LateInteractionPipeline, SearchResult, SearchResults
from late_interaction.connection import Connection, Use
from late_interaction.mmr import check_mmr, diversify
from late_interaction.types import FloatMatrix

Filter: TypeAlias = Mapping[str, Any]

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
    texts = list(texts)
    for name, given in (("metadatas", metadatas), ("ids", ids)):
        if given is not None and len(given) != len(texts):
            raise ValueError(f"there are {len(texts)} texts, but {len(given)} {name}.")
    rows = [
        StoredDocument(str(uuid.uuid4()) if doc_id is None else doc_id, text, metadata=metadata or {})
        for text, metadata, doc_id in zip(
            texts, metadatas or [{}] * len(texts), ids or [None] * len(texts), strict=True
        )
    ]
    return lambda pipeline: pipeline.index_documents(rows, batch_size=batch_size)


def updating(id_to_metadata: Mapping[str, Mapping[str, Any]]) -> Use[int]:
    async def update(pipeline: LateInteractionPipeline) -> int:
        updates = (pipeline.update_metadata(*item) for item in id_to_metadata.items())
        updated = await asyncio.gather(
            *updates, return_exceptions=True
        )  # So that none goes on after an error.
        for result in updated:
            if isinstance(result, BaseException):
                raise result
        return updated.count(True)

    return update


def deleting(ids: Sequence[str] | None, filter: Filter | None, unknown: dict[str, Any]) -> Use[bool]:
    if unknown:
        raise TypeError(f"delete takes ids or filter, not {', '.join(unknown)}.")
    selection = filter if ids is None else ids
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
    async def get(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.get_documents(list(dict.fromkeys(ids))))

    return get


def finding(filter: Filter | None, limit: int | None) -> Use[list[Document]]:
    async def find(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.find(filter, limit=limit))

    return find


def searching(
    query: str | ArrayLike, k: int, filter: Filter | None, options: dict[str, Any]
) -> Use[SearchResults]:
    if unknown := options.keys() - set(_OPTIONS):
        raise TypeError(
            f"this search does not take {', '.join(sorted(unknown))}; it takes k, filter, {', '.join(_OPTIONS)}."
        )

    async def search(pipeline: LateInteractionPipeline) -> SearchResults:
        if isinstance(query, str):
            return await pipeline.search(query, k, filter=filter, **options)
        vectors = unit_rows(query, pipeline.model.dim)
        return await pipeline.search_with_embeddings(vectors, k, filter=filter, **options)

    return search


def searching_with_matrices(
    query: str, k: int, filter: Filter | None, options: dict[str, Any]
) -> Use[list[tuple[Document, FloatMatrix]]]:
    search = searching(query, k, filter, options)

    async def search_with_matrices(pipeline: LateInteractionPipeline) -> list[tuple[Document, FloatMatrix]]:
        results = await search(pipeline)
        matrices = await pipeline.get_matrices([result.doc_id for result in results])
        return [(to_langchain(r), matrices[r.doc_id]) for r in results if r.doc_id in matrices]

    return search_with_matrices


def searching_diverse(
    query: str | ArrayLike,
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
    return Document(id=stored.doc_id, page_content=stored.content, metadata=stored.metadata)


def all_to_langchain(found: Sequence[StoredDocument] | SearchResults) -> list[Document]:
    return [to_langchain(one) for one in found]


def scored(results: SearchResults) -> list[tuple[Document, float]]:
    return [(to_langchain(result), result.score) for result in results]
