"""How many candidates one learned vector a document needs as a collection grows, and what else was tried for it.

    python benchmarks/document_vector_growth.py [--documents 5000 20000 50000 100000] [--others 10000]    # half an hour
    python benchmarks/document_vector_growth.py --documents 100000 --tries

tokens_5k is resampled: a third of each document's tokens comes from another one, and all have noise, so that there are
near-duplicates of everything: harder than a real collection. The truth is MaxSim over all documents, pooled by 2.
Vectors are made of the exact top 10 of each query and of some other documents, and ranks are scaled to all. It prints
the recall of the exact top 10 among so many candidates, and how many a recall of .97 and .98 takes.

`--tries` compares at each size: other thresholds, more values, a hidden layer that is trained (by Adam, from the
centroids), and two or three vectors a document, of clusters of its tokens, with their scores maximised or added.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from tqdm import tqdm

from benchmarks.document_vectors import K, first, tokens_5k
from late_interaction import reduction as module
from late_interaction.reduction import WIDTH, Reduction, fit
from late_interaction.types import QueryVectors, RaggedTokens

WITHIN = (100, 200, 300, 500, 700, 1000, 2000)
_NOISE = 0.35
_STEPS = 300

Score = Callable[[RaggedTokens], np.ndarray]
"""Of documents the approximate scores: (n_queries, n_docs)."""


def resampled(documents: RaggedTokens, n: int) -> RaggedTokens:
    """Return `n` documents, first these, then others made of them: a third of the tokens another's, noise on all."""
    rng = np.random.default_rng(0)
    made = [documents.matrix(i) for i in range(min(n, len(documents)))]
    for i in tqdm(range(len(documents), n), desc="Resampling", disable=n <= len(documents)):
        matrix, other = documents.matrix(i % len(documents)), documents.matrix(rng.integers(len(documents)))
        swapped = rng.random(len(matrix)) < 1 / 3
        matrix[swapped] = other[rng.integers(len(other), size=swapped.sum())]
        matrix += _NOISE * rng.normal(size=matrix.shape).astype(np.float32) / np.sqrt(matrix.shape[1])
        made.append(matrix / np.linalg.norm(matrix, axis=1, keepdims=True))
    return RaggedTokens.from_matrices(made)


def all_scores(documents: RaggedTokens, queries: list[QueryVectors]) -> np.ndarray:
    """Return (n_queries, n_docs) MaxSim of all queries at once, in one product for each group of documents."""
    vectors = np.concatenate([query.vectors * query.weights[:, None] for query in queries])
    starts = np.cumsum([0, *(len(query.vectors) for query in queries[:-1])])
    scores = np.empty((len(queries), len(documents)), np.float32)
    for a in tqdm(range(0, len(documents), 100), desc="Exact"):
        offsets = documents.offsets[a : a + 101]
        best = np.maximum.reduceat(
            documents.tokens[offsets[0] : offsets[-1]] @ vectors.T, offsets[:-1] - offsets[0]
        )
        scores[:, a : a + len(best)] = np.add.reduceat(best, starts, axis=1).T
    return scores


class Sample:
    """The exact top 10 of each query in a collection of `n` documents, and some of the other documents."""

    def __init__(self, everything: RaggedTokens, scores: np.ndarray, n: int, others: int) -> None:
        best = np.argsort(-scores[:, :n], axis=1, kind="stable")[:, :K]
        self.needed = np.unique(best)
        rest = np.setdiff1d(np.arange(n), self.needed)
        some = np.random.default_rng(2).permutation(rest)[:others]
        self.n, self.scale = n, len(rest) / len(some)
        self.documents = RaggedTokens.from_matrices([everything.matrix(i) for i in (*self.needed, *some)])
        self.best = np.searchsorted(self.needed, best)

    def report(self, name: str, score: Score) -> None:
        """Print a line of the table."""
        begin = time.process_time()
        found = []
        for scores, best in zip(score(self.documents), self.best, strict=True):
            needed, others = scores[: len(self.needed)], scores[len(self.needed) :]
            found += [(needed > scores[i]).sum() + self.scale * (others > scores[i]).sum() for i in best]
        recalls = " | ".join(f"{(np.array(found) < m).mean():.3f}" for m in WITHIN)
        wanted = " | ".join(f"{int(np.quantile(found, q)) + 1:,}" for q in (0.97, 0.98))
        seconds = time.process_time() - begin
        print(f"| {self.n:,} | {name} | {recalls} | {wanted} | {seconds:.0f} |", flush=True)


def one_vector(made: Reduction, queries: list[QueryVectors]) -> Score:
    asked = np.stack([made.query(query) for query in queries])
    return lambda documents: asked @ made.documents(documents).T


def fitted(documents: RaggedTokens, *, width: int = WIDTH, quantile: float | None = None) -> Reduction:
    before = module._QUANTILE  # noqa: SLF001 - what is compared here
    module._QUANTILE = before if quantile is None else quantile  # noqa: SLF001
    made = fit(documents, documents.tokens, width=width)
    module._QUANTILE = before  # noqa: SLF001
    return made


def trained(start: Reduction, documents: RaggedTokens, aims: RaggedTokens) -> Reduction:
    """Train the hidden layer of a reduction, with an output for each of `aims`, on the tokens of both."""
    import torch

    rng = np.random.default_rng(0)
    tokens = rng.permutation(np.concatenate([documents.tokens, aims.tokens]))

    def targets(some: np.ndarray) -> np.ndarray:
        values = np.maximum.reduceat(some @ aims.tokens.T, aims.offsets[:-1], axis=1)
        return values - values.mean(axis=1, keepdims=True)

    features = start._features(tokens[:6144])  # noqa: SLF001 - of the library
    gram = features.T @ features
    gram[np.diag_indices_from(gram)] += 1e-2 * np.trace(gram) / len(gram)
    output = np.linalg.solve(gram, features.T @ targets(tokens[:6144])).astype(np.float32)
    layer = [torch.nn.Parameter(torch.tensor(one)) for one in (start.centroids, start.thresholds, output)]
    optimizer = torch.optim.Adam(layer, lr=1e-3)
    for step in tqdm(range(_STEPS), desc="Training"):
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 - step / _STEPS) + 1e-5
        batch = tokens[rng.integers(len(tokens), size=768)]
        hidden = torch.relu(torch.tensor(batch) @ layer[0].T - layer[1])
        hidden = torch.cat([hidden, torch.full((len(batch), 1), start.constant)], 1)
        loss = ((hidden @ layer[2] - torch.tensor(targets(batch))) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    centroids, thresholds = (one.detach().numpy() for one in layer[:2])
    made = Reduction(centroids, thresholds, start.constant, start.sample, np.zeros_like(start.mean))
    made.mean = made._weights(documents).mean(axis=0)  # noqa: SLF001
    return made


def clusters(documents: RaggedTokens, n: int) -> list[RaggedTokens]:
    """Divide the tokens of each document into `n` clusters."""
    parts: list[list[np.ndarray]] = [[] for _ in range(n)]
    for i in range(len(documents)):
        tokens = documents.matrix(i)
        centers = tokens[:1]
        while len(centers) < n:
            centers = np.concatenate([centers, tokens[[np.argmin((tokens @ centers.T).max(axis=1))]]])
        for _ in range(4):
            nearest = np.argmax(tokens @ centers.T, axis=1)
            means = [tokens[nearest == j].mean(axis=0) for j in range(n) if (nearest == j).any()]
            centers = np.array(means) / np.linalg.norm(means, axis=1, keepdims=True)
        nearest = np.argmax(tokens @ centers.T, axis=1)
        for j, part in enumerate(parts):
            part.append(tokens[nearest == j] if (nearest == j).any() else tokens)
    return [RaggedTokens.from_matrices(part) for part in parts]


def several_vectors(
    made: Reduction, documents: RaggedTokens, queries: list[QueryVectors], n: int, join: Callable
) -> Score:
    asked = np.stack([made.query(query) for query in queries])
    mean = np.mean([made._weights(part).mean(axis=0) for part in clusters(documents, n)], axis=0)  # noqa: SLF001

    def score(some: RaggedTokens) -> np.ndarray:
        return join([asked @ (made._weights(part) - mean).T for part in clusters(some, n)])  # noqa: SLF001

    return score


def tries(documents: RaggedTokens, queries: list[QueryVectors]) -> Iterator[tuple[str, Score]]:
    some, others = first(documents, 1000), first(documents, 1600)
    others = RaggedTokens.from_matrices([others.matrix(i) for i in range(1000, 1600)])
    for quantile in (0.8, 0.9, 0.95):
        yield f"thresholds {quantile}", one_vector(fitted(some, quantile=quantile), queries)
    for width in (2048, 3072):
        yield f"{width} values", one_vector(fitted(some, width=width), queries)
    made = fitted(some)
    yield "trained", one_vector(trained(made, some, others), queries)
    for n in (2, 3):
        for name, join in (("maximised", np.maximum.reduce), ("added", sum)):
            yield f"{n} vectors, {name}", several_vectors(made, first(documents, 300), queries, n, join)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, nargs="+", default=[5_000, 20_000, 50_000, 100_000])
    parser.add_argument("--others", type=int, default=10_000)
    parser.add_argument("--tries", action="store_true")
    arguments = parser.parse_args()
    documents, queries = tokens_5k()
    everything = resampled(documents, max(arguments.documents))
    scores = all_scores(everything, queries)
    samples = [Sample(everything, scores, n, arguments.others) for n in arguments.documents]
    del everything, scores
    schemes = (
        tries(documents, queries)
        if arguments.tries
        else [(f"{WIDTH} values", one_vector(fitted(first(documents, 1000)), queries))]
    )
    print(f"| documents | vectors | {' | '.join(map(str, WITHIN))} | for .97 | for .98 | CPU s |")
    print(f"|{'---|' * (len(WITHIN) + 5)}")
    for name, score in schemes:
        for sample in samples:
            sample.report(name, score)


if __name__ == "__main__":
    main()
