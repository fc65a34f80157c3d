"""Two scores of a document made one: how well its vectors answer a query, and how well its words do."""

from __future__ import annotations

from collections.abc import Mapping

LISTED = 100
"""Documents of each kind of search that a hybrid search puts together, at least."""
DEFAULT_WEIGHT = 0.3


def fused(late: Mapping[str, float], lexical: Mapping[str, float], weight: float) -> dict[str, float]:
    """Return `(1 - weight) · late + weight · lexical` of each document, both scaled to 0 … 1 over these documents.

    Each is scaled by its minimum and its maximum, and a document without any of the query's words has a lexical score
    of 0. Where all have the same score, which is so for a single document too, it is scaled to 1 if there is a word of
    the query in them or it is MaxSim, and to 0 if there is none.

    Measured with the demo's model (`benchmarks/hybrid.py`): a weight of .3 raises nDCG@10 from .397 to .416 on
    Cranfield and from .440 to .453 on CISI. Reciprocal rank fusion does as well on the first and loses on the second.

    Args:
        late: MaxSim of each candidate of either search.
        lexical: BM25 of those that have a word of the query.
        weight: of the words, from 0 to 1.

    >>> fused({"a": 9.0, "b": 5.0, "c": 7.0}, {"b": 2.0, "c": 1.0}, 0.5)
    {'a': 0.5, 'b': 0.5, 'c': 0.5}
    """
    by_vectors = _scaled(late, at_one_value=1.0)
    words = {doc_id: lexical.get(doc_id, 0.0) for doc_id in late}
    by_words = _scaled(words, at_one_value=1.0 if any(words.values()) else 0.0)
    return {doc_id: (1 - weight) * by_vectors[doc_id] + weight * by_words[doc_id] for doc_id in late}


def _scaled(scores: Mapping[str, float], at_one_value: float) -> dict[str, float]:
    least, most = min(scores.values(), default=0.0), max(scores.values(), default=0.0)
    if least == most:
        return dict.fromkeys(scores, at_one_value)
    return {doc_id: (score - least) / (most - least) for doc_id, score in scores.items()}
