"""Several processes index into one folder at once, and search meanwhile.

    python benchmarks/writers.py
    python benchmarks/writers.py --documents 100 --processes 8

Each process indexes its documents (22 words, 32 dims), ten to a call, and after each call searches for one of them
and for a document that all processes replace again and again. Every score is compared with MaxSim. The encoder is
the tests' own, which costs nearly nothing, so that writing is what is measured.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from tests.torture.writers import BATCH, run_writers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--documents", type=int, default=500, help="for each process")
    arguments = parser.parse_args()
    table = Table(title=f"{arguments.documents} documents to a process, {BATCH} to a call")
    for column in (
        "processes",
        "documents/s",
        "longest call",
        "searches",
        "lost",
        "doubled",
        "wrong",
        "errors",
    ):
        table.add_column(column, justify="right")
    bad = 0
    for processes in arguments.processes:
        figures, per_second = run_writers(processes, arguments.documents)
        bad += figures.bad
        table.add_row(
            str(processes),
            f"{per_second:.0f}",
            f"{figures.longest_s:.1f} s",
            str(figures.counts["searches"]),
            *(str(n) for n in (figures.lost, figures.doubled, figures.wrong, figures.foreign)),
        )
        for note in figures.notes:
            print(note)
    Console().print(table)
    if bad:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
