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
