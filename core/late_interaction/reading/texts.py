"""Text, Markdown and the text of PDF files: a row for each passage."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from late_interaction.images.pdf import page_count, page_text
from late_interaction.reading.passages import Line, passages
from late_interaction.reading.problems import ReadProblem, RestUnreadableError


def text_rows(file: Path, chunk_words: int, *, markdown: bool) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of a text or Markdown file."""
    for chunk, (line, passage) in enumerate(passages(_text_lines(file), chunk_words, markdown=markdown), 1):
        row = {"content": passage, "doc_id": f"{file}#{chunk}", "source": str(file)}
        yield row | {"line": line, "chunk": chunk}


def pdf_rows(
    file: Path, chunk_words: int, on_problem: Callable[[ReadProblem], None], *, pdf_timeout_s: float
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
        lines = enumerate(text.splitlines(keepends=True), 1)
        for _, passage in passages(lines, chunk_words, markdown=False):
            chunk += 1
            row = {"content": passage, "doc_id": f"{file}#{chunk}", "source": str(file)}
            yield row | {"page": page, "pages": pages, "chunk": chunk}
    if without_text:
        which = ", ".join(without_text[:10]) + (", …" if len(without_text) > 10 else "")
        reason = f"{len(without_text)} of {pages} pages show something, but have no text (page {which})"
        on_problem(ReadProblem(file, None, f"{reason}: scanned pages need a visual model such as ColQwen2"))


def _text_lines(file: Path) -> Iterator[Line]:
    with file.open("rb") as raw:
        for line, data in enumerate(raw, 1):
            try:
                text = data.removeprefix(codecs.BOM_UTF8).decode()
            except UnicodeDecodeError:
                raise RestUnreadableError(line, "not UTF-8; the rest of the file is left out") from None
            yield line, text.replace("\r\n", "\n")
