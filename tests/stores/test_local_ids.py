"""The embedded store: ids kept as bytes are the ids that were given, and are found whatever their hashes are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from late_interaction import LocalStore
from late_interaction.stores.local import ids as module
from late_interaction.stores.local.ids import Ids, IdTable
from tests.stores.local import SMALL, SPEC, best, encoded, query

TEXTS = st.lists(st.one_of(st.text(max_size=4), st.text("ab", max_size=3)), max_size=12)
HASHES = [hash, lambda text: 7, len, lambda text: -len(text), lambda text: hash(text) << 32 >> 32 | 1 << 40]


def listed(ids: Ids) -> list[str]:
    return ids.take(np.arange(len(ids)))


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(first=TEXTS, second=TEXTS, seed=st.integers(0, 99))
def test_they_are_the_list_that_was_given(first, second, seed):
    rng, ids = np.random.default_rng(seed), Ids.of(first)
    assert listed(ids) == first
    assert listed(Ids.joined([ids, Ids.of(second)])) == first + second
    chosen = rng.random(len(first)) < 0.5
    kept = [text for text, keep in zip(first, chosen, strict=True) if keep]
    assert listed(ids.chosen(chosen)) == kept
    start, stop = sorted(rng.integers(0, len(first) + 1, 2).tolist())
    assert listed(ids.part(start, stop)) == first[start:stop]
    spread = listed(Ids.of(kept).spread(np.flatnonzero(chosen), len(first)))
    assert spread == [text if keep else "" for text, keep in zip(first, chosen, strict=True)]


def test_no_lists_joined_are_an_empty_one():
    assert listed(Ids.joined([])) == []
    assert IdTable.of(Ids.of([]), np.empty(0, np.int64)).find(["", "a"]).tolist() == [-1, -1]


@pytest.mark.parametrize("hash_of", HASHES)
@settings(max_examples=40, deadline=None)
@given(texts=TEXTS, asked=TEXTS, seed=st.integers(0, 99))
def test_whatever_the_hash_an_id_is_found_where_it_is_and_nowhere_else(hash_of, texts, asked, seed):
    """Those left out of the table may be anything, as the ids of deleted documents are."""
    rng, seen = np.random.default_rng(seed), dict[str, int]()
    for position in rng.permutation(len(texts)).tolist():
        seen.setdefault(texts[position], position)
    positions = np.array(sorted(seen.values()), np.int64)
    table = IdTable.of(Ids.of(texts), positions, hash_of)
    asked = [*asked, *texts, *asked]
    assert table.find(asked).tolist() == [seen.get(text, -1) for text in asked]


def test_more_ids_than_are_python_objects_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "_BATCH", 7)
    texts = [f"document {i}" for i in range(100)]
    table = IdTable.of(Ids.of(texts), np.arange(100))
    assert table.find(texts[::-1]).tolist() == list(range(100))[::-1]


def test_a_long_text_has_wider_offsets(monkeypatch):
    class Small:
        def __init__(self, dtype):
            self.max = 5

    assert Ids.of(["abc", "defg"]).offsets.dtype == np.uint32
    monkeypatch.setattr(module.np, "iinfo", Small)
    ids = Ids.of(["abc", "defg"])
    assert ids.offsets.dtype == np.int64
    assert listed(ids) == ["abc", "defg"]


async def test_documents_are_found_where_all_ids_have_one_hash(tmp_path, monkeypatch):
    of = IdTable.of
    monkeypatch.setattr(IdTable, "of", lambda ids, positions: of(ids, positions, lambda text: 0))
    store = LocalStore(tmp_path, "things", limits=SMALL)
    await store.open(SPEC)
    await store.upsert([encoded(i) for i in range(150)])
    await store.optimize()
    await store.upsert([encoded(3), encoded(200)])
    await store.delete(["d5"])
    assert (await store.info())["documents_in_index"] == 148
    asked = ["d200", "d7", "d5", "none", "d3", "d149", "d7"]
    there, scores = await store.score(query(1), asked)
    assert there == ["d200", "d7", "d3", "d149", "d7"]
    alone = [(await store.score(query(1), [doc_id]))[1][0] for doc_id in there]
    np.testing.assert_allclose(scores, alone, rtol=1e-5)
    assert len(set(await best(store, query(1), 200))) == 150
    await store.close()
