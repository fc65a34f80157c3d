"""Searches by words and by both in a folder: what they find, and that words are in step with the documents."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from late_interaction import (
    EncodedDocument,
    IndexMismatchError,
    LateInteractionPipeline,
    LocalStore,
    StoreError,
    SyncPipeline,
)
from late_interaction.explain import matched_parts
from late_interaction.filters import parse_filter
from late_interaction.stores.base import Store
from late_interaction.stores.local import in_step, words
from late_interaction.stores.local.limits import Limits
from tests.support.models import HashModel

FRUIT = {
    "pie": "apple pie with cinnamon",
    "jam": "plum jam, and apple jam",
    "sea": "the tide comes in at noon",
    "ship": "a ship leaves at high tide",
    "code": "part AB-1234 holds the lamp",
}


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[LateInteractionPipeline]:
    async with LateInteractionPipeline(tmp_path, HashModel()) as opened:
        await opened.index_documents(
            [{"doc_id": doc_id, "content": text, "n": n} for n, (doc_id, text) in enumerate(FRUIT.items())]
        )
        yield opened


async def found(pipeline: LateInteractionPipeline, query: str, k: int = 10, **options: Any) -> list[str]:
    return [result.doc_id for result in await pipeline.search(query, k, **{"mode": "lexical", **options})]


def database(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / "late_interaction" / "documents.sqlite3", isolation_level=None)


def check_index(folder: Path) -> int:
    """Check that each document is in the index of words with its own words, and no other; return how many there are."""
    with database(folder) as connection:
        contents = dict(connection.execute("SELECT rid, content FROM documents"))
        connection.execute("CREATE TEMP TABLE there (rid)")
        connection.execute("CREATE VIRTUAL TABLE temp.found USING fts5vocab(main, words, instance)")
        there = {}
        for term, rid in connection.execute("SELECT term, doc FROM found"):
            there.setdefault(rid, set()).add(term)
        fresh = sqlite3.connect(":memory:")
        fresh.execute(words.CREATE_WORDS)
        words.Words(0).add(fresh, contents.items())
        fresh.execute("CREATE VIRTUAL TABLE found USING fts5vocab(words, instance)")
        expected: dict[int, set[str]] = {}
        for term, rid in fresh.execute("SELECT term, doc FROM found"):
            expected.setdefault(rid, set()).add(term)
    assert there == expected
    return len(contents)


# --- what is found


async def test_by_words(pipeline: LateInteractionPipeline) -> None:
    assert await found(pipeline, "apples") == ["pie", "jam"]
    assert await found(pipeline, "tides") == ["sea", "ship"]
    assert await found(pipeline, "what is AB-1234?") == ["code"]
    assert await found(pipeline, "zebra") == []
    (best, *_) = results = await pipeline.search("jam", 1, mode="lexical")
    assert best.score == best.lexical_score > 0
    assert best.late_score is None
    assert results.stats.certain
    assert results.stats.mode == "lexical"
    assert results.stats.n_query_tokens == 0


async def test_by_both_tells_both_parts(pipeline: LateInteractionPipeline) -> None:
    late = {result.doc_id: result for result in await pipeline.search("apple tide")}
    lexical = {result.doc_id: result for result in await pipeline.search("apple tide", mode="lexical")}
    both = await pipeline.search("apple tide", mode="hybrid", lexical_weight=0.4)
    assert {result.doc_id for result in both} == set(FRUIT)
    assert both.stats.certain
    scores = [result.score for result in both]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    for result in both:
        assert result.late_score == pytest.approx(late[result.doc_id].score)
        word_score = lexical[result.doc_id].score if result.doc_id in lexical else 0
        assert result.lexical_score == pytest.approx(word_score)


async def test_the_weight_decides(pipeline: LateInteractionPipeline) -> None:
    late = [result.doc_id for result in await pipeline.search("jam")]
    assert await found(pipeline, "jam", mode="hybrid", lexical_weight=0) == late
    assert (await found(pipeline, "jam", mode="hybrid", lexical_weight=1))[0] == "jam"
    assert await found(pipeline, "jam", mode="hybrid") == await found(
        pipeline, "jam", mode="hybrid", lexical_weight=0.3
    )


@pytest.mark.parametrize("mode", ["lexical", "hybrid"])
async def test_filters_ids_groups_pages(pipeline: LateInteractionPipeline, mode: str) -> None:
    assert await found(pipeline, "apple tide", mode=mode, filter={"n": {"$gte": 3}}) in (
        ["ship"],
        ["ship", "code"],
    )
    assert await found(pipeline, "apple", mode=mode, filter={"n": 77}) == []
    ids = await found(pipeline, "apple", mode=mode, ids=["jam", "sea", "nowhere"])
    assert ids == (["jam"] if mode == "lexical" else ["jam", "sea"])
    everything = await found(pipeline, "apple tide", mode=mode)
    pages = [await found(pipeline, "apple tide", 2, mode=mode, offset=offset) for offset in (0, 2, 4)]
    assert [doc_id for page in pages for doc_id in page] == everything
    await pipeline.index_documents([{"doc_id": "twin", "content": FRUIT["pie"], "n": 0}])
    assert {"pie", "twin"} <= set(await found(pipeline, "apple", mode=mode))
    for options in ({"distinct": True}, {"group_by": "n"}):
        assert len({"pie", "twin"} & set(await found(pipeline, "apple", mode=mode, **options))) == 1


async def test_ties_are_broken_by_id(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        names = ["m", "c", "x", "a", "k", "b"]
        await pipeline.index_documents([{"doc_id": name, "content": "the same apple"} for name in names])
        for mode in ("lexical", "hybrid"):
            assert await found(pipeline, "apple", 3, mode=mode) == ["a", "b", "c"]
            assert await found(pipeline, "apple", 3, mode=mode, offset=3) == ["k", "m", "x"]


async def test_a_word_brings_a_document_that_the_vectors_leave_out(tmp_path: Path) -> None:
    store = LocalStore(tmp_path, limits=Limits(exact_tokens=100))
    async with LateInteractionPipeline(store, HashModel(), doc_pool_factor=1) as pipeline:
        rows = [{"doc_id": f"{n:03}", "content": f"common words in every text {n % 7}"} for n in range(400)]
        await pipeline.index_documents([*rows, {"doc_id": "rare", "content": "zebra"}])
        await pipeline.optimize()
        assert (await store.info())["documents_in_index"] > 0
        query = "common words in every text and zebra"
        results = await pipeline.search(query, 3, mode="hybrid", lexical_weight=0.9, n_ann_tokens=1)
        assert results[0].doc_id == "rare"
        assert not results.stats.certain
        exact = await pipeline.search(query, 3, mode="hybrid", exact=True)
        assert exact.stats.certain


async def test_many_queries_and_vectors_with_their_text(pipeline: LateInteractionPipeline) -> None:
    many = await pipeline.search_many(["apple", "tide"], mode="lexical")
    assert [results[0].doc_id for results in many] == ["pie", "sea"]
    (matrix,) = await pipeline.encode_queries(["jam"])
    plain = await pipeline.search("jam", mode="hybrid")
    assert list(await pipeline.search_with_embeddings(matrix, mode="hybrid", text="jam")) == list(plain)
    with pytest.raises(ValueError, match=r"give the query as text="):
        await pipeline.search_with_embeddings(matrix, mode="hybrid")
    assert list(await pipeline.search_with_embeddings(matrix, text="jam")) == list(
        await pipeline.search("jam")
    )


async def test_a_lexical_search_does_not_encode(
    pipeline: LateInteractionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HashModel, "encode_queries", None)
    assert await found(pipeline, "jam") == ["jam"]
    for blank in ("", " \n"):
        with pytest.raises(ValueError, match="empty or only white space"):
            await found(pipeline, blank)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"mode": "sparse"}, ValueError, "mode must be one of"),
        ({"mode": None}, ValueError, "mode must be one of"),
        ({"lexical_weight": 0.3}, ValueError, "goes with mode="),
        ({"mode": "lexical", "lexical_weight": 0.3}, ValueError, "goes with mode="),
        ({"mode": "hybrid", "lexical_weight": 1.5}, ValueError, "at most 1"),
        ({"mode": "hybrid", "lexical_weight": -1}, ValueError, "at least 0"),
        ({"mode": "hybrid", "lexical_weight": float("nan")}, ValueError, "at least 0"),
        ({"mode": "hybrid", "lexical_weight": "much"}, TypeError, "must be a number"),
        ({"mode": "lexical", "n_ann_tokens": 5}, ValueError, "leave n_ann_tokens"),
        ({"mode": "lexical", "n_maxsim_candidates": 5}, ValueError, "leave n_ann_tokens"),
    ],
)
async def test_wrong_options(
    pipeline: LateInteractionPipeline, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        await pipeline.search("jam", **options)


async def test_very_long_queries(pipeline: LateInteractionPipeline) -> None:
    assert await found(pipeline, "apple " + " ".join(f"w{n}" for n in range(50_000))) == ["pie", "jam"]


async def test_explanations(pipeline: LateInteractionPipeline) -> None:
    (result, *_) = await pipeline.search("jam", mode="lexical")
    assert (await pipeline.explain("jam", result.doc_id)).lexical is None
    for mode in ("lexical", "hybrid"):
        (result, *_) = await pipeline.search("apples of plum", mode=mode)  # type: ignore[arg-type]
        explanation = await result.aexplain()
        assert explanation.lexical == result.lexical_score
        assert [result.content[slice(*hit)] for hit in explanation.hits] == ["plum", "apple"]
        words = {word.text: word for word in explanation.words if word.start < word.end}
        assert [text for text, word in words.items() if word.lexical] == ["plum", "apple"]
        assert sum(word.contribution for word in explanation.words) == pytest.approx(
            explanation.score, abs=1e-4
        )
        assert explanation.to_html().count('class="li-lexical"') == 2
        assert "found by plum, apple (underlined)" in str(explanation)
        assert [part["text"] for part in matched_parts(explanation) if part["lexical"]] == ["plum", "apple"]
    (late, *_) = await pipeline.search("apples of plum")
    explanation = await late.aexplain()
    assert explanation.hits == ()
    assert not any(word.lexical for word in explanation.words)
    assert 'class="li-lexical"' not in explanation.to_html()
    assert "underlined" not in str(explanation)


async def test_a_hit_that_did_not_answer_is_a_word_too(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents([{"doc_id": "a", "content": "東京都 jams, a jam and JAM"}])
        (result,) = await pipeline.search("jam 京都", mode="hybrid")
        explanation = await result.aexplain()
        assert [word.text for word in explanation.words if word.lexical] == [
            "東京",
            "都",
            "jams",
            "jam",
            "JAM",
        ]
        assert [word.start for word in explanation.words if word.end] == sorted(
            word.start for word in explanation.words if word.end
        )
        (nothing,) = await pipeline.search("zebra", mode="hybrid")
        explanation = await nothing.aexplain()
        assert (explanation.lexical, explanation.hits) == (0, ())


# --- in step with what is written


async def test_every_write_is_in_the_index_of_words(
    tmp_path: Path, pipeline: LateInteractionPipeline
) -> None:
    assert check_index(tmp_path) == 5
    await pipeline.index_documents(
        [{"doc_id": "pie", "content": "pear tart"}, {"content": "日本 and 東京都"}]
    )
    assert await found(pipeline, "apple") == ["jam"]
    assert await found(pipeline, "pear") == ["pie"]
    assert check_index(tmp_path) == 6
    assert await pipeline.update_metadata("jam", {"n": 9})
    assert await found(pipeline, "apple", filter={"n": 9}) == ["jam"]
    assert await pipeline.delete_documents({"n": 9}) == 1
    assert await pipeline.delete_document("pie")
    assert check_index(tmp_path) == 4
    await pipeline.clear()
    assert await found(pipeline, "tide") == []
    await pipeline.index_documents([{"content": "tide"}])
    assert len(await found(pipeline, "tide")) == 1
    assert check_index(tmp_path) == 1


async def test_a_copy_has_it(tmp_path: Path, pipeline: LateInteractionPipeline) -> None:
    await pipeline.copy_to(tmp_path / "copy")
    async with LateInteractionPipeline(tmp_path / "copy", HashModel()) as copy:
        assert await found(copy, "apple") == ["pie", "jam"]
    assert check_index(tmp_path / "copy") == 5


async def test_what_fails_changes_nothing(tmp_path: Path, pipeline: LateInteractionPipeline) -> None:
    store = pipeline.store
    with database(tmp_path) as connection:
        connection.execute("ALTER TABLE vectors RENAME TO gone")
    (matrix,) = HashModel().encode_documents(["apple cake"])
    (document,) = await store.documents(["pie"])
    with pytest.raises(StoreError):
        await store.upsert([EncodedDocument(document, matrix)])
    with database(tmp_path) as connection:
        connection.execute("ALTER TABLE gone RENAME TO vectors")
    assert check_index(tmp_path) == 5


async def test_readers_see_what_another_store_writes(
    tmp_path: Path, pipeline: LateInteractionPipeline
) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as other:
        assert await found(other, "zebra") == []
        await pipeline.index_documents([{"doc_id": "z", "content": "zebra"}])
        assert await found(other, "zebra") == ["z"]
        await other.delete_document("z")
        assert await found(pipeline, "zebra") == []


async def test_blank_texts_are_not_found(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        (document,) = [EncodedDocument(d, np.empty((0, pipeline.model.dim), np.float32)) for d in [_blank()]]
        await pipeline.store.upsert([document])
        assert await found(pipeline, "apple") == []
        assert await found(pipeline, "apple", mode="hybrid") == []


def _blank() -> Any:
    from late_interaction import Document

    return Document("blank", "apple")


async def test_space_is_given_back_once(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        text = " ".join(f"word{n}" for n in range(400))
        await pipeline.index_documents([{"doc_id": f"{n}", "content": f"{text} {n}"} for n in range(300)])
        assert (await pipeline.optimize())["freed_bytes"] == 0
        await pipeline.delete_documents([f"{n}" for n in range(200)])
        assert (await pipeline.optimize())["freed_bytes"] > 0
        assert (await pipeline.optimize())["freed_bytes"] == 0
        assert check_index(tmp_path) == 100


# --- indexes of earlier releases, and Pythons without FTS5


def as_before(folder: Path) -> None:
    """Make of an index what a release without an index of words has written."""
    with database(folder) as connection:
        connection.execute("DROP TABLE words")
        connection.execute("DELETE FROM properties WHERE name = 'words'")


async def test_an_earlier_index_gets_it_by_optimize(
    tmp_path: Path, pipeline: LateInteractionPipeline
) -> None:
    as_before(tmp_path)
    async with LateInteractionPipeline(tmp_path, HashModel()) as opened:
        assert len(await opened.search("apple")) == 5
        for mode in ("lexical", "hybrid"):
            with pytest.raises(StoreError, match=r"call optimize\(\) once"):
                await found(opened, "apple", mode=mode)
        await opened.store.upsert([])
        await opened.delete_document("jam")
        with pytest.raises(StoreError, match=r"call optimize\(\) once"):
            await found(opened, "apple")
        await opened.optimize()
        assert await found(opened, "apple") == ["pie"]
    assert check_index(tmp_path) == 4


async def test_writes_between_the_parts_of_filling(
    tmp_path: Path, pipeline: LateInteractionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_before(tmp_path)
    monkeypatch.setattr(in_step, "FILLED_TOGETHER", 2)
    store: Any = pipeline.store
    assert await store._fill()
    with pytest.raises(StoreError, match=r"call optimize\(\) once"):
        await found(pipeline, "apple")
    await pipeline.delete_documents(["pie", "code"])  # one that is in it, one that is not
    (matrix,) = HashModel().encode_documents(["new apple"])
    (document,) = await store.documents(["jam"])
    await store.upsert([EncodedDocument(document, matrix)])
    await pipeline.optimize()
    assert await found(pipeline, "apple") == ["jam"]
    assert check_index(tmp_path) == 3


async def test_a_write_by_an_earlier_release_is_noticed(
    tmp_path: Path, pipeline: LateInteractionPipeline
) -> None:
    with database(tmp_path) as connection:
        rid = connection.execute("SELECT rid FROM documents WHERE doc_id = 'pie'").fetchone()[0]
        connection.execute("UPDATE documents SET content = 'changed' WHERE rid = ?", (rid,))
        connection.execute("UPDATE properties SET value = value + 1 WHERE name = 'generation'")
    with pytest.raises(StoreError, match=r"call optimize\(\) once"):
        await found(pipeline, "apple")
    await pipeline.optimize()
    assert await found(pipeline, "apple") == ["jam"]
    assert check_index(tmp_path) == 5


async def test_a_sqlite_without_fts5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (words, "late_interaction.stores.local.store", "late_interaction.stems"):
        name = module if isinstance(module, str) else module.__name__
        monkeypatch.setattr(f"{name}.has_fts5", lambda: False)
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents([{"doc_id": "a", "content": "apple"}])
        await pipeline.delete_document("a")
        await pipeline.index_documents([{"doc_id": "a", "content": "apple"}])
        assert len(await pipeline.search("apple")) == 1
        with pytest.raises(StoreError, match="has no FTS5"):
            await found(pipeline, "apple")
    monkeypatch.undo()
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.optimize()
        assert await found(pipeline, "apple") == ["a"]


async def test_a_table_of_words_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()):
        pass
    with database(tmp_path) as connection:
        connection.execute("DROP TABLE words")
        connection.execute("CREATE VIEW words AS SELECT 1")
    with pytest.raises((StoreError, IndexMismatchError), match="cannot be trusted"):
        async with LateInteractionPipeline(tmp_path, HashModel()):
            pass


async def test_a_store_without_words_says_so(pipeline: LateInteractionPipeline) -> None:
    with pytest.raises(StoreError, match="searches by vectors alone"):
        await Store.lexical(pipeline.store, "apple", 3)


def test_the_sync_twin(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        pipeline.index_documents([{"doc_id": "a", "content": "apple"}])
        assert pipeline.search("apples", mode="lexical")[0].doc_id == "a"
        (matrix,) = pipeline.encode_queries(["apple"])
        assert pipeline.search_with_embeddings(matrix, text="apple", mode="hybrid")[0].lexical_score


# --- rare words in a search by vectors


@pytest.fixture
async def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LateInteractionPipeline]:
    store = LocalStore(tmp_path, limits=Limits(exact_tokens=100))
    async with LateInteractionPipeline(store, HashModel(), doc_pool_factor=1) as opened:
        rows = [
            {
                "doc_id": f"{n:03}",
                "content": f"common words in every text {n % 7} AB-{n % 9} CD-{n % 8}",
                "n": 0,
            }
            for n in range(400)
        ]
        rare = [("rare", "zebra"), ("code", "AB-CD")]
        rows += [{"doc_id": doc_id, "content": content, "n": 1} for doc_id, content in rare]
        with monkeypatch.context() as patch:
            # A build in the background may end between two writes, and leave too little for another one.
            patch.setattr(store._builder, "start", lambda: None)
            await opened.index_documents(rows)
        await opened.optimize()
        assert (await store.info())["documents_in_index"] == 402
        yield opened


SHALLOW: dict[str, Any] = {"mode": "late", "n_ann_tokens": 1, "n_maxsim_candidates": 20}


def record_scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of documents as they are scored."""
    scored: list[str] = []
    score = LocalStore.score

    async def recorded(store: LocalStore, query: Any, doc_ids: Any) -> Any:
        scored.extend(doc_ids)
        return await score(store, query, doc_ids)

    monkeypatch.setattr(LocalStore, "score", recorded)
    return scored


@pytest.mark.parametrize(("query", "doc_id"), [("zebra", "rare"), ("the AB-CD", "code")])
async def test_a_rare_word_makes_a_candidate(
    many: LateInteractionPipeline, query: str, doc_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = f"common words in every text and {query}"
    (matrix,) = await many.encode_queries([query])
    scored = record_scored(monkeypatch)
    plain = await many.search_with_embeddings(matrix, 20, **SHALLOW)
    assert doc_id not in scored
    for search in (
        many.search(query, 20, **SHALLOW),
        many.search_with_embeddings(matrix, 20, text=query, **SHALLOW),
    ):
        scored.clear()
        found = await search
        assert scored.count(doc_id) == 1
        assert len(scored) == found.stats.n_scored == found.stats.n_candidates == plain.stats.n_scored + 1
        assert not found.stats.certain
    scored.clear()
    await many.search(query, 20, **SHALLOW, filter={"n": 0})
    assert doc_id not in scored
    await many.delete_documents([doc_id])
    await many.search(query, 20, **SHALLOW)
    assert doc_id not in scored


async def test_words_that_many_have_make_no_candidates(many: LateInteractionPipeline) -> None:
    store = many.store
    assert await store.having_rare_words("the common words of AB-3 and 東") == []
    assert await store.having_rare_words("an AB-CD or a zebra, a zebra") == ["code", "rare"]
    assert await store.having_rare_words("the zebra", filter=parse_filter({"n": 0})) == []
    await many.index_documents([{"doc_id": f"z{n}", "content": f"zebra {n}"} for n in range(words._RARE)])
    assert await store.having_rare_words("zebra") == []


async def test_at_most_half_of_the_candidates_come_by_rare_words(
    many: LateInteractionPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = record_scored(monkeypatch)
    shallow = {**SHALLOW, "n_maxsim_candidates": 2}
    found = await many.search("common words in every text, the AB-CD and zebra", 1, **shallow)
    assert found.stats.n_scored == 3
    assert scored.count("rare") + scored.count("code") == 1


async def test_without_an_index_of_words_none_are_rare(many: LateInteractionPipeline, tmp_path: Path) -> None:
    assert await many.store.having_rare_words("zebra") == ["rare"]
    with database(tmp_path) as connection:
        connection.execute("UPDATE properties SET value = '1 0 -1' WHERE name = 'words'")
    assert await many.store.having_rare_words("zebra") == []
    assert await found(many, "zebra", **SHALLOW)
    await many.optimize()
    assert await many.store.having_rare_words("zebra") == ["rare"]
