"""examples/fastapi_rag answers many requests at a time, with one model that encodes outside of the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from langchain_core.language_models import SimpleChatModel

from examples.fastapi_rag.app import app as served
from examples.fastapi_rag.app import create_app
from late_interaction import ColBERTModel
from late_interaction.types import FloatMatrix

pytestmark = pytest.mark.slow

ASKED = {
    "When does the boat leave for the mainland?": "ferry.md#1",
    "What does a ticket cost?": "ferry.md#2",
    "Where do puffins nest?": "birds.md#1",
    "When can I see the doctor?": "services.md#1",
}


@asynccontextmanager
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running service."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http,
    ):
        yield http


async def ask(http: httpx.AsyncClient, question: str, **more: Any) -> dict[str, Any]:
    response = await http.post("/ask", json={"question": question, **more})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def test_concurrent_requests_each_get_their_own_answer(
    tmp_path: Path, minilm: ColBERTModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = set()
    encode = minilm.encode_queries

    def encoding(queries: Sequence[str]) -> list[FloatMatrix]:
        threads.add(threading.get_ident())
        return encode(queries)

    monkeypatch.setattr(minilm, "encode_queries", encoding)
    async with client(create_app(tmp_path / "index", model=minilm)) as http:
        asked = list(ASKED) * 10
        answers = await asyncio.gather(*(ask(http, question) for question in asked))
    for question, answer in zip(asked, answers, strict=True):
        best = answer["sources"][0]
        assert best["doc_id"] == ASKED[question]
        assert answer["answer"] == f"The notes say: {' '.join(best['content'].split())} [1]"
        assert len(answer["sources"]) == 3
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_a_stream_has_the_sources_first_and_then_the_answer(
    tmp_path: Path, minilm: ColBERTModel
) -> None:
    question = "What does a ticket cost?"
    async with client(create_app(tmp_path / "index", model=minilm)) as http:
        whole = await ask(http, question, k=1)
        async with http.stream("POST", "/ask/stream", json={"question": question, "k": 1}) as response:
            first, *pieces = [json.loads(line) async for line in response.aiter_lines()]
    assert first == {"sources": whole["sources"]}
    assert len(pieces) > 5
    assert "".join(piece["text"] for piece in pieces).split() == whole["answer"].split()


async def test_filters_and_wrong_requests(tmp_path: Path, minilm: ColBERTModel) -> None:
    async with client(create_app(tmp_path / "index", model=minilm)) as http:
        found = await ask(http, "What does a ticket cost?", filter={"source": "birds.md"})
        assert [source["metadata"]["source"] for source in found["sources"]] == ["birds.md"]
        nothing = await ask(http, "What does a ticket cost?", filter={"source": "there is none"})
        assert nothing == {"answer": "The notes do not tell.", "sources": []}
        for wrong in (
            {"question": " "},
            {"question": "x", "k": 0},
            {"question": "x", "filter": {"source": {"$no": 1}}},
        ):
            assert (await http.post("/ask", json=wrong)).status_code == 422
            assert (await http.post("/ask/stream", json=wrong)).status_code == 422
        assert "$no" in (await http.post("/ask", json=wrong)).json()["detail"]


async def test_your_files_and_your_llm(tmp_path: Path, minilm: ColBERTModel) -> None:
    class Loud(SimpleChatModel):
        @property
        def _llm_type(self) -> str:
            return "loud"

        def _call(self, messages: list[Any], *args: Any, **kwargs: Any) -> str:
            return messages[-1].text.upper()

    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("The lighthouse was built in 1905.")
    app = create_app(tmp_path / "index", files, minilm, Loud())
    async with client(app) as http:
        assert "THE LIGHTHOUSE WAS BUILT" in (await ask(http, "how old is it?"))["answer"]
    (files / "a.txt").write_text("The lighthouse was built in 1907.")
    async with client(app) as http:  # started again: what changed is encoded
        [source] = (await ask(http, "how old is it?"))["sources"]
    assert source["content"] == "The lighthouse was built in 1907."


def test_the_service_of_the_readme_says_what_it_takes() -> None:
    paths = served.openapi()["paths"]
    assert set(paths) == {"/ask", "/ask/stream"}
