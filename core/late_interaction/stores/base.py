"""The one seam: what a store must do. Everything that differs between engines stands behind it."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.candidates import Scaling
from late_interaction.filters import Filter
from late_interaction.maxsim import maxsim
from late_interaction.types import Document, EncodedDocument, IndexSpec, QueryVectors, RaggedTokens


@dataclass(frozen=True, slots=True)
class Candidates:
    """What stage 1 found, best first.

    Attributes:
        doc_ids: the candidates.
        scores: (n,) float32, approximate MaxSim, or exact where `exact` says so.
        exact: (n,) bool: this document's score is its exact MaxSim already; stage 2 need not score it.
        bound: no document that is neither among the candidates nor was scored exactly has a higher score; minus
            infinity where there is none, infinity where the engine cannot tell.
        n_ann_tokens: the depth used per query vector; None where every document was scored.
    """

    doc_ids: list[str]
    scores: NDArray[np.float32]
    exact: NDArray[np.bool_]
    bound: float
    n_ann_tokens: int | None

    @property
    def exhausted(self) -> bool:
        """Every document that the filter leaves is among the candidates or was scored exactly."""
        return self.bound == -math.inf


class Store(ABC):
    """Documents and their token matrices, and the candidates of a query.

    Every method is safe to call from several tasks at once. A method that fails raises `StoreError` or one
    of its children and leaves every document either as it was or as it was asked to be.
    """

    scaling: Scaling
    """How stage-1 parameters grow with k on this engine, and their limits."""

    name: str
    """The index's name."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the index is, for messages; without secrets."""

    @abstractmethod
    async def spec(self) -> IndexSpec | None:
        """What the index that is there was built with; None where there is no index. Creates nothing."""

    @abstractmethod
    async def open(self, spec: IndexSpec) -> None:
        """Create the index, or attach to it.

        Raises:
            IndexMismatchError: what is there was built with another spec.
        """

    @abstractmethod
    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write documents; each wholly or not at all. Idempotent; the last write of an id wins.

        Ids are unique within the call.

        Raises:
            DocumentError: the store does not take some of the documents, and says why; the others are written.
            StoreWriteError: the store failed when it had written some documents, and says which.
        """

    @abstractmethod
    async def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Stage 1: up to `n` documents that may score best, best first.

        Args:
            query: the pooled query.
            n: how many documents to hand over at most, those already scored exactly not counted.
            n_ann_tokens: how many stored tokens to look at for each query vector; None to score every document
                exactly, however many there are.
            filter: only documents whose metadata match.
        """

    @abstractmethod
    async def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """The token matrices of documents, in the order asked.

        Returns:
            The ids that are there (a document deleted meanwhile is left out), and their matrices.
        """

    async def score(
        self, query: QueryVectors, doc_ids: Sequence[str]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Stage 2: the exact MaxSim of documents, in the order asked.

        Returns:
            The ids that are there, and (n,) scores.
        """
        there, documents = await self.matrices(doc_ids)
        return there, await asyncio.to_thread(maxsim, query.vectors, documents, query.weights)

    @abstractmethod
    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """The stored documents, in the order asked; ids that are not there are left out."""

    @abstractmethod
    async def find(self, filter: Filter | None = None, *, limit: int | None = None) -> list[Document]:
        """Documents whose metadata match, in the order they were written; no vectors involved.

        Which ones a `limit` leaves is up to the store.
        """

    @abstractmethod
    async def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Those of the ids that are in the index."""

    @abstractmethod
    def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Every document with its token matrix, in a stable order, `batch_size` at a time."""

    @abstractmethod
    async def update_metadata(self, doc_id: str, metadata: dict[str, Any]) -> bool:
        """Set these metadata keys, leaving the others, content and vectors; False where there is no such id."""

    @abstractmethod
    async def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete documents by id, or all that match a filter; returns how many there were."""

    @abstractmethod
    async def count(self, filter: Filter | None = None) -> int:
        """How many documents there are (that match)."""

    @abstractmethod
    async def clear(self) -> None:
        """Delete every document; the index stays."""

    @abstractmethod
    async def drop(self) -> None:
        """Delete the index, and nothing else; the store is closed by it."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections and locks; may be called twice."""

    @abstractmethod
    async def info(self) -> dict[str, Any]:
        """Counts, sizes and the state of the index, as JSON values by name."""

    @abstractmethod
    async def optimize(self, *, show_progress: bool = False) -> dict[str, Any]:
        """Bring search structures up to date after many writes; return what was done, as JSON values by name."""
