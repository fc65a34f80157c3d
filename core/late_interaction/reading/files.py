"""Files to rows: text and Markdown in passages, JSON Lines and CSV a row each, images, and PDF files by the page.

Rows are read as they are asked for, so memory does not grow with the files.
"""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from late_interaction.errors import MissingExtraError
from late_interaction.images.loading import IMAGE_SUFFIXES
from late_interaction.images.pdf import page_count, page_text, pdf_pages
from late_interaction.rows import Row
from late_interaction.types import Document
from late_interaction.validation import check_positive

TEXT_SUFFIXES = (".txt", ".md")
PDF_SUFFIX = ".pdf"
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".csv", PDF_SUFFIX, *IMAGE_SUFFIXES)

_CONTENT_COLUMNS = ("content", "text")
_ID_COLUMNS = ("doc_id", "id", "_id")
_LONGEST_PATH = 1000
_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\Z)", re.DOTALL)

_Record = dict[str, Any]
_Line = tuple[int, str]


@dataclass(frozen=True, slots=True)
class ReadProblem:
    """What could not be read; `line` is None where it is the whole file."""

    file: Path
    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


def find_files(paths: Iterable[Path]) -> list[Path]:
    """The files to read: each path that is a file, and every readable file in each that is a folder.

    Hidden files and folders inside a folder are left out. The order is by name within a folder.

    Raises:
        ValueError: a path does not exist, is a file of a kind that is not read, or is a folder with none.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in SUFFIXES
                and file.is_file()
                and not any(part.startswith(".") for part in file.relative_to(path).parts)
            )
            if not inside:
                raise ValueError(f"There is no {', '.join(SUFFIXES)} file in {path}.")
            found += inside
        elif not path.exists():
            raise ValueError(f"There is no file or folder {path}.")
        elif path.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{path} is not a {', '.join(SUFFIXES)} file.")
        else:
            found.append(path)
    return list(dict.fromkeys(file.resolve() for file in found))


def read_rows(
    files: Iterable[Path],
    on_problem: Callable[[ReadProblem], None],
    *,
    content_column: str | None = None,
    id_column: str | None = None,
    chunk_words: int = 200,
    images: bool = False,
) -> Iterator[Row]:
    """Rows for `LateInteractionPipeline.index_documents`, one at a time.

    Text and Markdown files become passages: whole paragraphs, and in Markdown whole sections, as long as
    they fit; their ids are `file#1`, `file#2`, … A line of JSON or of CSV becomes one row; its id is the id
    column's value, else `file:line`. Every row carries its file as `source` and its first line as `line`;
    the other columns, or JSON values, are its metadata.

    For a visual model (`images`) an image becomes a row, and each page of a PDF, with the id `file#page`; so does a
    JSON or CSV record with an `image`, a path from its file's folder. Otherwise a PDF becomes passages of the text of
    its pages, and an image is a problem. A row of a PDF has `page` and `pages` in place of `line`.

    Args:
        files: as `find_files` gives them.
        on_problem: called with each line or file that cannot be read; reading goes on behind it.
        content_column: where the text is; None for `content`, else `text`.
        id_column: where the id is; None for the first of `doc_id`, `id` and `_id` that is there.
        chunk_words: words that a passage has at most, give or take its heading.
        images: rows may have an `image`.
    """
    check_positive("chunk_words", chunk_words)
    for file in files:
        suffix = file.suffix.lower()
        try:
            if suffix in TEXT_SUFFIXES:
                yield from _text_rows(file, chunk_words, markdown=suffix == ".md")
                continue
            if suffix == PDF_SUFFIX:
                yield from pdf_pages(file) if images else _pdf_rows(file, chunk_words, on_problem)
                continue
            if suffix in IMAGE_SUFFIXES:
                if images:
                    yield {"image": str(file), "doc_id": str(file), "source": str(file)}
                else:
                    on_problem(
                        ReadProblem(file, None, "an image, which needs a visual model such as ColQwen2")
                    )
                continue
            records = _csv_records if suffix == ".csv" else _json_records
            for line, record in records(file, on_problem):
                try:
                    row = _row(record, f"{file}:{line}", content_column, id_column, images=images)
                except ValueError as error:
                    on_problem(ReadProblem(file, line, str(error)))
                else:
                    row = {"source": str(file), "line": line} | row
                    yield _with_image(row, file.parent, images=images) if "image" in row else row
        except _FileError as error:
            on_problem(ReadProblem(file, error.line, error.reason))
        except (ValueError, MissingExtraError) as error:
            on_problem(ReadProblem(file, None, str(error).removeprefix(f"{file}: ")))
        except OSError as error:
            on_problem(ReadProblem(file, None, error.strerror or str(error)))


class _FileError(Exception):
    """Nothing more can be read from this file."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(line, reason)
        self.line, self.reason = line, reason


def _row(
    record: Mapping[str, Any],
    default_id: str,
    content_column: str | None,
    id_column: str | None,
    *,
    images: bool,
) -> _Record:
    """A record with its text under `content`, unless its image is enough, and its id under `doc_id`."""
    row = dict(record)
    content_columns = _CONTENT_COLUMNS if content_column is None else (content_column,)
    column = next((name for name in content_columns if name in row), None)
    found: _Record = {}
    if column is not None:
        found["content"] = content = row.pop(column)
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"{column} must be text, not {content!r}")
    elif not (images and row.get("image")):
        raise ValueError(f"there is no {_alternatives(content_columns)} among {_alternatives(row, 'and')}")
    id_columns = _ID_COLUMNS if id_column is None else (id_column,)
    column = next((name for name in id_columns if name in row), None)
    if column is None:
        if id_column is not None:
            raise ValueError(f"there is no {id_column!r} among {_alternatives(row, 'and')}")
        return row | found | {"doc_id": default_id}
    doc_id = row.pop(column)
    if isinstance(doc_id, bool) or not isinstance(doc_id, str | int) or doc_id == "":
        raise ValueError(f"{column} must be text or a whole number, not {doc_id!r}")
    return row | found | {"doc_id": str(doc_id)}


def _with_image(row: _Record, folder: Path, *, images: bool) -> Row:
    """A row with the path of its image from where we are; for a text model its image is metadata like any other."""
    if not images:
        metadata = {key: value for key, value in row.items() if key not in ("doc_id", "content")}
        return Document(row["doc_id"], row["content"], metadata=metadata)
    image = row.pop("image")
    if not image:
        return row
    if isinstance(image, str) and len(image) < _LONGEST_PATH and (folder / image).is_file():
        image = str(folder / image)
    return row | {"image": image}


def _alternatives(names: Iterable[str], word: str = "or") -> str:
    return f" {word} ".join(repr(name) for name in names) or "no columns"


def _json_records(file: Path, on_problem: Callable[[ReadProblem], None]) -> Iterator[tuple[int, _Record]]:
    """Line number and object of each line; blank lines are passed over."""
    with file.open("rb") as raw:
        for line, data in enumerate(raw, 1):
            if not data.strip():
                continue
            try:
                record = json.loads(data.removeprefix(codecs.BOM_UTF8).decode())
            except UnicodeDecodeError:
                on_problem(ReadProblem(file, line, "not UTF-8"))
            except json.JSONDecodeError as error:
                on_problem(ReadProblem(file, line, f"not JSON: {error.msg} at column {error.colno}"))
            else:
                if isinstance(record, dict):
                    yield line, record
                else:
                    on_problem(ReadProblem(file, line, f"not a JSON object but {type(record).__name__}"))


def _csv_records(file: Path, on_problem: Callable[[ReadProblem], None]) -> Iterator[tuple[int, _Record]]:
    """First line number of each record, and its values by the header's names."""
    with file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.reader(text, strict=True)
        header: Sequence[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader, None)
            except csv.Error as error:
                on_problem(ReadProblem(file, line, f"not CSV: {error}"))
                continue
            except UnicodeDecodeError:
                raise _FileError(
                    line, "not UTF-8 from about here on; the rest of the file is left out"
                ) from None
            if values is None:
                return
            if not values:
                continue
            if header is None:
                header = values
            elif len(values) != len(header):
                reason = f"{len(values)} values where the header has {len(header)} columns"
                on_problem(ReadProblem(file, line, reason))
            else:
                yield line, dict(zip(header, values, strict=True))


def _text_rows(file: Path, chunk_words: int, *, markdown: bool) -> Iterator[_Record]:
    for chunk, (line, passage) in enumerate(passages(_text_lines(file), chunk_words, markdown=markdown), 1):
        row = {"content": passage, "doc_id": f"{file}#{chunk}", "source": str(file)}
        yield row | {"line": line, "chunk": chunk}


def _pdf_rows(file: Path, chunk_words: int, on_problem: Callable[[ReadProblem], None]) -> Iterator[_Record]:
    pages, chunk, without_text = page_count(file), 0, []
    for page in range(1, pages + 1):
        try:
            text = page_text(file, page)
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


def _text_lines(file: Path) -> Iterator[_Line]:
    with file.open("rb") as raw:
        for line, data in enumerate(raw, 1):
            try:
                text = data.removeprefix(codecs.BOM_UTF8).decode()
            except UnicodeDecodeError:
                raise _FileError(line, "not UTF-8; the rest of the file is left out") from None
            yield line, text.replace("\r\n", "\n")


def passages(lines: Iterable[_Line], max_words: int, *, markdown: bool) -> Iterator[_Line]:
    """Cut a text into passages of whole paragraphs, of at most `max_words` words as far as that goes.

    A Markdown heading begins a passage and stays with what follows it. A paragraph that is too long is cut
    between sentences, and a sentence that is too long between words.

    Args:
        lines: number and text of each line, newline included.
        max_words: words per passage; a heading comes on top.
        markdown: whether `#` lines outside code fences are headings.

    Yields:
        The number of a passage's first line, and its text.
    """
    passage, first_line, words, has_body = "", 0, 0, False
    for line, text, is_heading in _paragraphs(lines, max_words, markdown=markdown):
        for piece_line, piece in _pieces(line, text, max_words):
            n_words = len(piece.split())
            if has_body and (is_heading or words + n_words > max_words):
                yield first_line, passage.strip()
                passage, words, has_body = "", 0, False
            if not passage:
                first_line = piece_line
            passage += piece
            if not is_heading:
                words, has_body = words + n_words, True
    if passage:
        yield first_line, passage.strip()


def _paragraphs(lines: Iterable[_Line], max_words: int, *, markdown: bool) -> Iterator[tuple[int, str, bool]]:
    """First line, text with the blank lines behind it, and whether it is a heading, of each paragraph.

    A paragraph that grows past `max_words` is handed on in parts, so that a file without a blank line does
    not fill the memory.
    """
    paragraph, first_line, words = "", 0, 0
    ended = fenced = is_heading = False
    for line, text in lines:
        if not text.strip():
            paragraph += text if paragraph else ""
            ended = True
            continue
        begins_heading = markdown and not fenced and _HEADING.match(text) is not None
        if paragraph and (ended or is_heading or begins_heading or words >= max_words):
            yield first_line, paragraph, is_heading
            paragraph, words = "", 0
        if not paragraph:
            first_line, is_heading = line, begins_heading
        fenced ^= markdown and _FENCE.match(text) is not None
        ended = False
        paragraph += text
        words += len(text.split())
    if paragraph:
        yield first_line, paragraph, is_heading


def _pieces(line: int, text: str, max_words: int) -> Iterator[_Line]:
    """The text itself where it is short enough, else its sentences, else its words; nothing is lost."""
    if len(text.split()) <= max_words:
        yield line, text
        return
    for sentence in _SENTENCE.findall(text):
        for piece in re.findall(rf"(?:\S+\s*){{1,{max_words}}}", sentence):
            yield line, piece
            line += piece.count("\n")
