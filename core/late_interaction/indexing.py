"""One call that indexes rows: check, encode, write, and account for every row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from late_interaction.encoders.base import Item, LateInteractionModel
from late_interaction.errors import DocumentError, ModelError, RowFailure, StoreError, StoreWriteError
from late_interaction.images.loading import open_image
from late_interaction.images.storing import StoreImages, describe_image, image_reference, stored_image
from late_interaction.rows import CheckedRow, Row, check_row, row_id
from late_interaction.stores.base import Store
from late_interaction.types import Document, FloatMatrix

logger = logging.getLogger(__name__)

T = TypeVar("T")
Write: TypeAlias = Callable[[Sequence[Document], Sequence[FloatMatrix]], Awaitable[None]]

_UNIT_TOLERANCE = 0.02
_PIXELS_AT_ONCE = 64_000_000
"""Pixels of images that are in memory together while they wait to be encoded, 3 bytes each; as many are loaded
meanwhile."""


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A row that passed the checks, and its vectors where they were given."""

    number: int
    row: CheckedRow
    matrix: FloatMatrix | None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A document as it will be stored, and what to encode of it unless its vectors were given."""

    number: int
    document: Document
    item: Item
    matrix: FloatMatrix | None


class Load:
    """Batches of rows on their way into a store: one is encoded while the one before it is written.

    Args:
        model: encodes the rows that come without vectors.
        store: asked for ids that are there already, and to optimize at the end.
        write: writes encoded documents.
        skip_existing: leave rows alone whose id is in the store.
        store_images: what is stored of images.
        allow_urls: fetch images from URLs.
    """

    def __init__(
        self,
        model: LateInteractionModel,
        store: Store,
        write: Write,
        *,
        skip_existing: bool = False,
        store_images: StoreImages = "reference",
        allow_urls: bool = False,
    ) -> None:
        self._model = model
        self._store_images = store_images
        self._allow_urls = allow_urls
        self._store = store
        self._write = write
        self._skip_existing = skip_existing
        self._accepted: list[tuple[int, str]] = []
        self._failures: dict[int, RowFailure] = {}
        self._n_rows = 0
        self._n_truncated = 0
        self._writing: asyncio.Future[None] | None = None
        self._n_being_written = 0
        self._n_written = 0

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """However the block ends, the write under way is waited for, and a store's error says what was written."""
        try:
            yield
            await self._written()
        except StoreError as error:
            error.indexed = self._indexed(self._n_written)
            if isinstance(error, StoreWriteError):
                written = set(error.written)
                error.indexed += [doc_id for _, doc_id in self._being_written() if doc_id in written]
            raise
        finally:
            if self._writing is not None:
                await asyncio.wait([self._writing])

    async def add(self, rows: Sequence[Row], matrices: Sequence[ArrayLike] | None = None) -> None:
        """Check and encode a batch while the last one is written; then begin to write it."""
        batch: dict[str, _Accepted] = {}
        for position, row in enumerate(rows):
            number, self._n_rows = self._n_rows, self._n_rows + 1
            try:
                accepted = self._accept(number, row, None if matrices is None else matrices[position])
            except (ValueError, TypeError) as error:
                self._fail(number, row_id(row), error)
            else:
                doc_id = accepted.row.document.doc_id
                self._accepted.append((number, doc_id))
                batch.pop(doc_id, None)  # so that the last one takes the last place too
                batch[doc_id] = accepted
        if self._skip_existing:
            for doc_id in await self._store.existing(list(batch)):
                del batch[doc_id]
        encoded = await self._encode(list(batch.values()))
        await self._written()
        if encoded:
            documents, vectors = zip(*encoded, strict=True)
            self._writing = asyncio.ensure_future(self._write(documents, vectors))
            self._n_being_written = self._n_rows

    async def finish(self, *, show_progress: bool = False) -> list[str]:
        """The id of each row, in order.

        Raises:
            DocumentError: some rows failed.
        """
        if self._n_truncated:
            logger.warning(
                "%d of %d documents are longer than %s reads: their ends were not encoded.",
                self._n_truncated,
                self._n_rows,
                self._model.model_name,
            )
        doc_ids = self._indexed(self._n_rows)
        try:
            await self._store.optimize(show_progress=show_progress)
        except StoreError as error:
            error.indexed = doc_ids
            raise
        if self._failures:
            failures = [self._failures[number] for number in sorted(self._failures)]
            raise DocumentError(failures, list(dict.fromkeys(doc_ids)))
        return doc_ids

    def _accept(self, number: int, row: Row, matrix: ArrayLike | None) -> _Accepted:
        checked = check_row(row)
        if matrix is not None:
            return _Accepted(number, checked, check_matrix(matrix, self._model.dim))
        if checked.document.content_type == "image":
            if not self._model.supports_images:
                raise ValueError(f"it is an image, and {self._model.model_name} encodes text.")
            if checked.image is None:
                raise ValueError("it is of content type 'image', and there is no 'image' to encode.")
        return _Accepted(number, checked, None)

    async def _encode(self, batch: Sequence[_Accepted]) -> list[tuple[Document, FloatMatrix]]:
        encoded = []
        async with aclosing(self._ready(batch)) as chunks:
            async for chunk in chunks:
                encoded += await self._encode_chunk(chunk)
        return encoded

    async def _ready(self, batch: Sequence[_Accepted]) -> AsyncGenerator[list[_Ready], None]:
        """The batch with its images loaded, some at a time; while those are encoded, the next ones are loaded."""
        rows = iter(batch)
        if all(accepted.row.image is None for accepted in batch):
            yield self._chunk(rows)
            return
        loading = asyncio.ensure_future(asyncio.to_thread(self._chunk, rows))
        try:
            while chunk := await loading:
                loading = asyncio.ensure_future(asyncio.to_thread(self._chunk, rows))
                yield chunk
        finally:
            await asyncio.gather(loading, return_exceptions=True)

    def _chunk(self, rows: Iterator[_Accepted]) -> list[_Ready]:
        """As many of the next rows as may be in memory together; none where no more can be had."""
        chunk: list[_Ready] = []
        pixels = 0
        for accepted in rows:
            try:
                ready = self._load(accepted)
            except (ValueError, TypeError) as error:
                self._fail(accepted.number, accepted.row.document.doc_id, error)
                continue
            chunk.append(ready)
            if not isinstance(ready.item, str):
                pixels += ready.item.width * ready.item.height
            if pixels >= _PIXELS_AT_ONCE:
                break
        return chunk

    def _load(self, accepted: _Accepted) -> _Ready:
        number, row, matrix = accepted.number, accepted.row, accepted.matrix
        document, source = row.document, row.image
        if source is None:
            return _Ready(number, document, document.content, matrix)
        reference = image_reference(source)
        as_reference = self._store_images == "reference" and reference is not None
        if matrix is not None and (as_reference or not row.unstored):
            loaded = None  # The vectors are there, and so the image need not be.
        else:
            loaded = open_image(source, allow_urls=self._allow_urls)
        if row.unstored:
            description = reference or (describe_image(loaded.image) if loaded else "")
            document = row.with_image(stored_image(source, loaded, self._store_images), description)
        return _Ready(number, document, loaded.image if loaded else document.content, matrix)

    async def _encode_chunk(self, chunk: Sequence[_Ready]) -> list[tuple[Document, FloatMatrix]]:
        given = [(ready.document, ready.matrix) for ready in chunk if ready.matrix is not None]
        if given or not chunk:
            return given
        try:
            matrices = await self._model.aencode_documents([ready.item for ready in chunk])
        except ValueError as error:
            if len(chunk) > 1:
                # One document spoils the batch: find it, and keep the others.
                return [pair for ready in chunk for pair in await self._encode_chunk([ready])]
            self._fail(chunk[0].number, chunk[0].document.doc_id, error)
            return []
        texts = [ready.item for ready in chunk if isinstance(ready.item, str)]
        self._n_truncated += await self._model.run(self._model.count_truncated, texts)
        encoded = []
        for ready, matrix in zip(chunk, check_count(matrices, len(chunk), self._model), strict=True):
            try:
                encoded.append((ready.document, check_matrix(matrix, self._model.dim)))
            except ValueError as error:
                self._fail(ready.number, ready.document.doc_id, error)
        return encoded

    async def _written(self) -> None:
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
        """The numbers and ids of the accepted rows that were not written yet when the last write began."""
        return [row for row in self._accepted if self._n_written <= row[0] < self._n_being_written]

    def _indexed(self, n_rows: int) -> list[str]:
        """The ids of those of the first rows that did not fail."""
        return [
            doc_id for number, doc_id in self._accepted if number < n_rows and number not in self._failures
        ]

    def _fail(self, number: int, doc_id: str | None, error: Exception) -> None:
        self._failures[number] = RowFailure(number, doc_id, str(error))


async def batches(items: Iterable[T] | AsyncIterable[T], size: int) -> AsyncIterator[list[T]]:
    """Lists of `size` items, the last one shorter; nothing is taken ahead of the batch asked for."""
    batch: list[T] = []
    async for item in _each(items):
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def _each(items: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def check_count(matrices: Sequence[T], n: int, model: LateInteractionModel) -> Sequence[T]:
    """The matrices that a model gave for `n` items, once there are as many.

    Raises:
        ModelError: there are more or fewer.
    """
    if len(matrices) != n:
        raise ModelError(f"{model.model_name} gave {len(matrices)} matrices for {n} items to encode.")
    return matrices


def check_matrix(matrix: ArrayLike, dim: int) -> FloatMatrix:
    """Vectors made elsewhere, or by a model of the user's own, as (n_tokens, dim) float32.

    Raises:
        ValueError: the shape is another, there is no token, or a row is not a unit vector.
    """
    array = np.asarray(matrix, dtype=np.float32)
    if array.ndim != 2 or array.shape[1] != dim or not len(array):
        raise ValueError(f"token vectors must have shape (n_tokens ≥ 1, {dim}), not {array.shape}.")
    lengths = np.linalg.norm(array, axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= _UNIT_TOLERANCE))
    if len(wrong):
        raise ValueError(
            f"token vectors must have length 1, and row {wrong[0]} has {lengths[wrong[0]]:.4g}: divide each row by "
            "its length."
        )
    return array
