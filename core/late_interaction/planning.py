"""What a search does, checked: how many documents, how deep, by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import get_args

from late_interaction.candidates import Scaling
from late_interaction.filters import Filter, parse_filter
from late_interaction.fusion import DEFAULT_WEIGHT
from late_interaction.options import Mode, SearchOptions, check_names, check_weight
from late_interaction.rows import check_doc_ids
from late_interaction.validation import (
    LARGEST,
    check_flag,
    check_not_negative,
    check_one_of,
    check_positive,
    shown,
)


@dataclass(frozen=True, slots=True)
class Depth:
    """How far stage 1 looks.

    Attributes:
        n_candidates: documents that it hands over.
        n_ann_tokens: stored tokens that it looks at for each query vector; None to score every document.
    """

    n_candidates: int
    n_ann_tokens: int | None


@dataclass(frozen=True, slots=True)
class SearchPlan:
    """What a search does, checked.

    Attributes:
        k: how many documents, those that `offset` leaves out among them.
        depth: how far stage 1 looks in the first round.
        n_first: how many candidates are scored before the others are judged by them; None to score all.
        filter: only documents whose metadata match.
        ids: only these documents, each of which is scored.
        exact: search on until the top k is certain.
        group_by: only the best document of each value of this metadata field.
        distinct: only one document of each content.
        offset: how many of the best to leave out.
        mode: what to search by.
        lexical_weight: how much the words count in a hybrid search.
    """

    k: int
    depth: Depth
    n_first: int | None = None
    filter: Filter | None = None
    ids: Sequence[str] | None = None
    exact: bool = False
    group_by: str | None = None
    distinct: bool = False
    offset: int = 0
    mode: Mode = "late"
    lexical_weight: float = DEFAULT_WEIGHT

    @classmethod
    def of(cls, k: int, options: SearchOptions, scaling: Scaling) -> SearchPlan:
        """Check what a search is asked for, and fill in the store's defaults.

        Raises:
            TypeError: there is no such option, or a value is of another type.
            ValueError: a number is out of range, or options exclude each other.
            FilterError: the filter is not well formed.
        """
        check_names(SearchOptions, options)
        offset = check_not_negative("offset", options.get("offset", 0))
        k = min(LARGEST, check_positive("k", k) + offset)
        n_ann_tokens, n_candidates = options.get("n_ann_tokens"), options.get("n_maxsim_candidates")
        ids, exact = options.get("ids"), options.get("exact", False)
        check_flag("exact", exact)
        group_by, distinct = options.get("group_by"), options.get("distinct", False)
        check_flag("distinct", distinct)
        if group_by is not None and not isinstance(group_by, str):
            raise TypeError(f"group_by must be the name of a metadata field, not {shown(group_by)}.")
        if group_by == "":
            raise ValueError("group_by must be the name of a metadata field, and is empty.")
        if n_ann_tokens is not None:
            n_ann_tokens = check_positive("n_ann_tokens", n_ann_tokens)
        if n_candidates is not None:
            n_candidates = check_positive("n_maxsim_candidates", n_candidates)
        if ids is not None and (n_ann_tokens, n_candidates) != (None, None):
            raise ValueError(
                "with ids each of these documents is scored: leave n_ann_tokens and n_maxsim_candidates out."
            )
        mode, weight = options.get("mode", "late"), options.get("lexical_weight")
        check_one_of("mode", mode, get_args(Mode))
        if weight is not None and mode != "hybrid":
            raise ValueError('lexical_weight goes with mode="hybrid".')
        if mode == "lexical" and (n_ann_tokens, n_candidates) != (None, None):
            raise ValueError('mode="lexical" has no vectors: leave n_ann_tokens and n_maxsim_candidates out.')
        ann_tokens = (
            scaling.n_ann_tokens(k) if n_ann_tokens is None else scaling.clamp_ann_tokens(n_ann_tokens)
        )
        return cls(
            k,
            Depth(
                min(
                    LARGEST, max(k, scaling.n_maxsim_candidates(k) if n_candidates is None else n_candidates)
                ),
                None if exact and not scaling.bounded else ann_tokens,
            ),
            scaling.n_first_candidates(k) if n_candidates is None else None,
            parse_filter(options.get("filter")),
            None if ids is None else list(dict.fromkeys(check_doc_ids(ids))),
            exact,
            group_by,
            distinct,
            offset,
            mode,
            DEFAULT_WEIGHT if weight is None else check_weight("lexical_weight", weight),
        )

    def among(self, k: int, scaling: Scaling) -> SearchPlan:
        """Return the plan to choose from the top `k` by group or content: at least as deep, and all of the ranking."""
        depth = Depth(
            min(LARGEST, max(self.depth.n_candidates, k, scaling.n_maxsim_candidates(k))),
            None
            if self.depth.n_ann_tokens is None
            else max(self.depth.n_ann_tokens, scaling.n_ann_tokens(k)),
        )
        n_first = None if self.n_first is None else scaling.n_first_candidates(k)
        return replace(self, k=k, depth=depth, n_first=n_first, group_by=None, distinct=False)
