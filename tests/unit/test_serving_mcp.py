"""The MCP server, asked by the SDK's own client: in this process, and as a process of its own over stdio."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from late_interaction import ColBERTModel, LateInteractionPipeline, SearchOptions
from tests.support.colours import ColourModel, picture
from tests.support.commands import run
from tests.support.models import HashModel

pytest.importorskip("mcp", reason="the mcp extra is not installed")

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.memory import create_connected_server_and_client_session

from late_interaction.serving.served import Served
from late_interaction.serving.tools import make_server

ROWS = [
    {"doc_id": "a", "content": "boats leave at nine", "lang": "en"},
    {"doc_id": "b", "content": "dogs travel free", "lang": "en"},
    {"doc_id": "c", "content": "die boote fahren", "lang": "de"},
]


@asynccontextmanager
async def client_of(pipeline: LateInteractionPipeline) -> AsyncIterator[ClientSession]:
    async with pipeline, create_connected_server_and_client_session(make_server(Served(pipeline))) as client:
        yield client


async def answer_of(client: ClientSession, tool: str, **arguments: Any) -> Any:
    """What a tool answers, which is the same in its text."""
    result = await client.call_tool(tool, arguments)
    assert not result.isError, result.content
    assert json.loads(result.content[0].text) == result.structuredContent  # type: ignore[union-attr]
    return result.structuredContent


async def refusal_of(client: ClientSession, tool: str, arguments: dict[str, Any]) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.isError
    [content] = result.content
    return str(content.text)  # type: ignore[union-attr]


async def test_the_tools_say_what_they_take_and_that_they_only_read(tmp_path: Path) -> None:
    async with client_of(LateInteractionPipeline(tmp_path, HashModel())) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert set(tools) == {"search", "get_document", "explain"}
    for tool in tools.values():
        assert tool.annotations is not None
        assert tool.annotations.readOnlyHint
        assert tool.inputSchema["additionalProperties"] is False
        assert tool.description
    offered = tools["search"].inputSchema["properties"]
    assert set(offered) == {"query", "image", "k", *SearchOptions.__annotations__}
    assert all(one.get("description") for one in offered.values())


async def test_the_tools_answer_as_the_pipeline_does(minilm: ColBERTModel, tmp_path: Path) -> None:
    pipeline = LateInteractionPipeline(tmp_path, minilm)
    async with client_of(pipeline) as client:
        await pipeline.index_documents(ROWS)
        asked: dict[str, Any] = {"k": 2, "filter": {"lang": "en"}, "mode": "hybrid", "lexical_weight": 0.7}
        found = await answer_of(client, "search", query="boat departure", **asked)
        expected = await pipeline.search("boat departure", **asked)
        assert [one["doc_id"] for one in found["results"]] == [one.doc_id for one in expected]
        assert found["results"][0]["score"] == pytest.approx(expected[0].score)
        document = await answer_of(client, "get_document", doc_id="c")
        assert document == {
            "doc_id": "c", "content": "die boote fahren", "content_type": "text", "metadata": {"lang": "de"}
        }  # fmt: skip
        why = await answer_of(client, "explain", query="boat departure", doc_id="a")
        assert sum(word["contribution"] for word in why["words"]) == pytest.approx(why["score"], abs=1e-4)
        assert {"boats", "leave"} <= {word["text"] for word in why["words"]}


async def test_what_is_wrong_is_told_and_nothing_is_ignored(tmp_path: Path) -> None:
    pipeline = LateInteractionPipeline(tmp_path, HashModel())
    async with client_of(pipeline) as client:
        await pipeline.index_documents(ROWS)
        for tool, arguments, named in (
            ("search", {"query": "x", "filtre": {}}, "filtre"),
            ("search", {"query": "x", "k": "3"}, "'3'"),
            ("search", {"query": "x", "k": 0}, "0"),
            ("search", {"query": "x", "explain": True}, "explain"),
            ("search", {}, "either query or image"),
            ("search", {"query": " "}, "empty"),
            ("search", {"query": "x", "filter": {"a": {"$x": 1}}}, "$x"),
            ("search", {"image": "/etc/passwd"}, "base64"),
            ("get_document", {"doc_id": "z"}, "no document 'z'"),
            ("get_document", {}, "doc_id"),
            ("explain", {"query": "x", "doc_id": "z"}, "no document 'z'"),
            ("drop", {}, "no tool 'drop'"),
        ):
            assert named in await refusal_of(client, tool, arguments), (tool, arguments)
        assert await pipeline.count() == 3


async def test_a_picture_is_a_picture_and_not_among_the_texts(tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    pipeline = LateInteractionPipeline(tmp_path, ColourModel(), store_images="thumbnail")
    async with client_of(pipeline) as client:
        await pipeline.index_document({"doc_id": "p", "image": picture("red"), "content": "a caption"})
        found = await answer_of(client, "search", query="red")
        assert found["results"][0]["metadata"] == {}
        read = await client.call_tool("get_document", {"doc_id": "p"})
        assert [content.type for content in read.content] == ["text", "image"]
        shown: Any = read.content[1]
        assert shown.mimeType == "image/jpeg"
        assert base64.b64decode(shown.data)[:2] == b"\xff\xd8"


@pytest.fixture
def db(tmp_path: Path, text_model: Path) -> Path:
    (tmp_path / "notes.md").write_text("# The wing\n\nFlow of heat over the wing.\n")
    run("index", tmp_path / "notes.md", "--db", tmp_path / "db", "--model", text_model, code=0)
    return tmp_path / "db"


@pytest.mark.slow
async def test_a_client_starts_it_as_a_process_of_its_own(db: Path, tmp_path: Path, text_model: Path) -> None:
    command = ["-c", "from late_interaction.cli import main; main()"]
    started = StdioServerParameters(
        command=sys.executable,
        args=[*command, "mcp", "--db", str(db), "--model", str(text_model)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    log = tmp_path / "log"
    with log.open("w") as errors:
        async with (
            stdio_client(started, errlog=errors) as (reads, writes),
            ClientSession(reads, writes) as client,
        ):
            about = await client.initialize()
            assert about.serverInfo.name == "late-interaction"
            assert "late_interaction" in str(about.instructions)
            found = await answer_of(client, "search", query="wing", k=1)
            assert len(found["results"]) == 1
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the client goes", "Ctrl-C"])
def test_it_ends_when_it_is_told_to(db: Path, text_model: Path, how: str) -> None:
    code = "from late_interaction.cli import main; main()"
    command = [sys.executable, "-c", code, "mcp", "--db", str(db), "--model", str(text_model)]
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}},
    }  # fmt: skip
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(hello) + "\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["id"] == 1
        if how == "Ctrl-C":
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == -signal.SIGINT
        else:
            process.stdin.close()
            assert process.wait(60) == 0


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run("mcp", "--db", tmp_path, code=1)
    assert "There is no index 'late_interaction'" in refused.stderr
    assert refused.stdout == ""
    monkeypatch.setitem(sys.modules, "mcp", None)
    assert run("mcp", "--db", tmp_path, code=1).output.endswith("pip install 'late-interaction[mcp]'\n")
