"""Find the files to read, by their suffixes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from late_interaction.images.loading import IMAGE_SUFFIXES

TEXT_SUFFIXES = (".txt", ".md")
PDF_SUFFIX = ".pdf"
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".csv", PDF_SUFFIX, *IMAGE_SUFFIXES)


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
                raise ValueError(f"There is no {', '.join(SUFFIXES)} file in {path}.")
            found += inside
        elif not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        elif path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path} is not a {', '.join(SUFFIXES)} file.")
        else:
            found.append(path)
    return list(dict.fromkeys(file.resolve() for file in found))
