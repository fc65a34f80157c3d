"""Kills, writers, faults, interleavings, changes, damage and bad arguments: the table of docs/reliability.md.

    python benchmarks/torture.py                     # an hour
    python benchmarks/torture.py --scale 0.05        # minutes
    python benchmarks/torture.py --only kills writers

The suites are those of tests/torture. A row says how many cases were tried, and how many documents were lost,
doubled or wrong, and how many exceptions were not the library's own. All of them should be 0.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
import warnings
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from tests.stores.test_astra_two_clients import run_interleavings
from tests.torture.damage import run_bad_arguments, run_damaged_documents, run_damaged_index_files
from tests.torture.faults import run_faults
from tests.torture.figures import Figures
from tests.torture.kills import run_kills
from tests.torture.stateful import run_steps
from tests.torture.writers import run_writers


def interleavings(n: int, seed: int) -> Figures:
    """Run the two clients' suite, which has figures of its own."""
    found = asyncio.run(run_interleavings(n, seed=seed))
    figures = Figures(cases=found.interleavings)
    figures.counts["requests"] = found.requests
    for kind in ("mixtures", "lost"):
        for text in getattr(found, kind):
            figures.note("wrong" if kind == "mixtures" else "lost", text)
    return figures


def writers(n: int, seed: int) -> Figures:
    """Let eight processes index `n` documents each."""
    figures, per_second = run_writers(8, n)
    figures.counts["documents a second"] = round(per_second)
    return figures


SUITES: dict[str, tuple[str, int, Callable[[int, int], Figures]]] = {
    "kills": ("kills of a writer (SIGKILL)", 1000, run_kills),
    "writers": ("documents by 8 writing processes", 500, writers),
    "faults": ("faults of the Data API, injected", 240, lambda n, seed: asyncio.run(run_faults(n, 60, seed))),
    "interleavings": ("interleavings of two clients on Astra", 1000, interleavings),
    "changes": (
        "changes at random, two stores beside a dict",
        10_000,
        lambda n, seed: asyncio.run(run_steps(n, seed)),
    ),
    "index files": (
        "damaged or hostile search index files",
        10_000,
        lambda n, seed: asyncio.run(run_damaged_index_files(n, seed)),
    ),
    "documents": ("damaged SQLite files", 2000, lambda n, seed: asyncio.run(run_damaged_documents(n, seed))),
    "arguments": (
        "bad arguments, rows, matrices, blobs",
        40_000,
        lambda n, seed: asyncio.run(run_bad_arguments(n, seed)),
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="times as many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(SUITES), default=list(SUITES))
    arguments = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    console = Console(width=160)
    table = Table()
    for column in ("what", "cases", "lost", "doubled", "wrong", "foreign exceptions", "seconds", "besides"):
        table.add_column(column, justify="left" if column in ("what", "besides") else "right")
    bad = 0
    for name in arguments.only:
        what, n, run = SUITES[name]
        begin = time.monotonic()
        figures = run(max(1, round(n * arguments.scale)), arguments.seed)
        bad += figures.bad
        besides = ", ".join(f"{text} {count:,}" for text, count in figures.counts.most_common(4))
        cells = (figures.cases, figures.lost, figures.doubled, figures.wrong, figures.foreign)
        seconds = f"{time.monotonic() - begin:.0f}"
        console.print(name, *(f"{n:,}" for n in cells), seconds, besides)
        table.add_row(what, *(f"{n:,}" for n in cells), seconds, besides)
        for note in figures.notes:
            console.print(f"  {note}", markup=False)
    console.print(table)
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
