"""The reduction of token matrices to one vector each."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from safetensors.numpy import load, save

from late_interaction.errors import StoreError
from late_interaction.maxsim import maxsim
from late_interaction.packing import pack, unpack_many
from late_interaction.reduction import Reduction, fit
from late_interaction.types import QueryVectors, RaggedTokens

DIM = 16


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def documents() -> RaggedTokens:
    """400 documents of 10 tokens, each about some of 30 topics."""
    rng = np.random.default_rng(0)
    topics = unit(rng.normal(size=(30, DIM)))
    made = [unit(topics[rng.integers(0, 30, 10)] + 0.1 * rng.normal(size=(10, DIM))) for _ in range(400)]
    return RaggedTokens.from_matrices(made)


@pytest.fixture(scope="module")
def fitted(documents: RaggedTokens) -> Reduction:
    return fit(documents, documents.tokens, width=128)


def query(documents: RaggedTokens, seed: int) -> QueryVectors:
    rng = np.random.default_rng(1000 + seed)
    rows = documents.tokens[rng.integers(0, len(documents.tokens), 6)] + 0.1 * rng.normal(size=(6, DIM))
    return QueryVectors(unit(rows), rng.uniform(1, 2, 6).astype(np.float32))


def test_the_best_by_maxsim_are_among_the_best_by_one_product(documents, fitted):
    vectors = fitted.documents(documents)
    found, by_mean = [], []
    means = unit(np.stack([documents.matrix(i).mean(axis=0) for i in range(len(documents))]))
    for seed in range(30):
        one = query(documents, seed)
        top = np.argsort(-maxsim(one.vectors, documents, one.weights))[:10]
        found.append(np.isin(top, np.argsort(-(vectors @ fitted.query(one)))[:50]).mean())
        by_mean.append(np.isin(top, np.argsort(-(means @ (one.weights @ one.vectors)))[:50]).mean())
    assert np.mean(found) > 0.95
    assert np.mean(found) > np.mean(by_mean) + 0.3


def test_vectors_have_unit_length_and_no_common_direction(documents, fitted):
    vectors = fitted.documents(documents)
    assert vectors.shape == (400, 128)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(vectors.mean(axis=0)) < 0.1
    assert np.linalg.norm(fitted.query(query(documents, 0))) == pytest.approx(1, abs=1e-5)


def test_a_document_has_the_same_vector_alone_and_as_it_is_packed(documents, fitted):
    vectors = fitted.documents(documents)
    alone = RaggedTokens.from_matrices([documents.matrix(7)])
    np.testing.assert_allclose(fitted.documents(alone)[0], vectors[7], atol=1e-4)
    packed = unpack_many([pack(documents.matrix(i)) for i in (7, 8)])
    assert (fitted.documents(packed) * vectors[7:9]).sum(axis=1) == pytest.approx(1, abs=0.01)
    assert fitted.documents(RaggedTokens.from_matrices([], DIM)).shape == (0, 128)


def test_its_bytes_make_the_same_vectors(documents, fitted):
    data = fitted.to_bytes()
    again = Reduction.from_bytes(data)
    some = RaggedTokens.from_matrices([documents.matrix(i) for i in range(9)])
    np.testing.assert_allclose(again.documents(some), fitted.documents(some), atol=1e-4)
    one = query(documents, 1)
    np.testing.assert_allclose(again.query(one), fitted.query(one), atol=1e-6)
    assert len(data) < (128 + 4 * 128) * (DIM + 4) + 3000
    assert fit(documents, documents.tokens, width=128).to_bytes() == data


@pytest.mark.parametrize("n_tokens", [1, 3, 20])
def test_fewer_tokens_than_features_are_enough(documents, n_tokens):
    few = RaggedTokens(documents.tokens[:n_tokens], np.array([0, n_tokens]))
    made = Reduction.from_bytes(fit(few, few.tokens, width=64).to_bytes())
    for vectors in (made.documents(documents), made.query(query(documents, 2))[None]):
        assert np.isfinite(vectors).all()
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_cannot_be_fitted_is_refused(documents):
    nothing = RaggedTokens.from_matrices([], DIM)
    for some, tokens, width in (
        (nothing, documents.tokens, 8),
        (documents, documents.tokens[:0], 8),
        (documents, documents.tokens, 1),
    ):
        with pytest.raises(ValueError, match="a reduction needs"):
            fit(some, tokens, width=width)


def damages(data: bytes) -> dict[str, bytes]:
    tensors = load(data)
    narrow = {**tensors, "thresholds": tensors["thresholds"][:-1]}
    return {
        "nothing": b"",
        "no safetensors": b"\x00" * 100,
        "half": data[: len(data) // 2],
        "a long header": struct.pack("<Q", 2**62) + data[8:],
        "without a part": save({"mean": tensors["mean"]}, {"algorithm": "lemur-centroids-1"}),
        "parts that do not fit": save(narrow, {"algorithm": "lemur-centroids-1"}),
    }


@pytest.mark.parametrize("damage", damages(save({"thresholds": np.zeros(2), "mean": np.zeros(3)})))
def test_damaged_bytes_are_refused(fitted, damage):
    with pytest.raises(StoreError, match="damaged"):
        Reduction.from_bytes(damages(fitted.to_bytes())[damage])


def test_bytes_of_another_release_are_named(fitted):
    data = save(load(fitted.to_bytes()), {"algorithm": "lemur-trained-2"})
    with pytest.raises(StoreError, match=r"'lemur-trained-2'; this release reads .*refit=True"):
        Reduction.from_bytes(data)
