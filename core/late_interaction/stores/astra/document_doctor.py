"""Examine an index with document vectors: whether each is that of its document, and what stage 1 finds by them.

The recall of stage 1 is measured on the collection itself: the vectors of sampled documents are the queries, and the
exact top 10 are those of the 1,000 documents that one ANN query lists at most. That is not the recall on your own
queries, but it falls when the collection has become another than the one that the reduction was fitted to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from late_interaction.maxsim import maxsim
from late_interaction.stores.astra.client import Row
from late_interaction.stores.astra.documents import DocumentParts
from late_interaction.stores.astra.health import TIE
from late_interaction.stores.astra.reading import Reader
from late_interaction.stores.astra.scaling import MAX_ANN_ROWS, documents_scaling
from late_interaction.stores.astra.tasks import for_each_concurrently
from late_interaction.types import QueryVectors, RaggedTokens

if TYPE_CHECKING:
    from late_interaction.stores.astra.doctor import Patient

_QUERIES = 10
_QUERY_TOKENS = 32
_K = 10


class DocumentExam:
    """Examines what differs from an index with token rows.

    Args:
        patient: the index, and the health that what is found goes into.
        parts: of the index.
        reader: of its docs table.
    """

    def __init__(self, patient: Patient, parts: DocumentParts, reader: Reader) -> None:
        self._patient, self._parts, self._reader = patient, parts, reader
        self._wrong_vectors: set[str] = set()

    async def read_everything(self, *, show_progress: bool) -> None:
        """Read every row: declared columns, and which version and reduction each vector is of."""
        patient, live = self._patient, self._parts.reductions.fitted.live

        def look_at(row: Row) -> None:
            if row["generation"] <= patient.under_way and not _is_right(row, live):
                self._wrong_vectors.add(row["doc_id"])

        stale = await patient.read_documents(
            show_progress=show_progress, columns=("reduction", "vector_of"), look_at=look_at
        )
        patient.health.stale = sorted(stale | self._wrong_vectors)

    async def look_up(self, doc_ids: Sequence[str], rng: random.Random) -> None:
        """Look up the vectors of documents, which should find themselves first; then measure stage 1."""
        rows = await self._patient.sampled(doc_ids, ("reduction", "vector_of"))
        if not self._parts.reductions.fitted.live:
            return
        with_tokens = [row for row in rows if row["n_tokens"]]
        await for_each_concurrently(self._look_up_one, with_tokens, self._patient.client.concurrency)
        for row in with_tokens[:_QUERIES]:
            await self._measure(row)

    async def _look_up_one(self, row: Row) -> None:
        health, live = self._patient.health, self._parts.reductions.fitted.live
        matrix = self._patient.unpacked(row)
        if matrix is None:
            return
        if not _is_right(row, live):
            if row["generation"] <= self._patient.under_way and row["doc_id"] not in health.stale:
                health.stale.append(row["doc_id"])
            return
        reduction = await self._parts.reductions.get(row["reduction"])
        if reduction is None:
            return
        vector = reduction.documents(RaggedTokens.from_matrices([matrix]))[0]
        found = await self._parts.searcher.nearest(vector, _K, None, ("doc_id", "reduction"))
        similarities = [one["$similarity"] for one in found]
        itself = [one["$similarity"] for one in found if one["doc_id"] == row["doc_id"]]
        is_found = bool(itself) or min(similarities, default=0.0) >= 1 - TIE
        health.looked_up(similarities, itself, is_found=is_found)

    async def _measure(self, row: Row) -> None:
        """Compare the top 10 of the default candidates with those of as many as there can be."""
        health = self._patient.health
        matrix = self._patient.unpacked(row)
        if matrix is None:
            return
        matrix = matrix[:_QUERY_TOKENS]
        query = QueryVectors(matrix, np.ones(len(matrix), np.float32))
        by_vector = await self._ranked(query)
        there, tokens = await self._reader.matrices(by_vector)
        scores = maxsim(query.vectors, tokens, query.weights)
        best = {there[i] for i in np.argsort(-scores, kind="stable")[:_K]}
        n = documents_scaling(self._parts.fitter.about).n_maxsim_candidates(_K)
        health.expected_in_top += len(best)
        health.found_in_top += len(best & set(by_vector[:n]))

    async def _ranked(self, query: QueryVectors) -> list[str]:
        """Return up to 1,000 documents, those first that stage 1 would hand over first."""
        ranked: dict[str, float] = {}
        for generation in self._parts.reductions.fitted.live:
            reduction = await self._parts.reductions.get(generation)
            if reduction is not None:
                vector = reduction.query(query)
                found = await self._parts.searcher.nearest(
                    vector, MAX_ANN_ROWS, None, ("doc_id", "reduction")
                )
                ranked.update(
                    (one["doc_id"], one["$similarity"]) for one in found if one.get("reduction") == generation
                )
        return sorted(ranked, key=lambda doc_id: -ranked[doc_id])

    async def repair(self) -> None:
        """Remove torn rows, write vectors and declared columns anew, and finish a fit that broke off."""
        health, writer, reductions = self._patient.health, self._parts.writer, self._parts.reductions
        for doc_id in health.torn:
            await writer.remove_torn_document(doc_id)
        fitted = await reductions.refresh()
        if fitted.live and self._wrong_vectors:
            newest = fitted.live[-1]
            reduction = await reductions.get(newest)
            if reduction is not None:
                await writer.write_vectors(sorted(self._wrong_vectors), newest, reduction)
        await writer.restore_columns(health.stale)
        await self._parts.fitter.settle()
        health.repaired += health.leftovers
        health.stale, health.torn = [], []


def _is_right(row: Row, live: Sequence[int]) -> bool:
    """Tell whether a row's vector is one of its document's: by a live reduction, of the row's own version."""
    if not row["n_tokens"] or not live:
        return True
    return row.get("reduction") in live and row.get("vector_of") == row["generation"]
