"""The turns of an index's writers, in all threads and processes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path

from late_interaction.errors import StoreError, StoreLockedError
from late_interaction.stores.local import locks
from late_interaction.stores.local.place import Place

asked_at: ContextVar[float | None] = ContextVar("asked_at", default=None)
"""When a write was asked for, in the time of `time.monotonic`, if it waited for a thread since."""


class Turns:
    """Lets one writer at a time write to a place.

    Args:
        path: the lock file.
        place: where the index stands.
        timeout: how long a writer waits for its turn, in seconds.
    """

    def __init__(self, path: Path, place: Place, timeout: float) -> None:
        self.path = path
        self.timeout = timeout
        self._place = place
        self._in_process = threading.Lock()
        self._writer: int | None = None
        self._refused_since: float | None = None

    @contextmanager
    def turn(self, *, create: bool = False) -> Iterator[None]:
        """Hold the lock while the block runs. A turn within a turn does nothing.

        Args:
            create: make the folder if it does not exist.

        Raises:
            StoreLockedError: others held it for as long as `timeout`.
            StoreError: the folder is gone, or nothing can be written in it.
        """
        if self._writer == threading.get_ident():
            yield
            return
        # When many writes wait one behind the other for somebody else's lock, they all give up together.
        asked, now = asked_at.get(), time.monotonic()
        since = now if asked is None else min(now, max(asked, self._refused_since or math.inf))
        deadline = since + self.timeout
        if not self._in_process.acquire(timeout=max(0.0, deadline - now)):
            raise self.locked()
        try:
            with ExitStack() as stack:
                try:
                    self._take(stack, deadline, create=create)
                except StoreLockedError:
                    self._refused_since = self._refused_since or since
                    raise
                self._refused_since = None
                self._writer = threading.get_ident()
                yield
        finally:
            self._writer = None
            self._in_process.release()

    def _take(self, stack: ExitStack, deadline: float, *, create: bool) -> None:
        while True:
            try:
                if create:
                    self._place.make_folder()
                stack.enter_context(locks.turn(self.path, deadline, self._place.mode))
            except TimeoutError:
                raise self.locked() from None
            except FileNotFoundError as error:
                # Another process may have dropped the index, and its folder, while this one waited.
                if not create or time.monotonic() > deadline:
                    raise self._place.gone() from error
            except OSError as error:
                raise StoreError(f"The index in {self._place.folder} cannot be written: {error}") from error
            else:
                return

    def delete_files(self) -> None:
        """Delete the lock files, at the end of a turn. Whoever waits for them begins anew."""
        for path in (self.path, locks.queue_of(self.path)):
            path.unlink(missing_ok=True)

    def locked(self) -> StoreLockedError:
        """Make the error of a writer that got no turn."""
        return StoreLockedError(
            f"Another process is writing to the index in {self._place.folder}, and {self.timeout:g} s were not enough "
            "to get a turn. Searching goes on; try again, or wait longer with lock_timeout. A version up to 0.1 keeps "
            "others from writing until it closes the index."
        )
