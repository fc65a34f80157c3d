"""A writer is killed at a random moment, a thousand times over; what it acknowledged must be there."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from late_interaction import LocalStore
from tests.torture.figures import Figures
from tests.torture.model import LIMITS, SPEC, State, applied, apply, change, judge


def run_kills(n: int, seed: int = 0) -> Figures:
    """Kill a writer `n` times (SIGKILL) and compare the folder with what it said before."""
    figures, rng = Figures(), random.Random(seed)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.torture.kills"])
    with tempfile.TemporaryDirectory() as folder:
        state: State = {}
        for number in range(n):
            log = Path(folder) / "log"
            log.write_bytes(b"")
            writer = context.Process(
                target=write, args=(folder, str(log), seed * 1_000_003 + number), daemon=True
            )
            writer.start()
            lines = rng.randint(1, 16)
            while log.read_bytes().count(b"\n") < lines and writer.is_alive():
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.01))
            writer.kill()
            writer.join()
            if writer.exitcode != -9:
                figures.note("foreign", f"kill {number}: the writer ended by itself with {writer.exitcode}")
            states, in_flight = replay(state, log)
            figures.cases += 1
            figures.counts[f"killed in {in_flight}"] += 1
            figures.counts["acknowledged changes"] += len(log.read_bytes().splitlines()) // 2
            state = asyncio.run(look(folder, states, figures, f"kill {number}, in {in_flight}", rng))
            if number % 25 == 0:
                check_file(Path(folder), figures)
    return figures


def replay(state: State, log: Path) -> tuple[list[State], str]:
    """Return the states that the folder may be in by what a writer logged, and what it was doing at its end."""
    pending: Any = None
    for line in log.read_text().splitlines():
        try:
            said = json.loads(line)
        except ValueError:
            continue  # killed while it logged
        if "done" in said:
            state, pending = applied(state, pending), None
        elif "begin" in said:
            pending = tuple(said["begin"])
    return ([state] if pending is None else [state, applied(state, pending)]), pending[
        0
    ] if pending else "nothing"


async def look(folder: str, states: list[State], figures: Figures, what: str, rng: random.Random) -> State:
    store = LocalStore(folder, "killed", limits=LIMITS)
    try:
        await store.open(SPEC)
        return await judge(store, states, figures, what, rng)
    except Exception as error:  # noqa: BLE001 - counted
        figures.note("foreign", f"{what}: {error!r}")
        return states[0]
    finally:
        await store.close()


def check_file(folder: Path, figures: Figures) -> None:
    """Ask SQLite whether its file is whole."""
    with closing(sqlite3.connect(folder / "killed" / "documents.sqlite3")) as connection:
        checks = [
            connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)],
            connection.execute("PRAGMA foreign_key_check").fetchall() == [],
            connection.execute("SELECT count(*) FROM documents").fetchone()
            == connection.execute("SELECT count(*) FROM vectors").fetchone(),
        ]
    figures.counts["checks of the file"] += 1
    if not all(checks):
        figures.note("wrong", f"SQLite's checks: {checks}")


def write(folder: str, log: str, seed: int) -> None:
    """Change things at random, and say so before and after each; until it is killed, or its parent is."""
    out, parent = os.open(log, os.O_WRONLY | os.O_APPEND), multiprocessing.parent_process()
    assert parent is not None

    async def main() -> None:
        rng = random.Random(seed)
        store = LocalStore(folder, "killed", limits=LIMITS)
        await store.open(SPEC)
        number = 0
        while parent.is_alive():
            number += 1
            what = change(rng, f"{seed}.{number}")
            os.write(out, json.dumps({"begin": what}).encode() + b"\n")
            await apply(store, what)
            os.write(out, b'{"done": 1}\n')

    asyncio.run(main())
