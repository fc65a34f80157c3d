"""docs/filters.md says what is so: its filters are filters, its operators all there are, its code runs."""

from __future__ import annotations

import re
from pathlib import Path

from late_interaction import SyncPipeline
from late_interaction.filters import _ON_FIELDS, parse_filter
from tests.support.models import HashModel
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "filters.md").read_text(encoding="utf-8")


def test_the_filters_of_the_table_are_filters_and_no_operator_is_missing() -> None:
    rows = re.findall(r"^\| (`\$.*|`\"\$content\".*) \|$", PAGE, re.MULTILINE)
    examples = [re.findall(r"`(\{.*?\})` *$", row) for row in rows]
    assert len(rows) == len([example for example in examples if example]) >= 12
    for [example] in examples:
        assert parse_filter(eval(example)) is not None
    named = set(re.findall(r"`(\$\w+)`", "\n".join(row.split(" | ")[0] for row in rows)))
    assert named == {*_ON_FIELDS, "$and", "$or"}


def test_its_code_runs(tmp_path: Path) -> None:
    with SyncPipeline(tmp_path, HashModel()) as pipeline:
        pipeline.index_documents([{"doc_id": "a", "content": "x", "lang": "en", "draft": True}])
        for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(block, {"pipeline": pipeline})
        assert pipeline.get_documents(["a"])[0].metadata == {"year": 2001}
