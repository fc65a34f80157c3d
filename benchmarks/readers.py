"""Read a folder of real files as `late-interaction index` does, without encoding: what comes of them, and at what cost.

    python benchmarks/readers.py FOLDER [--images] [--dpi 150] [--no-gitignore]

Prints for each kind its files, documents and problems, the slowest file, peak memory, and the problems by kind.
`--images` reads for a visual model, and loads each page and image. Every file is read, failed or left out: the last
line adds them up.
"""

from __future__ import annotations

import argparse
import re
import resource
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from late_interaction import LateInteractionError, load_image
from late_interaction.images.pdf import DPI
from late_interaction.reading.files import ReadProblem, read_rows
from late_interaction.reading.finding import find

out = Console(width=120)
SHOWN = 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", action="store_true")
    parser.add_argument("--dpi", type=float, default=DPI)
    parser.add_argument("--no-gitignore", action="store_true")
    options = parser.parse_args()
    found = find([options.folder], gitignore=not options.no_gitignore).readable(images=options.images)
    documents: Counter[Path] = Counter()
    seconds: dict[Path, float] = {}
    problems: list[ReadProblem] = []
    for file in found.files:
        start = time.perf_counter()
        for row in read_rows([file], problems.append, images=options.images, dpi=options.dpi):
            documents[file] += loads(file, row, problems) if options.images else 1
        seconds[file] = time.perf_counter() - start
    failed = {problem.file for problem in problems} - set(documents)
    report(found.files, documents, seconds, problems)
    if found.left_out:
        out.print(str(found))
    empty = len(found.files) - len(documents) - len(failed)
    out.print(
        f"{len(found.files) + found.n_left_out} files = {len(documents)} read + {empty} empty + {len(failed)} failed + "
        f"{found.n_left_out} left out"
    )


def loads(file: Path, row: object, problems: list[ReadProblem]) -> bool:
    """Load the image of a row, if it has one; tell whether it can be loaded."""
    image = row.get("image") if isinstance(row, dict) else getattr(row, "image", None)
    try:
        if image is not None:
            load_image(image)
    except (ValueError, LateInteractionError) as error:
        problems.append(ReadProblem(file, None, str(error)))
        return False
    return True


def report(
    files: tuple[Path, ...], documents: Counter[Path], seconds: dict[Path, float], problems: list[ReadProblem]
) -> None:
    """Print the tables."""
    by_suffix: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        by_suffix[file.suffix.lower()].append(file)
    of_files = Counter(problem.file for problem in problems)
    kinds = table("kind", "files", "documents", "files with problems", "seconds", "slowest")
    for suffix, some in sorted(by_suffix.items(), key=lambda one: -len(one[1])):
        slowest = max(some, key=lambda file: seconds[file])
        kinds.add_row(
            suffix,
            str(len(some)),
            str(sum(documents[file] for file in some)),
            str(sum(file in of_files for file in some)),
            f"{sum(seconds[file] for file in some):.1f}",
            f"{seconds[slowest]:.2f} s {slowest.name}",
        )
    out.print(kinds)
    reasons = table("problem", "files", "for example")
    examples = {kind: problem for problem, kind in reversed(list(of_kind(problems)))}
    for kind, count in Counter(kind for _, kind in of_kind(problems)).most_common(SHOWN):
        reasons.add_row(kind, str(count), examples[kind].file.name)
    if problems:
        out.print(reasons)
    own, children = (
        resource.getrusage(of).ru_maxrss / 1024 for of in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    out.print(f"peak memory: {own:.0f} MB, and {children:.0f} MB of the largest worker that has ended")


def of_kind(problems: list[ReadProblem]) -> Iterator[tuple[ReadProblem, str]]:
    """Yield each problem with its kind: its reason without names and numbers."""
    for problem in problems:
        reason = problem.reason.replace(str(problem.file), "FILE")
        yield problem, re.sub(r"\d[\d,.]*", "N", re.sub(r"\(.*|'[^']*'|: .*", "…", reason))[:70]


def table(*headings: str) -> Table:
    made = Table()
    for heading in headings:
        made.add_column(heading, justify="right" if heading in ("files", "documents", "seconds") else "left")
    return made


if __name__ == "__main__":
    main()
