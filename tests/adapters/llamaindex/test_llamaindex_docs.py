"""The documentation of the LlamaIndex adapter: its code runs, and the tests that it calls on exist."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings

from tests.support.colours import ColourModel, picture
from tests.support.models import HashModel
from tests.support.paths import ROOT
from tools.data_api import run_in_thread

PAGE = (ROOT / "docs" / "llamaindex.md").read_text(encoding="utf-8")
VISUAL = '"vidore/colqwen2-v1.0"'
MODEL = '"answerdotai/answerai-colbert-small-v1"'


@pytest.mark.slow
def test_the_code_runs_in_its_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("PIL", reason="the colpali extra is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Settings, "_embed_model", None)
    picture("red", "blue").save("mill.png")
    picture("white").save("map.png")
    assert re.findall(r"```(?!python)(.+)\n", PAGE) == []
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {"model": HashModel(), "visual": ColourModel()}
    stores = []
    with run_in_thread() as server:
        monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", server.endpoint)
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", server.token)
        try:
            for block in blocks:
                if block.startswith("# Astra"):
                    assert names["store"].client.count() == 2  # One of the index, one of the pipeline.
                exec(
                    block.replace(f"ColBERTModel({MODEL})", "model")
                    .replace(MODEL, "model")
                    .replace(VISUAL, "visual"),
                    names,
                )
                if not any(names["store"] is store for store in stores):
                    stores.append(names["store"])
            assert [one.node.ref_doc_id for one in names["found"]] == ["dogs"]
            assert len(names["shown"]) == 1
            # The index and the pipeline each stored a node; the retriever of LlamaIndex 0.13 leaves out equal ones.
            assert {one.node.ref_doc_id for one in names["nodes"]} == {"dogs"}
            assert [one.node_id for one in names["alike"]] == ["mill"]
            assert names["diverse"].retrieve("house") == []
            names["pipeline"].vector_store = names["store"]
            names["pipeline"].docstore = None
            names["pipeline"].run(documents=names["documents"])
            assert [one.node.ref_doc_id for one in names["diverse"].retrieve("house")] == ["dogs"]
            assert "The dog guards the house." in str(names["engine"].query("Who guards the house"))
        finally:
            for store in stores:
                store.close()
    assert len(stores) == 2
