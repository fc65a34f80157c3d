"""What all writers of an index do with the rows of its docs table."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TypeVar

from late_interaction.errors import StoreError
from late_interaction.metadata import MetadataChange
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.outcome import Leftovers, Outcome
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.rows import VERSION, PreparedDocument, prepare_all
from late_interaction.stores.astra.schema import Tables
from late_interaction.stores.astra.tasks import for_each_concurrently
from late_interaction.stores.astra.words import WORDS_BYTES, words_of
from late_interaction.types import EncodedDocument, PackingDtype

logger = logging.getLogger(__name__)

T = TypeVar("T")

_RANDOM_BITS = 24
"""Of a generation: it is the time to 17 ms, and chance, so that two clients do not make the same one."""
MOST_ROUNDS = 20
"""How often `update_metadata` and `delete` begin again because of other clients before they give up."""


class RowWriter(ABC):
    """Writes to one index.

    Args:
        client: requests to the keyspace.
        tables: of the open index.
        reader: reads its docs table.
        limits: sizes of requests.
        location: index, keyspace and host, for messages.
    """

    def __init__(
        self, client: DataApiClient, tables: Tables, reader: Reader, limits: Limits, location: str
    ) -> None:
        self._client, self._tables, self._reader = client, tables, reader
        self._limits, self._location = limits, location
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._last_generation = 0
        self.leftovers = Leftovers(location)

    async def upsert(self, documents: Sequence[EncodedDocument], packing: PackingDtype) -> None:
        """Write documents, each wholly or not at all.

        Raises:
            DocumentError: the service refused some documents, or a declared field has a value of another type; all
                others are written.
            StoreWriteError: the service failed; it says which documents are written.
        """
        outcome = Outcome([encoded.document.doc_id for encoded in documents])
        first = self.next_generation(len(documents))
        words: list[Row] | None = None
        if self._tables.lexical:
            words, shortened = await asyncio.to_thread(words_of, [encoded.document for encoded in documents])
            if shortened:
                logger.warning(
                    "%s of %s has more words than the service's text index takes (%d KB, some thousand different "
                    "words): a search by words finds it by those at its beginning only. Its content is whole. Cut long "
                    "documents into passages.",
                    f"Document {shortened[0]!r}"
                    + (f" and {len(shortened) - 1} more" if shortened[1:] else ""),
                    self._location,
                    WORDS_BYTES // 1000,
                )
        prepared = await asyncio.to_thread(
            prepare_all, documents, packing, first, self._tables.fields, outcome.refused, words
        )
        async with self._exclusive(outcome.doc_ids):
            await self._write(outcome, prepared)
        if failure := outcome.failure():
            raise failure from None

    @abstractmethod
    async def _write(self, outcome: Outcome, prepared: Sequence[PreparedDocument]) -> None:
        """Write documents that this client's other tasks leave alone; the outcome says what became of each."""

    @abstractmethod
    async def delete(self, doc_ids: Sequence[str]) -> int:
        """Delete documents; return how many existed."""

    @abstractmethod
    async def clear(self) -> None:
        """Delete every document."""

    @abstractmethod
    async def _revise(self, doc_id: str, change: MetadataChange) -> bool:
        """Change the metadata of a document that this client's other tasks leave alone; False if there is none."""

    def _given_up(self, doc_id: str) -> StoreError:
        """Return the error of a revision that other clients overtook again and again."""
        return StoreError(
            f"The metadata of document {doc_id!r} in {self._location} are not updated after {MOST_ROUNDS} "
            "attempts: other clients keep changing it."
        )

    async def update_metadata(self, doc_id: str, change: MetadataChange) -> bool:
        """Change the metadata of a document; return False if there is no such id.

        Raises:
            ValueError: a declared field would have a value of another type.
        """
        async with self._exclusive([doc_id]):
            return await self._revise(doc_id, change)

    # --- rows

    async def _write_rows(self, outcome: Outcome, chunk: Sequence[PreparedDocument]) -> None:
        if outcome.outage is not None:
            return
        try:
            inserted = await self._client.insert(
                self._tables.docs, [self._row(document) for document in chunk]
            )
            refused, repeated = inserted.refused, inserted.repeated
        except ServiceError as error:
            if error.outage:
                outcome.outage = error
                outcome.unanswered.update(document.doc_id for document in chunk)
                return
            refused, repeated = dict.fromkeys(range(len(chunk)), str(error)), False
        for position, document in enumerate(chunk):
            if position in refused:
                outcome.refused[document.doc_id] = refused[position]
            else:
                outcome.written.add(document.doc_id)
                if repeated:
                    outcome.repeated.add(document.doc_id)

    def _row(self, document: PreparedDocument) -> Row:
        """Return the document's row; an insert that names every column replaces all of what the row held."""
        return {**document.row, "revision": None}

    async def _delete_rows(self, found: Mapping[str, Row]) -> None:
        """Delete rows until none is left in the version found: a node whose clock is behind deletes nothing."""
        remaining = list(found)
        for _ in range(MOST_ROUNDS):
            await self._for_each(self._delete_row, remaining)
            rows = await self._reader.rows(remaining, VERSION)
            remaining = [one for one in rows if rows[one]["generation"] == found[one]["generation"]]
            if not remaining:
                return
        raise StoreError(
            f"{len(remaining)} documents of {self._location} are still there after {MOST_ROUNDS} deletions, "
            f"for example {remaining[0]!r}: another client keeps writing them, or the clocks of the database's nodes "
            "differ."
        )

    async def _delete_row(self, doc_id: str) -> None:
        await self._client.command(self._tables.docs, {"deleteOne": {"filter": {"doc_id": doc_id}}})

    async def _set(self, doc_id: str, cells: Row) -> None:
        update = {"updateOne": {"filter": {"doc_id": doc_id}, "update": {"$set": cells}}}
        await self._client.command(self._tables.docs, update)

    async def remove_torn_row(self, doc_id: str) -> None:
        """Remove what an update left in a row that was deleted before it; nothing of a document that came since."""
        columns = [field.column for field in self._tables.fields.values()]
        update = {"$unset": dict.fromkeys(["revision", *columns], "")}
        await self._client.command(
            self._tables.docs, {"updateOne": {"filter": {"doc_id": doc_id}, "update": update}}
        )
        if await self._reader.existing([doc_id]):
            await self._revise(
                doc_id, MetadataChange()
            )  # Written just before: its declared columns were removed too.

    # --- what all of them need

    def next_generation(self, n: int = 1) -> int:
        """Return the first of `n` numbers that no other write has, larger than all that this client gave out."""
        now = time.time_ns() >> _RANDOM_BITS << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        first = max(now, self._last_generation + 1)
        self._last_generation = first + n - 1
        return first

    async def _for_each(self, work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
        await for_each_concurrently(work, items, self._client.concurrency)

    @asynccontextmanager
    async def _exclusive(self, doc_ids: Iterable[str]) -> AsyncIterator[None]:
        """Keep other tasks of this client from writing these documents meanwhile."""
        locks = [self._locks.setdefault(doc_id, asyncio.Lock()) for doc_id in sorted(set(doc_ids))]
        async with AsyncExitStack() as stack:
            for lock in locks:
                await stack.enter_async_context(lock)
            yield
