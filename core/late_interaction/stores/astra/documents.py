"""What an index with document vectors consists of, put together for the store and for the doctor."""

from __future__ import annotations

from typing import NamedTuple

from late_interaction.stores.astra.catalogue import Catalogue
from late_interaction.stores.astra.client import DataApiClient
from late_interaction.stores.astra.document_searching import DocumentSearcher
from late_interaction.stores.astra.document_writing import DocumentWriter
from late_interaction.stores.astra.fitting import Fitter
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.reductions import Reductions
from late_interaction.stores.astra.schema import Tables


class DocumentParts(NamedTuple):
    """Its reductions, and what searches, writes and fits."""

    reductions: Reductions
    searcher: DocumentSearcher
    writer: DocumentWriter
    fitter: Fitter


async def document_parts(
    client: DataApiClient, catalogue: Catalogue, tables: Tables, reader: Reader, limits: Limits, location: str
) -> DocumentParts:
    """Return the parts, once the state of the reductions is read."""
    reductions = Reductions(client, catalogue, tables, location, limits)
    await reductions.refresh()
    writer = DocumentWriter(client, tables, reader, limits, location, reductions)
    return DocumentParts(
        reductions,
        DocumentSearcher(client, tables, reader, reductions, limits),
        writer,
        Fitter(client, tables, reader, writer, reductions, limits, location),
    )
