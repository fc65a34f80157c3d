"""Reading documents: by id, by filter, all of them."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from late_interaction.filters import CONTENT, Filter, fields, matches
from late_interaction.metadata import MARK
from late_interaction.packing import unpack, unpack_many
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.filters import Pushed, push_down
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.rows import DOCUMENT, document_of, is_whole, matrix_of, metadata_of
from late_interaction.stores.astra.schema import Tables
from late_interaction.stores.astra.tasks import gather_or_cancel
from late_interaction.types import Document, EncodedDocument, RaggedTokens

logger = logging.getLogger(__name__)

WHOLE_TABLE = ("ZERO_FILTER_OPERATIONS",)
"""The service's warning that a whole table is read: where we do that, it is meant."""
EXISTS = ("doc_id", "n_tokens")
"""The columns that tell whether a document is in the index."""
_METADATA = ("doc_id", "metadata", "generation", "revision")


def judged_columns(filter: Filter) -> tuple[str, ...]:
    """Return the columns that `row_matches` looks at."""
    return (*_METADATA, "content") if CONTENT in fields(filter) else _METADATA


def row_matches(filter: Filter, row: Row) -> bool:
    """Return whether the document of a row, of which `judged_columns` were read, matches."""
    return matches(filter, metadata_of(row), row.get("content", ""))


class Reader:
    """Rows of one index's docs table.

    Args:
        client: requests to the keyspace.
        tables: of the open index.
        limits: sizes of requests.
        location: index, keyspace and host, for messages.
    """

    def __init__(self, client: DataApiClient, tables: Tables, limits: Limits, location: str) -> None:
        self._client, self._tables, self._limits, self._location = client, tables, limits, location
        self._page_rows = limits.ids
        self.packed_bytes = 20_000.0  # Of one document, a running mean.
        self._warned_about: set[str] = set()

    # --- by id

    async def rows(self, doc_ids: Sequence[str], columns: Sequence[str]) -> dict[str, Row]:
        """Return rows by id, from concurrent reads that take one page each; unknown ids are left out."""
        unique = list(dict.fromkeys(doc_ids))
        most = self._page_rows
        if "packed" in columns:
            most = max(1, min(most, int(self._limits.read_bytes // self.packed_bytes)))
        groups = [unique[i : i + most] for i in range(0, len(unique), most)]
        found = await gather_or_cancel(
            [self._group(group, self._existing_columns(columns)) for group in groups]
        )
        return {row["doc_id"]: row for rows in found for row in rows}

    async def _group(self, doc_ids: Sequence[str], columns: Sequence[str]) -> list[Row]:
        where = {"doc_id": {"$in": list(doc_ids)}}
        reading = self._client.pages(self._tables.docs, columns, where=where, limit=len(doc_ids))
        pages = [page async for page in reading]
        if len(pages) > 1 and pages[1]:  # The service has smaller pages than we thought.
            self._page_rows = min(self._page_rows, len(pages[0]))
        rows = [row for page in pages for row in page if is_whole(row, columns)]
        self.learn_sizes(rows)
        return rows

    def learn_sizes(self, rows: Sequence[Row]) -> None:
        """Remember how large packed matrices are, of rows that may have been read with them."""
        for row in rows:
            if "packed" in row:
                self.packed_bytes += 0.05 * (len(row["packed"]["$binary"]) - self.packed_bytes)

    def _existing_columns(self, columns: Sequence[str]) -> list[str]:
        return [column for column in columns if column != "revision" or self._tables.versioned]

    async def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Return token matrices in the order asked, as they are packed: nothing is widened yet."""
        rows = await self.rows(doc_ids, (*EXISTS, "packed"))
        found = [doc_id for doc_id in doc_ids if doc_id in rows and rows[doc_id]["n_tokens"]]
        return found, unpack_many([matrix_of(rows[doc_id]) for doc_id in found], self._tables.dim)

    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Return the stored documents in the order asked; unknown ids are left out."""
        rows = await self.rows(doc_ids, DOCUMENT)
        return [document_of(rows[doc_id]) for doc_id in doc_ids if doc_id in rows]

    async def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the index."""
        return set(await self.rows(doc_ids, EXISTS))

    # --- by filter

    async def find(self, filter: Filter | None, limit: int | None, offset: int = 0) -> list[Document]:
        """Return the documents whose metadata match, in the order they were written.

        An offset leaves out the first ones in the database's own order, and with a limit reading ends early.
        """
        found: list[Row] = []
        if limit != 0:
            async with aclosing(self.matching(filter, DOCUMENT)) as rows:
                async for row in rows:
                    if offset:
                        offset -= 1
                        continue
                    found.append(row)
                    if len(found) == limit:
                        break
        return [document_of(row) for row in sorted(found, key=lambda row: row["generation"])]

    async def count(self, filter: Filter | None) -> int:
        """Count the documents that match. The service cannot count: the id of every one is read."""
        return sum([1 async for _ in self.matching(filter, ())])

    async def scan(self, batch_size: int) -> AsyncGenerator[list[EncodedDocument], None]:
        """Yield every document with its token matrix, in the database's own order, which does not change."""
        batch: list[EncodedDocument] = []
        async for row in self.matching(None, (*DOCUMENT, "packed"), patient=True):  # As for a copy.
            batch.append(EncodedDocument(document_of(row), unpack(matrix_of(row))))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    async def token_counts(self) -> list[int]:
        """Return the number of token vectors of every document."""
        return [row["n_tokens"] async for row in self.matching(None, ())]

    async def matching(
        self, filter: Filter | None, columns: Sequence[str], *, patient: bool = False
    ) -> AsyncGenerator[Row, None]:
        """Yield the rows of all documents whose metadata match, reading a page of the service at a time."""
        pushed = self.push_down(filter)
        if pushed.matches_nothing:
            return
        residual = None if pushed.exact else filter
        wanted = dict.fromkeys((*EXISTS, *columns, *(() if residual is None else judged_columns(residual))))
        read = self._existing_columns(list(wanted))
        async for page in self._client.pages(
            self._tables.docs, read, where=pushed.where, expected=WHOLE_TABLE, patient=patient
        ):
            for row in page:
                if is_whole(row, read) and (residual is None or row_matches(residual, row)):
                    yield row

    def push_down(self, filter: Filter | None) -> Pushed:
        """Return the part of a filter that the service decides; warn once about each field that is not declared."""
        pushed = push_down(filter, self._tables.fields)
        undeclared = {
            name for name in pushed.undeclared if name.partition(".")[0] != MARK
        } - self._warned_about
        if undeclared:
            self._warned_about |= undeclared
            logger.warning(
                "A filter on %s in %s is applied after the search, to more and more candidates until enough match. "
                "Fields that are declared in filterable={…} when the index is created are looked up instead.",
                ", ".join(map(repr, sorted(undeclared))),
                self._location,
            )
        return pushed
