"""One pipeline, two stores: every behaviour holds on the embedded one and on Astra, with the same answers."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    AstraStore,
    DocumentError,
    FilterError,
    IndexMismatchError,
    IndexNotFoundError,
    LateInteractionPipeline,
    PrecomputedEmbeddings,
    QueryVectors,
)
from late_interaction.filters import matches, parse_filter
from late_interaction.maxsim import maxsim
from late_interaction.stores.astra.limits import Limits
from tests.support.answers import ids
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Settings

pytestmark = pytest.mark.slow

Make = Callable[..., LateInteractionPipeline]

LANGUAGES = ("en", "de", "fr")
WORDS = [f"w{i}" for i in range(60)]


def rows(n: int, seed: int = 0) -> list[dict]:
    """Rows with every kind of metadata, some of it missing."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(n):
        row = {
            "doc_id": f"d{i}",
            "content": " ".join(rng.choice(WORDS, rng.integers(3, 9))),
            "year": int(1990 + i % 30),
            "price": float(i) / 4,
            "lang": LANGUAGES[i % 3],
            "sold": i % 2 == 0,
            "tags": [f"t{i % 5}", f"t{i % 7}"],
            "when": f"2024-{1 + i % 12:02}-{1 + i % 28:02}T{i % 24:02}:00:00Z",
            "at": moment(i),
            "author": {"name": f"a{i % 4}"},
            "note": None if i % 3 else f"n{i % 6}",
        }
        if i % 10 == 9:
            for name in ("year", "price", "lang", "tags", "when", "at"):
                del row[name]
        made.append(row)
    return made


def moment(i: int) -> dt.datetime | str:
    """A datetime or its text, in one of three offsets, with microseconds."""
    offset = (None, dt.UTC, dt.timezone(dt.timedelta(hours=-9)))[i % 3]
    made = dt.datetime(2024, 1 + i % 12, 1 + i % 28, i % 24, 0, 0, i % 5 * 500, offset)
    return made if i % 4 else made.isoformat()


DECLARED = {
    "year": int,
    "price": float,
    "lang": str,
    "sold": bool,
    "tags": list[str],
    "author.name": "str",
    "when": "datetime",
    "at": dt.datetime,
}


FITTED = Limits(fitted_from=5, document_width=64)
"""Document vectors almost from the start."""


@pytest.fixture(
    params=[
        "folder",
        "astra",
        "astra, declared, small pages",
        "astra by documents",
        "astra by documents, fitted, declared, small pages",
    ]
)
async def make(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes pipelines on one database; the same name is the same index."""
    pipelines: list[LateInteractionPipeline] = []
    async with DataApiServer(Settings(page_size=20 if "small" in request.param else 50)) as server:

        def pipeline(name: str | None = "things", **options: object) -> LateInteractionPipeline:
            if request.param == "folder":
                db: object = tmp_path
            else:
                db = server.async_database()
                if "declared" in request.param:
                    options.setdefault("filterable", DECLARED)
                if "documents" in request.param:
                    options.setdefault("candidates", "documents")
                if "fitted" in request.param:
                    own = {one: options.pop(one) for one in ("filterable", "candidates")}
                    db, name = AstraStore(db, name, limits=FITTED, **own), None
            model = options.pop("model", None) or HashModel()
            pipelines.append(LateInteractionPipeline(db, model, name, **options))
            return pipelines[-1]

        yield pipeline
        for one in pipelines:
            await one.aclose()


@pytest.fixture
async def pipeline(make: Make) -> LateInteractionPipeline:
    made = make()
    await made.initialize()
    return made


def exact(pipeline: LateInteractionPipeline, query: str, documents: list[dict], k: int) -> list[float]:
    """The scores of the best `k`, by hand."""
    matrices = [pipeline.model.encode_documents([row["content"]])[0] for row in documents]
    return np.sort(maxsim(pipeline.model.encode_queries([query])[0], matrices))[::-1][:k].tolist()


# --- searching


async def test_one_document_of_each_group_and_each_content_once(pipeline: LateInteractionPipeline) -> None:
    rows = [{"doc_id": f"a{n}", "content": f"harbour boat w{n % 20}", "source": "a"} for n in range(40)]
    rows += [{"doc_id": f"b{n}", "content": f"harbour other{n}", "source": "b"} for n in range(2)]
    await pipeline.index_documents(rows)
    found = await pipeline.search("harbour boat", k=2, group_by="source")
    assert [result.metadata["source"] for result in found] == ["a", "b"]
    found = await pipeline.search("harbour boat", k=30, distinct=True)
    assert len(found) == len({result.content for result in found}) == 22


async def test_what_is_indexed_is_found_and_comes_back_whole(pipeline):
    documents = rows(40)
    assert await pipeline.index_documents(documents) == [row["doc_id"] for row in documents]
    for row in documents[::13]:
        found = (await pipeline.get_documents([row["doc_id"]]))[0]
        assert row["doc_id"] in ids(await pipeline.search(row["content"], k=3))
        metadata = {name: row[name] for name in row if name not in ("doc_id", "content")}
        assert (found.doc_id, found.content, found.metadata) == (row["doc_id"], row["content"], metadata)
        assert type(found.metadata["sold"]) is bool


async def test_the_best_come_first_with_their_exact_scores(make):
    pipeline = make(doc_pool_factor=1, query_pool_distance=0, packing="float32")
    await pipeline.initialize()
    documents = rows(300)
    await pipeline.index_documents(documents)
    for query in ("w1 w2 w3", "w10 w20 w30 w40"):
        results = await pipeline.search(query, k=20)
        np.testing.assert_allclose(
            [r.score for r in results], exact(pipeline, query, documents, 20), atol=1e-3
        )
        assert [r.score for r in results] == sorted((r.score for r in results), reverse=True)


async def test_exact_is_certain_whatever_the_parameters(make):
    pipeline = make(doc_pool_factor=1, query_pool_distance=0, packing="float32")
    await pipeline.initialize()
    documents = rows(300)
    await pipeline.index_documents(documents)
    results = await pipeline.search("w1 w2 w3 w4", k=10, n_ann_tokens=5, n_maxsim_candidates=10, exact=True)
    assert results.stats.certain
    np.testing.assert_allclose(
        [r.score for r in results], exact(pipeline, "w1 w2 w3 w4", documents, 10), atol=1e-3
    )


async def test_it_searches_deeper_until_k_are_found(pipeline):
    await pipeline.index_documents(rows(120))
    results = await pipeline.search("w1 w2", k=60, n_ann_tokens=10, n_maxsim_candidates=60)
    assert len(results) == 60
    assert len(set(ids(results))) == 60


async def test_more_than_there_is_gives_all(pipeline):
    await pipeline.index_documents(rows(12))
    results = await pipeline.search("w1 w2", k=50)
    assert len(results) == 12
    assert results.stats.certain


async def test_an_empty_index_finds_nothing(pipeline):
    assert await pipeline.search("anything") == []
    assert await pipeline.find() == []
    assert await pipeline.count() == 0
    assert [batch async for batch in pipeline.store.scan()] == []


async def test_many_queries_at_once(pipeline):
    documents = rows(60)
    await pipeline.index_documents(documents)
    queries = [row["content"] for row in documents[:20]]
    together = await pipeline.search_many(queries, k=3)
    for query, results in zip(queries, together, strict=True):
        assert ids(results) == ids(await pipeline.search(query, k=3))


async def test_vectors_made_elsewhere(make):
    pipeline = make(model=PrecomputedEmbeddings(16, "mine"), doc_pool_factor=1)
    await pipeline.initialize()
    rng = np.random.default_rng(1)
    matrices = [rng.normal(size=(n, 16)) for n in (1, 5, 130)]
    matrices = [(m / np.linalg.norm(m, axis=1, keepdims=True)).astype(np.float32) for m in matrices]
    await pipeline.index_embeddings([{"doc_id": str(i), "content": f"c{i}"} for i in range(3)], matrices)
    for i, matrix in enumerate(matrices):
        results = await pipeline.search_with_embeddings(matrix[:3], k=1)
        assert (ids(results), results[0].content) == ([str(i)], f"c{i}")
    stored = await pipeline.get_matrices(["2", "0", "nowhere"])
    assert list(stored) == ["2", "0"]
    np.testing.assert_allclose(stored["2"], matrices[2], atol=0.02)


# --- filters

FILTERS = [
    {"lang": "en"},
    {"lang": {"$in": ["en", "de", 7]}},
    {"lang": {"$ne": "en"}},
    {"lang": {"$gt": "en"}},
    {"lang": None},
    {"year": 1995},
    {"year": 1995.0},
    {"year": 1995.5},
    {"year": {"$gt": 2004.5}},
    {"year": {"$gte": 2004.5, "$lt": 2015}},
    {"year": {"$lte": 1e30}},
    {"year": {"$in": [1991, 1993, "x"]}},
    {"year": {"$nin": [1991, 1993]}},
    {"year": {"$exists": False}},
    {"year": "1995"},
    {"year": True},
    {"price": {"$gte": 3, "$lte": 4.25}},
    {"price": -0.0},
    {"sold": True},
    {"sold": 1},
    {"sold": {"$ne": True}},
    {"tags": "t1"},
    {"tags": {"$in": ["t1", "t2"]}},
    {"tags": ["t0", "t0"]},
    {"tags": {"$not": {"$in": ["t1", "t2"]}}},
    {"tags": {"$gte": "t4"}},
    {"author.name": "a1"},
    {"note": "n3"},
    {"note": None},
    {"when": "2024-03-03T02:00:00Z"},
    {"when": {"$gt": "2024-03", "$lte": "2024-06-15T00:00:00Z"}},
    {"when": {"$gte": "2024-06-15"}},
    {"at": moment(1)},
    {"at": {"$in": [moment(2), moment(4), "2024-06-06T05:00"]}},
    {"at": {"$gt": moment(6), "$lte": moment(9)}},
    {"at": {"$gte": moment(6), "$lt": moment(9)}},
    {"at": {"$gte": moment(1)}},
    {"at": {"$between": ["2024-03-01", dt.datetime(2024, 6, 1, tzinfo=dt.UTC)]}},
    {"at": {"$not": {"$gte": dt.date(2024, 6, 1)}}},
    {"at": {"$gt": 3}},
    {"lang": {"$startswith": "e"}},
    {"lang": {"$regex": "^[de]"}, "year": {"$gte": 2000}},
    {"author.name": {"$contains": "1"}},
    {"tags": {"$contains": "t3"}},
    {"tags": {"$icontains": "T3"}},
    {"lang": {"$ilike": "_N"}},
    {"$content": {"$contains": "w1 "}},
    {"$content": {"$icontains": "W1 "}, "lang": "en"},
    {"$or": [{"$content": {"$regex": "w[12]$"}}, {"year": 1991}]},
    {"price": {"$between": [2, 5.5]}},
    {"year": {"$between": [1995, 1999]}, "sold": True},
    {"$not": [{"lang": "en"}, {"sold": True}]},
    {"$and": [{"lang": "en"}, {"year": {"$gte": 2000}}, {"note": "n3"}]},
    {"$or": [{"lang": "en"}, {"tags": "t3"}]},
    {"$or": [{"lang": "en", "sold": True}, {"note": "n3"}]},
    {"$or": [{"year": "never"}, {"lang": 3}]},
    {"$not": {"lang": "en", "sold": True}},
    {"missing": {"$exists": True}},
    {"missing": None},
    {"year": {"$in": []}},
    {"$and": [{"year": {"$in": []}}, {"note": "n3"}]},
]


async def test_filters_mean_the_same(make):
    pipeline = make(doc_pool_factor=1)
    await pipeline.initialize()
    documents = rows(90)
    await pipeline.index_documents(documents)
    for spec in FILTERS:
        parsed = parse_filter(spec)
        expected = {row["doc_id"] for row in documents if matches(parsed, row, row["content"])}
        assert {d.doc_id for d in await pipeline.find(spec)} == expected, spec
        assert await pipeline.count(spec) == len(expected), spec
        assert set(ids(await pipeline.search("w1 w2 w3 w4", k=90, filter=spec))) == expected, spec


async def test_keys_are_removed_and_replaced_by_id_and_by_filter(make):
    pipeline = make(doc_pool_factor=1)
    await pipeline.initialize()
    documents = rows(40)
    await pipeline.index_documents(documents)
    before = await pipeline.search("w1 w2 w3", k=40)

    async def metadata(doc_id: str) -> dict:
        [document] = await pipeline.get_documents([doc_id])
        return document.metadata

    d0 = await metadata("d0")
    assert await pipeline.update_metadata("d0", {"new": 1}, remove=["lang", "tags", "nowhere"]) is True
    assert await metadata("d0") == {k: v for k, v in d0.items() if k not in ("lang", "tags")} | {"new": 1}
    assert (
        await pipeline.update_metadata("d1", {"lang": "xx", "at": dt.date(2024, 5, 1)}, replace=True) is True
    )
    assert await metadata("d1") == {"lang": "xx", "at": "2024-05-01"}
    assert await pipeline.update_metadata("nowhere", remove=["lang"]) is False
    english = [row["doc_id"] for row in documents if row.get("lang") == "en" and row["doc_id"] != "d0"]
    changed = await pipeline.update_metadata(
        filter={"lang": "en", "$content": {"$contains": "w"}},
        metadata={"lang": "EN"},
        remove=["price", "note"],
    )
    assert changed == len(english) > 5
    assert {d.doc_id for d in await pipeline.find({"lang": "EN"})} == set(english)
    assert await pipeline.count({"lang": "en"}) == 0
    assert await pipeline.count({"lang": "EN", "note": {"$exists": True}}) == 0
    assert await pipeline.update_metadata(filter={"lang": "nowhere"}, metadata={"lang": "EN"}) == 0
    assert ids(await pipeline.search("w1", k=40, filter={"lang": "xx"})) == ["d1"]
    assert set(ids(await pipeline.search("w1", k=40, filter={"lang": "EN"}))) == set(english)
    after = await pipeline.search("w1 w2 w3", k=40)
    assert [(r.doc_id, r.score) for r in after] == [(r.doc_id, r.score) for r in before]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "metadata to set, or the keys to remove"),
        ({"doc_id": "a", "replace": True}, ValueError, "metadata to set"),
        ({"metadata": {"x": 1}}, ValueError, "either doc_id or filter"),
        ({"doc_id": "a", "filter": {"x": 1}, "metadata": {"x": 1}}, ValueError, "either doc_id or filter"),
        ({"filter": {}, "metadata": {"x": 1}}, ValueError, r"every document.*\$content"),
        ({"doc_id": "a", "remove": "ab"}, TypeError, "a list of keys"),
        ({"doc_id": "a", "remove": [1]}, TypeError, "keys are str"),
        ({"doc_id": "a", "remove": ["x"], "metadata": {"x": 1}}, ValueError, "both set and removed"),
        ({"doc_id": "a", "remove": ["x"], "metadata": {}, "replace": True}, ValueError, "nothing to remove"),
        ({"doc_id": "a", "metadata": {}, "replace": 1}, TypeError, "True or False"),
        ({"filter": {"$gt": 1}, "metadata": {"x": 1}}, FilterError, "belongs to a field"),
        ({"doc_id": "a", "metadata": {"x": b"raw"}}, ValueError, "no plain form"),
    ],
)
async def test_wrong_changes_of_metadata(pipeline, arguments, error, message):
    await pipeline.index_document({"doc_id": "a", "content": "x", "x": 0})
    with pytest.raises(error, match=message):
        await pipeline.update_metadata(**arguments)
    assert (await pipeline.get_documents(["a"]))[0].metadata == {"x": 0}


async def test_pages_hold_each_document_once(make):
    pipeline = make(doc_pool_factor=1)
    await pipeline.initialize()
    await pipeline.index_documents(rows(70))
    for spec in (None, {"lang": "en"}, {"note": {"$exists": True}, "$content": {"$contains": "w"}}):
        every = [d.doc_id for d in await pipeline.find(spec)]
        pages = [await pipeline.find(spec, limit=9, offset=offset) for offset in range(0, len(every) + 9, 9)]
        assert [len(page) for page in pages[:-2]] == [9] * (len(pages) - 2)
        assert sorted(d.doc_id for page in pages for d in page) == sorted(every)
        assert len(await pipeline.find(spec, offset=len(every) - 2)) == 2
        assert await pipeline.find(spec, offset=len(every)) == []
        whole = ids(await pipeline.search("w1 w2 w3 w4", k=70, filter=spec, exact=True))
        options = {"filter": spec, "exact": True}
        pages = [await pipeline.search("w1 w2 w3 w4", 9, offset=n, **options) for n in range(0, 81, 9)]
        assert [doc_id for page in pages for doc_id in ids(page)] == whole
    assert (await pipeline.search("w1", k=2, offset=5, ids=["d1", "d2"])) == []
    groups = [
        r.metadata["lang"]
        for r in await pipeline.search("w1", k=9, filter={"lang": {"$exists": True}}, group_by="lang")
    ]
    grouped = await pipeline.search("w1", k=1, offset=1, filter={"lang": {"$exists": True}}, group_by="lang")
    assert [r.metadata["lang"] for r in grouped] == groups[1:2]
    for wrong in (-1, 1.5, None, True):
        with pytest.raises((TypeError, ValueError), match="offset must be"):
            await pipeline.search("w1", offset=wrong)
        with pytest.raises((TypeError, ValueError), match="offset must be"):
            await pipeline.find(offset=wrong)


async def test_equal_scores_are_ordered_by_id(pipeline):
    names = ["b", "d", "a", "c"]
    await pipeline.index_documents([{"doc_id": name, "content": "the same"} for name in names])
    assert ids(await pipeline.search("same", k=4)) == sorted(names)
    assert ids(await pipeline.search("same", k=2, offset=2)) == ["c", "d"]


async def test_a_filtered_search_is_the_search_among_those_that_match(make):
    pipeline = make(doc_pool_factor=1, query_pool_distance=0, packing="float32")
    await pipeline.initialize()
    documents = rows(240)
    await pipeline.index_documents(documents)
    for spec in ({"lang": "de", "year": {"$gte": 2000}}, {"note": "n0"}, {"lang": {"$ne": "en"}}):
        among = [row for row in documents if matches(parse_filter(spec), row)]
        results = await pipeline.search("w5 w6 w7", k=8, filter=spec)
        np.testing.assert_allclose(
            [r.score for r in results], exact(pipeline, "w5 w6 w7", among, 8), atol=1e-3
        )


# --- documents


async def test_an_upsert_replaces_all_of_a_document(pipeline):
    await pipeline.index_document(
        {"doc_id": "a", "content": "old " * 3 + "words here", "year": 1, "lang": "en"}
    )
    await pipeline.index_document({"doc_id": "b", "content": "something else"})
    await pipeline.index_document({"doc_id": "a", "content": "new", "lang": "de"})
    assert await pipeline.count() == 2
    document = (await pipeline.get_documents(["a"]))[0]
    assert (document.content, document.metadata) == ("new", {"lang": "de"})
    assert (await pipeline.search("old words", k=1))[0].score < 1.5
    assert ids(await pipeline.search("new", k=5, filter={"lang": "de"})) == ["a"]
    assert await pipeline.search("new", k=5, filter={"year": 1}) == []
    assert ids(await pipeline.search("new", k=5, filter={"year": None})) == ["a", "b"]


async def test_the_last_of_two_rows_of_one_id_wins(pipeline):
    assert await pipeline.index_documents(
        [{"doc_id": "a", "content": "first"}, {"doc_id": "a", "content": "second"}]
    ) == ["a", "a"]
    assert [d.content for d in await pipeline.find()] == ["second"]


async def test_uuids_and_odd_ids(pipeline):
    odd = [str(uuid.uuid4()), "a b/c?d=é&f", "{}", "$in", "'; DROP", "x" * 300, "\n"]
    await pipeline.index_documents(
        [{"doc_id": doc_id, "content": f"word{i}"} for i, doc_id in enumerate(odd)]
    )
    for i, doc_id in enumerate(odd):
        assert ids(await pipeline.search(f"word{i}", k=1)) == [doc_id]
    assert await pipeline.delete_documents(odd[:3]) == 3
    assert {d.doc_id for d in await pipeline.find()} == set(odd[3:])


async def test_deletes(pipeline):
    await pipeline.index_documents(rows(60))
    assert await pipeline.delete_document("d1") is True
    assert await pipeline.delete_document("d1") is False
    assert await pipeline.delete_documents(["d2", "d3", "d2", "nowhere"]) == 2
    gone = await pipeline.count({"lang": "fr"})
    assert await pipeline.delete_documents({"lang": "fr"}) == gone > 0
    assert await pipeline.delete_documents({"note": "n3"}) > 0
    left = {row["doc_id"] for row in rows(60)} - {"d1", "d2", "d3"}
    left = {
        row["doc_id"]
        for row in rows(60)
        if row["doc_id"] in left and row.get("lang") != "fr" and row["note"] != "n3"
    }
    assert {d.doc_id for d in await pipeline.find()} == left
    assert set(ids(await pipeline.search("w1 w2 w3", k=100))) == left
    with pytest.raises(ValueError, match="clear"):
        await pipeline.delete_documents({})
    await pipeline.clear()
    assert await pipeline.count() == 0
    assert await pipeline.search("w1") == []
    await pipeline.index_document({"doc_id": "d1", "content": "back again"})
    assert ids(await pipeline.search("again")) == ["d1"]


async def test_metadata_are_updated_alone(pipeline):
    documents = rows(20)
    await pipeline.index_documents(documents)
    before = await pipeline.search("w1 w2 w3", k=20)
    assert (
        await pipeline.update_metadata("d4", {"lang": "xx", "extra": {"deep": [1, None]}, "year": None})
        is True
    )
    assert await pipeline.update_metadata("nowhere", {"lang": "xx"}) is False
    after = await pipeline.search("w1 w2 w3", k=20)
    assert [(r.doc_id, r.score) for r in after] == [(r.doc_id, r.score) for r in before]
    assert ids(await pipeline.search("w1", filter={"lang": "xx"})) == ["d4"]
    assert [d.doc_id for d in await pipeline.find({"lang": "xx"})] == ["d4"]
    metadata = (await pipeline.get_documents(["d4"]))[0].metadata
    assert metadata["extra"] == {"deep": [1, None]}
    assert metadata["year"] is None
    assert metadata["sold"] is True


async def test_documents_come_in_the_order_of_writing_and_by_limit(pipeline):
    documents = rows(130)
    await pipeline.index_documents(documents[:70])
    await pipeline.index_documents(documents[70:])
    await pipeline.index_document(documents[5])
    expected = [row["doc_id"] for row in documents if row["doc_id"] != "d5"] + ["d5"]
    assert [d.doc_id for d in await pipeline.find()] == expected
    some = [d.doc_id for d in await pipeline.find({"lang": "en"}, limit=7)]
    assert len(some) == 7
    assert some == sorted(some, key=expected.index)
    assert await pipeline.find(limit=0) == []
    assert [d.doc_id for d in await pipeline.get_documents(["d100", "nowhere", "d3"])] == ["d100", "d3"]


async def test_rows_that_are_there_can_be_skipped(pipeline):
    await pipeline.index_documents(rows(10))
    encoded = len(pipeline.model.encoded)
    changed = [{**row, "content": "changed"} for row in rows(12)]
    assert len(await pipeline.index_documents(changed, skip_existing=True)) == 12
    assert len(pipeline.model.encoded) == encoded + 2
    assert {d.doc_id for d in await pipeline.find() if d.content == "changed"} == {"d10", "d11"}


async def test_a_bad_row_is_named_and_the_others_are_indexed(pipeline):
    bad = [{"doc_id": "ok", "content": "fine"}, {"doc_id": "no", "content": None}, {"content": "unencodable"}]
    with pytest.raises(DocumentError) as raised:
        await pipeline.index_documents(bad)
    assert [failure.row for failure in raised.value.failures] == [1, 2]
    assert raised.value.indexed == ["ok"]
    assert [d.doc_id for d in await pipeline.find()] == ["ok"]


# --- the index


async def test_an_index_that_must_exist_is_not_made(make):
    with pytest.raises(IndexNotFoundError, match="must_exist=True makes none"):
        await make("nowhere", must_exist=True).search("text")
    assert await make("nowhere").store.spec() is None
    async with make("here") as made:
        await made.index_document({"doc_id": "a", "content": "text"})
    async with make("here", must_exist=True) as opened:
        assert ids(await opened.search("text")) == ["a"]
        await opened.drop()
        with pytest.raises(IndexNotFoundError):
            await opened.count()


async def test_an_index_opens_again_and_only_for_what_built_it(make):
    first = make()
    await first.initialize()
    await first.index_documents(rows(30))
    expected = [(r.doc_id, r.score) for r in await first.search("w1 w2", k=5)]
    await first.aclose()
    again = make()
    await again.initialize()
    assert [(r.doc_id, r.score) for r in await again.search("w1 w2", k=5)] == expected
    for options, field in (
        ({"model": HashModel(dim=48)}, "dim"),
        ({"model": HashModel(name="other")}, "encoder.model"),
        ({"packing": "float16"}, "packing"),
        ({"doc_pool_factor": 3}, "pooling.factor"),
    ):
        with pytest.raises(IndexMismatchError, match=field):
            await make(**options).initialize()


async def test_an_index_is_dropped_and_others_stay(make):
    one, two = make("one"), make("two")
    for pipeline in (one, two):
        await pipeline.initialize()
        await pipeline.index_documents(rows(5))
    await one.drop()
    assert await two.count() == 5
    assert await make("one").store.spec() is None
    fresh = make("one")
    await fresh.initialize()
    assert await fresh.count() == 0
    assert ids(await one.search("w1")) == []  # the next use makes a new index, or finds it


@pytest.mark.parametrize("packing", ["int8", "float16", "float32"])
async def test_copies_answer_as_the_original(make, tmp_path, packing):
    options = {"packing": packing}
    source, target = make("source", **options), make("target", **options)
    await source.initialize()
    await source.index_documents(rows(120))
    assert await source.copy_to(target) == 120
    assert await source.copy_to(target, skip_existing=True) == 0
    local = LateInteractionPipeline(tmp_path / "copy", HashModel(), **options)
    assert await target.copy_to(local) == 120
    for query in ("w1 w2 w3", "w7 w8"):
        expected = await source.search(query, k=10)
        for copy in (target, local):
            results = await copy.search(query, k=10)
            assert ids(results) == ids(expected)
            np.testing.assert_allclose([r.score for r in results], [r.score for r in expected], atol=1e-3)
            assert [r.metadata for r in results] == [r.metadata for r in expected]
    await local.aclose()


async def test_both_stores_give_the_same_documents_in_the_same_order(tmp_path):
    """Side by side, pooled and packed by default, with words in common so that scores differ by little."""
    documents = rows(400, seed=3)
    async with DataApiServer() as server:
        astra = LateInteractionPipeline(server.async_database(), HashModel(), filterable=DECLARED)
        folder = LateInteractionPipeline(tmp_path, HashModel())
        async with astra, folder:
            for pipeline in (astra, folder):
                await pipeline.index_documents(documents)
            rng = np.random.default_rng(5)
            for _ in range(25):
                query = " ".join(rng.choice(WORDS, 6))
                for spec in (None, {"lang": "en"}, {"note": {"$ne": None}}):
                    here, there = [await p.search(query, k=10, filter=spec) for p in (astra, folder)]
                    np.testing.assert_allclose([r.score for r in here], [r.score for r in there], atol=1e-3)
                    different = [a for a, b in zip(here, there, strict=True) if a.doc_id != b.doc_id]
                    scores = [r.score for r in here]
                    # Only documents of equal scores may change places.
                    assert all(np.sum(np.abs(np.subtract(scores, r.score)) < 1e-5) > 1 for r in different)


# --- the seam


async def test_a_store_refuses_arguments_that_are_not_what_it_says(pipeline: LateInteractionPipeline) -> None:
    await pipeline.index_documents(rows(3))
    store, query = pipeline.store, QueryVectors(np.eye(2, 32, dtype=np.float32), np.ones(2, np.float32))

    def stage_1(query: Any = query, n: Any = 5, n_ann_tokens: Any = 5, **options: Any) -> Any:
        return store.candidates(query, n, n_ann_tokens=n_ann_tokens, **options)

    wrong: list[tuple[type[Exception], Callable[[], Any]]] = [
        (TypeError, lambda: store.open(None)),  # type: ignore[arg-type]
        (TypeError, lambda: store.open({"dim": 32})),  # type: ignore[arg-type]
        *((TypeError, lambda bad=bad: stage_1(query=bad)) for bad in (None, "text", query.vectors)),
        *((TypeError, lambda bad=bad: store.score(bad, ["d0"])) for bad in (None, "text", query.vectors)),
        (ValueError, lambda: stage_1(query=QueryVectors(query.vectors[:, :9], query.weights))),
        (ValueError, lambda: stage_1(query=QueryVectors(query.vectors[0], query.weights))),
        (ValueError, lambda: store.score(QueryVectors(query.vectors, query.weights[:1]), ["d0"])),
        (ValueError, lambda: stage_1(n=0)),
        (TypeError, lambda: stage_1(n="many")),
        (ValueError, lambda: stage_1(n_ann_tokens=2**63)),
        *(
            (TypeError, lambda call=call, bad=bad: call(bad))
            for call in (store.find, store.count, lambda bad: stage_1(filter=bad))
            for bad in ({"lang": "en"}, {}, "lang", 5)
        ),
        *((TypeError, lambda bad=bad: store.delete(bad)) for bad in ({"lang": "en"}, {}, {"d0": 1}, None, 5)),
        (ValueError, lambda: store.find(limit=2**63)),
        (ValueError, lambda: anext(aiter(store.scan(batch_size=0)))),
    ]
    for error, call in wrong:
        with pytest.raises(error):
            await call()
    assert await store.count() == 3
    assert (await stage_1()).doc_ids


# --- explanations


@pytest.mark.parametrize("packing", ["int8", "float16", "float32"])
async def test_explanations_add_up_to_the_score(make: Make, packing: str) -> None:
    async with make(model=HashModel(), packing=packing, doc_pool_factor=2) as pipeline:
        await pipeline.index_documents(rows(20))
        for result in await pipeline.search("w1 w2 w2 w3", k=20):
            explanation = await result.aexplain()
            assert explanation == await pipeline.explain("w1 w2 w2 w3", result.doc_id)
            assert explanation.score == pytest.approx(result.score, abs=1e-4)
            assert sum(pair.contribution for pair in explanation.pairs) == pytest.approx(
                result.score, abs=1e-4
            )
        with pytest.raises(ValueError, match="no document"):
            await pipeline.explain("w1", "nowhere")
