"""docs/images.md: its code runs in its order, and its table of families is the one in the code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_code_runs_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")
    from PIL import Image

    from tests.support import pdfs
    from tests.support.visual_checkpoints import visual_checkpoint

    monkeypatch.chdir(tmp_path)
    visual_checkpoint(tmp_path / "model", "colqwen2")
    (tmp_path / "report.pdf").write_bytes(pdfs.pdf(pdfs.text("Revenue"), pdfs.DRAWING))
    Image.effect_noise((80, 60), 50).save("photo.jpg")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(block.replace('"vidore/colqwen2-v1.0"', '"model", device="cpu"'), names)
    assert [result.content for result in names["similar"]] == ["the old mill"]
    assert [len(results) for results in names["both"]] == [3, 3]
    assert names["both"][1][0].content == "the old mill"
    with Image.open("where.png") as drawn:
        assert drawn.size == (80, 60)


def test_the_table_of_families_is_whole() -> None:
    from late_interaction.encoders.colpali_families import FAMILIES

    rows = re.findall(r"^\| `([\w.-]+)`[^|]*\|[^|`]*`(\w+)`", PAGE.partition("## Models")[2], re.MULTILINE)
    assert rows == [(family.name, family.model) for family in FAMILIES]
