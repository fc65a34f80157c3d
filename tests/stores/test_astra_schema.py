"""The schema on Astra: what is created, compared, refused and dropped."""

from __future__ import annotations

import pytest
from astrapy import DataAPIClient

from late_interaction import (
    AstraStore,
    IndexMismatchError,
    LateInteractionPipeline,
    StoreError,
)
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.schema import CATALOGUE, index_differences
from tests.stores.astra import FILTERABLE, CutAfter, pipeline_on, rows
from tests.support.answers import ids
from tests.support.models import HashModel


async def test_it_creates_what_it_says_and_drops_exactly_that(server):
    database = server.async_database()
    await database.create_table("bystander", definition={"columns": {"id": "text"}, "primaryKey": "id"})
    pipeline = pipeline_on(server, filterable={**FILTERABLE, "tags": list[str], "author.name": str})
    await pipeline.initialize()
    tables = {table.name: table.definition for table in await database.list_tables()}
    assert set(tables) == {"bystander", "things_docs", "things_tokens", CATALOGUE}
    assert tables["things_tokens"].columns["token_embedding"].dimension == 32
    names = set(await database.get_table("things_tokens").list_index_names())
    fields = ("year", "lang", "tags", "author_name")
    assert names == {"things_tokens_ann", *(f"things_tokens_meta_{name}" for name in fields)}
    other = pipeline_on(server, "other")
    await other.initialize()
    await pipeline.drop()
    assert set(await database.list_table_names()) == {"bystander", "other_docs", "other_tokens", CATALOGUE}
    await other.drop()
    assert await database.list_table_names() == ["bystander"]
    await other.drop()


async def test_attaching_takes_four_requests_and_writes_nothing(server):
    await pipeline_on(server).initialize()
    server.log.clear()
    again = pipeline_on(server)
    await again.initialize()
    assert server.log.commands == {"listTables": 1, "find": 1, "listIndexes": 2}


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("metric", "index things_tokens_ann"),
        ("missing index", "index things_tokens_meta_year"),
        ("dimension", "column token_embedding"),
        ("key", "primary key"),
        ("type", "column meta_year"),
    ],
)
async def test_definitions_are_read_and_compared(server, spoil, named):
    await pipeline_on(server, filterable=FILTERABLE).initialize()
    database = server.async_database()
    tokens = database.get_table("things_tokens")
    if spoil == "missing index":
        await database.drop_table_index("things_tokens_meta_year")
    elif spoil == "metric":
        await database.drop_table_index("things_tokens_ann")
        await tokens.create_vector_index(
            "things_tokens_ann", column="token_embedding", options={"metric": "cosine"}
        )
    else:
        await database.drop_table("things_tokens")
        columns = {
            "doc_id": "text",
            "token_id": "int",
            "token_embedding": {"type": "vector", "dimension": 16 if spoil == "dimension" else 32},
            "generation": "bigint",
            "meta_year": "text" if spoil == "type" else "bigint",
            "meta_lang": "text",
        }
        key = ["token_id"] if spoil == "key" else ["doc_id"]
        sort = {} if spoil == "key" else {"token_id": 1}
        await database.create_table(
            "things_tokens",
            definition={"columns": columns, "primaryKey": {"partitionBy": key, "partitionSort": sort}},
        )
    with pytest.raises(IndexMismatchError, match=named):
        await pipeline_on(server, filterable=FILTERABLE).initialize()
    health = await diagnose(AstraStore(server.async_database(), "things"))
    assert any(named in name for name in health.differences)
    assert not health.healthy


def test_an_index_that_folds_letters_is_another():
    wanted = {"i": {"column": "meta_lang"}}
    plain = {"ascii": False, "caseSensitive": True, "normalize": False}
    assert index_differences("t", {"i": {"column": "meta_lang", "options": plain}}, wanted) == {}
    for name, value in plain.items():
        found = {"i": {"column": "meta_lang", "options": {**plain, name: not value}}}
        assert list(index_differences("t", found, wanted)) == ["index i on t"]


async def test_the_declaration_is_part_of_the_index(server):
    await pipeline_on(server, filterable=FILTERABLE).initialize()
    undeclared = pipeline_on(server)
    await undeclared.initialize()
    assert (await undeclared.store.info())["filterable"] == {"year": "int", "lang": "str"}
    with pytest.raises(
        IndexMismatchError, match=r"filterable: the index has .*'year'.*, this pipeline has \{\}"
    ):
        await pipeline_on(server, filterable={}).initialize()


@pytest.mark.slow
async def test_a_creation_that_broke_off_is_completed(server):
    for n in range(1, 9):
        server.settings.faults = [CutAfter(n)]
        with pytest.raises(StoreError):
            await pipeline_on(server, f"t{n}", retries=0, filterable=FILTERABLE).initialize()
        server.settings.faults = []
        pipeline = pipeline_on(server, f"t{n}", filterable=FILTERABLE)
        await pipeline.initialize()
        await pipeline.index_documents(rows(3))
        assert ids(await pipeline.search("old1x1", k=1)) == ["d1"]


async def test_documents_of_an_unknown_model_are_not_taken_over(server):
    pipeline = pipeline_on(server)
    await pipeline.initialize()
    await pipeline.index_documents(rows(2))
    await server.async_database().drop_table(CATALOGUE)
    with pytest.raises(StoreError, match="does not say what they were encoded with"):
        await pipeline_on(server).initialize()


@pytest.mark.parametrize("name", ["", "a-b", "é", "x" * 42, "a b"])
def test_names_that_no_table_may_have(name):
    database = DataAPIClient("t", environment="hcd").get_async_database("http://localhost:1", keyspace="k")
    with pytest.raises(ValueError, match="1 to 41 ASCII letters"):
        AstraStore(database, name)


async def test_the_longest_names_are_taken(server):
    declared = {"y" * 42 + str(i): int for i in range(9)}
    async with pipeline_on(server, "x" * 41, filterable=declared) as pipeline:
        assert len(await pipeline.store.requests.indexes("x" * 41 + "_tokens")) == 10


@pytest.mark.parametrize(
    ("database", "options", "error", "message"),
    [
        ("a folder", {}, TypeError, "database must be a database of astrapy.*not str"),
        (DataAPIClient("AstraCS:secret"), {}, TypeError, "not DataAPIClient"),
        (None, {"name": 5}, TypeError, "name must be a str, not 5"),
        (None, {"timeout_s": 0}, ValueError, "timeout_s must be above 0"),
        (None, {"timeout_s": float("inf")}, ValueError, "at most a day"),
        (None, {"retries": -1}, ValueError, "retries must be at least 0"),
        (None, {"concurrency": 0}, ValueError, "concurrency must be at least 1"),
    ],
)
def test_what_no_store_can_be_made_of(database, options, error, message):
    good = DataAPIClient("t", environment="hcd").get_async_database("http://localhost:1", keyspace="k")
    with pytest.raises(error, match=message):
        AstraStore(database or good, **options)


@pytest.mark.parametrize(
    ("declaration", "error", "message"),
    [
        ({"a": bytes}, ValueError, "cannot be declared"),
        ({"a": list[int]}, ValueError, "cannot be declared"),
        ({str(i): int for i in range(10)}, ValueError, "9 can be"),
        ({"a.b": int, "a b": int}, ValueError, "share the column meta_a_b"),
        ({"x" * 44: int}, ValueError, "43 characters"),
        ({1: int}, TypeError, "a field's name must be a str"),
        (["year"], TypeError, "a mapping"),
    ],
)
def test_declarations_that_cannot_be(tmp_path, declaration, error, message):
    with pytest.raises(error, match=message):
        LateInteractionPipeline(tmp_path, HashModel(), filterable=declaration)
