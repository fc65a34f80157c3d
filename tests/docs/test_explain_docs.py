"""What docs/explain.md shows works as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

from late_interaction.explain import Explanation
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        exec(compile(block, "docs/explain.md", "exec"), names)
    names["index"].close()
    printed = capsys.readouterr().out
    assert "Tickets for the boat" in printed
    assert "<mark" in (tmp_path / "why.html").read_text(encoding="utf-8")
    fields = set(
        re.findall(r"^\| (`.*?`) \|", PAGE.split("## What is in it")[1].split("Each of")[0], re.MULTILINE)
    )
    for name in re.findall(r"`(\w+)`", " ".join(fields)):
        assert name in dir(names["explanation"]), name
    assert isinstance(names["explanation"], Explanation)
