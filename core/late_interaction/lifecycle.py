"""The life of what holds an index: opened at its first use, closed, dropped, entered, copied."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from late_interaction.recipes import check_picklable

if TYPE_CHECKING:
    from late_interaction.explain import Explanation
    from late_interaction.pipeline import LateInteractionPipeline, Query
    from late_interaction.sync import SyncPipeline
    from late_interaction.types import DocId, Document


class FirstUse:
    """Opens something at its first use, once, however many tasks, threads and event loops come first together.

    Args:
        open: opens it. Where it fails, all that wait for it get its error, and the next use tries again.
    """

    def __init__(self, open: Callable[[], Awaitable[None]]) -> None:
        self._open = open
        # Holds at most one future, whose result says whether the thing is open. `setdefault` decides atomically who
        # opens, without a lock that a fork could copy while it is held.
        self._state: dict[str, Future[bool]] = {}

    async def __call__(self) -> None:
        """Open, unless it is open; wait for whoever is opening."""
        while True:
            mine: Future[bool] = Future()
            theirs = self._state.setdefault("open", mine)
            if theirs is mine:
                await self._settle(mine, self._open, result=True)
                return
            if await _result(theirs):
                return

    async def again(self) -> None:
        """Open, also if it is open; wait for whoever is opening."""
        await self.instead(self._open, result=True)

    async def instead(self, change: Callable[[], Awaitable[None]], *, result: bool = False) -> None:
        """Run what closes or deletes it, after an opening that is under way; the next use opens again."""
        mine: Future[bool] = Future()
        while (theirs := self._state.get("open")) is not None and not theirs.done():
            with suppress(Exception):
                await _result(theirs)
        self._state["open"] = mine
        await self._settle(mine, change, result=result)

    async def _settle(
        self, mine: Future[bool], change: Callable[[], Awaitable[None]], *, result: bool
    ) -> None:
        mine.set_running_or_notify_cancel()  # From here on, nobody who waits for it can cancel it.
        try:
            await change()
        except BaseException as error:
            self._forget(mine)
            if isinstance(error, Exception):
                mine.set_exception(error)
            else:
                mine.set_result(False)  # Whoever was opening is cancelled; those who wait go on in its place.
            raise
        if not result:
            self._forget(mine)
        mine.set_result(result)

    def _forget(self, mine: Future[bool]) -> None:
        if self._state.get("open") is mine:
            del self._state["open"]


async def _result(theirs: Future[bool]) -> bool:
    if theirs.done():
        return theirs.result()
    return await asyncio.shield(asyncio.wrap_future(theirs))


class Closable(ABC):
    """`with` and `async with` for what is closed by `close` and `aclose`, and is one thing however it is copied."""

    @abstractmethod
    def close(self) -> None:
        """Close it; may be called twice."""

    @abstractmethod
    async def aclose(self) -> None:
        """Await `close` on any event loop."""

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

    def __copy__(self) -> Self:
        """Return the same object: it stands for an index, and there is one."""
        return self

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        return self


class PipelineHolder(Closable):
    """What an adapter's store does with the `SyncPipeline` that it holds; it sets both attributes."""

    _pipeline: SyncPipeline
    _owns_pipeline: bool

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._pipeline!r})"

    def close(self) -> None:
        """Close the index; a pipeline that you gave stays open. May be called twice."""
        if self._owns_pipeline:
            self._pipeline.close()

    async def aclose(self) -> None:
        """Await `close` on any event loop."""
        if self._owns_pipeline:
            await self._pipeline.aclose()

    def clear(self) -> None:
        """Delete every document; the index stays."""
        self._pipeline.clear()

    async def aclear(self) -> None:
        """Await `clear` on any event loop."""
        await self._pipeline.arun(lambda pipeline: pipeline.clear())

    def drop(self) -> None:
        """Delete the index, also one that was built with other settings; the next use makes a new one."""
        self._pipeline.drop()

    async def adrop(self) -> None:
        """Await `drop` on any event loop."""
        await self._pipeline.arun(lambda pipeline: pipeline.drop())

    def explain(self, query: Query, doc_id: DocId) -> Explanation:
        """Tell which words of a document, or which parts of an image, gave it its score for a query.

        Args:
            query: a text, or with a visual model an image.
            doc_id: the document's or node's id.

        Returns:
            An explanation whose contributions add up to the score: printed, as HTML (`to_html`), as JSON (`to_dict`).

        Raises:
            ValueError: there is no such document, or it is blank.
        """
        return self._pipeline.run(lambda pipeline: self._explain(pipeline, query, doc_id))

    async def aexplain(self, query: Query, doc_id: DocId) -> Explanation:
        """Await `explain` on any event loop."""
        return await self._pipeline.arun(lambda pipeline: self._explain(pipeline, query, doc_id))

    async def _explain(self, pipeline: LateInteractionPipeline, query: Query, doc_id: DocId) -> Explanation:
        documents = await pipeline.get_documents([doc_id])
        text = self._encoded_text(documents[0]) if documents else None
        return await pipeline.explain(query, doc_id, text=text)

    def _encoded_text(self, document: Document) -> str | None:
        """Return the text that was encoded of a document; None where it is its content."""
        return None

    def _beside_pipeline(self) -> dict[str, Any]:
        """Return the arguments that this store was made with beside its pipeline."""
        return {}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """Reduce to the pipeline's own recipe, and whether it is closed with this store."""
        arguments = self._beside_pipeline()
        check_picklable(self, {"pipeline": self._pipeline, **arguments})
        return _hold, (type(self), self._pipeline, self._owns_pipeline, arguments)


def _hold(cls: Any, pipeline: SyncPipeline, owns: bool, arguments: dict[str, Any]) -> PipelineHolder:
    holder: PipelineHolder = cls(pipeline, **arguments)
    holder._owns_pipeline = owns  # noqa: SLF001 - this module's own
    return holder
