"""JSON Lines and CSV: a record for each line, and a row for each record."""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.reading.problems import ReadProblem, RestUnreadableError
from late_interaction.rows import Row
from late_interaction.types import Document

Record: TypeAlias = dict[str, Any]

_CONTENT_COLUMNS = ("content", "text")
_ID_COLUMNS = ("doc_id", "id", "_id")
_LONGEST_PATH = 1000


def json_records(file: Path, on_problem: Callable[[ReadProblem], None]) -> Iterator[tuple[int, Record]]:
    """Yield line number and object of each line; skip blank lines."""
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


def csv_records(file: Path, on_problem: Callable[[ReadProblem], None]) -> Iterator[tuple[int, Record]]:
    """Yield the first line number of each record, and its values by the header's names."""
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
                raise RestUnreadableError(
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


def record_row(
    record: Mapping[str, Any],
    default_id: str,
    content_column: str | None,
    id_column: str | None,
    *,
    images: bool,
) -> Record:
    """Return a record with its text under `content`, unless its image is enough, and its id under `doc_id`.

    Raises:
        ValueError: the text or the id is missing, or is not what it should be.
    """
    row = dict(record)
    content_columns = _CONTENT_COLUMNS if content_column is None else (content_column,)
    column = next((name for name in content_columns if name in row), None)
    found: Record = {}
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


def with_image(row: Record, folder: Path, *, images: bool) -> Row:
    """Return a row with the path of its image from the current folder; for a text model the image is metadata."""
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
