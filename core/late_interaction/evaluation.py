"""Retrieval quality on judged collections in BEIR's layout: nDCG@10, recall@100 and MRR@10.

`evaluate_model` encodes every text once, and then measures the two-stage search for each pooling factor
beside an exact MaxSim over the very vectors that it searched.
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from late_interaction.encoders.base import LateInteractionModel, Role
from late_interaction.errors import LateInteractionError, MissingExtraError
from late_interaction.maxsim import maxsim
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.stores.local.store import LocalStore
from late_interaction.types import FloatMatrix, RaggedTokens

logger = logging.getLogger(__name__)

METRICS = ("ndcg@10", "recall@100", "mrr@10")
ENCODE_BATCH = 256

Run = dict[str, dict[str, float]]
"""Score by document id, by query id."""
Qrels = dict[str, dict[str, int]]
"""Graded relevance by document id, by query id."""


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """Documents, queries, and which document answers which query.

    Attributes:
        name: the folder's name.
        documents: title and text by id; documents without any text are left out.
        queries: text by id; only queries with at least one relevant document.
        qrels: the judgments on these queries and documents.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: Qrels


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one way to search reached.

    Attributes:
        method: "two-stage", "exact" (MaxSim over the same stored vectors), "exact, as encoded" (float32, no
            pooling) or "BM25".
        pool_factor: of the documents; None for BM25.
        metrics: mean over the queries, by name (see `METRICS`).
        n_vectors: document vectors; None for BM25.
        n_scored: documents scored exactly per query, at k = 10; None for BM25.
        query_ms: milliseconds per query at k = 10, without encoding it; None where it was not measured.
    """

    method: str
    pool_factor: float | None
    metrics: dict[str, float]
    n_vectors: int | None = None
    n_scored: float | None = None
    query_ms: float | None = None


def load_beir(folder: str | Path, *, limit: int | None = None) -> JudgedCollection:
    """Read a folder in BEIR's layout.

    It holds `corpus.jsonl` (`_id` or `id`, `title`, `text`), `queries.jsonl` (`_id` or `id`, `text`) and
    the judgments, `qrels/test.tsv` or `qrels.tsv`: a header line, then query id, document id and grade.

    Args:
        folder: where they are.
        limit: only the first so many documents, and the judgments on them: for a quick look, since
            the numbers cannot be compared with those of the whole collection.

    Raises:
        LateInteractionError: a file is missing, or a line of it is not as it should be.
    """
    folder = Path(folder)
    documents: dict[str, str] = {}
    for doc_id, record in _records(folder / "corpus.jsonl"):
        text = f"{record.get('title') or ''} {record.get('text') or ''}".strip()
        if text:
            documents[doc_id] = text
        if len(documents) == limit:
            break
    queries = {
        query_id: str(record.get("text") or "") for query_id, record in _records(folder / "queries.jsonl")
    }
    qrels: Qrels = {}
    for query_id, doc_id, grade in _judgments(folder):
        if query_id in queries and doc_id in documents:
            qrels.setdefault(query_id, {})[doc_id] = grade
    qrels = {query_id: grades for query_id, grades in qrels.items() if max(grades.values()) > 0}
    if not qrels:
        raise LateInteractionError(
            f"No query of {folder} has a relevant document among the {len(documents)} read."
        )
    for query_id in qrels:
        if not queries[query_id].strip():
            raise LateInteractionError(
                f"{folder / 'queries.jsonl'}: query {query_id!r} is judged, and has no text."
            )
    return JudgedCollection(
        folder.name, documents, {query_id: queries[query_id] for query_id in qrels}, qrels
    )


def evaluate(run: Run, qrels: Qrels) -> dict[str, float]:
    """Compute nDCG@10, recall@100 and MRR@10 by trec_eval's code, as means over all queries of `qrels`.

    A query that the run has no result for counts as 0.

    Raises:
        MissingExtraError: the `eval` extra is not installed.

    Example:
        >>> evaluate({"q1": {"d1": 2.0, "d2": 1.0}}, {"q1": {"d1": 1}})
        {'ndcg@10': 1.0, 'recall@100': 1.0, 'mrr@10': 1.0}
    """
    evaluator = _trec_eval().RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.100", "recip_rank"})
    by_query = evaluator.evaluate({query_id: run[query_id] for query_id in qrels if run.get(query_id)})
    values = list(by_query.values())
    # A reciprocal rank below 1/10 is a first relevant document beyond rank 10.
    ranks = [value["recip_rank"] if value["recip_rank"] >= 0.1 else 0.0 for value in values]
    return {
        "ndcg@10": sum(value["ndcg_cut_10"] for value in values) / len(qrels),
        "recall@100": sum(value["recall_100"] for value in values) / len(qrels),
        "mrr@10": sum(ranks) / len(qrels),
    }


def exact_run(
    queries: Mapping[str, FloatMatrix], doc_ids: Sequence[str], documents: RaggedTokens, k: int = 100
) -> Run:
    """Return the k best documents of each query by MaxSim over all of them: no index, no query pooling.

    Args:
        queries: (n_tokens, dim) float32 by query id.
        doc_ids: the documents' ids, in the order of `documents`.
        documents: their packed token matrices.
        k: how many per query.

    Example:
        >>> import numpy as np
        >>> from late_interaction import RaggedTokens
        >>> x, y = np.eye(2, dtype=np.float32)[:, None]
        >>> exact_run({"query": x}, ["x", "y"], RaggedTokens.from_matrices([x, y]))
        {'query': {'x': 1.0, 'y': 0.0}}
    """
    run: Run = {}
    for query_id, query in queries.items():
        scores = maxsim(query, documents)
        best = np.argsort(-scores, kind="stable")[:k]
        run[query_id] = {doc_ids[row]: float(scores[row]) for row in best}
    return run


def bm25_run(collection: JudgedCollection, k: int = 100) -> Run:
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
        return bm25s.tokenize(list(texts), stopwords="en", stemmer=stemmer, show_progress=False)

    doc_ids = list(collection.documents)
    retriever = bm25s.BM25(method="lucene", k1=1.2, b=0.75)
    retriever.index(tokenize(list(collection.documents.values())), show_progress=False)
    queries = tokenize(list(collection.queries.values()))
    found, scores = retriever.retrieve(queries, k=min(k, len(doc_ids)), show_progress=False)
    return {
        query_id: {doc_ids[row]: float(score) for row, score in zip(rows, values, strict=True) if score > 0}
        for query_id, rows, values in zip(collection.queries, found, scores, strict=True)
    }


async def evaluate_model(
    collection: JudgedCollection,
    model: LateInteractionModel,
    *,
    pool_factors: Sequence[float] = (1, 2, 3, 4),
    show_progress: bool = False,
) -> list[Evaluation]:
    """Measure a model on a collection: exact MaxSim as encoded, then two-stage and exact per pooling factor.

    Every text is encoded once. All token matrices are held in memory as float32 (n_tokens × dim × 4 bytes),
    the indexes are built in a temporary folder.

    Args:
        collection: what to search.
        model: what to encode with.
        pool_factors: the documents' pooling factors to measure.
        show_progress: a progress bar on stderr.

    Raises:
        MissingExtraError: the `eval` extra is not installed.
    """
    _trec_eval()  # rather than after minutes of encoding
    doc_ids = list(collection.documents)
    documents = await _encode(model, list(collection.documents.values()), show_progress=show_progress)
    await _tell_truncated(model, list(collection.queries.values()), "query")
    encoded = await model.aencode_queries(list(collection.queries.values()))
    queries = dict(zip(collection.queries, encoded, strict=True))

    run = exact_run(queries, doc_ids, documents)
    results = [
        Evaluation(
            "exact, as encoded", 1, evaluate(run, collection.qrels), len(documents.tokens), len(doc_ids)
        )
    ]
    for factor in pool_factors:
        with tempfile.TemporaryDirectory(prefix="late-interaction-eval-") as folder:
            results += await _evaluate_factor(collection, model, documents, queries, factor, folder)
    return results


def _trec_eval() -> Any:
    try:
        import pytrec_eval
    except ImportError as error:
        raise MissingExtraError("Evaluation", "eval", "pytrec-eval-terrier") from error
    return pytrec_eval


async def _evaluate_factor(
    collection: JudgedCollection,
    model: LateInteractionModel,
    documents: RaggedTokens,
    queries: Mapping[str, FloatMatrix],
    factor: float,
    folder: str,
) -> list[Evaluation]:
    """Run two-stage search over an index with this pooling factor, and exact MaxSim over what it stores."""
    store = LocalStore(folder)
    async with LateInteractionPipeline(db=store, model=model, doc_pool_factor=factor) as pipeline:
        rows = [{"doc_id": doc_id, "content": text} for doc_id, text in collection.documents.items()]
        await pipeline.index_embeddings(rows, (documents.matrix(index) for index in range(len(documents))))
        runs: dict[int, Run] = {10: {}, 100: {}}
        n_scored, seconds = [], []
        for query_id, query in queries.items():
            for k, run in runs.items():
                start = time.perf_counter()
                found = await pipeline.search_with_embeddings(query, k=k)
                if k == 10:
                    seconds.append(time.perf_counter() - start)
                    n_scored.append(found.stats.n_scored)
                run[query_id] = {result.doc_id: result.score for result in found}
        stored = [document async for batch in store.scan() for document in batch]
    doc_ids = [document.document.doc_id for document in stored]
    packed = RaggedTokens.from_matrices([document.matrix for document in stored])
    exact = evaluate(exact_run(queries, doc_ids, packed), collection.qrels)
    # A search for 10 looks at fewer candidates than one for 100: each metric is that of its own depth.
    recall = evaluate(runs[100], collection.qrels)["recall@100"]
    two_stage = evaluate(runs[10], collection.qrels) | {"recall@100": recall}
    n_vectors, query_ms = len(packed.tokens), 1000 * fmean(seconds)
    return [
        Evaluation("two-stage", factor, two_stage, n_vectors, fmean(n_scored), query_ms),
        Evaluation("exact", factor, exact, n_vectors, len(doc_ids)),
    ]


async def _encode(model: LateInteractionModel, texts: Sequence[str], *, show_progress: bool) -> RaggedTokens:
    """Encode all texts, in their order, with a progress bar on stderr."""
    from tqdm import tqdm

    await _tell_truncated(model, texts, "document")
    matrices: list[FloatMatrix] = []
    with tqdm(total=len(texts), desc="encoding", unit="doc", disable=not show_progress) as bar:
        for start in range(0, len(texts), ENCODE_BATCH):
            batch = texts[start : start + ENCODE_BATCH]
            matrices += await model.aencode_documents(batch)
            bar.update(len(batch))
    return RaggedTokens.from_matrices(matrices)


async def _tell_truncated(model: LateInteractionModel, texts: Sequence[str], role: Role) -> None:
    """Warn if figures are of the beginnings of texts only."""
    if truncated := await model.run(model.count_truncated, texts, role):
        logger.warning(
            "%d of %d %s are longer than %s reads: their ends are not in these figures.",
            truncated,
            len(texts),
            "queries" if role == "query" else "documents",
            model.model_name,
        )


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and object of each line of a JSON Lines file."""
    for number, line in _lines(path):
        try:
            record = json.loads(line)
            doc_id = str(record["_id"] if "_id" in record else record["id"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise LateInteractionError(f"{path}:{number} is not a JSON object with an _id or id.") from error
        yield doc_id, record


def _judgments(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the query id, document id and grade of each judgment."""
    path = folder / "qrels" / "test.tsv"
    path = path if path.exists() else folder / "qrels.tsv"
    for number, line in _lines(path):
        try:
            query_id, doc_id, grade = line.rstrip("\r\n").split("\t")
            if number > 1:
                yield query_id, doc_id, int(grade)
        except ValueError as error:
            raise LateInteractionError(
                f"{path}:{number} is not a query id, a document id and a whole number between tabs."
            ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise LateInteractionError(f"{path} cannot be read: {error}") from error
