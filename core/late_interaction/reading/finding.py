"""Find the files to read in folders, and count what is left out."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from late_interaction.images.loading import HEIF_SUFFIXES
from late_interaction.reading.kinds import KINDS, Kind, kind_of

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

UNKNOWN = "of kinds that are not read"
IGNORED = "named in .gitignore"
EXCLUDED = "excluded"
BROKEN = "links that lead nowhere"
CLOSED = "which cannot be opened"
SPECIAL = "which are no files, but pipes or devices"
NEEDS_EYES = "which need a visual model such as ColQwen2"
NEEDS_EXTRA = "which need pip install 'late-interaction[files]'"


@dataclass(frozen=True, slots=True)
class Found:
    """The files to read, and what is left out.

    Attributes:
        files: each once, in the order of their names within a folder. One that a link leads to has the link's path, and
            so its name and kind, unless it is found under its own name, too.
        named: those that were named themselves, and not by a folder.
        left_out: for each reason, how many files of each suffix; one left out whole is a "folder".
        names: of each file the folder that it was found through, and its path from there, with slashes.
    """

    files: tuple[Path, ...]
    named: frozenset[Path] = frozenset()
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    names: Mapping[Path, tuple[Path, str]] = field(default_factory=dict)

    @property
    def n_left_out(self) -> int:
        """How many files and folders are left out."""
        return sum(sum(counts.values()) for counts in self.left_out.values())

    def readable(self, *, images: bool) -> Found:
        """Return the files of a folder without those that the model, or what is installed, cannot read.

        A file that was named is kept: what it needs is an error of its own.

        Args:
            images: the model encodes images.
        """
        missing = {
            module: importlib.util.find_spec(module) is None
            for module in ("docling", "pillow_heif", "pypdfium2")
        }

        def reason(file: Path) -> str | None:
            kind = kind_of(file)
            if kind is Kind.IMAGE and not images:
                return NEEDS_EYES
            needed = {Kind.OFFICE: "docling", Kind.PDF: "pypdfium2"}.get(kind)
            if kind is Kind.IMAGE and file.suffix.lower() in HEIF_SUFFIXES:
                needed = "pillow_heif"
            return NEEDS_EXTRA if needed and missing[needed] else None

        kept, left_out = [], {why: Counter(counts) for why, counts in self.left_out.items()}
        for file in self.files:
            why = None if file in self.named else reason(file)
            if why is None:
                kept.append(file)
            else:
                left_out.setdefault(why, Counter())[file.suffix.lower()] += 1
        return replace(self, files=tuple(kept), left_out=left_out)

    def __str__(self) -> str:
        r"""Return what is left out, a line for each reason.

        >>> str(Found((), left_out={UNKNOWN: {".mp3": 1, ".zip": 3}}))
        '4 left out (.zip 3, .mp3 1), of kinds that are not read'
        """
        lines = []
        for why, counts in self.left_out.items():
            lines.append(f"{left_out(counts)}, {why}")
        return "\n".join(lines)


def left_out(counts: Mapping[str, int]) -> str:
    """Return how many files are left out, and of which suffixes, the most first.

    >>> left_out({".mp3": 1, ".zip": 3})
    '4 left out (.zip 3, .mp3 1)'
    """
    most_first = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    listed = ", ".join(f"{suffix} {count}" for suffix, count in most_first)
    return f"{sum(counts.values())} left out ({listed})"


def find_files(paths: Iterable[Path]) -> list[Path]:
    """List the files to read, as `find` does."""
    return list(find(paths).files)


def find(paths: Iterable[Path], *, exclude: Sequence[str] = (), gitignore: bool = True) -> Found:
    """Find the files to read: each path that is a file, and every file of a kind that is read in each that is a folder.

    Folders and files inside a folder whose names begin with a dot are no part of it. A link to a folder is followed,
    each folder once, so that no circle is endless.

    Args:
        paths: files and folders.
        exclude: patterns as in .gitignore, such as "drafts/" or "*.log", from each folder in `paths`.
        gitignore: leave out what the .gitignore files say, of the folders, those inside them and, within a git
            repository, those above them. A file that is named itself is read all the same.

    Raises:
        ValueError: a path does not exist, or there is nothing to read in all of them.
    """
    from pathspec import GitIgnoreSpec

    walk = _Walk(GitIgnoreSpec.from_lines(exclude), gitignore=gitignore)
    found: dict[Path, tuple[Path, tuple[Path, str]]] = {}
    named: set[Path] = set()
    paths = list(paths)

    def add(file: Path, base: Path, name: str) -> None:
        """Note a file, once however many links lead to it."""
        real, kept = file.resolve(), _absolute(file)
        if real not in found or (found[real][0].is_symlink() and not kept.is_symlink()):
            found[real] = kept, (_absolute(base), name)

    for path in paths:
        if path.is_dir():
            for file, name in walk.files(path):
                add(file, path, name)
        elif not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        elif not path.is_file():
            walk.leave_out(SPECIAL, path)
        elif path.suffix.lower() in KINDS:
            add(path, path.parent, path.name)
            named.add(path.resolve())
        else:
            walk.leave_out(UNKNOWN, path)
    names = dict(found.values())
    result = Found(tuple(names), frozenset(found[real][0] for real in named), walk.left_out, names)
    if not found:
        left_out = f" {result}.".replace("\n", "; ") if result.left_out else ""
        raise ValueError(
            f"There is no file of a kind that is read in {', '.join(map(str, paths))}.{left_out}"
        )
    return result


class _Walk:
    """Goes through folders, and counts what it leaves out."""

    def __init__(self, exclude: GitIgnoreSpec, *, gitignore: bool) -> None:
        self._exclude = exclude
        self._gitignore = gitignore
        self._seen: set[tuple[int, int]] = set()
        self.left_out: dict[str, Counter[str]] = {}

    def leave_out(self, why: str, path: Path) -> None:
        suffix = "folder" if path.is_dir() else path.suffix.lower() or "without a suffix"
        self.left_out.setdefault(why, Counter())[suffix] += 1

    def files(self, root: Path) -> Iterator[tuple[Path, str]]:
        """Yield the files in a folder and their paths from it, those of a folder before those after it by name."""
        self._seen.clear()
        rules = list(_rules_above(_absolute(root))) if self._gitignore else []
        yield from self._inside(root, root, rules)

    def _inside(self, folder: Path, root: Path, rules: list[tuple[Path, Any]]) -> Iterator[tuple[Path, str]]:
        stat = folder.stat()
        if (stat.st_dev, stat.st_ino) in self._seen:
            return
        self._seen.add((stat.st_dev, stat.st_ino))
        if self._gitignore and (own := _rules_of(folder)) is not None:
            rules = [*rules, (_absolute(folder), own)]
        try:
            inside_it = sorted(folder.iterdir())
        except OSError:
            self.leave_out(CLOSED, folder)
            return
        for path in inside_it:
            if path.name.startswith("."):
                continue
            is_folder = path.is_dir()
            inside = _matched(path.relative_to(root), is_folder=is_folder)
            if not path.exists():
                self.leave_out(BROKEN, path)
            elif self._exclude.match_file(inside):
                self.leave_out(EXCLUDED, path)
            elif _is_ignored(path, rules, is_folder=is_folder):
                self.leave_out(IGNORED, path)
            elif is_folder:
                yield from self._inside(path, root, rules)
            elif not path.is_file():
                self.leave_out(SPECIAL, path)
            elif path.suffix.lower() in KINDS:
                yield path, inside
            else:
                self.leave_out(UNKNOWN, path)


def _is_ignored(path: Path, rules: Iterable[tuple[Path, GitIgnoreSpec]], *, is_folder: bool) -> bool:
    """Tell whether the last rule about a path says that it is ignored."""
    ignored = False
    absolute = _absolute(path)
    for folder, spec in rules:
        if absolute.is_relative_to(folder):
            said = spec.check_file(_matched(absolute.relative_to(folder), is_folder=is_folder)).include
            ignored = ignored if said is None else said
    return ignored


def _matched(path: Path, *, is_folder: bool) -> str:
    """Return a path as patterns match it; what is not UTF-8 in its name is a question mark."""
    return path.as_posix().encode(errors="replace").decode() + "/" * is_folder


def _absolute(path: Path) -> Path:
    """Return a path from the root, by the names of the links in it."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _rules_above(root: Path) -> Iterator[tuple[Path, GitIgnoreSpec]]:
    """Yield the .gitignore rules of the folders above one, from the git repository that it is in."""
    above = [root, *root.parents]
    repository = next((number for number, folder in enumerate(above) if (folder / ".git").exists()), 0)
    for folder in reversed(above[1 : repository + 1]):
        if (spec := _rules_of(folder)) is not None:
            yield folder, spec


def _rules_of(folder: Path) -> GitIgnoreSpec | None:
    from pathspec import GitIgnoreSpec

    file = folder / ".gitignore"
    if not file.is_file():
        return None
    return GitIgnoreSpec.from_lines(file.read_text(errors="replace").splitlines())
