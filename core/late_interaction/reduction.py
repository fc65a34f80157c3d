"""One learned vector a document, whose inner product with a query's vector approximates MaxSim.

This is LEMUR's reduction: E. Jääsaari, V. Hyvönen and T. Roos, "LEMUR: Learned Multi-Vector Retrieval", ICML 2026,
arXiv 2601.21853. MaxSim(q, d) is a sum over the query's vectors, Σ_i g_d(q_i) with g_d(x) = max_j x · d_j. If
g_d(x) ≈ w_d · φ(x) for features φ that all documents share, then MaxSim(q, d) ≈ w_d · Σ_i φ(q_i).

Here φ is not trained, but made of what is stored: φ(x) = [relu(x · c_k - t_k)]_k for centroids c_k of token vectors and
thresholds t_k, and one constant. w_d is a ridge regression of g_d on a sample of token vectors. Then the mean of w over
the documents is subtracted, which changes each document's score by the same amount, and vectors are made of unit
length, so that a vector index that compares by dot product or cosine loses nothing. benchmarks/document_vectors.py
measures the choices; docs/astra.md has the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.clustering import k_means
from late_interaction.errors import StoreError
from late_interaction.packing import pack, unpack
from late_interaction.types import FloatMatrix, QueryVectors, RaggedTokens
from late_interaction.validation import check_positive

WIDTH = 1536
"""Values in a document's vector, by default."""
SAMPLE_PER_FEATURE = 4
"""Token vectors of the regression's sample for each value: more find no more."""

_ALGORITHM = "lemur-centroids-1"
"""Name of what is done here: a change that gives other vectors has to change the number."""
_QUANTILE = 0.95
"""Rarer features tell near-duplicates apart, of which large collections are full: at 100,000 documents .97 for .96."""
_RIDGE = 1e-2
_PASSES = 4
_NEVER = 2.0
"""A threshold that no product of unit vectors reaches: of features that there are too few tokens for."""
_AT_ONCE = 4096
"""Document tokens that are multiplied with the sample at a time: 4,096 by 6,144 float32 are 100 MB."""
_DOCUMENTS_AT_ONCE = 64


class Reduction:
    """A fitted map from token matrices to one vector each; the same for everyone who has its bytes.

    Args:
        centroids: (width - 1, dim) float32, rounded as `to_bytes` keeps them.
        thresholds: (width - 1,) float32.
        constant: the value of the constant feature.
        sample: (n, dim) float32, the token vectors that the regression is made on, rounded likewise.
        mean: (width,) float32, what is subtracted from every document's vector.
        provisional: it was fitted to few documents, and should be fitted again once there are more.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> tokens = rng.normal(size=(90, 8)).astype(np.float32)
        >>> tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
        >>> documents = RaggedTokens(tokens, np.arange(0, 91, 3))
        >>> reduction = fit(documents, tokens, width=16)
        >>> reduction.documents(documents).shape, reduction.query(QueryVectors(tokens[:2], np.ones(2))).shape
        ((30, 16), (16,))
    """

    def __init__(
        self,
        centroids: FloatMatrix,
        thresholds: NDArray[np.float32],
        constant: float,
        sample: FloatMatrix,
        mean: NDArray[np.float32],
        *,
        provisional: bool = False,
    ) -> None:
        self.centroids, self.thresholds, self.constant = centroids, thresholds, constant
        self.sample, self.mean = sample, mean
        self.provisional = provisional

    @property
    def width(self) -> int:
        """Values in a vector."""
        return len(self.mean)

    @property
    def dim(self) -> int:
        """Width of the token vectors that it is for."""
        return int(self.centroids.shape[1])

    def query(self, query: QueryVectors) -> NDArray[np.float32]:
        """Return a query's vector: (width,) float32, of unit length."""
        return _unit(query.weights @ self._features(query.vectors))

    def documents(self, documents: RaggedTokens) -> FloatMatrix:
        """Return the documents' vectors: (n_docs, width) float32, unit rows.

        It takes 2 · n_tokens · n_sample · dim operations: some milliseconds a document of 40 tokens. Of each document,
        the values depend on its own tokens alone.
        """
        return _unit(self._weights(documents) - self.mean)

    def to_bytes(self) -> bytes:
        """Return it as the bytes of a safetensors file: int8 vectors, and what names the algorithm."""
        from safetensors.numpy import save

        tensors: dict[str, NDArray[Any]] = {
            "centroids": np.frombuffer(pack(self.centroids), np.uint8),
            "sample": np.frombuffer(pack(self.sample), np.uint8),
            "thresholds": self.thresholds,
            "constant": np.array([self.constant], np.float32),
            "mean": self.mean,
        }
        provisional = {"provisional": "yes"} if self.provisional else {}
        return save(tensors, metadata={"algorithm": _ALGORITHM, **provisional})

    @classmethod
    def from_bytes(cls, data: bytes) -> Reduction:
        """Return what `to_bytes` made these bytes of.

        Raises:
            StoreError: the bytes are damaged, or of another release.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            algorithm = header["__metadata__"]["algorithm"]
        except (KeyError, TypeError, ValueError):
            raise StoreError("the reduction to document vectors is damaged: it is no safetensors.") from None
        if algorithm != _ALGORITHM:
            raise StoreError(
                f"the reduction to document vectors is {algorithm!r:.40}; this release reads {_ALGORITHM}: "
                "optimize(refit=True) makes a new one."
            )
        try:
            tensors = load(data)
            made = cls(
                unpack(tensors["centroids"].tobytes()),
                tensors["thresholds"],
                float(tensors["constant"][0]),
                unpack(tensors["sample"].tobytes()),
                tensors["mean"],
                provisional="provisional" in header["__metadata__"],
            )
        except (SafetensorError, KeyError, IndexError, ValueError) as error:
            raise StoreError(f"the reduction to document vectors is damaged: {error}.") from None
        features, width = len(made.centroids), len(made.mean)
        if not features == len(made.thresholds) == width - 1 or made.sample.shape[1] != made.dim:
            raise StoreError("the reduction to document vectors is damaged: its parts do not fit together.")
        return made

    def _features(self, tokens: FloatMatrix) -> FloatMatrix:
        """Return φ of each row of (n, dim): (n, width)."""
        features = np.empty((len(tokens), len(self.thresholds) + 1), np.float32)
        features[:, -1] = self.constant
        np.maximum(tokens @ self.centroids.T - self.thresholds, 0, out=features[:, :-1])
        return features

    @cached_property
    def _solver(self) -> FloatMatrix:
        """Return (width, n_sample): what makes w of g. It takes a second or so, and is made at the first write."""
        from scipy.linalg import solve

        features = self._features(self.sample)
        gram = features.T @ features
        gram[np.diag_indices_from(gram)] += _RIDGE * max(float(np.trace(gram)) / len(gram), 1e-6)
        solver: FloatMatrix = solve(gram, features.T, assume_a="pos", overwrite_a=True, check_finite=False)
        return solver

    def _weights(self, documents: RaggedTokens) -> FloatMatrix:
        weights = np.empty((len(documents), self.width), np.float32)
        for first, last in _groups(documents.offsets):
            start, stop = documents.offsets[first], documents.offsets[last]
            tokens = documents.tokens[start:stop].astype(np.float32)
            if documents.scales is not None:
                tokens *= documents.scales[start:stop, None]
            starts = documents.offsets[first:last] - start
            best = np.maximum.reduceat(tokens @ self.sample.T, starts, axis=0)
            weights[first:last] = best @ self._solver.T
        return weights


def fit(documents: RaggedTokens, tokens: FloatMatrix, *, width: int = WIDTH) -> Reduction:
    """Fit a reduction to a collection.

    The same arguments give the same reduction. Where there are fewer tokens than features, the surplus features are 0.

    Args:
        documents: some hundreds of the collection's documents, as stored, n_docs ≥ 1: their mean is subtracted.
        tokens: (n, dim) float32 unit rows, n ≥ 1, like those of the queries to come: the collection's own texts,
            encoded as queries, or else the documents' tokens. Another collection's tokens find much less.
        width: values in a vector, ≥ 2.

    Raises:
        ValueError: there is no document or no token.
    """
    check_positive("width", width)
    if width < 2 or not len(documents) or not len(tokens):
        raise ValueError("a reduction needs a width of at least 2, a document and a token.")
    rng = np.random.default_rng(0)
    most = SAMPLE_PER_FEATURE * width
    sample = tokens if len(tokens) <= most else tokens[rng.choice(len(tokens), most, replace=False)]
    sample = unpack(pack(sample))
    n_features = width - 1
    n_centroids = min(n_features, len(sample))
    centroids = np.zeros((n_features, sample.shape[1]), np.float32)
    thresholds = np.full(n_features, _NEVER, np.float32)
    centroids[:n_centroids] = k_means(sample, n_centroids, iterations=_PASSES)
    centroids = unpack(pack(centroids))
    products = sample @ centroids[:n_centroids].T
    thresholds[:n_centroids] = np.quantile(products, _QUANTILE, axis=0)
    constant = float(np.maximum(products - thresholds[:n_centroids], 0).std()) or 1.0
    made = Reduction(centroids, thresholds, constant, sample, np.zeros(width, np.float32))
    made.mean = made._weights(documents).mean(axis=0)  # noqa: SLF001 - this module's own
    return made


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of unit length; one of no length points somewhere, since no vector index takes zeros."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    somewhere = np.zeros_like(rows)
    somewhere[..., -1] = 1
    unit: NDArray[np.float32] = np.where(lengths > 0, rows / np.where(lengths > 0, lengths, 1), somewhere)
    return unit.astype(np.float32)


def _groups(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Yield ranges of documents that are reduced together."""
    first, n_docs = 0, len(offsets) - 1
    while first < n_docs:
        last = int(np.searchsorted(offsets, offsets[first] + _AT_ONCE, side="right")) - 1
        last = min(max(last, first + 1), first + _DOCUMENTS_AT_ONCE)
        yield first, last
        first = last
