"""LateInteractionPipeline: encode, pool, store; encode, pool, find candidates, score them exactly."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeAlias, Unpack, cast, overload

import numpy as np
from numpy.typing import ArrayLike

from late_interaction.encoders.base import (
    Item,
    LateInteractionModel,
    check_texts,
    encode_checked,
    warn_of_cut_queries,
)
from late_interaction.encoders.projection import restored
from late_interaction.errors import IndexMismatchError, IndexNotFoundError, StoreError
from late_interaction.explain.explaining import FoundBy, explain_document
from late_interaction.filters import Filter, parse_filter
from late_interaction.folders import FolderSync, ReadOptions, as_paths
from late_interaction.images.opening import load_image
from late_interaction.indexing import IndexingRun
from late_interaction.lifecycle import FirstUse
from late_interaction.metadata import MetadataChange
from late_interaction.options import (
    BATCH_SIZE,
    NUM_WORKERS,
    FilterSpec,
    IndexOptions,
    IndexSettings,
    RowOptions,
    RowSettings,
    SearchOptions,
    WriteOptions,
    WriteSettings,
    spelled_out,
)
from late_interaction.pacing import Items, Rows, each
from late_interaction.planning import SearchPlan
from late_interaction.pooling import POOLING_ALGORITHM
from late_interaction.reading.finding import find
from late_interaction.recipes import Remade
from late_interaction.row_fields import check_changed, check_filter_of_change, warn_of_filter
from late_interaction.rows import Row, as_row, check_doc_id, check_doc_ids
from late_interaction.sampling import QuerySampler
from late_interaction.searching import search
from late_interaction.stores.base import Store
from late_interaction.stores.copying import copy_index
from late_interaction.stores.opening import Place, copy_target, open_store
from late_interaction.syncing import SyncReport, sync_rows
from late_interaction.types import (
    DocId,
    Document,
    FloatMatrix,
    IndexedIds,
    IndexSpec,
    SearchResults,
)
from late_interaction.validation import check_flag, check_matrix, check_not_negative, shown

if TYPE_CHECKING:
    from PIL import Image

    from late_interaction.explain import Explanation

Query: TypeAlias = "str | Image.Image | Path | bytes"
"""A text, or an image: of Pillow, a path, or the bytes of a file. A str is always a text."""


class LateInteractionPipeline(Remade):
    """An index of documents by their token vectors, and searches in it.

    All methods that touch the index are coroutines; `SyncPipeline` has the same ones for callers without an event
    loop. The index is created, or attached to, at the first use; `initialize` does it at once. Use the pipeline as an
    async context manager, or call `aclose` at the end.

    Args:
        db: a folder for the embedded store (str or Path), "astra:NAME" in the database that the environment names, a
            database of astrapy (async or not), or any `Store`.
        model: encodes queries and documents.
        base_table_name: the index's name, "late_interaction" by default; not with a `Store` or "astra:NAME", which
            have their own.
        **options: see `IndexOptions`.

    Example:
        >>> import asyncio, tempfile
        >>> from late_interaction import LateInteractionPipeline, PrecomputedEmbeddings
        >>> async def main():
        ...     async with LateInteractionPipeline(tempfile.mkdtemp(), PrecomputedEmbeddings(2, "mine")) as pipeline:
        ...         rows = [{"doc_id": "x", "content": "along x"}, {"doc_id": "y", "content": "along y", "year": 2001}]
        ...         await pipeline.index_embeddings(rows, [[[1, 0]], [[0, 1]]])
        ...         for doc_id, score, content in await pipeline.search_with_embeddings([[0, 1]], k=1):
        ...             print(doc_id, round(score), content)
        ...         return await pipeline.count({"year": {"$gte": 2000}})
        >>> asyncio.run(main())
        y 1 along y
        1

        With a model that encodes, rows go in by `index_documents` and texts are looked for by `search`:
        `LateInteractionPipeline("my_index", ColBERTModel("answerdotai/answerai-colbert-small-v1"))`.
    """

    @spelled_out(IndexOptions)
    def __init__(
        self,
        db: Place,
        model: LateInteractionModel,
        base_table_name: str | None = None,
        **options: Unpack[IndexOptions],
    ) -> None:
        if not isinstance(model, LateInteractionModel):
            raise TypeError(
                f"model must be a LateInteractionModel such as ColBERTModel({shown(model)}), not "
                f"{type(model).__name__}."
            )
        if db is None:
            raise TypeError("db must be a folder, an astrapy database or a Store, not None.")
        self.settings = IndexSettings.of(options)
        self.model = model
        self.store = open_store(
            db,
            base_table_name,
            filterable=self.settings.filterable,
            candidates=self.settings.candidates,
            lexical=self.settings.lexical,
            retry_for_s=self.settings.retry_for_s,
        )
        self.store.use_query_encoder(QuerySampler(lambda: self.model))
        self._first_use = FirstUse(self._open)
        self._closed = False
        # An asyncio.Semaphore belongs to one event loop; a pipeline on a store that allows it may serve several.
        self._semaphores: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"LateInteractionPipeline({self.store!r}, {self.model!r})"

    @property
    def spec(self) -> IndexSpec:
        """The spec that this pipeline builds an index with."""
        return self._spec_with(self.model)

    def _spec_with(self, model: LateInteractionModel) -> IndexSpec:
        factor = float(self.settings.doc_pool_factor)
        pooling = {
            "algorithm": POOLING_ALGORITHM if factor > 1 else "none",
            "factor": factor,
            "protected_tokens": model.protected_tokens,
        }
        return IndexSpec(model.dim, dict(model.fingerprint), pooling, self.settings.packing)

    def _check_spec(self, spec: IndexSpec, location: str) -> None:
        """Check that this pipeline can open an index that was built with this spec, at `location`.

        Raises:
            IndexMismatchError: it cannot.
        """
        if differences := spec.differences(self._spec_with(self._model_for(spec))):
            raise IndexMismatchError(location, differences)

    def _model_for(self, spec: IndexSpec) -> LateInteractionModel:
        """Return this pipeline's model as an index knows it, which may hold a projection of it."""
        return restored(self.model, spec.encoder)

    # --- opening and closing

    async def initialize(self) -> None:
        """Create the index, or attach to the existing one. May be called twice, and after `aclose` and `drop`.

        Where the index holds a projection (`fit_projection`) of this pipeline's model, `model` becomes the projected
        one.

        Raises:
            IndexMismatchError: the existing index was built with another model, pooling or packing.
            IndexNotFoundError: there is no index, and `must_exist=True`.
        """
        self._closed = False
        await self._first_use.again()

    async def _open(self) -> None:
        if self.settings.must_exist and await self.store.spec() is None:
            await self.store.close()
            raise IndexNotFoundError(
                f"There is no index {self.store.location}, and must_exist=True makes none."
            )
        try:
            await self.store.open(self.spec)
        except IndexMismatchError:
            spec = await self.store.spec()
            model = self.model if spec is None else self._model_for(spec)
            if model is self.model:
                await self.store.close()
                raise
            self.model = model
            await self.store.open(self.spec)

    async def _opened(self) -> Store:
        """Return the store, open."""
        if self._closed:
            raise StoreError(f"{self!r} is closed: call initialize() to open it again.")
        await self._first_use()
        return self.store

    async def aclose(self) -> None:
        """Close the store; the model is yours and stays open. May be called twice."""
        self._closed = True
        await self._first_use.instead(self.store.close)

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
        await (await self._opened()).clear()

    async def drop(self) -> None:
        """Delete the index, also one that was built with other settings; the next use makes a new one."""
        await self._first_use.instead(self.store.drop)

    # --- indexing

    @spelled_out(RowOptions, ids="content")
    async def add(self, items: Items[str | Row], **options: Unpack[RowOptions]) -> IndexedIds:
        """Index texts and rows, as `index_documents` does; what has no id gets one made of its content.

        So a call that is done again, as a notebook's cell is, adds nothing twice.

        Args:
            items: an iterable or async iterable of texts, and of rows as for `index_document`.
            **options: as for `index_documents`; only the default of `ids` differs.

        Returns:
            The id of each item, in order, as `index_documents` does.

        Raises:
            DocumentError: some could not be indexed; it names each.
        """
        options.setdefault("ids", "content")
        if isinstance(items, Sequence) and not isinstance(items, str | bytes):
            return await self.index_documents([as_row(item) for item in items], **options)
        return await self.index_documents((as_row(item) async for item in each(items)), **options)

    async def index_document(self, row: Row) -> str:
        """Index one row, replacing the document of the same id.

        Args:
            row: `{"content": str, "doc_id"?: str | UUID | int, …metadata}`, or a `Document`; metadata take their
                plain form (see `late_interaction.metadata`). A blank content is stored, and no search finds it. With a
                visual model `{"image": …}` in place of the content or beside it: a PIL image, a path, bytes, base64, a
                data URI, a URL (with `allow_urls`), or a page of `pdf_pages`. The content is then a caption, by default
                the image's path or size, and is not encoded.

        Returns:
            The document's id.

        Raises:
            DocumentError: the row cannot be indexed; it says why.
        """
        return (await self.index_documents([row]))[0]

    @spelled_out(RowOptions)
    async def index_documents(self, rows: Rows, **options: Unpack[RowOptions]) -> IndexedIds:
        """Index rows, each replacing the document of the same id.

        Rows are taken from the iterable a batch at a time, and while one batch is encoded the last one is
        written, so memory is bounded by the batch. Where an id comes twice, the last row wins. An interrupted run
        can be run again: what was written stays.

        Args:
            rows: an iterable or async iterable of rows, as for `index_document`.
            **options: `batch_size`, `show_progress`, `skip_existing`, `on_error`, `ids` and `num_workers`; see
                `RowOptions`.

        Returns:
            The id of each row, in order: a list, whose `.truncated` says by id how much of a document was too long for
            the model and was not encoded. With `on_error="skip"` its `.failures` says what was left out.

        Raises:
            DocumentError: some rows could not be indexed; it names each. The others are in the index, unless
                `on_error="raise"` kept them out.
            StoreError: the store failed; batches written before are in the index, and its `.indexed` has their ids.
            Exception: what the rows or the model raised, with `.indexed` likewise and a note that says so.
        """
        return await self._index(rows, None, options)

    @spelled_out(RowOptions)
    async def index_embeddings(
        self,
        rows: Rows,
        matrices: Items[ArrayLike],
        **options: Unpack[RowOptions],
    ) -> IndexedIds:
        """Index rows whose token vectors were made elsewhere; they are pooled as encoded ones are.

        Args:
            rows: as for `index_documents`.
            matrices: for each row (n_tokens, dim) unit rows, n_tokens ≥ 1.
            **options: as for `index_documents`.

        Returns:
            The id of each row, in order.

        Raises:
            DocumentError: some rows could not be indexed; it names each, and the others are in the index.
            ValueError: there are more rows than matrices, or fewer.
        """
        return await self._index(rows, matrices, options)

    async def _index(
        self,
        rows: Rows,
        matrices: Items[ArrayLike] | None,
        options: RowOptions,
    ) -> IndexedIds:
        settings = RowSettings.of(options)
        store = await self._opened()
        return await IndexingRun(self.model, store, self._in_flight(), self.settings, settings).index(
            rows, matrices
        )

    async def sync(
        self,
        source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Rows,
        *,
        prune: bool = False,
        scope: str | None = None,
        root: str | os.PathLike[str] | None = None,
        exclude: Sequence[str] = (),
        gitignore: bool = True,
        reading: ReadOptions | None = None,
        batch_size: int = BATCH_SIZE,
        show_progress: bool = False,
        num_workers: int = NUM_WORKERS,
    ) -> SyncReport:
        """Bring the index in step with files or rows: only what is new or changed is encoded.

        Files are compared by a hash of their bytes, and only changed ones are read; rows are compared with what is
        stored. Changed metadata alone are written without encoding. A call that was interrupted goes on where it was.

        Args:
            source: a file or folder, or several; or an iterable or async iterable of rows that have ids.
            prune: delete what is removed: the documents of this scope that are no longer among the files or rows.
                Documents of other scopes, and those that other methods wrote, are never removed.
            scope: tells these files or rows from others in the index. By default rows are in one scope together,
                and those of a folder in its own, also when it was moved.
            root: ids and sources of files are relative to it; by default to each folder that is given.
            exclude: patterns of files to leave out, as in .gitignore.
            gitignore: leave out what .gitignore files name.
            reading: how files are read, such as `ReadOptions(dpi=200)`.
            batch_size: as for `index_documents`.
            show_progress: show a progress bar.
            num_workers: as for `index_documents`.

        Returns:
            What is new, changed, unchanged and removed, and what failed: nothing is raised for a bad row or file.

        Raises:
            ValueError: a path does not exist or is outside of the root, or there is nothing to read.
        """
        paths = as_paths(source)
        settings = RowSettings(
            batch_size, show_progress=show_progress and paths is None, num_workers=num_workers
        )
        check_flag("prune", prune)
        store = await self._opened()
        index = IndexingRun(self.model, store, self._in_flight(), self.settings, settings).index
        if paths is None:
            return await sync_rows(store, index, cast("Rows", source), scope or "", prune=prune)
        found = await asyncio.to_thread(find, paths, exclude=exclude, gitignore=gitignore)
        folder = await asyncio.to_thread(
            FolderSync,
            paths,
            found,
            images=self.model.supports_images,
            root=None if root is None else Path(root),
            scope=scope,
            reading=reading,
        )
        await folder.compare(store)
        return await folder.run(store, index, self.model, prune=prune, show_progress=show_progress)

    async def optimize(self, *, show_progress: bool = False, refit: bool = False) -> dict[str, Any]:
        """Bring the store's search structures up to date; `index_documents` does so at its end.

        Args:
            show_progress: show a progress bar.
            refit: fit document vectors anew too, as `fit_candidates` does.

        Returns:
            What was done; a folder tells by how much it shrank (`freed_bytes`).

        Raises:
            StoreError: `refit` where there are no document vectors.
        """
        check_flag("refit", refit)
        store = await self._opened()
        fitted = await store.fit_candidates(show_progress=show_progress) if refit else {}
        return {**await store.optimize(show_progress=show_progress), **fitted}

    async def fit_candidates(
        self, sample: Sequence[Query] | None = None, *, show_progress: bool = False
    ) -> dict[str, Any]:
        """Fit the document vectors of an index on Astra to what is in it by now, and write them all anew.

        It happens by itself at 300 documents; nothing is encoded again but the sample. Searches go on meanwhile.

        Args:
            sample: queries as they are expected, some hundreds; by default the documents' own texts.
            show_progress: show a progress bar over the documents.

        Returns:
            `fitted` and `vectors`, how many were written.

        Raises:
            StoreError: the index is not on Astra with `candidates="documents"`, or has no document with vectors.
            ValueError: a query of the sample is empty, or cannot be encoded.
        """
        store = await self._opened()
        tokens = None if sample is None else np.concatenate(await self.encode_queries(sample))
        return await store.fit_candidates(tokens, show_progress=show_progress)

    @spelled_out(WriteOptions)
    async def copy_to(
        self, other: LateInteractionPipeline | Store | str | Path, **options: Unpack[WriteOptions]
    ) -> int:
        """Copy every document with its vectors into another index; nothing is encoded again.

        Args:
            other: where to; created if it does not exist. A pipeline or store stays open; a folder or "astra:NAME" is
                closed at the end. In a folder the copy gets this index's name.
            **options: see `WriteOptions`. With `skip_existing` a copy that was interrupted goes on.

        Returns:
            How many documents were written.

        Raises:
            DocumentError: the other index does not take some documents; all others are copied.
            IndexMismatchError: the other index exists and was built with other settings.
            ValueError: the other index is this one, or `batch_size` is below 1.
        """
        settings = WriteSettings.of(options)
        source = await self._opened()
        if isinstance(other, LateInteractionPipeline):
            return await copy_index(source, other.store, settings, check=other._check_spec)  # noqa: SLF001 - one of us
        target = copy_target(other, source)
        try:
            return await copy_index(source, target, settings)
        finally:
            if target is not other:
                await target.close()

    # --- searching

    @spelled_out(SearchOptions)
    async def search(self, query: Query, k: int = 10, **options: Unpack[SearchOptions]) -> SearchResults:
        """Find the `k` documents with the highest MaxSim, best first; by `mode`, also by the words of the query.

        Stage 1 finds candidates by their token vectors, stage 2 scores the candidates exactly. Where fewer than
        `k` come back and the store has more, stage 1 is done again with larger parameters.

        Args:
            query: what to look for: a text, or with a visual model an image, as a PIL image, a `Path` or bytes. A str
                is always a text.
            k: how many documents, at least 1.
            **options: `n_ann_tokens`, `n_maxsim_candidates`, `filter`, `ids`, `exact`, `group_by`, `distinct`,
                `offset`, `mode` and `lexical_weight`; see `SearchOptions`.

        Returns:
            Results that unpack as `doc_id, score, content`; `.stats` says how the search went.

        Raises:
            ValueError: the query is empty, or an image that cannot be read or that the model does not encode, or a
                number is out of range.
            FilterError: the filter is not well formed.
            StoreError: words are searched for, and there is no index of them.
        """
        return (await self.search_many([query], k, **options))[0]

    @spelled_out(SearchOptions)
    async def search_many(
        self, queries: Sequence[Query], k: int = 10, **options: Unpack[SearchOptions]
    ) -> list[SearchResults]:
        """Do `search` for several queries: they are encoded together, and searched `concurrency` at a time."""
        queries = _listed(queries)
        asked = SearchPlan.of(
            k, options, self.store.scaling
        )  # What is wrong is said before anything is encoded.
        texts = [query if isinstance(query, str) else None for query in queries]
        started = time.perf_counter()
        if asked.mode == "lexical":
            items = await self._query_items(queries)
            check_texts([item for item in items if isinstance(item, str)], "query")
            matrices = [np.empty((0, self.model.dim), np.float32)] * len(texts)
        else:
            matrices = await self.encode_queries(queries)
        encode_s = (time.perf_counter() - started) / max(1, len(matrices))
        plan = SearchPlan.of(k, {**options, "ids": asked.ids}, (await self._opened()).scaling)
        searches = map(self._search, matrices, repeat(plan), repeat(encode_s), texts)
        return list(await asyncio.gather(*searches))

    @spelled_out(SearchOptions)
    async def search_with_embeddings(
        self, matrix: ArrayLike, k: int = 10, *, text: str | None = None, **options: Unpack[SearchOptions]
    ) -> SearchResults:
        """Do `search` for a query whose (n_tokens, dim) unit vectors were made elsewhere; `text` has its words.

        A search by words needs them (`mode="hybrid"`, "lexical"). Others find by them documents with a rare word.
        """
        # What is wrong is said before anything is opened.
        asked = SearchPlan.of(k, options, self.store.scaling)
        if text is not None:
            check_texts([text], "query")
        checked = check_matrix(matrix, self.model.dim)
        plan = SearchPlan.of(k, {**options, "ids": asked.ids}, (await self._opened()).scaling)
        return await self._search(checked, plan, words=text)

    async def _search(
        self,
        matrix: FloatMatrix,
        plan: SearchPlan,
        encode_s: float = 0.0,
        text: str | None = None,
        words: str | None = None,
    ) -> SearchResults:
        """Search by vectors, and by the text that they were made of or, of vectors made elsewhere, these words."""
        store, distance = await self._opened(), self.settings.query_pool_distance
        async with self._in_flight():
            results = await store.together(
                lambda: search(
                    store, matrix, plan, query_pool_distance=distance, encode_s=encode_s, text=text or words
                )
            )
        if not results:
            await warn_of_filter(store, plan.filter)
        return results.found_by(FoundBy(self, matrix, text))

    async def explain(self, query: Query, doc_id: DocId, *, text: str | None = None) -> Explanation:
        """Tell which words of a document, or which parts of an image, gave it its score for a query.

        The contributions are made of the stored vectors, and add up to the score of a search. The document is encoded
        once more, to learn which of its tokens were pooled into each stored vector; an image is read again for it.

        Args:
            query: as for `search`.
            doc_id: the document, found by a search or not.
            text: the text that was encoded, where it is not the document's content.

        Returns:
            An explanation; its `notes` tell of pooling, and why something is not known.

        Raises:
            ValueError: there is no such document, or it is blank, so that no search finds it.
        """
        (matrix,) = await self.encode_queries([query])
        return await self._explain(
            matrix, query if isinstance(query, str) else None, check_doc_id(doc_id), text
        )

    async def _explain(
        self, matrix: FloatMatrix, query: str | None, doc_id: str, text: str | None = None
    ) -> Explanation:
        asked = matrix, query, self.settings
        return await explain_document(self.model, await self._opened(), asked, doc_id, text)

    async def encode_queries(self, queries: Sequence[Query]) -> list[FloatMatrix]:
        """Return the (n_tokens, dim) float32 matrices of queries that `search` uses, for `search_with_embeddings`.

        Raises:
            ValueError: a query is empty, or an image that cannot be read or that the model does not encode.
        """
        items = await self._query_items(_listed(queries))
        matrices, shares = await encode_checked(self.model, items, "query")
        warn_of_cut_queries(self.model, shares)
        return matrices

    async def _query_items(self, queries: Sequence[Query]) -> Sequence[Item]:
        """Return the queries with their images loaded."""
        if all(isinstance(query, str) for query in queries):
            return cast("Sequence[str]", queries)
        if not self.model.supports_images:
            position, query = next(
                (i, query) for i, query in enumerate(queries) if not isinstance(query, str)
            )
            raise ValueError(
                f"the query at position {position} is not a str but {type(query).__name__}, and "
                f"{self.model.model_name} encodes text."
            )

        def load() -> list[Item]:
            return [query if isinstance(query, str) else load_image(query) for query in queries]

        return await asyncio.to_thread(load)

    # --- documents

    async def get_documents(self, doc_ids: Sequence[DocId]) -> list[Document]:
        """Return the documents of these ids, in their order; ids that are not in the index are left out."""
        checked = check_doc_ids(doc_ids)
        return await (await self._opened()).documents(checked)

    async def get_matrices(self, doc_ids: Sequence[DocId]) -> dict[str, FloatMatrix]:
        """Return the token vectors of these documents, as stored: pooled, and rounded by the packing.

        Returns:
            (n_tokens, dim) float32 by id, in the order asked; ids that are not in the index are left out.
        """
        checked = list(dict.fromkeys(check_doc_ids(doc_ids)))
        there, tokens = await (await self._opened()).matrices(checked)
        return {doc_id: tokens.matrix(position) for position, doc_id in enumerate(there)}

    async def find(
        self, filter: FilterSpec | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Return documents by metadata alone: those that match, in the order they were written; all by default.

        With a `limit` a folder gives those written first, and Astra those that it comes upon first. `offset` leaves out
        as many before them: pages of both hold each document once, while nothing is written.
        """
        parsed = parse_filter(filter)
        if limit is not None:
            limit = check_not_negative("limit", limit)
        offset = check_not_negative("offset", offset)
        store = await self._opened()
        found = await store.find(parsed, limit=limit, offset=offset)
        if not found:
            await warn_of_filter(store, parsed)
        return found

    async def count(self, filter: FilterSpec | None = None) -> int:
        """Return how many documents there are (that match)."""
        parsed = parse_filter(filter)
        return await (await self._opened()).count(parsed)

    @overload
    async def update_metadata(
        self,
        doc_id: DocId,
        metadata: Mapping[str, Any] | None = None,
        *,
        remove: Collection[str] = (),
        replace: bool = False,
    ) -> bool: ...
    @overload
    async def update_metadata(
        self,
        doc_id: None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        filter: FilterSpec,
        remove: Collection[str] = (),
        replace: bool = False,
    ) -> int: ...
    async def update_metadata(
        self,
        doc_id: DocId | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        filter: FilterSpec | None = None,
        remove: Collection[str] = (),
        replace: bool = False,
    ) -> int:
        """Change the metadata of a document, or of all that match a filter; content and vectors stay.

        A folder changes all documents of a call or none. On Astra some may be changed if it fails.

        Args:
            doc_id: the document; not with `filter`.
            metadata: keys to set; the others stay.
            filter: change every document that matches.
            remove: keys to take away.
            replace: take away all keys but those of `metadata`.

        Returns:
            Of a `doc_id`, whether there is such a document; of a `filter`, how many matched.

        Raises:
            ValueError: a value has no plain form, there is nothing to do, or not one of `doc_id` and `filter` is given;
                or `metadata` has `content` or another field of a row that is no metadata.
            FilterError: the filter takes such a field for metadata.
        """
        change = MetadataChange.of(metadata, remove, replace)
        if (doc_id is None) == (filter is None):
            raise ValueError("give either doc_id or filter, to say which documents change.")
        selection = check_doc_id(doc_id) if filter is None else parse_filter(filter)
        if selection is None:
            raise ValueError(
                'An empty filter would change every document; if that is meant: {"$content": {"$exists": True}}.'
            )
        store = await self._opened()
        await check_changed(store, change.values)
        if isinstance(selection, Filter):
            await check_filter_of_change(store, selection)
        return await store.update_metadata(selection, change)

    async def delete_document(self, doc_id: DocId) -> bool:
        """Delete one document; return False where there is none of this id."""
        checked = check_doc_id(doc_id)
        return await (await self._opened()).delete([checked]) == 1

    async def delete_documents(self, selection: Sequence[DocId] | FilterSpec) -> int:
        """Delete documents by id, or all that match a filter.

        Returns:
            How many there were.

        Raises:
            ValueError: the filter is empty; `clear` deletes everything.
            FilterError: it takes `doc_id` or another field of a row for metadata, and so matches what is not meant.
        """
        if isinstance(selection, Mapping | Filter):
            matching = parse_filter(selection)
            if matching is None:
                raise ValueError(
                    "An empty filter would delete every document: call clear() if that is meant."
                )
            store = await self._opened()
            await check_filter_of_change(store, matching)
            return await store.delete(matching)
        checked = check_doc_ids(selection)
        return await (await self._opened()).delete(checked)

    def _in_flight(self) -> asyncio.Semaphore:
        """Return the places in flight of the running event loop, `concurrency` of them."""
        loop = asyncio.get_running_loop()
        return self._semaphores.setdefault(loop, asyncio.Semaphore(self.settings.concurrency))


def _listed(queries: Iterable[Query]) -> list[Query]:
    """Return the queries as a list; refuse what gives its letters, its keys or its columns."""
    if isinstance(queries, str | bytes):
        raise TypeError(f"pass a list of queries, not a bare {type(queries).__name__}: [{shown(queries)}].")
    if isinstance(queries, Mapping) or hasattr(queries, "columns"):
        raise TypeError(
            f"pass a list of queries, not a {type(queries).__name__}, which would give its keys: such as "
            "list(queries.values())."
        )
    return list(queries)
