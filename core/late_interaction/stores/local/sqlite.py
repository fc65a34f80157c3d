"""One SQLite file: connections for many readers and one writer, across threads, processes and forks."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from late_interaction.errors import StoreError, StoreLockedError

_MMAP_BYTES = 1 << 40  # SQLite lowers it to what it was built for
_BUSY_S = 30.0

_abandoned: list[object] = []
"""Connections and locks inherited through a fork. They belong to the parent: never used, closed or collected."""


class WriterLock:
    """Makes this process the only writer of a file; counted, so that several owners here may share it."""

    _held: dict[tuple[int, Path], tuple[FileLock, int]] = {}  # noqa: RUF012 - shared by all on purpose
    _guard = threading.Lock()

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._owner: int | None = None

    def acquire(self) -> bool:
        """Take the lock, or return False where another process has it; a second call does nothing."""
        pid = os.getpid()
        if self._owner == pid:
            return True
        with self._guard:
            lock, owners = self._held.get((pid, self.path), (None, 0))
            if lock is None:
                lock = FileLock(self.path, thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    return False
            self._held[pid, self.path] = (lock, owners + 1)
        self._owner = pid
        return True

    def release(self) -> None:
        """Let go, if it is held; the last owner in this process frees it for other processes."""
        pid = os.getpid()
        if self._owner != pid:
            return
        self._owner = None
        with self._guard:
            lock, owners = self._held.pop((pid, self.path))
            if owners > 1:
                self._held[pid, self.path] = (lock, owners - 1)
            else:
                lock.release()


def _after_fork() -> None:
    WriterLock._guard = threading.Lock()  # noqa: SLF001 - another thread may have held it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SQLiteFile:
    """Transactions on one SQLite file in WAL mode.

    Readers never wait. Writing needs the writer lock, which is taken at the first write and kept until
    `close`, so that a second writing process gets an error at once instead of a busy database now and then.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_path = path.with_name("write.lock")
        self._lock = WriterLock(self.lock_path)
        self._pid = os.getpid()
        self._free: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One consistent view of the file for as long as the block runs."""
        with self._connection() as connection:
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed when the block ends, undone when it raises.

        Raises:
            StoreLockedError: another process is writing to this index.
        """
        with self._writing:
            self.become_writer()
            with self._connection() as connection:
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                except BaseException:
                    connection.execute("ROLLBACK")
                    raise
                connection.execute("COMMIT")

    def become_writer(self) -> None:
        """Take the writer lock.

        Raises:
            StoreLockedError: another process has it.
            StoreError: nothing can be written in this folder.
        """
        self._check_process()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            acquired = self._lock.acquire()
        except OSError as error:
            raise StoreError(f"The index in {self.path.parent} cannot be written: {error}") from error
        if not acquired:
            raise StoreLockedError(
                f"Another process is writing to the index in {self.path.parent}. Searching it is fine; to write, "
                "close the other pipeline (or end its process) first."
            )

    def close(self) -> None:
        """Close every connection and let the writer lock go; the file may be used again afterwards."""
        self._check_process()
        with self._guard:
            free, self._free = self._free, []
        for connection in free:
            connection.close()
        self._lock.release()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self._check_process()
        with self._guard:
            connection = self._free.pop() if self._free else None
        try:
            if connection is None:
                connection = self._connect()
            yield connection
        except sqlite3.Error as error:
            raise StoreError(f"The index in {self.path.parent} could not be used: {error}") from error
        finally:
            if connection is not None:
                with self._guard:
                    self._free.append(connection)

    def _connect(self) -> sqlite3.Connection:
        read_only = self.path.exists() and not os.access(self.path.parent, os.W_OK)
        # Where nothing can be written SQLite cannot keep its WAL index: then the file is taken as it stands.
        query = "?immutable=1" if read_only else ""
        connection = sqlite3.connect(
            self.path.resolve().as_uri() + query,
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )
        if not read_only:
            connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged document survives a power cut. Encoding one costs far more than the fsync.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA mmap_size = {_MMAP_BYTES}")
        return connection

    def _check_process(self) -> None:
        """After a fork, leave what the parent owns alone and begin anew."""
        if self._pid != os.getpid():
            _abandoned.extend((self._free, self._lock, self._guard, self._writing))
            self._lock = WriterLock(self.lock_path)
            self._pid, self._free = os.getpid(), []
            self._guard, self._writing = threading.Lock(), threading.Lock()
