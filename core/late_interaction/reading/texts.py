"""Text and Markdown: a row for each passage."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.reading.passages import Passage
from late_interaction.reading.problems import RestUnreadableError
from late_interaction.sentences import last_boundary

Cut: TypeAlias = Callable[..., Iterator[Passage]]
"""`passages` with its options but `markdown`."""

_SEGMENT = 65_536
_LONGEST_SEGMENT = 4 * _SEGMENT


def text_rows(file: Path, cut: Cut, *, markdown: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of a text or Markdown file."""
    chunk = 0
    for first_line, text in _segments(file, whole=markdown):
        for passage in cut(text, markdown=markdown):
            chunk += 1
            yield {
                "content": passage.text,
                "doc_id": f"{file}#{chunk}",
                "source": str(file),
                "line": first_line + passage.line - 1,
                "chunk": chunk,
                **({"heading": passage.heading} if passage.heading else {}),
            }


def _segments(file: Path, *, whole: bool) -> Iterator[tuple[int, str]]:
    """Yield first line and text of parts of a file that begin with a paragraph; Markdown is one part.

    Of a file with a byte that is not UTF-8, what stands before that line is yielded first.
    """
    first_line, text = 1, ""
    try:
        for line in _text_lines(file):
            if not whole and len(text) >= _SEGMENT and not line.strip():
                yield first_line, text
                first_line, text = first_line + text.count("\n"), ""
            text += line
            if not whole and len(text) >= _LONGEST_SEGMENT:
                end = last_boundary(text, _SEGMENT, len(text) - 1)
                yield first_line, text[:end]
                first_line, text = first_line + text.count("\n", 0, end), text[end:]
    except RestUnreadableError:
        yield first_line, text
        raise
    yield first_line, text


def _text_lines(file: Path) -> Iterator[str]:
    with file.open("rb") as raw:
        for number, data in enumerate(raw, 1):
            try:
                text = data.removeprefix(codecs.BOM_UTF8).decode()
            except UnicodeDecodeError:
                raise RestUnreadableError(number, "not UTF-8; the rest of the file is left out") from None
            yield text.replace("\r\n", "\n").replace("\r", "\n")
