"""Where the commands print. All that they print goes through here, and nothing of it is a command to the terminal."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.status import Status
from rich.text import Text
from tqdm import tqdm
from typer.core import TyperGroup

from late_interaction.printable import printable

# UsageError, which is click's in some releases of typer, and of typer's own copy in others.
_ArgumentError: type[Exception] = typer.BadParameter.__mro__[1]


class CleanConsole(Console):
    """A console for text from outside: brackets are text and not markup, and so are control characters."""

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of something to print, the text in them made printable."""
        for segment in super().render(renderable, options):
            if segment.control or segment.text == (text := printable(segment.text, lines=True)):
                yield segment
            else:
                yield Segment(text, segment.style)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """Show a spinner beside a text, which is not markup either."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)


class CleanGroup(TyperGroup):
    """Commands whose arguments may hold anything: the message about a wrong one is made printable."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments before the command."""
        with _cleaned_messages():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Parse the command's arguments, and run it."""
        with _cleaned_messages():
            return super().invoke(ctx)


class CleanFormatter(logging.Formatter):
    """Log lines and tracebacks, made printable."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole text of a record."""
        return printable(super().format(record), lines=True)


def note(message: str) -> None:
    """Print a line on stderr, above a progress bar."""
    tqdm.write(printable(message), file=sys.stderr)


def asked() -> Iterator[str]:
    """Yield questions: those of a terminal until an empty line, Ctrl-D or Ctrl-C; else each line of stdin.

    A line that is not of the encoding is named, and the next one is taken. On a terminal the arrow keys edit a question
    and bring earlier ones back, where Python has readline.
    """
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    if not sys.stdin.isatty():
        for number, line in enumerate(map(str.strip, sys.stdin), 1):
            if line.isascii() or line == line.encode(errors="replace").decode():
                yield from filter(None, [line])
            else:
                note(f"Error: line {number} is not {sys.stdin.encoding}, and is left out.")
        return
    with suppress(ImportError):
        import readline  # noqa: F401 - input() uses it
    with suppress(EOFError, KeyboardInterrupt):
        while text := input("> " if sys.stdout.isatty() else "").strip():
            yield text


@contextmanager
def _cleaned_messages() -> Iterator[None]:
    try:
        yield
    except _ArgumentError as error:
        for name in ("message", "option_name"):
            if isinstance(text := getattr(error, name, None), str):
                setattr(error, name, printable(text, lines=True))
        raise
