"""The work behind the store's methods, each written once for a sync method and its async twin.

Each function here checks its arguments and returns an `Operation`: what to do with the pipeline. The sync method runs
it, and the async method awaits it.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_args

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from numpy.typing import ArrayLike
from typing_extensions import TypeIs

from langchain_lateint.embeddings import unit_rows
from late_interaction import Document as StoredDocument
from late_interaction import (
    IndexedIds,
    LateInteractionPipeline,
    RowOptions,
    SearchOptions,
    SearchResult,
    SearchResults,
    SyncPipeline,
)
from late_interaction.adapting import (
    IMAGE_KEY,
    Encodable,
    FloatMatrix,
    OnError,
    Query,
    check_doc_id,
    check_mmr,
    check_names,
    check_not_negative,
    check_one_of,
    content_id,
    diversify,
    filled,
    is_blank,
)
from late_interaction.explain import check_explains, matched_parts

T = TypeVar("T")
Operation: TypeAlias = Callable[[LateInteractionPipeline], Awaitable[T]]
Filter: TypeAlias = Mapping[str, Any]
Ids: TypeAlias = Sequence[str | None] | Literal["content"] | None

SCORE_KEY, ID_KEY, MATCHED_KEY = "score", "id", "matched"
"""The metadata keys that `with_scores` and `explain` add to results."""

CONTENT_TYPE_KEY = "content_type"
"""The metadata key that tells images ("image") from texts, for chains and filters."""

_OPTIONS = tuple(name for name in SearchOptions.__annotations__ if name != "filter")
_RESULTS = ("with_scores", "explain")
SEARCH_ARGUMENTS = ("k", "filter", *_OPTIONS, *_RESULTS, "score_threshold", "fetch_k", "lambda_mult")
"""What a retriever's `search_kwargs` may hold."""
MODE_TYPES = ("hybrid", "lexical")
"""The search types that are "similarity" with this `mode`."""


# --- writing


def add_operation(
    texts: Iterable[str],
    metadatas: Sequence[dict[str, Any]] | None,
    ids: Ids,
    options: dict[str, Any],
    embeddings: Sequence[ArrayLike] | None = None,
) -> Operation[IndexedIds]:
    """Check what `add_texts` or `add_embeddings` was given, and return the operation that adds it."""
    check_names(RowOptions, options)
    settings = cast("RowOptions", {"on_error": "raise", **options})
    texts = _listed("texts", texts)
    mappings = [{} if one is None else one for one in _for_each("metadatas", metadatas, texts)]
    for position, one in enumerate(mappings):
        if not isinstance(one, Mapping):
            raise TypeError(f"metadatas[{position}] must be a mapping, not {type(one).__name__}.")
    if isinstance(ids, str) and ids == "content":
        doc_ids = list(map(id_by_content, texts, mappings))
    else:
        doc_ids = [str(uuid.uuid4()) if one is None else one for one in _for_each("ids", ids, texts)]
    given = list(zip(doc_ids, texts, mappings, strict=True))
    vectors = None if embeddings is None else _listed("embeddings", embeddings)
    if vectors is not None and len(vectors) != len(texts):
        raise ValueError(f"there are {len(texts)} texts, but {len(vectors)} embeddings.")

    async def add(pipeline: LateInteractionPipeline) -> IndexedIds:
        rows = [_row(*one, images=pipeline.model.supports_images) for one in given]
        if vectors is None:
            return await pipeline.index_documents(rows, **settings)
        matrices = [unit_rows(vector, pipeline.model.dim) for vector in vectors]
        return await pipeline.index_embeddings(rows, matrices, **settings)

    return add


def check_writing(on_error: object, ids: object) -> None:
    """Check what a store does by default with bad rows, and with rows without ids.

    Raises:
        ValueError: it is none of what there is.
    """
    check_one_of("on_error", on_error, get_args(OnError))
    if ids is not None:
        check_one_of("ids", ids, ["content"])


def id_by_content(text: str, metadata: Mapping[str, Any]) -> str:
    """Return the id that a text with its metadata has in every run; a random one where it cannot be indexed."""
    others = {key: value for key, value in metadata.items() if key != IMAGE_KEY}
    try:
        return content_id(text, others, metadata.get(IMAGE_KEY))
    except (TypeError, ValueError):  # The row is refused when it is indexed, and its reason is told there.
        return str(uuid.uuid4())


def parts_of(given: Sequence[Document | Blob], ids: Ids) -> dict[str, Any]:
    """Return the texts, the metadatas and the ids of documents; `ids` come before the documents' own."""
    documents = [as_document(document) for document in given]
    doc_ids: Ids = [document.id for document in documents]
    if isinstance(ids, str) and ids == "content":
        doc_ids = [id_by_content(d.page_content, d.metadata) if d.id is None else d.id for d in documents]
    elif ids is not None:
        doc_ids = ids
    return {
        "texts": [document.page_content for document in documents],
        "metadatas": [document.metadata for document in documents],
        "ids": doc_ids,
    }


def as_document(given: Document | Blob) -> Document:
    """Return a document unchanged, and the image in a `Blob` as a document with the image in its metadata.

    Raises:
        TypeError: it is neither.
        ValueError: the blob is not an image.
    """
    if isinstance(given, Document):
        return given
    if not isinstance(given, Blob):
        raise TypeError(
            f"expected Documents, or Blobs that are images, and got {type(given).__name__}; use add_texts for texts."
        )
    mimetype = given.mimetype or "image"
    if isinstance(given.data, str) or not mimetype.startswith("image"):
        what = "text" if isinstance(given.data, str) else mimetype
        raise ValueError(
            f"only Blobs that are images can be added, and {given.source or given.id or 'this one'} is {what}: make "
            "documents of it, with one of LangChain's parsers or, for the pages of a PDF, late_interaction.pdf_pages."
        )
    image = Path(str(given.path)) if given.data is None else given.data
    source = {} if given.source is None else {"source": given.source}
    return Document("", id=given.id, metadata={**source, **given.metadata, IMAGE_KEY: image})


def update_operation(
    id_to_metadata: Mapping[str, Mapping[str, Any]] | None,
    filter: Filter | None,
    metadata: Mapping[str, Any] | None,
    remove: Sequence[str],
    replace: bool,
) -> Operation[int]:
    """Check what `update_metadata` was given, and return the operation that counts the updated documents."""
    if filter is not None:
        if id_to_metadata is not None:
            raise ValueError("give either the keys to set by document id, or a filter with metadata=….")
        return lambda pipeline: pipeline.update_metadata(
            filter=filter, metadata=metadata, remove=remove, replace=replace
        )
    if metadata is not None:
        raise ValueError("metadata= goes with filter=; by document id give {id: {key: value}}.")
    if not isinstance(id_to_metadata, Mapping) or not all(
        isinstance(one, Mapping) for one in id_to_metadata.values()
    ):
        raise TypeError("update_metadata takes the keys to set by document id: {id: {key: value}}.")

    async def update(pipeline: LateInteractionPipeline) -> int:
        updates = (
            pipeline.update_metadata(*item, remove=remove, replace=replace) for item in id_to_metadata.items()
        )
        # All updates end before an error is raised, so that none goes on behind the caller's back.
        updated = await asyncio.gather(*updates, return_exceptions=True)
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


def delete_operation(
    ids: Sequence[str] | None, filter: Filter | None, unknown: dict[str, Any]
) -> Operation[bool]:
    """Check what `delete` was given, and return the operation that deletes it."""
    if unknown:
        raise TypeError(f"delete takes ids or filter, not {', '.join(unknown)}.")
    selection = filter if ids is None else _listed("ids", ids)
    if selection is None or (ids is not None and filter is not None):
        raise ValueError("delete takes either ids or a filter; clear() deletes everything.")

    async def delete(pipeline: LateInteractionPipeline) -> bool:
        await pipeline.delete_documents(selection)
        return True

    return delete


def copy_operation(other: SyncPipeline) -> Operation[int]:
    """Return the operation that copies the index into another store's."""
    return lambda pipeline: other.arun(pipeline.copy_to)


# --- reading and searching


def get_operation(ids: Sequence[str]) -> Operation[list[Document]]:
    """Check ids, and return the operation that gets their documents."""
    unique = list(dict.fromkeys(map(check_doc_id, _listed("ids", ids))))

    async def get(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.get_documents(unique))

    return get


def find_operation(filter: Filter | None, limit: int | None, offset: int = 0) -> Operation[list[Document]]:
    """Return the operation that finds documents by their metadata alone."""

    async def find(pipeline: LateInteractionPipeline) -> list[Document]:
        return all_to_langchain(await pipeline.find(filter, limit=limit, offset=offset))

    return find


def search_operation(
    query: Query | ArrayLike, k: int, filter: Filter | None, options: dict[str, Any]
) -> Operation[SearchResults]:
    """Check what a search was given, and return the operation that searches by a text, an image or vectors."""
    options = dict(options)
    with_scores, explain = (options.pop(name, False) for name in _RESULTS)
    text = None if _is_query(query) else options.pop("text", None)
    if unknown := options.keys() - set(_OPTIONS):
        raise TypeError(
            f"this search does not take {', '.join(sorted(unknown))}; it takes k, filter, "
            f"{', '.join((*_OPTIONS, *_RESULTS))}."
        )
    if explain and not isinstance(query, str):
        raise TypeError("explain=True tells which words answered a text, and the query is not a text.")
    if not _is_query(query) and (isinstance(query, Mapping) or not hasattr(query, "__len__")):
        raise TypeError(
            f"a query is a text, an image (a Path, bytes or a PIL image) or vectors, not {type(query).__name__}. In a "
            "chain, pick the text out of its input first, as itemgetter('question') does."
        )

    lists = bool(filter) and _is_blank(query)
    if lists and (
        ignored := [n for n in ("ids", "group_by", "distinct") if options.get(n) not in (None, False)]
    ):
        raise ValueError(
            f"An empty query with a filter lists what matches it, without {', '.join(ignored)}; give a query, or use "
            "search_by_metadata."
        )

    async def search(pipeline: LateInteractionPipeline) -> SearchResults:
        if lists:
            found = await pipeline.find(filter, limit=k, offset=options.get("offset", 0))
            results = SearchResults(
                [SearchResult(d.doc_id, 0.0, d.content, d.content_type, d.metadata) for d in found]
            )
        elif _is_query(query):
            results = await pipeline.search(query, k, filter=filter, **options)
        else:
            vectors = unit_rows(query, pipeline.model.dim)
            results = await pipeline.search_with_embeddings(vectors, k, text=text, filter=filter, **options)
        added = [{SCORE_KEY: r.score, ID_KEY: r.doc_id} if with_scores else {} for r in results]
        if explain and results and not _is_blank(query):
            check_explains(pipeline.model)
            for extra, result in zip(added, results, strict=True):
                extra[MATCHED_KEY] = matched_parts(await result.aexplain())
        return SearchResults(
            [replace(r, metadata={**r.metadata, **extra}) for r, extra in zip(results, added, strict=True)],
            results.stats,
        )

    return search


def check_search_type(search_type: str, options: Mapping[str, Any]) -> None:
    """Check that a search type and the arguments of the search fit.

    Raises:
        ValueError: it is a mode, and the arguments have another one.
    """
    if search_type in MODE_TYPES and options.get("mode", search_type) != search_type:
        raise ValueError(f"search_type={search_type!r} and mode={options['mode']!r} exclude each other.")


def of_search_type(search_type: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the search type that LangChain knows, and the arguments of the search: "hybrid" and "lexical" are modes.

    Raises:
        ValueError: the arguments have another mode.
    """
    check_search_type(search_type, options)
    if search_type not in MODE_TYPES:
        return search_type, dict(options)
    return "similarity", {**options, "mode": search_type}


def search_with_matrices_operation(
    query: Query | ArrayLike, k: int, filter: Filter | None, options: dict[str, Any]
) -> Operation[list[tuple[Document, FloatMatrix]]]:
    """Return the operation that searches, and gets the stored vectors of each document found."""
    search = search_operation(query, k, filter, options)

    async def search_with_matrices(pipeline: LateInteractionPipeline) -> list[tuple[Document, FloatMatrix]]:
        results = await search(pipeline)
        matrices = await pipeline.get_matrices([result.doc_id for result in results])
        return [(to_langchain(r), matrices[r.doc_id]) for r in results if r.doc_id in matrices]

    return search_with_matrices


def mmr_operation(
    query: Query | ArrayLike,
    k: int,
    fetch_k: int,
    lambda_mult: float,
    filter: Filter | None,
    options: dict[str, Any],
) -> Operation[SearchResults]:
    """Check what an MMR search was given, and return the operation that searches for documents that differ."""
    check_mmr(k, lambda_mult)
    offset = check_not_negative("offset", options.get("offset", 0))
    most = k + offset
    search_twins = search_operation(query, most, filter, {**options, "offset": 0})
    search = search_twins
    if not _is_blank(query):
        search = search_operation(
            query, max(most, fetch_k), filter, {"distinct": True, **options, "offset": 0}
        )

    async def search_diverse(pipeline: LateInteractionPipeline) -> SearchResults:
        results = await search(pipeline)
        if not _is_blank(query):
            results = await diversify(pipeline, results, most, lambda_mult)
            if len(results) < most and not options.get("distinct"):
                results = filled(results, await search_twins(pipeline), most)
        return SearchResults(results[offset:most], results.stats)

    return search_diverse


# --- documents of LangChain


def to_langchain(stored: StoredDocument | SearchResult) -> Document:
    """Return a stored document as one of LangChain's."""
    kind = {} if stored.content_type == "text" else {CONTENT_TYPE_KEY: stored.content_type}
    return Document(id=stored.doc_id, page_content=stored.content, metadata={**kind, **stored.metadata})


def all_to_langchain(found: Sequence[StoredDocument] | SearchResults) -> list[Document]:
    """Return stored documents as LangChain's, in their order."""
    return [to_langchain(one) for one in found]


def scored(results: SearchResults) -> list[tuple[Document, float]]:
    """Return results as LangChain's documents with their raw scores."""
    return [(to_langchain(result), result.score) for result in results]


# --- checks


def _for_each(name: str, values: Iterable[T] | None, texts: Sequence[str]) -> list[T | None]:
    if values is None:
        return [None] * len(texts)
    listed: list[T | None] = [*_listed(name, values)]
    if len(listed) != len(texts):
        raise ValueError(f"there are {len(texts)} texts, but {len(listed)} {name}.")
    return listed


def _listed(name: str, values: Iterable[T]) -> list[T]:
    """Return the values as a list; refuse a str, which would give its letters, and a mapping, which gives its keys."""
    if isinstance(values, str | Mapping):
        raise TypeError(f"{name} must be a list, not a bare {type(values).__name__}: {values!r:.40}.")
    return list(values)


def _row(doc_id: str, text: str, metadata: dict[str, Any], *, images: bool) -> StoredDocument | Encodable:
    """Return an image row if the metadata has an image that the model can encode, or if there is no text instead."""
    image = metadata.get(IMAGE_KEY)
    if image is None or not (is_blank(text) or images):
        return StoredDocument(doc_id, text, metadata=metadata)
    others = {key: value for key, value in metadata.items() if key != IMAGE_KEY}
    kept = {CONTENT_TYPE_KEY: "image"} | others
    return Encodable(StoredDocument(doc_id, "" if is_blank(text) else text, metadata=kept), image)


def _is_blank(query: Query | ArrayLike) -> bool:
    """Return whether a query is a text without words; with a filter, such a query lists what matches."""
    return isinstance(query, str) and not query.strip()


def _is_query(query: Query | ArrayLike) -> TypeIs[Query]:
    """Return whether this is a text or an image, and not vectors."""
    # Code that holds a PIL image has imported PIL.Image already.
    image = getattr(sys.modules.get("PIL.Image"), "Image", ())
    return isinstance(query, (str, Path, bytes, image))
