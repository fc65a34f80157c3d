"""One SQLite file: connections for many readers and writers, across threads, processes and forks.

The file is whatever stands at its path: each transaction looks whether it is still the one that was opened, which
takes a few calls of `stat`. Where another file was put there, or this one was overwritten in place, the connections
are closed and the new content is opened. Nothing is written to a file that is no longer at its path.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NoReturn

from late_interaction.cores import n_cores, side_by_side
from late_interaction.errors import StoreError
from late_interaction.stores.local.pairing import belong_together, count_write, log_belongs_to, read_mark
from late_interaction.stores.local.place import Place, Standing
from late_interaction.stores.local.tables import SQLITE_ERRORS, Connection, check_schema
from late_interaction.stores.local.turns import Turns

logger = logging.getLogger(__name__)

_BUSY_S = 30.0
# A reader without permission to write meets a writer that opens and closes the file all the time.
_ATTEMPTS = 10
_PAUSE_S = 0.02

_abandoned: list[object] = []
"""Connections and locks inherited through a fork. They belong to the parent: never used, closed or collected."""

_Access = Literal["rw", "ro", "immutable"]
"""How a file is opened.

`rw`: with permission to write. `ro`: without it, beside a write-ahead log, which SQLite then reads but does not keep.
`immutable`: without it where there is no log; whether the file changed meanwhile is checked after each transaction.
"""


_QUERIES: dict[_Access, str] = {"rw": "mode=rw", "ro": "mode=ro", "immutable": "immutable=1"}


class ChangedMeanwhileError(StoreError):
    """The file was replaced during a transaction; doing the same again is all it takes."""


@dataclass(slots=True)
class _Connected:
    """A connection, and the state of the file that it opened; `begun` is the state when its transaction began.

    `closings` and `epoch` are those of the `SQLiteFile` when it was opened; `wait_ms` is how long it waits for others.
    """

    connection: Connection
    access: _Access
    opened: Standing
    begun: Standing
    closings: int
    epoch: int
    is_checked: bool = False
    wait_ms: int = int(1000 * _BUSY_S)


class _Reading(threading.local):
    """The connection of a thread's read transaction."""

    connection: Connection | None = None


class SQLiteFile:
    """Transactions on one SQLite file in WAL mode.

    Readers never wait. Writers take turns: each waits for its turn, then makes one transaction.

    Args:
        path: the file; an absolute path, so that a change of the working directory changes nothing.
        lock_timeout: how long a writer waits for its turn, in seconds.
        shared: whether the files that are created are for everyone whom the umask admits, or for this user alone.

    Attributes:
        on_begin: called with the connection at the begin of each transaction.
        epoch: how often another file, or another content, was found at the path.
    """

    def __init__(self, path: Path, *, lock_timeout: float = 30.0, shared: bool = False) -> None:
        self.path = path
        self.folder = path.parent
        self.on_begin: Callable[[Connection], None] | None = None
        self.epoch = 0
        self._place = Place(path, shared=shared)
        self._lock_timeout = lock_timeout
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._free: list[_Connected] = []
        self._reading = _Reading()
        self._guard = threading.Lock()
        self._computing = threading.BoundedSemaphore(1 + n_cores())
        self._turns = Turns(self.path.with_name("write.lock"), self._place, self._lock_timeout)
        self._closings = 0
        self._checked: Standing | None = None
        self._last: Standing | None = None
        # A store that is dropped without `close` leaves nothing open.
        weakref.finalize(self, _close_all, self._pid, self._free).atexit = False

    @property
    def mode(self) -> int:
        """The permissions of the file; the files beside it have the same."""
        return self._place.mode

    def exists(self) -> bool:
        """Return whether there is a file at the path.

        Raises:
            StoreError: the folder cannot be looked into.
        """
        try:
            self._find()
        except FileNotFoundError:
            return False
        return True

    # --- transactions

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give one consistent view of the file for as long as the block runs. Within another, it is that one's.

        Raises:
            ChangedMeanwhileError: the file was overwritten during the block. What it read must not be used.
            StoreError: there is no file at the path, or it cannot be read.
        """
        if (outer := self._reading.connection) is not None:
            yield outer
            return
        held = self._begin("BEGIN")
        try:
            try:
                held.connection.reads = True
                self._announce(held)
                self._reading.connection = held.connection
                yield held.connection
            except SQLITE_ERRORS as error:
                self._check_same(held)
                raise self._unusable(error) from error
            self._check_same(held, or_gone=True)
        finally:
            self._reading.connection = None
            self._end(held)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Do `reading` in a block that computes much, in no more threads at a time than the cores can serve.

        More would keep each other from running Python: on two cores, eight at a time did two thirds of what three did.
        """
        self._check_process()
        with self._computing, side_by_side(), self.reading():
            yield

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Make one transaction: committed when the block ends, undone when it raises.

        Raises:
            StoreLockedError: others were writing for as long as `lock_timeout`.
            ChangedMeanwhileError: the file was replaced during the block, and nothing was written.
            StoreError: there is no file at the path, or it cannot be written.
        """
        with self.turn():
            held = self._begin("BEGIN IMMEDIATE", "PRAGMA journal_mode = WAL", wait_s=self._lock_timeout)
            try:
                self._announce(held)
                count_write(held.connection, _new_application())
                yield held.connection
                self._check_same(held)
                held.connection.execute("COMMIT")
                self._check_in_place(held)
            except SQLITE_ERRORS as error:
                raise self._unusable(error) from error
            finally:
                self._end(held)

    def create(self, fill: Callable[[sqlite3.Connection], None]) -> None:
        """Make the file, and its folder, unless another process does it first.

        It gets its place when it is complete, so that nobody ever sees an empty one.

        Args:
            fill: makes the tables.

        Raises:
            StoreLockedError: others were writing for as long as `lock_timeout`.
            StoreError: it cannot be written.
        """
        with self.turn(create=True):
            if self.exists() and self._look().size:
                return
            new = self.path.with_name(self.path.name + ".new")
            try:
                new.unlink(missing_ok=True)
                mode = 0o666 if self._place.shared else 0o600
                os.close(os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode))
                with closing(sqlite3.connect(new, isolation_level=None)) as connection:
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.execute("BEGIN")
                    fill(connection)
                    count_write(connection, _new_application())
                    connection.execute("COMMIT")
                new.replace(self.path)
                self._place.sync_folder()
            except SQLITE_ERRORS as error:
                raise self._unusable(error) from error
            except OSError as error:
                raise StoreError(f"The index in {self.folder} cannot be written: {error}") from error
            finally:
                with suppress(OSError):
                    new.unlink(missing_ok=True)

    @contextmanager
    def alone(self) -> Iterator[Connection]:
        """Give a connection outside of a transaction while no other process writes, as `VACUUM` needs it.

        Raises:
            StoreLockedError: others were writing for as long as `lock_timeout`.
            StoreError: there is no file at the path, or it cannot be written.
        """
        with self.turn():
            held = self._begin("BEGIN IMMEDIATE", wait_s=self._lock_timeout)
            try:
                held.connection.execute("ROLLBACK")
                yield held.connection
            except SQLITE_ERRORS as error:
                raise self._unusable(error) from error
            finally:
                self._end(held)

    @contextmanager
    def turn(self, *, create: bool = False) -> Iterator[None]:
        """Hold the writer lock while the block runs; no transaction is begun. A turn within a turn does nothing.

        Args:
            create: make the folder where there is none.

        Raises:
            StoreLockedError: others held it for as long as `lock_timeout`.
            StoreError: the folder is gone, or nothing can be written in it.
        """
        self._check_process()
        with self._turns.turn(create=create):
            yield

    def delete(self) -> None:
        """Close and delete the file and what SQLite keeps beside it; to be called during a `turn`."""
        self.close()
        # The file goes first: a log without a file is nothing, but a file without its log would be an older index.
        self.path.unlink(missing_ok=True)
        for path in self.folder.glob(self.path.name + "*"):
            path.unlink(missing_ok=True)

    def delete_locks(self) -> None:
        """Delete the lock files; to be called at the end of a `turn`."""
        self._turns.delete_files()

    def raise_gone(self) -> NoReturn:
        """Raise the error of a file that is gone."""
        raise self._place.gone()

    def close(self) -> None:
        """Close every connection; the file may be used again afterwards."""
        self._check_process()
        with self._guard:
            free = self._free[:]
            self._free.clear()
            self._closings += 1
            self._checked = None
        for held in free:
            held.connection.close()

    # --- connections

    def _begin(self, statement: str, *before: str, wait_s: float | None = None) -> _Connected:
        """Begin a transaction on the file that is at the path now; `wait_s` is for other programs that use SQLite."""
        self._check_process()
        failure: Exception | None = None
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            held, state = None, self._look()
            try:
                held = self._connected(state)
                wait_ms = int(1000 * (_BUSY_S if wait_s is None else min(wait_s, _BUSY_S)))
                if held.wait_ms != wait_ms:
                    held.connection.execute(f"PRAGMA busy_timeout = {wait_ms}")
                    held.wait_ms = wait_ms
                for each in (*before, statement):
                    held.connection.execute(each)
                if self._fits(held):
                    if self._last is not None and not held.begun.is_file_of(self._last):
                        self.epoch += 1
                    self._last, held.epoch = held.begun, self.epoch
                    return held
                self._retire(held)
            except SQLITE_ERRORS as error:
                if held is not None:
                    held.connection.close()
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code == sqlite3.SQLITE_BUSY:
                    raise self._turns.locked() from error
                # It may be another file by now, or a writer may have closed it, which matters where it is only read.
                # A thread that still closes the connections to a log that was replaced shows as an I/O error.
                if code != sqlite3.SQLITE_IOERR and self._place.may_write() and self._look() == state:
                    raise self._unusable(error) from error
                failure = error
            except BaseException:
                if held is not None:
                    held.connection.close()
                raise
        if failure is not None and (unreadable := self._place.unreadable()):
            raise StoreError(
                f"The index in {self.folder} cannot be read: there is no permission to read {unreadable}."
            ) from failure
        if failure is not None and not self._place.may_write() and Path(self._place.log).exists():
            raise StoreError(
                f"The index in {self.folder} cannot be read without permission to write it ({failure}): a writer left "
                f"{Path(self._place.log).name}, which SQLite reads only beside its -shm file. Open it once with "
                "permission to write, or copy the folder with all of its files."
            ) from failure
        if failure is not None:
            raise self._unusable(failure) from failure
        raise StoreError(
            f"In {self.folder}, {self.path.name} and {self.path.name}-wal do not belong together: one of them was "
            "replaced, or they were copied while a program was writing. If they are a copy, copy them again. To go on "
            f"with {self.path.name} alone, close every program that uses the index and delete {self.path.name}-wal "
            f"and {self.path.name}-shm."
        )

    def _connected(self, state: Standing) -> _Connected:
        """Return a connection to the file at the path, from the pool or a new one."""
        while True:
            with self._guard:
                held = self._free.pop() if self._free else None
            if held is None:
                return self._connect(state)
            if held.opened.is_file_of(state):
                if held.opened == state if held.access == "immutable" else held.opened.log == state.log:
                    held.begun = state
                    return held
                if held.access == "rw" and held.opened.log:
                    self._save_log(held)
                    self._retire(held)
                    continue
            held.connection.close()

    def _connect(self, state: Standing) -> _Connected:
        access: _Access = "rw" if self._place.may_write() else "ro" if state.log else "immutable"
        if access == "immutable":
            # A change that follows within the tick of the file system's clock would not show.
            time.sleep(max(0.0, min(_PAUSE_S, _PAUSE_S - (time.time() - state.modified_ns / 1e9))))
        self._place.follow_links()
        connection = sqlite3.connect(
            f"{self._place.target.as_uri()}?{_QUERIES[access]}",
            uri=True,
            timeout=_BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            factory=Connection,
        )
        try:
            # An acknowledged document survives a power cut. Encoding one costs far more than the fsync. The file is
            # not mapped into memory: one that is overwritten from outside would end the process.
            for setting in ("synchronous = FULL", "foreign_keys = ON", "mmap_size = 0", "cache_size = -500"):
                connection.execute(f"PRAGMA {setting}")
            state = self._look()
            return _Connected(connection, access, state, state, self._closings, self.epoch)
        except BaseException:
            connection.close()
            raise

    def _fits(self, held: _Connected) -> bool:
        """Return whether a transaction that has just begun sees the file at the path, and nothing else."""
        if held.access == "immutable":
            return self._look() == held.opened
        if held.opened.log == 0:  # SQLite makes the log when it first reads
            held.connection.execute("PRAGMA user_version").fetchone()
            held.opened = held.begun = self._look()
        if held.begun == self._checked:
            return True
        if not belong_together(self._place.target, read_mark(held.connection)):
            return False
        self._checked = held.begun
        return True

    def _check_same(self, held: _Connected, *, or_gone: bool = False) -> None:
        """Raise where the file was replaced or overwritten from outside since the transaction began.

        Where it was deleted, what was read is right all the same: `or_gone`.
        """
        try:
            now = self._find()
        except FileNotFoundError as error:
            if or_gone:
                return
            raise self._place.gone() from error
        if now == held.begun:
            return
        if held.access != "immutable" and now.is_file_of(held.begun) and now.log == held.opened.log:
            with suppress(sqlite3.Error):
                if belong_together(self._place.target, read_mark(held.connection)):
                    return
        raise ChangedMeanwhileError(
            f"The index in {self.folder} was replaced from outside while it was in use. Nothing was written; do it "
            "again."
        )

    def _check_in_place(self, held: _Connected) -> None:
        """Raise where a transaction went into a file, or a log, that was replaced as it was committed."""
        with suppress(StoreError):
            now = self._look()
            if now.is_file_of(held.begun) and now.log == held.opened.log:
                self._last = now
                return
        raise StoreError(
            f"The index in {self.folder} was deleted or replaced at the moment of a write: what was written is in the "
            "old one. Do it again."
        )

    def _announce(self, held: _Connected) -> None:
        if not held.is_checked:
            check_schema(held.connection, self.folder)
            held.is_checked = True
        if self.on_begin is not None:
            self.on_begin(held.connection)

    def _end(self, held: _Connected) -> None:
        """Undo what is not committed, and put the connection back."""
        held.connection.reads, held.connection.content = False, None
        try:
            if held.connection.in_transaction:
                held.connection.execute("ROLLBACK")
        except sqlite3.Error:
            held.connection.close()
            return
        with self._guard:
            if held.closings == self._closings:
                self._free.append(held)
                return
        held.connection.close()

    def _save_log(self, held: _Connected) -> None:
        """Write the log into the file, if only the log was deleted: an open connection still has it."""
        with self.turn(), suppress(sqlite3.Error):
            if self._last is not None and self._look() == replace(self._last, log=0):
                held.connection.execute("PRAGMA wal_checkpoint(FULL)")
                logger.warning("%s was deleted while it was in use; its content was saved.", self._place.log)

    def _retire(self, held: _Connected) -> None:
        """Close connections that see something else than the file at the path.

        SQLite writes the log into the file when its last connection is closed, but not where the file is no longer
        at its path. So it is moved away for that moment. A log that this store has seen to be that of the former
        content is put aside.
        """
        with self._guard:
            stale = [held, *self._free]
            self._free.clear()
        if held.access != "rw":
            for each in stale:
                each.connection.close()
            return
        if held.epoch == self.epoch:  # Else another connection has found it.
            self.epoch += 1
        with self.turn():
            checked, self._checked = self._checked, None
            now = self._look()
            foreign = (
                checked is not None and now.log == checked.log and not log_belongs_to(self._place.target)
            )
            foreign = foreign and now == self._look()
            with self._place.moved_away():
                for each in stale:
                    each.connection.close()
            if not foreign:
                return
            log = Path(self._place.log)
            aside = log.with_name(log.name + ".old")
            with suppress(FileNotFoundError):
                log.replace(aside)
                log.with_name(self._place.target.name + "-shm").unlink()
        logger.warning(
            "The index in %s was overwritten from outside while it was open. Its former write-ahead log does not "
            "belong to it and was put aside as %s.",
            self.folder,
            aside.name,
        )

    # --- the file

    def _look(self) -> Standing:
        """Look at the file at the path.

        Raises:
            StoreError: there is none, or it cannot be looked at.
        """
        try:
            return self._find()
        except FileNotFoundError as error:
            raise self._place.gone() from error

    def _find(self) -> Standing:
        """Look at the file at the path, or raise a FileNotFoundError if there is none."""
        try:
            return self._place.find()
        except FileNotFoundError:
            if not self._place.away.exists():
                raise
        # Another process closes its connections just now, or was killed while it did.
        with suppress(FileNotFoundError), self.turn():
            self._place.bring_back()
        return self._place.find()

    def _check_process(self) -> None:
        """After a fork, leave what the parent owns alone and begin anew."""
        if self._pid != os.getpid():
            _abandoned.extend((self._free[:], self._guard, self._turns))
            self._renew()

    # --- errors

    def _unusable(self, error: Exception) -> StoreError:
        return StoreError(f"The index in {self.folder} could not be used: {error}")


def _new_application() -> int:
    return secrets.randbelow(2**31 - 1) + 1


def _close_all(pid: int, connected: list[_Connected]) -> None:
    if pid == os.getpid():
        for held in connected:
            held.connection.close()
