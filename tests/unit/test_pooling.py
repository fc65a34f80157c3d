from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.pooling import POOLING_ALGORITHM, pool_document, pool_query, pool_query_grouped
from late_interaction.types import FloatMatrix

no_deadline = settings(deadline=None)  # the first call imports scipy
seeds = st.integers(0, 2**32 - 1)
factors = st.one_of(st.integers(1, 8), st.floats(1, 8))


def unit(rows: Any) -> FloatMatrix:
    matrix = np.asarray(rows, np.float32)
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


@st.composite
def token_matrices(draw: st.DrawFn) -> FloatMatrix:
    """Unit rows: spread out, bunched up, opposite or repeated, so that clusterings have ties."""
    rng = np.random.default_rng(draw(seeds))
    n, dim = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    rows = rng.standard_normal((n, dim)) + draw(st.sampled_from([0.0, 3.0]))
    if draw(st.booleans()):
        rows = np.sign(rows)
    rows = rows[rng.integers(0, n, n)] if draw(st.booleans()) else rows
    return unit(rows)


def row_set(matrix: FloatMatrix) -> list[bytes]:
    return sorted(row.tobytes() for row in matrix)


@pytest.mark.slow
@no_deadline
@given(token_matrices(), factors, st.integers(0, 4))
def test_pooling_a_document_gives_exactly_as_many_unit_vectors_as_it_says(
    matrix: FloatMatrix, factor: float, protected: int
) -> None:
    pooled = pool_document(matrix, factor, protected_tokens=protected)
    kept = min(protected, len(matrix))
    others = len(matrix) - kept
    assert len(pooled) == kept + (max(1, int(others // factor)) if others else 0)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(pooled[:kept], matrix[:kept])


@pytest.mark.slow
@no_deadline
@given(token_matrices(), factors, seeds)
def test_a_documents_vectors_do_not_depend_on_the_order_of_its_tokens(
    matrix: FloatMatrix, factor: float, seed: int
) -> None:
    pooled = pool_document(matrix, factor)
    np.testing.assert_array_equal(pool_document(matrix.copy(), factor), pooled)
    permuted = np.random.default_rng(seed).permutation(matrix)
    assert row_set(pool_document(permuted, factor)) == row_set(pooled)


@no_deadline
@given(token_matrices())
def test_factor_1_changes_nothing(matrix: FloatMatrix) -> None:
    np.testing.assert_array_equal(pool_document(matrix, 1), matrix)


@pytest.mark.parametrize(
    ("n", "factor", "read_at_once", "kept"),
    [(20, 2, 20, 10), (21, 2, 20, 5), (21, 3, 20, 3), (21, 1, 20, 21), (21, 2, None, 10)],
)
def test_a_document_longer_than_the_model_reads_is_pooled_twice_as_much(
    n: int, factor: float, read_at_once: int | None, kept: int
) -> None:
    assert len(pool_document(np.eye(n, dtype=np.float32), factor, read_at_once=read_at_once)) == kept


def test_one_token_in_is_one_token_out() -> None:
    token = unit([[3, 4]])
    for factor in (1, 2, 100.5):
        np.testing.assert_array_equal(pool_document(token, factor), token)
    query = pool_query(token, 0.5)
    np.testing.assert_array_equal(query.vectors, token)
    np.testing.assert_array_equal(query.weights, [1])


def test_the_nearest_tokens_are_pooled_and_the_text_keeps_its_order() -> None:
    east, north = [[1.0, 0.0], [1.0, 0.1]], [[0.0, 1.0], [0.1, 1.0]]
    matrix = unit([north[0], east[0], east[1], north[1]])
    pooled = pool_document(matrix, 2)
    means = [matrix[[0, 3]].mean(axis=0), matrix[[1, 2]].mean(axis=0)]
    np.testing.assert_allclose(pooled, unit(means), atol=1e-6)


def test_a_token_that_is_left_alone_is_the_same_to_the_last_bit() -> None:
    matrix = unit(np.random.default_rng(0).standard_normal((9, 5)))
    pooled = pool_document(matrix, 1.2)
    assert len(pooled) == 7
    assert len(set(row_set(pooled)) & set(row_set(matrix))) >= 5


def test_vectors_that_cancel_out_leave_one_of_them() -> None:
    matrix = unit([[1, 0], [-1, 0]])
    pooled = pool_document(matrix, 2)
    assert len(pooled) == 1
    assert set(row_set(pooled)) <= set(row_set(matrix))
    assert row_set(pool_document(matrix[::-1], 2)) == row_set(pooled)


def test_it_is_wards_criterion() -> None:
    from scipy.cluster.hierarchy import fcluster, linkage

    matrix = unit(np.random.default_rng(1).standard_normal((40, 6)))
    labels = fcluster(linkage(matrix, "ward"), 10, criterion="maxclust")
    means = unit([matrix[labels == label].mean(axis=0) for label in range(1, 11)])
    pooled = pool_document(matrix, 4)
    np.testing.assert_allclose(pooled[np.lexsort(pooled.T)], means[np.lexsort(means.T)], atol=1e-5)


@no_deadline
@given(token_matrices(), st.sampled_from([0.0, 1e-6, 0.03, 0.5, 1.0, 2.0]))
def test_pooling_a_query_keeps_its_weight(matrix: FloatMatrix, distance: float) -> None:
    query = pool_query(matrix, distance)
    assert query.weights.dtype == query.vectors.dtype == np.float32
    assert query.weights.shape == (len(query.vectors),)
    assert query.weights.sum() == len(matrix)
    assert (query.weights >= 1).all()
    np.testing.assert_allclose(np.linalg.norm(query.vectors, axis=1), 1, atol=1e-5)


@no_deadline
@given(token_matrices(), st.sampled_from([1e-6, 0.03, 0.5]), seeds)
def test_a_querys_vectors_do_not_depend_on_the_order_of_its_tokens(
    matrix: FloatMatrix, distance: float, seed: int
) -> None:
    def rows(query: FloatMatrix) -> list[bytes]:
        pooled = pool_query(query, distance)
        return row_set(np.column_stack([pooled.vectors, pooled.weights]))

    assert rows(np.random.default_rng(seed).permutation(matrix)) == rows(matrix)


@no_deadline
@given(token_matrices())
def test_distance_0_keeps_every_token_of_a_query(matrix: FloatMatrix) -> None:
    query = pool_query(matrix, 0)
    np.testing.assert_array_equal(query.vectors, matrix)
    np.testing.assert_array_equal(query.weights, np.ones(len(matrix)))


@no_deadline
@given(token_matrices())
def test_distance_2_merges_a_whole_query(matrix: FloatMatrix) -> None:
    np.testing.assert_array_equal(pool_query(matrix, 2).weights, [len(matrix)])


@pytest.mark.slow
@no_deadline
@given(seeds, st.integers(2, 32), st.sampled_from([0.01, 0.1, 0.3]), st.sampled_from([0.003, 0.03, 0.3]))
def test_a_query_is_merged_by_average_linkage(seed: int, n: int, spread: float, distance: float) -> None:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    rng = np.random.default_rng(seed)
    matrix = unit(rng.standard_normal((n, 8))[rng.integers(0, n, n)] + spread * rng.standard_normal((n, 8)))
    _, groups = pool_query_grouped(matrix, distance)
    apart = squareform(np.maximum(1 - matrix @ matrix.T, 0), checks=False)
    expected = fcluster(linkage(apart, "average"), distance, criterion="distance")
    np.testing.assert_array_equal(groups[:, None] == groups, expected[:, None] == expected)


def test_a_query_merges_what_is_near_and_nothing_else() -> None:
    query = pool_query(unit([[0, 1], [1, 0], [1, 0.1], [1, 0.05]]), 0.03)
    np.testing.assert_array_equal(query.weights, [1, 3])
    np.testing.assert_allclose(query.vectors, unit([[0, 1], [1, 0.05]]), atol=1e-3)


@pytest.mark.parametrize("factor", [0.99, 0, -2, float("nan"), float("inf")])
def test_a_factor_below_1_is_refused(factor: float) -> None:
    with pytest.raises(ValueError, match="pooling factor must be a number of at least 1"):
        pool_document(unit([[1, 0]]), factor)


@pytest.mark.parametrize("distance", [-0.1, float("nan")])
def test_a_negative_distance_is_refused(distance: float) -> None:
    with pytest.raises(ValueError, match="distance must not be negative"):
        pool_query(unit([[1, 0]]), distance)


def test_a_negative_number_of_protected_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative, but is -1"):
        pool_document(unit([[1, 0]]), 2, protected_tokens=-1)


@pytest.mark.parametrize("shape", [(0, 4), (4,)])
def test_a_matrix_without_rows_is_refused(shape: tuple[int, ...]) -> None:
    matrix = np.ones(shape, np.float32)
    for pool in (lambda: pool_document(matrix, 2), lambda: pool_query(matrix, 0.1)):
        with pytest.raises(ValueError, match=r"has shape \(n_tokens ≥ 1, dim\)"):
            pool()


def test_the_algorithm_has_a_name() -> None:
    assert POOLING_ALGORITHM == "ward-unit-mean-1"
