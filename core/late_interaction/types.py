"""The plain data that travels between the modules: documents, token matrices, queries, results, an index's spec."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, SupportsIndex, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import LateInteractionError, RowFailure, StoreError

if TYPE_CHECKING:
    from late_interaction.explain import Explanation

FloatMatrix: TypeAlias = NDArray[np.float32]
DocId: TypeAlias = "str | uuid.UUID | int"
PackingDtype: TypeAlias = Literal["int8", "float16", "float32"]
CandidatesBy: TypeAlias = Literal["tokens", "documents"]


@dataclass(frozen=True, slots=True)
class Document:
    """A stored document.

    Attributes:
        doc_id: its id, unique in the index.
        content: its text, or, for another content type, what stands for it (a path, a caption).
        content_type: "text" or "image".
        metadata: plain values by key (see `late_interaction.metadata`); types are kept.
        mark: where `sync` has it from, which is stored beside the metadata; None for a document of another call.
    """

    doc_id: str
    content: str
    content_type: str = "text"
    metadata: dict[str, Any] = field(default_factory=dict)
    mark: Mapping[str, Any] | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EncodedDocument:
    """A document with its token matrix, as a store takes it.

    Attributes:
        document: the document.
        matrix: (n_tokens, dim) float32, unit rows; (0, dim) of a text that is blank or has no token,
            which no search finds.
    """

    document: Document
    matrix: FloatMatrix


class IndexedIds(list[str]):
    """The ids of the documents that were indexed, in the order of their rows: a list, and what it does not say.

    Attributes:
        truncated: of each document that was not encoded to its end, by id, how much of it was not: a share of its
            characters, from 0 to 1, or None where the model cannot tell.
        failures: the rows that were left out (`on_error="skip"`), each with its position and the reason.
    """

    def __init__(
        self,
        ids: Iterable[str] = (),
        truncated: Mapping[str, float | None] | None = None,
        failures: Iterable[RowFailure] = (),
    ) -> None:
        super().__init__(ids)
        self.truncated: dict[str, float | None] = dict(truncated or {})
        self.failures: list[RowFailure] = list(failures)


@dataclass(frozen=True, slots=True)
class QueryVectors:
    """A query as the search takes it: vectors, and how many query tokens each one stands for.

    Attributes:
        vectors: (n, dim) float32, unit rows, n ≥ 1.
        weights: (n,) float32, > 0. 1 for a token; a pooled vector carries its cluster's size.
        closest: (n,) float32, each vector's highest similarity to a vector of the documents that were scored so far;
            minus infinity before. `query_maxsim` raises it.
    """

    vectors: FloatMatrix
    weights: NDArray[np.float32]
    closest: NDArray[np.float32] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "closest", np.full(len(self.vectors), -np.inf, np.float32))


@dataclass(frozen=True, slots=True)
class RaggedTokens:
    """Token matrices of many documents in one packed array: never padded, never a list of arrays.

    Document i is rows `offsets[i]:offsets[i + 1]`. Rows are float32, or as stored (float16, or int8 codes
    with a scale per row: row r is `tokens[r] * scales[r]`), so that scoring can widen them a tile at a time.

    Attributes:
        tokens: (n_tokens, dim) float32, float16 or int8.
        offsets: (n_docs + 1,) int64, ascending from 0; no document is empty.
        scales: (n_tokens,) float32 for int8 tokens, else None.
    """

    tokens: NDArray[Any]
    offsets: NDArray[np.int64]
    scales: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.tokens.ndim != 2:
            raise ValueError(f"tokens must have shape (n_tokens, dim), not {self.tokens.shape}.")
        if len(self.offsets) == 0 or self.offsets[0] != 0 or self.offsets[-1] != len(self.tokens):
            raise ValueError(f"offsets must run from 0 to the number of tokens, {len(self.tokens)}.")
        if np.any(np.diff(self.offsets) <= 0):
            raise ValueError("every document must have at least one token: offsets must strictly ascend.")
        if (self.tokens.dtype == np.int8) != (self.scales is not None):
            raise ValueError("int8 tokens come with scales, other tokens without.")
        if self.scales is not None and self.scales.shape != (len(self.tokens),):
            raise ValueError(f"scales must have shape ({len(self.tokens)},), not {self.scales.shape}.")

    @classmethod
    def from_matrices(cls, matrices: Sequence[FloatMatrix], dim: int | None = None) -> RaggedTokens:
        """Pack float32 matrices; `dim` is needed only where there may be no matrix at all."""
        if not matrices:
            return cls(np.empty((0, dim or 0), np.float32), np.zeros(1, np.int64))
        offsets = np.zeros(len(matrices) + 1, np.int64)
        np.cumsum([len(matrix) for matrix in matrices], out=offsets[1:])
        return cls(np.concatenate(matrices).astype(np.float32, copy=False), offsets)

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self.offsets) - 1

    def matrix(self, index: int) -> FloatMatrix:
        """Return document `index` as a (n_tokens, dim) float32 matrix."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        matrix = self.tokens[rows].astype(np.float32)
        if self.scales is not None:
            matrix *= self.scales[rows, None]
        return matrix


class Found(Protocol):
    """The search that found a result, and can explain it."""

    def explain(self, result: SearchResult) -> Explanation:
        """Explain a result, for callers that are not async."""

    async def aexplain(self, result: SearchResult) -> Explanation:
        """Explain a result."""

    def to_html(self, results: SearchResults) -> str:
        """Return a table of results for a notebook."""


class _Found:
    """The search that found a result: no field, so that it is neither compared, printed, copied nor pickled."""

    __slots__ = ("_found",)
    _found: Found


@dataclass(frozen=True, slots=True)
class SearchResult(_Found):
    """One document found; unpacks as `doc_id, score, content`.

    Attributes:
        score: higher is better: raw MaxSim over the query's tokens; of a lexical search BM25; of a hybrid one both,
            from 0 to 1, relative to the other candidates.
        late_score: MaxSim, of a hybrid search.
        lexical_score: BM25, of a hybrid or lexical search; 0 without any word of the query.
    """

    doc_id: str
    score: float
    content: str
    content_type: str = "text"
    metadata: dict[str, Any] = field(default_factory=dict)
    late_score: float | None = None
    lexical_score: float | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.doc_id, self.score, self.content))

    def explain(self) -> Explanation:
        """Tell which words, or which parts of an image, gave the score; see `LateInteractionPipeline.explain`.

        Of a search by `LateInteractionPipeline`, await `aexplain`.

        Raises:
            LateInteractionError: the result has no search behind it (it was pickled, copied or made by hand), or the
                document was changed since.
        """
        return self._search().explain(self)

    async def aexplain(self) -> Explanation:
        """Await `explain`, for a result of any pipeline."""
        return await self._search().aexplain(self)

    def _search(self) -> Found:
        try:
            return self._found
        except AttributeError:
            raise LateInteractionError(
                f"The result {self.doc_id!r} was pickled, copied or made by hand, so its search cannot be asked: call "
                "explain(query, doc_id) of the pipeline."
            ) from None


FAR = 0.4
"""Below this cosine similarity a query vector is far from all of a document, by default."""


@dataclass(frozen=True, slots=True)
class SearchStats:
    """What a search did.

    Attributes:
        n_query_tokens: query vectors before pooling.
        n_query_vectors: query vectors after pooling.
        n_ann_tokens: stage 1's depth per query vector in the last round; None where the store scored
            every document that the filter leaves.
        n_candidates: documents that stage 1 handed over.
        n_scored: documents scored exactly, over all rounds.
        escalations: rounds beyond the first, each with larger stage-1 parameters.
        certain: True where the top k is proved to be the exact top k of what is stored (on Astra: of what its
            vector index finds); of a hybrid search, where the documents listed by vectors are proved to be the best.
        encode_s, candidates_s, maxsim_s, documents_s: seconds per stage (maxsim_s includes fetching the
            matrices).
        mode: what was searched by.
        lexical_s: seconds for the words.
        closest_similarities: of each query vector, in the order of the query, its highest cosine similarity, -1 to 1,
            to a vector of the documents scored exactly. Empty where no document was scored.
    """

    n_query_tokens: int = 0
    n_query_vectors: int = 0
    n_ann_tokens: int | None = None
    n_candidates: int = 0
    n_scored: int = 0
    escalations: int = 0
    certain: bool = False
    encode_s: float = 0.0
    candidates_s: float = 0.0
    maxsim_s: float = 0.0
    documents_s: float = 0.0
    mode: str = "late"
    lexical_s: float = 0.0
    closest_similarities: tuple[float, ...] = ()

    @property
    def least_similarity(self) -> float | None:
        """The lowest of `closest_similarities`; None where no document was scored."""
        return min(self.closest_similarities, default=None)

    def far_query_vectors(self, below: float = FAR) -> tuple[int, ...]:
        """Return which query vectors, counted from 0 after pooling, have no close vector in any document scored.

        A part of the query, such as a name, may then be in none of the candidates. It is a weak sign, and how close is
        close depends on the model (docs/quality.md).

        >>> SearchStats(closest_similarities=(0.9, 0.3)).far_query_vectors()
        (1,)

        Args:
            below: the cosine similarity from which on a vector is close, -1 to 1.
        """
        return tuple(i for i, similarity in enumerate(self.closest_similarities) if similarity < below)

    @property
    def total_s(self) -> float:
        """Seconds over all stages."""
        return self.encode_s + self.candidates_s + self.maxsim_s + self.documents_s + self.lexical_s


class SearchResults(list[SearchResult]):
    """The documents found, best first, and how the search went.

    Attributes:
        stats: counts and seconds per stage.
    """

    def __init__(self, results: Sequence[SearchResult] = (), stats: SearchStats | None = None) -> None:
        super().__init__(results)
        self.stats = stats if stats is not None else SearchStats()

    @overload
    def __getitem__(self, index: SupportsIndex) -> SearchResult: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: SupportsIndex | slice) -> SearchResult | Self:
        """Return a result, or some of them with the same stats."""
        if isinstance(index, slice):
            return type(self)(super().__getitem__(index), self.stats)
        return super().__getitem__(index)

    def found_by(self, search: Found) -> Self:
        """Give each result the search that explains it; returns these results."""
        for result in self:
            object.__setattr__(result, "_found", search)
        return self

    def _repr_html_(self) -> str | None:
        """Return a table for a notebook; None for results without a search behind them, which are printed."""
        found = getattr(self[0], "_found", None) if self else None
        return None if found is None else found.to_html(self)


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """What an index was built with; an index opens only for the same spec.

    Attributes:
        dim: width of a token vector.
        encoder: the model's fingerprint: JSON values by field.
        pooling: document pooling: algorithm, factor, protected tokens.
        packing: how token matrices are stored.
        format_version: version of the stored layout.
    """

    dim: int
    encoder: Mapping[str, Any]
    pooling: Mapping[str, Any]
    packing: PackingDtype = "int8"
    format_version: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON values."""
        return {
            "dim": self.dim,
            "encoder": dict(self.encoder),
            "pooling": dict(self.pooling),
            "packing": self.packing,
            "format_version": self.format_version,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> IndexSpec:
        """Return the spec that `to_dict` made these values of.

        Raises:
            StoreError: the index is of a newer release, with fields that this one does not know, or the values are not
                those of a spec.
        """
        if not isinstance(values, Mapping):
            raise StoreError(f"What the index was built with is damaged: it is a {type(values).__name__}.")
        if unknown := values.keys() - {field.name for field in fields(cls)}:
            raise StoreError(
                f"The index was made by a newer release of late-interaction: this one does not know its "
                f"{', '.join(sorted(map(str, unknown)))}. Install the newer one."
            )
        spec_types: dict[str, type] = {
            "dim": int, "encoder": Mapping, "pooling": Mapping, "packing": str, "format_version": int
        }  # fmt: skip
        missing = {"dim", "encoder", "pooling"} - values.keys()
        if missing or not all(isinstance(value, spec_types[name]) for name, value in values.items()):
            raise StoreError(
                "What the index was built with is damaged: dim, encoder or pooling is missing, or not of its type."
            )
        return cls(**values)

    def differences(self, wanted: IndexSpec) -> dict[str, tuple[object, object]]:
        """Return each field that differs: name -> (here, wanted). Nested fields are named `encoder.model`.

        A spec made by hand may leave out what says that the vectors come from elsewhere and are not pooled.
        """
        here, there = (_BY_HAND | flatten(spec.to_dict()) for spec in (self, wanted))
        return {
            name: (here.get(name), there.get(name))
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        }


_BY_HAND: dict[str, Any] = {
    "encoder.family": "precomputed",
    "pooling.algorithm": "none",
    "pooling.factor": 1.0,
    "pooling.protected_tokens": 0,
}


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested values in one dict, under names such as `encoder.model`."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat
