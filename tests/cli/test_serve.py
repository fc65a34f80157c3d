"""`late-interaction serve`, as a person starts it: a process of its own, asked over a socket."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from late_interaction.cli.serve import _listening
from tests.support.commands import run

pytest.importorskip("fastapi", reason="the serve extra is not installed")

TOKEN = "a-secret-of-ours"
MAIN = "from late_interaction.cli import main; main()"
VARIABLE = "LATE_INTERACTION_TOKEN"


@pytest.fixture(scope="module")
def db(tmp_path_factory: pytest.TempPathFactory, text_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "notes.md").write_text(
        "# The wing\n\nFlow of heat over the wing.\n\n# The cat\n\nThe cat and the dog.\n"
    )
    run("index", folder / "notes.md", "--db", folder / "db", "--model", text_model, code=0)
    return folder / "db"


@contextmanager
def serving(
    *options: object, token: str | None = None
) -> Iterator[tuple[subprocess.Popen[str], str, list[str]]]:
    """Yield the process of a server, its address, and the lines that it printed until then."""
    command = [sys.executable, "-c", MAIN, "serve", *map(str, options), "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200"} | (
        {VARIABLE: token} if token is not None else {}
    )
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    lines: list[str] = []
    try:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r"http://\S+:\d+", line):
                break
        else:
            pytest.fail("".join(lines))
        yield process, _answers(found[0]), lines
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _answers(address: str) -> str:
    """Return the address once there is an answer: the socket listens before the application runs."""
    reached = re.sub(r"//(0\.0\.0\.0|\[::\])", "//127.0.0.1", address)
    assert httpx.get(f"{reached}/api/health", timeout=60, trust_env=False).json() == {"status": "ok"}
    return reached


@pytest.mark.slow
def test_a_server_answers_is_read_only_and_ends_with_ctrl_c(db: Path, text_model: Path) -> None:
    with serving("--db", db, "--model", text_model) as (process, address, lines):
        assert "2 documents of " in lines[-1]
        assert "read-only, at http://127.0.0.1:" in lines[-1]
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            found = client.post("/api/search", json={"query": "wing", "k": 1}).json()
            assert len(found["results"]) == 1
            assert client.post("/api/documents", json={"documents": [{"content": "x"}]}).status_code == 403
            assert "<mark" in client.get("/", params={"q": "wing"}).text
            assert client.get("/", headers={"host": "evil.example"}).status_code == 421
            assert "server" not in client.get("/").headers
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (0, "", "Ended.\n")
    assert run("info", "--db", db, code=0)


@pytest.mark.slow
def test_a_server_for_others_wants_the_token_and_never_shows_it(db: Path, text_model: Path) -> None:
    options = ("--db", db, "--model", text_model, "--host", "0.0.0.0", "--allow-writes")
    with serving(*options, token=TOKEN) as (process, address, lines):
        assert "which clients may change" in lines[-1]
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            assert client.get("/api/index").status_code == 401
            assert client.get("/", params={"token": TOKEN}).status_code == 401
            signed = {"authorization": f"Bearer {TOKEN}"}
            body = {"documents": [{"doc_id": "n", "content": "new"}]}
            assert client.post("/api/documents", json=body, headers=signed).json()["ids"] == ["n"]
            assert client.delete("/api/document", params={"id": "n"}, headers=signed).json() == {"deleted": 1}
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
    assert TOKEN not in out + err + "".join(lines)


@pytest.mark.slow
def test_one_model_answers_many_and_no_search_keeps_others_waiting(db: Path, text_model: Path) -> None:
    with (
        serving("--db", db, "--model", text_model) as (_, address, _lines),
        ThreadPoolExecutor(16) as threads,
    ):

        def status(number: int) -> int:
            asked = {"query": f"wing {number}"}
            return httpx.post(f"{address}/api/search", json=asked, trust_env=False, timeout=60).status_code

        assert set(threads.map(status, range(64))) == {200}


def test_what_is_missing_is_named_before_a_model_is_loaded(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert "--token" in run("serve", "--db", db, "--host", "0.0.0.0", code=1).output
    assert (
        "can be reached from other machines" in run("serve", "--db", db, "--host", "0.0.0.0", code=1).output
    )
    monkeypatch.setenv(VARIABLE, "")
    assert VARIABLE in run("serve", "--db", db, "--host", "::", code=1).output
    assert "search.example" in run("serve", "--db", db, "--allowed-host", "search.example", code=1).output
    assert (
        "There is no index 'late_interaction'" in run("serve", "--db", tmp_path, "--port", 0, code=1).output
    )
    assert list(tmp_path.iterdir()) == []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("serve", "--db", db, "--port", port, code=1).output
        assert f"Port {port} of 127.0.0.1 is taken: give another with --port" in said
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert "cannot listen at 192.0.2.1" in run("serve", "--db", db, "--host", "192.0.2.1", code=1).output
    nowhere = run("serve", "--db", db, "--host", "nowhere.invalid", code=1)
    assert "nowhere.invalid" in nowhere.output
    assert TOKEN not in nowhere.output


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "jinja2"])
def test_a_missing_extra_is_named(db: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    said = run("serve", "--db", db, code=1).output
    assert f"{package} is not installed" in said
    assert said.endswith("pip install 'late-interaction[serve]'\n")


def test_the_help_shows_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)
    assert TOKEN not in run("serve", "--help", code=0).output


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_answers_are_sent_at_once(host: str) -> None:
    """Not held back for the reader's acknowledgement of their beginning (Nagle's algorithm)."""
    sent_at_once = asyncio.get_running_loop().create_future()

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted = writer.get_extra_info("socket")
        sent_at_once.set_result(bool(accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)))
        writer.close()

    listening = _listening(host, 0)
    async with await asyncio.start_server(connected, sock=listening):
        _, writer = await asyncio.open_connection(*listening.getsockname()[:2])
        assert await sent_at_once
        writer.close()
