"""One long job at a time, in the background or awaited, that can be told to stop."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from late_interaction.errors import LateInteractionError

logger = logging.getLogger(__name__)


class Job(Protocol):
    """Does the work if there is any; calls `tick` now and then, which raises where the job is to stop."""

    def __call__(self, tick: Callable[[], None], show_progress: bool = False) -> None:
        """Do the work."""


class _StoppedError(Exception):
    """Raised inside a job by its tick."""


class Background:
    """Runs a job that may be run again at any time, because it first looks whether there is work."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._renew()

    def _renew(self) -> None:
        self._pid = os.getpid()
        self._one_at_a_time = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def running(self) -> bool:
        """Whether the job runs now."""
        return self._pid == os.getpid() and self._one_at_a_time.locked()

    def start(self) -> None:
        """Run the job in the background, unless it runs already. Its errors are logged."""
        self._check_process()
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(
                target=self._run_logged, name="late-interaction-index", daemon=True
            )
            # The interpreter must not end under a thread that computes.
            weakref.finalize(self, _end, self._stopping, self._thread)
            self._thread.start()

    def run(self, show_progress: bool = False) -> None:
        """Run the job in this thread, after one that runs in the background."""
        self._check_process()
        with self._one_at_a_time:
            self._job(self._tick, show_progress)

    def stop(self) -> None:
        """Ask a job that runs in the background to stop, and wait until it has."""
        self._check_process()
        if self._thread is not None:
            _end(self._stopping, self._thread)
            self._renew()

    def _run_logged(self) -> None:
        try:
            with self._one_at_a_time:
                self._job(self._tick)
        except _StoppedError:
            logger.info("The index build was stopped; it will be done again when it is next due.")
        except LateInteractionError as error:
            logger.warning("The index was not brought up to date: %s", error)

    def _tick(self) -> None:
        if self._stopping.is_set():
            raise _StoppedError

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._renew()


def _end(stopping: threading.Event, thread: threading.Thread) -> None:
    stopping.set()
    thread.join()
