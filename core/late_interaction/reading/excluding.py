"""What `exclude` patterns leave out: patterns as in .gitignore, from each folder, or from the working directory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from late_interaction.reading.ignoring import Rule, rules_of


class Excluded:
    """Knows what patterns leave out, and which of them left nothing out.

    Args:
        patterns: as in .gitignore.

    Raises:
        ValueError: one is no pattern.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        patterns = [patterns] if isinstance(patterns, str) else patterns
        for number, fault in rules_of(map(os.fsencode, patterns))[1].items():
            raise ValueError(f"{patterns[number - 1]!r} excludes nothing: {fault}.")
        self._patterns = patterns
        self._used: set[int] = set()
        self._rules: dict[Path, list[Rule]] = {}

    @property
    def unused(self) -> list[str]:
        """The patterns that left nothing out."""
        patterns = enumerate(self._patterns)
        return [one for n, one in patterns if n not in self._used and not one.startswith("!")]

    def has(self, path: Path, folder: Path, *, is_folder: bool) -> bool:
        """Tell whether a path is left out of a folder that it is in; both are from the root."""
        if not self._patterns:
            return False
        if folder not in self._rules:
            lines = (os.fsencode(line) for one in self._patterns for line in _lines(one, folder))
            self._rules[folder], _ = rules_of(lines)
        inside, said = os.fsencode(path.relative_to(folder).as_posix()), False
        for rule in self._rules[folder]:
            if rule.names(inside, is_folder=is_folder):
                self._used.add((rule.line - 1) // 2)
                said = rule.ignores
        return said

    def has_given(self, path: Path, *, alone: bool) -> bool:
        """Tell whether a path that was given itself is left out.

        A file is, where a pattern names it, or is the name or path of a folder above it, up to the working directory. A
        folder is, where a pattern is its name or path; not where it is `alone`, and so that of one inside it is meant.
        """
        if not self._patterns or not path.exists():
            return False
        path = absolute(path)
        if path.is_dir():
            return not alone and self._is_called(path)
        here = Path.cwd()
        above = [folder for folder in path.parents if folder != here and folder.is_relative_to(here)]
        return any([self.has(path, path.parent, is_folder=False), *map(self._is_called, above)])

    def _is_called(self, folder: Path) -> bool:
        patterns = enumerate(self._patterns)
        called = {n for n, one in patterns if one.strip("/") == folder.name or absolute(Path(one)) == folder}
        self._used |= called
        return bool(called)


def absolute(path: Path) -> Path:
    """Return a path from the root, by the names of the links in it."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _lines(pattern: str, folder: Path) -> tuple[str, str]:
    """Return a pattern as it is from a folder, and as a path from the working directory, if that leads into it."""
    mark, path = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
    whole = f"{absolute(Path(path)).as_posix()}{'/' * path.endswith('/')}"
    above = (folder / "_").as_posix()[:-1]
    inside = f"{mark}/{whole.removeprefix(above)}" if whole.startswith(above) and whole != above else ""
    return f"{mark}/{path[2:]}" if path.startswith("./") else pattern, inside
