"""The async API for callers that are not async, or that use many event loops: one private loop does all I/O.

Clients of databases belong to the event loop that opened their connections. `LoopPortal` keeps one loop alive
on a thread of its own, so that a client on it serves plain scripts, notebooks (whose loop is running already),
threads, several `asyncio.run` in a row, and servers with more than one loop. `SyncPipeline` is the pipeline on
such a loop.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import queue
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from numpy.typing import ArrayLike

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import LateInteractionError
from late_interaction.images.storing import StoreImages
from late_interaction.pipeline import FilterSpec, LateInteractionPipeline, Query
from late_interaction.rows import Row
from late_interaction.stores.base import Store
from late_interaction.types import DocId, Document, FloatMatrix, IndexedIds, PackingDtype, SearchResults

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database

P = ParamSpec("P")
T = TypeVar("T")


class LoopPortal:
    """A private event loop on its own daemon thread, which anyone may run coroutines on.

    The thread starts with the first call and ends with `close()` or with the interpreter. What is run sees the
    caller's context variables; a caller that is cancelled or interrupted cancels what it ran.

    In a process that was forked, the portal starts a new thread and loop, and `generation` is one higher: what
    was opened on the old loop is the parent's and must be opened again.

    Attributes:
        generation: counts the forks since the portal was made.
    """

    def __init__(self) -> None:
        self.generation = 0
        self._closed = False
        self._inherited: list[object] = []
        self._renew()
        _portals.add(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None

    def submit(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `function(*args, **kwargs)` on the portal's loop, without waiting for what it returns.

        Raises:
            LateInteractionError: the portal is closed.
        """

        async def call() -> T:
            return await function(*args, **kwargs)

        # The lock puts this before or after `close`: what is submitted before it is there to be cancelled.
        with self._lock:
            loop = self._start().loop
            return asyncio.run_coroutine_threadsafe(call(), loop)

    def run(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` on the portal's loop and wait for what it returns.

        Inside a running event loop this blocks that loop, which a notebook can bear and a server cannot.

        Raises:
            LateInteractionError: the portal is closed, or the caller is on the portal's own loop.
        """
        self.check_not_inside()
        return self.wait_for(self.submit(function, *args, **kwargs))

    def wait_for(self, future: Future[T]) -> T:
        """Wait for what was submitted; an interrupt cancels it."""
        try:
            return future.result()
        except CancelledError:
            self._check_open()
            raise
        except BaseException:
            future.cancel()
            raise

    async def arun(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function(*args, **kwargs)` on the portal's loop and await what it returns, from any loop.

        Raises:
            LateInteractionError: the portal is closed.
        """
        if self._is_inside():
            return await function(*args, **kwargs)
        if self._running is None:
            # To start a thread is to wait for it, so that is not done on the caller's loop.
            await asyncio.to_thread(self._start_locked)
        try:
            return await asyncio.wrap_future(self.submit(function, *args, **kwargs))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():  # It is not the caller that was cancelled.
                self._check_open()
            raise

    def close(self) -> None:
        """Cancel what is running, end the loop and its thread; may be called twice.

        Raises:
            LateInteractionError: the caller is on the portal's own loop.
        """
        self.check_not_inside()
        with self._lock:
            already, self._closed = self._closed, True
            if self._running is not None and not already:
                self._running.loop.call_soon_threadsafe(self._running.stop.set)
        if self._running is not None:
            self._running.thread.join()

    async def aclose(self) -> None:
        """`close`, without blocking the caller's event loop."""
        self.check_not_inside()
        await asyncio.to_thread(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def check_not_inside(self) -> None:
        """Raise if the caller is on the portal's own loop, where waiting for the portal would never end.

        Raises:
            LateInteractionError: it is.
        """
        if self._is_inside():
            raise LateInteractionError(
                "A sync method was called on the event loop that it would have to wait for. "
                "Await the async method there instead."
            )

    def _is_inside(self) -> bool:
        return self._running is not None and self._running.thread is threading.current_thread()

    def _check_open(self) -> None:
        if self._closed:
            raise LateInteractionError("The portal is closed; its event loop has ended.") from None

    def _start_locked(self) -> None:
        with self._lock:
            self._start()

    def _start(self) -> _Running:
        """The loop, started if need be; for a caller that holds the lock."""
        self._check_open()
        if self._running is None:
            started: Future[_Running] = Future()
            name = "late-interaction-portal"
            threading.Thread(target=_serve, args=(started,), name=name, daemon=True).start()
            self._running = started.result()
        return self._running

    def _after_fork(self) -> None:
        # To free the parent's loop here would unregister the parent's sockets from the poll both share.
        self._inherited.append(self._running)
        self._renew()
        self.generation += 1


@dataclass(frozen=True, slots=True)
class _Running:
    """A loop that runs on a thread until `stop` is set."""

    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event


def _serve(started: Future[_Running]) -> None:
    """A portal's thread: run a loop until told to stop, then cancel what is left on it."""

    async def until_stopped() -> None:
        running = _Running(threading.current_thread(), asyncio.get_running_loop(), asyncio.Event())
        started.set_result(running)
        await running.stop.wait()

    try:
        asyncio.run(until_stopped())
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


class _SharedPortal:
    """The portal of all who bring none of their own; it is closed by the last one to release it."""

    def __init__(self) -> None:
        self.after_fork()
        self._portal: LoopPortal | None = None
        self._users = 0

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def acquire(self) -> LoopPortal:
        with self._lock:
            if self._portal is None:
                self._portal = LoopPortal()
            self._users += 1
            return self._portal

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._portal if self._users == 0 else None
            if last is not None:
                self._portal = None
        if last is not None:
            last.close()


class SyncPipeline:
    """`LateInteractionPipeline` for callers that are not async: the same methods, which return when done.

    The pipeline lives on a portal's event loop, so that its methods may be called from anywhere: without a loop,
    inside a running one (a notebook; they block it meanwhile), from many threads at once, and after a fork, where
    the child opens the index anew. Use it as a context manager, or call `initialize` and `close`.

    Code that must offer both kinds of methods, sync and async on any loop, awaits `arun` for the latter.

    Args:
        db: as for `LateInteractionPipeline`, and so are all others but `portal`.
        portal: where the pipeline lives, by default on the one portal that all of a process share. One given here
            stays open at `close`.
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
        portal: LoopPortal | None = None,
    ) -> None:
        self._make = partial(
            LateInteractionPipeline,
            db,
            model,
            base_table_name,
            doc_pool_factor=doc_pool_factor,
            query_pool_distance=query_pool_distance,
            packing=packing,
            concurrency=concurrency,
            filterable=filterable,
            store_images=store_images,
            allow_urls=allow_urls,
        )
        self._pipeline = self._make()
        self._inherited: list[LateInteractionPipeline] = []
        self._initialized = False
        self._to_reopen = False
        self._reopening = asyncio.Lock()
        self._closed = False
        self._shares_portal = portal is None
        self._portal = _shared.acquire() if portal is None else portal
        self._generation = self._portal.generation

    def __repr__(self) -> str:
        return f"SyncPipeline({self._pipeline!r})"

    @property
    def model(self) -> LateInteractionModel:
        """What encodes queries and documents."""
        return self._pipeline.model

    # --- running

    def run(self, use: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """Run `use(pipeline)` on the portal's loop and wait for what it returns.

        Raises:
            LateInteractionError: the pipeline is closed, or the caller is on the portal's own loop.
        """
        self._check_open()
        return self._portal.run(self._call, use)

    async def arun(self, use: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """Run `use(pipeline)` on the portal's loop and await what it returns, from any loop.

        Raises:
            LateInteractionError: the pipeline is closed.
        """
        self._check_open()
        return await self._portal.arun(self._call, use)

    def _check_open(self) -> None:
        if self._closed:
            raise LateInteractionError(f"{self!r} is closed; make a new one.")

    async def _call(self, use: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        self._check_open()
        return await use(await self._current())

    async def _current(self) -> LateInteractionPipeline:
        """The pipeline of this process, made and opened again where the one at hand is the parent's."""
        if self._generation != self._portal.generation:
            self._inherited.append(self._pipeline)  # Not freed: its connections are the parent's too.
            self._pipeline, self._generation = self._make(), self._portal.generation
            self._to_reopen, self._reopening = self._initialized, asyncio.Lock()
        if self._to_reopen:
            async with self._reopening:
                if self._to_reopen:
                    await self._pipeline.initialize()
                    self._to_reopen = False
        return self._pipeline

    # --- opening and closing

    def initialize(self) -> None:
        """As `LateInteractionPipeline.initialize`."""
        self.run(self._initialize)

    async def ainitialize(self) -> None:
        """`initialize`, to be awaited on any loop."""
        await self.arun(self._initialize)

    async def _initialize(self, pipeline: LateInteractionPipeline) -> None:
        await pipeline.initialize()
        self._initialized = True

    def close(self) -> None:
        """Let go of the store and the portal, for good; the model stays open. May be called twice."""
        self._portal.check_not_inside()
        if not self._closed:
            try:
                self.run(self._close)
            finally:
                self._release()

    async def aclose(self) -> None:
        """`close`, to be awaited on any loop but the portal's own."""
        self._portal.check_not_inside()
        if not self._closed:
            try:
                await self.arun(self._close)
            finally:
                await asyncio.to_thread(self._release)

    async def _close(self, pipeline: LateInteractionPipeline) -> None:
        await pipeline.aclose()

    def _release(self) -> None:
        already, self._closed = self._closed, True
        if self._shares_portal and not already:
            _shared.release()

    def __enter__(self) -> Self:
        try:
            self.initialize()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def clear(self) -> None:
        """As `LateInteractionPipeline.clear`."""
        self.run(lambda pipeline: pipeline.clear())

    def drop(self) -> None:
        """As `LateInteractionPipeline.drop`."""
        self.run(self._drop)

    async def _drop(self, pipeline: LateInteractionPipeline) -> None:
        await pipeline.drop()
        self._initialized = False

    # --- indexing

    def index_document(self, row: Row) -> str:
        """As `LateInteractionPipeline.index_document`."""
        return self.run(lambda pipeline: pipeline.index_document(row))

    def index_documents(
        self,
        rows: Iterable[Row],
        *,
        batch_size: int = 128,
        show_progress: bool = False,
        skip_existing: bool = False,
    ) -> IndexedIds:
        """As `LateInteractionPipeline.index_documents`.

        The rows are taken from the iterable in the caller's own thread, while it waits: a generator may block,
        use what belongs to its thread, or call this pipeline.
        """
        feed = _feed(rows, batch_size)
        return self._serve(
            feed,
            lambda pipeline: pipeline.index_documents(
                feed, batch_size=batch_size, show_progress=show_progress, skip_existing=skip_existing
            ),
        )

    def bulk_index_documents(
        self,
        rows: Iterable[Row],
        *,
        batch_size: int = 128,
        show_progress: bool = False,
        skip_existing: bool = False,
    ) -> IndexedIds:
        """Another name of `index_documents`."""
        return self.index_documents(
            rows, batch_size=batch_size, show_progress=show_progress, skip_existing=skip_existing
        )

    def _serve(self, feed: _Feed, use: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """`run`, and give it rows whenever it asks for some."""
        self._check_open()
        self._portal.check_not_inside()
        future = self._portal.submit(self._call, use)
        future.add_done_callback(lambda _: feed.end())
        try:
            feed.serve()
        except BaseException:
            future.cancel()
            raise
        return self._portal.wait_for(future)

    def index_embeddings(self, rows: Iterable[Row], matrices: Iterable[ArrayLike]) -> IndexedIds:
        """As `LateInteractionPipeline.index_embeddings`."""
        listed_rows, listed_matrices = list(rows), list(matrices)
        return self.run(lambda pipeline: pipeline.index_embeddings(listed_rows, listed_matrices))

    def optimize(self, *, show_progress: bool = False) -> None:
        """As `LateInteractionPipeline.optimize`."""
        self.run(lambda pipeline: pipeline.optimize(show_progress=show_progress))

    def copy_to(
        self,
        other: SyncPipeline | Store | str | Path,
        *,
        batch_size: int = 100,
        show_progress: bool = False,
        skip_existing: bool = False,
    ) -> int:
        """As `LateInteractionPipeline.copy_to`; another `SyncPipeline` must be on the same portal.

        Raises:
            ValueError: it is on another portal, and so on another event loop.
        """

        def copy(
            pipeline: LateInteractionPipeline, target: LateInteractionPipeline | Store | str | Path
        ) -> Awaitable[int]:
            return pipeline.copy_to(
                target, batch_size=batch_size, show_progress=show_progress, skip_existing=skip_existing
            )

        if not isinstance(other, SyncPipeline):
            return self.run(lambda pipeline: copy(pipeline, other))
        if other._portal is not self._portal:  # noqa: SLF001 - one of us
            raise ValueError("Both pipelines must be on one portal to copy; give them the same portal=.")
        with_other = other._call  # noqa: SLF001 - one of us
        return self.run(lambda pipeline: with_other(lambda target: copy(pipeline, target)))

    # --- searching

    def search(
        self,
        query: Query,
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> SearchResults:
        """As `LateInteractionPipeline.search`."""
        return self.run(
            lambda pipeline: pipeline.search(
                query,
                k,
                n_ann_tokens=n_ann_tokens,
                n_maxsim_candidates=n_maxsim_candidates,
                filter=filter,
                exact=exact,
            )
        )

    def search_many(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> list[SearchResults]:
        """As `LateInteractionPipeline.search_many`."""
        return self.run(
            lambda pipeline: pipeline.search_many(
                queries,
                k,
                n_ann_tokens=n_ann_tokens,
                n_maxsim_candidates=n_maxsim_candidates,
                filter=filter,
                exact=exact,
            )
        )

    def encode_queries(self, queries: Sequence[Query]) -> list[FloatMatrix]:
        """As `LateInteractionPipeline.encode_queries`."""
        return self.run(lambda pipeline: pipeline.encode_queries(queries))

    def search_with_embeddings(
        self,
        matrix: ArrayLike,
        k: int = 10,
        *,
        n_ann_tokens: int | None = None,
        n_maxsim_candidates: int | None = None,
        filter: FilterSpec | None = None,
        exact: bool = False,
    ) -> SearchResults:
        """As `LateInteractionPipeline.search_with_embeddings`."""
        return self.run(
            lambda pipeline: pipeline.search_with_embeddings(
                matrix,
                k,
                n_ann_tokens=n_ann_tokens,
                n_maxsim_candidates=n_maxsim_candidates,
                filter=filter,
                exact=exact,
            )
        )

    # --- documents

    def get_documents(self, doc_ids: Sequence[DocId]) -> list[Document]:
        """As `LateInteractionPipeline.get_documents`."""
        return self.run(lambda pipeline: pipeline.get_documents(doc_ids))

    def get_matrices(self, doc_ids: Sequence[DocId]) -> dict[str, FloatMatrix]:
        """As `LateInteractionPipeline.get_matrices`."""
        return self.run(lambda pipeline: pipeline.get_matrices(doc_ids))

    def find(self, filter: FilterSpec | None = None, *, limit: int | None = None) -> list[Document]:
        """As `LateInteractionPipeline.find`."""
        return self.run(lambda pipeline: pipeline.find(filter, limit=limit))

    def count(self, filter: FilterSpec | None = None) -> int:
        """As `LateInteractionPipeline.count`."""
        return self.run(lambda pipeline: pipeline.count(filter))

    def update_metadata(self, doc_id: DocId, metadata: Mapping[str, Any]) -> bool:
        """As `LateInteractionPipeline.update_metadata`."""
        return self.run(lambda pipeline: pipeline.update_metadata(doc_id, metadata))

    def delete_document(self, doc_id: DocId) -> bool:
        """As `LateInteractionPipeline.delete_document`."""
        return self.run(lambda pipeline: pipeline.delete_document(doc_id))

    def delete_documents(self, selection: Sequence[DocId] | FilterSpec) -> int:
        """As `LateInteractionPipeline.delete_documents`."""
        return self.run(lambda pipeline: pipeline.delete_documents(selection))


class _Feed:
    """Rows on their way from a caller's iterable, in the caller's thread, to a pipeline on a portal's loop."""

    def __init__(self, rows: Iterable[Row], batch_size: int) -> None:
        self._rows = iter(rows)
        self._batch_size = batch_size
        self._requests: queue.SimpleQueue[asyncio.Future[_Batch] | None] = queue.SimpleQueue()

    def serve(self) -> None:
        """Answer each request for rows until `end`."""
        while (request := self._requests.get()) is not None:
            batch = self._next()
            with suppress(RuntimeError):  # The loop may have ended meanwhile; whoever waits for it hears so.
                request.get_loop().call_soon_threadsafe(_answer, request, batch)

    def end(self) -> None:
        """No more rows are wanted."""
        self._requests.put(None)

    def _next(self) -> _Batch:
        rows: list[Row] = []
        try:
            rows.extend(islice(self._rows, self._batch_size))
        except Exception as error:  # noqa: BLE001 - the pipeline raises it, after the rows before it
            return _Batch(rows, error)
        return _Batch(rows, None)

    async def __aiter__(self) -> AsyncIterator[Row]:
        while True:
            request: asyncio.Future[_Batch] = asyncio.get_running_loop().create_future()
            self._requests.put(request)
            batch = await request
            for row in batch.rows:
                yield row
            if batch.error is not None:
                raise batch.error
            if len(batch.rows) < self._batch_size:
                return


class _SizedFeed(_Feed):
    """A feed whose number of rows is known."""

    def __init__(self, rows: Iterable[Row], batch_size: int, length: int) -> None:
        super().__init__(rows, batch_size)
        self._length = length

    def __len__(self) -> int:
        return self._length


@dataclass(frozen=True, slots=True)
class _Batch:
    """Some rows, the last ones where they are fewer than asked for, and what ended them if it was an error."""

    rows: list[Row]
    error: Exception | None


def _feed(rows: Iterable[Row], batch_size: int) -> _Feed:
    return _SizedFeed(rows, batch_size, len(rows)) if isinstance(rows, Sized) else _Feed(rows, batch_size)


def _answer(request: asyncio.Future[_Batch], batch: _Batch) -> None:
    if not request.done():
        request.set_result(batch)


_portals: weakref.WeakSet[LoopPortal] = weakref.WeakSet()
_shared = _SharedPortal()


def _close_all() -> None:
    for portal in list(_portals):
        portal.close()


def _after_fork() -> None:
    _shared.after_fork()
    for portal in list(_portals):
        portal._after_fork()  # noqa: SLF001 - this module's own


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):  # There is no fork on Windows.
    os.register_at_fork(after_in_child=_after_fork)
