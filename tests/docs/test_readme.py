"""What the README shows works as it stands."""

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from late_interaction.cli import app
from tests.support import checkpoints
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoints.stanford_checkpoint(tmp_path_factory.mktemp("readme") / "model")


def run(example: str, model: Path, **names: object) -> dict[str, object]:
    code = example.replace("answerdotai/answerai-colbert-small-v1", str(model))
    exec(compile(code, "README.md", "exec"), names)
    return names


@pytest.mark.slow
def test_the_two_lines_to_start_with_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(blocks("python")[0], names)
    names["index"].close()
    assert capsys.readouterr().out == "Apple pie with cinnamon\n"


@pytest.mark.slow
def test_the_python_example_runs(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(blocks("python")[1], model)
    printed = capsys.readouterr().out
    assert "Content: This is a sample document for testing late interaction retrieval." in printed
    assert (tmp_path / "my_index").is_dir()


def test_the_langchain_example_runs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = run(blocks("python")[2], model)
    with closing(names["store"]):
        found = names["retriever"].invoke("cats")
        assert {document.id for document in found} == {"1", "2"}


def test_the_llamaindex_example_runs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llama_index.core.llms import MockLLM
    from llama_index.core.schema import TextNode

    monkeypatch.chdir(tmp_path)
    names = run(blocks("python")[3], model, my_llm=MockLLM())
    with closing(names["store"]):
        names["store"].add([TextNode(text="Cats chase mice.", id_="1")])
        assert [found.node_id for found in names["engine"].query("cats").source_nodes] == ["1"]


def test_every_command_shown_is_there() -> None:
    commands = set(re.findall(r"^.*?late-interaction ([a-z]+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert commands >= {"demo", "index", "search", "info", "eval"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0


def test_ci_runs_both_commands() -> None:
    commands = re.findall(r"^pip install uv && (.*)$", "\n".join(blocks("sh")), flags=re.MULTILINE)
    assert len(commands) == 2
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in commands:
        assert re.search(rf"^(\w+=\S+ )?{re.escape(command)}( |$)", ci, flags=re.MULTILINE)
