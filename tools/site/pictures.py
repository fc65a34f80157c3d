"""Record the README's picture: what `late-interaction demo` prints on a terminal, as an SVG.

    uv run --all-extras python -m tools.site.pictures [FOLDER]

It runs the command, which encodes for some minutes unless FOLDER has its index already, and writes
docs/figures/search.svg. The picture names only fonts that readers have, and loads nothing.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT  # which has no public name
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "figures" / "search.svg"
QUESTIONS = [
    "make a temporary folder that is deleted afterwards",
    "run a command and capture its output",
]
WIDTH = 92
_FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, DejaVu Sans Mono, monospace"
_FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_FORMAT = re.sub(r"font-family: (Fira Code, monospace|arial);", f"font-family: {_FONTS};", _FORMAT)


def record(folder: Path, *options: str) -> str:
    """Run the demo in a process of its own, and return the questions with their answers as a terminal shows them.

    Args:
        folder: where the demo's index is; what is in it already is not encoded again.
        *options: further options of the command.
    """
    asked = [part for question in QUESTIONS for part in ("--question", question)]
    done = subprocess.run(
        [
            Path(sys.executable).with_name("late-interaction"),
            *("demo", "--path", folder, "--no-interactive"),
            *asked,
            *options,
        ],
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": str(WIDTH)},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    printed = done.stdout.splitlines()
    first = next(number for number, line in enumerate(printed) if QUESTIONS[0] in line)
    return "\n".join(["$ late-interaction demo", "", *printed[first:]]).rstrip()


def drawn(printed: str) -> str:
    """Return an SVG of a terminal with this on it, colours and all."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="256")
    console.print(Text.from_ansi(printed))
    return console.export_svg(
        title="late-interaction", theme=MONOKAI, code_format=_FORMAT, unique_id="search"
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        PICTURE.write_text(drawn(record(Path(sys.argv[1] if sys.argv[1:] else scratch))), encoding="utf-8")
