"""The pages: what they show, that nothing in a document is markup, and that nothing in an address is ignored."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx
import pytest
import pytest_asyncio

from late_interaction import ColBERTModel, ColPaliModel, LateInteractionPipeline
from tests.support.models import HashModel

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from late_interaction.serving import facets as facets_module
from late_interaction.serving import pages
from late_interaction.serving.facets import Facets, chosen_filter, facets
from tests.support.serving import client_of

HOSTILE = "</p><script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp; boats {{ 7*7 }} {% raw %}"
ROWS: list[dict[str, Any]] = [
    {"doc_id": "ferry", "content": "Tickets for the boat cost four euros.", "lang": "en", "year": 2020},
    {"doc_id": "dogs", "content": "Dogs travel free.", "lang": "en", "year": 2021, "title": "About dogs"},
    {"doc_id": "karten", "content": "Karten für das Boot kosten vier Euro.", "lang": "de", "year": 2020, "page": 3,
     "source": "fähre.pdf"},
    {"doc_id": HOSTILE, "content": HOSTILE, "lang": HOSTILE[:50], HOSTILE: HOSTILE, "title": HOSTILE,
     "thumbnail": "javascript:alert(1)"},
]  # fmt: skip


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag and attributes.items() <= found.items()]


@pytest_asyncio.fixture
async def client(minilm: ColBERTModel, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with LateInteractionPipeline(tmp_path, minilm) as pipeline:
        await pipeline.index_documents(ROWS)
        async with client_of(pipeline) as client:
            yield client


async def page_of(client: httpx.AsyncClient, path: str = "/", status: int = 200, **params: Any) -> Elements:
    answer = await client.get(path, params=params or None)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Elements(answer.text)


async def test_results_are_marked(client: httpx.AsyncClient) -> None:
    html = (await client.get("/", params={"q": "price of a boat ticket", "k": 5})).text
    page = Elements(html)
    marked = re.findall(r"<mark style=\"--s:0\.\d\d\">([^<]+)</mark>", html)
    assert {"Tickets", "boat", "cost"} <= set(marked)
    assert page.all("ol") == [{"class": "results", "start": "1"}]
    assert len(page.all("article")) == 4
    assert "4 results, " in page.text
    assert "4 results for price of a boat ticket" in page.text.split("Search")[0]  # the title
    assert "fähre.pdf, page 3" in page.text
    assert page.all("a", href="/explain?" + urlencode({"q": "price of a boat ticket", "id": "ferry"}))
    # No result is a stop for the keyboard but by its links.
    assert page.all("mark", tabindex="0") == []


async def test_words_are_marked_in_a_search_by_words(client: httpx.AsyncClient) -> None:
    html = (await client.get("/", params={"q": "boats ticket", "mode": "lexical"})).text
    assert set(re.findall(r"<mark[^>]*>([^<]+)</mark>", html)) == {"Tickets", "boat", "boats"}
    both = await page_of(client, q="boats ticket", mode="hybrid", weight="0.5")
    assert both.all("input", value="hybrid")[0].keys() >= {"checked"}
    assert both.all("input", name="weight")[0]["value"] == "0.5"


async def test_far_into_a_text_the_marks_are_shown(minilm: ColBERTModel, tmp_path: Path) -> None:
    text = (
        "Nothing of note happens here at all. " * 60
        + "The zeppelin lands at noon. "
        + "And on it goes. " * 60
    )
    pipeline = LateInteractionPipeline(tmp_path, minilm)
    async with client_of(pipeline) as client:
        await pipeline.index_document({"content": text, "doc_id": "z"})
        for mode in ("late", "lexical"):
            html = (await client.get("/", params={"q": "zeppelin", "mode": mode})).text
            assert re.search(r"… .*<mark[^>]*>zeppelin</mark>.* …", html, re.DOTALL), mode


async def test_nothing_in_a_document_is_markup(client: httpx.AsyncClient) -> None:
    for path, params in (
        ("/", {"q": HOSTILE}), ("/", {"q": HOSTILE, "mode": "lexical"}),
        ("/", {"q": "boats", "in.lang": '"><script>"'}),
        ("/", {"q": "boats", "filter": json.dumps({"lang": HOSTILE})}), ("/", {"filter": HOSTILE}),
        ("/explain", {"q": HOSTILE, "id": HOSTILE}), ("/document", {"id": HOSTILE}),
        ("/document", {"id": HOSTILE + "x"}),
        ("/" + quote(HOSTILE, safe=""), {}), ("/", {HOSTILE: "x"}),
    ):  # fmt: skip
        answer = await client.get(path, params=params)
        page = Elements(answer.text)
        assert {tag for tag, _ in page.elements}.isdisjoint({"iframe", "object", "embed", "base"})
        assert [one.get("src") for one in page.all("script")] in ([], ["/page.js"])
        assert page.all("img") == []
        for _, attributes in page.elements:
            assert not [name for name in attributes if name.startswith("on")]
            for name in ("href", "src", "action"):
                assert not (attributes.get(name) or "").lower().startswith("javascript:")
        if params.get("q") == HOSTILE or params.get("id") == HOSTILE:
            assert "{{ 7*7 }} {% raw %}" in re.sub(r"<[^<>]*>", "", answer.text)


async def test_fields_with_few_values_are_filters(client: httpx.AsyncClient) -> None:
    page = await page_of(client)
    boxes = [(one["name"], one["value"]) for one in page.all("input", type="checkbox")]
    assert ("in.lang", '"en"') in boxes
    assert ("in.year", "2020") in boxes
    assert not [name for name, _ in boxes if name in ("in.title", "in.thumbnail", "in.page")]
    filtered = await page_of(client, **{"q": "boat", "in.lang": ['"de"', '"en"'], "in.year": "2020"})
    assert len(filtered.all("article")) == 2
    chosen = [one["value"] for one in filtered.all("input", type="checkbox") if "checked" in one]
    assert chosen == ['"en"', '"de"', "2020"]
    both = await page_of(client, **{"q": "boat", "in.lang": '"de"', "filter": '{"year": {"$gt": 2020}}'})
    assert len(both.all("article")) == 0
    assert "No document was found that matches the filter" in both.text
    unknown = await page_of(client, **{"q": "boat", "in.colour": "true"})
    assert unknown.all("input", name="in.colour")[0].keys() >= {"checked"}


async def test_pages_of_results_lead_to_each_other(client: httpx.AsyncClient) -> None:
    first = await page_of(
        client, **{"q": "boat", "k": 1, "in.year": "2020", "mode": "hybrid", "weight": "0.2"}
    )
    seen: list[str | None] = []
    page = first
    for _ in range(2):
        seen += [one["href"] for one in page.all("a") if (one.get("href") or "").startswith("/document")]
        after = page.all("a", rel="next")
        page = await page_of(client, str(after[0]["href"]))
    assert len(set(seen)) == 2
    assert page.all("a", rel="next") == []
    back = await page_of(client, str(page.all("a", rel="prev")[0]["href"]))
    assert back.all("ol")[0]["start"] == "2"


@pytest.mark.parametrize(
    ("address", "named"),
    [
        ("?q=x&page=2", "no parameter 'page'"), ("?q=x&q=y", "q is given twice"), ("?q=x&k=0", "k must be"),
        ("?q=x&k=101", "k must be"), ("?q=x&k=²", "k must be"), ("?q=x&mode=fast", "mode must be"),
        ("?q=x&filter={", "not JSON"), ("?q=x&filter=[]", "JSON object"), ("?q=x&weight=heavy", "weight must be"),
        ("?q=x&weight=0.5", "lexical_weight goes with"), ("?q=x&mode=hybrid&weight=7", "at most 1"),
        ("?q=x&offset=-1", "offset must be"), ("?q=x&in.lang=en", "as JSON"), ("?q=x&in.lang=[1]", "as JSON"),
        ("?q=x&in.$and=1", "$and"), ("?q=x&in.=1", ""), ("?q=x" + "&in.a=1" * 101, "at most 100"),
        ("?q=" + "x" * 20_001, "20,000"), ("?q=x&in.a=" + "[" * 9000, "as JSON"),
    ],
)  # fmt: skip
async def test_what_is_wrong_in_an_address_is_said_on_the_page(
    client: httpx.AsyncClient, address: str, named: str
) -> None:
    answer = await client.get(f"/{address}")
    if not named:
        assert answer.status_code in (200, 422)
        return
    assert answer.status_code == 422
    alert = Elements(answer.text[answer.text.index('role="alert"') :]).text
    assert named in alert


async def test_a_document_and_its_explanation(client: httpx.AsyncClient) -> None:
    document = await page_of(client, "/document", id="dogs")
    for text in ("Dogs travel free.", "About dogs", "2021", "lang"):
        assert text in document.text
    explanation = await page_of(client, "/explain", q="boat price", id="ferry")
    assert "MaxSim" in explanation.text
    assert explanation.all("mark", tabindex="0")
    for path, params, status in (
        ("/document", {"id": "no"}, 404), ("/explain", {"q": "x", "id": "no"}, 404), ("/document", {}, 422),
        ("/explain", {"id": "ferry"}, 422), ("/explain", {"q": " ", "id": "ferry"}, 422),
        ("/document", {"id": "dogs", "x": "1"}, 422), ("/document", {"id": ["dogs", "ferry"]}, 422), ("/no", {}, 404),
    ):  # fmt: skip
        assert (await page_of(client, path, status, **params)).all("p", role="alert")


async def test_the_page_can_be_read_by_a_machine_that_reads_it_aloud(client: httpx.AsyncClient) -> None:
    page = await page_of(client, q="boat")
    assert page.all("html", lang="en")
    assert [len(page.all(tag)) for tag in ("header", "main", "footer", "h1")] == [1, 1, 1, 1]
    assert page.all("a", **{"class": "skip", "href": "#main"})
    assert page.all("form", role="search")
    assert page.all("p", role="status", **{"aria-live": "polite"})
    named = {one["for"] for one in page.all("label") if "for" in one}
    for tag in ("input", "textarea", "select"):
        for one in page.all(tag):
            is_inside_a_label = one.get("type") in ("radio", "checkbox") or tag == "select"
            assert is_inside_a_label or one.get("aria-label") or one.get("id") in named, one
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


async def test_results_that_there_was_no_time_to_mark_are_shown(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_MARKING_S", -1.0)
    page = await page_of(client, q="boat")
    assert (len(page.all("article")), page.all("mark")) == (4, [])


async def test_a_document_that_goes_while_it_is_marked_is_shown_as_it_was_found(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def gone(*_: Any, **__: Any) -> Any:
        raise ValueError("There is no document")

    monkeypatch.setattr("late_interaction.types.SearchResult.aexplain", gone)
    page = await page_of(client, q="boat")
    assert (len(page.all("article")), page.all("mark")) == (4, [])


async def test_without_words_the_whole_text_is_shown(tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents(
            [{"content": "plain text", "doc_id": "p"}, {"content": " ", "doc_id": "e"}]
        )
        async with client_of(pipeline) as client:
            page = await page_of(client, q="plain")
            assert "plain text" in page.text
            await page_of(client, "/document", id="e")
            assert "is blank" in (await page_of(client, "/explain", 422, q="plain", id="e")).text


@pytest.mark.slow
async def test_pages_of_a_visual_model_have_heat_maps(visual_model: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.effect_noise((80, 60), 50).save(tmp_path / "page.png")
    model = ColPaliModel(visual_model, device="cpu")
    async with LateInteractionPipeline(tmp_path / "db", model) as pipeline:
        await pipeline.index_document({"image": tmp_path / "page.png", "doc_id": "p", "content": "a page"})
        async with client_of(pipeline) as client:
            page = await page_of(client, q="a drawing")
            assert [str(one["src"]).partition(",")[0] for one in page.all("img")] == [
                "data:image/jpeg;base64", "data:image/png;base64"
            ]  # fmt: skip
            assert [one["alt"] for one in page.all("img")] == ["p: a page", "Its heat map"]
            explanation = await page_of(client, "/explain", q="a drawing", id="p")
            assert len(explanation.all("img", **{"class": "li-heat"})) >= 2


# --- the filter panel


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], {}),
        ([{"a": 1}, {"a": 1}], {}),
        ([{"a": 1}, {"a": 2}], {}),
        ([{"a": 1}, {"a": 2}, {"a": 1}], {"a": [1, 2]}),
        ([{"a": True}, {"a": 1}, {"a": "1"}, {"a": True}], {"a": [True, 1, "1"]}),
        ([{"a": ["x", "y"]}, {"a": ["y"]}], {"a": ["y", "x"]}),
        ([{"a": {"b": 1}}, {"a": {"b": 2}}, {"a": 1.5}, {"a": None}], {}),
        ([{"a": "x" * 61}, {"a": "x" * 61}, {"a": "y"}], {}),
        ([{"a": str(n // 2)} for n in range(40)], {}),
        ([{"image": n % 2, "thumbnail": n % 2, "$a": n % 2, "": n % 2} for n in range(9)], {}),
    ],
)
def test_which_fields_are_filters(rows: list[Mapping[str, Any]], expected: dict[str, list[Any]]) -> None:
    for found in ([], rows, rows[:1]):  # What was found is in the sample, and makes nothing come twice.
        shown = {one.field: [choice.value for choice in one.choices] for one in facets(rows, {}, found)}
        assert json.dumps(shown) == json.dumps(expected)


def test_what_is_chosen_is_the_filter() -> None:
    assert chosen_filter({}, None) is None
    assert chosen_filter({"a": [1, 2]}, {"b": 3}) == {"$and": [{"a": {"$in": [1, 2]}}, {"b": 3}]}


async def test_the_sample_is_bounded_kept_and_read_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with LateInteractionPipeline(tmp_path, HashModel()) as pipeline:
        await pipeline.index_documents(
            [{"content": f"text {n}", "lang": ("en", "de")[n % 2]} for n in range(60)]
        )
        asked: list[int] = []
        find = pipeline.find

        async def spy(*_: Any, limit: int, offset: int) -> Any:
            asked.append(offset)
            return await find(limit=limit, offset=offset)

        monkeypatch.setattr(pipeline, "find", spy)
        panel = Facets(pipeline)
        assert [choice.value for choice in (await panel.of_index())[0].choices] == ["en", "de"]
        assert [choice.value for choice in (await panel.of_index([{"lang": "fr"}]))[0].choices] == [
            "en",
            "de",
            "fr",
        ]
        assert asked == [0, 25, 50]
        panel.forget()
        monkeypatch.setattr(facets_module, "_CHARACTERS", 100)
        await panel.of_index()
        assert asked == [0, 25, 50, 0]
