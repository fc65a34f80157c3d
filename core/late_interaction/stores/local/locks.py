"""Locks that threads and processes share through a file, and a queue that gives each its turn.

The operating system frees a lock when its holder ends, however it ends. A forked child does not inherit one.
The lock is `flock` on the whole file (`msvcrt.locking` on Windows), the one that versions up to 0.1 hold from
their first write to their end.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_FIRST_WAIT_S = 0.0005
_LONGEST_WAIT_S = 0.005

_held: set[int] = set()
"""The open files of the locks that this process holds."""


class LockFile:
    """A lock of one holder at a time; each instance counts as a holder of its own.

    Args:
        path: the lock file. It is created when it is missing; its folder must exist.
        mode: the permissions of a file that is created.
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self.path = path
        self.mode = mode
        self._file: int | None = None

    def try_acquire(self) -> bool:
        """Take the lock, or return False where another holds it.

        Raises:
            OSError: the file cannot be opened, or its file system has no locks.
        """
        assert self._file is None
        while True:
            file = self._open()
            try:
                if not _lock(file):
                    os.close(file)
                    return False
                if self._is_in_place(file):
                    _held.add(file)
                    self._file = file
                    return True
            except BaseException:
                os.close(file)
                raise
            # The file was deleted between the two calls: a lock on it locks nobody out.
            os.close(file)

    def acquire(self, deadline: float) -> bool:
        """Take the lock as soon as it is free; return False where it is not free by `deadline`.

        Args:
            deadline: a time of `time.monotonic`.
        """
        wait = _FIRST_WAIT_S
        while not self.try_acquire():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(wait * random.uniform(0.5, 1.5), left))  # noqa: S311 - spreads waiters, keeps no secret
            wait = min(2 * wait, _LONGEST_WAIT_S)
        return True

    def release(self) -> None:
        """Free the lock. A lock that is not held, or that the parent of a fork holds, is left as it is."""
        file, self._file = self._file, None
        if file is not None and file in _held:
            _held.discard(file)
            os.close(file)

    def _open(self) -> int:
        flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        try:
            return os.open(self.path, flags)
        except FileNotFoundError:
            pass
        try:
            return os.open(self.path, flags | os.O_CREAT | os.O_EXCL, self.mode)
        except FileExistsError:
            return os.open(self.path, flags)

    def _is_in_place(self, file: int) -> bool:
        mine = os.fstat(file)
        try:
            there = self.path.stat()
        except FileNotFoundError:
            return False
        return (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino)


@contextmanager
def turn(path: Path, deadline: float, mode: int = 0o600) -> Iterator[None]:
    """Hold a lock while the block runs; a holder that comes back at once does not starve the others.

    The one that waits for the lock holds a second one, the queue. So whoever wants the lock again first waits for
    the one that waits already.

    Args:
        path: the lock file; the queue is the file that `queue_of` names.
        deadline: a time of `time.monotonic`.
        mode: the permissions of files that are created.

    Raises:
        TimeoutError: the lock was not free by the deadline.
        OSError: a file cannot be opened, or its file system has no locks.
    """
    queue, lock = LockFile(queue_of(path), mode), LockFile(path, mode)
    try:
        if not (queue.acquire(deadline) and lock.acquire(deadline)):
            raise TimeoutError
        queue.release()
        yield
    finally:
        lock.release()
        queue.release()


def queue_of(path: Path) -> Path:
    """Return the path of the queue in front of a lock file."""
    return path.with_name(path.name + ".queue")


if sys.platform == "win32":

    def _lock(file: int) -> bool:
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

else:

    def _lock(file: int) -> bool:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _close_in_child() -> None:
    """Close what the parent holds: its lock stays, and does not outlive it in this process."""
    for file in _held:
        os.close(file)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
