"""What the tests of the embedded store share: small documents, queries, and the exact ranking of stage 1."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from late_interaction import Document, EncodedDocument, IndexSpec, LocalStore, QueryVectors
from late_interaction.maxsim import maxsim
from late_interaction.stores.local.limits import Limits

DIM = 16
SPEC = IndexSpec(dim=DIM, encoder={"model": "m"}, pooling={"factor": 1.0}, packing="float32")
SMALL = Limits(exact_tokens=400)
"""Above this many tokens the index is built and used: about 80 of the documents here."""

WORDS = np.random.default_rng(0).normal(size=(200, DIM))


def matrix(seed: int, n: int = 6) -> np.ndarray:
    """Tokens as they come: some of 200 words, each a little different in each place."""
    rng = np.random.default_rng(seed)
    rows = (WORDS[rng.integers(0, 200, n)] + 0.3 * rng.normal(size=(n, DIM))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def encoded(i: int, **metadata: object) -> EncodedDocument:
    return EncodedDocument(Document(f"d{i}", f"text {i}", "text", {"i": i, **metadata}), matrix(i, 3 + i % 5))


def query(seed: int) -> QueryVectors:
    return QueryVectors(matrix(seed, 4), np.ones(4, np.float32))


def database(store: LocalStore) -> Path:
    return store.folder / "documents.sqlite3"


def centroid_file(store: LocalStore) -> Path:
    return store.folder / "centroids.npz"


async def best(store, q, n=10, **options):
    """The exact ranking of what stage 1 hands over."""
    found = await store.candidates(q, n, n_ann_tokens=options.pop("n_ann_tokens", 50), **options)
    ids, documents = await store.matrices(found.doc_ids)
    scores = maxsim(q.vectors, documents, q.weights)
    return [ids[i] for i in np.argsort(-scores)]
