"""SyncPipeline: the pipeline for callers that are not async, or that use many event loops."""

from __future__ import annotations

import asyncio
import functools
import inspect
import textwrap
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, Unpack, overload

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import LateInteractionError, PickleError
from late_interaction.feeds import Feeds
from late_interaction.lifecycle import Closable
from late_interaction.options import FilterSpec, IndexOptions, WriteOptions, spelled_out
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.portal import LoopPortal, shared_portal
from late_interaction.recipes import Remade
from late_interaction.stores.base import Store
from late_interaction.stores.opening import Place
from late_interaction.types import DocId, Found, SearchResult, SearchResults

if TYPE_CHECKING:
    from late_interaction.explain import Explanation

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

_TAKEN_TOGETHER = 16
"""Rows that are taken from a caller's iterator at a time, ahead of the pipeline."""


def _synced(
    method: Callable[Concatenate[LateInteractionPipeline, P], Awaitable[T]], example: str = ""
) -> Callable[Concatenate[SyncPipeline, P], T]:
    """Make a sync method of an async one, with its signature, docstring and types, and an example of its own."""

    @functools.wraps(method)
    def call(self: SyncPipeline, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(lambda pipeline: method(pipeline, *args, **kwargs))

    return _exemplified(call, example)


def _feeding(
    method: Callable[Concatenate[LateInteractionPipeline, P], Awaitable[T]], example: str = ""
) -> Callable[Concatenate[SyncPipeline, P], T]:
    """Make a sync method of an async one that takes rows, as `_synced` does.

    Iterators are advanced in the caller's own thread, while it waits: a generator may block, use what belongs to its
    thread, or call the pipeline.
    """

    @functools.wraps(method)
    def call(self: SyncPipeline, /, *args: P.args, **kwargs: P.kwargs) -> T:
        size = kwargs.get("batch_size")
        feeds = Feeds(min(size, _TAKEN_TOGETHER) if isinstance(size, int) and size > 0 else _TAKEN_TOGETHER)
        fed: tuple[Any, ...] = tuple(map(feeds.feed, args))
        named: dict[str, Any] = {name: feeds.feed(value) for name, value in kwargs.items()}
        return self._serve(feeds, lambda pipeline: method(pipeline, *fed, **named))

    return _exemplified(call, example)


def _searching(
    method: Callable[Concatenate[LateInteractionPipeline, P], Awaitable[T]], example: str = ""
) -> Callable[Concatenate[SyncPipeline, P], T]:
    """Make a sync method of an async one that searches: its results are explained without `await`."""

    @functools.wraps(method)
    def call(self: SyncPipeline, /, *args: P.args, **kwargs: P.kwargs) -> T:
        found = self.run(lambda pipeline: method(pipeline, *args, **kwargs))
        lists: Any = [found] if isinstance(found, SearchResults) else found
        for results in lists:
            for result in results:
                results.found_by(_FoundSync(self, result._search()))  # noqa: SLF001 - one of us
                break
        return found

    return _exemplified(call, example)


@dataclass(frozen=True, slots=True)
class _FoundSync:
    """A search of a sync pipeline, for its results to be explained by."""

    pipeline: SyncPipeline
    search: Found

    def explain(self, result: SearchResult) -> Explanation:
        return self.pipeline.run(lambda _: self.search.aexplain(result))

    async def aexplain(self, result: SearchResult) -> Explanation:
        return await self.pipeline.arun(lambda _: self.search.aexplain(result))

    def to_html(self, results: SearchResults) -> str:
        return self.search.to_html(results)


def _exemplified(call: F, example: str) -> F:
    """Add an example to a function's docstring."""
    if example:
        code = textwrap.indent(textwrap.dedent(example).strip(), "    ")
        call.__doc__ = f"{inspect.getdoc(call)}\n\nExample:\n{code}\n"
    return call


class SyncPipeline(Closable, Remade):
    """`LateInteractionPipeline` for callers that are not async: the same methods, which return when done.

    The pipeline lives on a portal's event loop, so that its methods may be called from anywhere: without a loop,
    inside a running one (a notebook; they block it meanwhile), from many threads at once, and after a fork, where
    the child opens the index anew. Use it as a context manager, or call `close` at the end.

    Code that offers both kinds of methods, sync and async on any loop, awaits `arun` for the latter.

    Args:
        db: as for `LateInteractionPipeline`, and so are all others but `portal`.
        model: encodes queries and documents.
        base_table_name: the index's name.
        portal: where the pipeline lives, by default on the one portal that all of a process share. One given here
            stays open at `close`.
        **options: see `IndexOptions`.

    Example:
        >>> import tempfile
        >>> from late_interaction import PrecomputedEmbeddings, SyncPipeline
        >>> with SyncPipeline(tempfile.mkdtemp(), PrecomputedEmbeddings(2, "mine")) as pipeline:
        ...     rows = [{"doc_id": "x", "content": "along x"}, {"doc_id": "y", "content": "along y", "year": 2001}]
        ...     pipeline.index_embeddings(rows, [[[1, 0]], [[0, 1]]])
        ...     [(result.doc_id, round(result.score)) for result in pipeline.search_with_embeddings([[0, 1]], k=1)]
        ...     pipeline.find({"year": {"$gte": 2000}})[0].content
        ['x', 'y']
        [('y', 1)]
        'along y'
    """

    @spelled_out(IndexOptions)
    def __init__(
        self,
        db: Place,
        model: LateInteractionModel,
        base_table_name: str | None = None,
        *,
        portal: LoopPortal | None = None,
        **options: Unpack[IndexOptions],
    ) -> None:
        self._make = functools.partial(LateInteractionPipeline, db, model, base_table_name, **options)
        self._pipeline = self._make()
        self._inherited: list[LateInteractionPipeline] = []
        self._closed = False
        self._shares_portal = portal is None
        self._portal = shared_portal.acquire() if portal is None else portal
        self._generation = self._portal.generation

    def __repr__(self) -> str:
        return f"SyncPipeline({self._pipeline!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if not self._shares_portal:
            raise PickleError(
                f"{self!r} is on a portal of its own, which cannot be pickled. Make a new one where it is needed."
            )
        return super().__reduce__()

    @property
    def model(self) -> LateInteractionModel:
        """What encodes queries and documents."""
        return self._pipeline.model

    # --- running

    def run(self, operation: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """Run `operation(pipeline)` on the portal's loop and wait for what it returns.

        Raises:
            LateInteractionError: the pipeline is closed, or the caller is on the portal's own loop.
        """
        self._check_open()
        return self._portal.run(self._call, operation)

    async def arun(self, operation: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """Run `operation(pipeline)` on the portal's loop and await what it returns, from any loop.

        Raises:
            LateInteractionError: the pipeline is closed.
        """
        self._check_open()
        return await self._portal.arun(self._call, operation)

    def _serve(self, feeds: Feeds, operation: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        """Do `run`, and give it rows whenever it asks for some."""
        self._check_open()
        self._portal.check_not_inside()
        future = self._portal.submit(self._call, operation)
        future.add_done_callback(lambda _: feeds.end())
        try:
            feeds.serve()
        except BaseException:
            future.cancel()
            raise
        return self._portal.wait_for(future)

    def _check_open(self) -> None:
        if self._closed:
            raise LateInteractionError(f"{self!r} is closed; make a new one.")

    async def _call(self, operation: Callable[[LateInteractionPipeline], Awaitable[T]]) -> T:
        self._check_open()
        if self._generation != self._portal.generation:
            # In a forked child the pipeline is the parent's. It is not freed: its connections are the parent's too.
            self._inherited.append(self._pipeline)
            self._pipeline, self._generation = self._make(), self._portal.generation
        return await operation(self._pipeline)

    # --- opening and closing

    initialize = _synced(LateInteractionPipeline.initialize)

    def close(self) -> None:
        """Close the store and release the portal, for good; the model stays open. May be called twice."""
        self._portal.check_not_inside()
        if not self._closed:
            try:
                self.run(LateInteractionPipeline.aclose)
            finally:
                self._release()

    async def aclose(self) -> None:
        """Do `close`, awaited on any loop but the portal's own."""
        self._portal.check_not_inside()
        if not self._closed:
            try:
                await self.arun(LateInteractionPipeline.aclose)
            finally:
                await asyncio.to_thread(self._release)

    def _release(self) -> None:
        already, self._closed = self._closed, True
        if self._shares_portal and not already:
            shared_portal.release()

    def __enter__(self) -> Self:
        try:
            self.initialize()
        except BaseException:
            self.close()
            raise
        return self

    async def __aenter__(self) -> Self:
        try:
            await self.arun(LateInteractionPipeline.initialize)
        except BaseException:
            await self.aclose()
            raise
        return self

    clear = _synced(LateInteractionPipeline.clear)
    drop = _synced(LateInteractionPipeline.drop)

    # --- indexing

    add = _feeding(
        LateInteractionPipeline.add,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("my_index", model="demo")
        >>> ids = index.add(["Apple pie with cinnamon", {"content": "The tide comes in at noon", "year": 2021}])
        >>> index.add(["Apple pie with cinnamon"]) == ids[:1]
        True
        >>> index.count()
        2
        """,
    )
    index_document = _synced(LateInteractionPipeline.index_document)
    index_documents = _feeding(LateInteractionPipeline.index_documents)
    index_embeddings = _feeding(LateInteractionPipeline.index_embeddings)
    sync = _feeding(
        LateInteractionPipeline.sync,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("kept", model="demo")
        >>> rows = {"a": "Apple pie with cinnamon", "b": "The tide comes in at noon"}
        >>> print(index.sync([{"doc_id": key, "content": text} for key, text in rows.items()]))
        2 new, 0 changed, 0 unchanged, 0 removed
        >>> print(index.sync([{"doc_id": "a", "content": "Apple pie"}], prune=True))
        0 new, 1 changed, 0 unchanged, 1 removed
        """,
    )
    optimize = _synced(LateInteractionPipeline.optimize)
    fit_candidates = _synced(LateInteractionPipeline.fit_candidates)

    @spelled_out(WriteOptions)
    def copy_to(self, other: SyncPipeline | Store | str | Path, **options: Unpack[WriteOptions]) -> int:
        """Copy every document with its vectors into another index; nothing is encoded again.

        Args:
            other: as for `LateInteractionPipeline.copy_to`; another `SyncPipeline` must be on the same portal.
            **options: see `WriteOptions`. With `skip_existing` a copy that was interrupted goes on.

        Returns:
            How many documents were written.

        Raises:
            DocumentError: the other index does not take some documents; all others are copied.
            IndexMismatchError: the other index exists and was built with other settings.
            ValueError: the other index is this one or on another portal, or `batch_size` is below 1.
        """
        if not isinstance(other, SyncPipeline):
            return self.run(lambda pipeline: pipeline.copy_to(other, **options))
        if other._portal is not self._portal:  # noqa: SLF001 - one of us
            raise ValueError("Both pipelines must be on one portal to copy; give them the same portal=.")
        with_other = other._call  # noqa: SLF001 - one of us
        return self.run(lambda pipeline: with_other(lambda target: pipeline.copy_to(target, **options)))

    # --- searching

    search = _searching(
        LateInteractionPipeline.search,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("my_index", model="demo")
        >>> ids = index.add([{"content": "Apple pie", "year": 2021}, {"content": "Stewed pears", "year": 1999}])
        >>> for doc_id, score, content in index.search("a dessert of fruit", k=1, filter={"year": {"$lt": 2000}}):
        ...     print(content)
        Stewed pears
        """,
    )
    search_many = _searching(LateInteractionPipeline.search_many)
    search_with_embeddings = _searching(LateInteractionPipeline.search_with_embeddings)
    explain = _synced(
        LateInteractionPipeline.explain,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("my_index", model="demo")
        >>> [pie, tide] = index.add(["Apple pie with cinnamon", "The tide comes in at noon"])
        >>> explanation = index.explain("a dessert of apples", pie)
        >>> max(explanation.words, key=lambda word: word.contribution).text
        'Apple'
        >>> abs(sum(word.contribution for word in explanation.words) - explanation.score) < 1e-4
        True
        """,
    )
    encode_queries = _synced(LateInteractionPipeline.encode_queries)

    # --- documents

    get_documents = _synced(LateInteractionPipeline.get_documents)
    get_matrices = _synced(LateInteractionPipeline.get_matrices)
    find = _synced(
        LateInteractionPipeline.find,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("my_index", model="demo")
        >>> ids = index.add([{"content": "Apple pie", "year": 2021}, {"content": "Stewed pears", "year": 1999}])
        >>> [document.content for document in index.find({"year": {"$gte": 2000}})]
        ['Apple pie']
        """,
    )
    count = _synced(LateInteractionPipeline.count)
    if TYPE_CHECKING:

        @overload
        def update_metadata(
            self,
            doc_id: DocId,
            metadata: Mapping[str, Any] | None = None,
            *,
            remove: Collection[str] = (),
            replace: bool = False,
        ) -> bool: ...
        @overload
        def update_metadata(
            self,
            doc_id: None = None,
            metadata: Mapping[str, Any] | None = None,
            *,
            filter: FilterSpec,
            remove: Collection[str] = (),
            replace: bool = False,
        ) -> int: ...
        def update_metadata(self, *args: Any, **kwargs: Any) -> int:
            """Change the metadata of a document, or of all that match a filter."""
    else:
        update_metadata = _synced(LateInteractionPipeline.update_metadata)
    delete_document = _synced(LateInteractionPipeline.delete_document)
    delete_documents = _synced(
        LateInteractionPipeline.delete_documents,
        """
        >>> import late_interaction
        >>> index = late_interaction.open("my_index", model="demo")
        >>> ids = index.add([{"content": "Apple pie", "year": 2021}, {"content": "Stewed pears", "year": 1999}])
        >>> index.delete_documents({"year": {"$lt": 2000}}), index.delete_documents(ids)
        (1, 1)
        """,
    )


for _name, _method in vars(SyncPipeline).items():
    if hasattr(_method, "__wrapped__"):
        _method.__qualname__ = f"SyncPipeline.{_name}"
