"""Find the files to read in folders, and count what is left out."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from late_interaction.images.loading import HEIF_SUFFIXES
from late_interaction.reading.excluding import Excluded, absolute
from late_interaction.reading.ignoring import Rule, decided, rules_of
from late_interaction.reading.kinds import KINDS, Kind, kind_of
from late_interaction.reading.problems import ReadProblem

logger = logging.getLogger(__name__)

UNKNOWN = "of kinds that are not read"
IGNORED = "named in .gitignore"
EXCLUDED = "excluded"
BROKEN = "links that lead nowhere"
CLOSED = "which cannot be opened"
SPECIAL = "which are no files, but pipes or devices"
NEEDS_EYES = "which need a visual model such as ColQwen2"
NEEDS_EXTRA = "which need pip install 'late-interaction[files]'"

_NOWHERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class Found:
    """The files to read, and what is left out.

    Attributes:
        files: each once, in the order of their names within a folder. One that a link leads to has the link's path, and
            so its name and kind, unless it is found under its own name, too.
        named: those that were named themselves, and not by a folder.
        left_out: for each reason, how many files of each suffix; one left out whole is a "folder".
        names: of each file the folder that it was found through, and its path from there, with slashes.
        unread: files and folders that are there and cannot be read here, named as in `names`; what an index has of them
            is kept.
        problems: what is wrong with .gitignore files.
    """

    files: tuple[Path, ...]
    named: frozenset[Path] = frozenset()
    left_out: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    names: Mapping[Path, tuple[Path, str]] = field(default_factory=dict)
    unread: frozenset[tuple[Path, str]] = frozenset()
    problems: tuple[ReadProblem, ...] = ()

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

        kept, unread = [], set(self.unread)
        left_out = {why: Counter(counts) for why, counts in self.left_out.items()}
        for file in self.files:
            why = None if file in self.named else reason(file)
            if why is None:
                kept.append(file)
            else:
                left_out.setdefault(why, Counter())[file.suffix.lower()] += 1
                unread.add(self.names[file])
        return replace(self, files=tuple(kept), left_out=left_out, unread=frozenset(unread))

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
        exclude: patterns as in .gitignore, such as "drafts/" or "*.log", from each folder in `paths`, or paths from the
            working directory, such as "docs/drafts". Files that are named themselves are left out, too. A warning names
            each pattern that leaves nothing out.
        gitignore: leave out what the .gitignore files say, of the folders, those inside them and, within a git
            repository, those above them. A file that is named itself is read all the same.

    Raises:
        ValueError: a path does not exist, there is nothing to read in all of them, or a pattern is none.
    """
    walk = _Walk(exclude, gitignore=gitignore)
    found: dict[Path, tuple[Path, tuple[Path, str]]] = {}
    named: set[Path] = set()
    paths = list(paths)

    def add(file: Path, base: Path, name: str) -> None:
        """Note a file, once however many links lead to it."""
        real, kept = file.resolve(), absolute(file)
        if real not in found or (found[real][0].is_symlink() and not kept.is_symlink()):
            found[real] = kept, (absolute(base), name)

    for path in paths:
        if walk.excluded.has_given(path, alone=len(paths) == 1):
            walk.leave_out(EXCLUDED, path)
        elif path.is_dir():
            for file, name in walk.files(path):
                add(file, path, name)
        elif not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        elif not path.is_file():
            walk.leave_out(SPECIAL, path)
        elif path.suffix.lower() in KINDS:
            add(path, path.parent, name_of(Path(path.name)))
            named.add(path.resolve())
        else:
            walk.leave_out(UNKNOWN, path)
    for pattern in walk.excluded.unused:
        logger.warning("The pattern %r left nothing out.", pattern)
    names = dict(found.values())
    result = Found(
        tuple(names),
        frozenset(found[real][0] for real in named),
        walk.left_out,
        names,
        frozenset(walk.unread),
        tuple(walk.problems),
    )
    if not found:
        left_out = f" {result}.".replace("\n", "; ") if result.left_out else ""
        raise ValueError(
            f"There is no file of a kind that is read in {', '.join(map(str, paths))}.{left_out}"
        )
    return result


class _Walk:
    """Goes through folders, and notes what it leaves out."""

    def __init__(self, exclude: Sequence[str], *, gitignore: bool) -> None:
        self.excluded = Excluded(exclude)
        self._gitignore = gitignore
        self._seen: set[tuple[int, int]] = set()
        self._problems: dict[Path, list[ReadProblem]] = {}
        self.left_out: dict[str, Counter[str]] = {}
        self.unread: set[tuple[Path, str]] = set()

    @property
    def problems(self) -> list[ReadProblem]:
        """What is wrong with .gitignore files."""
        return [problem for problems in self._problems.values() for problem in problems]

    def leave_out(self, why: str, path: Path) -> None:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - Path's raises an error in a folder that is closed
        suffix = "folder" if is_folder else path.suffix.lower() or "without a suffix"
        self.left_out.setdefault(why, Counter())[suffix] += 1

    def files(self, root: Path) -> Iterator[tuple[Path, str]]:
        """Yield the files in a folder and their paths from it, those of a folder before those after it by name."""
        self._seen.clear()
        root = absolute(root)
        rules: _Rules = []
        for folder in _within_repository(root) if self._gitignore else ():
            if _is_ignored(folder, rules, is_folder=True):
                self.leave_out(IGNORED, root)
                return
            if folder != root:
                rules = self._rules_with(folder, rules)
        yield from self._inside(root, root, rules)

    def _inside(self, folder: Path, root: Path, rules: _Rules) -> Iterator[tuple[Path, str]]:
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in self._seen:
                return
            self._seen.add((status.st_dev, status.st_ino))
            inside_it = sorted(folder.iterdir())
        except OSError:
            self._leave_unread(CLOSED, folder, root)
            return
        if self._gitignore:
            rules = self._rules_with(folder, rules)
        for path in inside_it:
            if path.name.startswith("."):
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                self._leave_unread(BROKEN if error.errno in _NOWHERE else CLOSED, path, root)
                continue
            is_folder = stat.S_ISDIR(mode)
            if self.excluded.has(path, root, is_folder=is_folder):
                self.leave_out(EXCLUDED, path)
            elif _is_ignored(path, rules, is_folder=is_folder):
                self.leave_out(IGNORED, path)
            elif is_folder:
                yield from self._inside(path, root, rules)
            elif not stat.S_ISREG(mode):
                self.leave_out(SPECIAL, path)
            elif path.suffix.lower() in KINDS:
                yield path, name_of(path.relative_to(root))
            else:
                self.leave_out(UNKNOWN, path)

    def _leave_unread(self, why: str, path: Path, root: Path) -> None:
        self.leave_out(why, path)
        name = path.relative_to(root)
        self.unread.add((root, "" if path == root else name_of(name)))

    def _rules_with(self, folder: Path, rules: _Rules) -> _Rules:
        """Return rules with those of a folder's own .gitignore behind them; note what is wrong with it."""
        file = folder / ".gitignore"
        if not os.path.isfile(file):  # noqa: PTH113 - as above
            return rules
        problems = self._problems[file] = []
        try:
            own, faults = rules_of(file.read_bytes().split(b"\n"))
        except OSError as error:
            problems.append(ReadProblem(file, None, f"{error.strerror}; it leaves nothing out"))
            return rules
        for line, fault in faults.items():
            problems.append(ReadProblem(file, line, f"the pattern leaves nothing out: {fault}"))
        return [*rules, (os.fsencode((folder / "_").as_posix())[:-1], own)]


_Rules = list[tuple[bytes, list[Rule]]]
"""The rules of .gitignore files, each with its folder; the last one that names a path decides."""


def _is_ignored(path: Path, rules: _Rules, *, is_folder: bool) -> bool:
    """Tell whether the last rule about a path inside the folders of the rules says that it is ignored."""
    whole = os.fsencode(path.as_posix())
    for folder, own in reversed(rules):
        if (said := decided(own, whole.removeprefix(folder), is_folder=is_folder)) is not None:
            return said
    return False


def name_of(path: PurePath) -> str:
    r"""Return a path as ids and sources have it; bytes of it that are not UTF-8 are spelled out.

    >>> name_of(PurePath(os.fsdecode(b"in/caf\xe9.md")))
    'in/caf\\xe9.md'
    """
    return os.fsencode(path.as_posix()).decode(errors="backslashreplace")


def _within_repository(root: Path) -> list[Path]:
    """Return the folders from the git repository that a folder is in to itself; without one, itself."""
    above = [root, *root.parents]
    is_one = (os.path.exists(folder / ".git") for folder in above)  # noqa: PTH110 - as above
    repository = next((n for n, found in enumerate(is_one) if found), 0)
    return above[repository::-1]
