"""Metadata of any plain type, through LangChain's store, in a folder and on Astra."""

from __future__ import annotations

import datetime as dt
import decimal
import pathlib
import uuid
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document

from langchain_lateint import LateInteractionVectorStore
from late_interaction import DocumentError
from tests.adapters.langchain.texts import ids

NOON = dt.datetime(2024, 5, 1, 12, tzinfo=dt.timezone(dt.timedelta(hours=2)))
ID = uuid.uuid4()


async def test_each_value_comes_back_in_its_plain_form(store: LateInteractionVectorStore) -> None:
    given: dict[str, Any] = {
        "at": NOON,
        "naive": dt.datetime(2024, 5, 1),
        "day": NOON.date(),
        "n": np.int64(3),
        "price": decimal.Decimal("1.5"),
        "id": ID,
        "path": pathlib.PurePosixPath("a/b"),
        "empty": float("nan"),
        "tags": {"b", "a"},
    }
    plain = given | {"day": "2024-05-01", "n": 3, "price": 1.5, "id": str(ID), "path": "a/b", "empty": None}
    plain |= {"tags": ["a", "b"]}
    assert store.add_documents([Document("an apple", metadata=given)], ids=[7]) == ["7"]
    [found] = store.similarity_search("apple", filter={**given, "tags": "a"})
    assert found.metadata == plain
    assert found.metadata["at"].utcoffset() == NOON.utcoffset()
    assert await store.aupdate_metadata({7: {"at": NOON + dt.timedelta(1), "day": None}}) == 1
    [found] = await store.aget_by_ids([7])
    assert found.metadata == plain | {"at": NOON + dt.timedelta(1), "day": None}
    with pytest.raises(DocumentError, match="'x' is a bytes, which has no plain form"):
        store.add_texts(["pear"], [{"x": b"raw"}])
    with pytest.raises(ValueError, match="'x' is a timedelta"):
        store.update_metadata({"7": {"x": dt.timedelta(1)}})


def test_dates_are_instants(store: LateInteractionVectorStore) -> None:
    dates = [NOON, "2024-05-01T11:00:00+00:00", "2024-05-01T12:30:00-03:00", dt.date(2024, 5, 1)]
    store.add_texts(["news"] * 4, [{"at": date} for date in dates], ids=list("abcd"))

    def at(condition: Any) -> list[str | None]:
        return sorted(ids(store.similarity_search("news", filter={"at": condition})))

    assert at({"$gt": NOON}) == at({"$gt": "2024-05-01T10:00Z"}) == ["b", "c"]
    assert at({"$between": [dt.date(2024, 5, 1), "2024-05-01T12:00+01:00"]}) == ["a", "b", "d"]
    assert at("2024-05-01T10:00:00Z") == at(dt.datetime(2024, 5, 1, 10)) == ["a"]
    assert at({"$in": [dt.date(2024, 5, 1), NOON]}) == ["a", "d"]


async def test_metadata_change_by_id_and_by_filter(filled: LateInteractionVectorStore) -> None:
    assert filled.update_metadata({"a": {"n": 5}, "missing": {}}, remove=["tags", "author"]) == 1
    assert filled.get_by_ids(["a"])[0].metadata == {"n": 5, "colour": "red"}
    assert await filled.aupdate_metadata({"b": {"n": 6}}, replace=True) == 1
    assert filled.get_by_ids(["b"])[0].metadata == {"n": 6}
    assert filled.update_metadata(filter={"n": {"$gte": 3}}, metadata={"late": True}, remove=["score"]) == 4
    assert await filled.aupdate_metadata(filter={"colour": "nowhere"}, metadata={"late": True}) == 0
    assert ids(filled.search_by_metadata({"late": True})) == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match="either the keys"):
        filled.update_metadata({"a": {}}, filter={"n": 1})
    with pytest.raises(ValueError, match="goes with filter="):
        filled.update_metadata({"a": {}}, metadata={"n": 1})
    with pytest.raises(TypeError, match="by document id"):
        filled.update_metadata()


async def test_pages(store: LateInteractionVectorStore) -> None:
    names = [f"d{n}" for n in range(9)]
    store.add_texts(
        [f"an apple {'and a pear ' * n}" for n in range(9)], [{"n": n} for n in range(9)], ids=names
    )
    every = ids(store.similarity_search("apple", k=9))
    assert ids(store.similarity_search("apple", k=3, offset=3)) == every[3:6]
    assert ids(await store.as_retriever(k=3, offset=6).ainvoke("apple")) == every[6:]
    diverse = ids(store.max_marginal_relevance_search("apple", k=9))
    assert ids(store.max_marginal_relevance_search("apple", k=4, offset=4)) == diverse[4:8]
    pages = [store.similarity_search("", k=3, offset=n, filter={"n": {"$lt": 7}}) for n in (0, 3, 6)]
    assert sorted(one for page in pages for one in ids(page)) == names[:7]
    assert len(ids(store.max_marginal_relevance_search("", k=3, offset=5, filter={"n": {"$lt": 7}}))) == 2
    assert len(await store.asearch_by_metadata(limit=4, offset=8)) == 1
    with pytest.raises(ValueError, match="offset must be"):
        store.similarity_search("", filter={"n": 1}, offset=-1)
