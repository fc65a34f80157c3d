"""Crashes between any two requests to Astra leave the index right."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from late_interaction import (
    LateInteractionPipeline,
    StoreWriteError,
)
from late_interaction.stores.astra.doctor import diagnose
from tests.stores.astra import FILTERABLE, QUICK, SCHEMES, CutAfter, pipeline_on, rows
from tests.support.answers import ids
from tools.data_api import Fault

pytestmark = pytest.mark.slow

OPERATIONS = {
    "replace by fewer": lambda p: p.index_documents(rows(3, "new", n_words=3)),
    "replace by more": lambda p: p.index_documents(rows(3, "new", n_words=9)),
    "add": lambda p: p.index_documents([{**row, "doc_id": f"e{row['doc_id']}"} for row in rows(3, "new")]),
    "delete": lambda p: p.delete_documents([f"d{i}" for i in range(3)]),
    "update": lambda p: p.update_metadata("d2", {"year": 500, "lang": "new"}),
    "clear": lambda p: p.clear(),
}
WITH_VECTORS = {
    **OPERATIONS,
    "fit anew": lambda p: p.fit_candidates(),
    "fit at the end": lambda p: p.index_documents(rows(12, "new")[4:]),
}
CASES = [
    *(("tokens", operation) for operation in OPERATIONS),
    *(("documents", operation) for operation in ("add", "update")),
    *(("fitted", operation) for operation in WITH_VECTORS),
]


@pytest.mark.parametrize(("scheme", "operation"), CASES)
async def test_a_crash_between_any_two_requests_leaves_the_index_right(server, scheme, operation):
    options = SCHEMES[scheme]
    limits = replace(options.get("limits", QUICK), rows=10)
    if operation == "fit at the end":
        limits = replace(limits, fitted_from=8)
    n = 0
    while True:
        applied = n % 2 == 1
        pipeline = pipeline_on(
            server, f"i{n}", filterable=FILTERABLE, concurrency=2, **{**options, "limits": limits}
        )
        await pipeline.initialize()
        await pipeline.index_documents(rows(4))
        cut = CutAfter(n // 2, "hang", applied)
        server.settings.faults = [cut]
        work = asyncio.ensure_future(WITH_VECTORS[operation](pipeline))
        crash = asyncio.ensure_future(cut.cut.wait())
        await asyncio.wait([work, crash], return_when=asyncio.FIRST_COMPLETED)
        for task in (work, crash):
            task.cancel()
        await asyncio.gather(work, crash, return_exceptions=True)
        server.settings.faults = []
        finished = not cut.cut.is_set()
        survivor = pipeline_on(server, f"i{n}")
        await survivor.initialize()
        await check_whole(survivor)
        health = await diagnose(survivor.store, full=True, repair=True, older_than_s=0)
        assert health.healthy
        await check_whole(survivor)
        after = await diagnose(survivor.store, full=True, older_than_s=0)
        assert after.healthy
        assert after.documents == len(await survivor.find())
        assert after.found_first == after.sampled == (0 if scheme == "documents" else after.documents) or (
            scheme == "fitted" and not await is_fitted(survivor)
        )
        if scheme == "fitted" and after.documents >= limits.fitted_from:
            finisher = pipeline_on(server, f"i{n}", limits=limits)
            await finisher.optimize()
            assert await is_fitted(finisher)
            assert (await diagnose(finisher.store, full=True, older_than_s=0)).sampled == after.documents
            await check_whole(finisher)
            await finisher.aclose()
        await survivor.drop()
        await pipeline.aclose()
        if finished:
            assert n > 2
            return
        n += 1


async def is_fitted(pipeline: LateInteractionPipeline) -> bool:
    return (await pipeline.store.info())["fitted"]


async def check_whole(pipeline: LateInteractionPipeline) -> None:
    """Every document is one version or the other, and its score is that version's."""
    documents = {d.doc_id: d for d in await pipeline.find()}
    assert await pipeline.count() == len(documents)
    matrices = await pipeline.get_matrices(list(documents))
    for doc_id, document in documents.items():
        words = document.content.split()
        expected = np.stack([pipeline.model.word(word) for word in words])
        np.testing.assert_allclose(matrices[doc_id], expected, atol=0.02)
    for document in list(documents.values())[:3]:
        results = await pipeline.search(document.content, k=20)
        assert set(ids(results)) <= set(documents)
        for result in results:
            assert result.content == documents[result.doc_id].content
            assert result.metadata == documents[result.doc_id].metadata
        n_words = len(document.content.split())
        scores = {result.doc_id: result.score for result in results}
        assert scores.get(document.doc_id, n_words) == pytest.approx(n_words, abs=0.1)
        filtered = await pipeline.search(document.content, k=20, filter={"lang": "new"})
        assert all(result.metadata["lang"] == "new" for result in filtered)


async def test_a_document_comes_after_its_tokens_and_goes_before_them(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.log.clear()
    await pipeline.index_documents(rows(3, n_words=40))
    await pipeline.delete_documents(["d0", "d1"])
    await pipeline.clear()
    writes = [(r.command, r.table) for r in server.log.requests if r.command != "find"]
    assert list(dict.fromkeys(writes[:-2])) == [
        ("insertMany", "things_tokens"),
        ("insertMany", "things_docs"),
        ("deleteOne", "things_docs"),
        ("deleteMany", "things_tokens"),
    ]
    assert writes[-2:] == [("deleteMany", "things_docs"), ("deleteMany", "things_tokens")]


async def test_tokens_of_an_interrupted_write_are_found_by_nobody(server):
    """A candidate without a document is no result, and a document's own vectors decide its score."""
    pipeline = pipeline_on(server, retries=0)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    server.settings.faults = [Fault("http_error", command="insertMany", table="things_docs")]
    with pytest.raises(StoreWriteError):
        await pipeline.index_documents(
            [{"doc_id": "ghost", "content": "boo"}, {"doc_id": "d1", "content": "boo"}]
        )
    server.settings.faults = []
    results = await pipeline.search("boo", k=5)
    assert set(ids(results)) == {"d0", "d1", "d2"}
    assert max(r.score for r in results) < 0.9
    for seed in range(8):
        for full in (True, False):
            young = await diagnose(pipeline.store, full=full, seed=seed)
            assert young.leftovers == 0
    health = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert (health.orphans, health.stale, health.surplus) == (["ghost"], [], ["d1"])
