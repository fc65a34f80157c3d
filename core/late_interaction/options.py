"""The options of searches, of indexes and of writes: documented here once, checked here once.

Every search, constructor and write takes its options whole, as `**options: Unpack[SearchOptions]`, and hands them on
whole. So a new option is a field of one of these classes, its check and its use; the pipelines, the adapters and the
command line offer it without a change (`tests/unit/test_options.py` sees to that).
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, cast, get_args

from late_interaction.filters import Filter
from late_interaction.images.storing import StoreImages, check_store_images
from late_interaction.packing import check_packing
from late_interaction.types import CandidatesBy, DocId, PackingDtype
from late_interaction.validation import check_flag, check_one_of, check_positive, check_seconds, shown

F = TypeVar("F", bound=Callable[..., Any])
FilterSpec: TypeAlias = Mapping[str, Any] | Filter
OnError: TypeAlias = Literal["continue", "raise", "skip"]
IdsOf: TypeAlias = Literal["random", "content"]
Mode: TypeAlias = Literal["late", "hybrid", "lexical"]

BATCH_SIZE = 128
"""Documents encoded and written together at most, by default."""
NUM_WORKERS = 4
"""Images read at a time, by default."""


class SearchOptions(TypedDict, total=False):
    """Options of a search. None is the default of each but `exact`, `distinct`, `offset` and `mode`.

    Attributes:
        n_ann_tokens: stored tokens to look at for each query vector; by default it grows with `k`.
        n_maxsim_candidates: documents to score exactly; by default it grows with `k`. The defaults are the store's,
            fitted so that at least 97 % of the exact top k are found. In a folder, documents that have a word of the
            query which few have come beside.
        filter: only documents whose metadata match, for example `{"year": {"$gte": 2000}, "lang": "en"}`
            (`late_interaction.filters` has the language).
        ids: only the documents of these ids; each of them is scored exactly.
        exact: search on until the top k is certain, however long it takes; False by default.
        group_by: a metadata field, such as "source": only the best document of each of its values, `k` of them. Stage 1
            looks deeper until there are so many. A document without the field is a group of its own.
        distinct: only one document of each content, the best; False by default.
        offset: leave out so many of the best, such as `k` for a second page; 0 by default. The search is as deep as for
            `k + offset` documents, so that a page of an approximate search may hold what the one before it missed.
        mode: what to search by: "late" (the default), token vectors; "lexical", the query's words, by BM25, without the
            model; "hybrid", both: the 100 best of either (`k`, where it is more) are scored by both, and their scores,
            scaled to 0 … 1, are added (`late_interaction.fusion`). `exact` makes the list by vectors exact.
        lexical_weight: how much the words count in a hybrid search, from 0 to 1; 0.3 by default. Not with other modes.
    """

    n_ann_tokens: int | None
    n_maxsim_candidates: int | None
    filter: FilterSpec | None
    ids: Sequence[DocId] | None
    exact: bool
    group_by: str | None
    distinct: bool
    offset: int
    mode: Mode
    lexical_weight: float | None


class IndexOptions(TypedDict, total=False):
    """Options of an index and of the pipeline on it.

    Attributes:
        doc_pool_factor: documents keep about one vector in so many (≥ 1; 1 keeps every vector), 2 by default; those
            longer than the model reads at once one in twice as many, unless it is 1. Part of the index.
        query_pool_distance: query vectors closer than this cosine distance are pooled, 0.03 by default; 0 keeps every
            vector.
        packing: how token matrices are stored: "int8" (the default), "float16" or "float32". Part of the index.
        concurrency: how many searches and writes of this pipeline are in flight at a time, 16 by default.
        filterable: metadata fields that a database looks up, and their types, such as `{"year": int}`; see
            `AstraStore`. A folder looks up every field, declared or not. Not with a `Store`, which has its own.
        retry_for_s: seconds for which requests to a database that were lost are sent again until a call fails; None for
            60 in calls that write and 15 in those that read. Not with a `Store`, which has its own; a folder has none.
        candidates: how an index on Astra finds candidates: by "tokens", a row for each stored vector, or "documents",
            one learned vector a document (docs/astra.md says which when). Part of the index; None, the default, opens
            either and makes the first. A folder always goes by tokens. Not with a `Store`, which has its own.
        lexical: whether an index on Astra has an index of words, for `mode="hybrid"` and "lexical", which takes the
            service's text index. Part of the index; None, the default, opens either and makes one without. A folder
            always has one. Not with a `Store`, which has its own.
        store_images: what is stored of an image beside its vectors. "reference" (the default) is its path or URL under
            the metadata key "image"; "thumbnail" is that and a JPEG of at most 512 pixels as a data URI under
            "thumbnail"; "full" is the image itself as a data URI under "image", refused above 6 MB. An image that has
            no path or URL leaves nothing with "reference".
        allow_urls: fetch images of rows that give a URL, from public addresses only (see `load_image`); False by
            default.
        image_root: the folder that relative paths of images begin in, those of rows and those that are stored, such as
            what `sync` stores; None, the default, is the working directory.
        must_exist: raise `IndexNotFoundError` at the first use where there is no index yet, rather than make one; False
            by default.
    """

    doc_pool_factor: float
    query_pool_distance: float
    packing: PackingDtype
    concurrency: int
    filterable: Mapping[str, Any] | None
    retry_for_s: float | None
    candidates: CandidatesBy | None
    lexical: bool | None
    store_images: StoreImages
    allow_urls: bool
    image_root: str | os.PathLike[str] | None
    must_exist: bool


class WriteOptions(TypedDict, total=False):
    """Options of a call that writes many documents.

    Attributes:
        batch_size: most documents that are encoded and written together, 128 by default. There are fewer where rows
            take long to encode, so that progress shows and an interruption loses little, or hold much text.
        show_progress: show a progress bar; False by default.
        skip_existing: leave documents alone whose id is in the index already; False by default. With stable ids, a run
            that was interrupted then does only what is missing.
    """

    batch_size: int
    show_progress: bool
    skip_existing: bool


class RowOptions(WriteOptions, total=False):
    """Options of a call that indexes rows: those of `WriteOptions`, and three more.

    Attributes:
        on_error: what a bad row does. "continue" (the default; that of the adapters is "raise") indexes the others and
            then raises `DocumentError`. "raise" checks all rows, their images too, before the first is written, and
            writes nothing more once a row has failed; all rows are in memory then, and images that are not pages of a
            PDF are read twice. "skip" indexes the others, logs how many were left out, and returns them as `.failures`.
        ids: what id a row without one gets. "random" (the default), or "content": one made of its content and
            metadata (a UUID of version 5), so that the same row replaces itself when a run is done again.
        num_workers: how many images are read, and pages of PDF files rendered, at a time, 4 by default. They are at
            most two batches, and about 72 million pixels, ahead of the encoder: the rows of the next batches are taken
            while one with images is encoded.
    """

    on_error: OnError
    ids: IdsOf
    num_workers: int


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """`IndexOptions` with the defaults filled in, checked. The fields are documented there."""

    doc_pool_factor: float = 2
    query_pool_distance: float = 0.03
    packing: PackingDtype = "int8"
    concurrency: int = 16
    filterable: Mapping[str, Any] | None = None
    retry_for_s: float | None = None
    candidates: CandidatesBy | None = None
    lexical: bool | None = None
    store_images: StoreImages = "reference"
    allow_urls: bool = False
    image_root: str | os.PathLike[str] | None = None
    must_exist: bool = False

    @classmethod
    def of(cls, options: IndexOptions) -> IndexSettings:
        """Check options and fill in the defaults.

        Raises:
            TypeError: there is no such option, or a value is of another type.
            ValueError: a value is out of range.
        """
        check_names(IndexOptions, options)
        return cls(**options)

    def __post_init__(self) -> None:
        _check_number("doc_pool_factor", self.doc_pool_factor, 1)
        _check_number("query_pool_distance", self.query_pool_distance, 0, finite=False)
        check_packing(self.packing)
        check_positive("concurrency", self.concurrency)
        if self.retry_for_s is not None:
            check_seconds("retry_for_s", self.retry_for_s)
        if self.candidates is not None:
            check_one_of("candidates", self.candidates, get_args(CandidatesBy))
        if self.lexical is not None:
            check_flag("lexical", self.lexical)
        check_store_images(self.store_images)
        check_flag("allow_urls", self.allow_urls)
        if self.image_root is not None and not isinstance(self.image_root, str | os.PathLike):
            raise TypeError(f"image_root must be a path, not {shown(self.image_root)}.")
        check_flag("must_exist", self.must_exist)


@dataclass(frozen=True, slots=True)
class WriteSettings:
    """`WriteOptions` with the defaults filled in, checked. The fields are documented there."""

    batch_size: int = BATCH_SIZE
    show_progress: bool = False
    skip_existing: bool = False

    @classmethod
    def of(cls, options: WriteOptions) -> WriteSettings:
        """Check options and fill in the defaults; raises as `IndexSettings.of`."""
        check_names(WriteOptions, options)
        return cls(**options)

    def __post_init__(self) -> None:
        check_positive("batch_size", self.batch_size)
        check_flag("show_progress", self.show_progress)
        check_flag("skip_existing", self.skip_existing)


@dataclass(frozen=True, slots=True)
class RowSettings(WriteSettings):
    """`RowOptions` with the defaults filled in, checked. The fields are documented there."""

    on_error: OnError = "continue"
    ids: IdsOf = "random"
    num_workers: int = NUM_WORKERS

    @classmethod
    def of(cls, options: RowOptions) -> RowSettings:  # type: ignore[override]
        """Check options and fill in the defaults; raises as `IndexSettings.of`."""
        check_names(RowOptions, options)
        return cls(**options)

    def __post_init__(self) -> None:
        WriteSettings.__post_init__(self)
        check_one_of("on_error", self.on_error, get_args(OnError))
        check_one_of("ids", self.ids, get_args(IdsOf))
        check_positive("num_workers", self.num_workers)


def spelled_out(of: type, **defaults: object) -> Callable[[F], F]:
    """Name the options in a function's signature, in place of `**options`, for `help` and for notebooks.

    Args:
        of: the options class that the function takes whole.
        **defaults: those that the function has of its own.
    """
    settings = {IndexOptions: IndexSettings, RowOptions: RowSettings, WriteOptions: WriteSettings}.get(of)
    given = {} if settings is None else {field.name: field.default for field in fields(settings)}
    given.update(defaults)
    plain = {"bool": False, "int": 0, "Mode": "late"}
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=given.get(name, plain.get(hint.__forward_arg__)),
            annotation=hint.__forward_arg__,
        )
        for name, hint in of.__annotations__.items()
    ]

    def decorate(function: F) -> F:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *options])
        return function

    return decorate


def check_names(of: type, given: Mapping[str, object]) -> None:
    """Check that the given options are fields of an options class.

    Raises:
        TypeError: one is not; the message names the nearest one and all that there are.
    """
    known = list(of.__annotations__)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            suggestion = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"there is no option {name!r}.{suggestion} The options are {', '.join(known)}.")


def check_weight(name: str, value: object) -> float:
    """Return a share from 0 to 1.

    Raises:
        TypeError, ValueError: it is none.
    """
    _check_number(name, value, 0)
    weight = float(cast("float", value))
    if weight > 1:
        raise ValueError(f"{name} must be at most 1, not {shown(value)}.")
    return weight


def _check_number(name: str, value: object, least: float, *, finite: bool = True) -> None:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number, not {shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not number >= least or (finite and number == math.inf):
        raise ValueError(f"{name} must be a number of at least {least}, not {shown(value)}.")
