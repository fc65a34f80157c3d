"""Texts of every kind: a row for each passage."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.reading.converting import HTML, converted
from late_interaction.reading.encodings import Encoding, html_encoding_of, open_text
from late_interaction.reading.kinds import Kind, kind_of
from late_interaction.reading.passages import Passage
from late_interaction.reading.problems import ReadProblem
from late_interaction.reading.structured import Mail, mail, notebook_as_markdown, rst_as_markdown
from late_interaction.sentences import last_boundary

Cut: TypeAlias = Callable[..., Iterator[Passage]]
"""`passages` with its options but `markdown` and `code`."""

_SEGMENT = 65_536
_LONGEST_SEGMENT = 4 * _SEGMENT


def text_rows(file: Path, name: str, cut: Cut, encoding: Encoding) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of a text, of Markdown, reStructuredText or source code, or of JSON as a text."""
    kind = kind_of(file)
    known: dict[str, Any] = {"encoding": encoding.name} if encoding.is_guessed else {}
    if kind in (Kind.CODE, Kind.JSON) and (language := _language(file.name)):
        known["language"] = language
    marked = kind in (Kind.MARKDOWN, Kind.RST)
    chunk = 0
    for first_line, text in _segments(file, encoding, whole=marked):
        if kind is Kind.RST:
            text = rst_as_markdown(text)
        for passage in cut(text, markdown=marked, code=kind in (Kind.CODE, Kind.JSON)):
            chunk += 1
            yield passage_row(name, chunk, passage) | {"line": first_line + passage.line - 1} | known


def converted_rows(
    file: Path, name: str, cut: Cut, on_problem: Callable[[ReadProblem], None], encoding: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield a row for each passage of an office file, web page, book, notebook or mail.

    Raises:
        ValueError: it cannot be read.
        MissingExtraError: what converts it is not installed.
    """
    kind = kind_of(file)
    known: dict[str, Any] = {}
    parts: list[tuple[str, int | None, bool]]
    if kind is Kind.NOTEBOOK:
        parts = [(notebook_as_markdown(file), None, True)]
    elif kind is Kind.MAIL:
        found = mail(file, encoding)
        for damage in found.damage:
            on_problem(ReadProblem(file, None, damage))
        known = found.metadata
        parts = [(text, None, is_html) for text, is_html in _mail_texts(found)]
    else:
        how = html_encoding_of(file, encoding) if file.suffix.lower() in HTML else None
        if how and how.damaged:
            on_problem(ReadProblem(file, how.damaged[0], how.damage))
        made = converted(file, how.name if how else None)
        if made.unread:
            on_problem(ReadProblem(file, None, f"chapters that cannot be read: {', '.join(made.unread)}"))
        parts = [(part.markdown, part.page, True) for part in made.parts]
        guessed = how.name if how and how.is_guessed else ""
        found_out = {"title": made.title, "author": made.author, "encoding": guessed}
        known = {key: said for key, said in found_out.items() if said}
    chunk = 0
    for part_text, page, is_markdown in parts:
        place: dict[str, Any] = {} if page is None else {"page": page, "pages": len(parts)}
        for passage in cut(part_text, markdown=is_markdown):
            chunk += 1
            yield passage_row(name, chunk, passage) | place | known


def _mail_texts(found: Mail) -> Iterator[tuple[str, bool]]:
    """Yield the subject and texts of a mail, as few of them as can be, and whether each is Markdown, made of HTML."""
    texts = [(_html_as_markdown(text) if is_html else text, is_html) for text, is_html in found.texts]
    subject = (found.metadata.get("subject", ""), bool(texts) and texts[0][1])
    for is_markdown, group in groupby([subject, *texts], key=itemgetter(1)):
        yield "\n\n".join(text for text, _ in group if text.strip()), is_markdown


def _html_as_markdown(text: str) -> str:
    with tempfile.TemporaryDirectory(prefix="late-interaction-mail-") as folder:
        page = Path(folder) / "mail.html"
        page.write_text(text, encoding="utf-8", errors="replace")
        return "\n\n".join(part.markdown for part in converted(page, "utf-8").parts)


def passage_row(name: str, chunk: int, passage: Passage) -> dict[str, Any]:
    """Return the row of a passage of the file of this name; `chunk` is its number in the file, from 1."""
    row = {"content": passage.text, "doc_id": f"{name}#{chunk}", "source": name, "chunk": chunk}
    return row | ({"heading": passage.heading} if passage.heading else {})


@lru_cache(maxsize=256)
def _language(name: str) -> str:
    """Return the language of a file of source code as Pygments names it: "python", "c++"; "" where it knows none."""
    from pygments.lexers import find_lexer_class_for_filename

    lexer = find_lexer_class_for_filename(name)
    return str(lexer.aliases[0]) if lexer is not None and lexer.aliases else ""


def _segments(file: Path, encoding: Encoding, *, whole: bool) -> Iterator[tuple[int, str]]:
    """Yield first line and text of parts of a file that begin with a paragraph; Markdown is one part."""
    first_line, text = 1, ""
    with open_text(file, encoding) as lines:
        while line := lines.readline(_LONGEST_SEGMENT):
            if not whole and len(text) >= _SEGMENT and not line.strip():
                yield first_line, text
                first_line, text = first_line + text.count("\n"), ""
            text += line
            while not whole and len(text) >= _LONGEST_SEGMENT:
                end = last_boundary(text, _SEGMENT, len(text) - 1)
                yield first_line, text[:end]
                first_line, text = first_line + text.count("\n", 0, end), text[end:]
    yield first_line, text
