"""A folder with a file of each kind and of each fault, through `index`: nothing is left out silently."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import kinds, pdfs
from tests.support.commands import run

pytest.importorskip("pypdfium2", reason="the colpali extra is not installed")
OFFICE = kinds.office() if find_spec("docling") else {}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    sound = kinds.texts() | OFFICE | {"a.pdf": pdfs.pdf(pdfs.text(kinds.FERRY))}
    kinds.write(folder / "sound", sound)
    kinds.write(folder / "broken", kinds.broken())
    kinds.write(folder / "other", {"a.zip": b"PK", "b.mp3": b"ID3", "c.mp3": b"ID3", "photo.png": b"\x89PNG"})
    kinds.write(folder / "build", {"made.txt": b"made"})
    kinds.write(folder / "drafts", {"draft.txt": b"draft"})
    (folder / ".gitignore").write_text("build/\n")
    (folder / "sound" / "again").symlink_to(folder / "sound")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not OFFICE, reason="the files extra is not installed")
def test_each_kind_and_each_fault(corpus: Path, text_model: Path, tmp_path: Path) -> None:
    options = ("--db", tmp_path / "db", "--model", text_model)
    result = run("index", corpus, *options, "--exclude", "drafts/", "--json")
    assert result.exit_code == 1  # for what could not be read
    told = json.loads(result.stdout)
    assert told["left_out"] == {
        "named in .gitignore": {"folder": 1},
        "excluded": {"folder": 1},
        "of kinds that are not read": {".mp3": 2, ".zip": 1},
        "which need a visual model such as ColQwen2": {".png": 1},
    }
    for counted in (
        "3 left out (.mp3 2, .zip 1), of kinds that are not read",
        "1 left out (folder 1), excluded",
    ):
        assert counted in result.stderr
    assert told["failures"] == []
    assert {Path(problem["file"]).name for problem in told["problems"]} == set(kinds.broken())
    assert len(told["new"]) == told["documents"]
    found = json.loads(run("search", kinds.FERRY, *options, "-k", 99, "--json").stdout)["results"]
    sources = {Path(result["metadata"]["source"]).name for result in found}
    ferries = {Path(result["metadata"]["source"]).name for result in found if "ferry" in result["content"]}
    assert ferries == {*kinds.texts(), *OFFICE, "a.pdf"}
    assert sources - ferries == {"short.csv", "bad.jsonl"}  # of which a part can be read
    # Every file is read, told to be broken, or left out.
    files = told["files"]
    problems = {Path(problem["file"]).name for problem in told["problems"]}
    assert files["indexed"] + files["failed"] == len(sources | problems)


@pytest.mark.slow
def test_options_of_files(text_model: Path, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_bytes("Name~City~key\nMüller~Köln~7\n".encode("cp437"))
    (tmp_path / ".gitignore").write_text("*.csv\n")
    options = ("--db", tmp_path / "db", "--model", text_model, "--json")
    columns = ("--content", "Name,City", "--id", "key", "--delimiter", "~", "--encoding", "cp437")
    assert run("index", tmp_path, *options).exit_code == 1  # there is nothing else
    result = run("index", tmp_path, *options, *columns, "--no-gitignore")
    assert (result.exit_code, json.loads(result.stdout)["documents"]) == (0, 1)
    [found] = json.loads(run("search", "Müller", *options).stdout)["results"]
    assert (found["doc_id"], found["content"]) == ("7", "Müller\nKöln")
