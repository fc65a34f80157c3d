"""LateInteractionPipeline: encode, pool, store; encode, pool, find candidates, score them exactly."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import time
import weakref
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, cast

import numpy as np
from numpy.typing import ArrayLike
from tqdm.auto import tqdm

from late_interaction.candidates import hopeful
from late_interaction.encoders.base import Item, LateInteractionModel, encode_checked, warn_of_cut_queries
from late_interaction.encoders.projection import restored
from late_interaction.errors import IndexMismatchError
from late_interaction.filters import Filter, matches, parse_filter
from late_interaction.images.loading import load_image
from late_interaction.images.storing import StoreImages, check_store_images
from late_interaction.indexing import IndexingRun
from late_interaction.pacing import batches, paced_batches
from late_interaction.packing import check_packing
from late_interaction.pooling import POOLING_ALGORITHM, pool_query
from late_interaction.rows import Row, check_doc_id, check_metadata
from late_interaction.stores.astra.schema import type_names
from late_interaction.stores.base import Candidates, Store
from late_interaction.stores.copying import copy_index
from late_interaction.stores.local.store import LocalStore
from late_interaction.types import (
    DocId,
    Document,
    FloatMatrix,
    IndexedIds,
    IndexSpec,
    PackingDtype,
    QueryVectors,
    SearchResult,
    SearchResults,
    SearchStats,
)
from late_interaction.validation import check_matrix, check_positive

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database
    from PIL import Image

Rows: TypeAlias = Iterable[Row] | AsyncIterable[Row]
FilterSpec: TypeAlias = Mapping[str, Any] | Filter
Query: TypeAlias = "str | Image.Image | Path | bytes"
"""A text, or an image: of Pillow, a path, or the bytes of a file. A str is always a text."""

DEFAULT_NAME = "late_interaction"
_ESCALATION = 4


class LateInteractionPipeline:
    """An index of documents by their token vectors, and searches in it.

    All methods that touch the index are coroutines; `SyncPipeline` has the same ones for callers without an
    event loop. Call `initialize` first, or use it as an async context manager.

    Args:
        db: a folder for the embedded store (str or Path), a database of astrapy (async or not), or any `Store`.
        model: encodes queries and documents.
        base_table_name: the index's name, "late_interaction" by default; not with a `Store`, which has its own.
        doc_pool_factor: documents keep about one vector in so many (≥ 1; 1 keeps every vector). Part of the index.
        query_pool_distance: query vectors closer than this cosine distance are pooled; 0 keeps every vector.
        packing: how token matrices are stored: "int8", "float16" or "float32". Part of the index.
        concurrency: how many searches and writes of this pipeline are in flight at a time.
        filterable: metadata fields that a database is to look up, and their types, as for `AstraStore`. In a folder
            every field is looked up, declared or not. Not with a `Store`, which has its own.
        store_images: what is stored of an image beside its vectors. "reference" is its path or URL under the metadata
            key "image"; "thumbnail" is that and a JPEG of at most 512 pixels as a data URI under "thumbnail"; "full"
            is the image itself as a data URI under "image", refused above 6 MB. An image that has no path or URL
            leaves nothing with "reference".
        allow_urls: fetch images of rows that give a URL, from public addresses only; see `load_image`.
    """

    def __init__(
        self,
        db: str | Path | Store | AsyncDatabase | Database,
        model: LateInteractionModel,
        base_table_name: str | None = None,
        *,
        doc_pool_factor: float = 2,
        query_pool_distance: float = 0.03,
        packing: PackingDtype = "int8",
        concurrency: int = 16,
        filterable: Mapping[str, Any] | None = None,
        store_images: StoreImages = "reference",
        allow_urls: bool = False,
    ) -> None:
        if not isinstance(model, LateInteractionModel):
            raise TypeError(
                f"model must be a LateInteractionModel such as ColBERTModel({model!r:.60}), not {type(model).__name__}."
            )
        if not (math.isfinite(doc_pool_factor) and doc_pool_factor >= 1):
            raise ValueError(f"doc_pool_factor must be a number of at least 1, not {doc_pool_factor}.")
        if not query_pool_distance >= 0:
            raise ValueError(
                f"query_pool_distance must be a number of at least 0, not {query_pool_distance}."
            )
        check_positive("concurrency", concurrency)
        check_packing(packing)
        check_store_images(store_images)
        self.model = model
        self.store = _store(db, base_table_name, filterable)
        self.doc_pool_factor = doc_pool_factor
        self.query_pool_distance = query_pool_distance
        self.packing = packing
        self.concurrency = concurrency
        self.store_images: StoreImages = store_images
        self.allow_urls = allow_urls
        # An asyncio.Semaphore belongs to one event loop; a pipeline on a store that allows it may serve several.
        self._semaphores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"LateInteractionPipeline({self.store!r}, {self.model!r})"

    @property
    def spec(self) -> IndexSpec:
        """What this pipeline builds an index with."""
        pooling = {
            "algorithm": POOLING_ALGORITHM if self.doc_pool_factor > 1 else "none",
            "factor": float(self.doc_pool_factor),
            "protected_tokens": self.model.protected_tokens,
        }
        return IndexSpec(self.model.dim, dict(self.model.fingerprint), pooling, self.packing)

    # --- opening and closing

    async def initialize(self) -> None:
        """Create the index, or attach to the one that is there.

        Where that one holds a projection (`fit_projection`) of this pipeline's model, `model` becomes the projected
        one.

        Raises:
            IndexMismatchError: the one that is there was built with another model, pooling or packing.
        """
        try:
            await self.store.open(self.spec)
        except IndexMismatchError:
            spec = await self.store.spec()
            model = (
                self.model if spec is None else restored(self.model.as_indexed(spec.encoder), spec.encoder)
            )
            if model is self.model:
                await self.store.close()
                raise
            self.model = model
            await self.store.open(self.spec)

    async def aclose(self) -> None:
        """Let go of the store; the model is yours and stays open. May be called twice."""
        await self.store.close()

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def clear(self) -> None:
        """Delete every document; the index stays."""
        await self.store.clear()

    async def drop(self) -> None:
        """Delete the index and nothing else; `initialize` makes a new one."""
        await self.store.drop()

    # --- indexing

    async def index_document(self, row: Row) -> str:
        """Index one row, replacing the document of the same id.

        Args:
            row: `{"content": str, "doc_id"?: str | UUID, …metadata}`, or a `Document`; metadata are JSON values and
                keep their types. With a visual model `{"image": …}` in place of the content or beside it: a PIL image,
                a path, bytes, base64, a data URI, a URL (with `allow_urls`), or a page of `pdf_pages`. The content is
                then a caption, by default the image's path or size, and is not encoded.

        Returns:
            The document's id.

        Raises:
            DocumentError: the row cannot be indexed; it says why.
        """
        return (await self.index_documents([row]))[0]

    async def index_documents(
        self, rows: Rows, *, batch_size: int = 128, show_progress: bool = False, skip_existing: bool = False
    ) -> IndexedIds:
        """Index rows, each replacing the document of the same id.

        Rows are taken from the iterable a batch at a time, and while one batch is encoded the last one is
        written, so memory is bounded by the batch. Where an id comes twice, the last row wins. An interrupted run
        can be run again: what was written stays.

        Args:
            rows: an iterable or async iterable of rows, as for `index_document`.
            batch_size: most rows that are encoded and written together. There are fewer where rows take long to
                encode, so that progress shows and an interruption loses little, or hold much text.
            show_progress: show a progress bar.
            skip_existing: leave rows alone whose id is in the index already; with stable ids a run that was
                interrupted then does only what is missing.

        Returns:
            The id of each row, in order: a list, whose `.truncated` says by id how much of a document was too long for
            the model and was not encoded.

        Raises:
            DocumentError: some rows could not be indexed; it names each, and the others are in the index.
            StoreError: the store failed; batches written before are in the index, and its `.indexed` has their ids.
        """
        check_positive("batch_size", batch_size)
        run = self._indexing_run(skip_existing=skip_existing)
        total = len(rows) if isinstance(rows, Sized) else None
        with tqdm(desc="Indexing", total=total, unit="doc", disable=not show_progress) as bar:
            async with run.writing():
                async for batch in paced_batches(rows, batch_size):
                    await run.add(batch)
                    bar.update(len(batch))
        return await run.finish(show_progress=show_progress)

    async def bulk_index_documents(
        self, rows: Rows, *, batch_size: int = 128, show_progress: bool = False, skip_existing: bool = False
    ) -> IndexedIds:
        """Another name of `index_documents`."""
        return await self.index_documents(
            rows, batch_size=batch_size, show_progress=show_progress, skip_existing=skip_existing
        )

    async def index_embeddings(self, rows: Iterable[Row], matrices: Iterable[ArrayLike]) -> IndexedIds:
        """Index rows whose token vectors were made elsewhere; they are pooled as encoded ones are.

        Args:
            rows: as for `index_documents`.
            matrices: for each row (n_tokens, dim) unit rows, n_tokens ≥ 1.

        Returns:
            The id of each row, in order.

        Raises:
            DocumentError: some rows could not be indexed; it names each, and the others are in the index.
            ValueError: there are more rows than matrices, or fewer.
        """
        run = self._indexing_run()
        async with run.writing():
            async for batch in batches(zip(rows, matrices, strict=True), 128):
                await run.add([row for row, _ in batch], [matrix for _, matrix in batch])
        return await run.finish()

    async def optimize(self, *, show_progress: bool = False) -> None:
        """Bring the store's search structures up to date; `index_documents` does so at its end."""
        await self.store.optimize(show_progress=show_progress)

    async def copy_to(
        self,
        other: LateInteractionPipeline | Store | str | Path,
        *,
        batch_size: int = 100,
        show_progress: bool = False,
        skip_existing: bool = False,
    ) -> int:
        """Copy every document with its vectors into another index; nothing is encoded again.

        Args:
            other: where to; created if it is not there. A pipeline or store stays open; a folder (then the index
                gets this one's name) is closed at the end.
            batch_size: documents read and written together.
            show_progress: show a progress bar.
            skip_existing: leave documents alone whose id is there already, to go on with a copy that was
                interrupted.

        Returns:
            How many documents were written.

        Raises:
            IndexMismatchError: the other index is there and was built otherwise.
            ValueError: the other index is this one, or `batch_size` is below 1.
        """
        target = (
            other.store if isinstance(other, LateInteractionPipeline) else _copy_target(other, self.store)
        )
        try:
            return await copy_index(
                self.store,
                target,
                batch_size=batch_size,
                show_progress=show_progress,
                skip_existing=skip_existing,
            )
        finally:
            if isinstance(other, str | Path):
                await target.close()

    def _indexing_run(self, *, skip_existing: bool = False) -> IndexingRun:
        return IndexingRun(
            self.model,
            self.store,
            self._in_flight(),
            doc_pool_factor=self.doc_pool_factor,
            skip_existing=skip_existing,
            store_images=self.store_images,
            allow_urls=self.allow_urls,
        )

    # --- searching

    async def search(
        self,
        query: Query,
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> SearchResults:
        """The `k` documents with the highest MaxSim, best first.

        Stage 1 finds candidates by their token vectors, stage 2 scores the candidates exactly. Where fewer than
        `k` come back and the store has more, stage 1 is done again with larger parameters.

        Args:
            query: what to look for: a text, or with a visual model an image, as a PIL image, a `Path` or bytes. A str
                is always a text.
            k: how many documents, at least 1.
            n_ann_tokens: stored tokens to look at for each query vector; grows with `k` by default.
            n_maxsim_candidates: documents to score exactly; grows with `k` by default. The defaults are the
                store's, fitted so that at least 97 % of the exact top k are found.
            filter: only documents whose metadata match, for example `{"year": {"$gte": 2000}, "lang": "en"}`.
            exact: go on until the top k is certain, however long it takes.

        Returns:
            Results that unpack as `doc_id, score, content`; `.stats` says how the search went.

        Raises:
            ValueError: the query is empty, or an image that cannot be read or that the model does not encode, or a
                number is out of range.
            FilterError: the filter is not well formed.
        """
        return (
            await self.search_many(
                [query],
                k,
                n_ann_tokens=n_ann_tokens,
                n_maxsim_candidates=n_maxsim_candidates,
                filter=filter,
                exact=exact,
            )
        )[0]

    async def search_many(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> list[SearchResults]:
        """`search` for several queries: encoded together, searched `concurrency` at a time."""
        plan = self._plan(k, n_ann_tokens, n_maxsim_candidates, filter, exact)
        started = time.perf_counter()
        matrices = await self.encode_queries(queries)
        encode_s = (time.perf_counter() - started) / max(1, len(matrices))
        return list(await asyncio.gather(*(self._search(matrix, plan, encode_s) for matrix in matrices)))

    async def encode_queries(self, queries: Sequence[Query]) -> list[FloatMatrix]:
        """The (n_tokens, dim) float32 matrices of queries that `search` takes, for `search_with_embeddings`.

        Raises:
            ValueError: a query is empty, or an image that cannot be read or that the model does not encode.
        """
        items = await self._query_items(queries)
        matrices, shares = await encode_checked(self.model, items, "query")
        warn_of_cut_queries(self.model, shares)
        return matrices

    async def _query_items(self, queries: Sequence[Query]) -> Sequence[Item]:
        """The queries with their images loaded."""
        if all(isinstance(query, str) for query in queries):
            return cast("Sequence[str]", queries)
        if not self.model.supports_images:
            position, query = next(
                (i, query) for i, query in enumerate(queries) if not isinstance(query, str)
            )
            raise ValueError(
                f"the query at position {position} is no str but {type(query).__name__}, and {self.model.model_name} "
                "encodes text."
            )

        def load() -> list[Item]:
            return [query if isinstance(query, str) else load_image(query) for query in queries]

        return await asyncio.to_thread(load)

    async def search_with_embeddings(
        self,
        matrix: ArrayLike,
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> SearchResults:
        """`search` for a query whose (n_tokens, dim) unit vectors were made elsewhere."""
        plan = self._plan(k, n_ann_tokens, n_maxsim_candidates, filter, exact)
        return await self._search(check_matrix(matrix, self.model.dim), plan, 0.0)

    def _plan(
        self,
        k: int,
        n_ann_tokens: int | None,
        n_maxsim_candidates: int | None,
        filter: FilterSpec | None,
        exact: bool,
    ) -> _Plan:
        check_positive("k", k)
        for name, value in (("n_ann_tokens", n_ann_tokens), ("n_maxsim_candidates", n_maxsim_candidates)):
            if value is not None:
                check_positive(name, value)
        scaling = self.store.scaling
        return _Plan(
            k,
            scaling.n_ann_tokens(k) if n_ann_tokens is None else scaling.clamp_ann_tokens(n_ann_tokens),
            max(k, scaling.n_maxsim_candidates(k) if n_maxsim_candidates is None else n_maxsim_candidates),
            scaling.n_first_candidates(k) if n_maxsim_candidates is None else None,
            parse_filter(filter),
            exact,
        )

    async def _search(self, matrix: FloatMatrix, plan: _Plan, encode_s: float) -> SearchResults:
        async with self._in_flight():
            stats = SearchStats(n_query_tokens=len(matrix), encode_s=encode_s)
            query = pool_query(matrix, self.query_pool_distance)
            stats.n_query_vectors = len(query.vectors)
            best = await self._best(query, plan, stats)
            started = time.perf_counter()
            documents = await self.store.documents([doc_id for doc_id, _ in best])
            stats.documents_s = time.perf_counter() - started
        scores = dict(best)
        return SearchResults(
            [
                SearchResult(d.doc_id, scores[d.doc_id], d.content, d.content_type, d.metadata)
                for d in documents
                # Metadata may have changed since the store looked at them.
                if plan.filter is None or matches(plan.filter, d.metadata)
            ],
            stats,
        )

    async def _best(self, query: QueryVectors, plan: _Plan, stats: SearchStats) -> list[tuple[str, float]]:
        """The ids and exact scores of the top k."""
        scaling, n = self.store.scaling, plan.n_candidates
        n_ann_tokens = None if plan.exact and not scaling.bounded else plan.n_ann_tokens
        scores: dict[str, float] = {}
        while True:
            started = time.perf_counter()
            candidates = await self.store.candidates(query, n, n_ann_tokens=n_ann_tokens, filter=plan.filter)
            stats.candidates_s += time.perf_counter() - started
            started = time.perf_counter()
            await self._score(query, candidates, plan, scores)
            stats.maxsim_s += time.perf_counter() - started
            stats.n_ann_tokens, stats.n_candidates = candidates.n_ann_tokens, len(candidates.doc_ids)
            best = sorted(scores.items(), key=lambda item: -item[1])[: plan.k]
            worst = best[-1][1] if len(best) == plan.k else -math.inf
            stats.n_scored, stats.certain = len(scores), worst >= candidates.bound
            enough = stats.certain if plan.exact else len(best) == plan.k
            if enough or candidates.exhausted or n_ann_tokens is None:
                return best
            deeper = scaling.clamp_ann_tokens(n_ann_tokens * _ESCALATION)
            if deeper > n_ann_tokens or len(candidates.doc_ids) >= n:
                n_ann_tokens, n = deeper, n * _ESCALATION
            elif plan.exact:
                n_ann_tokens = None
            else:
                return best  # The engine looks no deeper, and has handed over all that it found.
            stats.escalations += 1

    async def _score(
        self, query: QueryVectors, candidates: Candidates, plan: _Plan, scores: dict[str, float]
    ) -> None:
        """Add each candidate's exact score to `scores`, without those that have no chance of the top k."""
        approximate = dict(zip(candidates.doc_ids, candidates.scores.tolist(), strict=True))
        exact = list(itertools.compress(candidates.doc_ids, candidates.exact.tolist()))
        scores.update((doc_id, approximate[doc_id]) for doc_id in exact)
        unscored = [doc_id for doc_id in candidates.doc_ids if doc_id not in scores]
        first, others = unscored[: plan.n_first], unscored[plan.n_first :] if plan.n_first else []
        scored = await self._score_exactly(query, first)
        scores.update(scored)
        if others and scored and len(scores) >= plan.k:
            errors = np.array([score - approximate[doc_id] for doc_id, score in scored.items()], np.float32)
            chances = hopeful(
                np.array([approximate[doc_id] for doc_id in others], np.float32),
                heapq.nlargest(plan.k, scores.values())[-1],
                errors,
            )
            others = list(itertools.compress(others, chances.tolist()))
        scores.update(await self._score_exactly(query, others))

    async def _score_exactly(self, query: QueryVectors, doc_ids: Sequence[str]) -> dict[str, float]:
        """MaxSim of those of the documents that are there."""
        if not doc_ids:
            return {}
        there, scores = await self.store.score(query, doc_ids)
        return dict(zip(there, scores.tolist(), strict=True))

    # --- documents

    async def get_documents(self, doc_ids: Sequence[DocId]) -> list[Document]:
        """The documents of these ids, in their order; ids that are not in the index are left out."""
        return await self.store.documents(_check_doc_ids(doc_ids))

    async def get_matrices(self, doc_ids: Sequence[DocId]) -> dict[str, FloatMatrix]:
        """The token vectors of these documents, as stored: pooled, and rounded by the packing.

        Returns:
            (n_tokens, dim) float32 by id, in the order asked; ids that are not in the index are left out.
        """
        there, tokens = await self.store.matrices(list(dict.fromkeys(_check_doc_ids(doc_ids))))
        return {doc_id: tokens.matrix(position) for position, doc_id in enumerate(there)}

    async def find(self, filter: FilterSpec | None = None, *, limit: int | None = None) -> list[Document]:
        """Documents by metadata alone: those that match, in the order they were written; all by default.

        With a `limit` a folder gives those written first, and Astra those that it comes upon first.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit must not be negative, as {limit} is.")
        return await self.store.find(parse_filter(filter), limit=limit)

    async def count(self, filter: FilterSpec | None = None) -> int:
        """How many documents there are (that match)."""
        return await self.store.count(parse_filter(filter))

    async def update_metadata(self, doc_id: DocId, metadata: Mapping[str, Any]) -> bool:
        """Set these metadata keys of a document; its other keys, content and vectors stay.

        Returns:
            False where there is no such document.

        Raises:
            ValueError: a value is no JSON value.
        """
        return await self.store.update_metadata(check_doc_id(doc_id), check_metadata(metadata))

    async def delete_document(self, doc_id: DocId) -> bool:
        """Delete one document; False where there is none of this id."""
        return await self.store.delete([check_doc_id(doc_id)]) == 1

    async def delete_documents(self, selection: Sequence[DocId] | FilterSpec) -> int:
        """Delete documents by id, or all that match a filter.

        Returns:
            How many there were.

        Raises:
            ValueError: the filter is empty; `clear` deletes everything.
        """
        if isinstance(selection, Sequence):
            return await self.store.delete(_check_doc_ids(selection))
        matching = parse_filter(selection)
        if matching is None:
            raise ValueError("An empty filter would delete every document: call clear() if that is meant.")
        return await self.store.delete(matching)

    def _in_flight(self) -> asyncio.Semaphore:
        """Return the places in flight of the running event loop, `concurrency` of them."""
        loop = asyncio.get_running_loop()
        return self._semaphores.setdefault(loop, asyncio.Semaphore(self.concurrency))


@dataclass(frozen=True, slots=True)
class _Plan:
    """What one search is to do, checked."""

    k: int
    n_ann_tokens: int
    n_candidates: int
    n_first: int | None
    filter: Filter | None
    exact: bool


def _store(db: object, name: str | None, filterable: Mapping[str, Any] | None) -> Store:
    if isinstance(db, Store):
        if name is not None:
            raise ValueError("a Store has a name of its own: leave base_table_name out.")
        if filterable is not None:
            raise ValueError("a Store has declarations of its own: leave filterable out.")
        return db
    name = DEFAULT_NAME if name is None else name
    if isinstance(db, str | Path):
        if filterable is not None:
            type_names(filterable)  # What a database would refuse is refused here too.
        return LocalStore(db, name)
    if type(db).__module__.partition(".")[0] == "astrapy":
        from astrapy import AsyncDatabase, Database

        from late_interaction.stores.astra.store import AstraStore

        if isinstance(db, AsyncDatabase | Database):
            return AstraStore(db, name, filterable=filterable)
    raise TypeError(
        f"db must be a folder (str or Path), an astrapy database or a Store, not {type(db).__name__}."
    )


def _copy_target(other: str | Path | Store, source: Store) -> Store:
    if isinstance(other, Store):
        return other
    return LocalStore(other, source.name)


def _check_doc_ids(doc_ids: Sequence[DocId]) -> list[str]:
    if isinstance(doc_ids, str):
        raise TypeError(f"pass a list of ids, not a bare str: [{doc_ids!r:.40}].")
    return [check_doc_id(doc_id) for doc_id in doc_ids]
