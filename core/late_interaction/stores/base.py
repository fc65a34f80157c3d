"""Store: what an engine must do. Everything that differs between engines stands behind it."""

from __future__ import annotations

import asyncio
import math
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.candidates import Scaling
from late_interaction.cores import side_by_side
from late_interaction.errors import StoreError
from late_interaction.filters import Filter, check_parsed
from late_interaction.maxsim import query_maxsim
from late_interaction.metadata import MetadataChange
from late_interaction.types import (
    Document,
    EncodedDocument,
    FloatMatrix,
    IndexSpec,
    QueryVectors,
    RaggedTokens,
)
from late_interaction.validation import check_positive, check_query

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What stage 1 found, best first.

    How complete it is says `bound`, what no other document's score exceeds:

    | `bound`             | what it means                                         | what the search does              |
    |---------------------|-------------------------------------------------------|-----------------------------------|
    | -infinity           | `exhausted`: every document that the filter leaves is | ends: the top k is certain        |
    |                     | among the candidates, or was scored exactly before    |                                   |
    | a number            | the engine bounds the score of all other documents    | is certain of those that reach it |
    | +infinity           | the engine cannot tell                                | scores everything if `exact=True` |

    Apart from that, `exact` says of each candidate whether its score is exact already.

    Attributes:
        doc_ids: the candidates.
        scores: (n,) float32, approximate MaxSim, or exact where `exact` says so.
        exact: (n,) bool: this document's score is its exact MaxSim already; stage 2 need not score it.
        bound: no document that is neither among the candidates nor was scored exactly has a higher score.
        n_ann_tokens: the depth used per query vector; None where every document was scored.
    """

    doc_ids: list[str]
    scores: NDArray[np.float32]
    exact: NDArray[np.bool_]
    bound: float
    n_ann_tokens: int | None

    @property
    def exhausted(self) -> bool:
        """Whether every document that the filter leaves is among the candidates or was scored exactly."""
        return self.bound == -math.inf


@dataclass(frozen=True, slots=True)
class WordMatches:
    """What a search by words found.

    Attributes:
        best: BM25 of the best documents, by id, best first; of equal ones by id.
        others: BM25 of those documents that were asked about and have one of the words.
        certain: whether every document that has one of the words was looked at, and its BM25 is that of all.
    """

    best: dict[str, float]
    others: dict[str, float]
    certain: bool = True


def check_search(query: object, dim: int, n: object, n_ann_tokens: object, filter: object) -> None:
    """Check the arguments of `candidates`, for an index of vectors of width `dim`.

    Raises:
        TypeError, ValueError: one is not what the signature says.
    """
    check_query(query, dim)
    check_positive("n", n)
    if n_ann_tokens is not None:
        check_positive("n_ann_tokens", n_ann_tokens)
    check_parsed(filter)


class Store(ABC):
    """Documents and their token matrices, and the candidates of a query.

    Every method is safe to call from several tasks at once. A method that fails raises `StoreError` or one
    of its children and leaves every document either as it was or as it was asked to be.
    """

    name: str
    """The index's name."""

    @property
    @abstractmethod
    def scaling(self) -> Scaling:
        """How stage-1 parameters grow with k on this engine, and their limits; a class attribute will do."""

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the index is, for messages; without secrets."""

    @property
    def epoch(self) -> int:
        """How often another index was found in the place of the open one. A search that sees it move is repeated."""
        return 0

    @abstractmethod
    async def spec(self) -> IndexSpec | None:
        """Return the spec of the existing index, or None. Never creates one."""

    @abstractmethod
    async def open(self, spec: IndexSpec) -> None:
        """Create the index, or attach to it.

        Raises:
            IndexMismatchError: the existing index was built with another spec.
        """

    def check(self, document: Document) -> None:  # noqa: B027 - a store may take every document
        """Check that the store takes a document, as far as that can be told without its vectors.

        Raises:
            ValueError: it does not; the message says why.
        """

    @abstractmethod
    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write documents; each wholly or not at all. Idempotent; the last write of an id wins.

        Ids are unique within the call. A document whose matrix has no rows is in the index like any other, but not
        among the candidates of any query.

        Raises:
            DocumentError: the store does not take some of the documents, and says why; the others are written.
            StoreWriteError: the store failed when it had written some documents, and says which.
        """

    def waited(self) -> Mapping[str, float]:
        """Return the seconds that writes and reads have waited so far, by what for, such as "network"; {} if untold.

        They are added up over requests side by side, so that their shares mean something, and not their sum.
        """
        return {}

    async def together(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do reads that follow each other and wait for nothing else; an engine may do them all in one thread."""
        return await work()

    @abstractmethod
    async def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Do stage 1: return up to `n` documents that may score best, best first.

        Args:
            query: the pooled query.
            n: how many documents to hand over at most, those already scored exactly not counted.
            n_ann_tokens: how many stored tokens to look at for each query vector; None to score every document
                exactly, however many there are.
            filter: only documents whose metadata match.
        """

    async def lexical(
        self, text: str, n: int, *, filter: Filter | None = None, also: Sequence[str] = ()
    ) -> WordMatches:
        """Return the `n` best documents by their words, and how well others have the words.

        A document has to have one word of the text, and like a candidate it has vectors.

        Args:
            text: the query. Nothing in it is syntax.
            n: how many documents at most.
            filter: only documents whose metadata match.
            also: documents to score beside, filter or not.

        Raises:
            StoreError: the engine, or this index, has no index of words.
        """
        raise StoreError(
            f'{type(self).__name__} searches by vectors alone: mode="lexical" and "hybrid" need an index of words, '
            "which an index in a folder has, and one on Astra that was made with lexical=True."
        )

    async def having_rare_words(self, text: str, *, filter: Filter | None = None) -> list[str]:
        """Return documents that have a word of a text which few have, those of the rarest words first.

        They are candidates beside those of `candidates`, which may misjudge a vector that is like few others. An engine
        without an index of words has none.

        Args:
            text: the query. Nothing in it is syntax.
            filter: only documents whose metadata match.
        """
        return []

    @abstractmethod
    async def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Return the token matrices of documents, in the order asked.

        Returns:
            The ids that are in the index (a document deleted meanwhile is left out, and so is a blank one, which has
            no vectors), and their matrices.
        """

    async def score(
        self, query: QueryVectors, doc_ids: Sequence[str]
    ) -> tuple[list[str], NDArray[np.float32]]:
        """Do stage 2: return the exact MaxSim of documents, in the order asked.

        Returns:
            The ids that are in the index, and (n,) scores.
        """
        there, documents = await self.matrices(doc_ids)
        return there, await asyncio.to_thread(side_by_side()(query_maxsim), query, documents)

    @abstractmethod
    async def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Return stored documents, in the order asked; ids that are not in the index are left out."""

    @abstractmethod
    async def find(
        self, filter: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Return documents whose metadata match, in the order they were written; no vectors involved.

        Which ones an `offset` leaves out, and which of the others a `limit` leaves, is up to the store; while nothing
        is written, pages of both hold each document once.
        """

    @abstractmethod
    async def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the index."""

    @abstractmethod
    def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Yield every document with its token matrix, in a stable order, `batch_size` at a time."""

    @abstractmethod
    async def update_metadata(self, selection: str | Filter, change: MetadataChange | dict[str, Any]) -> int:
        """Change the metadata of a document, or of all that match a filter; content and vectors stay.

        Args:
            selection: an id, or a filter.
            change: what to change, or a dict of keys to set.

        Returns:
            How many documents there were; for an id True or False.
        """

    @abstractmethod
    async def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete documents by id, or all that match a filter; returns how many there were."""

    @abstractmethod
    async def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are (that match)."""

    @abstractmethod
    async def clear(self) -> None:
        """Delete every document; the index stays."""

    @abstractmethod
    async def drop(self) -> None:
        """Delete the index, and nothing else; the store is closed by it."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections and release locks; may be called twice."""

    @abstractmethod
    async def info(self) -> dict[str, Any]:
        """Return counts, sizes and the state of the index, as JSON values by name."""

    async def take_after(self, source: Store) -> None:  # noqa: B027
        """Get ready to be the copy of another store, which is open: what that has beside its spec, a new index gets."""

    def use_query_encoder(self, encode: Callable[[Sequence[str]], Awaitable[list[FloatMatrix]]]) -> None:  # noqa: B027
        """Take what encodes texts as queries, for a store that fits itself to the queries of its collection."""

    async def fit_candidates(
        self, sample: FloatMatrix | None = None, *, show_progress: bool = False
    ) -> dict[str, Any]:
        """Fit anew what stage 1 learns from the collection; return what was done, as JSON values by name.

        Args:
            sample: (n, dim) token vectors of queries; None for those of the documents.
            show_progress: show a progress bar.

        Raises:
            StoreError: there is nothing to fit; by default always.
        """
        raise StoreError(
            f"{self.location} has no document vectors to fit: only an index on Astra made with "
            'candidates="documents" does.'
        )

    @abstractmethod
    async def optimize(self, *, show_progress: bool = False) -> dict[str, Any]:
        """Bring search structures up to date after many writes; return what was done, as JSON values by name."""
