"""Whatever an argument is, a call returns or raises an error of ours, or a ValueError or TypeError; none hangs."""

from __future__ import annotations

import datetime as dt
import decimal
import inspect
import math
import uuid
from collections import UserDict, deque
from collections.abc import AsyncIterator, Callable
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    LateInteractionError,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
)
from late_interaction.ranking import mmr, relevance
from late_interaction.rows import Encodable
from tests.support.models import HashModel

OURS = (LateInteractionError, ValueError, TypeError)


class Text(str):
    """A str that is not a plain one."""


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def deep(n: int, kind: Callable[[Any], Any] = lambda inner: [inner]) -> Any:
    return reduce(lambda inner, _: kind(inner), range(n), 1)


ITSELF: list[Any] = []
ITSELF.append(ITSELF)

VALUES: dict[str, Any] = {
    "None": None,
    "True": True,
    "zero": 0,
    "minus one": -1,
    "2**31": 2**31,
    "2**63 - 1": 2**63 - 1,
    "2**63": 2**63,
    "minus 2**63": -(2**63),
    "10**400": 10**400,
    "10**5000": 10**5000,
    "half": 0.5,
    "NaN": math.nan,
    "infinity": math.inf,
    "numpy integer": np.int64(3),
    "numpy float": np.float32(1),
    "numpy text": np.str_("a"),
    "complex": 1j,
    "Decimal": decimal.Decimal("1.5"),
    "date": dt.date(2020, 1, 1),
    "UUID": uuid.UUID(int=1),
    "empty": "",
    "white": " \n",
    "text": "a",
    "subclass of str": Text("a"),
    "NUL": "a\0b",
    "surrogate": "\ud800",
    "long": "x" * 100_000,
    "bytes": b"a",
    "path": Path("a"),
    "list": [],
    "list of numbers": [1, 2],
    "list of None": [None],
    "list of texts": ["a", "\ud800"],
    "tuple": (),
    "set": {"a"},
    "deque": deque(["a"]),
    "range": range(3),
    "generator": (c for c in "ab"),
    "dict": {},
    "key of an int": {1: 2},
    "key of None": {None: 2},
    "key of NUL": {"a\0": 2},
    "key of a surrogate": {"\ud800": 1},
    "operators": {"$and": [{"$or": []}]},
    "dotted": {"a..b": {"$gt": 10**400}},
    "proxy": MappingProxyType({"content": "a", "b": MappingProxyType({"c": 1})}),
    "UserDict": UserDict({"content": "a"}),
    "deep list": deep(50_000),
    "deep mapping": deep(50_000, lambda inner: {"a": inner}),
    "deep filter": deep(3_000, lambda inner: {"$not": inner}),
    "deep tuple": deep(2_000, lambda inner: (inner,)),
    "itself": ITSELF,
    "array": np.zeros((2, 2)),
    "array of objects": np.array([object()]),
    "scalar array": np.array(3),
    "lambda": lambda: 1,
    "class": int,
    "object": object(),
    "unshowable": Unshowable(),
    "list of unshowable": [Unshowable()],
    "document": Document("a", "text"),
    "odd document": Document(5, None, 7, [1]),  # type: ignore[arg-type]
    "odd encodable": Encodable(None, 5, 7),  # type: ignore[arg-type]
    "encoded document": EncodedDocument(Document("a", "text"), np.ones((1, 16), np.float32) / 4),
}

ROW = {"doc_id": "a", "content": "text", "year": 2001}
CALLS: dict[str, Callable[[LateInteractionPipeline, Any], Any]] = {
    "index_document": lambda p, x: p.index_document(x),
    "index_document content": lambda p, x: p.index_document({"content": x}),
    "index_document id": lambda p, x: p.index_document({"content": "text", "doc_id": x}),
    "index_document content_type": lambda p, x: p.index_document({"content": "text", "content_type": x}),
    "index_document image": lambda p, x: p.index_document({"content": "text", "image": x}),
    "index_document metadata": lambda p, x: p.index_document({"content": "text", "a": x}),
    "index_document nested": lambda p, x: p.index_document({"content": "text", "a": [{"b": x}]}),
    "index_documents": lambda p, x: p.index_documents(x),
    "index_documents among": lambda p, x: p.index_documents([ROW, x, ROW]),
    "index_documents batch_size": lambda p, x: p.index_documents([ROW], batch_size=x),
    "index_documents skip_existing": lambda p, x: p.index_documents([ROW], skip_existing=x),
    "index_embeddings": lambda p, x: p.index_embeddings([ROW], [x]),
    "index_embeddings rows": lambda p, x: p.index_embeddings(x, [np.eye(16)]),
    "index_embeddings matrices": lambda p, x: p.index_embeddings([ROW], x),
    "copy_to": lambda p, x: p.copy_to(x) if not isinstance(x, str | Path) else p.count(),
    "search": lambda p, x: p.search(x),
    "search k": lambda p, x: p.search("text", x),
    "search n_ann_tokens": lambda p, x: p.search("text", n_ann_tokens=x),
    "search n_maxsim_candidates": lambda p, x: p.search("text", n_maxsim_candidates=x),
    "search filter": lambda p, x: p.search("text", filter=x),
    "search filter value": lambda p, x: p.search("text", filter={"year": x}),
    "search filter operand": lambda p, x: p.search("text", filter={"year": {"$in": [x]}}),
    "search ids": lambda p, x: p.search("text", ids=x),
    "search exact": lambda p, x: p.search("text", exact=x),
    "search_many": lambda p, x: p.search_many(x),
    "search_many among": lambda p, x: p.search_many(["text", x]),
    "search_with_embeddings": lambda p, x: p.search_with_embeddings(x),
    "encode_queries": lambda p, x: p.encode_queries(x),
    "get_documents": lambda p, x: p.get_documents(x),
    "get_documents among": lambda p, x: p.get_documents([x]),
    "get_matrices": lambda p, x: p.get_matrices(x),
    "find": lambda p, x: p.find(x),
    "find limit": lambda p, x: p.find(limit=x),
    "find operand": lambda p, x: p.find({"year": {"$gte": x}}),
    "count": lambda p, x: p.count(x),
    "update_metadata id": lambda p, x: p.update_metadata(x, {"a": 1}),
    "update_metadata": lambda p, x: p.update_metadata("a", x),
    "update_metadata value": lambda p, x: p.update_metadata("a", {"a": x}),
    "delete_document": lambda p, x: p.delete_document(x),
    "delete_documents": lambda p, x: p.delete_documents(x),
    "store upsert": lambda p, x: p.store.upsert(x),
    "store upsert among": lambda p, x: p.store.upsert([x]),
    "store upsert matrix": lambda p, x: p.store.upsert([EncodedDocument(Document("m", "text"), x)]),
    "store upsert document": lambda p, x: p.store.upsert([EncodedDocument(x, np.eye(16, dtype=np.float32))]),
    "make db": lambda p, x: LateInteractionPipeline(x, p.model) if not isinstance(x, str | Path) else None,
    "make model": lambda p, x: LateInteractionPipeline(p.store, x),
    "make name": lambda p, x: LateInteractionPipeline(p.store.location, p.model, x),
    "make doc_pool_factor": lambda p, x: LateInteractionPipeline(p.store, p.model, doc_pool_factor=x),
    "make query_pool_distance": lambda p, x: LateInteractionPipeline(p.store, p.model, query_pool_distance=x),
    "make packing": lambda p, x: LateInteractionPipeline(p.store, p.model, packing=x),
    "make concurrency": lambda p, x: LateInteractionPipeline(p.store, p.model, concurrency=x),
    "make filterable": lambda p, x: LateInteractionPipeline("a", p.model, filterable=x),
    "make store_images": lambda p, x: LateInteractionPipeline(p.store, p.model, store_images=x),
    "make allow_urls": lambda p, x: LateInteractionPipeline(p.store, p.model, allow_urls=x),
    "mmr scores": lambda p, x: mmr(x, [np.eye(16, dtype=np.float32)], 1),
    "mmr k": lambda p, x: mmr([0.5], [np.eye(16, dtype=np.float32)], x),
    "mmr lambda": lambda p, x: mmr([0.5], [np.eye(16, dtype=np.float32)], 1, x),
    "relevance": lambda p, x: relevance(0.5, x),
    "precomputed dim": lambda p, x: PrecomputedEmbeddings(x, "mine") if x != 2**63 - 1 else None,
}  # fmt: skip


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[LateInteractionPipeline]:
    model = HashModel(dim=16)
    async with LateInteractionPipeline(LocalStore(tmp_path), model, doc_pool_factor=1) as pipeline:
        await pipeline.index_document(ROW)
        yield pipeline


@pytest.mark.parametrize("call", CALLS)
async def test_no_argument_reaches_a_foreign_error(pipeline: LateInteractionPipeline, call: str) -> None:
    foreign = {}
    for name, value in VALUES.items():
        if name == "generator":
            value = (c for c in "ab")
        try:
            result = CALLS[call](pipeline, value)
            if inspect.isawaitable(result):
                await result
        except OURS:
            continue
        except Exception as error:  # noqa: BLE001 - these are looked for
            foreign[name] = repr(error)[:100]
    assert not foreign, "\n".join(f"{name}: {error}" for name, error in foreign.items())
    assert all(math.isfinite(found.score) for found in await pipeline.search("text", exact=True))


async def test_an_error_of_the_callers_own_iterable_comes_through(pipeline: LateInteractionPipeline) -> None:
    class OwnError(Exception):
        pass

    def rows() -> Any:
        yield ROW
        raise OwnError

    async def async_rows() -> Any:
        yield ROW
        raise OwnError

    for given in (rows(), async_rows()):
        with pytest.raises(OwnError):
            await pipeline.index_documents(given)
    with pytest.raises(OwnError):
        await pipeline.index_embeddings(rows(), [np.eye(16)] * 2)
    assert await pipeline.count() == 1
