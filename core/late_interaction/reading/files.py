"""Files to rows: texts in passages, JSON and CSV a row for each record, images, and PDF files by the page.

Rows are read as they are asked for, so memory does not grow with the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import MissingExtraError
from late_interaction.images.pages import image_pages
from late_interaction.images.pdf import DPI, PDF_TIMEOUT_S, pdf_pages
from late_interaction.reading.encodings import Encoding, check_encoding, encoding_of
from late_interaction.reading.finding import find_files
from late_interaction.reading.kinds import SUFFIXES, Kind, kind_of
from late_interaction.reading.ocr import check_ocr
from late_interaction.reading.passages import passages
from late_interaction.reading.pdf_texts import pdf_rows
from late_interaction.reading.problems import ReadProblem, RestUnreadableError
from late_interaction.reading.tables import (
    Record,
    RecordError,
    alternatives,
    content_columns,
    csv_records,
    json_line_records,
    json_records,
    lacking,
    made_of,
    numeric_columns,
    row_of,
    with_numbers,
)
from late_interaction.reading.texts import Cut, converted_rows, text_rows
from late_interaction.rows import Row

__all__ = ["SUFFIXES", "ReadProblem", "find_files", "passages", "read_rows"]

_LINES_NAMED = 5


def read_rows(
    files: Iterable[Path],
    on_problem: Callable[[ReadProblem], None],
    *,
    content_column: str | None = None,
    id_column: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    model: LateInteractionModel | None = None,
    passage_tokens: int | None = None,
    overlap: int = 0,
    headings: bool = True,
    images: bool = False,
    dpi: float = DPI,
    pdf_timeout_s: float = PDF_TIMEOUT_S,
    password: str | None = None,
    ocr: bool = False,
    names: Mapping[Path, str] | None = None,
    separator: str = "\n",
) -> Iterator[Row]:
    """Yield rows for `LateInteractionPipeline.index_documents`, one at a time.

    Texts become passages that the model reads whole (see `passages`), with the headings above them as `heading`; their
    ids are `file#1`, `file#2`, … A record of JSON or CSV becomes one row; its id is the id column's value, else
    `file:line`. Every row carries its file as `source`, and where it begins as `line` or `page`; what else is known of
    it, such as the other columns, is its metadata (docs/files.md has the kinds).

    For a visual model (`images`) an image becomes a row, and each page of a PDF, a TIFF or an animation, with the id
    `file#page`; so does a JSON or CSV record with an `image`, a path from its file's folder. Otherwise a PDF becomes
    passages of the text of its pages, and an image is a problem.

    Args:
        files: as `find_files` lists them.
        on_problem: called with each file, or fault of a file, that cannot be read; reading goes on behind it.
        content_column: where the text of a record is; None for `content`, else `text`. Several, separated by commas,
            are joined by `separator`; "page.text" is inside an object.
        id_column: where the id is; None for the first existing one of `doc_id`, `id` and `_id`.
        delimiter: between the values of CSV; None to detect it.
        encoding: of texts that have no byte order mark; None to detect it.
        model: counts the tokens of passages, as for `passages`; without one they are estimated.
        passage_tokens: most tokens of a passage; by default 300, or what the model reads, if that is less.
        overlap: sentences that a passage repeats of the one before it.
        headings: put the headings above a passage into its text.
        images: rows may have an `image`.
        dpi: resolution at which pages of a PDF are rendered.
        pdf_timeout_s: most seconds for a page of a PDF.
        password: opens the PDF files that are protected by one.
        ocr: recognise the text of pages of PDF files that have none, with ocrmypdf.
        names: what files are called in ids, as `source` and as what is stored of an image; by default their paths.
        separator: between the texts of several columns.

    Raises:
        ValueError: an option is wrong, or ocrmypdf is not installed.
    """
    cut = partial(passages, model=model, max_tokens=passage_tokens, overlap=overlap, headings=headings)
    list(cut(""))  # Wrong options are an error, and not a problem of each file.
    check_encoding(encoding)
    if delimiter is not None and len(delimiter) != 1:
        raise ValueError(f"a delimiter is one character, not {delimiter!r}.")
    if ocr:
        check_ocr()
    records = _Records(on_problem, content_column, id_column, delimiter, separator, images=images)
    for file in files:
        name = str(file) if names is None else names.get(file, str(file))
        if file.suffix.lower() not in SUFFIXES:
            on_problem(ReadProblem(file, None, "of a kind that is not read"))
            continue
        try:
            kind = kind_of(file)
            if kind is Kind.PDF and images:
                yield from pdf_pages(file, dpi=dpi, pdf_timeout_s=pdf_timeout_s, password=password, name=name)
            elif kind is Kind.PDF:
                yield from pdf_rows(
                    file, name, cut, on_problem, pdf_timeout_s=pdf_timeout_s, password=password, ocr=ocr
                )
            elif kind is Kind.IMAGE and images:
                yield from image_pages(file, name=name)
            elif kind is Kind.IMAGE:
                on_problem(ReadProblem(file, None, "an image, which needs a visual model such as ColQwen2"))
            elif kind in (Kind.OFFICE, Kind.NOTEBOOK, Kind.MAIL):
                yield from converted_rows(file, name, cut, on_problem, encoding)
            else:
                yield from _text_or_records(
                    file, name, kind, encoding_of(file, encoding), cut, records, on_problem
                )
        except RestUnreadableError as error:
            on_problem(ReadProblem(file, error.line, error.reason))
        except (ValueError, MissingExtraError) as error:
            on_problem(ReadProblem(file, None, str(error).removeprefix(f"{file}: ")))
        except OSError as error:
            on_problem(ReadProblem(file, None, error.strerror or str(error)))


def _text_or_records(
    file: Path,
    name: str,
    kind: Kind,
    encoding: Encoding,
    cut: Cut,
    records: _Records,
    on_problem: Callable[[ReadProblem], None],
) -> Iterator[Row]:
    """Yield the rows of a file that is decoded; tell which bytes are not of its encoding."""
    if encoding.damaged:
        on_problem(ReadProblem(file, encoding.damaged[0], encoding.damage))
    if kind is Kind.CSV:
        table = partial(
            csv_records,
            file,
            encoding,
            records.needed,
            chosen=records.content_column,
            delimiter=records.delimiter,
        )
        numeric = numeric_columns(table()) - {*records.needed}
        yield from records.rows(file, name, table(), numeric=numeric)
    elif kind is Kind.JSON_LINES:
        yield from records.rows(file, name, json_line_records(file, encoding))
    elif kind is Kind.JSON and (found := json_records(file, encoding, records.needed)) is not None:
        yield from records.rows(file, name, enumerate(found, 1), place="item")
    elif kind is Kind.JSON and records.content_column is not None:
        raise ValueError(f"there is no {alternatives(records.columns)} in an object of it")
    else:
        yield from text_rows(file, name, cut, encoding)


@dataclass(frozen=True, slots=True)
class _Records:
    """Rows of records, and what is wrong with the others: a problem for each fault of a file, not for each line."""

    on_problem: Callable[[ReadProblem], None]
    content_column: str | None
    id_column: str | None
    delimiter: str | None
    separator: str
    images: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Where a text may be."""
        return content_columns(self.content_column)

    @property
    def needed(self) -> tuple[str, ...]:
        """Names of columns of which a table should have one."""
        return (*self.columns, *(("image",) if self.images else ()))

    def rows(
        self,
        file: Path,
        name: str,
        records: Iterable[tuple[int, Record | RecordError]],
        *,
        place: str = "line",
        numeric: Iterable[str] = (),
    ) -> Iterator[Row]:
        """Yield a row for each good record; `place` says what is counted, `numeric` what is made a number."""
        faults: dict[str, tuple[str, list[int]]] = {}
        missing: set[str] | None = None
        try:
            for number, record in records:
                try:
                    if isinstance(record, RecordError):
                        raise record
                    made = made_of(
                        record,
                        f"{name}:{number}",
                        self.content_column,
                        self.id_column,
                        self.separator,
                        images=self.images,
                    )
                except RecordError as error:
                    faults.setdefault(error.kind, (error.reason, []))[1].append(number)
                else:
                    if missing is None or missing:
                        lacked = set(lacking(record, self.content_column))
                        missing = lacked if missing is None else missing & lacked
                    where = {"source": name, place: number}
                    made = replace(made, metadata=with_numbers(made.metadata, numeric))
                    yield row_of(made, where, file, name, images=self.images)
            if missing:
                reason = f"there is no {alternatives(sorted(missing))} in any record (--content)"
                self.on_problem(ReadProblem(file, None, reason))
        finally:
            for reason, numbers in faults.values():
                others = ", ".join(map(str, numbers[1 : _LINES_NAMED + 1]))
                more = ", …" if len(numbers) > _LINES_NAMED + 1 else ""
                also = f" (and {len(numbers) - 1} more {place}s like it: {others}{more})" if others else ""
                self.on_problem(ReadProblem(file, numbers[0], f"{reason}{also}"))
