"""Worker processes that open files: started when needed, used again, and replaced when one overruns its time.

PDFium is not made for threads, some files make it work for hours, and some crash it. A worker that takes too long is
killed, and the next request gets another one. Workers import no more than pypdfium2, are shared by the threads of a
process, and end with it. A forked process starts its own.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.errors import LateInteractionError, MissingExtraError

MEMORY = 768 * 1024**2
"""Most bytes that a worker may take, where the system can limit them (not on Windows). The pages of 4,682 files of test
suites, rendered at 150 dpi, took 333 MB at most."""
MOST_WORKERS = 4
"""So many are there at a time, or more if `allow_workers` says so."""
START_S = 60.0

_SCRIPT = Path(__file__).with_name("pdf_worker.py")
# A machine under load may need many seconds for one of work, so the time on the clock is generous and the time on
# the processor is not: the slowest page of 4,682 files took 1.9 s.
_PROCESSOR_SHARE = 4


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker answered.

    Attributes:
        values: by name; "refused" and "detail" where the file or page cannot be read.
        data: the bytes of an image.
    """

    values: dict[str, Any]
    data: bytes


class OverrunError(Exception):
    """A page took longer than it may; the worker is gone."""


class CrashError(Exception):
    """A worker ended in the middle: it crashed, or took more memory than it may."""


@dataclass(frozen=True, slots=True)
class Program:
    """What workers run.

    Attributes:
        reads: what they read, for messages: "PDF files".
        needs: what they import.
        command: what Python is started with.
        memory: most bytes that one may take.
    """

    reads: str
    needs: str
    command: Callable[[], list[str]]
    memory: Callable[[], int]


class _Worker:
    """One process."""

    def __init__(self, program: Program) -> None:
        self._program = program
        command = [sys.executable, "-I", *program.command()]
        flags = getattr(subprocess, "CREATE_NO_WINDOW", 0)
        try:
            self._process = subprocess.Popen(  # noqa: S603 – our own script
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                creationflags=flags,
            )
        except OSError as error:
            raise LateInteractionError(
                f"a process to read {program.reads} cannot be started ({sys.executable}): {error}."
            ) from error
        self.path: str | None = None
        with self._deadline(START_S):
            ready = self._process.stdout.readline() if self._process.stdout else b""
        if ready != b"ready\n":
            self.kill()
            raise LateInteractionError(
                f"the process that reads {program.reads} did not start: {sys.executable} cannot import {program.needs}."
            )

    def ask(self, request: dict[str, Any], timeout_s: float) -> Answer:
        """Return the answer.

        Raises:
            OverrunError: it did not come in time.
            CrashError: the process ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timeout_s = min(timeout_s, threading.TIMEOUT_MAX)  # longer than this no system can wait
        limits = {"memory": self._program.memory(), "processor_s": max(1.0, timeout_s / _PROCESSOR_SHARE)}
        self.path = request["path"]
        with self._deadline(timeout_s) as overran:
            try:
                self._process.stdin.write(json.dumps(request | limits).encode() + b"\n")
                self._process.stdin.flush()
                header = self._process.stdout.readline()
                values: dict[str, Any] = json.loads(header) if header else {}
                data = self._process.stdout.read(values.get("length", 0))
            except OSError:  # the pipe is closed
                values, data = {}, b""
        if "length" in values and len(data) == values["length"]:
            return Answer(values, data)
        self.kill()
        if overran.is_set() or self._process.returncode == -getattr(signal, "SIGXCPU", 0):
            raise OverrunError
        raise CrashError

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._close_pipes()

    def abandon(self) -> None:
        """Forget a process of the parent in a forked child: it is not the child's to end."""
        self._process.returncode = 0
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    @contextlib.contextmanager
    def _deadline(self, seconds: float) -> Iterator[threading.Event]:
        """Kill the process after so many seconds, which ends a read that waits for it; tell whether that was so."""
        overran = threading.Event()

        def end() -> None:
            overran.set()
            self._process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            yield overran
        finally:
            timer.cancel()


_PDF = Program("PDF files", "pypdfium2", lambda: ["-S", str(_SCRIPT), *_library_folders()], lambda: MEMORY)
_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """The workers of this process that run a program."""

    def __init__(self, program: Program = _PDF) -> None:
        self._program = program
        self.allowed = 0
        self._start_anew()
        _pools.add(self)

    def _start_anew(self) -> None:
        self._free = threading.Condition()
        self._idle: list[_Worker] = []
        self._busy: set[_Worker] = set()
        self._starting = 0

    def ask(self, request: dict[str, Any], timeout_s: float) -> Answer:
        """Ask an idle worker, or a new one; as `_Worker.ask`."""
        worker, is_new = self._take(request["path"])
        while True:
            try:
                answer = worker.ask(request, timeout_s)
            except CrashError:
                self._end(worker)
                # What it kept of earlier pages, or somebody who killed it, may be at fault: one more try.
                if is_new:
                    raise
            except BaseException:
                self._end(worker)
                raise
            else:
                self._give_back(worker)
                return answer
            worker, is_new = self._take(request["path"], new=True)

    def close(self) -> None:
        """End all workers."""
        with self._free:
            workers = [*self._idle, *self._busy]
            self._idle.clear()
        for worker in workers:
            worker.kill()

    def abandon(self) -> None:
        """Forget all workers, in a forked child."""
        for worker in (*self._idle, *self._busy):
            worker.abandon()
        self._start_anew()

    def _take(self, path: str, *, new: bool = False) -> tuple[_Worker, bool]:
        with self._free:
            while True:
                if not new and self._idle:
                    # The one that has the file open; else the one used last, so that the others' files can close.
                    worker = next((w for w in self._idle if w.path == path), self._idle[-1])
                    self._idle.remove(worker)
                    self._busy.add(worker)
                    return worker, False
                most = max(MOST_WORKERS, self.allowed)
                if len(self._idle) + len(self._busy) + self._starting < most:
                    self._starting += 1
                    break
                if new and self._idle:
                    self._idle.pop(0).kill()
                    continue
                self._free.wait()
        try:
            worker = _Worker(self._program)
        except BaseException:
            with self._free:
                self._starting -= 1
                self._free.notify()
            raise
        with self._free:
            self._starting -= 1
            self._busy.add(worker)
        return worker, True

    def _give_back(self, worker: _Worker) -> None:
        with self._free:
            self._busy.discard(worker)
            self._idle.append(worker)
            self._free.notify()

    def _end(self, worker: _Worker) -> None:
        worker.kill()
        with self._free:
            self._busy.discard(worker)
            self._free.notify()


_pool = Pool()


def ask(what: str, path: str | os.PathLike[str], timeout_s: float, **details: Any) -> Answer:
    """Ask a worker about a file, for the text of a page, or for a page as an image.

    Args:
        what: "about", "text" or "render".
        path: the file.
        timeout_s: most seconds until the answer.
        details: what else the worker needs: password, page, dpi, max_pixels.

    Raises:
        OverrunError: it took longer.
        CrashError: the file crashes PDFium, or takes too much memory.
        MissingExtraError: pypdfium2 is not installed.
        LateInteractionError: no process can be started.
    """
    _library_folders()
    return _pool.ask({"what": what, "path": os.path.abspath(path), **details}, timeout_s)  # noqa: PTH100 – keeps ".."


def allow_workers(n: int) -> None:
    """Let so many workers read PDF files at a time, from now on; fewer than before changes nothing."""
    _pool.allowed = max(_pool.allowed, n)


def _library_folders() -> list[str]:
    """Return the folders that a worker imports pypdfium2 from.

    Raises:
        MissingExtraError: it is not installed.
    """
    folders = []
    for name in ("pypdfium2", "pypdfium2_raw"):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:
            raise MissingExtraError("Reading PDF files", "colpali", "pypdfium2")
        folders.append(str(Path(found.origin).parents[1]))
    return list(dict.fromkeys(folders))


def _in_forked_child() -> None:
    """Start without the workers of the parent, whose answers are for the parent."""
    for pool in _pools:
        pool.abandon()


def _at_exit() -> None:
    for pool in _pools:
        pool.close()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_forked_child)
