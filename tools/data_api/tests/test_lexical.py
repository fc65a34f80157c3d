"""Text indexes: the order of BM25, ``$match``, and their limits."""

from typing import Any

import pytest
from astrapy import AsyncDatabase, AsyncTable
from astrapy.info import TableTextIndexDefinition, TableTextIndexOptions

from tools.data_api import DataApiServer
from tools.data_api.limits import MAX_ANALYZED_BYTES
from tools.data_api.tests.helpers import fails, raw

TEXTS = {
    "a": "apple pie, with apple",
    "b": "Apple and tide",
    "c": "the tide at noon",
    "d": "noon",
}


@pytest.fixture
async def texts(database: AsyncDatabase) -> AsyncTable[dict[str, Any]]:
    columns = {"k": "text", "body": "text", "plain": "text", "lang": "text", "n": "int"}
    table = await database.create_table("texts", definition={"columns": columns, "primaryKey": "k"})
    await table.create_text_index("texts_body", "body")
    await table.create_index("texts_lang", "lang")
    await table.insert_many(
        [{"k": k, "body": body, "lang": "en" if k < "c" else "de", "n": 1} for k, body in TEXTS.items()]
    )
    return table


async def found(table: AsyncTable[Any], query: str, where: Any = None, **options: Any) -> list[str]:
    cursor = table.find(where, sort={"body": query}, projection={"k": True}, **options)
    return [row["k"] async for row in cursor]


async def test_rows_that_have_every_word_come_by_bm25(texts: AsyncTable[Any]) -> None:
    assert await found(texts, "apple") == ["a", "b"]
    assert await found(texts, "TIDE") == ["b", "c"]
    assert await found(texts, "noon") == ["d", "c"]  # the shorter first
    assert await found(texts, "tide apple") == ["b"]  # not any of them
    assert await found(texts, "zebra") == []
    assert await found(texts, "tide zebra") == []


async def test_writes_are_seen(texts: AsyncTable[Any]) -> None:
    await texts.update_one({"k": "d"}, {"$set": {"body": "apple apple apple"}})
    assert await found(texts, "noon") == ["c"]
    assert await found(texts, "apple") == ["d", "a", "b"]
    await texts.update_one({"k": "d"}, {"$unset": {"body": ""}})
    await texts.delete_one({"k": "a"})
    assert await found(texts, "apple") == ["b"]
    await texts.delete_many({})
    assert await found(texts, "apple") == []


async def test_an_index_covers_the_rows_before_it(texts: AsyncTable[Any], database: AsyncDatabase) -> None:
    await database.drop_table_index("texts_body")
    definition = TableTextIndexDefinition("body", TableTextIndexOptions(analyzer="whitespace"))
    await texts.create_text_index("texts_spaces", definition=definition)
    assert await found(texts, "apple") == ["a"]  # "Apple" is another word, and "pie," too
    assert await found(texts, "pie") == []
    (index,) = (one for one in await texts.list_indexes() if one.name == "texts_spaces")
    assert index.as_dict() == {
        "name": "texts_spaces",
        "definition": {"column": "body", "options": {"analyzer": "whitespace"}},
        "indexType": "text",
    }
    assert await fails(texts.create_text_index("texts_again", "body")) == "INVALID_DATABASE_QUERY"


async def test_filters_go_before_the_order(texts: AsyncTable[Any]) -> None:
    assert await found(texts, "tide", {"lang": "de"}) == ["c"]
    assert await fails(raw(texts, "find", {"sort": {"body": "tide"}, "filter": {"n": 1}})) == (
        "INVALID_DATABASE_QUERY"
    )


async def test_match(texts: AsyncTable[Any]) -> None:
    async def matching(where: dict[str, Any]) -> set[str]:
        return {row["k"] async for row in texts.find(where, projection={"k": True})}

    assert await matching({"body": {"$match": "tide"}}) == {"b", "c"}
    assert await matching({"body": {"$match": "tide apple"}}) == {"b"}
    assert await matching({"body": {"$match": "tide"}, "lang": "en"}) == {"b"}
    assert await matching({"body": {"$match": "tide"}, "n": 1}) == {"b", "c"}
    assert await matching({"$or": [{"body": {"$match": "pie"}}, {"body": {"$match": "noon"}}]}) == set("acd")
    assert await found(texts, "apple", {"body": {"$match": "tide"}}) == ["b"]
    for where, code in (
        ({"plain": {"$match": "tide"}}, "UNKNOWN_TABLE_COLUMNS"),
        ({"n": {"$match": "tide"}}, "FILTER_UNSUPPORTED_OPERATOR"),
        ({"body": {"$match": 5}}, "INVALID_FILTER_COLUMN_VALUES"),
        ({"body": {"$match": "+"}}, "INVALID_DATABASE_QUERY"),
    ):
        assert await fails(raw(texts, "find", {"filter": where})) == code


@pytest.mark.parametrize(
    ("sort", "options", "code"),
    [
        ({"nowhere": "x"}, {}, "CANNOT_SORT_UNKNOWN_COLUMNS"),
        ({"plain": "x"}, {}, "CANNOT_LEXICAL_SORT_NON_INDEXED_COLUMNS"),
        ({"body": "x", "lang": 1}, {}, "CANNOT_SORT_ON_SPECIAL_WITH_OTHERS"),
        ({"body": "x"}, {"skip": 1}, "CANNOT_LEXICAL_SORT_WITH_SKIP_OPTION"),
        ({"body": "+"}, {}, "INVALID_DATABASE_QUERY"),  # no word
        ({"body": "x"}, {"pageState": "x"}, "INVALID_DATABASE_QUERY"),
    ],
)
async def test_bad_sorts_are_refused(
    texts: AsyncTable[Any], sort: dict[str, Any], options: dict[str, Any], code: str
) -> None:
    assert await fails(raw(texts, "find", {"sort": sort, "options": options})) == code


@pytest.mark.slow
async def test_a_hundred_rows_come_by_default_and_a_thousand_at_most(texts: AsyncTable[Any]) -> None:
    await texts.insert_many([{"k": f"k{n}", "body": "common"} for n in range(1100)], chunk_size=100)
    assert len(await found(texts, "common")) == 100
    assert len(await found(texts, "common", limit=1500)) == 1000


async def test_the_words_of_a_cell_take_eight_kib(texts: AsyncTable[Any]) -> None:
    word, rest = "w" * 128, "w" * 127
    full = " ".join([word] * (MAX_ANALYZED_BYTES // 128))
    await texts.insert_one({"k": "full", "body": full})
    await texts.insert_one({"k": "spaces", "body": full.replace(word, rest) + " " * 9000})
    assert await fails(texts.insert_one({"k": "more", "body": f"{full} x"})) == "INVALID_DATABASE_QUERY"
    assert await fails(texts.update_one({"k": "a"}, {"$set": {"body": f"{full} x"}})) == (
        "INVALID_DATABASE_QUERY"
    )
    assert await found(texts, word) == ["full"]
    assert await found(texts, "apple") == ["a", "b"]
    await texts.insert_one({"k": "long", "body": "l" * 300})
    assert await found(texts, "l" * 45) == ["long"]  # the end of a word of more than 255 letters


async def test_an_older_engine_has_the_index_and_not_the_order(
    server: DataApiServer, texts: AsyncTable[Any]
) -> None:
    server.settings.lexical = False
    assert await fails(raw(texts, "find", {"sort": {"body": "apple"}})) == "INVALID_DATABASE_QUERY"
