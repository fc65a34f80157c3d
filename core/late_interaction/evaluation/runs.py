"""Rankings in files of trec_eval's format, and whether one is better than another."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from late_interaction.errors import LateInteractionError
from late_interaction.evaluation.collections import JudgedCollection, Qrels
from late_interaction.evaluation.measuring import Evaluation
from late_interaction.evaluation.metrics import Run, evaluate_queries, trec_eval

_RESAMPLES = 9999
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a ranking does beside another one, by nDCG@10.

    Attributes:
        difference: of the means; positive where the first ranking is better.
        p_value: how often a difference as large comes about if each query's two values are swapped at random (a paired
            randomisation test, two-sided, of all ways to swap them or 9,999).
        wins, losses: queries for which the first ranking is better, or worse; the others are equal.
        by_query: the difference of each query, by its id, from the worst loss to the largest win.
    """

    difference: float
    p_value: float
    wins: int
    losses: int
    by_query: dict[str, float]


def compare(run: Run, other: Run, qrels: Qrels) -> Comparison:
    """Compare two rankings of the same queries; of one query, the p-value is 1.

    Raises:
        ValueError: no query is judged.
        MissingExtraError: the `eval` extra is not installed.

    Example:
        >>> qrels = {"q1": {"d1": 1}, "q2": {"d2": 1}}
        >>> better = {"q1": {"d1": 1.0}, "q2": {"d2": 1.0}}
        >>> found = compare(better, {"q1": {"d1": 1.0}, "q2": {"d1": 2.0, "d2": 1.0}}, qrels)
        >>> round(found.difference, 3), found.wins, found.losses, found.p_value
        (0.185, 1, 0, 1.0)
    """
    from scipy.stats import permutation_test

    values, others = evaluate_queries(run, qrels), evaluate_queries(other, qrels)
    by_query = {query_id: values[query_id]["ndcg@10"] - others[query_id]["ndcg@10"] for query_id in qrels}
    differences = np.array(list(by_query.values()))
    p_value = 1.0
    if len(differences) > 1:
        tested = permutation_test(
            (differences,),
            np.mean,
            permutation_type="samples",
            vectorized=True,
            n_resamples=_RESAMPLES,
            batch=1000,
            rng=np.random.default_rng(0),
        )
        p_value = float(tested.pvalue)
    return Comparison(
        fmean(differences),
        p_value,
        int((differences > _EQUAL).sum()),
        int((differences < -_EQUAL).sum()),
        dict(sorted(by_query.items(), key=lambda item: item[1])),
    )


def run_name(collection: JudgedCollection, evaluation: Evaluation) -> str:
    """Return the name of the file that `write_runs` puts a ranking into, such as `cranfield.two-stage-pool-2.trec`."""
    return f"{collection.name}.{re.sub(r'[^a-z0-9.]+', '-', evaluation.label.lower())}.trec"


def write_runs(
    folder: str | Path, collection: JudgedCollection, evaluations: Iterable[Evaluation]
) -> list[Path]:
    """Write each ranking into a file of trec_eval's format (query, Q0, document, rank, score, tag).

    Raises:
        LateInteractionError: an id has white space in it, which the format cannot hold, or a file cannot be written.
    """
    check_ids(collection)
    folder, written = Path(folder), []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for evaluation in evaluations:
            path = folder / run_name(collection, evaluation)
            with path.open("w", encoding="utf-8") as file:
                for query_id, scores in evaluation.run.items():
                    for rank, (doc_id, score) in enumerate(scores.items(), 1):
                        file.write(f"{query_id} Q0 {doc_id} {rank} {score!r} late-interaction\n")
            written.append(path)
    except OSError as error:
        raise LateInteractionError(f"The runs cannot be written to {folder}: {error}") from error
    return written


def check_ids(collection: JudgedCollection) -> None:
    """Raise a `LateInteractionError` if trec_eval's format cannot hold a collection's ids."""
    for doc_id in (*collection.queries, *collection.documents):
        if not re.fullmatch(r"\S+", doc_id):
            raise LateInteractionError(
                f"Runs cannot be saved: the id {doc_id!r} has white space in it, or nothing, and the columns of "
                "trec_eval's format are separated by white space."
            )


def read_run(path: str | Path) -> Run:
    """Read a ranking in trec_eval's format.

    Raises:
        MissingExtraError: the `eval` extra is not installed.
        LateInteractionError: the file cannot be read, or is not in that format.
    """
    run: Run = {}
    try:
        with Path(path).open(encoding="utf-8") as file:
            for found in trec_eval().read_trec_run(file):
                run.setdefault(found.query_id, {})[found.doc_id] = found.score
    except (OSError, ValueError) as error:
        raise LateInteractionError(f"{path} cannot be read as a run: {error}") from error
    if not run:
        raise LateInteractionError(f"{path} cannot be read as a run: it is empty.")
    return run
