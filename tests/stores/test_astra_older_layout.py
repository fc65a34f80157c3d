"""An index that was made before versions were in the key of a token row: it opens, and is written as it was then."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from late_interaction import IndexMismatchError
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.schema import CATALOGUE, CATALOGUE_TABLE, Tables, fields_of
from tests.stores.astra import FILTERABLE, QUICK, pipeline_on, rows
from tests.stores.test_astra_crashes import check_whole
from tests.support.answers import ids
from tools.data_api import DataApiServer

OPTIONS = {"filterable": FILTERABLE, "limits": replace(QUICK, rows=10)}


async def make_older(server: DataApiServer, upto: str = "catalogue") -> None:
    """Create the tables as earlier releases did, or begin to."""
    pipeline = pipeline_on(server, **OPTIONS)
    declared = {"year": "int", "lang": "str"}
    tables = Tables("things", pipeline.spec.dim, fields_of(declared), versioned=False)
    client = pipeline.store.requests
    for name, definition in tables.definitions().items():
        await client.create_table(name, definition)
        if upto == name:
            await pipeline.aclose()
            return
    for table, indexes in tables.indexes().items():
        for index, definition in indexes.items():
            await client.create_index(table, index, definition)
    await client.create_table(CATALOGUE, CATALOGUE_TABLE)
    entry = {
        "name": "things",
        "spec": json.dumps(pipeline.spec.to_dict()),
        "filterable": json.dumps(declared),
        "library": "0.1.0",
        "created": "2026-01-01T00:00:00Z",
    }
    assert not (await client.insert(CATALOGUE, [entry])).refused
    await pipeline.aclose()


@pytest.mark.slow
async def test_it_is_read_written_and_repaired(server):
    await make_older(server)
    pipeline = pipeline_on(server, **OPTIONS)
    await pipeline.initialize()
    assert not pipeline.store.tables.versioned
    await pipeline.index_documents(rows(6, n_words=25))
    await pipeline.index_documents(rows(3, "new", n_words=12))
    assert await pipeline.update_metadata("d2", {"year": 700})
    assert not await pipeline.update_metadata("nobody", {"year": 700})
    assert await pipeline.delete_documents(["d4", "nobody"]) == 1
    await check_whole(pipeline)
    assert ids(await pipeline.search("new2x1", k=1, filter={"year": 700})) == ["d2"]
    assert await pipeline.count() == 5
    health = await diagnose(pipeline.store, full=True, older_than_s=0)
    assert (health.healthy, health.tokens) == (True, 3 * 12 + 2 * 25)
    database = server.async_database()
    tokens = database.get_table("things_tokens")
    await tokens.delete_one({"doc_id": "d1", "token_id": 3})
    await tokens.insert_one({"doc_id": "d0", "token_id": 99, "generation": 1})
    await tokens.insert_one({"doc_id": "ghost", "token_id": 0, "generation": 1})
    await database.get_table("things_docs").update_one({"doc_id": "torn"}, {"$set": {"metadata": "{}"}})
    sick = await diagnose(pipeline.store, full=True, repair=True, older_than_s=0)
    assert sick.repaired == 4
    assert (await diagnose(pipeline.store, full=True, older_than_s=0)).healthy
    await check_whole(pipeline)


@pytest.mark.parametrize("upto", ["things_docs", "things_tokens"])
async def test_a_creation_that_broke_off_is_completed_in_its_own_layout(server, upto):
    await make_older(server, upto)
    pipeline = pipeline_on(server, **OPTIONS)
    await pipeline.initialize()
    assert not pipeline.store.tables.versioned
    await pipeline.index_documents(rows(3))
    assert ids(await pipeline.search("old1x1", k=1)) == ["d1"]


async def test_a_new_index_is_versioned_and_a_mixture_of_both_layouts_is_refused(server):
    pipeline = pipeline_on(server, **OPTIONS)
    await pipeline.initialize()
    assert pipeline.store.tables.versioned
    older = Tables("things", pipeline.spec.dim, {}, versioned=False)
    await pipeline.store.requests.drop_table("things_tokens")
    await pipeline.store.requests.create_table("things_tokens", older.definitions()["things_tokens"])
    with pytest.raises(IndexMismatchError, match="primary key"):
        await pipeline_on(server, **OPTIONS).initialize()
