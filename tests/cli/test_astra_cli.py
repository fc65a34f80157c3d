"""The command line on an index in a database: `astra:NAME`, doctor, copies there and back."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from late_interaction import AstraStore, EncodedDocument, LateInteractionPipeline, LocalStore, StoreError
from late_interaction.stores.copying import copy_index, verify_copy
from tests.support import commands
from tests.support.models import HashModel
from tools.data_api import DataApiServer, Fault, run_in_thread

pytestmark = pytest.mark.slow


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[DataApiServer]:
    with run_in_thread() as running:
        monkeypatch.setenv("ASTRA_DB_API_ENDPOINT", running.endpoint)
        monkeypatch.setenv("ASTRA_DB_APPLICATION_TOKEN", running.token)
        monkeypatch.setenv("ASTRA_DB_KEYSPACE", running.keyspace)
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    async def fill() -> None:
        async with LateInteractionPipeline(tmp_path / "db", HashModel()) as pipeline:
            await pipeline.index_documents(
                [{"doc_id": f"d{i}", "content": f"word{i} and word{i + 1}", "n": i} for i in range(130)]
            )

    asyncio.run(fill())
    return tmp_path / "db"


run = partial(commands.run, code=0)


def test_there_and_back(server, folder, tmp_path):
    assert json.loads(run("copy", folder, "astra:copy", "--json").stdout) == {
        "location": f"astra:copy ({server.keyspace} at {server.endpoint.removeprefix('http://')})",
        "copied": 130,
    }
    info = json.loads(run("info", "--db", "astra:copy", "--json").stdout)
    assert (info["documents"], info["spec"]["encoder"]["family"]) == (130, "hash")
    assert "0 documents copied" in run("copy", folder, "astra:copy", "--skip-existing").stdout
    run("copy", "astra:copy", tmp_path / "back", "--json")

    async def results(db: Path) -> list[tuple[str, float, dict]]:
        async with LateInteractionPipeline(db, HashModel()) as pipeline:
            return [
                (r.doc_id, round(r.score, 4), r.metadata) for r in await pipeline.search("word7 word8", k=5)
            ]

    assert asyncio.run(results(tmp_path / "back")) == asyncio.run(results(folder))


def test_a_folder_in_step_and_deletions(server, text_model, tmp_path, monkeypatch):
    docs = tmp_path / "docs"
    (docs / "old").mkdir(parents=True)
    for name in ("a.txt", "b.txt", "old/c.txt", "old/d.txt"):
        (docs / name).write_text(f"the cat of {name}")
    given = ("--db", "astra:folder", "--model", text_model)
    assert json.loads(run("index", docs, *given, "--json").stdout)["documents"] == 4
    monkeypatch.setattr(sys.modules["late_interaction.cli.index"], "load_model", None)
    moved = docs.rename(tmp_path / "moved")
    assert "0 new, 0 changed, 4 unchanged, 0 removed" in run("index", moved, *given).stdout
    (moved / "b.txt").unlink()
    told = run("index", moved, *given).stdout
    assert "0 new, 0 changed, 3 unchanged, 1 removed. The index has 4. --prune deletes 1 documents" in told
    assert json.loads(run("index", moved, *given, "--prune", "--json").stdout)["deleted"] == ["b.txt#1"]

    def delete(*what: object) -> object:
        return json.loads(run("delete", *what, "--db", "astra:folder", "--yes", "--json").stdout)

    assert commands.run("delete", "a.txt#1", "--db", "astra:folder").exit_code == 1  # nobody answered
    assert delete("--source", "old/c.txt") == {"deleted": 1, "documents": 2}
    assert delete("--source", "old") == {"deleted": 1, "documents": 1}
    assert delete("--filter", '{"line": {"$gt": 5}}') == {"deleted": 0, "documents": 1}
    assert delete("a.txt#1", "none") == {"deleted": 1, "documents": 0}


def test_a_name_for_the_copy_is_for_folders(server, folder, tmp_path):
    assert "astra:other" in run("copy", folder, "astra:copy", "--to-name", "other", code=1).stderr
    assert server.log.requests == []
    run("copy", folder, tmp_path / "copy", "--to-name", "other")
    assert (tmp_path / "copy" / "other").is_dir()


def test_a_copy_goes_on_where_it_broke_off(server, folder):
    server.settings.faults = [
        Fault(
            "error_envelope",
            command="insertMany",
            table="copy_docs",
            nth=2,
            error_code="INVALID_DATABASE_QUERY",
        )
    ]
    failed = run("copy", folder, "astra:copy", code=1)
    assert "INVALID_DATABASE_QUERY" in failed.stderr
    server.settings.faults = []
    server.log.clear()
    run("copy", folder, "astra:copy", "--skip-existing")
    assert 0 < sum(r.rows_written for r in server.log.select("insertMany", "copy_docs")) < 130
    assert json.loads(run("info", "--db", "astra:copy", "--json").stdout)["documents"] == 130


def test_a_copy_that_is_not_one_is_noticed(server, folder):
    async def tamper(what: str) -> None:
        source, target = LocalStore(folder), AstraStore.from_environment(f"t_{what}")
        try:
            await source.open(await source.spec())
            await copy_index(source, target)
            await verify_copy(source, target)
            document = (await target.documents(["d3"]))[0]
            if what == "count":
                await target.delete(["d3"])
            elif what == "content":
                await target.update_metadata("d3", {"n": -1})
            else:
                matrix = np.eye(1, 32, dtype=np.float32)
                await target.upsert([EncodedDocument(document, matrix)])
            await verify_copy(source, target, sample=130)
        finally:
            await source.close()
            await target.close()

    for what, message in (
        ("count", "not complete"),
        ("content", "'d3' is another"),
        ("vectors", "'d3' has other scores"),
    ):
        with pytest.raises(StoreError, match=message):
            asyncio.run(tamper(what))


def test_doctor(server, folder):
    run("copy", folder, "astra:copy")
    assert "200" not in run("doctor", "astra:copy").stdout
    health = json.loads(run("doctor", "astra:copy", "--full", "--json").stdout)
    assert (health["healthy"], health["documents"], health["sampled"], health["recall"]) == (
        True,
        130,
        130,
        1.0,
    )
    server.database().get_table("copy_docs").delete_one({"doc_id": "d5"})
    young = run("doctor", "astra:copy", "--full").stdout
    assert "left alone, as a write may be under way: tokens of 1 documents" in " ".join(young.split())
    found = run("doctor", "astra:copy", "--full", "--older-than", 0, code=1)
    assert "tokens without a document: 1 ('d5')" in found.stdout
    assert "1 repaired" in run("doctor", "astra:copy", "--repair", "--older-than", 0).stdout
    run("doctor", "astra:copy", "--full", "--older-than", 0)
    server.settings.ann_recall_loss = 0.5
    assert "not healthy" in run("doctor", "astra:copy", code=1).stdout
    assert "There is no index" in run("doctor", "astra:other", code=1).stderr
    assert "not one" in run("doctor", folder, code=1).stderr


def test_without_credentials_it_says_what_to_set(monkeypatch, folder):
    monkeypatch.delenv("ASTRA_DB_API_ENDPOINT", raising=False)
    assert "ASTRA_DB_API_ENDPOINT" in run("info", "--db", "astra:x", code=1).stderr
    assert "ASTRA_DB_API_ENDPOINT" in run("copy", folder, "astra:x", code=1).stderr
