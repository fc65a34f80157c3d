"""Examples of the public names that the type checker reads (`tests/typed/test_typing.py`); nothing here is run."""

from collections.abc import AsyncIterator
from typing import Unpack, assert_type

import numpy as np

from late_interaction import (
    Document,
    IndexedIds,
    IndexOptions,
    LateInteractionModel,
    LateInteractionPipeline,
    SearchOptions,
    SearchResults,
    SyncPipeline,
    WriteOptions,
)
from late_interaction.adapting import FloatMatrix, PipelineHolder


async def the_promised_calls(pipeline: LateInteractionPipeline) -> None:
    assert_type(await pipeline.index_document({"content": "text"}), str)
    results = await pipeline.search(query="text", k=5, n_ann_tokens=200, n_maxsim_candidates=20)
    assert_type(results, SearchResults)
    for result in results:
        assert_type(result.score, float)


async def async_methods(pipeline: LateInteractionPipeline) -> None:
    async def rows() -> AsyncIterator[Document]:
        yield Document("a", "text")

    assert_type(await pipeline.index_documents(rows(), batch_size=5, skip_existing=True), IndexedIds)
    assert_type(await pipeline.search_many(["text"], filter={"year": 2001}, exact=True), list[SearchResults])
    assert_type(await pipeline.count({"year": {"$gte": 2000}}), int)


def sync_methods(pipeline: SyncPipeline) -> None:
    assert_type(pipeline.initialize(), None)
    assert_type(pipeline.index_documents([{"content": "text"}], show_progress=True), IndexedIds)
    assert_type(pipeline.index_embeddings([Document("a", "text")], [np.eye(2)]), IndexedIds)
    assert_type(pipeline.search("text", 3, ids=["a"], filter={"lang": "en"}), SearchResults)
    assert_type(pipeline.search_with_embeddings(np.eye(2), k=3, n_ann_tokens=5), SearchResults)
    assert_type(pipeline.encode_queries(["text"]), list[FloatMatrix])
    assert_type(pipeline.get_documents(["a"]), list[Document])
    assert_type(pipeline.find({"year": 2001}, limit=1), list[Document])
    assert_type(pipeline.update_metadata("a", {"year": 2002}, remove=["draft"]), bool)
    assert_type(pipeline.update_metadata(filter={"year": 2002}, metadata={"year": 2003}), int)
    assert_type(pipeline.delete_documents({"year": 2002}), int)
    assert_type(pipeline.copy_to("folder", skip_existing=True), int)
    assert_type(pipeline.run(lambda opened: opened.count()), int)


def options(model: LateInteractionModel, **given: Unpack[IndexOptions]) -> SyncPipeline:
    search: SearchOptions = {"n_ann_tokens": 5, "filter": None, "ids": None, "exact": False}
    write: WriteOptions = {"batch_size": 5}
    with SyncPipeline("folder", model, "name", **given) as pipeline:
        pipeline.index_documents([], **write)
        pipeline.search("text", **search)
    return SyncPipeline("folder", model, packing="float16", store_images="full", filterable={"year": int})


class Holder(PipelineHolder):
    def __init__(self, pipeline: SyncPipeline) -> None:
        self._pipeline, self._owns_pipeline = pipeline, False


def a_holder(pipeline: SyncPipeline) -> None:
    with Holder(pipeline) as holder:
        assert_type(holder, Holder)
        assert_type(holder.clear(), None)


def mistakes(pipeline: SyncPipeline, model: LateInteractionModel) -> None:
    pipeline.search("text", n_ann_token=5)  # type: ignore[call-arg]
    pipeline.search("text", exact="yes")  # type: ignore[arg-type]
    pipeline.find(limits=5)  # type: ignore[call-arg]
    SyncPipeline("folder", model, packing="int4")  # type: ignore[arg-type]
    SyncPipeline("folder", model, doc_pool_factors=2)  # type: ignore[call-arg]
