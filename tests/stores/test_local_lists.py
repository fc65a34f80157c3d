"""The embedded store: the lists of its centroids, packed in chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from late_interaction.stores.local.lists import Lists

POSITIONS = st.one_of(
    st.integers(0, 40), st.sampled_from([65_535, 65_536, 131_071, 131_072]), st.integers(0, 199_999)
)
LISTS = st.lists(st.lists(POSITIONS, max_size=60, unique=True).map(sorted), max_size=12)


def packed(lists: list[list[int]], n_positions: int = 200_000) -> Lists:
    bounds = np.cumsum([0, *map(len, lists)])
    return Lists.of(bounds, np.array([each for one in lists for each in one], np.int32), n_positions)


@given(LISTS)
def test_lists_are_what_was_packed(lists):
    chunked = packed(lists)
    np.testing.assert_array_equal(chunked.bounds(), np.cumsum([0, *map(len, lists)]))
    flat = [each for one in lists for each in one]
    assert (
        chunked.entries().tolist() == [each for piece in chunked.pieces() for each in piece.tolist()] == flat
    )
    assert chunked.n_entries == len(flat)


@given(LISTS)
def test_the_chunks_of_a_list_hold_it_and_nothing_else(lists):
    """A search reads chunks whole: what fills one up must be in the list, too."""
    chunked = packed(lists)
    positions = chunked.firsts[:, None] + chunked.offsets
    for number, one in enumerate(lists):
        chunks = positions[chunked.starts[number] : chunked.starts[number + 1]]
        assert set(chunks.ravel().tolist()) == set(one)


def test_a_list_longer_than_a_block_and_empty_lists_between():
    long = list(range(0, 140_000, 2))
    lists = [[], [3], [], long, [], long[:5], []]
    chunked = packed(lists)
    np.testing.assert_array_equal(chunked.bounds(), np.cumsum([0, *map(len, lists)]))
    assert chunked.entries().tolist() == [3, *long, *long[:5]]


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ([[1, 2], [5, 5]], "does not ascend"),
        ([[2, 1]], "does not ascend"),
        ([[1], [-1]], "not in it"),
        ([[10]], "not in it"),
    ],
)
def test_what_no_list_may_have_is_refused(lists, message):
    with pytest.raises(ValueError, match=message):
        packed(lists, 10)
