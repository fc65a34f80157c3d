r"""One learned vector a document as the folder's stage 1, beside its index of centroids, in one process and in turns.

    uv run --all-extras --with usearch==2.26.6 python benchmarks/folder_stage1.py ../shared/data/tokens_5k.npz \
        --documents 5000 20000 100000 --cache ~/stage1 --judged cranfield cisi --rare 8000

Documents are made as in growth.py, pooled by 2 (`--pool`). Each way has a pipeline of its own on the same folder and
gives `CentroidIndex.approximate` its scores, so that filters, rare words, the choice of what is scored, and stage 2
are the store's own. The ways: centroids; the exact inner product of document vectors (reduction.py, fitted to 1,000
documents) as float32 and as int8 with a scale each; and, where usearch is installed, its HNSW graph of int8 vectors.

"For .97" is how many candidates, all of them scored, have a mean recall@10 of .97. Times are CPU milliseconds of one
thread, medians. What `--cache` has is not made again: the first run takes 10 minutes of a core at 100,000.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from encoded import collection, demo_model, encoded
from growth import PARTS, fill, made
from local import fill as fill_texts
from local import load, pooled
from rare_words import rare_words
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from late_interaction import LateInteractionPipeline, PrecomputedEmbeddings, QueryVectors, RaggedTokens
from late_interaction.clustering import NearestCentroids
from late_interaction.evaluation.metrics import evaluate
from late_interaction.filters import parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.pooling import pool_query
from late_interaction.reduction import WIDTH, Reduction, fit
from late_interaction.stores.local.centroids import CentroidIndex

try:
    from usearch.index import Index
except ImportError:
    Index = None

K, GOAL, QUERIES, FITTED, ONE_BY_ONE, MOST = 10, 0.97, 40, 1000, 20, 20_000
SHARES = (0.5, 0.1, 0.01)
TOGETHER = 4096

Scores = Callable[[QueryVectors], np.ndarray]
"""Of a query the approximate MaxSim of every document, minus infinity where a graph did not come to it."""


Written = Callable[[RaggedTokens], object]
"""What is computed of a document more."""


@dataclass
class Stage1:
    """A way of stage 1.

    Attributes:
        name: what the tables call it.
        scores: what gives its scores; None of the store's own.
        build_s: CPU seconds that it took to build.
        memory, disk: bytes beside the documents.
        write: what is computed of a document more.
    """

    name: str
    scores: Scores | None
    build_s: float
    memory: int = 0
    disk: int = 0
    write: Written = len


class Replaced:
    """The store's index, with the approximate scores of another way."""

    def __init__(self, index: CentroidIndex, scores: Scores) -> None:
        self._index, self._scores = index, scores

    def __getattr__(self, name: str) -> Any:
        return getattr(self._index, name)

    def approximate(self, query: QueryVectors, n_ann_tokens: int) -> np.ndarray:
        """Return the approximate MaxSim of every document."""
        return self._scores(query)


def vector_of(reduction: Reduction, query: QueryVectors) -> np.ndarray:
    return query.weights @ reduction._features(query.vectors)  # noqa: SLF001 - before it is reduction of unit length


def weights_of(reduction: Reduction, documents: RaggedTokens) -> np.ndarray:
    return reduction._weights(documents) - reduction.mean  # noqa: SLF001 - likewise


def float32(reduction: Reduction, weights: np.ndarray) -> Scores:
    def scores(query: QueryVectors) -> np.ndarray:
        vector = vector_of(reduction, query)
        return weights @ vector + reduction.mean @ vector

    return scores


def int8(reduction: Reduction, codes: np.ndarray, scales: np.ndarray) -> Scores:
    def scores(query: QueryVectors) -> np.ndarray:
        vector, found = vector_of(reduction, query), np.empty(len(codes), np.float32)
        for start in range(0, len(codes), TOGETHER):
            found[start : start + TOGETHER] = codes[start : start + TOGETHER].astype(np.float32) @ vector
        return found * scales + reduction.mean @ vector

    return scores


class Graph:
    """An HNSW graph of int8 vectors, by cosine; `n` are looked for. `length` is about that of each vector."""

    def __init__(self, reduction: Reduction, graph: Any, length: float) -> None:
        self.reduction, self.graph, self.length, self.n = reduction, graph, length, 0

    def __call__(self, query: QueryVectors) -> np.ndarray:
        """Return the scores of a query."""
        vector = vector_of(self.reduction, query)
        norm = float(np.linalg.norm(vector))
        codes = np.rint(vector * (127 / np.abs(vector).max())).astype(np.int8)
        self.graph.expansion_search = self.n
        found = self.graph.search(codes, self.n, threads=1)
        scores = np.full(len(self.graph), -np.inf, np.float32)
        scores[found.keys] = (1 - found.distances) * norm * self.length + self.reduction.mean @ vector
        return scores


def kept(file: Path, make: Callable[[], np.ndarray]) -> tuple[np.ndarray, float]:
    """Return an array with the CPU seconds that it took, from a file if it is there."""
    times = file.with_suffix(".json")
    if not times.exists():
        started = time.process_time()
        array = make()
        spent = time.process_time() - started
        np.save(file, array)
        times.write_text(json.dumps(spent))
    return np.load(file), json.loads(times.read_text())


def document_ways(
    cache: Path, width: int, documents: Iterable[RaggedTokens], sample: RaggedTokens
) -> list[Stage1]:
    """Return the ways by document vectors; of `documents` some are reduced at a time."""
    started = time.process_time()
    reduction = fit(sample, sample.tokens, width=width)
    fit_s = time.process_time() - started
    weights, write_s = kept(
        cache / f"weights-{width}.npy",
        lambda: np.concatenate([weights_of(reduction, part) for part in documents]),
    )
    scales = np.abs(weights).max(axis=1) / 127
    codes = np.rint(weights / scales[:, None]).astype(np.int8)
    name, build_s = f"documents, {width}", fit_s + write_s
    ways = [
        Stage1(f"{name}, float32", float32(reduction, weights), build_s, weights.nbytes, weights.nbytes),
        Stage1(f"{name}, int8", int8(reduction, codes, scales), build_s, codes.nbytes, codes.nbytes),
    ]
    if Index is not None:

        def make_graph() -> np.ndarray:
            graph = Index(ndim=width, metric="cos", dtype="i8")
            graph.add(np.arange(len(codes)), codes, threads=1)
            return np.frombuffer(graph.save(), np.uint8)

        stored, graph_s = kept(cache / f"graph-{width}.npy", make_graph)
        graph = Index.restore(stored.tobytes())
        scores = Graph(reduction, graph, float(np.median(np.linalg.norm(weights, axis=1))))
        ways.append(Stage1(f"{name}, HNSW", scores, build_s + graph_s, graph.memory_usage, len(stored)))
    fitted = len(reduction.to_bytes())
    for way in ways:
        way.memory, way.disk = way.memory + fitted, way.disk + fitted
        way.write = partial(weights_of, reduction)
    return ways


async def opened(folder: Path, dim: int, way: Stage1) -> LateInteractionPipeline:
    """Open the folder with a way as its stage 1."""
    pipeline = LateInteractionPipeline(folder, PrecomputedEmbeddings(dim, "made"), doc_pool_factor=1)
    await pipeline.search_with_embeddings(np.eye(1, dim, dtype=np.float32), 1)
    views = pipeline.store._views  # noqa: SLF001 - what is replaced here
    key, index = views._loaded  # noqa: SLF001
    if way.scores is None:
        lists = index.lists
        way.memory = sum(
            array.nbytes for array in (index.centroids, lists.starts, lists.firsts, lists.offsets)
        )
        way.disk = (folder / "late_interaction" / "centroids.npz").stat().st_size
        way.write = NearestCentroids(index.centroids)
    else:
        views.latest, views._loaded = None, (key, Replaced(index, way.scores))  # noqa: SLF001
    return pipeline


@dataclass
class Asked:
    """Questions, with their texts where words count, and the positions of the exact top 10 of each."""

    queries: Sequence[np.ndarray]
    best: Sequence[np.ndarray]
    texts: Sequence[str] | None = None


@dataclass
class Found:
    """Of each question: the share of the exact top 10, how many were scored, CPU ms of stage 1 and of all, the ids."""

    recall: list[float]
    scored: list[int]
    stage1: list[float]
    search: list[float]
    ids: list[list[str]]

    def cells(self) -> tuple[str, ...]:
        """Return what the tables show of it."""
        worst = np.sort(self.recall)[: max(1, len(self.recall) // 10)].mean()
        return (
            f"{np.mean(self.recall):.3f}",
            f"{worst:.2f}",
            f"{np.mean(self.scored):.0f}",
            f"{np.median(self.stage1):.1f}",
            f"{np.median(self.search):.1f}",
        )


async def needed(pipeline: LateInteractionPipeline, way: Stage1, asked: Asked) -> int:
    """Return how many candidates, all scored, reach the goal."""
    depth = pipeline.store.scaling.n_ann_tokens(K)

    async def ranks(n: int) -> np.ndarray:
        found: list[int] = []
        for query, top in zip(asked.queries, asked.best, strict=True):
            candidates = await pipeline.store.candidates(pool_query(query, 0.03), n, n_ann_tokens=depth)
            rank = {int(doc_id): i for i, doc_id in enumerate(candidates.doc_ids)}
            found += [rank.get(int(i), MOST) for i in top]
        return np.sort(found)

    if not isinstance(way.scores, Graph):
        found = await ranks(await pipeline.count() - 1)  # all of them would be scored exactly
        return int(found[int(np.ceil(GOAL * len(found))) - 1]) + 1
    way.scores.n = 50
    while (await ranks(way.scores.n) < way.scores.n).mean() < GOAL and way.scores.n < MOST:
        way.scores.n = round(way.scores.n * 1.15)
    return way.scores.n


async def in_turns(
    ways: list[Stage1],
    pipelines: list[LateInteractionPipeline],
    asked: Asked,
    n_scored: list[int] | None = None,
    filter: dict[str, Any] | None = None,
) -> list[Found]:
    """Ask each question of each way in turn; `n_scored` candidates of each way, or the store's default."""
    found = [Found([], [], [], [], []) for _ in ways]
    parsed = parse_filter(filter)
    for i, (query, top) in enumerate(zip(asked.queries, asked.best, strict=True)):
        for place, (way, pipeline) in enumerate(zip(ways, pipelines, strict=True)):
            scaling = pipeline.store.scaling
            n = scaling.n_maxsim_candidates(K) if n_scored is None else n_scored[place]
            if isinstance(way.scores, Graph):
                way.scores.n = n
            times = [time.process_time()]
            await pipeline.store.candidates(
                pool_query(query, 0.03), n, n_ann_tokens=scaling.n_ann_tokens(K), filter=parsed
            )
            times.append(time.process_time())
            results = await pipeline.search_with_embeddings(
                query,
                K,
                filter=filter,
                n_maxsim_candidates=None if n_scored is None else n,
                text=None if asked.texts is None else asked.texts[i],
            )
            times.append(time.process_time())
            one, ids = found[place], [result.doc_id for result in results]
            one.recall.append(len({str(j) for j in top}.intersection(ids)) / len(top))
            one.scored.append(results.stats.n_scored)
            one.stage1.append((times[1] - times[0]) * 1e3)
            one.search.append((times[2] - times[1]) * 1e3)
            one.ids.append(ids)
    return found


def ms_of_one(call: Callable[[RaggedTokens], object], documents: RaggedTokens) -> float:
    """Return the CPU ms that a call takes for one document, the median of some."""
    times = []
    for i in range(ONE_BY_ONE):
        one = RaggedTokens.from_matrices([documents.matrix(i)])
        started = time.process_time()
        call(one)
        times.append((time.process_time() - started) * 1e3)
    return float(np.median(times))


async def grown(path: Path, n: int, arguments: argparse.Namespace, searches: Table, builds: Table) -> None:
    """Measure a folder of `n` documents, made of those of the file."""
    real, queries = load(path, None, arguments.pool)
    cache = arguments.cache / f"{n}-{arguments.pool:g}"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "build.json").exists():
        seconds, scores = await fill(cache / "folder", real, queries[:QUERIES], n)
        np.save(cache / "scores.npy", scores)
        (cache / "build.json").write_text(json.dumps(seconds["build"]))
    scores = np.load(cache / "scores.npy")
    ways = [Stage1("centroids", None, json.loads((cache / "build.json").read_text()))]
    for width in arguments.width:
        parts = (RaggedTokens.from_matrices(part) for part in made(real, n))
        ways += document_ways(cache, width, parts, some(real))
    pipelines = [await opened(cache / "folder", real.tokens.shape[1], way) for way in ways]
    parts_of = np.arange(n) % PARTS

    def asked(allowed: np.ndarray) -> Asked:
        masked = np.where(allowed, scores, -np.inf)
        return Asked(queries[:QUERIES], np.argsort(-masked, axis=1, kind="stable")[:, :K])

    everything = asked(np.ones(n, bool))
    n_scored = [await needed(*each, everything) for each in zip(pipelines, ways, strict=True)]
    settings: list[tuple[str, Asked, list[int] | None, dict[str, Any] | None]] = [
        ("for .97", everything, n_scored, None),
        ("the store's default", everything, None, None),
    ]
    for share in SHARES:
        condition = {"part": {"$lt": round(share * PARTS)}}
        settings.append((f"filter {share:.0%}", asked(parts_of < share * PARTS), n_scored, condition))
    for setting, questions, candidates, condition in settings:
        for pipeline in pipelines:  # A filter's first search reads all metadata.
            await pipeline.search_with_embeddings(queries[0], K, filter=condition)
        found = await in_turns(ways, pipelines, questions, candidates, condition)
        for way, one in zip(ways, found, strict=True):
            searches.add_row(f"{n:,}", setting, way.name, *one.cells(), end_section=way is ways[-1])
    for way in ways:
        megabytes = (f"{each / 1e6:.1f}" for each in (way.memory, way.disk))
        one_more = f"{ms_of_one(way.write, real):.2f}"
        builds.add_row(
            f"{n:,}", way.name, f"{way.build_s:.0f}", *megabytes, one_more, end_section=way is ways[-1]
        )
    for pipeline in pipelines:
        await pipeline.aclose()


async def texts(
    name: str,
    documents: RaggedTokens,
    contents: list[str],
    questions: dict[str, Asked],
    arguments: argparse.Namespace,
) -> tuple[list[Stage1], dict[str, list[Found]]]:
    """Measure a folder of real texts; return the ways, and what each found of each kind of question."""
    cache = arguments.cache / f"{name}-{arguments.pool:g}"
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / "build.json").exists():
        pipeline, _, build_s = await fill_texts(cache / "folder", documents, "made", contents)
        await pipeline.aclose()
        (cache / "build.json").write_text(json.dumps(build_s))
    ways = [Stage1("centroids", None, json.loads((cache / "build.json").read_text()))]
    for width in arguments.width:
        ways += document_ways(cache, width, [documents], some(documents))
    pipelines = [await opened(cache / "folder", documents.tokens.shape[1], way) for way in ways]
    found = {form: await in_turns(ways, pipelines, asked) for form, asked in questions.items()}
    for pipeline in pipelines:
        await pipeline.aclose()
    return ways, found


def some(documents: RaggedTokens) -> RaggedTokens:
    """Return the documents that a reduction is fitted to."""
    chosen = np.random.default_rng(1).permutation(len(documents))[:FITTED]
    return RaggedTokens.from_matrices([documents.matrix(i) for i in chosen])


def exact_top(documents: RaggedTokens, queries: Iterable[np.ndarray]) -> list[np.ndarray]:
    return [np.argsort(-maxsim(query, documents), kind="stable")[:K] for query in queries]


async def judged(name: str, arguments: argparse.Namespace, table: Table) -> None:
    """Measure nDCG@10 on a judged collection."""
    of = collection(name)
    documents, queries = encoded(of, demo_model(), arguments.cache)
    documents = pooled(documents, arguments.pool, protected=1)
    best = exact_top(documents, queries.values())
    contents = list(of.documents.values())
    ways, found = await texts(name, documents, contents, {name: Asked([*queries.values()], best)}, arguments)
    doc_ids = list(of.documents)

    def ndcg(rankings: Iterable[Iterable[int]]) -> str:
        ranked = ({doc_ids[i]: 1 / (1 + rank) for rank, i in enumerate(ranking)} for ranking in rankings)
        return f"{evaluate(dict(zip(queries, ranked, strict=True)), of.qrels)['ndcg@10']:.4f}"

    table.add_row(name, "all documents, exactly", ndcg(best))
    for way, one in zip(ways, found[name], strict=True):
        table.add_row(
            name, way.name, ndcg(map(int, ids) for ids in one.ids), *one.cells(), end_section=way is ways[-1]
        )


async def rare(n: int, arguments: argparse.Namespace, table: Table) -> None:
    """Measure questions that rest on one rare code, with the help of the index of words and without."""
    of = rare_words(n, arguments.cache)
    documents = pooled(of.documents, arguments.pool, protected=1)
    questions = {}
    for form, pairs in of.questions.items():
        matrices = [matrix.astype(np.float32) for _, matrix in pairs]
        best = exact_top(documents, matrices)
        questions[form] = Asked(matrices, best)
        questions[f"{form}, with words"] = Asked(matrices, best, [text for text, _ in pairs])
    ways, found = await texts(f"rare-{n}", documents, of.texts, questions, arguments)
    for form, asked in questions.items():
        answers = of.answers
        exact_in = np.mean([answer in top for answer, top in zip(answers, asked.best, strict=True)])
        for way, one in zip(ways, found[form], strict=True):
            in_ten = np.mean([str(answer) in ids for answer, ids in zip(answers, one.ids, strict=True)])
            cells = (f"{in_ten:.2f}", f"{exact_in:.2f}", *one.cells())
            table.add_row(f"{n:,}", form, way.name, *cells, end_section=way is ways[-1])


def table_of(title: str, *headings: str) -> Table:
    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tokens", type=Path, help="matrices as token_matrices.py makes them")
    parser.add_argument("--documents", type=int, nargs="*", default=[5000, 20_000, 100_000])
    parser.add_argument("--pool", type=float, default=2)
    parser.add_argument("--width", type=int, nargs="+", default=[WIDTH], help="values of a document vector")
    parser.add_argument("--cache", type=Path, required=True, help="where folders and vectors are kept")
    parser.add_argument("--judged", nargs="*", default=[], choices=["cranfield", "cisi"])
    parser.add_argument("--rare", type=int, nargs="*", default=[], help="questions for rare codes in so many")
    arguments = parser.parse_args()
    if Index is None:
        print("usearch is not installed, so there is no HNSW graph: `uv run --all-extras --with usearch …`.")
    measured = ("recall@10", "worst tenth", "scored", "stage 1 ms", "search ms")
    searches = table_of("Searches", "documents", "setting", "stage 1 by", *measured)
    builds = table_of(
        "Beside the documents",
        "documents",
        "stage 1 by",
        "build CPU s",
        "MB in memory",
        "MB on disk",
        "one more, ms",
    )
    ndcg = table_of("Judged questions", "collection", "stage 1 by", "nDCG@10", *measured)
    codes = table_of("Rare codes", "documents", "question", "stage 1 by", "in ten", "exact", *measured)
    with threadpool_limits(1):
        for n in arguments.documents:
            asyncio.run(grown(arguments.tokens, n, arguments, searches, builds))
        for name in arguments.judged:
            asyncio.run(judged(name, arguments, ndcg))
        for n in arguments.rare:
            asyncio.run(rare(n, arguments, codes))
    for table in (searches, builds, ndcg, codes):
        if table.rows:
            Console(width=150).print(table)


if __name__ == "__main__":
    main()
