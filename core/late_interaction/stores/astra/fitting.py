"""Fitting the reduction of an index with document vectors, and writing the vectors: resumable after any request.

1. The parts of the reduction are written to the catalogue, and then its name as the `next` one. From here on documents
   are written with its vectors, and searches ask by it too.
2. The vectors of all documents are written anew, from the packed matrices in their rows.
3. The next reduction becomes the current one, and the parts of others are deleted.

Whoever comes upon a `next` reduction goes on with step 2. Two clients that do so write the same vectors. If two clients
fit at once, the one whose `next` was overwritten goes on with the other's. If the parts of a reduction are gone,
searches score every document, and the next write or `optimize` fits another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, TypeAlias

import numpy as np

from late_interaction.errors import StoreError
from late_interaction.packing import unpack_many
from late_interaction.progress import tqdm
from late_interaction.reduction import SAMPLE_PER_FEATURE, Reduction, fit
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.document_searching import other_than
from late_interaction.stores.astra.document_writing import MATRIX, DocumentWriter
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.reductions import Reductions, Size
from late_interaction.stores.astra.rows import DOCUMENT, document_of, is_whole, matrix_of
from late_interaction.stores.astra.scaling import GROWS_FROM, GROWS_TO
from late_interaction.stores.astra.schema import Tables
from late_interaction.types import FloatMatrix

logger = logging.getLogger(__name__)

EncodeQueries: TypeAlias = Callable[[Sequence[str]], Awaitable[list[FloatMatrix]]]

_PASSES = 20
"""How often documents are looked for that have no vector yet, while other clients write some."""
_TEXTS_AT_ONCE = 64


class Fitter:
    """Keeps the reduction of one index, and the documents' vectors, up to date.

    Args:
        client: requests to the keyspace.
        tables: of the index.
        reader: reads its docs table.
        writer: writes vectors.
        reductions: of the index.
        limits: from how many documents on to fit, and on how many.
        location: index, keyspace and host, for messages.
    """

    def __init__(
        self,
        client: DataApiClient,
        tables: Tables,
        reader: Reader,
        writer: DocumentWriter,
        reductions: Reductions,
        limits: Limits,
        location: str,
    ) -> None:
        self._client, self._tables, self._reader, self._writer = client, tables, reader, writer
        self._reductions, self._limits, self._location = reductions, limits, location
        self._one_at_a_time = asyncio.Lock()
        self._written = 0
        self._has_counted = False
        self.encode_queries: EncodeQueries | None = None

    @property
    def about(self) -> int:
        """About how many documents there are."""
        return self._reductions.size.about + self._written

    @property
    def is_fitted(self) -> bool:
        """Whether a reduction is in use, or its vectors are being written."""
        return bool(self._reductions.fitted.live)

    async def wrote(self, n: int) -> None:
        """Take into account that `n` documents were written, and fit once there are as many as a fit looks at.

        Where there are fewer, `settle` fits at the end of the load, so that a long one is fitted once.
        """
        self._written += n
        try:
            async with self._one_at_a_time:
                await self._fit_if_due(self._limits.fitted_on, show_progress=False)
        except StoreError as error:  # The documents are written, and that is what was asked for.
            logger.warning(
                "The document vectors of %s are not fitted: %s Searches score every document until the next write "
                "or optimize() goes on with it.",
                self._location,
                error,
            )

    async def fit(self, sample: FloatMatrix | None, *, show_progress: bool = False) -> dict[str, Any]:
        """Fit a reduction to the documents that are there, in place of the one in use, and write all vectors.

        Args:
            sample: (n, dim) token vectors of queries, or None for the documents' own.
            show_progress: show a progress bar over the vectors.

        Raises:
            StoreError: there is no document with vectors.
        """
        async with self._one_at_a_time:
            return await self._fit(await self._some_rows(), sample, show_progress=show_progress)

    async def settle(self, *, show_progress: bool = False) -> dict[str, Any]:
        """Finish what is unfinished: a fit that is due or broke off, documents without a vector, the size."""
        async with self._one_at_a_time:
            if not (
                self.is_fitted or self._has_counted
            ):  # A client that crashed may have noted less than it wrote.
                self._has_counted, self._written = True, 0
                await self._reductions.set_size(Size(await self._count(self._limits.fitted_on)))
            if done := await self._fit_if_due(self._limits.fitted_from, show_progress=show_progress):
                return done
            fitted = await self._reductions.refresh()
            await self._note_size()
            written = await self._finish((), show_progress=show_progress) if fitted.live else 0
            return {"vectors": written} if written else {}

    # --- one fit

    async def _fit_if_due(self, least: int, *, show_progress: bool) -> dict[str, Any]:
        """Fit if there are `least` documents and no reduction, or enough for a better one; return what was done."""
        if self.about < least or not await self._may_be_due():
            return {}
        await self._reductions.refresh()
        if not await self._may_be_due():  # Another client has fitted meanwhile.
            return {}
        rows = await self._some_rows()
        if len(rows) < (self._limits.fitted_on if self.is_fitted else least):
            self._written = 0
            await self._reductions.set_size(Size(len(rows)))
            return {}
        return await self._fit(rows, None, show_progress=show_progress)

    async def _may_be_due(self) -> bool:
        """Tell whether there is no reduction; or a provisional one, and perhaps enough documents for a better one."""
        fitted = self._reductions.fitted
        if not fitted.live:
            return True
        if fitted.next is not None or self.about < self._limits.fitted_on:
            return False
        reduction = await self._reductions.get(fitted.live[-1])
        return reduction is not None and reduction.provisional

    async def _fit(
        self, rows: Sequence[Row], sample: FloatMatrix | None, *, show_progress: bool
    ) -> dict[str, Any]:
        await self._begin(rows, sample)
        written = await self._finish(rows, show_progress=show_progress)
        self._written = 0
        await self._reductions.set_size(Size(written))
        return {"fitted": True, "vectors": written}

    async def _begin(self, rows: Sequence[Row], sample: FloatMatrix | None) -> None:
        """Fit a reduction to documents, and make it the next one."""
        if not rows:
            raise StoreError(f"There is no document in {self._location} to fit document vectors to.")
        documents = unpack_many([matrix_of(row) for row in rows], self._tables.dim)
        tokens = await self._sample(rows) if sample is None else sample
        wanted = SAMPLE_PER_FEATURE * (self._tables.width or 0)
        if len(tokens) < wanted:
            own = np.concatenate([documents.matrix(i) for i in range(len(documents))])
            chosen = np.random.default_rng(0).permutation(len(own))[: wanted - len(tokens)]
            tokens = np.concatenate([tokens, own[chosen]])
        reduction = await asyncio.to_thread(fit, documents, tokens, width=self._tables.width or 0)
        reduction.provisional = sample is None and len(rows) < self._limits.fitted_on
        await self._reductions.add(self._writer.next_generation(), reduction)

    async def _some_rows(self) -> list[Row]:
        """Return the first documents with vectors in the database's order, which is that of the ids' hashes."""
        rows: list[Row] = []
        async with aclosing(self._reader.matching(None, (*DOCUMENT, "packed"))) as found:
            async for row in found:
                if row["n_tokens"]:
                    rows.append(row)
                if len(rows) == self._limits.fitted_on:
                    break
        return rows

    async def _sample(self, rows: Sequence[Row]) -> FloatMatrix:
        """Return token vectors of the documents' texts, encoded as queries, if there is a model and there are texts."""
        none = np.empty((0, self._tables.dim), np.float32)
        documents = [document_of(row) for row in rows]
        texts = [one.content for one in documents if one.content_type == "text" and one.content.strip()]
        found: list[FloatMatrix] = [none]
        if self.encode_queries is not None:
            wanted = SAMPLE_PER_FEATURE * (self._tables.width or 0)
            for first in range(0, len(texts), _TEXTS_AT_ONCE):
                found += await self.encode_queries(texts[first : first + _TEXTS_AT_ONCE])
                if sum(map(len, found)) >= wanted:
                    break
        return np.concatenate(found)

    async def _finish(self, rows: Sequence[Row], *, show_progress: bool) -> int:
        """Write vectors until all documents have one of the newest reduction, and it is the current one.

        Args:
            rows: of documents whose vectors are to be written first, with their matrices.
            show_progress: show a progress bar.

        Returns:
            How many were written.
        """
        written, before = 0, None
        for _ in range(_PASSES):
            fitted = await self._reductions.refresh()
            if not fitted.live:
                return written  # Another client has cleared the index.
            newest = fitted.live[-1]
            reduction = await self._reductions.get(newest)
            if reduction is None:
                if fitted == before:  # Its parts are gone, and nobody is about to name another one.
                    await self._begin(await self._some_rows(), None)
                before = fitted
                continue
            but = fitted.live if fitted.next is None else (newest,)
            written += await self._fill(newest, reduction, but, rows, show_progress=show_progress)
            rows = ()
            if fitted.next is None:
                return written
            await self._reductions.commit(newest)
        raise StoreError(
            f"The document vectors of {self._location} are not all written after {_PASSES} passes: other clients keep "
            "fitting them, or writing documents with others."
        )

    async def _fill(
        self,
        generation: int,
        reduction: Reduction,
        but: Sequence[int],
        rows: Sequence[Row],
        *,
        show_progress: bool,
    ) -> int:
        """Write the vectors of `rows`, and of all documents whose vectors are of none of the reductions `but`.

        Returns:
            How many were written.
        """

        async def write(some: Sequence[Row]) -> int:
            await self._writer.write_vectors([row["doc_id"] for row in some], generation, reduction, some)
            bar.update(len(some))
            return len(some)

        written = 0
        total = self._reductions.size.about or None
        with tqdm(desc="Document vectors", unit="doc", total=total, disable=not show_progress) as bar:
            for _ in range(_PASSES):
                found = 0
                for first in range(0, len(rows), self._limits.ids):
                    found += await write(rows[first : first + self._limits.ids])
                rows = ()
                async for page in self._client.pages(self._tables.docs, MATRIX, where=other_than(but)):
                    found += await write([row for row in page if is_whole(row, MATRIX)])
                if not found:
                    break
                written += found
        return written

    async def _note_size(self) -> None:
        """Add what this client wrote to the index's size; where it matters, count anew once half is not counted."""
        written, self._written = self._written, 0
        if not written:
            return
        size = self._reductions.size
        size = Size(size.counted, size.since + written)
        if size.since > size.counted // 2 and size.counted < GROWS_TO and size.about > GROWS_FROM:
            size = Size(await self._count(GROWS_TO))
        await self._reductions.set_size(size)

    async def _count(self, most: int) -> int:
        n = 0
        async with aclosing(self._reader.matching(None, ())) as rows:
            async for _ in rows:
                n += 1
                if n == most:
                    break
        return n
