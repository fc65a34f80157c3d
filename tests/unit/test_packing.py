"""Packed token matrices: what goes in comes out, and what is damaged is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction.errors import StoreError
from late_interaction.packing import pack, unpack, unpack_many
from late_interaction.types import PackingDtype


def unit(seed: int, n: int, dim: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), dim=st.integers(2, 200))
def test_int8_keeps_direction_and_length_and_packs_again_to_the_same(seed, n, dim):
    matrix = unit(seed, n, dim)
    blob = pack(matrix)
    back = unpack(blob)
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), 1, atol=1e-6)
    assert (np.einsum("ij,ij->i", matrix, back)).min() > 0.9998
    np.testing.assert_allclose(unpack(pack(back)), back, atol=1e-6)
    assert len(blob) == 16 + n * (dim + 4)


def test_float32_is_exact_and_float16_close():
    matrix = unit(0, 7, 33)
    np.testing.assert_array_equal(unpack(pack(matrix, "float32")), matrix)
    np.testing.assert_allclose(unpack(pack(matrix, "float16")), matrix, atol=5e-4)


def test_a_zero_row_stays_zero():
    np.testing.assert_array_equal(unpack(pack(np.zeros((2, 4), np.float32))), np.zeros((2, 4)))


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_many_come_back_side_by_side(dtype):
    matrices = [unit(i, n, 16) for i, n in enumerate([3, 1, 8])]
    ragged = unpack_many([pack(matrix, dtype) for matrix in matrices])
    assert len(ragged) == 3
    assert ragged.tokens.dtype == np.dtype(dtype)
    for i, matrix in enumerate(matrices):
        np.testing.assert_array_equal(ragged.matrix(i), unpack(pack(matrix, dtype)))


def test_none_at_all():
    assert len(unpack_many([], 5)) == 0
    assert unpack_many([], 5).tokens.shape == (0, 5)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda blob: blob[:10], "shorter than its header"),
        (lambda blob: blob[:-1], "damaged"),
        (lambda blob: blob + b"x", "damaged"),
        (lambda blob: b"???" + blob[3:], "not one of ours"),
        (lambda blob: blob[:3] + b"\x09" + blob[4:], "format 9"),
    ],
)
def test_damage_is_refused(damage, message):
    with pytest.raises(StoreError, match=message):
        unpack(damage(pack(unit(0, 3, 8))))


def test_matrices_that_differ_in_kind_are_refused():
    with pytest.raises(StoreError, match="differ"):
        unpack_many([pack(unit(0, 2, 8)), pack(unit(0, 2, 8), "float16")])
    with pytest.raises(StoreError, match="differ"):
        unpack_many([pack(unit(0, 2, 8)), pack(unit(0, 2, 9))])


def test_an_unknown_packing_is_refused():
    with pytest.raises(ValueError, match="int8, float16, float32"):
        pack(unit(0, 1, 2), "int4")


@pytest.mark.parametrize("dtype", ["int8", "float16", "float32"])
def test_a_header_without_width_is_damage(dtype: PackingDtype) -> None:
    blob = pack(np.eye(4, dtype=np.float32), dtype)
    for damaged in (blob[:12] + bytes(4), blob[:12] + bytes(4) + blob[16:]):
        with pytest.raises(StoreError, match="damaged"):
            unpack(damaged)


@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf, 30, -30])
@pytest.mark.parametrize(("dtype", "written"), [("int8", "<f4"), ("float16", "<f2"), ("float32", "<f4")])
def test_what_no_unit_vector_holds_is_damage(dtype: PackingDtype, written: str, value: float) -> None:
    blob = pack(np.eye(4, dtype=np.float32), dtype)
    damaged = blob[:16] + np.array(value, written).tobytes() + blob[16 + np.dtype(written).itemsize :]
    with pytest.raises(StoreError, match="not one of a unit vector"):
        unpack_many([blob, damaged])


def test_a_scale_is_not_negative() -> None:
    blob = bytearray(pack(np.eye(4, dtype=np.float32)))
    blob[19] ^= 0x80
    with pytest.raises(StoreError, match="a scale is not one of a unit vector"):
        unpack(bytes(blob))
