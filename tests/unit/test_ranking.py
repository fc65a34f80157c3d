"""Maximal marginal relevance over token matrices, and the scale of relevance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from late_interaction.ranking import mmr, relevance, similarity
from late_interaction.types import FloatMatrix


def units(seed: int, n: int, dim: int = 8) -> FloatMatrix:
    matrix = np.random.default_rng(seed).normal(size=(n, dim))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def test_relevance_is_from_0_to_1_and_never_outside() -> None:
    assert relevance(8.0, 8) == 1
    assert relevance(-8.0, 8) == 0
    assert relevance(0.0, 8) == 0.5
    assert relevance(8.001, 8) == 1  # rounding of the packed vectors
    assert relevance(-8.001, 8) == 0


def test_similarity_is_the_mean_of_both_ways() -> None:
    a, b = units(1, 3), units(2, 5)
    products = a @ b.T
    assert similarity(a, b) == pytest.approx((products.max(1).mean() + products.max(0).mean()) / 2)
    assert similarity(a, b) == pytest.approx(similarity(b, a))
    assert similarity(a, a) == pytest.approx(1)


def test_a_copy_of_the_best_comes_last() -> None:
    best, other = units(1, 4), units(2, 4)
    assert mmr([0.9, 0.9, 0.5], [best, best, other], 3) == [0, 2, 1]


def test_by_relevance_alone() -> None:
    assert mmr([0.1, 0.9, 0.5], [units(i, 3) for i in range(3)], 2, lambda_mult=1) == [1, 2]


@pytest.mark.slow
@given(st.integers(1, 12), st.integers(1, 15), st.floats(0, 1), st.integers(0, 10))
def test_chooses_as_the_formula_says(n: int, k: int, lambda_mult: float, seed: int) -> None:
    matrices = [units(seed * 100 + i, 1 + i % 4) for i in range(n)]
    scores = np.random.default_rng(seed).uniform(-1, 1, n).astype(np.float32)
    chosen = mmr(scores, matrices, k, lambda_mult)
    assert len(chosen) == len(set(chosen)) == min(k, n)
    assert chosen[0] == int(np.argmax(lambda_mult * scores))
    for step in range(1, len(chosen)):
        before = chosen[:step]

        def value(i: int, before: list[int] = before) -> float:
            nearest = max(similarity(matrices[i], matrices[j]) for j in before)
            return lambda_mult * float(scores[i]) - (1 - lambda_mult) * nearest

        best = max(value(i) for i in range(n) if i not in before)
        assert value(chosen[step]) == pytest.approx(best, abs=1e-5)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="k must be"):
        mmr([0.5], [units(1, 2)], 0)
    with pytest.raises(ValueError, match="lambda_mult"):
        mmr([0.5], [units(1, 2)], 1, 1.5)
    with pytest.raises(ValueError, match="1 matrices"):
        mmr([0.5, 0.4], [units(1, 2)], 1)
