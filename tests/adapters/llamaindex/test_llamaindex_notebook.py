"""The notebook runs in .ci/run; here only that what is committed of it is whole and says nothing of a machine."""

from __future__ import annotations

import json
import re

from tests.support.paths import ROOT

NOTEBOOK = ROOT / "notebooks" / "llamaindex_pages.ipynb"


def test_the_notebook_is_committed_executed_and_without_a_machines_paths() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if "image/png" in output.get("data", {})]  # They are large.
    assert len(text) < 50_000
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert not re.search(r"/(tmp|root|home|Users|work|private|var)/|[A-Z]:\\\\", text)
