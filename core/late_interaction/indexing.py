"""One call that indexes rows: check, encode, pool, write, and account for every row."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Collection,
    Sequence,
    Sized,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from late_interaction.encoders.base import (
    LateInteractionModel,
    NoTokenError,
    encode_checked,
    pooled,
    warn_of_cut_documents,
    warn_of_documents_without_token,
)
from late_interaction.errors import DocumentError, RowFailure, StoreError, StoreWriteError
from late_interaction.images.loading import LazyImage
from late_interaction.images.opening import open_image
from late_interaction.images.pdf_process import allow_workers
from late_interaction.images.reading_ahead import ReadAhead
from late_interaction.images.storing import describe_image, fit_for, image_reference, stored_image
from late_interaction.options import IndexSettings, RowSettings
from late_interaction.pacing import Items, Pace, Rows, Waits, batches, each, paced_batches
from late_interaction.progress import tqdm
from late_interaction.rows import Pending, Row, check_row, row_id
from late_interaction.stores.base import Store
from late_interaction.types import EncodedDocument, IndexedIds
from late_interaction.validation import check_matrix

logger = logging.getLogger(__name__)

_AHEAD = 2
"""Batches that are taken while one with images is encoded."""
_PIXELS_AT_ONCE = 72_000_000
"""Pixels of images that are read and wait to be encoded, 3 bytes each. A call of the model has half as many: 17 pages
of A4 at 150 dpi, so that a first batch of 16 is one call. Two calls at a time have as many once more."""


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows that are encoded and written together.

    Attributes:
        rows: those that are to be encoded.
        n_rows: how many were taken, the bad ones too.
        end: how many rows of the call there were with them.
    """

    rows: list[Pending]
    n_rows: int
    end: int

    @property
    def has_images(self) -> bool:
        return any(pending.image is not None for pending in self.rows)


class IndexingRun:
    """Batches of rows on their way into a store: one is encoded while the one before it is written.

    Where a batch has images, those of the next ones are read while it is encoded.

    Args:
        model: encodes the rows that come without vectors.
        store: where to write; open.
        in_flight: held while a batch is pooled and written.
        settings: how documents are pooled, and what is stored of images.
        options: how many rows go together, what a bad row does, and the like.
    """

    def __init__(
        self,
        model: LateInteractionModel,
        store: Store,
        in_flight: asyncio.Semaphore,
        settings: IndexSettings,
        options: RowSettings,
    ) -> None:
        self._model = model
        self._store = store
        self._in_flight = in_flight
        self._settings = settings
        self._options = options
        self._accepted: list[tuple[int, str]] = []
        self._failures: dict[int, RowFailure] = {}
        self._n_rows = 0
        self._truncated: dict[str, float | None] = {}
        self._without_token: list[str] = []
        self._writing: asyncio.Future[None] | None = None
        self._n_being_written = 0
        self._n_written = 0
        self._waits = Waits(store.waited)
        self._pace = Pace(options.batch_size)
        self._calls = asyncio.Semaphore(model.calls_at_once)

    async def index(self, rows: Rows, matrices: Items[ArrayLike] | None = None) -> IndexedIds:
        """Index rows, a batch at a time, and return the id of each row, in order.

        Args:
            rows: what to index.
            matrices: the token vectors of each row, where they were made elsewhere.

        Raises:
            DocumentError: some rows failed; its `.indexed` says which are in the index.
            StoreError: the store failed; its `.indexed` says what was written.
            Exception: what the rows or the model raised, with `.indexed` likewise and a note.
            ValueError: there are more rows than matrices, or fewer.
        """
        if self._options.on_error == "raise":
            rows, matrices = await self._all_checked(rows, matrices)
        total = len(rows) if isinstance(rows, Sized) else None
        show_progress = self._options.show_progress
        with tqdm(desc="Indexing", total=total, unit="doc", disable=not show_progress) as bar:
            async with self._writes():
                if matrices is None:
                    async with aclosing(paced_batches(rows, self._pace)) as each_batch:
                        await self._add_all(each_batch, bar)
                else:
                    pairs = _pairs(rows, matrices)
                    async with aclosing(batches(pairs, self._options.batch_size)) as each_batch:
                        await self._add_all(each_batch, bar, with_matrices=True)
        return await self._finish()

    @asynccontextmanager
    async def _writes(self) -> AsyncIterator[None]:
        """Wait for the write under way, however the block ends; an error then says what was written."""
        try:
            try:
                yield
            except Exception:
                await self._wait_for_write()
                raise
            await self._wait_for_write()
        except DocumentError:
            raise
        except Exception as error:
            indexed = self._indexed(self._n_written)
            if isinstance(error, StoreWriteError):
                written = set(error.written)
                indexed += [doc_id for _, doc_id in self._being_written() if doc_id in written]
            self._tell(error, indexed)
            raise
        finally:
            if self._writing is not None:
                await asyncio.wait([self._writing])

    def _tell(self, error: Exception, indexed: IndexedIds) -> None:
        """Add to an error which rows are in the index, and to one that is not the store's a note that says so."""
        vars(error)["indexed"] = indexed
        if isinstance(error, StoreError) or not self._n_rows:
            return
        bad = self._sorted_failures()
        failed = f"Rows that failed: {len(bad)}, the first of them {bad[0]} " if bad else ""
        last = f", up to doc_id {indexed[-1]!r:.80}" if indexed else ""
        error.add_note(
            f"Rows of this call in the index: {len(indexed)}{last} (see .indexed of this error). {failed}Index all "
            "again: rows with a doc_id are replaced, or left alone with skip_existing=True. Or go on with row "
            f"{self._n_written}, counted from 0."
        )

    async def _add_all(
        self, each_batch: AsyncGenerator[list[Any], None], bar: tqdm[None], *, with_matrices: bool = False
    ) -> None:
        """Encode and write batches of rows, or of pairs of a row and its matrix."""
        under_way: deque[asyncio.Task[None]] = deque()
        last: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    rows = await anext(each_batch, None)
                    if rows is None:
                        break
                    batch = await self._checked_batch(rows if with_matrices else [(row,) for row in rows])
                except Exception:
                    if under_way:
                        await asyncio.wait(under_way)  # What came before the error is kept.
                    raise
                last = asyncio.ensure_future(self._encode_and_write(batch, last, bar))
                under_way.append(last)
                # One is encoded, the next one is prepared by the model, and images of the one behind it are read.
                while len(under_way) > (_AHEAD if batch.has_images else 0):
                    await under_way.popleft()
            while under_way:
                await under_way.popleft()
        finally:
            await _end(under_way)
            reader = vars(self).pop("_reader", None)
            if reader is not None:
                await reader.close()

    async def _checked_batch(self, rows: Sequence[tuple[Row] | tuple[Row, ArrayLike]]) -> _Batch:
        """Check rows, which may come with matrices, and leave out what is not to be encoded."""
        batch: dict[str, Pending] = {}
        for row, *given in rows:
            number, self._n_rows = self._n_rows, self._n_rows + 1
            pending = self._checked(number, row, (given[0],) if given else None)
            if pending is not None:
                doc_id = pending.document.doc_id
                self._accepted.append((number, doc_id))
                pending.before = batch.pop(doc_id, None)  # so that the last one takes the last place too
                batch[doc_id] = pending
        end = self._n_rows
        if self._options.skip_existing:
            for doc_id in await self._store.existing(list(batch)):
                del batch[doc_id]
        return _Batch(list(batch.values()), len(rows), end)

    async def _encode_and_write(
        self, batch: _Batch, before: asyncio.Task[None] | None, bar: tqdm[None]
    ) -> None:
        """Encode a batch; begin to write it once the one `before` it is written."""
        encoding = asyncio.ensure_future(self._encoded(batch.rows))
        try:
            if before is not None:
                await before
            started = time.perf_counter()
            with self._waits.of("encoder"):
                encoded = await encoding
            for pending in encoded:
                self._truncated.pop(pending.document.doc_id, None)  # of an earlier row with this id
                if pending.unread != 0:
                    self._truncated[pending.document.doc_id] = pending.unread
            with self._waits.of("writing"):
                await self._wait_for_write()
        finally:
            await _end([encoding])
        if self._failures and self._options.on_error == "raise":
            raise self._error(self._indexed(self._n_written))
        self._n_being_written = batch.end
        if encoded:
            self._writing = asyncio.ensure_future(self._write(encoded))
        else:
            self._n_written = batch.end
        self._pace.took(batch.n_rows, time.perf_counter() - started)
        bar.set_postfix_str(str(self._waits), refresh=False)
        bar.update(batch.n_rows)

    async def _finish(self) -> IndexedIds:
        """Bring the store's search structures up to date and return the id of each row, in order.

        Raises:
            DocumentError: some rows failed.
        """
        doc_ids = self._indexed(self._n_rows)
        warn_of_cut_documents(self._model, doc_ids.truncated, self._n_rows)
        warn_of_documents_without_token(self._model, self._without_token, self._n_rows)
        try:
            await self._store.optimize(show_progress=self._options.show_progress)
        except Exception as error:
            self._tell(error, doc_ids)
            raise
        if self._failures and self._options.on_error != "skip":
            raise self._error(doc_ids)
        doc_ids.failures = self._sorted_failures()
        if doc_ids.failures:
            logger.warning(
                "%d of %d rows were left out (see .failures), the first of them %s",
                len(doc_ids.failures),
                self._n_rows,
                doc_ids.failures[0],
            )
        return doc_ids

    def _error(self, doc_ids: IndexedIds) -> DocumentError:
        return DocumentError(self._sorted_failures(), list(dict.fromkeys(doc_ids)), doc_ids.truncated)

    def _sorted_failures(self) -> list[RowFailure]:
        return [self._failures[number] for number in sorted(self._failures)]

    # --- checking and encoding

    async def _all_checked(
        self, rows: Rows, matrices: Items[ArrayLike] | None
    ) -> tuple[list[Row], list[ArrayLike] | None]:
        """Return all rows and matrices, checked; nothing is written yet.

        Raises:
            DocumentError: some rows cannot be indexed.
        """
        listed, listed_matrices = [], None
        if matrices is None:
            listed = [row async for row in each(rows)]
        else:
            pairs = [pair async for pair in _pairs(rows, matrices)]
            listed, listed_matrices = [row for row, _ in pairs], [matrix for _, matrix in pairs]

        def check() -> list[Pending]:
            given = ((matrix,) for matrix in listed_matrices) if listed_matrices else repeat(None)
            checked = [
                self._checked(number, *one) for number, one in enumerate(zip(listed, given, strict=False))
            ]
            return [pending for pending in checked if pending is not None and pending.image is not None]

        with_images = await asyncio.to_thread(check)
        if with_images and self._options.skip_existing:
            there = await self._store.existing([pending.document.doc_id for pending in with_images])
            with_images = [pending for pending in with_images if pending.document.doc_id not in there]
        await asyncio.to_thread(self._check_images, with_images)
        if self._failures:
            raise self._error(IndexedIds())
        return listed, listed_matrices

    def _check_images(self, rows: Sequence[Pending]) -> None:
        """Read the rows' images; a page of a PDF is taken for readable, since to draw it takes long."""
        for pending in rows:
            if isinstance(pending.image, LazyImage):
                continue
            try:
                self._read_image(pending)
            except (ValueError, TypeError) as error:
                self._fail(pending.number, pending.document.doc_id, error)

    def _checked(self, number: int, row: Row, given: tuple[ArrayLike] | None) -> Pending | None:
        """Return a row as it goes on; note a failure, and return None, if it is bad.

        Args:
            number: its position in the call.
            row: the row.
            given: its matrix, where it comes with one.
        """
        try:
            pending = check_row(row, number, self._options.ids)
            self._store.check(pending.document)
            if given is not None:
                pending.matrix = check_matrix(given[0], self._model.dim)
            elif pending.is_blank:
                pending.matrix = np.empty((0, self._model.dim), np.float32)
            else:
                self._check_encodable(pending)
        except (ValueError, TypeError) as error:
            self._fail(number, row_id(row), error)
            return None
        return pending

    def _check_encodable(self, pending: Pending) -> None:
        """Check that the model can encode the row."""
        if pending.document.content_type == "image" and pending.item is None:
            if not self._model.supports_images:
                raise ValueError(f"it is an image, and {self._model.model_name} encodes text.")
            if pending.image is None:
                raise ValueError("it is of content type 'image', and there is no 'image' to encode.")

    async def _encoded(self, rows: Sequence[Pending]) -> list[Pending]:
        """Encode rows, and return them in their order; the row before it of the same id comes in place of a bad one."""
        encoded: list[Pending] = []
        while rows:
            await self._encode(rows)
            encoded += [pending for pending in rows if pending.number not in self._failures]
            failed = [pending for pending in rows if pending.number in self._failures]
            rows = [pending.before for pending in failed if pending.before is not None]
        return sorted(encoded, key=lambda pending: pending.number)

    async def _encode(self, rows: Sequence[Pending]) -> None:
        """Give those rows their matrices that can be encoded, in as many calls at a time as the model does."""
        calls: list[asyncio.Task[None]] = []
        try:
            async with aclosing(self._chunks(rows)) as chunks:
                async for chunk, pixels in chunks:
                    await self._calls.acquire()
                    call = asyncio.ensure_future(
                        self._encode_all([pending for pending in chunk if pending.matrix is None])
                    )
                    call.add_done_callback(lambda _: self._calls.release())
                    calls.append(call)
                    if pixels:
                        self._reader.taken(pixels)
                    for done in [call for call in calls if call.done()]:
                        done.result()  # An error ends the call at once.
            await asyncio.gather(*calls)
        finally:
            await _end(calls)

    async def _chunks(self, rows: Sequence[Pending]) -> AsyncGenerator[tuple[list[Pending], int], None]:
        """Yield the rows with their images read, some at a time, and the pixels of these images."""
        if all(pending.image is None for pending in rows):
            yield list(rows), 0
            return
        chunk: list[Pending] = []
        held = 0
        async with aclosing(self._reader.each(rows)) as each_row:
            async for pending, pixels in each_row:
                held += pixels
                if pending.number not in self._failures:
                    chunk.append(pending)
                if held >= _PIXELS_AT_ONCE // 2:
                    yield chunk, held
                    chunk, held = [], 0
        if chunk or held:
            yield chunk, held

    @cached_property
    def _reader(self) -> ReadAhead[Pending]:
        allow_workers(self._options.num_workers)
        return ReadAhead(self._read, self._options.num_workers, _PIXELS_AT_ONCE)

    def _read(self, pending: Pending) -> int:
        """Do `_read_image`; note it where the image cannot be read."""
        try:
            return self._read_image(pending)
        except (ValueError, TypeError) as error:
            self._fail(pending.number, pending.document.doc_id, error)
            return 0

    def _read_image(self, pending: Pending) -> int:
        """Read the row's image, if it has one, complete its document, and return the image's pixels."""
        source = pending.image
        if source is None:
            return 0
        reference = image_reference(source)
        as_reference = self._settings.store_images == "reference" and reference is not None
        encodes_image = pending.matrix is None and pending.item is None
        if not encodes_image and (as_reference or not pending.has_pending_image):
            loaded = None  # Nothing of its pixels is encoded or stored.
        else:
            loaded = open_image(
                source,
                allow_urls=self._settings.allow_urls,
                fit=fit_for(self._settings.store_images, self._model.scaled_size),
                root=self._settings.image_root,
            )
        if pending.has_pending_image:
            description = reference or (describe_image(loaded) if loaded else "")
            pending.complete(stored_image(source, loaded, self._settings.store_images), description)
        if loaded is None or not encodes_image:
            return 0
        pending.item = loaded.image
        return loaded.image.width * loaded.image.height

    async def _encode_all(self, chunk: Sequence[Pending]) -> None:
        """Give each row its matrix, but those that fail."""
        items = [pending.item for pending in chunk if pending.item is not None]
        if not items:
            return
        try:
            matrices, shares = await encode_checked(self._model, items, "document")
        except ValueError as error:
            if len(chunk) > 1:
                # One document spoils the batch: find it, and keep the others.
                for pending in chunk:
                    await self._encode_all([pending])
                return
            if isinstance(error, NoTokenError):
                chunk[0].matrix = np.empty((0, self._model.dim), np.float32)
                self._without_token.append(chunk[0].document.doc_id)
            else:
                self._fail(chunk[0].number, chunk[0].document.doc_id, error)
            chunk[0].item = None
            return
        for pending, matrix, share in zip(chunk, matrices, shares, strict=True):
            pending.matrix, pending.item, pending.unread = matrix, None, share

    # --- writing

    async def _write(self, batch: Sequence[Pending]) -> None:
        """Pool a batch and write it."""

        def pool() -> list[EncodedDocument]:
            factor = self._settings.doc_pool_factor
            return [
                EncodedDocument(pending.document, pooled(self._model, pending.matrix, factor))
                for pending in batch
                if pending.matrix is not None
            ]

        async with self._in_flight:
            await self._store.upsert(await asyncio.to_thread(pool))

    async def _wait_for_write(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                await writing
            except DocumentError as error:
                reasons = {failure.doc_id: failure.reason for failure in error.failures}
                for number, doc_id in self._being_written():
                    if doc_id in reasons:
                        self._failures[number] = RowFailure(number, doc_id, reasons[doc_id])
            self._n_written = self._n_being_written

    def _being_written(self) -> list[tuple[int, str]]:
        """Return the numbers and ids of the accepted rows that were not written yet when the last write began."""
        return [row for row in self._accepted if self._n_written <= row[0] < self._n_being_written]

    def _indexed(self, n_rows: int) -> IndexedIds:
        """Return the ids of those of the first rows that did not fail, and which of them are not whole."""
        doc_ids = [
            doc_id for number, doc_id in self._accepted if number < n_rows and number not in self._failures
        ]
        indexed = set(doc_ids)
        cut = {doc_id: share for doc_id, share in self._truncated.items() if doc_id in indexed}
        return IndexedIds(doc_ids, cut)

    def _fail(self, number: int, doc_id: str | None, error: Exception) -> None:
        self._failures[number] = RowFailure(number, doc_id, str(error))


async def _pairs(rows: Rows, matrices: Items[ArrayLike]) -> AsyncIterator[tuple[Row, ArrayLike]]:
    """Yield each row with its matrix; raise a ValueError where one of them has no more and the other has."""
    n = 0
    async with aclosing(each(rows)) as each_row, aclosing(each(matrices)) as each_matrix:
        async for row in each_row:
            async for matrix in each_matrix:
                yield row, matrix
                n += 1
                break
            else:
                raise ValueError(f"there are more rows than matrices: the matrices end after {n}.")
        async for _ in each_matrix:
            raise ValueError(f"there are more matrices than rows: the rows end after {n}.")


async def _end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks, and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
