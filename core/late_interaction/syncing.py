"""Keep an index in step with rows: encode what is new or changed, leave the rest, tell or delete what is gone."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

from late_interaction.errors import DocumentError, RowFailure
from late_interaction.filters import parse_filter
from late_interaction.images.loading import NamedImage
from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY, image_reference
from late_interaction.metadata import MARK, MetadataChange, dumps, with_mark
from late_interaction.pacing import Items, Rows, batches
from late_interaction.reading.finding import left_out
from late_interaction.rows import Encodable, Pending, Row, check_row, row_id
from late_interaction.stores.base import Store
from late_interaction.types import Document, IndexedIds

Origin: TypeAlias = tuple[str, str]
Mark: TypeAlias = Mapping[str, Any]
"""Where a document comes from: the `scope` of its call; of a file its `source`, the `file`'s hash, and on its last row
how many `rows` it has; and the hash `of` what was encoded, where that is not the content."""

_TOGETHER = 16
_STORED_OF_IMAGES = (IMAGE_KEY, THUMBNAIL_KEY)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What `sync` did. As a str it is one line, such as "12 new, 3 changed, 60 unchanged, 1 removed".

    Attributes:
        new: ids of documents that were not in the index.
        changed: ids of those whose text, image or metadata changed.
        unchanged: ids of those that were left alone.
        removed: ids of those in the index that are no longer among the rows.
        deleted: ids of those of them that were deleted: with `prune` all, else passages that a file has no more.
        failed: what could not be read or indexed, each with its reason as its str.
        left_out: of a folder, how many files of each suffix are of no kind that is read.
        files: of a folder, how many files were indexed, unchanged, left_out and failed; they add up to all of them.
        truncated: as in `IndexedIds`.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    failed: tuple[object, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, int] = field(default_factory=dict)
    truncated: Mapping[str, float | None] = field(default_factory=dict)

    def __str__(self) -> str:
        parts = [f"{len(self.new)} new", f"{len(self.changed)} changed", f"{len(self.unchanged)} unchanged"]
        parts.append(f"{len(self.removed)} removed")
        if self.left_out:
            parts.append(left_out(self.left_out))
        if self.failed:
            parts.append(f"{len(self.failed)} failed")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far reading files is.

    Attributes:
        file: the name of the current one.
        number: which one it is of all that are read, from 1.
        n_bytes: bytes of files up to here.
    """

    file: str
    number: int
    n_bytes: int


@dataclass(frozen=True, slots=True)
class Placed:
    """A row on its way into step.

    Attributes:
        row: the row, with an id.
        place: where it comes from, for messages.
        mark: what is stored with it beside the scope.
        progress: how far all is done when it comes.
    """

    row: Row
    place: str
    mark: Mark = field(default_factory=dict)
    progress: Progress | None = None


class SyncRun:
    """One call that brings documents in step with rows.

    Args:
        store: the index; open.
        index: indexes rows, as `LateInteractionPipeline.index_documents` does.
        scope: what the call answers for, where a row's mark names no other. A document of another scope is neither
            replaced nor removed.

    Attributes:
        new, changed, unchanged: ids, as in `SyncReport`.
        failed: rows that are bad.
        broken: the places of the marks, of which a row failed.
        origins: where each row comes from, scope and source, by id.
        truncated: as in `IndexedIds`.
        holding: origins whose documents are theirs, until a row of theirs comes; no other row takes their ids.
        on_progress: called before each row is handed on to be encoded, with how many were before it, and with its
            progress. Those of the batch before it are encoded then, or of images are being encoded.
    """

    def __init__(self, store: Store, index: Callable[[Rows], Awaitable[IndexedIds]], scope: str) -> None:
        self._store, self._index, self._scope = store, index, scope
        self.new: list[str] = []
        self.changed: list[str] = []
        self.unchanged: list[str] = []
        self.failed: list[RowFailure] = []
        self.broken: set[Origin] = set()
        self.origins: dict[str, Origin] = {}
        self.truncated: Mapping[str, float | None] = {}
        self.holding: set[Origin] = set()
        self.on_progress: Callable[[int, Progress], None] = lambda n, progress: None
        self._places: dict[str, str] = {}
        self._updated: set[str] = set()
        self._n_rows = 0
        self._handed_on: list[int] = []

    async def run(self, rows: Items[Row | Placed]) -> None:
        """Index what is new or changed of the rows."""
        try:
            ids = await self._index(self._to_index(rows))
            written, self.truncated = set(ids), ids.truncated
        except DocumentError as error:
            written, self.truncated = set(error.indexed), error.truncated
            for failure in error.failures:
                self.failed.append(replace(failure, row=self._handed_on[failure.row]))
                if failure.doc_id in self.origins:
                    self.broken.add(self.origins[failure.doc_id])
        self.new = [doc_id for doc_id in self.new if doc_id in written]
        self.changed = [doc_id for doc_id in self.changed if doc_id in written | self._updated]
        self.failed.sort(key=lambda failure: failure.row)

    async def _to_index(self, rows: Items[Row | Placed]) -> AsyncIterator[Row]:
        """Yield the rows that are to be encoded."""
        async for batch in batches(rows, _TOGETHER):
            checked: list[tuple[int, Pending, dict[str, Any]]] = []
            progress: dict[int, Progress | None] = {}
            for given in batch:
                number, self._n_rows = self._n_rows, self._n_rows + 1
                placed = given if isinstance(given, Placed) else Placed(given, f"row {number}")
                mark = {"scope": self._scope, **placed.mark}
                progress[number] = placed.progress
                pending = self._checked(number, placed, mark)
                if pending is not None:
                    checked.append((number, pending, mark))
            await asyncio.to_thread(_add_hashes, checked)
            ids = [pending.document.doc_id for _, pending, _ in checked]
            stored = {document.doc_id: document for document in await self._store.documents(ids)}
            updates = []
            for number, pending, mark in checked:
                doc_id = pending.document.doc_id
                outcome = self._compared(number, pending, mark, stored.get(doc_id))
                if isinstance(outcome, MetadataChange):
                    updates.append((doc_id, outcome))
                elif outcome is not None:
                    if (at := progress[number]) is not None:
                        self.on_progress(len(self._handed_on), at)
                    self._handed_on.append(number)
                    yield outcome
            await asyncio.gather(*(self._store.update_metadata(*update) for update in updates))

    def _checked(self, number: int, placed: Placed, mark: Mark) -> Pending | None:
        """Return the row as it goes on; note why not, if it is bad or its id came before."""
        doc_id = row_id(placed.row)
        if doc_id is None:
            self._fail(number, None, "it has no doc_id, by which it could be compared.", mark)
            return None
        try:
            pending = check_row(placed.row, number)
        except (ValueError, TypeError) as error:
            self._fail(number, doc_id, str(error), mark)
            return None
        doc_id = pending.document.doc_id
        if doc_id in self._places:
            reason = f"{placed.place} has the id of {self._places[doc_id]}, which is kept."
            self._fail(number, doc_id, reason, mark)
            return None
        self._places[doc_id], self.origins[doc_id] = placed.place, origin(mark)
        return pending

    def _fail(self, number: int, doc_id: str | None, reason: str, mark: Mark) -> None:
        self.failed.append(RowFailure(number, doc_id, reason))
        self.broken.add(origin(mark))

    def _compared(
        self, number: int, pending: Pending, mark: dict[str, Any], old: Document | None
    ) -> Row | MetadataChange | None:
        """Return the row to encode, a change of the metadata alone, or None, and note which it is."""
        document = pending.document
        doc_id = document.doc_id
        self.holding.discard(origin(mark))
        if old is None:
            self.new.append(doc_id)
            return _with_mark(pending, mark)
        if old.mark is not None and (there := origin(old.mark)) in self.holding:
            reason = f"{self._places.pop(doc_id)} has the id of a document of {there[1]}, which is kept."
            del self.origins[doc_id]  # It is the other file's to say whether the document stays.
            self._fail(number, doc_id, reason, mark)
            return None
        same = _same_vectors(old, pending, mark)
        if (
            old.mark is not None
            and old.mark["scope"] != mark["scope"]
            and not (same and _is_of_rows(old.mark))
        ):
            reason = f"{self._places[doc_id]} has the id of {_whose(old.mark)}"
            self._fail(number, doc_id, reason, mark)
            return None
        if not same:
            self.changed.append(doc_id)
            return _with_mark(pending, mark)
        metadata = _kept_of_image(old, pending) | document.metadata
        if dumps(metadata, sort_keys=True) == dumps(old.metadata, sort_keys=True):
            self.unchanged.append(doc_id)
            if mark == old.mark:
                return None
        else:
            self.changed.append(doc_id)
            self._updated.add(doc_id)
        return MetadataChange(with_mark(metadata, mark), replace=True)


def _is_of_rows(mark: Mark) -> bool:
    return "source" not in mark


def _whose(mark: Mark) -> str:
    """Return whose a document of another scope is, and what can be done."""
    if _is_of_rows(mark):
        return (
            f"the rows of {mark['scope'] or 'another call'}, which is kept: give other ids, or that scope=."
        )
    return (
        f"another folder's {mark['source']}, which is kept: sync both folders with a root= above them. If it is the "
        f'same folder, moved and changed since, give scope="{mark["scope"]}".'
    )


def _same_vectors(old: Document, pending: Pending, mark: Mark) -> bool:
    """Tell whether a document that is stored has the vectors that the row would get."""
    new = pending.document
    of = (old.mark or {}).get("of")
    same = old.content_type == new.content_type and of == mark.get("of")
    if pending.image is not None and pending.has_pending_image:
        return same and (of is not None or pending.item is not None) and new.content in ("", old.content)
    return same and old.content == new.content


def _kept_of_image(old: Document, pending: Pending) -> dict[str, Any]:
    """Return what stays of what is stored of an image: its thumbnail, its bytes, or the path that it has now."""
    if pending.image is None or not pending.has_pending_image:
        return {}
    kept = {key: old.metadata[key] for key in _STORED_OF_IMAGES if key in old.metadata}
    reference = image_reference(pending.image)
    if reference is not None and not str(kept.get(IMAGE_KEY, "")).startswith("data:"):
        kept[IMAGE_KEY] = reference
    return kept


def _with_mark(pending: Pending, mark: Mark) -> Row:
    document = replace(pending.document, mark=mark)
    if pending.image is not None and not pending.has_pending_image:
        return document
    text = pending.item if isinstance(pending.item, str) and pending.item != document.content else None
    return Encodable(document, pending.image, text)


async def sync_rows(
    store: Store, index: Callable[[Rows], Awaitable[IndexedIds]], rows: Rows, scope: str, *, prune: bool
) -> SyncReport:
    """Bring the documents of a scope in step with rows, and report it.

    Args:
        store: the index; open.
        index: indexes rows, as `LateInteractionPipeline.index_documents` does.
        rows: all that the scope is to hold; each has an id.
        scope: what an earlier call of the same scope wrote, and no row has now, is removed.
        prune: delete what is removed.
    """
    known = await store.find(parse_filter({f"{MARK}.scope": scope}))
    done = SyncRun(store, index, scope)
    await done.run(rows)
    kept = {*done.origins, *(failure.doc_id for failure in done.failed)}
    removed = tuple(document.doc_id for document in known if document.doc_id not in kept)
    if prune and removed:
        await store.delete(removed)
    return SyncReport(
        tuple(done.new),
        tuple(done.changed),
        tuple(done.unchanged),
        removed,
        removed if prune else (),
        tuple(done.failed),
        truncated=done.truncated,
    )


def origin(mark: Mark) -> Origin:
    """Return where a document comes from: its scope, and its file's name there, or ""."""
    return mark["scope"], mark.get("source", "")


def _add_hashes(checked: Sequence[tuple[int, Pending, dict[str, Any]]]) -> None:
    """Add to each mark the hash of what is encoded, where that is not the content."""
    for _, pending, mark in checked:
        if pending.image is not None and pending.item is None:
            mark["of"] = _image_hash(pending.image)
        elif isinstance(pending.item, str) and pending.item != pending.document.content:
            mark["of"] = _hash(pending.item.encode())


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def _image_hash(image: Any) -> str:
    """Return a hash of what an image is: of a file its bytes, with the page; of a URL its name."""
    if isinstance(image, NamedImage):
        image = image.source
    if isinstance(image, bytes | bytearray | memoryview):
        return _hash(bytes(image))
    if hasattr(image, "tobytes"):
        return _hash(f"{image.mode} {image.size}".encode() + image.tobytes())
    path = getattr(image, "path", image)
    page = "" if path is image else f" {getattr(image, 'page', '')} {getattr(image, 'dpi', '')}"
    try:
        stat = os.stat(path)  # noqa: PTH116 - a str may be a URL, and base64 too long for a Path
        return _known_hash(os.fspath(path), stat.st_mtime_ns, stat.st_size) + page
    except (OSError, ValueError):  # a URL or base64, or what cannot be read, which is told when it is encoded
        return _hash(str(path).encode()) + page


@lru_cache(maxsize=64)
def _known_hash(path: str, _mtime_ns: int, _size: int) -> str:
    return file_hash(path)


def file_hash(path: str | os.PathLike[str]) -> str:
    """Return a hash of a file's bytes; raises OSError if it cannot be read."""
    with open(path, "rb") as file:  # noqa: PTH123 - as above
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
