"""The embedded store: a folder with one SQLite file, which is the truth, and a centroid index, which is not.

    FOLDER/NAME/documents.sqlite3   documents, metadata as JSON, packed token matrices
    FOLDER/NAME/centroids.npz       the index; may be deleted at any time
    FOLDER/NAME/write.lock          held during each write, one process at a time
    FOLDER/NAME/build.lock          held while the index is built; others search and write on

The files stand at a path that is fixed when the store is made. Each transaction looks whether the index there is
still the one that was opened, and attaches to another of the same kind.

Every write gives a document a new, larger row id. The index covers the row ids up to its last one; whatever was
written later, and everything in a small collection, is scored exactly. So the index is never wrong, only
behind, and it is brought up to date in the background once scoring the rest takes too long.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sqlite3
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from late_interaction.candidates import Scaling
from late_interaction.errors import DocumentError, IndexMismatchError, StoreError
from late_interaction.filters import Filter, check_parsed
from late_interaction.lexical import MOST_WORDS, query_terms, query_words
from late_interaction.metadata import MetadataChange, as_change
from late_interaction.packing import unpack
from late_interaction.recipes import Remade
from late_interaction.stems import has_fts5
from late_interaction.stores.base import Candidates, Store, WordMatches, check_search
from late_interaction.stores.local.background import Background
from late_interaction.stores.local.build import IndexBuilder
from late_interaction.stores.local.calls import in_thread, in_writer_thread, together
from late_interaction.stores.local.filters import matching
from late_interaction.stores.local.in_step import InStep
from late_interaction.stores.local.limits import Limits
from late_interaction.stores.local.matrices import read_by_id
from late_interaction.stores.local.place import INDEX_FILE
from late_interaction.stores.local.rows import metadata_to_json, prepare
from late_interaction.stores.local.scaling import folder_scaling
from late_interaction.stores.local.search import find_candidates, score_documents
from late_interaction.stores.local.space import shrink
from late_interaction.stores.local.sqlite import SQLiteFile
from late_interaction.stores.local.tables import (
    DOCUMENT,
    Change,
    create_tables,
    delete_rows,
    insert,
    parse_spec,
    read_content,
    read_documents,
    read_property,
    read_state,
    record_change,
    row_ids_of,
    select_in,
    to_document,
    to_metadata,
    write_property,
)
from late_interaction.stores.local.terms import Terms, clear_terms, create_terms, fill_terms
from late_interaction.stores.local.view import View, Views
from late_interaction.stores.local.words import (
    Words,
    check_words,
    clear_words,
    create_words,
    fill_words,
    find_rare,
    find_words,
)
from late_interaction.stores.local.writer import WriterThread, weak_method
from late_interaction.types import (
    Document,
    EncodedDocument,
    IndexSpec,
    QueryVectors,
    RaggedTokens,
)
from late_interaction.validation import (
    check_ids,
    check_not_negative,
    check_positive,
    check_query,
    check_spec,
    shown,
)

T = TypeVar("T")


class LocalStore(Remade, Store):
    """An index in a folder on this machine, which any number of processes may write and search.

    Writers take turns, a transaction at a time. Where the folder is replaced while it is open, the store goes on
    with the index that is there, if it has the same spec; where it is deleted, every call says so.

    Args:
        path: the folder; may hold several indexes. A relative path is resolved now.
        name: the index's name: letters, digits, `_`, `-` and `.`, at most 100, not beginning with a dot.
        lock_timeout: how long a write waits for other writers, in seconds; then it raises `StoreLockedError`.
        shared: whether a new index may be used by everyone whom the umask admits. Otherwise it is for this user alone
            (0700 for its folder, 0600 for its files). An existing index keeps its permissions.
        limits: the sizes at which the store changes its ways.

    Example:
        >>> import asyncio, tempfile
        >>> import numpy as np
        >>> from late_interaction import LateInteractionPipeline, LocalStore, PrecomputedEmbeddings
        >>> async def main(folder):
        ...     store = LocalStore(folder, "pages", lock_timeout=5)
        ...     async with LateInteractionPipeline(store, PrecomputedEmbeddings(2, "mine")) as pipeline:
        ...         await pipeline.index_embeddings([{"doc_id": "a", "content": "north"}], [np.eye(2)])
        ...         return (await store.info())["documents"], (await store.optimize())["freed_bytes"]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     asyncio.run(main(folder))
        (1, 0)
    """

    def __init__(
        self,
        path: str | Path,
        name: str = "late_interaction",
        *,
        lock_timeout: float = 30.0,
        shared: bool = False,
        limits: Limits | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", name):
            raise ValueError(
                f"an index's name has 1 to 100 letters, digits, '_', '-' or '.' and begins with no dot; {name!r} "
                "does not."
            )
        if isinstance(lock_timeout, bool) or not isinstance(lock_timeout, int | float):
            raise TypeError(
                f"lock_timeout must be a number of seconds; it is a {type(lock_timeout).__name__}."
            )
        if not 0 <= lock_timeout <= threading.TIMEOUT_MAX:
            raise ValueError(f"lock_timeout must be a number of seconds from 0 on; it is {lock_timeout!r}.")
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits must be Limits(…), not {shown(limits)}.")
        self.name = name
        self.folder = Path(path).expanduser().absolute() / name
        self._file = SQLiteFile(self.folder / INDEX_FILE, lock_timeout=lock_timeout, shared=shared)
        self._file.on_begin = weak_method(self._attach)
        self._writer = WriterThread()
        self._index_id: str | None = None
        self._spec: IndexSpec | None = None
        self._about = 0
        self._limits = limits = limits or Limits()
        self._views = Views(self.folder / "centroids.npz", limits)
        self._build = IndexBuilder(self._file, self._views, limits)
        self._builder = Background(self._build)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.folder)!r})"

    @property
    def location(self) -> str:
        """The index's folder."""
        return str(self.folder)

    @property
    def scaling(self) -> Scaling:
        """How deep stage 1 looks: it depends on how many documents the folder had when it was last read or written."""
        return folder_scaling(self._about)

    @property
    def epoch(self) -> int:
        """How often another index was found in the folder."""
        return self._file.epoch

    # --- opening and closing

    async def spec(self) -> IndexSpec | None:
        """Return what the index in the folder was built with, or None if there is no index."""
        return await asyncio.to_thread(self._read_spec)

    async def open(self, spec: IndexSpec) -> None:
        """Create the index, or attach to it.

        Raises:
            IndexMismatchError: it was built with another spec.
            StoreLockedError: it does not exist yet, and others were creating it for as long as `lock_timeout`.
            StoreError: it was open already, and is gone.
        """
        await self._writer.run(self._open, check_spec(spec))

    def _open(self, spec: IndexSpec) -> None:
        have = self._read_spec()
        if have is None:
            if self._spec is not None:
                self._file.raise_gone()
            have = self._create(spec)
        if differences := have.differences(spec):
            raise IndexMismatchError(self.location, differences)
        self._spec = spec
        self._views.dim = spec.dim
        with self._file.reading() as connection:
            self._about = _count(connection)

    def _read_spec(self) -> IndexSpec | None:
        if not self._file.exists():
            return None
        with self._file.reading() as connection:
            return self._stored_spec(connection)

    def _stored_spec(self, connection: sqlite3.Connection) -> IndexSpec | None:
        """Return the spec in a file; None where it has no tables yet."""
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'properties'").fetchone():
            return None
        return parse_spec(read_property(connection, "spec"), self.location)

    def _create(self, spec: IndexSpec) -> IndexSpec:
        """Create the index, unless another process does it first; return the spec in the file."""
        properties = {"spec": json.dumps(spec.to_dict()), "index_id": uuid.uuid4().hex}

        def fill(connection: sqlite3.Connection) -> None:
            create_tables(connection, properties)
            create_words(connection)
            create_terms(connection)

        self._file.create(fill)
        have = self._read_spec()
        if have is None:
            raise StoreError(
                f"{self.location} holds an SQLite file without the tables of an index. Move it away, or choose another "
                "folder."
            )
        return have

    def _attach(self, connection: sqlite3.Connection) -> None:
        """Look, when a transaction begins, which index it sees; at another one, drop what is known of the last.

        Raises:
            IndexMismatchError: the other one was built with another spec.
        """
        spec = self._spec
        if spec is None:
            return
        if read_content(connection)[0] == self._index_id:
            return
        index_id = read_state(connection).index_id
        have = self._stored_spec(connection)
        if have is None or (differences := have.differences(spec)):
            raise IndexMismatchError(self.location, {} if have is None else differences)
        if self._index_id is not None:
            self._views.forget()
            self._file.epoch += 1
        self._index_id = index_id

    def _opened(self) -> IndexSpec:
        if self._spec is None:
            raise StoreError(f"The index {self.location} is not open: call initialize() first.")
        return self._spec

    async def close(self) -> None:
        """Stop a running index build and close the file."""
        await asyncio.to_thread(self._close)
        self._writer.close()

    def _close(self) -> None:
        self._builder.stop()
        self._file.close()
        self._spec = self._index_id = None
        self._views.forget()

    async def drop(self) -> None:
        """Delete the index's files; its folder too, where nothing else is in it."""
        await self._writer.run(self._drop)
        self._writer.close()

    def _drop(self) -> None:
        if not self.folder.is_dir():
            self._close()
            return
        with self._file.turn():
            self._close()
            self._file.delete()
            for path in self.folder.glob("centroids.npz*"):
                path.unlink()
            (self.folder / "build.lock").unlink(missing_ok=True)
            self._file.delete_locks()
        with suppress(OSError):  # Something else is in it, or another process makes a new index there.
            self.folder.rmdir()

    # --- writing

    def check(self, document: Document) -> None:
        """Check that a document's metadata can be stored as JSON."""
        metadata_to_json(document.metadata)

    async def upsert(self, documents: Sequence[EncodedDocument]) -> None:
        """Write documents in one transaction: after a kill, all of them are there or none is.

        Raises:
            DocumentError: metadata of some documents cannot be stored as JSON, or a text has half of a surrogate pair
                in it; the others are written.
            TypeError, ValueError: a matrix is not one of unit vectors, or an id is given twice; nothing is written.
        """
        if await self._upsert(documents):
            self._builder.start()

    @in_writer_thread
    def _upsert(self, documents: Sequence[EncodedDocument]) -> bool:
        """Write, and say whether so much is outside the index now that it should be built."""
        rows, failures = prepare(documents, self._opened())
        with self._changing() as (connection, change):
            index = self._views.index(connection, read_state(connection))
            replaced = row_ids_of(connection, [columns[0] for columns, _ in rows])
            self._delete_rows(connection, replaced, change)
            written = [(insert(connection, columns, packed), columns) for columns, packed in rows]
            change.written = len(written)
            if change.words is not None:
                change.words.add(connection, ((rid, columns[1]) for rid, columns in written))
            if change.terms is not None:
                change.terms.change(connection, ((rid, None, columns[3]) for rid, columns in written))
            due = self._build.unindexed_tokens(connection, index) > self._limits.exact_tokens
        if failures:
            raise DocumentError(failures, [columns[0] for columns, _ in rows])
        return due

    @in_writer_thread
    def update_metadata(self, selection: str | Filter, change: MetadataChange | dict[str, Any]) -> int:
        """Change the metadata of a document, or in one transaction of all that match a filter.

        Raises:
            TypeError, ValueError: the metadata cannot be stored as JSON; nothing is changed.
        """
        change = as_change(change)
        if not isinstance(selection, Filter) and not check_ids([selection]):
            return False
        with self._changing() as (connection, changed):
            if isinstance(selection, Filter):
                rows = list(matching(connection, selection, "rid, metadata"))
            else:
                query = "SELECT rid, metadata FROM documents WHERE doc_id = ?"
                rows = connection.execute(query, (selection,)).fetchall()
            made = [
                (row_id, text, metadata_to_json(change.apply(to_metadata(text)))) for row_id, text in rows
            ]
            statement = "UPDATE documents SET metadata = ? WHERE rid = ?"
            connection.executemany(statement, ((after, row_id) for row_id, _, after in made))
            changed.updated += [row_id for row_id, _, _ in made]
            if changed.terms is not None:
                changed.terms.change(connection, made)
        return len(rows) if isinstance(selection, Filter) else bool(rows)

    @in_writer_thread
    def delete(self, selection: Sequence[str] | Filter) -> int:
        """Delete by id or by filter in one transaction; return how many documents there were."""
        doc_ids = None if isinstance(selection, Filter) else check_ids(selection)
        with self._changing() as (connection, change):
            if doc_ids is not None:
                row_ids = row_ids_of(connection, doc_ids)
            else:
                row_ids = [row_id for (row_id,) in matching(connection, cast("Filter", selection), "rid")]
            return self._delete_rows(connection, row_ids, change)

    @staticmethod
    def _delete_rows(connection: sqlite3.Connection, row_ids: list[int], change: Change) -> int:
        if change.words is not None:
            change.words.delete(connection, row_ids)
        if change.terms is not None:
            change.terms.delete(connection, row_ids)
        return delete_rows(connection, row_ids, change)

    @in_writer_thread
    def clear(self) -> None:
        """Delete every document; the index stays open and empty."""
        with self._changing() as (connection, change):
            connection.execute("DELETE FROM vectors")
            connection.execute("DELETE FROM documents")
            if change.words is not None:
                clear_words(connection)
            if change.terms is not None:
                clear_terms(connection)
            change.everything = True

    @contextmanager
    def _changing(self) -> Iterator[tuple[sqlite3.Connection, Change]]:
        """Run a write transaction, and record what it changed for those who know an earlier state."""
        with self._file.writing() as connection:
            state = read_state(connection)
            if state.stamp is None and self._views.index(connection, state) is None:
                # An earlier release may have left an index of other documents, whose row ids come again.
                write_property(connection, "build", uuid.uuid4().hex)
            words, terms = Words.read(connection, state.generation), Terms.read(connection, state.generation)
            change = Change(words=words, terms=terms)
            yield connection, change
            generation = record_change(connection, change)
            for table in (words, terms):
                if table is not None:
                    table.write(connection, generation)
        self._about = 0 if change.everything else self._about + change.written - len(change.deleted)

    # --- reading

    async def together(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do reads that follow each other in one thread and one transaction, unless a subclass may do more in them."""
        return await (together(self, self._file, work) if type(self) is LocalStore else work())

    @in_thread
    def matrices(self, doc_ids: Sequence[str]) -> tuple[list[str], RaggedTokens]:
        """Return token matrices in the order asked, as they are packed: nothing is widened yet."""
        with self._file.reading() as connection:
            return read_by_id(connection, check_ids(doc_ids), self._opened().dim)

    @in_thread
    def score(self, query: QueryVectors, doc_ids: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """Run stage 2 where the matrices are read: changing threads takes as long as scoring ten documents."""
        dim = self._opened().dim
        check_query(query, dim)
        doc_ids = check_ids(doc_ids)
        with self._file.reading() as connection:
            view = self._views.latest
            if view is not None and view.state != read_state(connection):
                view = None
            return score_documents(connection, view, query, doc_ids, dim)

    @in_thread
    def documents(self, doc_ids: Sequence[str]) -> list[Document]:
        """Return the stored documents in the order asked; unknown ids are left out."""
        doc_ids = check_ids(doc_ids)
        with self._file.reading() as connection:
            return read_documents(connection, doc_ids)

    @in_thread
    def existing(self, doc_ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the index."""
        doc_ids = check_ids(doc_ids)
        with self._file.reading() as connection:
            return {row[0] for row in select_in(connection, "doc_id FROM documents", "doc_id", doc_ids)}

    @in_thread
    def find(
        self, filter: Filter | None = None, *, limit: int | None = None, offset: int = 0
    ) -> list[Document]:
        """Return the documents whose metadata match, in the order they were written."""
        if limit is not None:
            check_not_negative("limit", limit)
        check_not_negative("offset", offset)
        check_parsed(filter)
        with self._file.reading() as connection:
            rows: Iterator[tuple[Any, ...]]
            if filter is None:
                query = f"SELECT {DOCUMENT} FROM documents ORDER BY rid LIMIT -1 OFFSET ?"
                rows, offset = connection.execute(query, (offset,)), 0
            else:
                rows = matching(connection, filter, DOCUMENT)
            last = None if limit is None else offset + limit
            return [to_document(row) for row in itertools.islice(rows, offset, last)]

    @in_thread
    def count(self, filter: Filter | None = None) -> int:
        """Return how many documents there are (that match)."""
        check_parsed(filter)
        with self._file.reading() as connection:
            if filter is None:
                return _count(connection)
            return sum(1 for _ in matching(connection, filter, "1"))

    async def scan(self, *, batch_size: int = 100) -> AsyncIterator[list[EncodedDocument]]:
        """Yield every document with its token matrix, in the order they were written.

        It ends with the last one that was there at the beginning. If some were missing by then, what was written
        meanwhile comes too: they may have been replaced.

        Raises:
            StoreError: the index was replaced by another meanwhile, so that what was yielded is a part of neither.
        """
        check_positive("batch_size", batch_size)
        rid, (last, missing) = 0, await self._extent()
        epoch = self.epoch
        while True:
            rid, batch = await self._scan(rid, last, batch_size)
            if epoch != self.epoch:
                raise StoreError(
                    f"The index in {self.location} was replaced while all of it was read: begin anew."
                )
            if batch:
                missing -= len(batch)
                yield batch
            elif missing > 0:
                (last, _), missing = await self._extent(), 0
            else:
                return

    @in_thread
    def _extent(self) -> tuple[int, int]:
        """Return the largest row id, and how many documents there are."""
        with self._file.reading() as connection:
            last, n = connection.execute("SELECT coalesce(max(rid), 0), count(*) FROM documents").fetchone()
            return last, n

    @in_thread
    def _scan(self, after: int, last: int, batch_size: int) -> tuple[int, list[EncodedDocument]]:
        query = (
            f"SELECT {DOCUMENT}, packed, rid FROM documents JOIN vectors USING (rid) "
            "WHERE rid > ? AND rid <= ? ORDER BY rid LIMIT ?"
        )
        with self._file.reading() as connection:
            rows = connection.execute(query, (after, last, batch_size)).fetchall()
        encoded = [EncodedDocument(to_document(row), unpack(row[-2])) for row in rows]
        return (rows[-1][-1] if rows else after), encoded

    @in_thread
    def info(self) -> dict[str, Any]:
        """Return counts, sizes in bytes, and how much of the collection the centroid index covers."""
        with self._file.reading() as connection:
            view = self._current_view(connection)
            n_documents = _count(connection)
            packed = connection.execute("SELECT coalesce(sum(length(packed)), 0) FROM vectors").fetchone()[0]
        return {
            "location": self.location,
            "documents": n_documents,
            "tokens": view.indexed.tokens_alive + view.unindexed.tokens_alive,
            "packed_bytes": packed,
            "file_bytes": self._file.path.stat().st_size,
            "index_bytes": self._views.index_path.stat().st_size if self._views.index_path.exists() else 0,
            "centroids": 0 if view.index is None else len(view.index.centroids),
            "documents_in_index": view.indexed.n_alive,
            "documents_scored_exactly": view.unindexed.n_alive,
        }

    # --- searching

    @in_thread
    def candidates(
        self, query: QueryVectors, n: int, *, n_ann_tokens: int | None, filter: Filter | None = None
    ) -> Candidates:
        """Run stage 1. A small collection, and the few documents that a filter leaves, are scored exactly.

        Raises:
            TypeError, ValueError: an argument is not what the signature says.
        """
        check_search(query, self._opened().dim, n, n_ann_tokens, filter)
        with self._file.reading() as connection:
            view = self._current_view(connection)
            exact_tokens = self._limits.exact_tokens
            return find_candidates(
                connection, self._views, view, query, n, n_ann_tokens, filter, exact_tokens
            )

    @in_thread
    def lexical(
        self, text: str, n: int, *, filter: Filter | None = None, also: Sequence[str] = ()
    ) -> WordMatches:
        """Rank by BM25 the documents that have a word of a text; of more than 256 words the first 256 count.

        Raises:
            StoreError: the index of words does not cover all documents, or SQLite has no FTS5.
        """
        check_positive("n", n)
        check_parsed(filter)
        words, also = query_words(text)[:MOST_WORDS], check_ids(also)
        with self._file.reading() as connection:
            view = self._current_view(connection)
            check_words(connection, self.location)
            return find_words(connection, self._views, view, words, n, filter, also)

    @in_thread
    def having_rare_words(self, text: str, *, filter: Filter | None = None) -> list[str]:
        """Return the documents of the search index that have a word of a text which at most 20 documents have.

        They are 50 at most, and none where an earlier release wrote to the index and `optimize` was not called since.
        """
        check_parsed(filter)
        terms = query_terms(text)
        with self._file.reading() as connection:
            view = self._current_view(connection)
            return find_rare(connection, self._views, view, terms, filter)

    def _current_view(self, connection: sqlite3.Connection) -> View:
        view = self._views.current(connection, quiet=self._builder.running())
        self._about = view.indexed.n_alive + view.unindexed.n_alive
        return view

    # --- the index

    async def optimize(self, *, show_progress: bool = False) -> dict[str, Any]:
        """Bring the centroid index up to date if scoring what it does not cover has become slow; give space back.

        An index that an earlier release wrote gets its indexes of words and of metadata. One process builds the search
        index; if another does so now, this one leaves it to that.

        Returns:
            `freed_bytes`: by how much the folder shrank.

        Raises:
            StoreLockedError: others were writing for as long as `lock_timeout`.
            StoreError: the index cannot be written; the documents are not touched.
        """
        self._opened()
        await asyncio.to_thread(self._builder.run, show_progress)
        while await self._fill():
            pass
        return {"freed_bytes": await self._shrink()}

    @in_writer_thread
    def _fill(self) -> bool:
        """Bring documents of an earlier release into the indexes of words and of metadata; return whether to go on."""
        tables: list[tuple[type[InStep], Callable[[sqlite3.Connection], object]]] = [(Terms, fill_terms)]
        if has_fts5():
            tables.insert(0, (Words, fill_words))
        with self._file.reading() as connection:
            generation = read_state(connection).generation
            due = [fill for table, fill in tables if not table.is_ready(connection, generation)]
        if due:
            with self._file.writing() as connection:
                due[0](connection)
        return bool(due)

    @in_writer_thread
    def _shrink(self) -> int:
        return shrink(self._file)


def _count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM documents").fetchone()[0])
