"""Indexes on Astra with one learned vector a document: definitions, fitting, what a search asks, copies."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from late_interaction import (
    AstraStore,
    Document,
    EncodedDocument,
    IndexMismatchError,
    LateInteractionPipeline,
    LocalStore,
    PrecomputedEmbeddings,
    QueryVectors,
    StoreError,
)
from late_interaction.stores.astra import fitting
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.limits import Limits
from late_interaction.stores.astra.scaling import documents_scaling
from late_interaction.stores.astra.schema import CATALOGUE, CATALOGUE_TABLE
from late_interaction.stores.copying import copy_index, verify_copy
from tests.stores.astra import FILTERABLE, FITTED, QUICK, pipeline_on, rows
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import Fault

DOCUMENTS = {"candidates": "documents", "limits": FITTED}


async def opened(server, name: str = "things", **options) -> LateInteractionPipeline:
    pipeline = pipeline_on(server, name, **{**DOCUMENTS, **options})
    await pipeline.initialize()
    return pipeline


async def state(server, name: str = "things") -> dict:
    """The index's row in the catalogue, and its parts."""
    table = server.async_database().get_table(CATALOGUE)
    found = await table.find({}, projection={"name": True, "reduction": True, "size": True}).to_list()
    parts = sorted(row["name"] for row in found if row["name"].startswith(f"{name}#"))
    return {**next(row for row in found if row["name"] == name), "parts": parts}


async def vectors(server, name: str = "things") -> dict[str, tuple]:
    """Of each document the reduction of its vector, the version that it is of, and whether there is one."""
    found = await server.async_database().get_table(f"{name}_docs").find({}).to_list()
    return {
        row["doc_id"]: (
            row.get("reduction"),
            row["vector_of"] == row["generation"],
            bool(row.get("document_vector")),
        )
        for row in found
    }


# --- definitions


async def test_there_is_one_table_with_a_vector_and_no_tokens(server):
    pipeline = await opened(server, filterable=FILTERABLE, limits=QUICK)
    database = server.async_database()
    assert set(await database.list_table_names()) == {"things_docs", CATALOGUE}
    table = database.get_table("things_docs")
    assert (await table.definition()).columns["document_vector"].dimension == 1536
    names = {"things_docs_ann", "things_docs_reduction", "things_docs_meta_year", "things_docs_meta_lang"}
    assert set(await table.list_index_names()) == names
    assert (await pipeline.store.info())["candidates"] == "documents"
    await pipeline.drop()
    assert await database.list_table_names() == []


async def test_how_candidates_are_found_is_part_of_the_index(server):
    await opened(server, "documents")
    await pipeline_on(server, "tokens").initialize()
    with pytest.raises(IndexMismatchError, match="candidates") as raised:
        await pipeline_on(server, "documents", candidates="tokens").initialize()
    assert raised.value.differences["candidates"] == ("documents", "tokens")
    with pytest.raises(IndexMismatchError, match="candidates"):
        await opened(server, "tokens")
    for name in ("documents", "tokens"):
        pipeline = pipeline_on(server, name)
        await pipeline.initialize()
        assert (await pipeline.store.info())["candidates"] == name


async def test_eight_fields_can_be_declared(server):
    nine = {f"f{i}": int for i in range(9)}
    with pytest.raises(ValueError, match="9 fields are declared, and 8 can be"):
        AstraStore(server.async_database(), "x", filterable=nine, candidates="documents")
    with pytest.raises(ValueError, match="candidates must be one of"):
        AstraStore(server.async_database(), "x", candidates="rows")
    pipeline = await opened(server, filterable=dict(list(nine.items())[:8]))
    assert len(await server.async_database().get_table("things_docs").list_index_names()) == 10
    await pipeline.drop()


async def test_a_catalogue_of_an_earlier_release_gets_its_columns(server):
    columns = {
        name: CATALOGUE_TABLE["columns"][name]
        for name in ("name", "spec", "filterable", "library", "created")
    }
    await server.async_database().create_table(CATALOGUE, definition={**CATALOGUE_TABLE, "columns": columns})
    await pipeline_on(server, "older").initialize()
    server.settings.faults = [Fault("http_error", command="alterTable", times=1, applied=True)]
    pipeline = await opened(server)
    await pipeline.index_documents(rows(6))
    assert (await pipeline.store.info())["fitted"]
    again = pipeline_on(server, "older")
    await again.initialize()
    assert await again.count() == 0


# --- fitting


async def test_until_there_are_enough_documents_every_one_is_scored(server):
    pipeline = await opened(server, limits=QUICK)
    await pipeline.index_documents(rows(120))
    found = await pipeline.search("old7x1 old8x2", k=3)
    assert ids(found)[:2] == ["d7", "d8"]
    assert found.stats.certain
    assert found.stats.n_scored == 120
    assert set((await vectors(server)).values()) == {(0, True, False)}


@pytest.mark.slow
async def test_at_300_documents_it_is_fitted_and_all_have_vectors(server):
    # Of 32 values a query of one word would have one or none.
    pipeline = await opened(server, limits=replace(QUICK, document_width=256))
    await pipeline.index_documents(rows(299))
    assert not (await pipeline.store.info())["fitted"]
    await pipeline.index_documents(rows(300)[299:])
    found = set((await vectors(server)).values())
    assert len(found) == 1
    assert next(iter(found))[1:] == (True, True)
    kept = await state(server)
    assert f'"current": [{next(iter(found))[0]}, 1], "next": null' in kept["reduction"]
    assert '"counted": 300' in kept["size"]
    assert ids(await pipeline.search("old7x1", k=1)) == ["d7"]


async def test_a_fit_to_few_documents_is_made_anew_once_there_are_enough(server):
    """Enough are fitted to in the midst of a load, and the documents that come later are not written twice."""
    pipeline = await opened(server, limits=replace(FITTED, fitted_on=20))
    await pipeline.index_documents(rows(8))
    (first,) = {one[0] for one in (await vectors(server)).values()}
    assert first > 0
    await pipeline.index_documents(rows(19))
    assert {one[0] for one in (await vectors(server)).values()} == {first}
    server.log.clear()
    await pipeline.index_documents(rows(60)[19:], batch_size=10)
    (second,) = {one[0] for one in (await vectors(server)).values()}
    assert second > first
    inserted = server.log.select("insertMany", "things_docs")
    assert sum(one.rows_written for one in inserted) == 41 + 29
    await pipeline.index_documents(rows(60))
    assert {one[0] for one in (await vectors(server)).values()} == {second}
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy


async def test_a_long_load_is_fitted_once_and_in_its_midst(server):
    pipeline = await opened(server, limits=replace(FITTED, fitted_on=20))
    await pipeline.index_documents(rows(60), batch_size=10)
    assert len({one[0] for one in (await vectors(server)).values()}) == 1
    inserted = server.log.select("insertMany", "things_docs")
    assert sum(one.rows_written for one in inserted) == 60 + 20


async def test_documents_written_again_and_again_are_not_counted_as_more(server):
    pipeline = await opened(server, limits=replace(FITTED, fitted_from=8, fitted_on=20))
    for _ in range(5):
        await pipeline.index_documents(rows(5))
    assert not (await pipeline.store.info())["fitted"]
    await pipeline.index_documents(rows(10))
    (first,) = {one[0] for one in (await vectors(server)).values()}
    for _ in range(3):
        await pipeline.index_documents(rows(10))
    assert {one[0] for one in (await vectors(server)).values()} == {first}


async def test_a_sample_that_was_given_is_not_replaced_by_itself(server):
    pipeline = await opened(server, limits=replace(FITTED, fitted_on=20))
    await pipeline.index_documents(rows(8))
    await pipeline.fit_candidates(["old1x1 what", "who is old2x2"])
    (by_hand,) = {one[0] for one in (await vectors(server)).values()}
    await pipeline.index_documents(rows(30))
    assert {one[0] for one in (await vectors(server)).values()} == {by_hand}


async def test_other_clients_go_on_with_what_one_has_fitted(server):
    first, other, searcher = [await opened(server) for _ in range(3)]
    await first.index_documents(rows(2))
    assert ids(await searcher.search("old1x1", k=1)) == ["d1"]
    await other.index_documents(rows(6)[2:])
    await first.index_documents(rows(8)[6:])
    live = {row[0] for row in (await vectors(server)).values()}
    assert len(live) == 1
    assert live > {0} or live.isdisjoint({0})
    for _ in range(2):
        found = await searcher.search("old7x1", k=1)
        assert ids(found) == ["d7"]
    server.log.clear()
    await searcher.search("old7x1", k=1)
    assert any(request.body.get("sort") for request in server.log.select("find", "things_docs"))


async def test_a_reduction_lies_in_the_catalogue_in_parts_and_goes_with_the_index(server):
    pipeline = await opened(server)
    await opened(server, "other")
    await pipeline.index_documents(rows(6))
    first = await state(server)
    assert len(first["parts"]) > 2
    await pipeline.fit_candidates()
    second = await state(server)
    assert len(second["parts"]) > 2
    assert set(first["parts"]).isdisjoint(second["parts"])
    await pipeline.drop()
    table = server.async_database().get_table(CATALOGUE)
    assert [row["name"] for row in await table.find({}).to_list()] == ["other"]


async def test_clearing_an_index_forgets_what_it_was_fitted_to(server):
    pipeline = await opened(server)
    await pipeline.index_documents(rows(6))
    await pipeline.clear()
    assert (await state(server))["parts"] == []
    await pipeline.index_documents(rows(2, "new"))
    assert ids(await pipeline.search("new1x1", k=1)) == ["d1"]
    assert not (await pipeline.store.info())["fitted"]
    await pipeline.index_documents(rows(6, "new"))
    assert (await pipeline.store.info())["fitted"]


async def test_lost_parts_leave_searches_right_and_are_made_anew(server):
    pipeline = await opened(server)
    await pipeline.index_documents(rows(8))
    table = server.async_database().get_table(CATALOGUE)
    for name in (await state(server))["parts"]:
        await table.delete_one({"name": name})
    other = await opened(server)
    found = await other.search("old7x1", k=1)
    assert ids(found) == ["d7"]
    assert found.stats.n_scored == 8
    await other.optimize()
    assert len((await state(server))["parts"]) > 2
    assert (await diagnose(other.store, full=True, older_than_s=0)).healthy


async def test_texts_are_encoded_as_queries_for_the_fit_and_a_sample_may_be_given(server):
    class Model(HashModel):
        def encode_queries(self, queries):
            asked.extend(queries)
            if any("unqueryable" in text for text in queries):
                raise ValueError("no such query.")
            return super().encode_queries(queries)

    asked: list[str] = []
    made = await opened(server)
    model = Model()
    pipeline = LateInteractionPipeline(made.store, model, doc_pool_factor=1)
    await pipeline.index_documents([*rows(5), {"doc_id": "u", "content": "unqueryable"}])
    assert {row["content"] for row in rows(5)} < set(asked)
    assert await pipeline.fit_candidates(["old1x1 what", "who is old2x2"]) == {"fitted": True, "vectors": 6}
    with pytest.raises(ValueError, match="empty"):
        await pipeline.fit_candidates([" "])
    with pytest.raises(ValueError, match=r"shape \(n_tokens"):
        await pipeline.store.fit_candidates(np.ones((3, 5), np.float32))
    assert await pipeline.optimize(refit=True) == {"fitted": True, "vectors": 6}
    assert await pipeline.optimize() == {}
    with pytest.raises(TypeError, match="refit"):
        await pipeline.optimize(refit="yes")


async def test_vectors_made_elsewhere_are_fitted_to_themselves(server):
    made = await opened(server)
    matrices = [made.model.encode_documents([row["content"]])[0] for row in rows(6)]
    async with LateInteractionPipeline(
        AstraStore(server.async_database(), "other", **DOCUMENTS),
        PrecomputedEmbeddings(32, "elsewhere"),
        doc_pool_factor=1,
    ) as pipeline:
        await pipeline.index_embeddings(rows(6), matrices)
        assert (await pipeline.store.info())["fitted"]
        assert ids(await pipeline.search_with_embeddings(matrices[3], k=1)) == ["d3"]


async def test_only_an_index_with_document_vectors_is_fitted(server, tmp_path):
    for pipeline in (
        pipeline_on(server, "tokens"),
        LateInteractionPipeline(tmp_path, HashModel()),
        await opened(server, "empty"),
    ):
        await pipeline.initialize()
        for fit in (pipeline.fit_candidates(), pipeline.optimize(refit=True)):
            with pytest.raises(StoreError, match=r"no document vectors to fit|no document in"):
                await fit
        await pipeline.aclose()


async def test_a_fit_that_fails_does_not_fail_the_write(server, caplog):
    pipeline = await opened(server, retries=0, limits=replace(FITTED, fitted_on=6))
    server.settings.faults = [Fault("http_error", command="insertMany", table=CATALOGUE, times=1)]
    await pipeline.store.upsert(await encoded(pipeline, rows(6)))
    assert "not fitted" in caplog.text
    assert await pipeline.count() == 6
    server.settings.faults = []
    await pipeline.optimize()
    assert (await pipeline.store.info())["fitted"]


async def encoded(pipeline, some):
    return [
        EncodedDocument(
            Document(row["doc_id"], row["content"], "text", {"year": row["year"], "lang": row["lang"]}),
            pipeline.model.encode_documents([row["content"]])[0],
        )
        for row in some
    ]


# --- searching


@pytest.mark.slow
async def test_a_search_makes_three_requests_and_reads_each_candidate_once(server):
    pipeline = await opened(server, filterable=FILTERABLE, limits=replace(FITTED, document_width=64))
    await pipeline.index_documents(rows(400))
    await pipeline.search("old1x1 old2x2", k=10)
    server.log.clear()
    found = await pipeline.search("old1x1 old2x2 old3x3", k=10, filter={"year": {"$lt": 300}})
    assert {"d1", "d2", "d3"} <= set(ids(found))
    asked = server.log.select("find")
    assert len(asked) == len(server.log.requests) == 3
    n = documents_scaling(400).n_maxsim_candidates(10)
    assert server.log.rows_read == n + 10
    nearest = [request.body for request in asked if request.body.get("sort")]
    assert len(nearest) == 1
    assert nearest[0]["filter"] == {"meta_year": {"$lt": 300}}
    assert nearest[0]["options"]["limit"] == n
    assert not found.stats.certain
    exact = await pipeline.search("old1x1 old2x2 old3x3", k=10, exact=True)
    assert exact.stats.certain
    assert exact.stats.n_scored == 400


async def test_large_matrices_are_read_afterwards_side_by_side(server):
    pipeline = await opened(server, limits=replace(FITTED, ann_bytes=1000, read_bytes=4000))
    await pipeline.index_documents(rows(60, n_words=10))
    server.log.clear()
    assert ids(await pipeline.search("old7x1 old7x2", k=2))[0] == "d7"
    (nearest,) = [one.body for one in server.log.select("find", "things_docs") if one.body.get("sort")]
    assert "packed" not in nearest["projection"]
    assert server.log.count("find", "things_docs") > 5


async def test_an_undeclared_field_is_checked_on_the_candidates(server):
    pipeline = await opened(server, filterable={"year": int})
    await pipeline.index_documents([{**row, "odd": i % 2 == 1} for i, row in enumerate(rows(60))])
    found = await pipeline.search("old2x1 old3x1", k=5, filter={"odd": True, "year": {"$lt": 30}})
    assert len(found) == 5
    assert found[0].doc_id == "d3"
    assert all(one.metadata["odd"] and one.metadata["year"] < 30 for one in found)
    few = await pipeline.search("old2x1", k=5, n_ann_tokens=1, n_maxsim_candidates=1, filter={"odd": True})
    assert len(few) == 5
    assert few.stats.escalations


async def test_a_document_without_a_vector_in_use_is_found_exactly(server):
    """Written by a client that did not know of the reduction, or left by a fit that gave way."""
    pipeline = await opened(server, filterable=FILTERABLE)
    await pipeline.index_documents(rows(60))
    table = server.async_database().get_table("things_docs")
    for doc_id, values in (("d3", {"reduction": 0, "document_vector": None}), ("d4", {"reduction": 2**62})):
        await table.update_one({"doc_id": doc_id}, {"$set": values})
    for doc_id in ("d3", "d4"):
        query = f"old{doc_id[1:]}x1"
        found = await pipeline.search(query, k=1, n_maxsim_candidates=1, n_ann_tokens=1)
        assert ids(found) == [doc_id]
        assert ids(await pipeline.search(query, k=1, filter={"year": {"$gt": 50}})) != [doc_id]
    assert await pipeline.optimize() == {"vectors": 2}
    assert len(set((await vectors(server)).values())) == 1


async def test_a_search_during_a_fit_never_compares_vectors_of_two_reductions(server):
    """The query's vector of one reduction is asked for with a filter on it, and both lists are looked at."""
    limits = replace(FITTED, document_width=64)
    pipeline = await opened(server, concurrency=1, limits=limits)
    await pipeline.index_documents(rows(120))
    writing = asyncio.Event()
    go_on = asyncio.Event()

    async def hold(request) -> None:
        if request.table == "things_docs" and request.command == "insertMany" and writing.is_set():
            await go_on.wait()
        elif request.table == "things_docs" and request.command == "insertMany":
            writing.set()

    server.settings.hold = hold
    fit = asyncio.ensure_future(pipeline.fit_candidates([f"old{i}x2" for i in range(120)]))
    await writing.wait()
    await asyncio.sleep(0.05)
    other = await opened(server, limits=limits)
    reductions = {row[0] for row in (await vectors(server)).values()}
    assert len(reductions) == 2
    server.log.clear()
    for i in range(0, 120, 10):
        assert ids(
            await other.search(f"old{i}x1 old{i}x2", k=1, n_ann_tokens=20, n_maxsim_candidates=20)
        ) == [f"d{i}"]
    sorts = [request.body for request in server.log.requests if request.body.get("sort")]
    assert {body["filter"]["reduction"] for body in sorts} == reductions
    by = {body["filter"]["reduction"]: set() for body in sorts}
    for body in sorts:
        by[body["filter"]["reduction"]].add(body["sort"]["document_vector"]["$binary"])
    assert set.isdisjoint(*by.values())
    go_on.set()
    await fit
    server.settings.hold = None
    assert len({row[0] for row in (await vectors(server)).values()}) == 1
    assert ids(await other.search("old50x1 old50x2", k=1)) == ["d50"]


async def test_a_document_that_is_deleted_or_replaced_during_a_fit_stays_so(server):
    """Its vector was made of what the fit had read."""
    pipeline = await opened(server, concurrency=1)
    await pipeline.index_documents(rows(30))
    other = await opened(server)
    writing, go_on = asyncio.Event(), asyncio.Event()

    async def hold(request) -> None:
        if request.table == "things_docs" and request.command == "insertMany" and not writing.is_set():
            writing.set()
            await go_on.wait()

    server.settings.hold = hold
    fit = asyncio.ensure_future(pipeline.fit_candidates())
    await writing.wait()
    try:
        await other.delete_documents(["d3", "d4"])
        await other.index_documents(rows(6, "new")[5:])
    finally:
        go_on.set()
        await fit
    server.settings.hold = None
    health = await diagnose(other.store, full=True, older_than_s=0)
    assert health.healthy
    assert health.documents == await other.count() == 28
    assert ids(await other.search("new5x1 new5x2", k=1)) == ["d5"]


async def test_what_is_near_by_the_vector_comes_first_and_bounds_are_honest(server):
    pipeline = await opened(server, limits=replace(FITTED, document_width=64, ann_bytes=0))
    await pipeline.index_documents(rows(40))
    matrix = pipeline.model.encode_queries(["old7x1 old8x2"])[0]
    query = QueryVectors(matrix, np.ones(2, np.float32))
    few = await pipeline.store.candidates(query, 5, n_ann_tokens=5)
    assert len(few.doc_ids) == 5
    assert few.bound == np.inf
    assert not few.exact.any()
    assert (np.diff(few.scores) <= 0).all()
    everything = await pipeline.store.candidates(query, 100, n_ann_tokens=100)
    assert len(everything.doc_ids) == 40
    assert everything.exhausted
    some = await pipeline.store.candidates(query, 10, n_ann_tokens=100)
    assert not some.exhausted
    exact = await pipeline.store.candidates(query, 1, n_ann_tokens=None)
    assert exact.exhausted
    assert exact.exact.all()


def test_more_candidates_are_asked_for_as_the_collection_grows():
    asked = [documents_scaling(n).n_maxsim_candidates(10) for n in (0, 300, 5000, 20_000, 50_000, 100_000)]
    assert asked == sorted(asked)
    assert asked[0] == asked[2] == 300
    assert documents_scaling(10**9).n_ann_tokens(10) == 1000


async def test_the_size_is_counted_anew_when_half_of_it_is_not_and_it_matters(server, monkeypatch):
    pipeline = await opened(server)

    async def size() -> tuple[int, int]:
        values = json.loads((await state(server))["size"])
        return values["counted"], values["since"]

    await pipeline.index_documents(rows(20))
    assert sum(await size()) == 20
    await pipeline.fit_candidates()
    assert await size() == (20, 0)
    await pipeline.index_documents(rows(25)[20:])
    assert await size() == (20, 5)
    await pipeline.index_documents(rows(20))
    assert await size() == (20, 25)
    monkeypatch.setattr(fitting, "GROWS_FROM", 40)
    await pipeline.index_documents(rows(20))
    assert await size() == (25, 0)
    assert documents_scaling(25) == pipeline.store.scaling
    monkeypatch.setattr(fitting, "GROWS_FROM", 20)
    monkeypatch.setattr(fitting, "GROWS_TO", 22)
    await pipeline.index_documents(rows(20))
    assert await size() == (25, 20)
    await pipeline.index_documents([])
    assert await size() == (25, 20)


# --- the doctor


async def test_the_doctor_finds_wrong_vectors_and_writes_them_anew(server):
    pipeline = await opened(server, filterable=FILTERABLE)
    await pipeline.index_documents(rows(30))
    healthy = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert healthy.healthy
    assert healthy.sampled == healthy.found_first == 30
    assert healthy.expected_in_top > 0
    assert healthy.stage_recall == 1
    table = server.async_database().get_table("things_docs")
    await table.update_one({"doc_id": "d3"}, {"$set": {"vector_of": 1}})
    await table.update_one({"doc_id": "ghost"}, {"$set": {"vector_of": 1, "reduction": 5}})
    await table.update_one({"doc_id": "d4"}, {"$set": {"meta_year": 9999}})
    ill = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert (ill.stale, ill.torn, ill.healthy) == (["d3", "d4"], ["ghost"], False)
    assert (await diagnose(pipeline.store, full=True, repair=True, older_than_s=0)).repaired == 3
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy
    assert await pipeline.count({"year": 9999}) == 0
    assert await pipeline.count() == 30


async def test_the_doctor_says_when_to_fit_anew(server):
    pipeline = await opened(server, limits=replace(FITTED, document_width=8))
    await pipeline.index_documents(rows(3))
    await pipeline.index_documents(rows(600, "other", n_words=6))
    health = await diagnose(pipeline.store, sample=20, seed=0)
    assert health.refit
    assert not health.healthy
    assert health.to_dict()["refit"]


# --- copies


@pytest.mark.slow
async def test_an_index_is_copied_from_one_way_to_the_other_and_from_a_folder(server, tmp_path):
    documents = [*rows(40), {"doc_id": "blank", "content": " "}]
    model = HashModel()
    async with LateInteractionPipeline(tmp_path, model, "folder", doc_pool_factor=1) as folder:
        await folder.index_documents(documents)
        n_encoded = len(model.encoded)
        stores = [
            AstraStore(server.async_database(), "by_documents", **DOCUMENTS),
            AstraStore(server.async_database(), "by_tokens", limits=QUICK),
            AstraStore(server.async_database(), "again", **DOCUMENTS),
            LocalStore(tmp_path, "back"),
        ]
        source = folder.store
        for target in stores:
            assert await copy_index(source, target) == 41
            await verify_copy(source, target)
            source = target
        assert len(model.encoded) == n_encoded
        for name, tables in (("by_documents", 1), ("by_tokens", 2), ("again", 1)):
            names = await server.async_database().list_table_names()
            assert sum(one.startswith(name) for one in names) == tables
        wanted = await folder.search("old7x1 old8x2", k=5, exact=True)
        for store in stores:
            pipeline = LateInteractionPipeline(store, model, doc_pool_factor=1)
            found = await pipeline.search("old7x1 old8x2", k=5, exact=True)
            assert ids(found) == ids(wanted)
            # They are read in other groups, so that a matrix product may round otherwise.
            assert [one.score for one in found] == pytest.approx([one.score for one in wanted], rel=1e-6)
        assert (await stores[0].info())["fitted"]
        for store in stores:
            await store.close()


async def test_a_pipeline_makes_and_copies_to_document_vectors(server):
    tokens = pipeline_on(server, "tokens")
    await tokens.initialize()
    await tokens.index_documents(rows(5))
    target = LateInteractionPipeline(
        server.async_database(), tokens.model, "documents", candidates="documents", doc_pool_factor=1
    )
    assert await tokens.copy_to(target) == 5
    assert (await target.store.info())["candidates"] == "documents"
    with pytest.raises(ValueError, match="a Store finds candidates in its own way"):
        LateInteractionPipeline(target.store, tokens.model, candidates="documents")
    await target.aclose()


def test_a_part_of_a_reduction_is_below_every_limit():
    limits = Limits()
    assert limits.part_bytes * 4 / 3 < 10 * 1024 * 1024
    assert limits.document_width <= 4096
