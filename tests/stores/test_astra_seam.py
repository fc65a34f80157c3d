"""The seam of the Astra store: bad arguments, damaged rows, failed openings, pickling; no error but our own."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from astrapy import DataAPIClient

from late_interaction import (
    AstraStore,
    Document,
    DocumentError,
    EncodedDocument,
    IndexMismatchError,
    LateInteractionPipeline,
    StoreError,
)
from late_interaction.stores.astra.schema import CATALOGUE
from tests.stores.astra import FILTERABLE, QUICK, pipeline_on, rows
from tests.support.answers import ids
from tests.support.models import HashModel


def encoded(doc_id: str = "x", matrix: object = None, **metadata: object) -> EncodedDocument:
    return EncodedDocument(
        Document(doc_id, "x", metadata=metadata),
        np.eye(2, 32, dtype=np.float32) if matrix is None else matrix,
    )


BAD = {
    "another width": (ValueError, [encoded(matrix=np.eye(2, 16, dtype=np.float32))]),
    "one dimension": (ValueError, [encoded(matrix=np.ones(32, np.float32))]),
    "no number": (ValueError, [encoded(matrix=np.full((1, 32), np.nan))]),
    "infinite": (ValueError, [encoded(matrix=np.full((1, 32), np.inf))]),
    "zeros": (ValueError, [encoded(matrix=np.zeros((1, 32)))]),
    "not unit": (ValueError, [encoded(matrix=np.ones((1, 32)))]),
    "complex": (ValueError, [encoded(matrix=np.eye(2, 32) * 1j)]),
    "masked": (ValueError, [encoded(matrix=np.ma.masked_array(np.eye(2, 32)))]),
    "huge whole numbers": (ValueError, [encoded(matrix=[[10**400] * 32])]),
    "text": (ValueError, [encoded(matrix="abc")]),
    "None": (ValueError, [EncodedDocument(Document("x", "x"), None)]),
    "an id twice": (ValueError, [encoded(), encoded()]),
    "an empty id": (ValueError, [encoded("")]),
    "an id of another type": (TypeError, [encoded(5)]),
    "content of another type": (TypeError, [EncodedDocument(Document("x", b"x"), np.eye(2, 32))]),
    "metadata of another type": (
        TypeError,
        [EncodedDocument(Document("x", "x", metadata=[1]), np.eye(2, 32))],
    ),
    "not a document": (TypeError, [("x", np.eye(2, 32))]),
}


@pytest.mark.parametrize("what", BAD)
async def test_what_no_document_may_be_is_refused_before_anything_is_written(server, what):
    error, documents = BAD[what]
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    server.log.clear()
    with pytest.raises(error, match="document "):
        await pipeline.store.upsert([encoded("good"), *documents])
    assert server.log.requests == []


@pytest.mark.slow
async def test_metadata_that_are_not_json_are_named_and_the_others_are_written(server):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    store = (pipeline := pipeline_on(server)).store
    await pipeline.initialize()
    bad = [encoded("a", value={1, 2}), encoded("b", value=float("nan")), encoded("c", value=nested)]
    bad += [encoded("d\ud800"), encoded("e" * 70_000)]
    with pytest.raises(DocumentError) as raised:
        await store.upsert([encoded("good"), *bad])
    assert [failure.row for failure in raised.value.failures] == [1, 2, 3, 4, 5]
    assert raised.value.indexed == ["good"]
    for _, value in [(0, {1, 2}), (1, float("nan")), (2, nested)]:
        with pytest.raises(ValueError, match="cannot be stored as JSON"):
            await store.update_metadata("good", {"value": value})


async def test_other_arguments_of_another_type(server):
    store = (pipeline := pipeline_on(server)).store
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    for metadata in (None, [], 5, "x"):
        with pytest.raises(TypeError, match="metadata must be a dict"):
            await store.update_metadata("d0", metadata)
    for call in (store.delete, store.documents, store.matrices, store.existing):
        with pytest.raises(TypeError, match="not the one str"):
            await call("d0")
        with pytest.raises(TypeError, match="an id must be a str"):
            await call(["d0", 5])
    assert await store.documents(["\ud800", "d1"]) == await store.documents(["d1"])
    assert await store.delete(["\ud800"]) == 0
    assert await store.update_metadata("\ud800", {"a": 1}) is False
    assert await store.count() == 2


@pytest.mark.parametrize("spec", ["[]", "null", "5", "{}", "not JSON", '{"dim": "x"}', None])
@pytest.mark.parametrize("column", ["spec", "filterable"])
async def test_a_damaged_catalogue_is_named(server, spec, column):
    if (column, spec) == ("filterable", "{}"):
        spec = '{"a": "nope"}'
    await pipeline_on(server).initialize()
    catalogue = server.async_database().get_table(CATALOGUE)
    await catalogue.update_one({"name": "things"}, {"$set": {column: spec}})
    damaged = pipeline_on(server)
    with pytest.raises(StoreError, match="has a damaged row for astra:things"):
        await damaged.initialize()
    with pytest.raises(StoreError, match="has a damaged row"):
        await damaged.store.spec()


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"metadata": "[]"}, "its metadata is not"),
        ({"metadata": "{"}, "its metadata is not"),
        ({"revision": "5"}, "its revision is not"),
        ({"revision": '{"of": 1}'}, "its revision is not"),
        ({"packed": b"?"}, "token matri"),
        ({"packed": b"LIM\x01\x01" + bytes(7) + b"\x20\0\0\0"}, "token"),
    ],
)
async def test_a_damaged_row_is_named(server, cells, message):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(3))
    await server.async_database().get_table("things_docs").update_one({"doc_id": "d1"}, {"$set": cells})
    read = pipeline.get_matrices(["d1"]) if "packed" in cells else pipeline.find()
    with pytest.raises(StoreError, match=message):
        await read
    assert ids(await pipeline.search("old2x1", k=1, n_maxsim_candidates=1)) == ["d2"]


@pytest.mark.parametrize(
    "answer",
    [
        '{"errors": ["no"]}',
        '{"errors": 5}',
        '{"status": 5}',
        '{"status": {"tables": [5]}}',
        '{"data": {"documents": [5]}}',
        '{"data": [], "status": {"documentResponses": [7]}}',
    ],
)
async def test_answers_of_another_shape_are_none_of_the_data_api(answer):
    async def answering(_: web.Request) -> web.Response:
        return web.Response(text=answer, content_type="application/json")

    app = web.Application()
    app.router.add_post("/{path:.*}", answering)
    async with TestServer(app) as other:
        database = DataAPIClient("t", environment="hcd").get_async_database(
            str(other.make_url("")).rstrip("/"), keyspace="k"
        )
        store = AstraStore(database, "x", retries=0, limits=QUICK)
        spec = LateInteractionPipeline(store, HashModel()).spec
        for call in (
            store.spec,
            store.requests.tables,
            lambda: store.requests.insert("t", [{"a": 1}]),
            lambda: store.open(spec),
        ):
            with pytest.raises(StoreError):
                await call()
        await store.close()


async def test_a_failed_opening_leaves_no_connection(server):
    await pipeline_on(server).initialize()
    other = pipeline_on(server, packing="float32")
    with pytest.raises(IndexMismatchError):
        await other.initialize()
    assert other.store.requests._connections is None


# --- pickling and copying


def test_a_store_made_of_parts_is_pickled_and_copied_without_its_token(monkeypatch):
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://localhost:8181")
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "AstraCS:first-secret")
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "ks")
    store = AstraStore.from_environment("things", filterable=FILTERABLE, retries=3, timeout_s=7)
    given = AstraStore.from_environment("things", token="AstraCS:second-secret", keyspace="other")
    for one in (store, given):
        pickled = pickle.dumps(one)
        assert b"secret" not in pickled
        for other in (pickle.loads(pickled), copy.copy(one), copy.deepcopy(one)):
            assert other is not one
            assert other.requests is not one.requests
            assert other.location == one.location
    # The copy connects to the same database, whatever its environment says of another one.
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", "http://elsewhere:1")
    monkeypatch.setenv("ASTRA_DB_KEYSPACE", "elsewhere")
    assert copy.deepcopy(store).location == "astra:things (ks at localhost:8181)"
    assert copy.deepcopy(given).location == "astra:things (other at localhost:8181)"
    pickled = pickle.dumps(store)
    monkeypatch.delenv("ASTRA_DB_APPLICATION_TOKEN")
    with pytest.raises(StoreError, match="ASTRA_DB_APPLICATION_TOKEN"):
        pickle.loads(pickled)


async def test_a_copy_works(server, monkeypatch):
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
    store = AstraStore.from_environment(
        "things", api_endpoint=server.endpoint, keyspace=server.keyspace, filterable=FILTERABLE
    )
    async with LateInteractionPipeline(store, HashModel(), doc_pool_factor=1) as pipeline:
        await pipeline.index_documents(rows(3))
        copied = pickle.loads(pickle.dumps(store))
        async with LateInteractionPipeline(copied, HashModel(), doc_pool_factor=1) as second:
            assert ids(await second.search("old2x1", k=1, filter={"year": 2})) == ["d2"]


def test_a_store_made_with_a_database_refuses_to_be_pickled_or_copied_at_once():
    database = DataAPIClient("AstraCS:secret").get_async_database("http://localhost:1", keyspace="k")
    store = AstraStore(database, "things")
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(StoreError, match=r"made with a database of astrapy.*from_environment") as raised:
            attempt(store)
        assert "secret" not in str(raised.value)


def test_a_password_in_the_endpoint_is_refused(monkeypatch):
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", "t")
    with pytest.raises(StoreError, match="must not have a password") as raised:
        AstraStore.from_environment("things", api_endpoint="http://me:hunter2@localhost:1")
    assert "hunter2" not in str(raised.value)
