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
from functools import partial

from rich.console import Console
from rich.table import Table

from tests.torture.figures import Figures

# The suites are imported where they are run: their processes import this file, and need but one of them.


def kills(n: int, seed: int) -> Figures:
    from tests.torture.kills import run_kills

    return run_kills(n, seed)


def writers(n: int, _seed: int) -> Figures:
    from tests.torture.writers import run_writers

    figures, per_second = run_writers(8, n)
    figures.counts["documents a second"] = round(per_second)
    return figures


def faults(n: int, seed: int) -> Figures:
    from tests.torture.faults import run_faults

    return asyncio.run(run_faults(n, 60, seed))


def interleavings(n: int, seed: int, scheme: str = "tokens") -> Figures:
    from tests.stores.test_astra_two_clients import run_interleavings

    found = asyncio.run(run_interleavings(n, seed=seed, scheme=scheme))
    figures = Figures(cases=found.interleavings)
    figures.counts["requests"] = found.requests
    for kind, texts in (("wrong", found.mixtures), ("lost", found.lost)):
        for text in texts:
            figures.note(kind, text)
    return figures


def changes(n: int, seed: int) -> Figures:
    from tests.torture.stateful import run_steps

    return asyncio.run(run_steps(n, seed))


def index_files(n: int, seed: int) -> Figures:
    from tests.torture.damage import run_damaged_index_files

    return asyncio.run(run_damaged_index_files(n, seed))


def documents(n: int, seed: int) -> Figures:
    from tests.torture.damage import run_damaged_documents

    return asyncio.run(run_damaged_documents(n, seed))


def arguments(n: int, seed: int) -> Figures:
    from tests.torture.damage import run_bad_arguments

    return asyncio.run(run_bad_arguments(n, seed))


SUITES: dict[str, tuple[str, int, Callable[[int, int], Figures]]] = {
    "kills": ("kills of a writer (SIGKILL)", 1000, kills),
    "writers": ("documents by 8 writing processes", 500, writers),
    "faults": ("faults of the Data API, injected", 240, faults),
    "interleavings": ("interleavings of two clients on Astra", 1000, interleavings),
    "vectors": (
        "the same with document vectors, and fits among them",
        1000,
        partial(interleavings, scheme="fitted"),
    ),
    "changes": ("changes at random, two stores beside a dict", 10_000, changes),
    "index files": ("damaged or hostile search index files", 10_000, index_files),
    "documents": ("damaged SQLite files", 2000, documents),
    "arguments": ("bad arguments, rows, matrices, blobs", 40_000, arguments),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0, help="times as many cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(SUITES), default=list(SUITES))
    chosen = parser.parse_args()
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    console = Console(width=160)
    table = Table()
    for column in ("what", "cases", "lost", "doubled", "wrong", "foreign exceptions", "seconds", "besides"):
        table.add_column(column, justify="left" if column in ("what", "besides") else "right")
    bad = 0
    for name in chosen.only:
        what, n, run = SUITES[name]
        begin = time.monotonic()
        figures = run(max(1, round(n * chosen.scale)), chosen.seed)
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
