"""Nothing that comes from outside commands the terminal, whichever command prints it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from rich.text import Text

from late_interaction import IndexSpec, LocalStore
from late_interaction.cli import main
from late_interaction.cli._console import CleanConsole, CleanFormatter
from late_interaction.printable import printable
from tests.support import checkpoints
from tests.support.commands import run

COMMANDS = [
    "\x1b]0;owned\x07",
    "\x1b[2J",
    "\x9b31m",
    "\u202egpj",
    "\u2066",
    "\x08\x08",
    "\x90x\x9c",
    "\u2028",
    "\x7f",
]
OBEYED = ("Cc", "Cf", "Cs", "Zl", "Zp")
MARKUP = "[bold red]x[/][link=http://evil]y[/link] :smile:"
EVIL = "".join(COMMANDS) + MARKUP
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\x1b\]8;id=\d+;[^\x1b]*\x1b\\")


def commands_in(output: str) -> list[str]:
    """What a terminal would obey, but for line ends, the carriage return of progress bars, and rich's colours."""
    return [c for c in COLOUR.sub("", output) if c not in "\r\n\t" and unicodedata.category(c) in OBEYED]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.pylate_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """Files whose names, ids, sources and contents are meant for the terminal."""
    folder = tmp_path / f"docs{EVIL.replace('/', '')}"
    folder.mkdir()
    row = {"id": f"id{EVIL}", "text": f"the wing {EVIL} heat", "source": f"source{EVIL}", "line": 3}
    (folder / "rows.jsonl").write_text(json.dumps(row) + "\nnot JSON\n")
    (folder / f"a{EVIL.replace('/', '')}.txt").write_bytes(b"fine\n\xff\xfe")
    return folder


def check(*arguments: object) -> str:
    result = run(*arguments, columns=400)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert not commands_in(result.output), arguments
    return result.output


@pytest.mark.slow
def test_every_command_prints_text_only(docs: Path, tmp_path: Path, model: str) -> None:
    db = tmp_path / f"db{EVIL.replace('/', '')}"
    name = "late_interaction"
    shown = check("index", docs, "--db", db, "--model", model)
    assert "not JSON" in shown
    assert "2 files: " in shown
    found = check("search", f"wing {EVIL}", "--db", db, "--model", model)
    assert "[bold red]x[/]" in found
    assert ":smile:" in found
    assert "the wing" in found
    check("info", "--db", db)
    check("optimize", "--db", db)
    check("copy", db, tmp_path / f"copy{EVIL.replace('/', '')}")
    check("models", "--check", model)
    collection = tmp_path / f"toy{EVIL.replace('/', '')}"
    collection.mkdir()
    for file in ("corpus", "queries"):
        (collection / f"{file}.jsonl").write_text(json.dumps({"_id": "1", "text": f"wing {EVIL}"}))
    (collection / "qrels.tsv").write_text("query\tdocument\tgrade\n1\t1\t1\n")
    assert "queries" in check("eval", collection, "--model", model, "--pool-factor", 1)
    # What goes wrong.
    check("search", "x", "--db", db, "--name", f"other{EVIL}", "--model", model)
    (db / f"index{EVIL.replace('/', '')}").mkdir()
    (db / f"index{EVIL.replace('/', '')}" / "documents.sqlite3").touch()
    assert "there is" in check("search", "x", "--db", db, "--name", "other", "--model", model)
    check("search", "x", "--db", db, "--model", f"nobody/{EVIL}")
    check("search", "x", "--db", db, "--model", model, "--filter", json.dumps({EVIL: {"$no": EVIL}}))
    check("search", "x", "--db", db, "--model", model, "--filter", EVIL)
    check("index", tmp_path / f"none{EVIL}", "--db", db)
    check("index", docs, "--db", db, "--model", model, "--id-column", EVIL)
    check("index", docs, "--db", db, "--model", tmp_path / f"none{EVIL}")
    check("copy", f"none{EVIL}", f"there{EVIL}")
    check("copy", f"astra:{EVIL}", f"there{EVIL}")
    check("doctor", f"astra:{EVIL}")
    check("doctor", EVIL)
    check("eval", f"none{EVIL}")
    check("models", "--check", EVIL)
    check("demo", "--limit", EVIL)
    check(EVIL)
    check(f"--{EVIL}")
    check("search", f"--{EVIL}")
    check("search", "x", "--db", db, "-k", EVIL)
    check("--verbose", "search", "x", "--db", f"none{EVIL}")
    for command in (
        ("search", f"wing {EVIL}", "--db", db, "--model", model),
        ("info", "--db", db, "--name", name),
    ):
        assert not commands_in(check(*command, "--json"))


def test_an_index_made_by_somebody_else_is_text_too(tmp_path: Path, model: str) -> None:
    """Names and settings that stand in the file itself."""
    store = LocalStore(tmp_path, "evil")
    spec = IndexSpec(16, {"model": f"a/{EVIL}", "content": EVIL, EVIL: EVIL}, {"factor": 1.0, EVIL: EVIL})

    async def make() -> None:
        await store.open(spec)
        await store.close()

    asyncio.run(make())
    assert "width of a vector" in check("info", "--db", tmp_path, "--name", "evil")
    check("search", "x", "--db", tmp_path, "--name", "evil")
    check("search", "x", "--db", tmp_path, "--name", "evil", "--model", model)


@pytest.mark.slow
def test_only_what_a_terminal_obeys_is_replaced() -> None:
    """Variation selectors, which Japanese names need, and characters without a meaning yet stay."""
    replaced = {chr(code) for code in range(sys.maxunicode + 1) if printable(chr(code)) != chr(code)}
    assert {unicodedata.category(character) for character in replaced} == set(OBEYED)
    assert printable("葛\U000e0100") == "葛\U000e0100"


@given(st.text(st.characters(codec=None) | st.sampled_from(EVIL), max_size=60))
def test_printable_text_keeps_its_length_and_its_letters(text: str) -> None:
    clean = printable(text)
    assert len(clean) == len(text)
    for before, after in zip(text, clean, strict=True):
        assert after == before or (after == " " and unicodedata.category(before) in OBEYED)
    assert not set(clean) & set("\x1b\x9b\x07\r\n\t\u202e\u2066\u2028\ud800\U000e0041")
    assert printable(clean) == clean


def test_lines_may_stay() -> None:
    assert printable("a\nb\tc\r") == "a b c "
    assert printable("a\nb\tc\r", lines=True) == "a\nb\tc "
    assert printable("👩\u200d🚀 می\u200cخواهم") == "👩\u200d🚀 می\u200cخواهم"


@pytest.mark.parametrize("thing", [EVIL, Text(EVIL), {"a": EVIL}, [EVIL]])
def test_the_console_is_clean_whatever_is_printed(thing: Any) -> None:
    for terminal in (False, True):
        file = io.StringIO()
        console = CleanConsole(file=file, force_terminal=terminal, width=300)
        table = Table(title=str(thing), caption=str(thing))
        table.add_column(str(thing))
        table.add_row(thing if isinstance(thing, str | Text) else str(thing))
        console.print(thing, table, style="red")
        console.print(thing, soft_wrap=True)
        with console.status(EVIL):
            pass
        shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", file.getvalue()) if terminal else file.getvalue()
        assert not commands_in(shown)
        assert "[bold red]x[/]" in shown


def test_log_lines_and_tracebacks_are_clean() -> None:
    error = ValueError(EVIL)
    record = logging.LogRecord("x", logging.INFO, EVIL, 1, "%s", (EVIL,), (type(error), error, None))
    assert not commands_in(CleanFormatter("%(message)s").format(record))


def test_a_fault_of_ours_is_printed_as_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError(EVIL)

    monkeypatch.setattr("late_interaction.cli.app", fail)
    with pytest.raises(SystemExit):
        main()
    printed = capsys.readouterr().err
    assert "RuntimeError" in printed
    assert not commands_in(printed)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_on_a_terminal(docs: Path, tmp_path: Path, model: str) -> None:
    """What reaches a real terminal are colours and the cursor of progress bars, and nothing that a file says."""
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]))"
    program = [sys.executable, "-c", "from late_interaction.cli import main; main()"]
    place = ["--db", str(tmp_path / "db"), "--model", model]
    for command in (["index", str(docs), *place], ["search", "wing", *place]):
        done = subprocess.run(
            [sys.executable, "-c", script, *program, *command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        shown = done.stdout.decode(errors="replace")
        assert "owned" in shown
        assert not commands_in(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x08", "", shown))
        assert "\x1b[2J" not in shown
