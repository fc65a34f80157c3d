"""What a model reaches on a judged collection: each text is encoded once, and the vectors stay on disk."""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any, cast, get_args

import numpy as np

from late_interaction.encoders.base import LateInteractionModel, encode_checked, pooled
from late_interaction.evaluation.collections import JudgedCollection
from late_interaction.evaluation.metrics import Run, check_installed, evaluate
from late_interaction.evaluation.rankings import ExactRanking
from late_interaction.fusion import DEFAULT_WEIGHT
from late_interaction.options import Mode, SearchOptions, check_weight
from late_interaction.pacing import Pace, batches, paced_batches
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.progress import tqdm
from late_interaction.reading.passages import passages as cut_passages
from late_interaction.types import Document, EncodedDocument, FloatMatrix, RaggedTokens, SearchResults
from late_interaction.validation import check_one_of

_BATCH = 64
_TOP, _DEEP = 10, 100
_SOURCE = "source"
"""The metadata field with the id of the document that a row is of."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one way to search reached.

    Attributes:
        method: "two-stage", "hybrid W" (W is the weight of the words), "lexical" (the words, by the store), "exact"
            (MaxSim over the same stored vectors), "exact, as encoded" (float32, no pooling) or "BM25"; with ", best
            passage" where documents were ranked by their best passage.
        pool_factor: of the documents; None for BM25, as are all below but `query_ms`, which is None for "exact" too.
        metrics: mean over the queries, by name (see `METRICS`).
        n_vectors: document vectors.
        packed_bytes: what they take as stored; None for "as encoded".
        n_scored: documents or passages scored exactly per query, at k = 10.
        query_ms: milliseconds per query at k = 10, without encoding it.
        n_cut_documents: documents, or passages, whose ends the model did not read.
        n_cut_queries: queries whose ends it did not read.
        run: the ranking that the metrics are of. In a two-stage one the first ten are what a search for 10 found, and
            the others what a search for 100 found beside them, with a score that is at most that of the tenth.
    """

    method: str
    pool_factor: float | None
    metrics: dict[str, float]
    n_vectors: int | None = None
    packed_bytes: int | None = None
    n_scored: float | None = None
    query_ms: float | None = None
    n_cut_documents: int | None = None
    n_cut_queries: int | None = None
    run: Run = field(default_factory=dict, repr=False)

    @property
    def label(self) -> str:
        """The method, with the pooling factor where there is one to choose."""
        return self.method if self.packed_bytes is None else f"{self.method}, pool {self.pool_factor:g}"


async def evaluate_model(
    collection: JudgedCollection,
    model: LateInteractionModel,
    *,
    pool_factors: Sequence[float] = (1, 2, 3, 4),
    passages: bool = False,
    modes: Sequence[Mode] = ("late",),
    lexical_weights: Sequence[float] = (DEFAULT_WEIGHT,),
    show_progress: bool = False,
) -> list[Evaluation]:
    """Measure a model on a collection: exact MaxSim as encoded, then two-stage and exact per pooling factor.

    Every text is encoded once. The vectors of a batch are in memory; those of the collection are packed in indexes in a
    temporary folder, one for each pooling factor, which take dim + 4 bytes a vector.

    Args:
        collection: what to search.
        model: what to encode with.
        pool_factors: the documents' pooling factors to measure.
        passages: measure passages too, with a document as good as its best one. The model has to count tokens.
        modes: what else to search by than vectors: "hybrid", "lexical".
        lexical_weights: how much the words count in hybrid searches, each measured.
        show_progress: progress bars on stderr.

    Raises:
        MissingExtraError: the `eval` extra is not installed.
        ValueError: a mode does not exist, or a weight is not from 0 to 1.
        ModelError: passages are asked for, and the model does not count tokens.
    """
    check_installed()
    weights = [check_weight("lexical_weight", weight) for weight in lexical_weights]
    for mode in modes:
        check_one_of("mode", mode, get_args(Mode))
    ways: list[SearchOptions] = [
        {"mode": "hybrid", "lexical_weight": weight} for weight in weights if "hybrid" in modes
    ]
    if "lexical" in modes:
        ways.append({"mode": "lexical"})
    if passages:
        model.count_tokens(["a"])
    measuring = _Measuring(collection, model, show_progress, ways)
    await measuring.encode_queries()
    results = await measuring.measure(_whole(collection), pool_factors)
    if passages:
        results += await measuring.measure(_passages(collection, model), pool_factors, best_of="passage")
    return results


def _whole(collection: JudgedCollection) -> Iterator[Document]:
    for doc_id, text in collection.documents.items():
        yield Document(doc_id, text, metadata={_SOURCE: doc_id})


def _passages(collection: JudgedCollection, model: LateInteractionModel) -> Iterator[Document]:
    for doc_id, text in collection.documents.items():
        for number, passage in enumerate(cut_passages(text, model=model), 1):
            yield Document(f"{doc_id}#{number}", passage.text, metadata={_SOURCE: doc_id})


@dataclass(slots=True)
class _Measuring:
    """Measures ways to search one collection with one model.

    Attributes:
        ways: what else to search by.
        queries: the vectors of those that are encoded, by id.
        n_cut_queries: how many of them were not read to their ends.
    """

    collection: JudgedCollection
    model: LateInteractionModel
    show_progress: bool
    ways: Sequence[SearchOptions] = ()
    queries: dict[str, FloatMatrix] = field(default_factory=dict)
    n_cut_queries: int = 0

    async def encode_queries(self) -> None:
        """Encode the queries, some at a time."""
        with self._bar("Encoding queries", len(self.collection.queries), "query") as bar:
            async for batch in batches(self.collection.queries.items(), _BATCH):
                ids, texts = zip(*batch, strict=True)
                matrices, shares = await encode_checked(self.model, texts, "query")
                self.queries.update(zip(ids, matrices, strict=True))
                self.n_cut_queries += sum(share != 0 for share in shares)
                bar.update(len(batch))

    async def measure(
        self, rows: Iterator[Document], factors: Sequence[float], best_of: str | None = None
    ) -> list[Evaluation]:
        """Encode rows into an index for each pooling factor, and search those; a document may be several rows."""
        unit = best_of or "document"
        ranking, n_cut, pace = ExactRanking(self.queries), 0, Pace(_BATCH)
        async with AsyncExitStack() as stack:
            pipelines = [await stack.enter_async_context(self._opened(factor)) for factor in factors]
            with self._bar(
                f"Encoding {unit}s", None if best_of else len(self.collection.documents), unit
            ) as bar:
                async for batch in paced_batches(rows, pace):
                    started = time.perf_counter()
                    documents = cast("list[Document]", batch)
                    texts = [document.content for document in documents]
                    matrices, shares = await encode_checked(self.model, texts, "document")
                    n_cut += sum(share != 0 for share in shares)
                    ranking.add(_sources(documents), RaggedTokens.from_matrices(matrices))
                    for pipeline in pipelines:
                        await self._write(pipeline, documents, matrices)
                    pace.took(len(documents), time.perf_counter() - started)
                    bar.update(len(documents))
            results = [self._evaluation("exact, as encoded", 1, ranking)]
            for pipeline in pipelines:
                results += await self._search(pipeline, best_of)
        return [
            replace(
                result,
                method=f"{result.method}, best {best_of}" if best_of else result.method,
                n_cut_documents=n_cut,
                n_cut_queries=self.n_cut_queries,
            )
            for result in results
        ]

    @asynccontextmanager
    async def _opened(self, factor: float) -> AsyncIterator[LateInteractionPipeline]:
        """Give an empty index in a temporary folder."""
        with tempfile.TemporaryDirectory(prefix="late-interaction-eval-") as folder:
            async with LateInteractionPipeline(folder, self.model, doc_pool_factor=factor) as pipeline:
                yield pipeline

    async def _write(
        self,
        pipeline: LateInteractionPipeline,
        documents: Sequence[Document],
        matrices: Sequence[FloatMatrix],
    ) -> None:
        """Write documents as `index_documents` does, but for the search index, which comes once at the end."""
        factor = pipeline.settings.doc_pool_factor
        await pipeline.store.upsert(
            [
                EncodedDocument(document, pooled(self.model, matrix, factor))
                for document, matrix in zip(documents, matrices, strict=True)
            ]
        )

    async def _search(self, pipeline: LateInteractionPipeline, best_of: str | None) -> list[Evaluation]:
        """Run two-stage search over an index, and exact MaxSim over what it stores."""
        factor = pipeline.settings.doc_pool_factor
        at = f"pool factor {factor:g}"
        await pipeline.optimize(show_progress=self.show_progress)
        found = {"two-stage": await self._run(pipeline, at, {}, best_of)}
        for way in self.ways:
            weight = way.get("lexical_weight")
            method = "lexical" if weight is None else f"hybrid {weight:g}"
            found[method] = await self._run(pipeline, at, way, best_of)
        info = await pipeline.store.info()
        exact = ExactRanking(self.queries)
        with self._bar(f"Exact MaxSim, {at}", info["documents"], best_of or "document") as bar:
            async for batch in pipeline.store.scan():
                documents = RaggedTokens.from_matrices([encoded.matrix for encoded in batch])
                exact.add(_sources([encoded.document for encoded in batch]), documents)
                bar.update(len(batch))
        packed = info["packed_bytes"]
        return [
            *(
                self._evaluation(method, factor, exact, run, packed_bytes=packed, **figures)
                for method, (run, figures) in found.items()
            ),
            self._evaluation("exact", factor, exact, packed_bytes=packed),
        ]

    async def _run(
        self, pipeline: LateInteractionPipeline, at: str, way: SearchOptions, best_of: str | None
    ) -> tuple[Run, dict[str, float]]:
        """Return what each query finds in one way, with the documents scored and the milliseconds at k = 10."""
        run: Run = {}
        n_scored, seconds = [], []
        options: SearchOptions = {"group_by": _SOURCE if best_of else None, **way}
        for query_id, query in self._each_query(f"{way.get('mode', 'Two-stage')} search, {at}"):
            text = self.collection.queries[query_id]
            started = time.perf_counter()
            found = await pipeline.search_with_embeddings(query, _TOP, text=text, **options)
            seconds.append(time.perf_counter() - started)
            n_scored.append(found.stats.n_scored)
            deeper = await pipeline.search_with_embeddings(query, _DEEP, text=text, **options)
            run[query_id] = _followed(found, deeper)
        return run, {"n_scored": fmean(n_scored), "query_ms": 1000 * fmean(seconds)}

    def _evaluation(
        self, method: str, factor: float, exact: ExactRanking, run: Run | None = None, **figures: Any
    ) -> Evaluation:
        """Return what a ranking reached, by default the exact one, over the vectors that `exact` has seen."""
        run = exact.run() if run is None else run
        metrics = evaluate(run, self.collection.qrels)
        figures = {"n_vectors": exact.n_vectors, "n_scored": exact.n_documents, **figures}
        return Evaluation(method, factor, metrics, run=run, **figures)

    def _bar(self, description: str, total: int | None, unit: str) -> tqdm[Any]:
        return tqdm(desc=description, total=total, unit=f" {unit}", disable=not self.show_progress)

    def _each_query(self, description: str) -> Iterator[tuple[str, FloatMatrix]]:
        with self._bar(description, len(self.queries), "query") as bar:
            for query in self.queries.items():
                yield query
                bar.update()


def _sources(documents: Sequence[Document]) -> list[str]:
    return [document.metadata[_SOURCE] for document in documents]


def _followed(found: SearchResults, deeper: SearchResults) -> dict[str, float]:
    """Return a ranking that begins with what was found, and goes on with what a deeper search found beside it."""
    ranked: dict[str, float] = {result.metadata[_SOURCE]: result.score for result in found}
    if len(found) < _TOP:
        return ranked
    # trec_eval sorts by the score, a float32.
    below = float(np.nextafter(np.float32(found[-1].score), np.float32(-np.inf)))
    for result in deeper:
        ranked.setdefault(result.metadata[_SOURCE], min(result.score, below))
    return ranked
