"""The Astra store: documents and tokens in two tables of the Data API, on Astra DB, HCD or DSE.

Whatever happens between two requests, a search is right: a document is there when its row in the docs table is,
and scores come from the packed matrix in that row alone. The tokens table only proposes candidates; they are
written before the document's row, and deleted after it. `late-interaction doctor` finds what a crash left over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.candidates import Scaling
from late_interaction.errors import IndexMismatchError, StoreError
from late_interaction.filters import Filter, matches
from late_interaction.maxsim import maxsim
from late_interaction.packing import unpack, unpack_many
from late_interaction.stores.astra.ann import Found, put_together
from late_interaction.stores.astra.client import Requests, Row, ServiceError, in_parallel, together
from late_interaction.stores.astra.database import astra_database
from late_interaction.stores.astra.filters import Pushed, push_down
from late_interaction.stores.astra.schema import (
    CATALOGUE,
    CATALOGUE_TABLE,
    Declaration,
    Field,
    Tables,
    check_name,
    fields_of,
    index_differences,
    table_differences,
    type_names,
)
from late_interaction.stores.astra.writing import (
    REQUEST_BYTES,
    TOKEN_ROWS,
    Outcome,
    Prepared,
    binary_vector,
    cells_of,
    chunks_of_documents,
    chunks_of_tokens,
    document_of,
    from_binary,
    metadata_text,
    prepare_all,
    token_row_bytes,
)
from late_interaction.stores.base import Candidates, Store
from late_interaction.types import Document, EncodedDocument, IndexSpec, QueryVectors, RaggedTokens
from late_interaction.validation import check_positive

if TYPE_CHECKING:
    from astrapy import AsyncDatabase, Database

logger = logging.getLogger(__name__)
T = TypeVar("T")

MAX_IN = 50
"""Ids in one read: the service's page, so that no read takes two; smaller where its pages turn out to be."""
READ_BYTES = 1024 * 1024
"""Of packed matrices in one read, about: reads of one search go side by side."""

_EXPECTED = ("ZERO_FILTER_OPERATIONS",)
"""The service's warning that a whole table is read: where we do, it is meant."""
_TRUNCATE_TIMEOUT_S = 60.0
_WAVE = 100
_SCORED_TOGETHER = 200
_THERE = ("doc_id", "n_tokens")
_ABSENT = {"n_tokens": 0}
_DOCUMENT = ("doc_id", "content", "content_type", "metadata")


class AstraStore(Store):
    """An index in a keyspace of Astra DB, HCD or DSE, through astrapy.

    The connections belong to the event loop that first uses them: for threads and several loops there is
    `SyncPipeline`.

    Args:
        database: astrapy's, async or not; it gives endpoint, token, keyspace, callers and the other options.
        name: the index's name: letters, digits and `_`, at most 41.
        filterable: metadata fields on which the service itself filters, and their types: str, int, float, bool,
            datetime (a str in ISO 8601) or list[str]; nine at most. A document must have values of these types, or
            none. Part of the index; None takes an index as it is, and declares nothing for a new one.
        concurrency: requests in flight at a time. astrapy keeps 20 connections alive for each table.
        timeout_s: seconds until a request counts as lost.
        retries: further attempts at a request that was lost, after waits that double from 0.25 s.
    """

    # Fitted by benchmarks/astra_recall.py on real documents, pooled and not, so that the recall of the exact top k
    # is at least 0.97 for k = 1 … 100.
    scaling = Scaling(
        ann_tokens=(100.0, 6.0, 0.0), maxsim_candidates=(60.0, 4.0, 0.0), max_ann_tokens=1000, bounded=True
    )

    def __init__(
        self,
        database: Database | AsyncDatabase,
        name: str = "late_interaction",
        *,
        filterable: Declaration | None = None,
        concurrency: int = 20,
        timeout_s: float = 20.0,
        retries: int = 5,
    ) -> None:
        check_positive("concurrency", concurrency)
        if not 0 < timeout_s < math.inf:
            raise ValueError(f"timeout_s must be above 0 and finite, not {timeout_s}.")
        if retries < 0:
            raise ValueError(f"retries must not be negative, as {retries} is.")
        self.name = check_name(name)
        self._declared = None if filterable is None else type_names(filterable)
        self.requests = Requests(database, concurrency=concurrency, timeout_s=timeout_s, retries=retries)
        self._docs, self._tokens = f"{name}_docs", f"{name}_tokens"
        self._spec: IndexSpec | None = None
        self._fields: dict[str, Field] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._page_rows = MAX_IN
        self._packed_bytes = 20_000.0  # Of one document, a running mean.
        self._last_generation = 0
        self._told: set[frozenset[str]] = set()

    @classmethod
    def from_environment(cls, name: str = "late_interaction", **options: Any) -> Self:
        """A store on the database that the environment names.

        ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN are needed; ASTRA_DB_KEYSPACE and ASTRA_DB_ENVIRONMENT
        (astrapy's: prod, hcd, dse, …) are not: an endpoint that is not one of Astra is taken as HCD's.

        Raises:
            StoreError: a variable is not set.
        """
        return cls(astra_database(), name, **options)

    def __repr__(self) -> str:
        return f"AstraStore({self.location!r})"

    @property
    def location(self) -> str:
        """Index, keyspace and host."""
        return f"astra:{self.name} ({self.requests.keyspace} at {self.requests.host})"

    @property
    def tables(self) -> Tables:
        """The tables and indexes of the open index."""
        return Tables(self.name, self._opened().dim, self._fields)

    # --- opening and closing

    async def spec(self) -> IndexSpec | None:
        """What the index was built with, from the catalogue; None where there is no index."""
        row = await self.catalogue_row()
        return None if row is None else IndexSpec.from_dict(json.loads(row["spec"]))

    async def catalogue_row(self) -> Row | None:
        """The index's row in the catalogue, None where there is none."""
        try:
            pages = self.requests.pages(
                CATALOGUE, ("name", "spec", "filterable", "library"), where={"name": self.name}, limit=1
            )
            rows = [row async for page in pages for row in page]
        except ServiceError as error:
            if error.no_table:
                return None
            raise
        return rows[0] if rows else None

    async def open(self, spec: IndexSpec) -> None:
        """Create tables, indexes and the catalogue's row, or attach to them; definitions are read and compared.

        Raises:
            IndexMismatchError: what is there was built with another spec or declaration, or a table or an index of
                that name is another.
        """
        there = await self.requests.tables()
        row = await self.catalogue_row() if CATALOGUE in there else None
        if row is None:
            await self._create(spec, there)
            row = await self.catalogue_row()
            there = await self.requests.tables()
            if row is None:
                raise StoreError(f"The catalogue {CATALOGUE} does not keep the row of {self.location}.")
        self._check(spec, row)
        fields = fields_of(json.loads(row["filterable"]))
        if differences := await self.differences(Tables(self.name, spec.dim, fields), there):
            raise IndexMismatchError(self.location, differences)
        self._spec, self._fields = spec, fields

    def _check(self, spec: IndexSpec, row: Row) -> None:
        differences = IndexSpec.from_dict(json.loads(row["spec"])).differences(spec)
        declared = json.loads(row["filterable"])
        if self._declared is not None and self._declared != declared:
            differences["filterable"] = (declared, self._declared)
        if differences:
            raise IndexMismatchError(self.location, differences)

    async def _create(self, spec: IndexSpec, there: Mapping[str, Row]) -> None:
        """Tables, then indexes, then the catalogue's row, so that what the row names is there."""
        declared = self._declared or {}
        tables = Tables(self.name, spec.dim, fields_of(declared))
        for name, definition in tables.definitions().items():
            if name in there and (differences := table_differences(name, there[name], definition)):
                raise IndexMismatchError(self.location, differences)
        if tables.docs in there and await self._has_rows(tables.docs, "doc_id"):
            raise StoreError(
                f"There are documents in the table {tables.docs}, and the catalogue {CATALOGUE} does not say what they "
                "were encoded with: drop the table, or choose another base_table_name."
            )
        for name, definition in tables.definitions().items():
            await self.requests.create_table(name, definition)
        for table, indexes in tables.indexes().items():
            for index, definition in indexes.items():
                await self.requests.create_index(table, index, definition, vector="options" in definition)
        await self.requests.create_table(CATALOGUE, CATALOGUE_TABLE)
        row = {
            "name": self.name,
            "spec": json.dumps(spec.to_dict()),
            "filterable": json.dumps(declared),
            "library": self.requests.library_version,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if refused := await self.requests.insert(CATALOGUE, [row]):
            raise StoreError(f"The catalogue {CATALOGUE} does not take the index's row: {refused[0]}.")

    async def differences(self, tables: Tables, there: Mapping[str, Row]) -> dict[str, tuple[object, object]]:
        """How tables and indexes differ from what they should be."""
        differences: dict[str, tuple[object, object]] = {}
        for name, definition in tables.definitions().items():
            differences |= table_differences(name, there.get(name), definition)
        if not differences:
            wanted = tables.indexes()
            found = await together([self.requests.indexes(table) for table in wanted])
            for (table, indexes), have in zip(wanted.items(), found, strict=True):
                differences |= index_differences(table, have, indexes)
        return differences

    async def _has_rows(self, table: str, column: str) -> bool:
        pages = self.requests.pages(table, (column,), limit=1, expected=_EXPECTED)
        return any([len(page) > 0 async for page in pages])

    def _opened(self) -> IndexSpec:
        if self._spec is None:
            raise StoreError(f"The index {self.location} is not open: call initialize() first.")
        return self._spec

    async def close(self) -> None:
        """Close the connections."""
        self._spec = None
        await self.requests.aclose()

    async def drop(self) -> None:
        """Delete the tables with their indexes and the catalogue's row; the catalogue too, when it was its last."""
        if CATALOGUE in await self.requests.tables():
            await self.requests.command(CATALOGUE, {"deleteOne": {"filter": {"name": self.name}}})
            if not await self._has_rows(CATALOGUE, "name"):
                await self.requests.drop_table(CATALOGUE)
        await self.requests.drop_table(self._docs)
        await self.requests.drop_table(self._tokens)
        await self.close()

    # --- writing

    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write tokens, then the documents' rows, then delete the tokens that an earlier version had more.

        Raises:
            DocumentError: the service refused some documents, or a declared field has a value of another type; all
                others are written.
            StoreWriteError: the service failed; it says which documents are written.
        """
        packing = self._opened().packing
        outcome = Outcome([encoded.document.doc_id for encoded in documents])
        generation = self._next_generation(len(documents))
        prepared = await asyncio.to_thread(prepare_all, documents, packing, generation, self._fields, outcome)
        async with self._alone(outcome.doc_ids):
            try:
                before = await self._rows([one.doc_id for one in prepared], _THERE)
                await self._each(partial(self._write_tokens, outcome), chunks_of_tokens(prepared))
                await self._each(
                    partial(self._write_rows, outcome), chunks_of_documents(outcome.accepted(prepared))
                )
            except ServiceError as error:
                outcome.outage = error
            if outcome.outage is not None:
                await self._find_out(outcome, {one.doc_id: one.generation for one in prepared})
            surplus = [
                (one.doc_id, len(one.vectors))
                for one in prepared
                if one.doc_id in outcome.written
                and before.get(one.doc_id, _ABSENT)["n_tokens"] > len(one.vectors)
            ]
            await self._each(self._delete_surplus, surplus)
        if failure := outcome.failure():
            raise failure from None

    async def _write_tokens(self, outcome: Outcome, chunk: Sequence[tuple[Prepared, int]]) -> None:
        if outcome.outage is not None:
            return
        rows = [document.token_row(token_id) for document, token_id in chunk]
        try:
            refused = await self.requests.insert(self._tokens, rows)
        except ServiceError as error:
            if error.outage:
                outcome.outage = error
                return
            refused = dict.fromkeys(range(len(chunk)), str(error))
        for position, reason in refused.items():
            outcome.refused[chunk[position][0].doc_id] = reason

    async def _write_rows(self, outcome: Outcome, chunk: Sequence[Prepared]) -> None:
        if outcome.outage is not None:
            return
        try:
            refused = await self.requests.insert(self._docs, [document.row for document in chunk])
        except ServiceError as error:
            if error.outage:
                outcome.outage = error
                outcome.sent.update(document.doc_id for document in chunk)
                return
            refused = dict.fromkeys(range(len(chunk)), str(error))
        for position, document in enumerate(chunk):
            if position in refused:
                outcome.refused[document.doc_id] = refused[position]
            else:
                outcome.written.add(document.doc_id)

    async def _find_out(self, outcome: Outcome, generations: Mapping[str, int]) -> None:
        """Which of the rows that were sent without an answer are there."""
        try:
            rows = await self._rows(list(outcome.sent), ("doc_id", "generation"))
        except StoreError:
            return
        outcome.sent = set()
        outcome.written |= {
            doc_id for doc_id, row in rows.items() if row.get("generation") == generations[doc_id]
        }

    async def _delete_surplus(self, item: tuple[str, int]) -> None:
        """Delete the tokens from a number on. Where that fails they are candidates too many, and nothing worse."""
        doc_id, n_tokens = item
        where = {"doc_id": doc_id, "token_id": {"$gte": n_tokens}}
        try:
            await self.requests.command(self._tokens, {"deleteMany": {"filter": where}})
        except ServiceError as error:
            logger.warning(
                "Tokens of an earlier version of document %r are left over in %s: %s late-interaction doctor --repair "
                "removes them.",
                doc_id,
                self.location,
                error,
            )

    async def restore_tokens(self, doc_ids: Sequence[str]) -> None:
        """Write the tokens of documents anew, from the packed matrices in their rows, and delete what is too many."""
        self._opened()
        columns = (*_DOCUMENT, "generation", "packed")
        async with self._alone(doc_ids):
            rows = await self._rows(doc_ids, columns)
            prepared = [
                Prepared(
                    doc_id,
                    row,
                    unpack(from_binary(row["packed"])),
                    cells_of(document_of(row).metadata, self._fields),
                    0,
                )
                for doc_id, row in rows.items()
            ]
            chunks = (
                [document.token_row(token_id) for document, token_id in chunk]
                for chunk in chunks_of_tokens(prepared)
            )
            await self._each(partial(self._insert_all, self._tokens), chunks)
            await self._each(self._delete_surplus, [(one.doc_id, len(one.vectors)) for one in prepared])

    async def update_metadata(self, doc_id: str, metadata: dict[str, Any]) -> bool:
        """Set these metadata keys, leaving the others; False where there is no such id.

        Raises:
            ValueError: a declared field would have a value of another type.
        """
        self._opened()
        async with self._alone([doc_id]):
            row = (await self._rows([doc_id], (*_DOCUMENT, "n_tokens"))).get(doc_id)
            if row is None:
                return False
            before = document_of(row).metadata
            after = {**before, **metadata}
            cells = cells_of(after, self._fields)
            if cells != cells_of(before, self._fields):
                rows = [{"doc_id": doc_id, "token_id": i, **cells} for i in range(row["n_tokens"])]
                most = max(1, min(TOKEN_ROWS, REQUEST_BYTES // token_row_bytes(doc_id, cells, 0)))
                chunks = [rows[i : i + most] for i in range(0, len(rows), most)]
                await self._each(partial(self._insert_all, self._tokens), chunks)
            update = {"$set": {"metadata": metadata_text(after), **cells}}
            await self.requests.command(
                self._docs, {"updateOne": {"filter": {"doc_id": doc_id}, "update": update}}
            )
            return True

    async def _insert_all(self, table: str, rows: Sequence[Row]) -> None:
        if refused := await self.requests.insert(table, rows):
            raise ServiceError(f"{table} does not take a row: {next(iter(refused.values()))}", outage=False)

    async def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete documents' rows, then their tokens; returns how many documents there were.

        Where it fails, some may be deleted; the same call again deletes the rest.
        """
        self._opened()
        if isinstance(selection, Sequence):
            doc_ids = list(dict.fromkeys(selection))
        else:
            doc_ids = [row["doc_id"] async for row in self._matching(selection, ())]
        async with self._alone(doc_ids):
            there = await self.existing(doc_ids)
            await self._each(partial(self._delete_one, self._docs, "deleteOne"), there)
            # Of all that were asked for: a deletion that broke off may have left tokens.
            await self._each(partial(self._delete_one, self._tokens, "deleteMany"), doc_ids)
        return len(there)

    async def _delete_one(self, table: str, command: str, doc_id: str) -> None:
        await self.requests.command(table, {command: {"filter": {"doc_id": doc_id}}})

    async def clear(self) -> None:
        """Truncate both tables."""
        self._opened()
        for table in (self._docs, self._tokens):
            await self.requests.command(table, {"deleteMany": {"filter": {}}}, timeout_s=_TRUNCATE_TIMEOUT_S)

    def _next_generation(self, n: int) -> int:
        """The first of `n` numbers larger than all before: the time, in nanoseconds."""
        first = max(time.time_ns(), self._last_generation + 1)
        self._last_generation = first + n - 1
        return first

    async def _each(self, work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
        await in_parallel(work, items, self.requests.concurrency)

    @asynccontextmanager
    async def _alone(self, doc_ids: Iterable[str]) -> AsyncIterator[None]:
        """No other write to these documents from this store meanwhile."""
        locks = [self._locks.setdefault(doc_id, asyncio.Lock()) for doc_id in sorted(set(doc_ids))]
        async with AsyncExitStack() as stack:
            for lock in locks:
                await stack.enter_async_context(lock)
            yield

    # --- reading

    async def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Token matrices in the order asked, as they are packed: nothing is widened yet."""
        dim = self._opened().dim
        rows = await self._rows(doc_ids, ("doc_id", "packed"))
        there = [doc_id for doc_id in doc_ids if doc_id in rows]
        return there, unpack_many([from_binary(rows[doc_id]["packed"]) for doc_id in there], dim)

    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Stored documents in the order asked; ids that are not there are left out."""
        self._opened()
        rows = await self._rows(doc_ids, _DOCUMENT)
        return [document_of(rows[doc_id]) for doc_id in doc_ids if doc_id in rows]

    async def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the index."""
        self._opened()
        return set(await self._rows(doc_ids, _THERE))

    async def _rows(self, doc_ids: Sequence[str], columns: Sequence[str]) -> dict[str, Row]:
        """Rows of the docs table by id, by reads side by side that take one page each."""
        unique = list(dict.fromkeys(doc_ids))
        most = self._page_rows
        if "packed" in columns:
            most = max(1, min(most, int(READ_BYTES // self._packed_bytes)))
        groups = [unique[i : i + most] for i in range(0, len(unique), most)]
        found = await together([self._group(group, columns) for group in groups])
        return {row["doc_id"]: row for rows in found for row in rows}

    async def _group(self, doc_ids: Sequence[str], columns: Sequence[str]) -> list[Row]:
        where = {"doc_id": {"$in": list(doc_ids)}}
        reading = self.requests.pages(self._docs, columns, where=where, limit=len(doc_ids))
        pages = [page async for page in reading]
        if len(pages) > 1 and pages[1]:
            self._page_rows = min(
                self._page_rows, len(pages[0])
            )  # The service has smaller pages than we thought.
        rows = [row for page in pages for row in page if _is_whole(row, columns)]
        for row in rows:
            if "packed" in row:
                self._packed_bytes += 0.05 * (len(row["packed"]["$binary"]) - self._packed_bytes)
        return rows

    async def find(self, filter: Filter | None = None, *, limit: int | None = None) -> list[Document]:
        """Documents whose metadata match, in the order they were written.

        A limit ends the reading: it takes the first ones in the database's own order.
        """
        found: list[Row] = []
        if limit != 0:
            async with aclosing(self._matching(filter, (*_DOCUMENT, "generation"))) as rows:
                async for row in rows:
                    found.append(row)
                    if len(found) == limit:
                        break
        return [document_of(row) for row in sorted(found, key=lambda row: row["generation"])]

    async def count(self, filter: Filter | None = None) -> int:
        """How many documents there are (that match). The service cannot count: every one's id is read."""
        return sum([1 async for _ in self._matching(filter, ())])

    async def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Every document with its token matrix, in the database's own order, which does not change."""
        batch: list[EncodedDocument] = []
        async for row in self._matching(None, (*_DOCUMENT, "packed")):
            batch.append(EncodedDocument(document_of(row), unpack(from_binary(row["packed"]))))
            if len(batch) == batch_size:
                yield batch
                batch = []
        if batch:
            yield batch

    async def _matching(self, filter: Filter | None, columns: Sequence[str]) -> AsyncGenerator[Row, None]:
        """Rows of all documents whose metadata match, a page of the service at a time."""
        self._opened()
        pushed = self._push_down(filter)
        if pushed.never:
            return
        residual = None if pushed.exact else filter
        read = dict.fromkeys((*_THERE, *columns, *(() if residual is None else ("metadata",))))
        async for page in self.requests.pages(self._docs, list(read), where=pushed.where, expected=_EXPECTED):
            for row in page:
                if _is_whole(row, list(read)) and (
                    residual is None or matches(residual, json.loads(row["metadata"]))
                ):
                    yield row

    def _push_down(self, filter: Filter | None) -> Pushed:
        pushed = push_down(filter, self._fields)
        if pushed.undeclared and pushed.undeclared not in self._told:
            self._told.add(pushed.undeclared)
            logger.warning(
                "A filter on %s in %s is applied after the search, on more and more candidates until enough are found: "
                "fields that are declared in filterable={…} when the index is created are looked up instead.",
                ", ".join(map(repr, sorted(pushed.undeclared))),
                self.location,
            )
        return pushed

    async def info(self) -> dict[str, Any]:
        """Counts, and what is declared. Every document's row is read for it, without content and vectors."""
        n_tokens = [row["n_tokens"] async for row in self._matching(None, ())]
        return {
            "location": self.location,
            "documents": len(n_tokens),
            "tokens": sum(n_tokens),
            "filterable": {field.name: field.type for field in self._fields.values()},
            "tables": [self._docs, self._tokens],
        }

    async def optimize(self, *, show_progress: bool = False) -> None:
        """Nothing: the service keeps its vector index by itself."""
        self._opened()

    # --- searching

    async def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Stage 1: one ANN query for each query vector, all at once, of which come ids and similarities."""
        self._opened()
        pushed = self._push_down(filter)
        if pushed.never:
            return _nothing(n_ann_tokens)
        if n_ann_tokens is None:
            return await self._score_all(query, filter, pushed)
        lists = await together([self.nearest(v, n_ann_tokens, pushed.where) for v in query.vectors])
        found = put_together(lists, query.weights, n_ann_tokens)
        if pushed.exact:
            chosen, n_seen = np.arange(min(n, len(found.doc_ids))), n
        else:
            assert filter is not None
            chosen, n_seen = await self._choose(found, n, filter)
        return Candidates(
            doc_ids=[found.doc_ids[i] for i in chosen],
            scores=found.scores[chosen],
            exact=np.zeros(len(chosen), bool),
            bound=found.bound(n_seen),
            n_ann_tokens=n_ann_tokens,
        )

    async def nearest(
        self,
        vector: NDArray[np.float32],
        n: int,
        where: Row | None = None,
        *,
        columns: Sequence[str] = ("doc_id",),
    ) -> list[Row]:
        """The stored tokens most similar to a vector: `columns` and `$similarity` of `n` of them at most."""
        body: Row = {
            "projection": dict.fromkeys(columns, True),
            "sort": {"token_embedding": binary_vector(vector)},
            "options": {"limit": n, "includeSimilarity": True},
        }
        if where:
            body["filter"] = where
        reply = await self.requests.command(self._tokens, {"find": body})
        rows: list[Row] = reply["data"]["documents"]
        return rows

    async def _choose(self, found: Found, n: int, filter: Filter) -> tuple[NDArray[np.int64], int]:
        """The best `n` documents whose metadata match, and how many were looked at for it."""
        chosen: list[int] = []
        seen = 0
        while len(chosen) < n and seen < len(found.doc_ids):
            wave = range(seen, min(len(found.doc_ids), seen + max(_WAVE, 2 * (n - len(chosen)))))
            rows = await self._rows([found.doc_ids[i] for i in wave], ("doc_id", "metadata"))
            for i in wave:
                row = rows.get(found.doc_ids[i])
                if len(chosen) < n:
                    seen = i + 1
                    if row is not None and matches(filter, json.loads(row["metadata"])):
                        chosen.append(i)
        return np.array(chosen, np.int64), seen

    async def _score_all(self, query: QueryVectors, filter: Filter | None, pushed: Pushed) -> Candidates:
        """Every document that matches, scored exactly, a few pages of the service at a time."""
        doc_ids: list[str] = []
        scores: list[NDArray[np.float32]] = []
        batch: list[Row] = []

        async def score() -> None:
            if batch:
                tokens = unpack_many([from_binary(row["packed"]) for row in batch])
                scores.append(await asyncio.to_thread(maxsim, query.vectors, tokens, query.weights))
                doc_ids.extend(row["doc_id"] for row in batch)
                batch.clear()

        async for row in self._matching(filter, ("packed",)):
            batch.append(row)
            if len(batch) == _SCORED_TOGETHER:
                await score()
        await score()
        joined = np.concatenate([np.empty(0, np.float32), *scores])
        order = np.argsort(-joined, kind="stable")
        return Candidates(
            [doc_ids[i] for i in order], joined[order], np.ones(len(order), bool), -math.inf, None
        )


def _is_whole(row: Row, columns: Sequence[str]) -> bool:
    """Not what another process left in updating a row that was being deleted."""
    return all(column in row for column in columns)


def _nothing(n_ann_tokens: int | None) -> Candidates:
    return Candidates([], np.empty(0, np.float32), np.empty(0, bool), -math.inf, n_ann_tokens)
