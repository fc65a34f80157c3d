"""Metrics of a ranking, by ir-measures, which calls trec_eval's code."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean
from typing import Any, TypeAlias

from late_interaction.errors import MissingExtraError
from late_interaction.evaluation.collections import Qrels

METRICS = ("ndcg@10", "recall@100", "mrr@10")

Run: TypeAlias = dict[str, dict[str, float]]
"""Score by document id, by query id."""


def evaluate(run: Run, qrels: Qrels) -> dict[str, float]:
    """Compute nDCG@10, recall@100 and MRR@10, as means over all queries of `qrels`.

    A query that the run has no result for counts as 0.

    Raises:
        ValueError: no query is judged.
        MissingExtraError: the `eval` extra is not installed.

    Example:
        >>> evaluate({"q1": {"d1": 2.0, "d2": 1.0}}, {"q1": {"d1": 1}})
        {'ndcg@10': 1.0, 'recall@100': 1.0, 'mrr@10': 1.0}
    """
    values = evaluate_queries(run, qrels)
    return {metric: fmean(of_query[metric] for of_query in values.values()) for metric in METRICS}


def evaluate_queries(run: Run, qrels: Qrels) -> dict[str, dict[str, float]]:
    """Compute the metrics of each query of `qrels`, by its id; see `evaluate`."""
    scores = {
        query_id: {doc_id: float(score) for doc_id, score in of_query.items()}
        for query_id, of_query in run.items()
    }
    measures = _measures()
    if not qrels:
        raise ValueError("there is no judged query: qrels is empty.")
    names = {measure: metric for metric, measure in measures.items()}
    values: dict[str, dict[str, float]] = {query_id: {} for query_id in qrels}
    for found in trec_eval().iter_calc(list(names), qrels, scores):
        values[found.query_id][names[found.measure]] = float(found.value)
    return values


def check_installed() -> None:
    """Raise a `MissingExtraError` now, rather than after minutes of encoding."""
    trec_eval()


def _measures() -> Mapping[str, Any]:
    library = trec_eval()
    return {
        "ndcg@10": library.nDCG @ 10,
        "recall@100": library.R @ 100,
        "mrr@10": library.RR @ 10,
    }


def trec_eval() -> Any:
    """Return ir-measures, which is imported at first use."""
    try:
        import ir_measures
    except ImportError as error:
        raise MissingExtraError("Evaluation", "eval", "ir-measures") from error
    return ir_measures
