"""The catalogue of a keyspace, and opening an index by it: create what is missing, compare everything else."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from late_interaction.errors import IndexMismatchError, StoreError
from late_interaction.packing import check_packing
from late_interaction.reduction import WIDTH
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.defining import define
from late_interaction.stores.astra.failures import ServiceError
from late_interaction.stores.astra.reading import WHOLE_TABLE
from late_interaction.stores.astra.schema import (
    CATALOGUE,
    CATALOGUE_TABLE,
    Tables,
    fields_of,
    index_differences,
    most_filterable,
    table_differences,
    type_names,
)
from late_interaction.stores.astra.tasks import gather_or_cancel
from late_interaction.stores.astra.words import WORDS_VERSION
from late_interaction.types import CandidatesBy, IndexSpec
from late_interaction.validation import check_positive

_WIDTH = "document_vectors"
"""Of the spec's JSON: the width of document vectors. A release that does not know it refuses to open the index."""
_WORDS = "words"
"""Likewise: which of the ways in which a text becomes words; there is one so far."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the catalogue says of an index.

    Attributes:
        spec: what it was built with.
        declared: its declared fields with their types.
        width: of its document vectors; None if it has token rows.
        lexical: whether it has an index of words.
    """

    spec: IndexSpec
    declared: dict[str, str]
    width: int | None = None
    lexical: bool = False

    @property
    def candidates(self) -> CandidatesBy:
        """What stage 1 compares a query with."""
        return "tokens" if self.width is None else "documents"


class Catalogue:
    """The catalogue's row of one index, and the index's tables.

    Args:
        client: requests to the keyspace.
        name: the index's name.
        location: index, keyspace and host, for messages.
    """

    def __init__(self, client: DataApiClient, name: str, location: str) -> None:
        self._client, self._name, self._location = client, name, location

    async def entry(self) -> Entry | None:
        """Read the index's row; None if there is no such index.

        Raises:
            StoreError: the row is damaged, or of a newer release.
        """
        try:
            pages = self._client.pages(
                CATALOGUE, ("name", "spec", "filterable"), where={"name": self._name}, limit=1
            )
            rows = [row async for page in pages for row in page]
        except ServiceError as error:
            if error.no_table:
                return None
            raise
        return self._entry_of(rows[0]) if rows else None

    def _entry_of(self, row: Row) -> Entry:
        try:
            spec, declared = json.loads(row["spec"]), json.loads(row["filterable"])
            width, words = spec.pop(_WIDTH, None), spec.pop(_WORDS, None)
            if width is not None:
                check_positive(_WIDTH, width)
            if words not in (None, WORDS_VERSION):
                spec[_WORDS] = words  # Of a newer release, which the spec says.
            match spec, declared:
                case {"dim": int(dim), "encoder": dict(), "pooling": dict(), "packing": str(packing)}, dict():
                    check_positive("dim", dim)
                    check_packing(packing)
                    return Entry(IndexSpec.from_dict(spec), type_names(declared), width, words is not None)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            pass
        raise StoreError(
            f"The catalogue {CATALOGUE} has a damaged row for {self._location}: its spec or its declared fields are "
            "not what this library writes. Restore the row, or delete it and drop the index's tables."
        )

    async def attach(
        self,
        spec: IndexSpec,
        declared: Mapping[str, str] | None,
        candidates: CandidatesBy | None = None,
        *,
        lexical: bool | None = None,
        new_lexical: bool = False,
        width: int = WIDTH,
    ) -> Tables:
        """Open the index, creating what does not exist yet, and return its tables.

        Args:
            spec: what the index must have been built with.
            declared: the declared fields it must have; None accepts any, and declares none for a new index.
            candidates: what stage 1 must compare a query with; None accepts either, and makes token rows.
            lexical: whether it must have an index of words; None accepts either.
            new_lexical: whether a new index gets one where `lexical` is None.
            width: of the document vectors of a new index.

        Raises:
            IndexMismatchError: the index was built with another spec or declaration, or a table or an index of that
                name has another definition.
        """
        existing = await self._client.tables()
        entry = await self.entry() if CATALOGUE in existing else None
        if entry is None:
            with self._client.loading():
                await self._create(
                    spec,
                    declared or {},
                    existing,
                    width if candidates == "documents" else None,
                    lexical=new_lexical if lexical is None else lexical,
                )
            entry = await self.entry()
            existing = await self._client.tables()
            if entry is None:
                raise StoreError(f"The catalogue {CATALOGUE} does not keep the row of {self._location}.")
        differences = entry.spec.differences(spec)
        if declared is not None and declared != entry.declared:
            differences["filterable"] = (entry.declared, dict(declared))
        if candidates is not None and candidates != entry.candidates:
            differences["candidates"] = (entry.candidates, candidates)
        if lexical is not None and lexical != entry.lexical:
            differences["lexical"] = (entry.lexical, lexical)
        tables = self.tables(entry, existing)
        if differences or (differences := await self.differences(tables, existing)):
            raise IndexMismatchError(self._location, differences)
        return tables

    def tables(self, entry: Entry, existing: Mapping[str, Row]) -> Tables:
        """Return the tables that the index must have."""
        fields = fields_of(entry.declared)
        return Tables.of(self._name, entry.spec.dim, fields, existing, entry.width, lexical=entry.lexical)

    async def _create(
        self,
        spec: IndexSpec,
        declared: Mapping[str, str],
        existing: Mapping[str, Row],
        width: int | None,
        *,
        lexical: bool,
    ) -> None:
        """Create tables, then indexes, then the catalogue's row, so that whatever the row names exists."""
        fields = fields_of(declared, most_filterable(of_documents=width is not None, lexical=lexical))
        tables = Tables.of(self._name, spec.dim, fields, existing, width, lexical=lexical)
        for name, definition in tables.definitions().items():
            if name in existing and (differences := table_differences(name, existing[name], definition)):
                raise IndexMismatchError(self._location, differences)
        if tables.docs in existing and await self._has_rows(tables.docs, "doc_id"):
            raise StoreError(
                f"The table {tables.docs} has documents, and the catalogue {CATALOGUE} does not say what they were "
                "encoded with: drop the table, or choose another base_table_name."
            )
        wanted = {**tables.definitions(), CATALOGUE: CATALOGUE_TABLE}
        there = {table: await self._client.indexes(table) for table in tables.indexes() if table in existing}
        await define(
            self._client,
            {name: definition for name, definition in wanted.items() if name not in existing},
            {
                table: {
                    name: each
                    for name, each in indexes.items()
                    if name not in there.get(table, ()) and name not in tables.text_index()
                }
                for table, indexes in tables.indexes().items()
            },
        )
        await self._create_text_index(tables)
        if width is not None:
            await self._complete_catalogue()
        written = spec.to_dict()
        if width is not None:
            written[_WIDTH] = width
        if lexical:
            written[_WORDS] = WORDS_VERSION
        row = {
            "name": self._name,
            "spec": json.dumps(written),
            "filterable": json.dumps(dict(declared)),
            "library": self._client.library_version,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if refused := (await self._client.insert(CATALOGUE, [row])).refused:
            raise StoreError(f"The catalogue {CATALOGUE} does not take the index's row: {refused[0]}.")

    async def _create_text_index(self, tables: Tables) -> None:
        """Create the text index and ask it something: an engine may take one and not know the order of its rows.

        Raises:
            StoreError: the service has no text indexes, or no order by words.
        """
        try:
            for name, definition in tables.text_index().items():
                await self._client.create_index(tables.docs, name, definition)
                pages = self._client.pages(tables.docs, ("doc_id",), sort={"words": "words"}, limit=1)
                async for _ in pages:
                    pass
        except ServiceError as error:
            if error.outage:
                raise
            raise StoreError(
                f"{self._location} cannot be made with lexical=True: {error} Astra DB and HCD 2 have text indexes on "
                "tables; on another database make the index without lexical=True, and search it by vectors."
            ) from None

    async def _complete_catalogue(self) -> None:
        """Add the columns that document vectors need to a catalogue of an earlier release."""
        wanted = CATALOGUE_TABLE["columns"]

        async def missing() -> Row:
            there = (await self._client.tables())[CATALOGUE].get("columns", {})
            return {name: kind for name, kind in wanted.items() if name not in there}

        if columns := await missing():
            add = {"alterTable": {"operation": {"add": {"columns": columns}}}}
            try:
                await self._client.command(CATALOGUE, add)
            except ServiceError:
                if (
                    await missing()
                ):  # Else another client has added them meanwhile, or an attempt that was lost.
                    raise

    async def differences(
        self, tables: Tables, existing: Mapping[str, Row]
    ) -> dict[str, tuple[object, object]]:
        """Compare tables and indexes with what they should be; return each difference as (found, wanted)."""
        differences: dict[str, tuple[object, object]] = {}
        for name, definition in tables.definitions().items():
            differences |= table_differences(name, existing.get(name), definition)
        if not differences:
            wanted = tables.indexes()
            found = await gather_or_cancel([self._client.indexes(table) for table in wanted])
            for (table, indexes), have in zip(wanted.items(), found, strict=True):
                differences |= index_differences(table, have, indexes)
        return differences

    async def drop(self) -> None:
        """Delete the catalogue's row and the index's tables; the catalogue too if that was its last row."""
        if CATALOGUE in await self._client.tables():
            await self.delete_rows([self._name, *await self.part_names()])
            if not await self._has_rows(CATALOGUE, "name"):
                await self._client.drop_table(CATALOGUE)
        for table in (f"{self._name}_docs", f"{self._name}_tokens"):
            await self._client.drop_table(table)

    async def part_names(self) -> list[str]:
        """Return the names of the catalogue's rows that hold parts of this index's reductions (see `reductions`)."""
        pages = self._client.pages(CATALOGUE, ("name",), expected=WHOLE_TABLE)
        return [
            row["name"] async for page in pages for row in page if row["name"].startswith(f"{self._name}#")
        ]

    async def delete_rows(self, names: Sequence[str]) -> None:
        """Delete rows of the catalogue."""
        for name in names:
            await self._client.command(CATALOGUE, {"deleteOne": {"filter": {"name": name}}})

    async def _has_rows(self, table: str, column: str) -> bool:
        pages = self._client.pages(table, (column,), limit=1, expected=WHOLE_TABLE)
        return any([len(page) > 0 async for page in pages])
