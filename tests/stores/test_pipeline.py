"""The pipeline on the embedded store: documents, settings and copies."""

from __future__ import annotations

import asyncio
import math
import threading
import uuid

import numpy as np
import pandas as pd
import pytest

from late_interaction import (
    Document,
    EncodedDocument,
    FilterError,
    IndexMismatchError,
    IndexSpec,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    QueryVectors,
)
from tests.support.answers import ids
from tests.support.models import HashModel
from tests.support.rows import ROWS


@pytest.fixture
def model():
    return HashModel()


@pytest.fixture
async def pipeline(tmp_path, model):
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=1) as pipeline:
        yield pipeline


# --- documents


async def test_documents_by_id_and_by_metadata(pipeline):
    await pipeline.index_documents(ROWS)
    assert [d.doc_id for d in await pipeline.get_documents(["tea", "nobody", "cats"])] == ["tea", "cats"]
    assert [d.doc_id for d in await pipeline.find({"year": {"$lte": 2002}})] == ["cats", "dogs"]
    assert [d.doc_id for d in await pipeline.find(limit=1)] == ["cats"]
    assert await pipeline.count({"tags": "pet"}) == 1
    assert await pipeline.update_metadata("tea", {"year": 1999, "hot": True})
    assert not await pipeline.update_metadata("nobody", {"a": 1})
    assert (await pipeline.get_documents(["tea"]))[0].metadata == {"year": 1999, "tags": [], "hot": True}
    assert ids(await pipeline.search("tea", filter={"hot": True})) == ["tea"]
    with pytest.raises(TypeError, match="a list of ids"):
        await pipeline.get_documents("tea")


async def test_deleting(pipeline):
    identifier = uuid.uuid4()
    await pipeline.index_documents([*ROWS, {"doc_id": identifier, "content": "by uuid"}])
    assert await pipeline.delete_document(identifier)
    assert not await pipeline.delete_document(identifier)
    assert await pipeline.delete_documents(["cats", "nobody"]) == 1
    assert ids(await pipeline.search("cats chase mice")) == ["dogs", "tea"]
    assert await pipeline.delete_documents({"year": 2003}) == 1
    with pytest.raises(ValueError, match=r"call clear\(\)"):
        await pipeline.delete_documents({})
    assert await pipeline.count() == 1
    await pipeline.clear()
    assert await pipeline.count() == 0
    await pipeline.index_documents(ROWS)
    assert await pipeline.count() == 3


async def test_a_row_has_fields_that_are_no_metadata(pipeline, caplog):
    """A field that is missing everywhere would satisfy each negation."""
    await pipeline.index_documents(ROWS)
    for change in (
        pipeline.delete_documents({"doc_id": {"$nin": ["cats", "dogs"]}}),
        pipeline.delete_documents({"$and": [{"year": 2003}, {"content": {"$ne": "x"}}]}),
        pipeline.update_metadata(filter={"$not": {"doc_id": "cats"}}, metadata={"archived": True}),
    ):
        with pytest.raises(FilterError, match=r"no document has (doc_id|content) there.*Nothing was changed"):
            await change
    for name in ("content", "doc_id", "content_type"):
        with pytest.raises(ValueError, match=f"{name} of a document is no metadata"):
            await pipeline.update_metadata("cats", {name: "new", "year": 1})
    assert await pipeline.count() == 3
    assert await pipeline.count({"archived": True}) == 0
    assert await pipeline.delete_documents({"doc_id": "cats"}) == 0
    for asked in (pipeline.search("cats", filter={"doc_id": "cats"}), pipeline.find({"doc_id": "cats"})):
        assert await asked == []
        assert "no document has doc_id there" in caplog.text
        caplog.clear()


async def test_metadata_of_such_a_name_are_metadata(pipeline, caplog):
    """LangChain's ParentDocumentRetriever keeps the id of the parent there."""
    item = EncodedDocument(
        Document("a", "text", metadata={"doc_id": "parent"}), HashModel().encode_documents(["a"])[0]
    )
    await pipeline.initialize()
    await pipeline.store.upsert([item])
    await pipeline.index_documents(ROWS)
    assert [d.doc_id for d in await pipeline.find({"doc_id": "parent"})] == ["a"]
    assert await pipeline.update_metadata("a", {"doc_id": "other"})
    assert await pipeline.search("cats", filter={"doc_id": "parent"}) == []
    assert caplog.text == ""
    assert await pipeline.delete_documents({"doc_id": {"$ne": "other"}}) == 3


async def test_queries_are_a_list(pipeline):
    await pipeline.index_documents(ROWS)
    for wrong in ({"q1": "cats"}, pd.DataFrame({"query": ["cats"]}), "cats"):
        with pytest.raises(TypeError, match="pass a list of queries, not a"):
            await pipeline.search_many(wrong)
        with pytest.raises(TypeError, match="pass a list of queries, not a"):
            await pipeline.encode_queries(wrong)
    found = await pipeline.search_many(query for query in ("cats", "tea"))
    assert [ids(one)[0] for one in found] == ["cats", "tea"]
    assert found[0][:1].stats is found[0].stats
    assert [result.doc_id for result in found[0][:1]] == ["cats"]
    assert found[0][-1] == list(found[0])[-1]


async def test_drop_and_begin_again(pipeline):
    await pipeline.index_documents(ROWS)
    await pipeline.drop()
    assert not pipeline.store.folder.exists()
    assert await pipeline.count() == 0
    assert await pipeline.index_documents(ROWS[:1]) == ["cats"]


async def test_a_copy_that_the_other_pipeline_could_not_open_is_refused_before_it_is_made(tmp_path, model):
    async with LateInteractionPipeline(tmp_path / "from", model) as pipeline:
        await pipeline.index_documents(ROWS)
        for other in (
            LateInteractionPipeline(tmp_path / "to", HashModel(name="another")),
            LateInteractionPipeline(tmp_path / "to", model, doc_pool_factor=3),
        ):
            with pytest.raises(IndexMismatchError, match=r"encoder\.model|pooling\.factor"):
                await pipeline.copy_to(other)
    assert not (tmp_path / "to").exists()


# --- the fingerprint


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"model": HashModel(16)}, "dim"),
        ({"model": HashModel(name="other")}, "encoder.model"),
        ({"doc_pool_factor": 3}, "pooling.factor"),
        ({"packing": "float16"}, "packing"),
    ],
)
async def test_an_index_built_otherwise_is_refused_by_name(tmp_path, model, options, field):
    async with LateInteractionPipeline(tmp_path, model) as pipeline:
        await pipeline.index_documents(ROWS)
    with pytest.raises(IndexMismatchError, match=field) as caught:
        await LateInteractionPipeline(tmp_path, **{"model": model, **options}).initialize()
    assert field in caught.value.differences
    async with LateInteractionPipeline(tmp_path, model, query_pool_distance=0, concurrency=1) as pipeline:
        assert await pipeline.count() == 3


async def test_pooling_halves_the_vectors(tmp_path, model):
    async with LateInteractionPipeline(tmp_path, model, doc_pool_factor=2) as pipeline:
        await pipeline.index_document({"doc_id": "x", "content": "one two three four five six seven eight"})
        _, documents = await pipeline.store.matrices(["x"])
        assert documents.tokens.shape == (4, 32)
        np.testing.assert_allclose(np.linalg.norm(documents.matrix(0), axis=1), 1, atol=1e-5)


# --- copies


async def test_a_copy_has_the_same_answers_without_encoding(tmp_path, pipeline, model):
    await pipeline.index_documents(ROWS)
    model.encoded.clear()
    target = LateInteractionPipeline(tmp_path / "copy", model, "renamed", doc_pool_factor=1)
    assert await pipeline.copy_to(target) == 3
    assert await pipeline.copy_to(tmp_path / "second", batch_size=2) == 3
    assert await pipeline.copy_to(tmp_path / "second", skip_existing=True) == 0
    assert model.encoded == []
    expected = await pipeline.search("cats chase tea")
    for copy in (target, LateInteractionPipeline(tmp_path / "second", model, doc_pool_factor=1)):
        async with copy:
            results = await copy.search("cats chase tea")
            assert await copy.find() == await pipeline.find()
        assert ids(results) == ids(expected)
        assert [r.score for r in results] == pytest.approx([r.score for r in expected], abs=1e-5)
    with pytest.raises(IndexMismatchError):
        await pipeline.copy_to(_other(tmp_path))


async def test_an_index_is_not_copied_onto_itself_by_whatever_path(tmp_path, pipeline):
    await pipeline.index_documents(ROWS)
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match="onto itself"):
            await pipeline.copy_to(path)
    assert await pipeline.count() == 3


def _other(tmp_path):
    async def make() -> None:
        async with LateInteractionPipeline(tmp_path / "third", HashModel(8)):
            pass

    worker = threading.Thread(target=lambda: asyncio.run(make()))
    worker.start()
    worker.join()
    return tmp_path / "third"


# --- arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "name"}, TypeError, "must be a LateInteractionModel"),
        ({"db": 3}, TypeError, "db must be a folder"),
        ({"doc_pool_factor": 0.5}, ValueError, "doc_pool_factor"),
        ({"doc_pool_factor": math.nan}, ValueError, "doc_pool_factor"),
        ({"doc_pool_factor": math.inf}, ValueError, "doc_pool_factor"),
        ({"query_pool_distance": -1}, ValueError, "query_pool_distance"),
        ({"query_pool_distance": math.nan}, ValueError, "query_pool_distance"),
        ({"packing": "int4"}, ValueError, "packing must be one of"),
        ({"concurrency": 0}, ValueError, "concurrency"),
    ],
)
def test_arguments_are_checked(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        LateInteractionPipeline(**{"db": tmp_path, "model": HashModel(), **options})


def test_a_store_has_its_own_name(tmp_path):
    with pytest.raises(ValueError, match="leave base_table_name out"):
        LateInteractionPipeline(LocalStore(tmp_path), HashModel(), "name")


async def test_weights_of_pooled_query_vectors_keep_the_score(pipeline):
    await pipeline.index_documents(ROWS)
    once = (await pipeline.search("cats mice", k=1))[0].score
    twice = (await pipeline.search("cats cats mice mice", k=1))[0].score
    assert twice == pytest.approx(2 * once, rel=1e-5)
    found = await pipeline.store.candidates(
        QueryVectors(HashModel().encode_queries(["cats"])[0], np.array([3.0], np.float32)), 1, n_ann_tokens=10
    )
    assert found.scores[0] == pytest.approx(3, abs=0.03)


async def test_a_store_that_was_opened_by_hand_is_used_by_a_pipeline_for_vectors_from_elsewhere(tmp_path):
    store = LocalStore(tmp_path)
    await store.open(IndexSpec(4, {"model": "mine"}, {"factor": 1}))
    await store.upsert([EncodedDocument(Document("a", "text"), np.eye(2, 4, dtype=np.float32))])
    pipeline = LateInteractionPipeline(store, PrecomputedEmbeddings(4, "mine"), doc_pool_factor=1)
    assert ids(await pipeline.search_with_embeddings(np.eye(1, 4))) == ["a"]
    await pipeline.aclose()
    for other, differs in [
        (
            LateInteractionPipeline(tmp_path, PrecomputedEmbeddings(4, "yours"), doc_pool_factor=1),
            "encoder.model",
        ),
        (
            LateInteractionPipeline(tmp_path, PrecomputedEmbeddings(4, "mine"), doc_pool_factor=2),
            "pooling.factor",
        ),
        (LateInteractionPipeline(tmp_path, HashModel(4), doc_pool_factor=1), "encoder.model"),
    ]:
        with pytest.raises(IndexMismatchError, match=differs):
            await other.initialize()
    with pytest.raises(IndexMismatchError, match=r"encoder.family: the index has 'precomputed'"):
        await store.open(IndexSpec(4, {"model": "mine", "family": "colbert"}, {"factor": 1}))
