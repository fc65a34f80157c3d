"""What the API is asked and what it answers, as pydantic models: the OpenAPI document is made of them."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator

from late_interaction.errors import RowFailure
from late_interaction.explain import DocumentToken, Pair, QueryToken, Span, Word
from late_interaction.images.loading import ImageSource, NamedImage
from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY
from late_interaction.options import NUM_WORKERS, IdsOf, Mode, OnError, RowOptions, SearchOptions
from late_interaction.pipeline import Query
from late_interaction.rows import RESERVED
from late_interaction.types import SearchStats

MAX_K = 1_000
MAX_EXPLAINED = 100
MAX_QUERY = 20_000
MAX_ROWS = 1_000
MAX_WORKERS = 32
_PICTURE = re.compile(r"data:image/(png|jpeg|webp|gif|avif);base64,[A-Za-z0-9+/=]+")
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE | re.ASCII)

Id: TypeAlias = str | int
_Filter = Annotated[
    dict[str, Any] | None,
    Field(description="Only documents whose metadata match.", examples=[{"year": {"$gte": 2000}}]),
]


class Asked(BaseModel):
    """A request: no field that is not known, and no value that has to be converted."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class QueryRequest(Asked):
    """What to look for: a text, or with a visual model an image."""

    query: Annotated[str, Field(max_length=MAX_QUERY)] | None = None
    """A text."""
    image: str | None = None
    """An image instead: the base64 of a file, or a data URI."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.query is None) == (self.image is None):
            raise ValueError("give either query or image")
        return self

    def asked(self) -> Query:
        """Return the query as a pipeline takes it.

        Raises:
            ValueError: the image is not base64.
        """
        return cast("str", self.query) if self.image is None else image_bytes(self.image)


class SearchQuery(QueryRequest):
    """A search. What is not given has the library's default."""

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    """How many documents."""
    filter: _Filter = None
    ids: Annotated[list[Id], Field(max_length=10_000)] | None = None
    """Only the documents of these ids; each of them is scored exactly."""
    exact: bool = False
    """Search on until the top k is certain."""
    group_by: str | None = None
    """Only the best document of each value of this metadata field."""
    distinct: bool = False
    """Only one document of each content, the best."""
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    """Leave out so many of the best, such as `k` for a second page."""
    mode: Mode = "late"
    """Search by token vectors, by the query's words, or by both."""
    lexical_weight: Annotated[float, Field(ge=0, le=1)] | None = None
    """How much the words count in a hybrid search; 0.3 by default."""
    n_ann_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Stored tokens to look at for each query vector; by default it grows with k."""
    n_maxsim_candidates: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Documents to score exactly; by default it grows with k."""

    def options(self) -> SearchOptions:
        """Return the options that were given."""
        given = self.model_fields_set & SearchOptions.__annotations__.keys()
        return cast("SearchOptions", {name: getattr(self, name) for name in given})


class SearchRequest(SearchQuery):
    """A search, and whether its results are to be explained."""

    explain: bool = False
    """Tell which words, or which parts of an image, gave each result its score; for at most 100 results."""

    @model_validator(mode="after")
    def _not_too_many_explained(self) -> Self:
        if self.explain and self.k > MAX_EXPLAINED:
            raise ValueError(
                f"explain is for a k of {MAX_EXPLAINED} at most: each document is encoded once more"
            )
        return self


class ExplainRequest(QueryRequest):
    """A document to explain."""

    doc_id: Id
    """The document, found by a search or not."""


class NewDocument(Asked):
    """A document to add, in place of one of the same id."""

    content: str | None = None
    """Its text; of an image its caption."""
    doc_id: Id | None = None
    """Its id; without one it gets one, by `ids`."""
    image: str | None = None
    """An image to encode, for a visual model: base64, a data URI, or, where the server allows it, a URL."""
    metadata: dict[str, Any] = {}
    """Plain values by name; a date is a text of ISO 8601, which filters take for the instant that it means."""

    def row(self) -> dict[str, Any]:
        """Return the row for a pipeline.

        Raises:
            ValueError: a name in the metadata is taken, or the image is neither base64 nor a URL.
        """
        if taken := [name for name in RESERVED if name in self.metadata]:
            raise ValueError(
                f"metadata cannot have the name {taken[0]!r}: it is a field of the document's own."
            )
        row: dict[str, Any] = dict(self.metadata)
        for name in ("content", "doc_id"):
            if (value := getattr(self, name)) is not None:
                row[name] = value
        if self.image is not None:
            row["image"] = _image(self.image)
        return row


class AddRequest(Asked):
    """Documents to add."""

    documents: Annotated[list[NewDocument], Field(min_length=1, max_length=MAX_ROWS)]
    """They go in wholly or not at all, each for itself."""
    batch_size: Annotated[int, Field(ge=1, le=MAX_ROWS)] = 128
    """Most documents that are encoded and written together."""
    skip_existing: bool = False
    """Leave documents alone whose id is in the index already."""
    on_error: OnError = "continue"
    """What a bad document does: the others are added and the answer is an error ("continue"), nothing is added
    ("raise"), or the answer has it among its failures ("skip")."""
    ids: IdsOf = "random"
    """What id a document without one gets: a random one, or one made of its content and metadata."""
    num_workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)] = NUM_WORKERS
    """How many images are read at a time."""

    def options(self) -> RowOptions:
        """Return the options that were given."""
        given = self.model_fields_set & RowOptions.__annotations__.keys()
        return cast("RowOptions", {name: getattr(self, name) for name in given})


class DeleteRequest(Asked):
    """Documents to delete: by their ids, or all that match a filter."""

    ids: Annotated[list[Id], Field(max_length=10_000)] | None = None
    filter: _Filter = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.ids is None) == (self.filter is None):
            raise ValueError("give either ids or filter")
        return self


class Answer(BaseModel):
    """An answer, made of what has its fields as attributes."""

    model_config = ConfigDict(from_attributes=True, use_attribute_docstrings=True)


class ExplanationAnswer(Answer):
    """Which tokens of a document answered which of the query; each of the lists adds up to the score."""

    doc_id: str
    query: str | None
    content: str
    content_type: str
    score: float
    query_tokens: list[QueryToken]
    document_tokens: list[DocumentToken]
    pairs: list[Pair]
    words: list[Word]
    query_words: list[Word]
    notes: list[str]
    lexical: float | None
    hits: list[Span]


class DocumentAnswer(Answer):
    """A stored document."""

    doc_id: str
    content: str
    content_type: str
    metadata: dict[str, Any]


class ResultAnswer(DocumentAnswer):
    """A document found; see `SearchResult`."""

    score: float
    late_score: float | None
    lexical_score: float | None
    explanation: ExplanationAnswer | None = None


class SearchAnswer(Answer):
    """What was found, best first, and how the search went."""

    results: list[ResultAnswer]
    stats: SearchStats


class DocumentsAnswer(Answer):
    """A page of documents."""

    documents: list[DocumentAnswer]
    total: int
    """How many there are that match."""


class AddAnswer(Answer):
    """What was added."""

    ids: list[str]
    """The id of each document, in order; those that failed left out."""
    truncated: dict[str, float | None]
    """How much of a document was too long for the model, by id: a share, or null where it cannot tell."""
    failures: list[RowFailure]
    """What was left out, with `on_error="skip"`."""


class DeleteAnswer(Answer):
    """How many documents were deleted."""

    deleted: int


class IndexAnswer(Answer):
    """What is served."""

    index: str
    documents: int
    model: str
    images: bool
    """Whether the model encodes images."""
    modes: list[Mode]
    writes: bool
    """Whether documents may be added and deleted."""
    fields: dict[str, list[str | int | bool]]
    """Metadata fields that have few values, from a sample."""
    version: str
    """Of late-interaction."""


class HealthAnswer(Answer):
    """The index answers."""

    status: Literal["ok"] = "ok"


class Problem(BaseModel):
    """An error (RFC 9457)."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str


def image_bytes(text: str) -> bytes:
    """Return the file in a text of base64, which may be a data URI.

    Raises:
        ValueError: it is neither.
    """
    try:
        return base64.b64decode("".join(_DATA_URI.sub("", text, count=1).split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("the image must be base64 or a data URI.") from None


def _image(text: str) -> ImageSource:
    """Return an image that a client sent: what is no URL is base64, and never the path of a file on this machine."""
    if re.match(r"https?://", text, re.IGNORECASE):
        return text
    data = image_bytes(text)
    # An image without a name of its own is read again by its document's content, which may be a path.
    return NamedImage(data, f"sent:{hashlib.sha256(data).hexdigest()}")


def stored_picture(metadata: Mapping[str, Any]) -> str | None:
    """Return the picture that is stored in metadata, as a data URI that is safe to show; None where there is none."""
    stored = (metadata.get(key) for key in (THUMBNAIL_KEY, IMAGE_KEY))
    return next((uri for uri in stored if isinstance(uri, str) and _PICTURE.fullmatch(uri)), None)
