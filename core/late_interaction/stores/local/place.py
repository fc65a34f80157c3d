"""Where an index's file stands, and what stands there now."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from late_interaction.errors import StoreError

INDEX_FILE = "documents.sqlite3"
"""The file that makes a folder an index."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A file, as `stat` tells it; `log` is the inode of the write-ahead log beside it, 0 if there is none."""

    device: int
    inode: int
    modified_ns: int
    size: int
    log: int

    def is_file_of(self, other: Standing) -> bool:
        """Return whether it is the same file, whatever its content."""
        return (self.device, self.inode) == (other.device, other.inode)


class Place:
    """The path of an index's file.

    Args:
        path: an absolute path, so that a change of the working directory changes nothing.
        shared: whether the files that are created are for everyone whom the umask admits, or for this user alone.

    Attributes:
        target: the file that the path leads to, beside which SQLite keeps the log.
        log: the log's path, as a string.
        away: the name that the file gets in `moved_away`.
    """

    def __init__(self, path: Path, *, shared: bool) -> None:
        self.path = path
        self.folder = path.parent
        self.shared = shared
        self.away = path.with_name(path.name + ".away")
        self._text = str(path)
        self.target, self.log = path, f"{path}-wal"

    def follow_links(self) -> None:
        """Look again where the path leads to."""
        self.target = self.path.resolve()
        self.log = f"{self.target}-wal"

    def find(self) -> Standing:
        """Look at the file.

        Raises:
            FileNotFoundError: there is none.
            StoreError: it cannot be looked at.
        """
        try:
            found = os.stat(self._text)  # noqa: PTH116 - twice as fast as Path.stat
            try:
                log = os.stat(self.log).st_ino  # noqa: PTH116
            except FileNotFoundError:
                log = 0
        except FileNotFoundError:
            raise
        except NotADirectoryError as error:
            raise FileNotFoundError(str(error)) from error
        except (OSError, ValueError) as error:
            raise StoreError(f"The index in {self.folder} cannot be read: {error}") from error
        return Standing(found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size, log)

    @property
    def mode(self) -> int:
        """The permissions of the file; the files beside it have the same."""
        try:
            return stat.S_IMODE(self.path.stat().st_mode) & 0o666
        except OSError:
            return 0o666 if self.shared else 0o600

    def may_write(self) -> bool:
        """Return whether this process may write the file and, as SQLite must, create files beside it."""
        effective = os.access in os.supports_effective_ids
        return all(os.access(each, os.W_OK, effective_ids=effective) for each in (self.path, self.folder))

    def unreadable(self) -> str:
        """Return which of the file and its log this process may not read, "" if it may read what is there."""
        effective = os.access in os.supports_effective_ids
        paths = [Path(each) for each in (self.path, self.log)]
        return " and ".join(
            each.name
            for each in paths
            if each.exists() and not os.access(each, os.R_OK, effective_ids=effective)
        )

    def make_folder(self) -> None:
        """Make the folder if it does not exist, and those above it."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o777 if self.shared else 0o700, exist_ok=True)

    def sync_folder(self) -> None:
        """Make sure that a new name in the folder survives a power cut."""
        if hasattr(os, "O_DIRECTORY"):  # elsewhere a folder cannot be opened
            handle = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    @contextmanager
    def moved_away(self) -> Iterator[None]:
        """Give the file another name while the block runs; the folder itself may be moved meanwhile."""
        with ExitStack() as stack:
            folder = None
            if os.rename in os.supports_dir_fd:
                with suppress(FileNotFoundError):
                    folder = os.open(self.folder, os.O_RDONLY)
                    stack.callback(os.close, folder)
            path, away = (self.path, self.away) if folder is None else (self.path.name, self.away.name)

            def rename(source: str | Path, target: str | Path) -> None:
                with suppress(FileNotFoundError):  # Then it is not at its path anyway.
                    os.rename(source, target, src_dir_fd=folder, dst_dir_fd=folder)

            rename(path, away)
            stack.callback(rename, away, path)
            yield

    def bring_back(self) -> None:
        """Undo a `moved_away` whose process was killed."""
        if not self.path.exists():
            self.away.replace(self.path)

    def gone(self) -> StoreError:
        """Make the error of a file that is gone."""
        return StoreError(
            f"There is no index in {self.folder} any more: it was deleted or moved away while it was open. Nothing was "
            "written. Put it back, or close this store and open it again to begin a new index."
        )
