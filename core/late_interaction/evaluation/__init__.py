"""Retrieval quality on judged collections in BEIR's layout: nDCG@10, recall@100 and MRR@10.

`evaluate_model` measures the two-stage search beside exact MaxSim; `compare` says whether one ranking is better than
another; `write_runs` keeps rankings in trec_eval's format.
"""

from late_interaction.evaluation.collections import JudgedCollection, Qrels, load_beir
from late_interaction.evaluation.measuring import Evaluation, evaluate_model
from late_interaction.evaluation.metrics import METRICS, Run, evaluate, evaluate_queries
from late_interaction.evaluation.rankings import bm25_run, exact_run
from late_interaction.evaluation.runs import Comparison, compare, read_run, run_name, write_runs

__all__ = [
    "METRICS",
    "Comparison",
    "Evaluation",
    "JudgedCollection",
    "Qrels",
    "Run",
    "bm25_run",
    "compare",
    "evaluate",
    "evaluate_model",
    "evaluate_queries",
    "exact_run",
    "load_beir",
    "read_run",
    "run_name",
    "write_runs",
]
