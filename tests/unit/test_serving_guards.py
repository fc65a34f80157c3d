"""Who may ask: names, pages of other sites, tokens, sizes; and what browsers are told."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from late_interaction import LateInteractionPipeline
from tests.support.models import HashModel

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from late_interaction.serving import guards
from late_interaction.serving.guards import Access, is_loopback
from tests.support.serving import LOCAL, client_of

TOKEN = "a-secret-of-ours"
OPEN = Access.to("0.0.0.0", TOKEN)


@pytest.fixture
def pipeline(tmp_path: Path) -> LateInteractionPipeline:
    return LateInteractionPipeline(tmp_path, HashModel())


@pytest_asyncio.fixture
async def local(pipeline: LateInteractionPipeline) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(pipeline, allow_writes=True) as client:
        yield client


@pytest_asyncio.fixture
async def guarded(pipeline: LateInteractionPipeline) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(pipeline, OPEN, allow_writes=True) as client:
        yield client


# --- what a server may be started with


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("token", [None, ""])
def test_other_machines_need_a_token(host: str, token: str | None) -> None:
    with pytest.raises(ValueError, match="LATE_INTERACTION_TOKEN"):
        Access.to(host, token)
    assert Access.to(host, TOKEN).token == TOKEN


def test_a_name_of_elsewhere_is_another_machine_too() -> None:
    with pytest.raises(ValueError, match=r"search\.example"):
        Access.to("127.0.0.1", None, ("search.example",))
    assert Access.to("127.0.0.1", None, ("LOCALHOST",)).token is None
    assert Access.to("127.0.0.1", TOKEN, ("search.example",)).hosts == {
        "127.0.0.1", "::1", "localhost", "search.example"
    }  # fmt: skip


@pytest.mark.parametrize("token", ["two words", "with\nline", "ümlaut", " "])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str) -> None:
    with pytest.raises(ValueError, match="ASCII") as raised:
        Access.to("127.0.0.1", token)
    assert token.strip() == "" or token not in str(raised.value)
    assert TOKEN not in repr(Access.to("127.0.0.1", TOKEN))


def test_what_loopback_is() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "", "192.0.2.1", "::")))
    for name in ("nowhere.invalid", "a" * 70 + ".b"):
        with pytest.raises(ValueError, match="no address"):
            is_loopback(name)


# --- names and pages


@pytest.mark.parametrize(
    ("host", "is_ours"),
    [
        ("127.0.0.1:8000", True), ("localhost:8000", True), ("LOCALHOST", True), ("[::1]:8000", True),
        ("localhost.", True), ("evil.example:8000", False), ("127.0.0.1.evil.example", False),
        ("localhost:8000@evil.example", False), ("", False), ("[::1", False), ("evil.example#@localhost", False),
    ],
)  # fmt: skip
async def test_a_name_that_was_made_to_mean_this_machine_is_refused(
    local: httpx.AsyncClient, host: str, is_ours: bool
) -> None:
    for path in ("/", "/api/index", "/api/health"):
        answer = await local.get(path, headers={"host": host})
        assert answer.status_code == (200 if is_ours else 421), answer.text


ELSEWHERE = [
    "https://evil.example",
    "null",
    "http://localhost:9999",
    "http://127.0.0.1:8000.evil.example",
    "http://[",
]


@pytest.mark.parametrize("access", [LOCAL, OPEN], ids=["local", "open"])
@pytest.mark.parametrize("origin", ELSEWHERE)
async def test_a_page_of_another_site_can_ask_nothing(
    pipeline: LateInteractionPipeline, access: Access, origin: str
) -> None:
    headers = {"origin": origin, "authorization": f"Bearer {TOKEN}"}
    async with client_of(pipeline, access, allow_writes=True) as asked:
        for answer in (
            await asked.get("/api/index", headers=headers),
            await asked.post("/api/search", json={"query": "x"}, headers=headers),
            await asked.post("/api/documents", json={"documents": [{"content": "x"}]}, headers=headers),
            await asked.delete("/api/document", params={"id": "x"}, headers=headers),
            await asked.options("/api/documents", headers=headers),
        ):
            assert answer.status_code == 403
            assert "access-control-allow-origin" not in answer.headers


async def test_our_own_page_may_and_a_link_may_be_followed(local: httpx.AsyncClient) -> None:
    own = {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert (await local.post("/api/search", json={"query": "x"}, headers=own)).status_code == 200
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await local.get("/", headers=link)).status_code == 200
    picture = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
    assert (await local.get("/?q=x", headers=picture)).status_code == 403
    other_port = {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
    assert (await local.get("/?q=x", headers=other_port)).status_code == 403
    form = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert (await local.post("/api/documents/delete", json={"ids": ["x"]}, headers=form)).status_code == 403


async def test_behind_a_proxy_the_proxys_page_is_our_own(pipeline: LateInteractionPipeline) -> None:
    access = Access.to("127.0.0.1", TOKEN, ("search.example",))
    headers = {
        "host": "search.example", "origin": "https://search.example", "authorization": f"Bearer {TOKEN}"
    }  # fmt: skip
    async with client_of(pipeline, access) as client:
        # The proxy speaks https to browsers, on a port that their Host header leaves out.
        assert (await client.post("/api/search", json={"query": "x"}, headers=headers)).status_code == 200
        assert (await client.get("/", headers={**headers, "host": "evil.example"})).status_code == 421


# --- tokens


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("given", "fits"),
    [
        (f"Bearer {TOKEN}", True), (f"bearer {TOKEN}", True), (basic("", TOKEN), True), (basic("me", TOKEN), True),
        (None, False), ("", False), (TOKEN, False), ("Bearer ", False), ("Bearer", False), (f"Bearer {TOKEN}x", False),
        (f"Bearer {TOKEN[:-1]}", False), (f"Token {TOKEN}", False), (basic(TOKEN, ""), False), ("Basic %%%", False),
        ("Basic /w==", False), ("Bearer \xfc", False),
    ],
)  # fmt: skip
async def test_the_token_opens_and_nothing_else(
    guarded: httpx.AsyncClient, given: str | None, fits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {} if given is None else {"authorization": given.encode("latin-1")}
    for path in ("/", "/api/index", "/api/openapi.json", "/page.js", "/document?id=x", "/nothing"):
        answer = await guarded.get(path, headers=headers)
        if fits:
            assert answer.status_code in (200, 404)
            continue
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Basic ")
        assert TOKEN not in answer.text
    assert (await guarded.get("/api/health")).json() == {"status": "ok"}
    assert TOKEN not in caplog.text


async def test_a_token_in_an_address_opens_nothing(guarded: httpx.AsyncClient) -> None:
    for name in ("token", "access_token"):
        assert (await guarded.get("/", params={name: TOKEN})).status_code == 401


async def test_a_token_is_asked_for_on_this_machine_too_where_there_is_one(
    pipeline: LateInteractionPipeline,
) -> None:
    async with client_of(pipeline, Access.to("127.0.0.1", TOKEN)) as client:
        assert (await client.get("/")).status_code == 401


# --- sizes and headers


async def test_a_request_that_is_too_large_is_refused(
    local: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "MAX_BODY", 1000)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    json_type = {"content-type": "application/json"}
    for content in (b" " * 1001, pieces()):
        answer = await local.post("/api/search", content=content, headers=json_type)
        assert (answer.status_code, answer.headers["content-type"]) == (413, "application/problem+json")
    lying = {**json_type, "content-length": "9" * 5000}
    assert (await local.post("/api/search", content=b"{}", headers=lying)).status_code == 413
    assert (await local.post("/api/search", json={"query": "x"})).status_code == 200


async def test_every_answer_tells_browsers_what_it_may_do(guarded: httpx.AsyncClient) -> None:
    signed = {"authorization": f"Bearer {TOKEN}"}
    for answer in (
        await guarded.get("/", headers=signed),
        await guarded.get("/api/index", headers=signed),
        await guarded.get("/nothing", headers=signed),
        await guarded.get("/"),
    ):
        policy = dict(
            part.strip().partition(" ")[::2] for part in answer.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["cache-control"] == "no-store"
