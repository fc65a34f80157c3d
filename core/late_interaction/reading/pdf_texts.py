"""The text of PDF files: a row for each passage of each page."""

from __future__ import annotations

import re
import tempfile
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from late_interaction.images.pdf import PageText, page_text, pdf_file
from late_interaction.reading.ocr import recognise
from late_interaction.reading.problems import ReadProblem
from late_interaction.reading.texts import Cut, passage_row

_BULLET = re.compile(r"\s*(?:[-*•–▪◦]|\(?\w{1,3}[.)])\s")
_FULL_LINE = 0.6
_PAGES_NAMED = 10


def pdf_rows(
    file: Path,
    name: str,
    cut: Cut,
    on_problem: Callable[[ReadProblem], None],
    *,
    pdf_timeout_s: float,
    password: str | None = None,
    ocr: bool = False,
) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of the text of a PDF's pages; name the pages that show more than their text.

    Args:
        file: the PDF.
        name: what it is called in ids and as `source`.
        cut: makes passages.
        on_problem: takes what cannot be read.
        pdf_timeout_s: most seconds for a page.
        password: opens the file, if it is protected.
        ocr: recognise the text of such pages (see `recognise`).

    Raises:
        ValueError: the file cannot be read.
    """
    about = pdf_file(file, pdf_timeout_s=pdf_timeout_s, password=password)
    chunk = 0

    def read(number: int, report: Callable[[ReadProblem], None]) -> PageText:
        try:
            return page_text(file, number, pdf_timeout_s=pdf_timeout_s, password=password)
        except ValueError as error:
            report(ReadProblem(file, None, f"page {number}: {str(error).removeprefix(f'{file}: ')}"))
            return PageText("")

    with tempfile.TemporaryDirectory(prefix="late-interaction-ocr-") as folder:
        recognised: Mapping[int, str] = {}
        numbers = range(1, about.pages + 1)
        if ocr:
            unread = [number for number in numbers if read(number, lambda problem: None).unread]
            recognised = recognise(file, unread, Path(folder), pdf_timeout_s=pdf_timeout_s) if unread else {}
        left: dict[str, list[int]] = {}
        for number in numbers:
            page = read(number, on_problem)
            text = "\n\n".join(part for part in (recognised.get(number, ""), page.text) if part.strip())
            if page.unread and not recognised.get(number, "").strip():
                left.setdefault(page.unread, []).append(number)
            for passage in cut(join_lines(text)) if text else ():
                chunk += 1
                yield passage_row(name, chunk, passage) | about.metadata(number)
    for reason, pages in left.items():
        on_problem(ReadProblem(file, None, _what_to_do(reason, pages, about.pages, ocr=ocr)))


def _what_to_do(reason: str, pages: Sequence[int], n_pages: int, *, ocr: bool) -> str:
    which = ", ".join(map(str, pages[:_PAGES_NAMED])) + (", …" if len(pages) > _PAGES_NAMED else "")
    what = f"{len(pages)} of {n_pages} pages show something, but have {reason} (page {which})"
    if ocr:
        return f"{what}: OCR found none either, and a visual model sees them"
    return f"{what}: scanned pages and such need OCR (--ocr), or a visual model such as ColQwen2"


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
