"""Rankings to compare with: exact MaxSim over all documents, and BM25."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from late_interaction.errors import MissingExtraError
from late_interaction.evaluation.collections import JudgedCollection
from late_interaction.evaluation.metrics import Run
from late_interaction.maxsim import maxsim
from late_interaction.types import FloatMatrix, RaggedTokens


class ExactRanking:
    """Collects the k best documents of each query by MaxSim, while the documents pass by a batch at a time.

    Args:
        queries: (n_tokens, dim) float32 by query id.
        k: how many documents per query.

    Attributes:
        n_documents, n_vectors: how many passed by.
    """

    def __init__(self, queries: Mapping[str, FloatMatrix], k: int = 100) -> None:
        self.n_documents = self.n_vectors = 0
        self._queries, self._k = queries, k
        self._best: Run = {query_id: {} for query_id in queries}
        self._least = dict.fromkeys(queries, -np.inf)

    def add(self, doc_ids: Sequence[str], documents: RaggedTokens) -> None:
        """Score documents; where an id comes several times, as of passages, the best score counts."""
        self.n_documents += len(documents)
        self.n_vectors += len(documents.tokens)
        for query_id, query in self._queries.items():
            best = self._best[query_id]
            scores = maxsim(query, documents)
            for row in np.flatnonzero(scores > self._least[query_id]).tolist():
                doc_id, score = doc_ids[row], float(scores[row])
                best[doc_id] = max(score, best.get(doc_id, score))
            if len(best) > 2 * self._k:
                self._best[query_id] = top(best, self._k)
                self._least[query_id] = min(self._best[query_id].values())

    def run(self) -> Run:
        """Return the k best documents of each query, best first."""
        return {query_id: top(best, self._k) for query_id, best in self._best.items()}


def top(scores: Mapping[str, float], k: int) -> dict[str, float]:
    """Return the k highest scores, best first; of equal ones the first."""
    return dict(sorted(scores.items(), key=lambda item: -item[1])[:k])


def exact_run(
    queries: Mapping[str, FloatMatrix], doc_ids: Sequence[str], documents: RaggedTokens, k: int = 100
) -> Run:
    """Return the k best documents of each query by MaxSim over all of them: no index, no query pooling.

    Args:
        queries: (n_tokens, dim) float32 by query id.
        doc_ids: the documents' ids, in the order of `documents`; the best score counts of one that comes twice.
        documents: their packed token matrices.
        k: how many per query.

    Example:
        >>> import numpy as np
        >>> from late_interaction import RaggedTokens
        >>> x, y = np.eye(2, dtype=np.float32)[:, None]
        >>> exact_run({"query": x}, ["x", "y"], RaggedTokens.from_matrices([x, y]))
        {'query': {'x': 1.0, 'y': 0.0}}
    """
    ranking = ExactRanking(queries, k)
    ranking.add(doc_ids, documents)
    return ranking.run()


def bm25_run(collection: JudgedCollection, k: int = 100, *, show_progress: bool = False) -> Run:
    """Return the k best documents of each query by BM25, with English stop words and the Snowball stemmer.

    It is bm25s with Lucene's formula and defaults (k1 = 1.2, b = 0.75).

    Raises:
        MissingExtraError: the `eval` extra is not installed.
    """
    try:
        import bm25s
        import Stemmer
    except ImportError as error:
        raise MissingExtraError("BM25", "eval", "bm25s or PyStemmer") from error
    stemmer = Stemmer.Stemmer("english")

    def tokenize(texts: Sequence[str]) -> Any:
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=stemmer, show_progress=show_progress)

    doc_ids = list(collection.documents)
    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    retriever.index(tokenize(list(collection.documents.values())), show_progress=show_progress)
    queries = tokenize(list(collection.queries.values()))
    found, scores = retriever.retrieve(queries, k=min(k, len(doc_ids)), show_progress=show_progress)
    return {
        query_id: {doc_ids[row]: float(score) for row, score in zip(rows, values, strict=True) if score > 0}
        for query_id, rows, values in zip(collection.queries, found, scores, strict=True)
    }
