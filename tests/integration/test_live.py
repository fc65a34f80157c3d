"""On a live database: Astra DB, HCD or DSE. Runs where the environment names one (see CONTRIBUTING.md), and cleans up.

Everything goes into one index with a random name, dropped at the end, whatever happens.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator

import numpy as np
import pytest

from late_interaction import AstraStore, IndexMismatchError, LateInteractionPipeline
from late_interaction.maxsim import maxsim
from late_interaction.stores.astra.doctor import diagnose
from tests.support.models import HashModel

pytestmark = pytest.mark.skipif(
    not (os.environ.get("ASTRA_DB_API_ENDPOINT") and os.environ.get("ASTRA_DB_APPLICATION_TOKEN")),
    reason="ASTRA_DB_API_ENDPOINT and ASTRA_DB_APPLICATION_TOKEN are not set",
)

FILTERABLE = {"year": int, "price": float, "lang": str, "sold": bool, "tags": list[str], "when": "datetime"}
WORDS = [f"w{i}" for i in range(80)]


def rows(n: int, seed: int = 0) -> list[dict]:
    rng = np.random.default_rng(seed)
    return [
        {
            "doc_id": f"d{i}",
            "content": " ".join(rng.choice(WORDS, 8)),
            "year": 1990 + i % 30,
            "price": i / 4,
            "lang": ("en", "de", "fr")[i % 3],
            "sold": i % 2 == 0,
            "tags": [f"t{i % 5}", f"t{i % 7}"],
            "when": f"2024-{1 + i % 12:02}-01T00:00:00Z",
            "undeclared": i,
        }
        for i in range(n)
    ]


@pytest.fixture
async def pipeline() -> AsyncIterator[LateInteractionPipeline]:
    store = AstraStore.from_environment(f"li_test_{secrets.token_hex(4)}", filterable=FILTERABLE)
    made = LateInteractionPipeline(store, HashModel(), doc_pool_factor=1, query_pool_distance=0)
    try:
        await made.initialize()
        yield made
    finally:
        await made.drop()


async def settled(pipeline: LateInteractionPipeline, doc_id: str, content: str) -> None:
    """Wait until the vector index shows what was written: it may lag behind reads by key."""
    for _ in range(60):
        if doc_id in [result.doc_id for result in await pipeline.search(content, k=3)]:
            return
        await asyncio.sleep(1)
    pytest.fail(f"{doc_id} does not become visible to vector search")


async def test_all_that_a_user_does(pipeline: LateInteractionPipeline) -> None:
    documents = rows(120)
    await pipeline.index_documents(documents)
    await settled(pipeline, "d119", documents[119]["content"])
    matrices = pipeline.model.encode_documents([row["content"] for row in documents])
    query = "w1 w2 w3 w4"
    results = await pipeline.search(query, k=10, exact=True)
    expected = np.sort(maxsim(pipeline.model.encode_queries([query])[0], matrices))[::-1][:10]
    np.testing.assert_allclose([result.score for result in results], expected, atol=0.05)
    for spec, holds in (
        ({"year": {"$gte": 2010}, "lang": "en"}, lambda row: row["year"] >= 2010 and row["lang"] == "en"),
        ({"sold": True, "price": {"$lt": 5}}, lambda row: row["sold"] and row["price"] < 5),
        ({"tags": "t3"}, lambda row: "t3" in row["tags"]),
        ({"tags": {"$in": ["t1", "t6"]}}, lambda row: {"t1", "t6"} & set(row["tags"])),
        ({"when": {"$gte": "2024-06"}}, lambda row: row["when"] >= "2024-06"),
        ({"$or": [{"lang": "de"}, {"year": 1995}]}, lambda row: row["lang"] == "de" or row["year"] == 1995),
        ({"lang": {"$ne": "en"}}, lambda row: row["lang"] != "en"),
        ({"undeclared": {"$lt": 7}}, lambda row: row["undeclared"] < 7),
    ):
        wanted = {row["doc_id"] for row in documents if holds(row)}
        assert {document.doc_id for document in await pipeline.find(spec)} == wanted, spec
        assert {r.doc_id for r in await pipeline.search(query, k=5, filter=spec)} <= wanted, spec
    await pipeline.index_document({"doc_id": "d0", "content": "fewer words", "lang": "xx"})
    assert (await pipeline.get_documents(["d0"]))[0].metadata == {"lang": "xx"}
    assert await pipeline.update_metadata("d1", {"lang": "yy"})
    assert [document.doc_id for document in await pipeline.find({"lang": "yy"})] == ["d1"]
    assert await pipeline.delete_documents({"lang": "fr"}) == 40
    assert await pipeline.count() == 80
    health = await diagnose(pipeline.store, full=True, older_than_s=0, sample=50)
    assert health.differences == {}
    assert health.leftovers == 0
    assert health.recall > 0.8
    await pipeline.clear()
    assert await pipeline.count() == 0


async def test_it_attaches_to_what_it_made_and_to_nothing_else(pipeline: LateInteractionPipeline) -> None:
    name = pipeline.store.name
    again = AstraStore.from_environment(name)
    await again.open(pipeline.spec)
    await again.close()
    for store, model in (
        (AstraStore.from_environment(name, filterable={"year": int}), HashModel()),
        (AstraStore.from_environment(name), HashModel(name="another")),
    ):
        with pytest.raises(IndexMismatchError):
            await LateInteractionPipeline(store, model, doc_pool_factor=1).initialize()
        await store.close()
