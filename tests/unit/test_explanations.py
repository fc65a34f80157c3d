"""Explanations: contributions add up to the score of the search, whatever was pooled, packed, cut or changed."""

from __future__ import annotations

import copy
import itertools
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import late_interaction
from late_interaction import (
    ColBERTModel,
    Document,
    LateInteractionError,
    LateInteractionPipeline,
    ModelError,
    PrecomputedEmbeddings,
    SearchResults,
    SyncPipeline,
    fit_projection,
)
from late_interaction.adapting import Encodable
from late_interaction.explain import Explanation, matched_words, word_spans
from late_interaction.explain.aligning import stored_rows
from tests.support import checkpoints
from tests.support.models import HashModel

TEXTS = [
    "The wing, hello heat-layer; of UNKNOWNWORD a wing? !!",
    "hello hello hello wing",
    "wing layer heat, hello. " * 40,
    "!!",
]
QUERIES = ["wing", "hello heat layer of a wing", "wing wing wing wing", "?"]
BUILDERS = [
    pytest.param(checkpoints.stanford_checkpoint, marks=pytest.mark.slow),
    pytest.param(checkpoints.pylate_checkpoint, marks=pytest.mark.slow),
    pytest.param(checkpoints.native_checkpoint, marks=pytest.mark.slow),
    checkpoints.plain_checkpoint,
]


def check_sums(explanation: Explanation, score: float) -> None:
    assert explanation.score == pytest.approx(score, abs=1e-4)
    parts = (explanation.pairs, explanation.query_tokens, explanation.document_tokens, explanation.words)
    for part in (*parts, explanation.query_words):
        assert sum(one.contribution for one in part) == pytest.approx(explanation.score, abs=1e-4)  # type: ignore[attr-defined]
    for word in (*explanation.words, *explanation.query_words):
        assert sum(value for _, value in word.answers) == pytest.approx(word.contribution)
    json.dumps(explanation.to_dict(), allow_nan=False)


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"doc_pool_factor": 1, "query_pool_distance": 0, "packing": "float32"},
        {"doc_pool_factor": 5, "query_pool_distance": 0.5},
    ],
    ids=["default", "unpooled", "pooled"],
)  # fmt: skip
def test_contributions_add_up_to_the_score(
    tmp_path: Path, build: Callable[[Path], Path], options: dict[str, Any]
) -> None:
    model = ColBERTModel(build(tmp_path / "model"), device="cpu")
    with late_interaction.open(tmp_path / "index", model, **options) as index:
        index.add(TEXTS)
        for query in QUERIES:
            results = index.search(query)
            assert len(results) == len(TEXTS)
            for result in results:
                explanation = result.explain()
                check_sums(explanation, result.score)
                assert explanation == index.explain(query, result.doc_id)
                assert len(explanation.query_tokens) == results.stats.n_query_tokens
                for token in explanation.document_tokens:
                    assert result.content[token.start : token.end] in (token.text, "")
                assert not any("does not give" in note for note in explanation.notes)
                pooled = any("query's" in note for note in explanation.notes)
                assert pooled == (results.stats.n_query_vectors < results.stats.n_query_tokens)


def test_what_answered_is_what_alignment_says(minilm: ColBERTModel, tmp_path: Path) -> None:
    exact: Any = {"doc_pool_factor": 1, "query_pool_distance": 0, "packing": "float32"}
    text = "The ferry leaves at nine. Tickets for the boat cost four euros."
    with late_interaction.open(tmp_path, minilm, **exact) as index:
        [doc_id] = index.add([text])
        explanation = index.explain("boat price", doc_id)
    query, document = minilm.encode_queries(["boat price"])[0], minilm.encode_documents([text])[0]
    similarities = query @ document.T
    spans = minilm.document_spans(text)
    assert len(explanation.pairs) == len(query)
    for pair in explanation.pairs:
        token = explanation.document_tokens[pair.document_token]
        best = int(similarities[pair.query_token].argmax())
        assert (token.start, token.end) == spans[best]
        assert pair.contribution == pytest.approx(float(similarities[pair.query_token, best]), abs=1e-5)
    assert [token.text for token in explanation.query_tokens] == ["boat", "price"]
    assert explanation.notes == ()


def test_each_pair_has_its_part_of_a_pooled_vector(minilm: ColBERTModel, tmp_path: Path) -> None:
    text = "The ferry leaves at nine. Tickets for the boat cost four euros."
    with late_interaction.open(tmp_path, minilm, doc_pool_factor=4, packing="float32") as index:
        [doc_id] = index.add([text])
        explanation = index.explain("boat", doc_id)
        [stored] = index.get_matrices([doc_id]).values()
    [query] = minilm.encode_queries(["boat"])
    vector = int((query @ stored.T).argmax())
    document, spans = minilm.encode_documents([text])[0], minilm.document_spans(text)
    inside = [spans.index((token.start, token.end)) for token in explanation.document_tokens]
    assert {token.vector for token in explanation.document_tokens} == {vector}
    assert len(inside) > 1
    mean = document[inside].mean(axis=0)
    assert np.allclose(mean / np.linalg.norm(mean), stored[vector], atol=1e-5)
    products = (document[inside] @ query[0]) / (len(inside) * np.linalg.norm(mean))
    assert [token.contribution for token in explanation.document_tokens] == pytest.approx(products, abs=1e-4)


def test_a_long_text_is_explained_to_its_end(minilm: ColBERTModel, tmp_path: Path) -> None:
    text = "A sentence about nothing at all. " * 80 + "The lighthouse keeper paints the door green."
    with late_interaction.open(tmp_path, minilm) as index:
        index.add([text])
        result = index.search("lighthouse keeper")[0]
        explanation = result.explain()
    check_sums(explanation, result.score)
    best = max(explanation.words, key=lambda word: word.contribution)
    assert (best.text, text[best.start : best.end]) in {("lighthouse",) * 2, ("keeper",) * 2}
    assert any("read in windows of at most 256 tokens" in note for note in explanation.notes)


def test_vectors_that_are_alike_are_not_mixed_up() -> None:
    def at(*degrees: float) -> np.ndarray:
        angles = np.radians(degrees)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    # Rounding has moved each of the first two nearer to the other.
    assert stored_rows(at(0, 2, 90), at(1.5, 0.6, 90)).tolist() == [0, 1, 2]
    assert stored_rows(at(0, 45, 90), at(0, 60, 90)).tolist() == [0, -1, 2]
    assert stored_rows(at(0, 90), at(90, 45, 0)).tolist() == [2, 0]


def test_a_projection_tells_the_words_too(minilm: ColBERTModel, tmp_path: Path) -> None:
    projected = fit_projection(minilm, ["Apple pie with cinnamon.", "The tide comes in at noon."] * 2, 6)
    with SyncPipeline(tmp_path, projected) as index:
        index.add(["Apple pie with cinnamon"])
        result = index.search("apples")[0]
        explanation = result.explain()
    check_sums(explanation, result.score)
    assert "Apple" in {word.text for word in explanation.words}


def test_vectors_whose_text_is_another_are_not_traced(minilm: ColBERTModel, tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, minilm) as index:
        row = Encodable(Document("a", "What is stored"), text="The tide comes in at noon")
        index.index_documents([row])
        index.index_embeddings(
            [{"doc_id": "b", "content": "Made elsewhere"}], minilm.encode_documents(["When is high water?"])
        )
        for result in index.search("high water"):
            explanation = result.explain()
            check_sums(explanation, result.score)
            assert all(token.start == token.end for token in explanation.document_tokens)
            assert any("does not give its stored vectors" in note for note in explanation.notes)
        explanation = index.explain("high water", "a", text="The tide comes in at noon")
        assert explanation.content == "The tide comes in at noon"
        assert "tide" in {word.text for word in explanation.words}


def test_a_model_that_does_not_tell_still_has_its_numbers(tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, HashModel()) as index:
        index.add(["alpha beta"])
        result = index.search("beta gamma")[0]
        explanation = result.explain()
    check_sums(explanation, result.score)
    assert [token.text for token in explanation.query_tokens] == ["(vector 1)", "(vector 2)"]
    assert "does not tell which characters" in explanation.notes[-1]


def test_vectors_from_elsewhere(tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, PrecomputedEmbeddings(2, "mine")) as index:
        index.index_embeddings([{"doc_id": "x", "content": "along x"}], [[[1, 0], [0.6, 0.8]]])
        result = index.search_with_embeddings([[0.8, 0.6]])[0]
        explanation = result.explain()
    check_sums(explanation, result.score)
    assert explanation.query is None
    assert "made elsewhere" in explanation.notes[-1]


def test_what_cannot_be_explained_says_why(tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, HashModel()) as index:
        [doc_id, blank] = index.add(["alpha beta", " "])
        with pytest.raises(ValueError, match="no document 'nowhere'"):
            index.explain("alpha", "nowhere")
        with pytest.raises(ValueError, match="is blank"):
            index.explain("alpha", blank)
        with pytest.raises(ValueError, match="empty"):
            index.explain("", doc_id)
        with pytest.raises(TypeError):
            index.explain("alpha", 1.5)  # type: ignore[arg-type]
        [found] = index.search("alpha")
        for lost in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), replace(found, score=1.0)):
            with pytest.raises(LateInteractionError, match=r"call explain\(query, doc_id\)"):
                lost.explain()
        assert pickle.loads(pickle.dumps(found)) == found
        with pytest.raises(ModelError, match="It is a text"):
            found.explain().heat_map()
        index.add([{"doc_id": doc_id, "content": "alpha alpha gamma delta"}])
        index.update_metadata(doc_id, {"n": 1})
        assert index.search("beta")[0].explain().score == pytest.approx(index.search("beta")[0].score)
        stale = replace(found)
        object.__setattr__(stale, "_found", found._search())
        object.__setattr__(stale, "score", found.score + 1)
        with pytest.raises(LateInteractionError, match="was changed since"):
            stale.explain()
        index.delete_document(doc_id)
        with pytest.raises(ValueError, match="no document"):
            found.explain()


async def test_async_results_await(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.add(["alpha beta"])
        [[result]] = await pipeline.search_many(["beta"])
        assert await result.aexplain() == await pipeline.explain("beta", result.doc_id)
        with pytest.raises(LateInteractionError, match=r"await its aexplain\(\)"):
            result.explain()
    with late_interaction.open(tmp_path, HashModel()) as index:
        [[result]] = index.search_many(["beta"])
        assert await result.aexplain() == result.explain()


# --- words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("बंदरगाह सुबह खुलता है।", ["बंदरगाह", "सुबह", "खुलता", "है"]),
        ("ท่าเรือเปิดตอนรุ่งสาง", ["ท่าเรือ", "เปิด", "ตอน", "รุ่ง", "สาง"]),
        ("港口在黎明时分开放，", ["港口", "在", "黎明", "时", "分", "开放"]),
        ("東京タワーの高さ", ["東京タワー", "の", "高", "さ"]),
        ("The ferry's fee: 3.14 €, re-read", ["The", "ferry's", "fee", "3.14", "re", "read"]),
        ("foo_bar.baz __init__", ["foo", "bar", "baz", "init"]),
        ("😀 x👨‍👩‍👧y", ["x", "y"]),
        ("", []),
        ("… !!", []),
    ],
)  # fmt: skip
def test_words_are_those_that_people_read(text: str, words: list[str]) -> None:
    assert [text[start:end] for start, end in word_spans(text)] == words


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("港口在黎明时分开放，渔民们把网收上来，孩子们在沙滩上玩耍。", "港口"),
        ("บาน นา เปด", "นา"),
        ("बंदरगाह सुबह खुलता है और मछुआरे जाल खींचते हैं", "बंदरगाह"),
    ],
)
def test_the_word_asked_for_has_most_of_the_score(
    minilm: ColBERTModel, tmp_path: Path, text: str, query: str
) -> None:
    with late_interaction.open(tmp_path, minilm) as index:
        [doc_id] = index.add([text])
        explanation = index.explain(query, doc_id)
    assert max(explanation.words, key=lambda word: word.contribution).text == query
    assert [word.text for word in explanation.query_words] == [query]


class CharacterModel(HashModel):
    """Each letter and mark is a token, so that no script is unknown to it."""

    def _encode(self, text: str) -> np.ndarray:
        return np.stack([self.word(character) for character in text if not character.isspace()])

    def query_spans(self, query: str) -> list[tuple[int, int]]:
        return self.document_spans(query)

    def document_spans(self, document: str) -> list[tuple[int, int]]:
        return [(i, i + 1) for i, character in enumerate(document) if not character.isspace()]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("ท่าเรือเปิดตอนรุ่งสางและชาวประมงดึงอวนขึ้นมา", "ท่าเรือ"),  # Thai
        ("ທ່າເຮືອເປີດຕອນເຊົ້າ", "ທ່າເຮືອ"),  # Lao
        ("កំពង់ផែបើកនៅពេលព្រឹក", "កំពង់ផែ"),  # Khmer
        ("बंदरगाह सुबह खुलता है और मछुआरे जाल खींचते हैं", "बंदरगाह"),
        ("港口在黎明时分开放，渔民们把网收上来", "港口"),
        ("港は夜明けに開き、漁師たちは網を引き上げる。", "夜明け"),
    ],
)
@pytest.mark.parametrize("factor", [1, 2])
def test_where_the_tokenizer_knows_a_script_its_words_are_marked(
    tmp_path: Path, text: str, query: str, factor: float
) -> None:
    with late_interaction.open(tmp_path, CharacterModel(), doc_pool_factor=factor) as index:
        [doc_id] = index.add([text])
        explanation = index.explain(query, doc_id)
    check_sums(explanation, explanation.score)
    assert max(explanation.words, key=lambda word: word.contribution).text == query
    assert [word.text for word in explanation.query_words] == [query]
    assert not [note for note in explanation.notes if "several words" in note]


def test_one_token_of_a_sentence_is_divided_among_its_words(minilm: ColBERTModel, tmp_path: Path) -> None:
    text = "ท่าเรือเปิดตอนรุ่งสางและชาวประมงดึงอวนขึ้นมา"  # The tokenizer has no pieces for it.
    assert minilm.document_spans(text) == [(0, len(text))]
    with late_interaction.open(tmp_path, minilm) as index:
        [doc_id] = index.add([text])
        explanation = index.explain("ท่าเรือ", doc_id)
    check_sums(explanation, explanation.score)
    assert [note for note in explanation.notes if "One token covers several words" in note]
    assert "".join(word.text for word in explanation.words) == text
    for word in explanation.words:
        expected = explanation.score * len(word.text) / len(text)
        assert word.contribution == pytest.approx(expected)
    assert matched_words(minilm, "ท่าเรือ", [text], min_similarity=0) == [[]]


# --- renderings


class Tags(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


EVIL = '<script>alert(1)</script> <img src=x onerror="alert(2)"> & "quoted" \x1b[31mred boat\u202e'


def test_html_escapes_everything_and_needs_nothing(minilm: ColBERTModel, tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, minilm) as index:
        index.index_documents([{"doc_id": EVIL, "content": EVIL}])
        results = index.search(f"boat {EVIL}")
        explanation = results[0].explain()
        pages = [explanation.to_html(), explanation._repr_html_(), results._repr_html_() or ""]
    for page in pages:
        tags = Tags(page)
        assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags.tags}
        assert not [tag for tag, _ in tags.tags if tag == "img"]
        assert not any(name.startswith("on") for _, given in tags.tags for name in given)
        assert not re.search(r"https?://|@import|url\(", page)
        assert "alert" in tags.text
        assert "prefers-color-scheme:dark" in page
        marks = [given for tag, given in tags.tags if tag == "mark"]
        tips = {given["id"] for tag, given in tags.tags if given.get("role") == "tooltip"}
        assert marks
        assert all(given["tabindex"] == "0" and given["aria-describedby"] in tips for given in marks)
        assert ":focus" in page
        assert ":hover" in page
    ids = [given["id"] for page in pages for _, given in Tags(page).tags if "id" in given]
    assert len(ids) == len(set(ids))  # Many stand in one notebook.
    explanation.save(tmp_path / "page.html")
    assert Tags((tmp_path / "page.html").read_text(encoding="utf-8")).text.count("boat") >= 2


def test_the_text_is_whole_in_html_and_marked_by_contribution(minilm: ColBERTModel, tmp_path: Path) -> None:
    text = "The ferry leaves at nine.\n\nTickets for the boat cost <four> euros & more."
    with late_interaction.open(tmp_path, minilm) as index:
        [doc_id] = index.add([text])
        explanation = index.explain("boat ticket", doc_id)
    page = explanation.to_html()
    shown = re.search(r'<p class="li-text" dir="auto">(.*?)</p>', page, re.DOTALL)
    assert shown is not None
    without_tips = re.sub(r'<span class="li-tip".*?</span>', "", shown[1])
    assert Tags(without_tips).text == text
    shades = dict(
        zip(re.findall(r">(\w+)<span class", shown[1]), re.findall(r"--s:([\d.]+)", shown[1]), strict=True)
    )
    assert max(shades, key=lambda word: float(shades[word])) in {"boat", "Tickets"}


def test_on_a_terminal(minilm: ColBERTModel, tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, minilm) as index:
        [doc_id] = index.add(["Tickets for the boat cost four euros. " + EVIL])
        explanation = index.explain("boat", doc_id)
    printed = str(explanation)
    assert "Tickets for the boat" in printed
    assert f"{explanation.score:.4f}" in printed
    assert "\x1b" not in printed
    assert "\u202e" not in printed


def test_results_in_a_notebook(minilm: ColBERTModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with late_interaction.open(tmp_path, minilm) as index:
        index.add([f"The boat number {n} & co" for n in range(25)])
        results = index.search("boat", k=25)
        page = results._repr_html_()
        assert page is not None
        assert page.count("<tr>") == 1 + 20
        assert "25 results, the first 20 shown" in page
        assert "without marks" not in page
        clock = itertools.count(0, 6.0)
        monkeypatch.setattr("late_interaction.explain.notebook.time.monotonic", lambda: next(clock))
        slow = index.search("boat", k=5)._repr_html_()
        assert slow is not None
        assert "4 without marks" in slow
        assert "boat number" in Tags(slow).text
    assert SearchResults([])._repr_html_() is None
    assert SearchResults(pickle.loads(pickle.dumps(list(results))))._repr_html_() is None


async def test_results_of_an_async_pipeline_in_a_notebook(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.add(["alpha <b>"])
        page = (await pipeline.search("alpha"))._repr_html_()
        assert page is not None
        assert "alpha &lt;b&gt;" in page
        assert "1 without marks" in page


def test_room_for_a_lexical_part(minilm: ColBERTModel, tmp_path: Path) -> None:
    with late_interaction.open(tmp_path, minilm) as index:
        [doc_id] = index.add(["a boat"])
        explanation = replace(index.explain("boat", doc_id), lexical=0.25)
    assert "lexical 0.2500" in explanation.to_html()
    assert "lexical: 0.2500" in str(explanation)
    assert explanation.to_dict()["lexical"] == 0.25
