"""One answer for each value of a field, and each content once, on both stores."""

from __future__ import annotations

import pytest

from late_interaction import AstraStore, LateInteractionPipeline, LocalStore, SearchResult
from late_interaction.grouping import first_of_each
from late_interaction.ranking import diversify
from late_interaction.stores.local.limits import Limits
from tests.stores.astra import FITTED
from tests.support.models import HashModel


@pytest.fixture(
    params=[
        "folder",
        pytest.param("folder with a search index", marks=pytest.mark.slow),
        pytest.param("astra", marks=pytest.mark.slow),
        pytest.param("astra by documents", marks=pytest.mark.slow),
    ]
)
async def pipeline(request, tmp_path, server):
    """Two sources, of which one has forty passages that answer better; the same text many times; and two without."""
    rows = [
        {"doc_id": f"many{n}", "content": f"harbour boat sail w{n}", "source": "many", "at": {"year": n % 3}}
        for n in range(40)
    ]
    rows += [{"doc_id": f"few{n}", "content": f"harbour other{n}", "source": "few"} for n in range(3)]
    rows += [
        {"doc_id": f"twin{n}", "content": "harbour boat twin", "source": f"twin{n % 2}"} for n in range(30)
    ]
    rows += [{"doc_id": f"none{n}", "content": f"harbour none{n}"} for n in range(2)]
    db = tmp_path
    if request.param == "astra":
        db = server.async_database()
    elif "documents" in request.param:
        db = AstraStore(server.async_database(), candidates="documents", limits=FITTED)
    elif "index" in request.param:
        db = LocalStore(tmp_path, limits=Limits(exact_tokens=10))
    async with LateInteractionPipeline(db, HashModel(dim=64), doc_pool_factor=1) as made:
        await made.index_documents(rows)
        if "index" in request.param:
            assert (await made.store.info())["documents_in_index"] == len(rows)
        yield made


@pytest.mark.parametrize("exact", [False, True])
async def test_each_group_has_its_best_and_there_are_k(pipeline, exact):
    everything = await pipeline.search("harbour boat sail", k=1000, exact=True)
    best = list(first_of_each(everything, group_by="source"))
    assert [result.metadata.get("source") for result in best].count("many") == 1
    for k in (1, 3, 5, 6):
        found = await pipeline.search("harbour boat sail", k=k, group_by="source", exact=exact)
        assert [result.score for result in found] == pytest.approx(
            [result.score for result in best[:k]], abs=1e-4
        )
        sources = [result.metadata.get("source", result.doc_id) for result in found]
        assert len(set(sources)) == k
    assert len(await pipeline.search("harbour", k=100, group_by="source")) == 6


async def test_a_nested_field_and_a_filter_and_ids(pipeline):
    found = await pipeline.search("boat", k=9, group_by="at.year", filter={"source": "many"})
    assert sorted(result.metadata["at"]["year"] for result in found) == [0, 1, 2]
    found = await pipeline.search("boat", k=9, group_by="source", ids=["many1", "many2", "few1"])
    assert [result.metadata["source"] for result in found] == ["many", "few"]


async def test_each_content_once(pipeline):
    found = await pipeline.search("harbour boat twin", k=10, distinct=True)
    assert len(found) == len({result.content for result in found}) == 10
    assert found[0].content == "harbour boat twin"
    found = await pipeline.search("harbour boat twin", k=10, distinct=True, group_by="source")
    assert len({result.content for result in found}) == len(found) == 5


async def test_mmr_picks_no_twins(pipeline):
    found = await pipeline.search("harbour boat twin", k=20)
    assert len(await diversify(pipeline, found, 10, 1.0)) == len({result.content for result in found})


def test_images_without_a_reference_are_like_no_other():
    def image(doc_id, **metadata):
        return SearchResult(doc_id, 1.0, "image, 8 × 8", "image", metadata)

    results = [
        image("a"),
        image("b"),
        image("c", image="x.png"),
        image("d", image="x.png"),
        image("e", image="y.png"),
    ]
    assert [result.doc_id for result in first_of_each(results, distinct=True)] == ["a", "b", "c", "e"]


@pytest.mark.parametrize(
    ("option", "error"),
    [({"group_by": 3}, TypeError), ({"group_by": ""}, ValueError), ({"distinct": 1}, TypeError)],
)
async def test_wrong_options_are_named(pipeline, option, error):
    with pytest.raises(error, match=next(iter(option))):
        await pipeline.search("text", **option)
