"""The page: the examples run."""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import langchain_lateint.embeddings
from late_interaction import LateInteractionModel
from tests.support.colours import ColourModel, picture
from tests.support.models import HashModel
from tests.support.paths import ROOT
from tools.data_api.server import DataApiServer

PAGE = (ROOT / "docs" / "langchain.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_pages_examples_run(
    server: DataApiServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")

    def named(name: str) -> LateInteractionModel:
        return ColourModel() if "colqwen" in name else HashModel(name=name)

    picture("red").save(tmp_path / "mill.jpg")
    picture("white").save(tmp_path / "map.png")

    monkeypatch.setattr(langchain_lateint.embeddings, "load_model", named)
    monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
    monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", server.endpoint)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 12
    assert re.findall(r"```(?!python)(.+)\n", PAGE) == []
    with ExitStack() as stores:
        for block in blocks:
            exec(compile(block, "docs/langchain.md", "exec"), names)
            for name in {"store", "cloud"} & names.keys():
                stores.enter_context(names[name])
        store = names["cloud"]
        assert [d.page_content for d in store.search_by_metadata({"lang": "en"})] == [
            "A red apple pie",
            "Pears in red wine",
        ]
        assert len(names["found"]) == 2
        assert "text" not in [d.id for d in names["found"]]
        assert names["alike"][0].id == "mill"
        assert names["alike"][0].metadata["thumbnail"].startswith("data:image/jpeg;base64,")
        assert [d.id for d in names["retriever"].invoke("apple", k=1)] == ["a"]
        assert {d.id for d in names["linked"]} == {"a", "b"}
        assert names["columns"]["ids"] == ["a", "b", "d"]
        assert [d.id for d in names["recent"]] == ["a", "b", "d"]
        assert {doc_id for _, _, doc_id in names["with_ids"]} <= {"a", "b", "d"}
        store.drop()
