"""Office files, web pages and books as Markdown, by docling's readers, in a process of its own.

docling was chosen over markitdown on the same files: it keeps what cells hold (markitdown's pandas writes 1980.0 and
NaN), lists and tables of HTML that leaves tags open, and titles of Word; it bounds what archives unpack to. Both have
MIT's licence. docling-slim brings no model, and its readers need no torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from late_interaction.errors import MissingExtraError
from late_interaction.images.pdf_process import CrashError, OverrunError, Pool, Program

MEMORY = 1024**3
"""Most bytes that the process may take, where the system can limit them (not on Windows)."""
TIMEOUT_S = 120.0
HTML = (".html", ".htm", ".xhtml")
"""Suffixes of web pages."""
_SCRIPT = Path(__file__).with_name("convert_worker.py")

_pool = Pool(Program("office files", "docling", lambda: [str(_SCRIPT)], lambda: MEMORY))


@dataclass(frozen=True, slots=True)
class Part:
    """A slide, a sheet, or the whole of a file.

    Attributes:
        markdown: its text.
        page: the number of the slide or sheet, from 1; None where it is the whole.
    """

    markdown: str
    page: int | None


@dataclass(frozen=True, slots=True)
class Converted:
    """A file as Markdown.

    Attributes:
        parts: its text.
        title, author: which it names, "" where there are none.
        unread: chapters of a book that cannot be read.
    """

    parts: tuple[Part, ...]
    title: str
    author: str
    unread: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)


def converted(file: Path, encoding: str | None = None) -> Converted:
    """Return a file as Markdown.

    Args:
        file: an office file, book or web page.
        encoding: of a web page; None of the others.

    Raises:
        ValueError: it is damaged or locked, takes too long or too much memory, or would unpack to too much.
        MissingExtraError: docling is not installed.
    """
    if importlib.util.find_spec("docling") is None:
        raise MissingExtraError(f"Reading {file.suffix.lower()} files", "files", "docling-slim")
    try:
        values = _pool.ask({"path": str(file.absolute()), "encoding": encoding}, TIMEOUT_S).values
    except OverrunError:
        raise ValueError(f"{file}: takes longer than {TIMEOUT_S:g} seconds.") from None
    except CrashError:
        raise ValueError(
            f"{file}: takes more than {MEMORY // 2**20:,} MB of memory, or crashes its reader."
        ) from None
    if refused := values.get("refused"):
        raise ValueError(f"{file}: {refused}.")
    parts = tuple(Part(part["text"], part.get("page")) for part in values["parts"])
    return Converted(
        parts, values.get("title", ""), values.get("author", ""), tuple(values.get("unread", ()))
    )
