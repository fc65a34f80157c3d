"""docs/serving.md says what is so: its options, its requests, its limits, and its command answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer.main

from late_interaction import LateInteractionPipeline
from late_interaction.cli import app
from tests.support.models import HashModel
from tests.support.paths import ROOT

pytest.importorskip("fastapi", reason="the serve extra is not installed")

from late_interaction.serving import TOKEN_VARIABLE, answers, facets, guards, pages
from tests.support.serving import client_of

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def test_it_names_every_option() -> None:
    table = PAGE.split("| option | does |")[1].split("\n\n")[0]
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts} - {"--help"}
    assert set(re.findall(r"`(--[\w-]+)`", table)) == options


async def test_its_requests_are_all_there_are_and_its_command_answers(tmp_path: Path) -> None:
    async with client_of(LateInteractionPipeline(tmp_path, HashModel()), allow_writes=True) as client:
        paths = (await client.get("/api/openapi.json")).json()["paths"]
        there = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
        assert set(re.findall(r"^\| `([A-Z]+ /api/[a-z/]*)", PAGE, re.MULTILINE)) == there
        [(address, body)] = re.findall(r"^curl (\S+) --json '(.*)'$", PAGE, re.MULTILINE)
        row = {"content": "the price of a boat ticket", "metadata": {"lang": "en"}}
        await client.post("/api/documents", json={"documents": [row]})
        answer = await client.post(address, json=json.loads(body))
        assert len(answer.json()["results"]) == 1


def test_its_limits_are_those_of_the_code() -> None:
    assert f"{answers.MAX_QUERY:,} characters" in PAGE
    assert f"`k` {answers.MAX_K:,}" in PAGE
    assert f"{answers.MAX_ROWS:,} documents in a request" in PAGE
    assert f"a `k` of {answers.MAX_EXPLAINED} at most" in PAGE
    assert f"more than {guards.MAX_BODY // 1024**2} MB" in PAGE
    assert TOKEN_VARIABLE in PAGE
    assert f"the first {facets._SAMPLE} documents" in PAGE
    assert f"2 to {facets._VALUES} different values" in PAGE
    assert pages._MARKING_S == 5
