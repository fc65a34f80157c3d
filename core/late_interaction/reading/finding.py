"""Find the files to read, by their suffixes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from late_interaction.reading.kinds import KINDS, SUFFIXES, Kind

PDF_SUFFIX = ".pdf"
_IN_RECORDS = (Kind.CSV, Kind.JSON_LINES, Kind.PDF, Kind.IMAGE)
TEXT_SUFFIXES = tuple(suffix for suffix, kind in KINDS.items() if kind not in _IN_RECORDS)
"""Of files that are cut into passages."""


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List the files to read: each path that is a file, and every readable file in each that is a folder.

    Hidden files and folders inside a folder are left out. Files come in the order of their names within a folder.

    Raises:
        ValueError: a path does not exist, is a file of a kind that is not read, or is a folder without any that is.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            if not inside:
                raise ValueError(f"There is no file of a kind that is read in {path}.")
            found += inside
        elif not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        elif path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path} is not of a kind that is read.")
        else:
            found.append(path)
    return list(dict.fromkeys(file.resolve() for file in found))
