"""Text, Markdown and the text of PDF files: a row for each passage."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.images.pdf import page_count, page_text
from late_interaction.reading.passages import Passage
from late_interaction.reading.problems import ReadProblem, RestUnreadableError
from late_interaction.sentences import last_boundary

Cut: TypeAlias = Callable[..., Iterator[Passage]]
"""`passages` with its options but `markdown`."""

_SEGMENT = 65_536
_LONGEST_SEGMENT = 4 * _SEGMENT
_BULLET = re.compile(r"\s*(?:[-*•–▪◦]|\(?\w{1,3}[.)])\s")
_FULL_LINE = 0.6


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


def pdf_rows(
    file: Path, cut: Cut, on_problem: Callable[[ReadProblem], None], *, pdf_timeout_s: float
) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of the text of a PDF's pages; name the pages that have none."""
    pages, chunk, without_text = page_count(file, pdf_timeout_s=pdf_timeout_s), 0, []
    for page in range(1, pages + 1):
        try:
            text = page_text(file, page, pdf_timeout_s=pdf_timeout_s)
        except ValueError as error:
            on_problem(ReadProblem(file, None, f"page {page}: {str(error).removeprefix(f'{file}: ')}"))
            continue
        if text is None:
            without_text.append(str(page))
            continue
        for passage in cut(join_lines(text)):
            chunk += 1
            row = {"content": passage.text, "doc_id": f"{file}#{chunk}", "source": str(file)}
            yield row | {"page": page, "pages": pages, "chunk": chunk}
    if without_text:
        which = ", ".join(without_text[:10]) + (", …" if len(without_text) > 10 else "")
        reason = f"{len(without_text)} of {pages} pages show something, but have no text (page {which})"
        on_problem(ReadProblem(file, None, f"{reason}: scanned pages need a visual model such as ColQwen2"))


def join_lines(text: str) -> str:
    """Join the lines of each paragraph of a page: those that are full, unless the next one begins an item of a list.

    Blank lines stay. Between two Chinese or Japanese signs no space is put.
    """
    lines = text.split("\n")
    longest = max(map(len, lines))
    joined = lines[0]
    for before, line in pairwise(lines):
        is_full = len(before.rstrip()) >= _FULL_LINE * longest
        if not before.strip() or not line.strip() or not is_full or _BULLET.match(line):
            joined += "\n" + line
        elif _is_wide(before.rstrip()[-1]) and _is_wide(line.lstrip()[0]):
            joined = joined.rstrip() + line.lstrip()
        else:
            joined = joined.rstrip() + " " + line.lstrip()
    return joined


def _is_wide(sign: str) -> bool:
    return unicodedata.east_asian_width(sign) in ("W", "F")


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
