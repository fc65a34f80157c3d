"""Folders in step with an index: which files changed is told by their hashes, and only those are read."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import shlex
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.images.pdf import DPI, PDF_TIMEOUT_S
from late_interaction.metadata import MARK, MetadataChange
from late_interaction.pacing import Rows
from late_interaction.printable import printable
from late_interaction.progress import tqdm
from late_interaction.reading import beir
from late_interaction.reading.excluding import absolute
from late_interaction.reading.files import read_rows
from late_interaction.reading.finding import Found, name_of
from late_interaction.reading.kinds import Kind, kind_of
from late_interaction.reading.problems import ReadProblem
from late_interaction.rows import Row, row_text
from late_interaction.stores.base import Store
from late_interaction.syncing import Mark, Origin, Placed, Progress, SyncReport, SyncRun, file_hash, origin
from late_interaction.types import Document, IndexedIds

logger = logging.getLogger(__name__)

_READING = 3
"""Counts what changes the rows of a file: another number, and every file is read again."""

_PLAIN = (Kind.TEXT, Kind.MARKDOWN, Kind.RST, Kind.CODE)
_WITH_FILES = (Kind.CSV, Kind.JSON, Kind.JSON_LINES)
_FEW, _MOST = 10, 0.9
_AT_ONCE = 16
_DELETED_AT_ONCE = 1000
_SHORT = 4096
_LONGEST_NAME = 40


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How files are read: the options of `read_rows` of these names.

    Raises:
        ValueError: an option is wrong, or ocrmypdf, which `ocr` needs, is not installed.
    """

    content_column: str | None = None
    id_column: str | None = None
    delimiter: str | None = None
    encoding: str | None = None
    passage_tokens: int | None = None
    overlap: int = 0
    headings: bool = True
    dpi: float = DPI
    pdf_timeout_s: float = PDF_TIMEOUT_S
    password: str | None = field(default=None, repr=False)
    ocr: bool = False

    def __post_init__(self) -> None:
        for _ in read_rows([], lambda problem: None, **asdict(self)):
            """There are no rows; it checks the options before anything else is done."""

    def fingerprint(self, *, images: bool) -> str:
        """Return a hash of all that changes the rows of a file, but the file and the model."""
        said = {**asdict(self), "dpi": float(self.dpi), "images": images, "reading": _READING}
        del said["pdf_timeout_s"], said["password"]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class _File:
    """A file, and how the index knows it.

    Attributes:
        path: where it is.
        origin: its scope, and its name from the folder.
        mark: the hash of its bytes and of how they are read; "" where it cannot be read.
    """

    path: Path
    origin: Origin
    mark: str


class FolderSync:
    """One call that brings an index in step with files and folders.

    Args:
        paths: files and folders.
        found: the files in them, as `find` lists them.
        images: the model encodes images.
        root: names are from here; by default from each folder that is given, and of a file from its own folder.
        scope: tells these files from others in the index; by default it is made of the folder's place. A folder that
            moved is known by its files.
        reading: how files are read.
        on_problem: called with each file, or fault of a file, that cannot be read.

    Raises:
        ValueError: a path is outside of the root.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        found: Found,
        *,
        images: bool,
        root: Path | None = None,
        scope: str | None = None,
        reading: ReadOptions | None = None,
        on_problem: Callable[[ReadProblem], None] = lambda problem: None,
    ) -> None:
        self.found = found.readable(images=images)
        self.problems: list[ReadProblem] = []
        self._on_problem = on_problem
        self._images = images
        self._reading = reading or ReadOptions()
        self._scope = scope
        self._root = None if root is None else absolute(Path(root))
        self._corpora = beir.corpora(self.found)
        self._beside = set().union(*self._corpora.values())
        self._twice: list[ReadProblem] = []
        by_origin: dict[Origin, _File] = {}
        for file in (self._file(path) for path in self.found.files if path not in self._beside):
            if (first := by_origin.setdefault(file.origin, file)) is not file:
                reason = f"has the name of {first.path} in this scope, which is kept: give a root= above both"
                self._twice.append(ReadProblem(file.path, None, reason))
        self._files = list(by_origin.values())
        self._unread = {self._unread_origin(*one) for one in self.found.unread}
        self._covers = {self._named(absolute(path)) for path in paths}
        self._known: dict[str, tuple[Document, Mark | None]] = {}
        self._of_source: dict[Origin, list[str]] = {}
        self._is_compared = False
        self._unchanged: list[str] = []
        self._to_read: list[_File] = []

    @property
    def is_compared(self) -> bool:
        """Whether `compare` was called."""
        return self._is_compared

    @property
    def left_out(self) -> dict[str, dict[str, int]]:
        """For each reason, how many files of each suffix are left out."""
        beside = Counter(path.suffix for path in self._beside)
        counts = {why: dict(counts) for why, counts in self.found.left_out.items()}
        return counts | ({"queries and judgments beside a corpus": dict(beside)} if beside else {})

    @property
    def is_done(self) -> bool:
        """Whether no file has to be read."""
        return not self._to_read

    def _file(self, path: Path) -> _File:
        base, name = self.found.names[path]
        scope, prefix, _ = self._named(base)
        source = f"{prefix}{name}"
        try:
            digest = file_hash(path)
        except OSError:
            digest = ""  # Reading it says why.
        return _File(path, (scope, source), f"{digest}-{self._reading.fingerprint(images=self._images)}")

    def _unread_origin(self, base: Path, name: str) -> Origin:
        scope, prefix, _ = self._named(base)
        return scope, f"{prefix}{name}".rstrip("/")

    def _named(self, path: Path) -> tuple[str, str, bool]:
        """Return the scope of a path that was given, what its files' names begin with, and whether it is a folder."""
        is_folder = path.is_dir()
        base = self._root or (path if is_folder else path.parent)
        if not path.is_relative_to(base):
            raise ValueError(f"{path} is not inside of the root {base}.")
        inside = name_of(path.relative_to(base))
        prefix = "" if inside == "." else inside + "/" * is_folder
        scope = self._scope
        if scope is None:
            scope = hashlib.sha256(os.fsencode(base.resolve())).hexdigest()[:16]
        return scope, prefix, is_folder

    # --- what the index has

    async def compare(self, store: Store) -> None:
        """Learn which files changed; no model is needed for it."""
        self._is_compared = True
        self._known = {document.doc_id: (document, document.mark) for document in await store.find()}
        await self._adopt(store)
        for doc_id, (_, mark) in self._known.items():
            if mark is not None:
                self._of_source.setdefault(origin(mark), []).append(doc_id)
        for file in self._files:
            ids = self._of_source.get(file.origin, [])
            if self._is_unchanged(file, ids):
                self._unchanged += ids
            else:
                self._to_read.append(file)
        self._warn_of_copies()

    def _is_unchanged(self, file: _File, ids: Sequence[str]) -> bool:
        kind = kind_of(file.path)
        if self._images and kind in _WITH_FILES:
            return False  # The images that it names may have changed.
        marks = [self._known[doc_id][1] or {} for doc_id in ids]
        if not marks:
            return kind in _PLAIN and _is_blank(file.path)
        return all(mark.get("file") == file.mark for mark in marks) and len(marks) == max(
            mark.get("rows", 0) for mark in marks
        )

    async def _adopt(self, store: Store) -> None:
        """Take over the documents of a scope whose files are here, unchanged: the folder has moved.

        All of them have to be here; of ten and more, nine tenths.
        """
        if self._scope is not None:
            return
        here = {file.origin[1]: file for file in self._files}
        own = {file.origin[0] for file in self._files}
        sources: dict[str, dict[str, str]] = {}
        for _, mark in self._known.values():
            if mark is not None and "source" in mark and mark["scope"] not in own:
                sources.setdefault(mark["scope"], {})[mark["source"]] = mark["file"].partition("-")[0]
        for scope, files in sources.items():
            same = [
                name
                for name, digest in files.items()
                if name in here and here[name].mark.startswith(digest + "-")
            ]
            if len(same) < (len(files) if len(files) < _FEW else _MOST * len(files)):
                continue
            to = here[same[0]].origin[0]
            logger.warning(
                "This folder is taken for one that was indexed before: of the %d files of that one, %d are here "
                "unchanged, under the same names. Its documents are this folder's now.",
                len(files),
                len(same),
            )
            # Those of unchanged files come last: a call that breaks off here leaves enough to know the folder by.
            moved = [
                (doc_id, document, {**mark, "scope": to})
                for doc_id, (document, mark) in self._known.items()
                if mark is not None and mark["scope"] == scope
            ]
            moved.sort(key=lambda one: one[2].get("source") in same)
            for start in range(0, len(moved), _AT_ONCE):
                some = moved[start : start + _AT_ONCE]
                changes = (store.update_metadata(one[0], MetadataChange({MARK: one[2]})) for one in some)
                await asyncio.gather(*changes)
                self._known |= {doc_id: (document, mark) for doc_id, document, mark in some}

    # --- in step

    async def run(
        self,
        store: Store,
        index: Callable[[Rows], Awaitable[IndexedIds]],
        model: LateInteractionModel | None,
        *,
        prune: bool,
        show_progress: bool = False,
    ) -> SyncReport:
        """Index what changed, and remove what is gone.

        Args:
            store: the index; open.
            index: indexes rows, as `LateInteractionPipeline.index_documents` does.
            model: counts tokens of passages; not needed if `is_done`.
            prune: delete the documents of files that are gone.
            show_progress: show a progress bar.
        """
        for problem in (*self.found.problems, *self._twice):
            self._note(problem)
        done = SyncRun(store, index, self._scope or "")
        done.holding = {file.origin for file in self._files}
        if self._to_read:
            with tqdm(
                desc="Indexing",
                total=sum(_size(file.path) for file in self._to_read),
                unit="B",
                unit_scale=True,
                disable=not show_progress,
                leave=False,
            ) as bar:
                done.on_progress = partial(self._show, bar)
                await done.run(_in_thread(self._read(model)))
        broken = done.broken | {self._origin_of(problem.file) for problem in self.problems}
        kept = {*done.origins, *self._unchanged}
        read = {file.origin for file in self._to_read} - broken
        paths = {str(file.path.resolve()) for file in self._to_read if file.origin not in broken}
        gone, shortened = [], []
        for doc_id, (document, mark) in self._known.items():
            if doc_id in kept:
                continue
            if mark is None:
                if _is_of_a_path(document, paths):
                    shortened.append(doc_id)
            elif (where := origin(mark)) in read:
                shortened.append(doc_id)
            elif where not in broken and self._is_covered(where):
                gone.append(doc_id)
        self._warn_of_paths()
        deleted = [*shortened, *(gone if prune else ())]
        for start in range(0, len(deleted), _DELETED_AT_ONCE):
            await store.delete(deleted[start : start + _DELETED_AT_ONCE])
        return SyncReport(
            new=tuple(done.new),
            changed=tuple(done.changed),
            unchanged=(*self._unchanged, *done.unchanged),
            removed=(*shortened, *gone),
            deleted=tuple(deleted),
            failed=(*self.problems, *done.failed),
            left_out=self._left_out(),
            files=self._counted(done, broken),
            truncated=done.truncated,
        )

    def _show(self, bar: tqdm[None], n_documents: int, progress: Progress) -> None:
        """Tell how far it is: beside bytes and the time that is left, documents, files and the current one."""
        name = printable(progress.file)
        name = name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
        bar.set_postfix_str(
            f"{n_documents:,} documents, file {progress.number:,} of {len(self._to_read):,}, {name}",
            refresh=False,
        )
        bar.update(progress.n_bytes - bar.n)

    def _read(self, model: LateInteractionModel | None) -> Iterator[Placed]:
        """Yield the rows of each file, the last one with how many they are."""
        if model is not None and type(model).count_tokens is LateInteractionModel.count_tokens:
            model = None  # It cannot tell, and passages estimate.
        n_bytes = 0
        for number, file in enumerate(self._to_read, 1):
            scope, source = file.origin
            n_problems, n, before = len(self.problems), 0, None
            size, read = _size(file.path), 0
            options: dict[str, Any] = asdict(self._reading)
            if file.path in self._corpora and self._reading.content_column is None:
                options |= {"content_column": ",".join(beir.COLUMNS), "separator": beir.SEPARATOR}
            names = {file.path: source}
            rows = read_rows(
                [file.path], self._note, model=model, images=self._images, names=names, **options
            )
            mark = {"scope": scope, "source": source, "file": file.mark}
            for row in rows:
                if before is not None:
                    yield before
                n += 1
                progress = Progress(source, number, n_bytes + min(read, size))
                read = _read_to(row, size, read)
                before = Placed(row, f"{file.path}{_line(row)}", mark, progress)
            if before is not None:
                complete = len(self.problems) == n_problems
                yield replace(before, mark={**mark, "rows": n}) if complete else before
            n_bytes += size

    def _note(self, problem: ReadProblem) -> None:
        self.problems.append(problem)
        self._on_problem(problem)

    def _origin_of(self, path: Path) -> Origin:
        return next((file.origin for file in self._files if file.path == path), ("", str(path)))

    def _is_covered(self, where: Origin) -> bool:
        """Tell whether a file would be among those that were given, if it were there; not where nobody can look."""
        if not where[1]:
            return False  # It is a row, whose scope was given for these files, too.
        for scope, name in self._unread:
            if where[0] == scope and (not name or f"{where[1]}/".startswith(f"{name}/")):
                return False
        return any(
            where[0] == scope and (where[1].startswith(name) if is_folder else where[1] == (name or where[1]))
            for scope, name, is_folder in self._covers
        )

    def _warn_of_copies(self) -> None:
        """Tell of files that are new, and in the index by a longer or shorter name, of a folder above or inside."""
        own = {file.origin[0] for file in self._files}
        there: dict[str, set[str]] = {}
        for _, mark in self._known.values():
            if mark is not None and "source" in mark and mark["scope"] not in own:
                there.setdefault(mark["file"].partition("-")[0], set()).add(mark["source"])
        copies = {
            name: other
            for file in self._to_read
            if (name := file.origin[1]) and file.origin not in self._of_source
            for other in there.get(file.mark.partition("-")[0], ())
            if f"/{name}".endswith(f"/{other}") != f"/{other}".endswith(f"/{name}")
        }
        if copies:
            name, other = map(printable, next(iter(copies.items())))
            logger.warning(
                "%d of the new files are in the index already, from another folder or root: %s is there as %s. Each is "
                "found twice from now on. Give one root= in all calls, and delete the others: late-interaction delete "
                "--source %s",
                len(copies),
                name,
                other,
                shlex.quote(other),
            )

    def _warn_of_paths(self) -> None:
        """Tell of documents whose ids are paths, as earlier releases made them, of files that have moved since.

        They may be the files that are here, but they may also be another machine's: nobody else can tell.
        """
        names = {file.origin[1] for file in self._files}
        roots: Counter[str] = Counter()
        for document, mark in self._known.values():
            source = document.metadata.get("source")
            if mark is None and isinstance(source, str) and document.doc_id.startswith(source):
                parts = PurePosixPath(source).parts if source.startswith("/") else ()
                name = next(
                    (one for n in range(1, len(parts)) if (one := "/".join(parts[n:])) in names), None
                )
                if name is not None and not Path(source).exists():
                    roots[source.removesuffix(f"/{name}")] += 1
        for root, n in roots.items():
            logger.warning(
                "The index has documents of an earlier release (%d) whose ids begin with %s, where their files are not "
                "any more. If these are the same files, delete the old documents, or each is found twice: "
                "late-interaction delete --source %s",
                n,
                printable(root),
                printable(root),
            )

    # --- the report

    def _left_out(self) -> dict[str, int]:
        counts: Counter[str] = Counter()
        for one in self.left_out.values():
            counts.update(one)
        return dict(counts)

    def _counted(self, done: SyncRun, broken: set[Origin]) -> dict[str, int]:
        changed = {done.origins[doc_id] for doc_id in (*done.new, *done.changed)}
        states = Counter(
            "failed" if file.origin in broken else "indexed" if file.origin in changed else "unchanged"
            for file in self._files
        )
        left_out = sum(self._left_out().values())
        return {
            "indexed": states["indexed"],
            "unchanged": states["unchanged"],
            "left_out": left_out,
            "failed": states["failed"] + len(self._twice),
        }


def _is_of_a_path(document: Document, paths: Collection[str]) -> bool:
    """Tell whether an earlier release wrote this document of one of these files, with the file's path as its id."""
    source = document.metadata.get("source")
    return isinstance(source, str) and source in paths and document.doc_id.startswith(source)


def _size(path: Path) -> int:
    """Return how many bytes a file has; 0 if it has vanished."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _is_blank(path: Path) -> bool:
    """Tell whether a file is short and only white space; reading one that cannot be read says why."""
    try:
        return path.stat().st_size < _SHORT and not path.read_bytes().strip()
    except OSError:
        return False


def _read_to(row: Row, size: int, before: int) -> int:
    """Return about how many bytes of a file of this size are read behind a row: by its page, else by its text."""
    page, pages = (row.get(name) if isinstance(row, Mapping) else None for name in ("page", "pages"))
    if isinstance(page, int) and isinstance(pages, int) and pages:
        return size * page // pages
    return before + len(row_text(row).encode(errors="replace"))


def _line(row: Row) -> str:
    metadata = row.metadata if isinstance(row, Document) else row if isinstance(row, Mapping) else {}
    line = metadata.get("line")
    return f":{line}" if line else ""


async def _in_thread(rows: Iterator[Placed]) -> AsyncIterator[Placed]:
    """Yield the rows of an iterator that is advanced in another thread, as reading a file takes long."""
    while taken := await asyncio.to_thread(lambda: list(islice(rows, _AT_ONCE))):
        for row in taken:
            yield row


def as_paths(source: object) -> list[Path] | None:
    """Return what was given to sync as paths; None for rows."""
    if isinstance(source, str | os.PathLike):
        return [Path(source)]
    if isinstance(source, Sequence) and source and all(isinstance(one, str | os.PathLike) for one in source):
        return [Path(one) for one in source]
    return None
