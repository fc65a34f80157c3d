"""The HTTP API: what it is asked reaches the library whole, and what the library says comes back with its status."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from late_interaction import (
    ColBERTModel,
    ColPaliModel,
    IndexNotFoundError,
    LateInteractionPipeline,
    LocalStore,
    ModelError,
    RowOptions,
    SearchOptions,
    StoreError,
    StoreLockedError,
)
from late_interaction.images.storing import StoreImages
from tests.support.colours import ColourModel, picture
from tests.support.models import HashModel
from tests.unit.test_options import ROW, SEARCH

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from late_interaction.serving.answers import AddRequest, SearchRequest
from tests.support.serving import client_of

ROWS = [
    {"doc_id": "a/1 ?#ü", "content": "boats leave at nine", "lang": "en", "year": 2001},
    {"doc_id": "b", "content": "dogs travel free", "lang": "en", "year": 2002},
    {"doc_id": "c", "content": "die boote fahren", "lang": "de", "year": 2003},
]


@pytest_asyncio.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[LateInteractionPipeline]:
    async with LateInteractionPipeline(tmp_path / "db", HashModel()) as pipeline:
        await pipeline.index_documents(ROWS)
        yield pipeline


@pytest_asyncio.fixture
async def client(pipeline: LateInteractionPipeline) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(pipeline, allow_writes=True) as client:
        yield client


def refused(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    return problem


async def test_a_search_is_the_pipelines(
    pipeline: LateInteractionPipeline, client: httpx.AsyncClient
) -> None:
    for asked in (
        {"query": "boats nine"},
        {"query": "boats nine", "k": 1, "offset": 1},
        {"query": "boats", "mode": "lexical"},
        {"query": "boats", "mode": "hybrid", "lexical_weight": 0.8, "filter": {"year": {"$gte": 2002}}},
        {"query": "boats", "ids": ["b", "c"], "group_by": "lang", "distinct": True, "exact": True},
    ):
        answer = await client.post("/api/search", json=asked)
        assert answer.status_code == 200, answer.text
        options: Any = {name: value for name, value in asked.items() if name not in ("query", "k")}
        expected = await pipeline.search(asked["query"], asked.get("k", 10), **options)  # type: ignore[arg-type]
        found = answer.json()
        assert [(one["doc_id"], one["content"], one["metadata"]) for one in found["results"]] == [
            (one.doc_id, one.content, one.metadata) for one in expected
        ]
        for one, other in zip(found["results"], expected, strict=True):
            for name in ("score", "late_score", "lexical_score"):
                assert one[name] == pytest.approx(getattr(other, name))
            assert one["explanation"] is None
        assert found["stats"]["mode"] == asked.get("mode", "late")
        assert found["stats"]["n_scored"] == expected.stats.n_scored


async def test_every_option_of_a_search_is_handed_on(
    pipeline: LateInteractionPipeline, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SearchOptions.__annotations__.keys() | {"query", "image", "k", "explain"} == set(
        SearchRequest.model_fields
    )
    seen: list[dict[str, Any]] = []
    search = pipeline.search

    async def spy(query: Any, k: int, **options: Any) -> Any:
        seen.append(options)
        return await search(query, k, **options)

    monkeypatch.setattr(pipeline, "search", spy)
    assert (await client.post("/api/search", json={"query": "x"})).status_code == 200
    assert seen.pop() == {}  # The defaults are the library's.
    for name, value in SEARCH.items():
        asked = {"query": "x", name: value, **({"mode": "hybrid"} if name == "lexical_weight" else {})}
        assert (await client.post("/api/search", json=asked)).status_code == 200
        assert seen.pop()[name] == value


async def test_every_option_of_adding_is_handed_on(
    pipeline: LateInteractionPipeline, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A progress bar would show on the server's terminal.
    assert RowOptions.__annotations__.keys() - {"show_progress"} | {"documents"} == set(
        AddRequest.model_fields
    )
    seen: list[dict[str, Any]] = []
    index = pipeline.index_documents

    async def spy(rows: Any, **options: Any) -> Any:
        seen.append(options)
        return await index(rows, **options)

    monkeypatch.setattr(pipeline, "index_documents", spy)
    documents = [{"content": "new"}]
    for name, value in ROW.items():
        answer = await client.post("/api/documents", json={"documents": documents, name: value})
        if name == "show_progress":
            assert "show_progress" in refused(answer, 422)["detail"]
        else:
            assert answer.status_code == 200
            assert seen.pop() == {name: value}


async def test_explanations_are_the_pipelines(minilm: ColBERTModel, tmp_path: Path) -> None:
    async with LateInteractionPipeline(tmp_path, minilm) as pipeline:
        await pipeline.index_documents([{"doc_id": "a", "content": "Tickets for the boat cost four euros."}])
        async with client_of(pipeline) as client:
            explained = (
                await client.post("/api/explain", json={"query": "boat price", "doc_id": "a"})
            ).json()
            searched = await client.post("/api/search", json={"query": "boat price", "explain": True})
            expected = json.loads(json.dumps((await pipeline.explain("boat price", "a")).to_dict()))
    for explanation in (explained, searched.json()["results"][0]["explanation"]):
        assert explanation.keys() == expected.keys()
        assert explanation["words"] == expected["words"]
        assert explanation["pairs"] == expected["pairs"]
        parts = sum(pair["contribution"] for pair in explanation["pairs"])
        assert parts == pytest.approx(searched.json()["results"][0]["score"], abs=1e-4)


async def test_documents_are_read_by_page_and_by_id(client: httpx.AsyncClient) -> None:
    page = (await client.get("/api/documents", params={"limit": 2})).json()
    rest = (await client.get("/api/documents", params={"limit": 2, "offset": 2})).json()
    assert [one["doc_id"] for one in page["documents"] + rest["documents"]] == [row["doc_id"] for row in ROWS]
    assert page["total"] == rest["total"] == 3
    matching = (await client.get("/api/documents", params={"filter": '{"lang": "de"}'})).json()
    assert (matching["total"], matching["documents"][0]["doc_id"]) == (1, "c")
    for row in ROWS:
        document = (await client.get("/api/document", params={"id": row["doc_id"]})).json()
        assert (document["content"], document["metadata"]["year"]) == (row["content"], row["year"])
    assert "no document 'z'" in refused(await client.get("/api/document", params={"id": "z"}), 404)["detail"]


async def test_documents_are_added_and_deleted(client: httpx.AsyncClient) -> None:
    documents = [
        {"doc_id": 7, "content": "seven swans", "metadata": {"tags": ["x"], "when": "2024-05-01"}},
        {"content": "eight geese"},
    ]
    added = (await client.post("/api/documents", json={"documents": documents})).json()
    assert added["ids"][0] == "7"
    assert (added["truncated"], added["failures"]) == ({}, [])
    found = (await client.post("/api/search", json={"query": "seven swans", "k": 1})).json()["results"][0]
    assert (found["doc_id"], found["metadata"]) == ("7", {"tags": ["x"], "when": "2024-05-01"})
    by_id = await client.post("/api/documents/delete", json={"ids": [7, "not there"]})
    assert by_id.json() == {"deleted": 1}
    by_filter = await client.post("/api/documents/delete", json={"filter": {"lang": "en"}})
    assert by_filter.json() == {"deleted": 2}
    assert (await client.delete("/api/document", params={"id": "c"})).json() == {"deleted": 1}
    refused(await client.delete("/api/document", params={"id": "c"}), 404)
    assert (await client.get("/api/documents")).json()["total"] == 1


async def test_documents_that_fail_are_named(client: httpx.AsyncClient) -> None:
    documents = [{"content": "fine", "doc_id": "ok"}, {"content": "unencodable", "doc_id": "bad"}]
    problem = refused(await client.post("/api/documents", json={"documents": documents}), 422)
    assert [(one["row"], one["doc_id"]) for one in problem["failures"]] == [(1, "bad")]
    assert problem["indexed"] == ["ok"]
    skipped = (await client.post("/api/documents", json={"documents": documents, "on_error": "skip"})).json()
    assert (skipped["ids"], skipped["failures"][0]["doc_id"]) == (["ok"], "bad")


async def test_read_only_refuses_each_write(pipeline: LateInteractionPipeline) -> None:
    async with client_of(pipeline) as client:
        for answer in (
            await client.post("/api/documents", json={"documents": [{"content": "x"}]}),
            await client.post("/api/documents/delete", json={"ids": ["b"]}),
            await client.delete("/api/document", params={"id": "b"}),
        ):
            assert "--allow-writes" in refused(answer, 403)["detail"]
        described = (await client.get("/api/index")).json()
        assert (described["documents"], described["writes"]) == (3, False)
        assert described["modes"] == ["late", "hybrid", "lexical"]
        assert described["fields"] == {"lang": ["en", "de"]}
        assert (await client.get("/api/health")).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("path", "asked", "named"),
    [
        ("search", {"query": "x", "filtre": {}}, "body.filtre"),
        ("search", {"query": "x", "k": "3"}, "body.k"),
        ("search", {"query": "x", "k": True}, "body.k"),
        ("search", {"query": "x", "k": 0}, "body.k"),
        ("search", {"query": "x", "k": 1001}, "body.k"),
        ("search", {"query": "x", "k": 101, "explain": True}, "100"),
        ("search", {"query": "x" * 20_001}, "body.query"),
        ("search", {}, "either query or image"),
        ("search", {"query": "x", "image": "aGk="}, "either query or image"),
        ("search", {"query": "  "}, "empty"),
        ("search", {"query": "\ud800"}, "unicode"),
        ("search", {"image": "/etc/passwd"}, "base64"),
        ("search", {"image": "aGk="}, "encodes text"),
        ("search", {"query": "x", "filter": {"year": {"$gt": {}}}}, "filter['year']['$gt']"),
        ("search", {"query": "x", "filter": {"\ud800": {"$g": 1}}}, "filter"),
        ("search", {"query": "x", "lexical_weight": 0.5}, "lexical_weight goes with"),
        ("search", {"query": "x", "mode": "words"}, "body.mode"),
        ("search", {"query": "x", "ids": ["a"], "n_ann_tokens": 4}, "n_ann_tokens"),
        ("explain", {"query": "x"}, "body.doc_id"),
        ("explain", {"query": "x", "doc_id": ""}, "doc_id"),
        ("documents", {"documents": []}, "body.documents"),
        ("documents", {"documents": [{"content": "x", "year": 1}]}, "body.documents.0.year"),
        ("documents", {"documents": [{"content": "x", "metadata": {"image": "/etc/passwd"}}]}, "'image'"),
        ("documents", {"documents": [{"content": "x", "metadata": {"content_type": "image"}}]}, "'content_type'"),
        ("documents", {"documents": [{"image": "/etc/passwd"}]}, "base64"),
        ("documents", {"documents": [{}]}, "no 'content'"),
        ("documents/delete", {"ids": ["a"], "filter": {"x": 1}}, "either ids or filter"),
        ("documents/delete", {"filter": {}}, "empty filter"),
        ("documents/delete", {"filter": None}, "either ids or filter"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_named_and_nothing_is_ignored(
    client: httpx.AsyncClient, path: str, asked: dict[str, Any], named: str
) -> None:
    body = json.dumps(asked).encode()
    answer = await client.post(f"/api/{path}", content=body, headers={"content-type": "application/json"})
    problem = refused(answer, 422)
    assert named in problem["detail"]
    assert "/etc/passwd" not in answer.text
    assert (await client.get("/api/documents")).json()["total"] == 3


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("documents?size=3", "'size'"),
        ("documents?limit=3&limit=4", "limit is given twice"),
        ("documents?limit=0", "query.limit"),
        ("documents?limit=1001", "query.limit"),
        ("documents?offset=-1", "query.offset"),
        ("documents?filter=x", "not JSON"),
        ("documents?filter=[]", "JSON object"),
        ("documents?filter=" + "[" * 5000, "not JSON"),
        ("document", "query.id"),
        ("health?x=1", "'x'"),
        ("index?token=1", "'token'"),
    ],
)
async def test_a_wrong_parameter_is_named(client: httpx.AsyncClient, path: str, named: str) -> None:
    assert named in refused(await client.get(f"/api/{path}"), 422)["detail"]


async def test_what_is_no_json_and_what_is_nowhere_are_problems_too(client: httpx.AsyncClient) -> None:
    json_type = {"content-type": "application/json"}
    refused(await client.post("/api/search", content=b"{", headers=json_type), 422)
    refused(await client.post("/api/search?k=3", json={"query": "x"}), 422)
    refused(
        await client.post("/api/search", content=b'{"query": "x"}', headers={"content-type": "text/plain"}),
        422,
    )
    deep = b'{"query": "x", "filter": ' + b"[" * 100_000
    refused(await client.post("/api/search", content=deep, headers=json_type), 400)
    refused(await client.get("/api/nothing"), 404)
    refused(await client.get("/api/documents/"), 404)
    refused(await client.get("/api/search"), 405)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreError("the disk is full"), 503),
        (StoreLockedError("somebody writes"), 503),
        (IndexNotFoundError("it is gone"), 503),
        (ModelError("no such layer"), 500),
    ],
)
async def test_errors_of_ours_have_their_status(
    pipeline: LateInteractionPipeline,
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(pipeline, "search", fail)
    answer = await client.post("/api/search", json={"query": "x"})
    assert refused(answer, status)["detail"] == str(error)
    assert ("retry-after" in answer.headers) == isinstance(error, StoreLockedError)


async def test_a_fault_of_ours_says_nothing_of_the_inside(
    pipeline: LateInteractionPipeline, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("a secret")

    monkeypatch.setattr(pipeline, "count", fail)
    answer = await client.get("/api/health")
    assert "secret" not in answer.text
    refused(answer, 500)
    page = await client.get("/")
    assert (page.status_code, page.headers["content-type"]) == (500, "text/html; charset=utf-8")


class WithoutWords(LocalStore):
    async def lexical(self, *_: Any, **__: Any) -> Any:
        raise StoreError("there is no index of words")


async def test_without_an_index_of_words_there_is_no_switch(tmp_path: Path) -> None:
    async with client_of(LateInteractionPipeline(WithoutWords(tmp_path), HashModel())) as client:
        assert (await client.get("/api/index")).json()["modes"] == ["late"]
        answer = await client.post("/api/search", json={"query": "x", "mode": "hybrid"})
        assert "late-interaction optimize" in refused(answer, 422)["detail"]
        assert 'name="mode"' not in (await client.get("/")).text


async def test_images_are_added_and_searched_with_but_never_read_from_the_servers_files(
    tmp_path: Path,
) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    file = io.BytesIO()
    picture("red").save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    picture("blue").save(tmp_path / "blue.png")
    pipeline = LateInteractionPipeline(tmp_path / "db", ColourModel(), store_images="thumbnail")
    async with client_of(pipeline, allow_writes=True) as client:
        documents = [
            {"doc_id": "r", "image": f"data:image/png;base64,{image}", "content": "a caption"},
            {"doc_id": "t", "content": "blue blue"},
        ]
        assert (await client.post("/api/documents", json={"documents": documents})).status_code == 200
        found = (await client.post("/api/search", json={"image": image, "k": 1})).json()["results"][0]
        assert (found["doc_id"], found["content_type"], found["content"]) == ("r", "image", "a caption")
        assert found["metadata"].keys() == {"image", "thumbnail"}
        assert found["metadata"]["image"] == f"sent:{hashlib.sha256(file.getvalue()).hexdigest()}"
        for source in (
            str(tmp_path / "blue.png"),
            "blue.png",
            "http://127.0.0.1/x.png",
            "file:///etc/passwd",
        ):
            answer = await client.post("/api/documents", json={"documents": [{"image": source}]})
            refused(answer, 422)
        assert "data:image/jpeg" in (await client.get("/", params={"q": "red"})).text


@pytest.mark.slow
@pytest.mark.parametrize("kept", ["reference", "thumbnail", "full"])
async def test_a_caption_that_is_a_path_opens_no_file(
    visual_model: Path, tmp_path: Path, kept: StoreImages
) -> None:
    from PIL import Image

    secret, sent = tmp_path / "secret.png", io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(secret)
    Image.effect_noise((64, 64), 50).save(sent, "PNG")
    model = ColPaliModel(visual_model, device="cpu")
    pipeline = LateInteractionPipeline(tmp_path / "db", model, store_images=kept)
    async with client_of(pipeline, allow_writes=True) as client:
        image = base64.b64encode(sent.getvalue()).decode()
        row = {"doc_id": "x", "image": image, "content": str(secret)}
        assert (await client.post("/api/documents", json={"documents": [row]})).status_code == 200
        explained = (await client.post("/api/explain", json={"query": "red", "doc_id": "x"})).json()
        assert any("cannot be read again" in note for note in explained["notes"]) == (kept != "full")
        patches = (await pipeline.explain("red", "x")).patches
        assert (patches is None) == (kept != "full")
        if patches is not None:
            assert patches.image.getcolors(1) is None  # It is the one that was sent, which has many.


async def test_the_openapi_document_names_every_field(client: httpx.AsyncClient) -> None:
    spec = (await client.get("/api/openapi.json")).json()
    assert set(spec["paths"]) == {
        "/api/health", "/api/index", "/api/search", "/api/explain", "/api/documents", "/api/document",
        "/api/documents/delete",
    }  # fmt: skip
    schemas = spec["components"]["schemas"]
    for name in SearchOptions.__annotations__:
        described = schemas["SearchRequest"]["properties"][name]
        assert described["description"], name
    assert schemas["SearchRequest"]["additionalProperties"] is False
    assert "application/problem+json" in spec["paths"]["/api/search"]["post"]["responses"]["422"]["content"]


async def test_what_json_has_not_comes_back_as_null(client: httpx.AsyncClient) -> None:
    body = b'{"documents": [{"doc_id": "n", "content": "x", "metadata": {"a": NaN}}]}'
    added = await client.post("/api/documents", content=body, headers={"content-type": "application/json"})
    assert added.status_code == 200
    assert (await client.get("/api/document", params={"id": "n"})).json()["metadata"] == {"a": None}
