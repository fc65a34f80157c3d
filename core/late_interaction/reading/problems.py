"""What could not be read, and where."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from late_interaction.printable import printable


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """Something that could not be read; `line` is None where it is the whole file."""

    file: Path
    line: int | None
    reason: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else str(self.file)
        return printable(f"{where}: {self.reason}")


class RestUnreadableError(Exception):
    """Nothing more can be read from this file; the rows before it are good."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason
