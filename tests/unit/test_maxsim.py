"""MaxSim against its definition, in float64 and in loops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.maxsim import maxsim, token_alignment
from late_interaction.packing import pack, unpack_many
from late_interaction.types import RaggedTokens


def unit(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def by_definition(query, documents, weights=None):
    weights = np.ones(len(query)) if weights is None else weights
    scores = []
    for document in documents:
        similarities = query.astype(np.float64) @ document.astype(np.float64).T
        scores.append(sum(w * max(row) for w, row in zip(weights, similarities, strict=True)))
    return np.array(scores)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=40),
    n_query=st.integers(1, 40),
    dim=st.sampled_from([1, 3, 96, 128]),
)
def test_equals_the_definition(seed, lengths, n_query, dim):
    rng = np.random.default_rng(seed)
    query = unit(rng, n_query, dim)
    documents = [unit(rng, n, dim) for n in lengths]
    weights = rng.uniform(0.5, 4, n_query).astype(np.float32)
    for given_weights in (None, weights):
        expected = by_definition(query, documents, given_weights)
        scores = maxsim(query, documents, given_weights)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected, atol=3e-5)
        np.testing.assert_array_equal(
            maxsim(query, RaggedTokens.from_matrices(documents), given_weights), scores
        )


def test_many_tiles_and_a_document_longer_than_one():
    rng = np.random.default_rng(0)
    documents = [unit(rng, n, 128) for n in [*rng.integers(1, 300, 80), 9000, *rng.integers(1, 300, 20)]]
    query = unit(rng, 32, 128)
    np.testing.assert_allclose(maxsim(query, documents), by_definition(query, documents), atol=3e-5)


def test_a_document_whose_best_match_is_negative_scores_negative():
    query = np.array([[1.0, 0.0]], np.float32)
    documents = [np.array([[-0.3, 0.954]], np.float32), np.array([[-1.0, 0.0]] * 50, np.float32)]
    np.testing.assert_allclose(maxsim(query, documents), [-0.3, -1.0])


@pytest.mark.parametrize(("dtype", "tolerance"), [("int8", 0.15), ("float16", 0.02), ("float32", 1e-5)])
def test_packed_documents_are_scored_as_they_are(dtype, tolerance):
    rng = np.random.default_rng(1)
    documents = [unit(rng, n, 96) for n in rng.integers(1, 120, 200)]
    query = unit(rng, 32, 96)
    packed = unpack_many([pack(document, dtype) for document in documents])
    scores = maxsim(query, packed)
    np.testing.assert_allclose(scores, maxsim(query, documents), atol=tolerance)
    widened = [packed.matrix(i) for i in range(len(packed))]
    np.testing.assert_allclose(scores, maxsim(query, widened), atol=2e-5)


def test_no_document_gives_no_score():
    assert maxsim(np.ones((2, 3), np.float32), []).shape == (0,)


def test_shapes_that_do_not_fit_are_refused():
    query = np.ones((2, 3), np.float32)
    with pytest.raises(ValueError, match="does not fit documents of dim 4"):
        maxsim(query, [np.ones((1, 4), np.float32)])
    with pytest.raises(ValueError, match="weights must have shape"):
        maxsim(query, [np.ones((1, 3), np.float32)], np.ones(3, np.float32))
    with pytest.raises(ValueError, match="at least one token"):
        maxsim(query, [np.ones((1, 3), np.float32), np.empty((0, 3), np.float32)])


def test_token_alignment_names_the_best_token_of_each_query_token():
    document = np.eye(4, dtype=np.float32)
    query = np.array([[0, 0, 1, 0], [0.6, 0.8, 0, 0]], np.float32)
    alignment = token_alignment(query, document)
    assert alignment.tokens.tolist() == [2, 1]
    np.testing.assert_allclose(alignment.similarities, [1, 0.8])
    np.testing.assert_allclose(alignment.similarities.sum(), maxsim(query, [document])[0])
