"""Files to rows: text and Markdown in passages, JSON Lines and CSV a row each, images, and PDF files by the page.

Rows are read as they are asked for, so memory does not grow with the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import MissingExtraError
from late_interaction.images.loading import IMAGE_SUFFIXES
from late_interaction.images.pdf import DPI, PDF_TIMEOUT_S, pdf_pages
from late_interaction.reading.finding import PDF_SUFFIX, SUFFIXES, TEXT_SUFFIXES, find_files
from late_interaction.reading.ocr import check_ocr
from late_interaction.reading.passages import passages
from late_interaction.reading.pdf_texts import pdf_rows
from late_interaction.reading.problems import ReadProblem, RestUnreadableError
from late_interaction.reading.tables import csv_records, json_records, record_row, with_image
from late_interaction.reading.texts import text_rows
from late_interaction.rows import Row

__all__ = ["PDF_SUFFIX", "SUFFIXES", "TEXT_SUFFIXES", "ReadProblem", "find_files", "passages", "read_rows"]


def read_rows(
    files: Iterable[Path],
    on_problem: Callable[[ReadProblem], None],
    *,
    content_column: str | None = None,
    id_column: str | None = None,
    model: LateInteractionModel | None = None,
    passage_tokens: int | None = None,
    overlap: int = 0,
    headings: bool = True,
    images: bool = False,
    dpi: float = DPI,
    pdf_timeout_s: float = PDF_TIMEOUT_S,
    password: str | None = None,
    ocr: bool = False,
) -> Iterator[Row]:
    """Yield rows for `LateInteractionPipeline.index_documents`, one at a time.

    Text and Markdown files become passages that the model reads whole (see `passages`), in Markdown with the headings
    above them as `heading`; their ids are `file#1`, `file#2`, … A line of JSON or of CSV becomes one row; its id is the
    id column's value, else `file:line`. Every row carries its file as `source` and its first line as `line`;
    the other columns, or JSON values, are its metadata.

    For a visual model (`images`) an image becomes a row, and each page of a PDF, with the id `file#page`; so does a
    JSON or CSV record with an `image`, a path from its file's folder. Otherwise a PDF becomes passages of the text of
    its pages, and an image is a problem. A row of a PDF has `page` and `pages` in place of `line`.

    Args:
        files: as `find_files` lists them.
        on_problem: called with each line or file that cannot be read; reading goes on behind it.
        content_column: where the text is; None for `content`, else `text`.
        id_column: where the id is; None for the first existing one of `doc_id`, `id` and `_id`.
        model: counts the tokens of passages, as for `passages`; without one they are estimated.
        passage_tokens: most tokens of a passage; by default 300, or what the model reads, if that is less.
        overlap: sentences that a passage repeats of the one before it.
        headings: put the headings above a passage of Markdown into its text.
        images: rows may have an `image`.
        dpi: resolution at which pages of a PDF are rendered.
        pdf_timeout_s: most seconds for a page of a PDF.
        password: opens the PDF files that are protected by one.
        ocr: recognise the text of pages of PDF files that have none, with ocrmypdf.

    Raises:
        ValueError: an option is wrong, or ocrmypdf is not installed.
    """
    cut = partial(passages, model=model, max_tokens=passage_tokens, overlap=overlap, headings=headings)
    list(cut(""))  # Wrong options are an error, and not a problem of each file.
    if ocr:
        check_ocr()
    for file in files:
        suffix = file.suffix.lower()
        try:
            if suffix in TEXT_SUFFIXES:
                yield from text_rows(file, cut, markdown=suffix == ".md")
            elif suffix == PDF_SUFFIX and images:
                yield from pdf_pages(file, dpi=dpi, pdf_timeout_s=pdf_timeout_s, password=password)
            elif suffix == PDF_SUFFIX:
                yield from pdf_rows(
                    file, cut, on_problem, pdf_timeout_s=pdf_timeout_s, password=password, ocr=ocr
                )
            elif suffix in IMAGE_SUFFIXES and images:
                yield {"image": str(file), "doc_id": str(file), "source": str(file)}
            elif suffix in IMAGE_SUFFIXES:
                on_problem(ReadProblem(file, None, "an image, which needs a visual model such as ColQwen2"))
            else:
                yield from _record_rows(file, on_problem, content_column, id_column, images=images)
        except RestUnreadableError as error:
            on_problem(ReadProblem(file, error.line, error.reason))
        except (ValueError, MissingExtraError) as error:
            on_problem(ReadProblem(file, None, str(error).removeprefix(f"{file}: ")))
        except OSError as error:
            on_problem(ReadProblem(file, None, error.strerror or str(error)))


def _record_rows(
    file: Path,
    on_problem: Callable[[ReadProblem], None],
    content_column: str | None,
    id_column: str | None,
    *,
    images: bool,
) -> Iterator[Row]:
    """Yield a row for each good record of a JSON Lines or CSV file."""
    records = csv_records if file.suffix.lower() == ".csv" else json_records
    for line, record in records(file, on_problem):
        try:
            row = record_row(record, f"{file}:{line}", content_column, id_column, images=images)
        except ValueError as error:
            on_problem(ReadProblem(file, line, str(error)))
        else:
            row = {"source": str(file), "line": line} | row
            yield with_image(row, file.parent, images=images) if "image" in row else row
