"""docs/comparison.md: the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.paths import ROOT


def test_the_tests_that_the_tables_name_exist() -> None:
    page = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8")
    for name, least in (("langchain", 20), ("llamaindex", 20)):
        section = re.split(r"^## ", page, flags=re.MULTILINE)
        (table,) = [part for part in section if part.lower().startswith(name)]
        named = set(re.findall(r"`(test_\w+|Test\w+)`", table))
        tests = "".join(
            path.read_text(encoding="utf-8") for path in (Path(__file__).parent / name).glob("test_*.py")
        )
        assert len(named) > least
        assert {one for one in named if not re.search(rf"(def|class) {one}\b", tests)} == set()
