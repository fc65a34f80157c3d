"""What the README shows works as it stands."""

import re
from pathlib import Path

import checkpoints
import pytest
from typer.testing import CliRunner

from late_interaction.cli import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = blocks("python")
    model = checkpoints.stanford_checkpoint(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    exec(
        compile(example.replace("answerdotai/answerai-colbert-small-v1", str(model)), "README.md", "exec"), {}
    )
    printed = capsys.readouterr().out
    assert "Content: This is a sample document for testing late interaction retrieval." in printed
    assert (tmp_path / "my_index").is_dir()


def test_every_command_shown_is_there() -> None:
    commands = set(re.findall(r"^.*?late-interaction ([a-z]+)", "\n".join(blocks("sh")), flags=re.MULTILINE))
    assert commands >= {"demo", "index", "search", "info", "eval"}
    for command in commands:
        assert CliRunner().invoke(app, [command, "--help"]).exit_code == 0
