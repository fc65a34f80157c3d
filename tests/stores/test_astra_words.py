"""Searches by words and by both on Astra: the same as in a folder, and what is known where the service tells less."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from late_interaction import (
    AstraStore,
    IndexMismatchError,
    LateInteractionPipeline,
    StoreError,
)
from late_interaction.stores.astra import word_searching
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.words import CUT, MARKS, WORDS_BYTES, words_of
from late_interaction.types import Document
from tests.stores.astra import QUICK, SCHEMES, pipeline_on, rows
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Fault
from tools.data_api.limits import MAX_ANALYZED_BYTES

TEXTS = {
    "pie": "apple pie with cinnamon",
    "jam": "plum jam, and apple jam",
    "sea": "the tide comes in at noon",
    "ship": "a ship leaves at high tide",
    "code": "part AB-1234 holds the lamp",
    "tokyo": "東京都の天気は晴れ",
    "thai": "ท่าเรือกรุงเทพ",
    "cafe": "Café à Paris, l'été",
    "hindi": "हिन्दी में पुस्तक",
    "seoul": "서울에서 부산까지",
    "noisy": "x" * 400 + " apple",
}
QUERIES = [
    "apples",
    "what is AB-1234?",
    "apple jam tide",
    "the of",
    "天気",
    "京",
    "cafe paris",
    "ÉTÉ",
    "पुस्तक",
    "부산",
    "กรุงเทพ",
    "jam jam apple",
    "x" * 400,
    "zebra",
    "?!",
]


async def fill(pipeline: LateInteractionPipeline) -> None:
    await pipeline.index_documents(
        [{"doc_id": doc_id, "content": text, "n": n} for n, (doc_id, text) in enumerate(TEXTS.items())]
    )


async def found(pipeline: LateInteractionPipeline, query: str, k: int = 10, **options: Any) -> list[str]:
    return [result.doc_id for result in await pipeline.search(query, k, **{"mode": "lexical", **options})]


def lexical_pipeline(
    server: DataApiServer, scheme: str = "tokens", **options: Any
) -> LateInteractionPipeline:
    return pipeline_on(server, lexical=True, **{**SCHEMES[scheme], **options})


# --- what is found


@pytest.mark.parametrize(
    "scheme", ["tokens", *(pytest.param(each, marks=pytest.mark.slow) for each in ("documents", "fitted"))]
)
async def test_words_are_those_of_a_folder(server: DataApiServer, tmp_path: Path, scheme: str) -> None:
    folder = LateInteractionPipeline(tmp_path, HashModel(), doc_pool_factor=1)
    async with folder, lexical_pipeline(server, scheme) as astra:
        await fill(folder)
        await fill(astra)
        for query in QUERIES:
            for mode in ("lexical", "hybrid"):
                here = await folder.search(query, mode=mode, n_maxsim_candidates=None)
                there = await astra.search(query, mode=mode)
                assert {one.doc_id for one in here} == {one.doc_id for one in there}, query
                if query == "京":  # a folder finds what begins with it, Astra what has it
                    continue
                scores = {one.doc_id: one.lexical_score for one in here}
                assert {one.doc_id: one.lexical_score for one in there} == pytest.approx(scores, abs=1e-5)
                assert mode == "hybrid" or [one.doc_id for one in here] == [one.doc_id for one in there]
        results = await astra.search("apple", mode="lexical")
        assert results.stats.certain
        assert results.stats.mode == "lexical"
        assert await found(astra, "京") == ["tokyo"]


async def test_blank_documents_count_as_in_a_folder(server: DataApiServer, tmp_path: Path) -> None:
    given = [{"doc_id": str(n), "content": "" if n % 2 else f"apple pie{n} and " * n} for n in range(12)]
    folder = LateInteractionPipeline(tmp_path, HashModel(), doc_pool_factor=1)
    async with folder, lexical_pipeline(server) as astra:
        for pipeline in (folder, astra):
            await pipeline.index_documents(given)
        here, there = [await each.search("pie6 apple", mode="lexical") for each in (folder, astra)]
        assert [one.doc_id for one in here] == [one.doc_id for one in there]
        assert [one.lexical_score for one in there] == pytest.approx([one.lexical_score for one in here])
        assert there.stats.certain


async def test_writes_are_seen(server: DataApiServer) -> None:
    async with lexical_pipeline(server) as pipeline:
        await fill(pipeline)
        assert await found(pipeline, "apple") == ["noisy", "pie", "jam"]
        await pipeline.index_documents([{"doc_id": "sea", "content": "apple apple"}])
        await pipeline.delete_documents(["jam", "noisy"])
        assert await found(pipeline, "apple") == ["sea", "pie"]
        assert await found(pipeline, "noon") == []
        await pipeline.update_metadata("pie", {"n": 70})
        assert await found(pipeline, "apple", filter={"n": 70}) == ["pie"]
        await pipeline.index_documents([{"doc_id": "pie", "content": ""}])
        assert await found(pipeline, "apple") == ["sea"]
        await pipeline.clear()
        assert await found(pipeline, "apple") == []


@pytest.mark.parametrize("scheme", ["tokens", "documents"])
@pytest.mark.parametrize("filterable", [None, {"n": int}])
async def test_filters_go_first(server: DataApiServer, scheme: str, filterable: Any) -> None:
    async with lexical_pipeline(server, scheme, filterable=filterable) as pipeline:
        await fill(pipeline)
        for where, expected in (
            ({"n": {"$gte": 1}}, {"jam", "noisy"}),
            ({"n": 0}, {"pie"}),
            ({"n": 99}, set()),
            ({"n": {"$in": []}}, set()),
        ):
            assert set(await found(pipeline, "apple", filter=where)) == expected
            both = await pipeline.search("apple", mode="hybrid", filter=where)
            assert {one.doc_id for one in both if one.lexical_score} == expected
        assert await found(pipeline, "apple", ids=["jam", "sea"]) == ["jam"]
        ids = await pipeline.search("apple", mode="hybrid", ids=["jam", "sea"], lexical_weight=1)
        assert [one.doc_id for one in ids] == ["jam", "sea"]


async def test_one_request_for_each_word(server: DataApiServer) -> None:
    async with lexical_pipeline(server) as pipeline:
        await fill(pipeline)
        await found(pipeline, "apple")
        server.log.clear()
        await found(pipeline, "apple jam apples tide")
        finds = [request.body for request in server.log.select("find")]
        sorts = [body["sort"]["words"] for body in finds if "sort" in body]
        assert sorted(sorts) == ["appl", "jam", "tide"]
        assert len(finds) == 3 + 1 + 1  # their words, and the documents found
        assert all(
            set(body["projection"]) == {"doc_id", "n_tokens", "n_words"} for body in finds if "sort" in body
        )


async def test_only_so_many_words_count(server: DataApiServer) -> None:
    async with lexical_pipeline(server) as pipeline:
        await fill(pipeline)
        many = " ".join(f"w{n}" for n in range(40))
        assert await found(pipeline, f"{many} apple") == []
        assert await found(pipeline, f"apple {many}") == ["noisy", "pie", "jam"]


# --- more documents of a word than the service lists


@pytest.fixture
def few_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_searching, "_LISTED", 8)
    monkeypatch.setattr(word_searching, "_READ_AT_LEAST", 1)


def many(n: int) -> list[dict[str, Any]]:
    drawn = random.Random(5)
    words = [f"w{number}" for number in range(12)]
    return [
        {
            "doc_id": f"d{number}",
            "content": " ".join(
                [*drawn.choices(words, range(1, 13), k=drawn.randint(2, 12)), f"own{number}"]
            ),
            "n": number,
        }
        for number in range(n)
    ]


@pytest.mark.slow
async def test_common_words_are_estimated(server: DataApiServer, tmp_path: Path, few_listed: None) -> None:
    folder = LateInteractionPipeline(tmp_path, HashModel())
    async with folder, lexical_pipeline(server) as astra:
        for pipeline in (folder, astra):
            await pipeline.index_documents(many(200))
        results = await astra.search("w11 own7", 3, mode="lexical")
        assert results[0].doc_id == "d7"  # the rare word weighs more
        assert not results.stats.certain
        rare = await astra.search("own7", 3, mode="lexical")
        assert [one.doc_id for one in rare] == ["d7"]
        assert not rare.stats.certain  # how many documents there are is estimated
        opened: Any = astra.store
        counted = await opened._open.words._count(None)
        assert counted.mark in list(MARKS)[1:]
        assert 50 <= counted.n <= 800


async def test_what_has_several_common_words_is_asked_for(
    server: DataApiServer, tmp_path: Path, few_listed: None
) -> None:
    texts = {"both": "tide apple noon"}
    for n in range(20):
        texts |= {f"a{n}": "apple apple apple", f"b{n}": "tide tide tide", f"c{n}": "a lamp holds"}
        texts |= {f"d{n}": "a ship leaves", f"e{n}": "plum jam pie"}
    folder = LateInteractionPipeline(tmp_path, HashModel())
    async with folder, lexical_pipeline(server) as astra:
        for pipeline in (folder, astra):
            await pipeline.index_documents(
                [{"doc_id": doc_id, "content": text} for doc_id, text in texts.items()]
            )
            assert await found(pipeline, "apple tide", 1) == ["both"]


@pytest.mark.slow
async def test_no_document_is_left_out_where_more_are_wanted(
    server: DataApiServer, tmp_path: Path, few_listed: None
) -> None:
    folder = LateInteractionPipeline(tmp_path, HashModel())
    async with folder, lexical_pipeline(server) as astra:
        for pipeline in (folder, astra):
            await pipeline.index_documents(many(60))
        for options in ({"k": 60}, {"k": 3, "filter": {"n": {"$gt": 50}}}):
            here, there = [set(await found(one, "w11 w10", **options)) for one in (folder, astra)]
            assert len(here) == len(there)
            assert options["k"] < 60 or here == there
        assert set(await found(astra, "w11", 60, filter={"n": {"$gt": 50}})) == set(
            await found(folder, "w11", 60, filter={"n": {"$gt": 50}})
        )


# --- the limit of a cell


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        " ".join(f"w{n}" for n in range(3000)),  # more different words than fit
        " ".join(f"word{n % 7}" for n in range(3000)),  # few, often
        "".join(chr(0x4E00 + n % 3000) for n in range(9000)),
        "\U00020000" * 5000,
        "y" * 10_000,
    ],
)
async def test_long_documents_are_written(
    server: DataApiServer, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "late_interaction"):
        async with lexical_pipeline(server) as pipeline:
            await pipeline.index_documents(
                [{"doc_id": "long", "content": f"apple {text} pear"}, {"doc_id": "short", "content": "apple"}]
            )
            assert (await pipeline.store.documents(["long"]))[0].content == f"apple {text} pear"
            assert set(await found(pipeline, "apple")) == {"long", "short"}
            (row, _), shortened = words_of(
                [Document("long", f"apple {text} pear"), Document("short", "apple")]
            )
            assert sum(len(word.encode()) for word in row["words"].split()) <= MAX_ANALYZED_BYTES
            assert shortened in ([], ["long"])
            assert ("has more words than" in caplog.text) == bool(shortened)
            assert set(await found(pipeline, "pear")) == (set() if shortened else {"long"})
            is_cut = CUT in row["words"].split()
            assert is_cut == (text[0] != "y")
            assert (await pipeline.search("apple", mode="lexical")).stats.certain != is_cut
            await pipeline.delete_documents(["long"])
            assert (await pipeline.search("apple", mode="lexical")).stats.certain
    assert WORDS_BYTES + sum(map(len, [*MARKS, CUT])) <= MAX_ANALYZED_BYTES


# --- indexes with and without


async def test_an_index_without_says_so(server: DataApiServer) -> None:
    async with pipeline_on(server) as pipeline:
        await fill(pipeline)
        assert (await pipeline.store.info())["lexical"] is False
        for mode in ("lexical", "hybrid"):
            with pytest.raises(StoreError, match=r"made without lexical=True: copy it"):
                await found(pipeline, "apple", mode=mode)


@pytest.mark.parametrize("scheme", ["tokens", "documents"])
async def test_it_is_part_of_the_index(server: DataApiServer, scheme: str) -> None:
    options = SCHEMES[scheme]
    async with lexical_pipeline(server, scheme) as pipeline:
        await fill(pipeline)
    async with pipeline_on(server, "without", **options) as pipeline:
        await fill(pipeline)
    async with pipeline_on(server, **options) as pipeline:  # opened with any
        assert await found(pipeline, "tides") == ["sea", "ship"]
        assert (await pipeline.store.info())["lexical"] is True
        assert (await diagnose(pipeline.store)).healthy
    for name, lexical in (("things", False), ("without", True)):
        with pytest.raises(IndexMismatchError, match="lexical"):
            async with pipeline_on(server, name, lexical=lexical, **options):
                pass


async def test_the_text_index_is_checked_and_repaired(server: DataApiServer) -> None:
    async with lexical_pipeline(server) as pipeline:
        await fill(pipeline)
    await server.async_database().drop_table_index("things_docs_words")
    with pytest.raises(IndexMismatchError, match="things_docs_words"):
        async with lexical_pipeline(server):
            pass
    store = AstraStore(server.async_database(), "things", limits=QUICK)
    await diagnose(store, full=True, repair=True)
    await store.close()
    async with lexical_pipeline(server) as pipeline:
        assert await found(pipeline, "tides") == ["sea", "ship"]


@pytest.mark.slow
async def test_copies_carry_it(server: DataApiServer, tmp_path: Path) -> None:
    def at(name: str, **options: Any) -> AstraStore:
        return AstraStore(server.async_database(), name, limits=QUICK, **options)

    async with lexical_pipeline(server) as pipeline:
        await fill(pipeline)
        targets = {"same": {}, "none": {"lexical": False}}
        for name, options in targets.items():
            await pipeline.copy_to(at(name, **options))
        await pipeline.copy_to(tmp_path)
    async with LateInteractionPipeline(tmp_path, HashModel(), "things", doc_pool_factor=1) as folder:
        assert await found(folder, "tides") == ["sea", "ship"]
        await folder.copy_to(at("plain"))
        await folder.copy_to(at("words", lexical=True))
        await folder.copy_to(at("same"))  # which exists
    for name, lexical in (("same", True), ("none", False), ("plain", False), ("words", True)):
        async with pipeline_on(server, name) as pipeline:
            assert (await pipeline.store.info())["lexical"] is lexical
            if lexical:
                assert await found(pipeline, "tides") == ["sea", "ship"]


def test_fields_and_the_index_of_words_share_the_indexes(server: DataApiServer) -> None:
    nine, eight = ({f"f{n}": int for n in range(m)} for m in (9, 8))
    database = server.async_database()
    AstraStore(database, filterable=nine, lexical=True)
    AstraStore(database, filterable=eight, candidates="documents")
    with pytest.raises(ValueError, match="8 fields are declared, and 7 can be"):
        AstraStore(database, filterable=eight, candidates="documents", lexical=True)
    with pytest.raises(TypeError, match="lexical must be True or False"):
        AstraStore(database, lexical="yes")


@pytest.mark.parametrize("scheme", ["tokens", "documents"])
async def test_as_many_fields_as_there_may_be(server: DataApiServer, scheme: str) -> None:
    fields = {f"f{n}": int for n in range(9 if scheme == "tokens" else 7)}
    async with lexical_pipeline(server, scheme, filterable=fields) as pipeline:
        await pipeline.index_documents([{"doc_id": "a", "content": "apple", "f1": 3}])
        assert await found(pipeline, "apple", filter={"f1": 3}) == ["a"]


# --- services that have none


@pytest.mark.parametrize("refuses", ["index", "order"])
async def test_a_service_without_text_indexes(server: DataApiServer, refuses: str) -> None:
    if refuses == "index":
        error = "LEXICAL_NOT_AVAILABLE_FOR_DATABASE"
        server.settings.faults.append(Fault("error_envelope", command="createTextIndex", error_code=error))
    else:
        server.settings.lexical = False
        error = "BM25"
    with pytest.raises(StoreError, match=rf"cannot be made with lexical=True: .*{error}"):
        async with lexical_pipeline(server):
            pass
    async with pipeline_on(server) as pipeline:  # what was made is of use
        await pipeline.index_documents(rows(3))
        assert len(await pipeline.search("old1x1")) == 3


async def test_a_service_that_is_down_is_another_matter(server: DataApiServer) -> None:
    server.settings.faults.append(Fault("http_error", command="createTextIndex"))
    with pytest.raises(StoreError, match="HTTP 5") as caught:
        async with lexical_pipeline(server, retry_for_s=0):
            pass
    assert "lexical" not in str(caught.value)


async def test_a_sqlite_without_fts5(server: DataApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("late_interaction.stems.has_fts5", lambda: False)
    with pytest.raises(StoreError, match="has no FTS5"):
        async with lexical_pipeline(server):
            pass
