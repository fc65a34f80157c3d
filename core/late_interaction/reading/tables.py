"""JSON, JSON Lines and CSV: a record for each line or object, and a row for each record."""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias

from late_interaction.images.loading import NamedImage
from late_interaction.reading.beir import joined
from late_interaction.reading.dialects import Table, table_of
from late_interaction.reading.encodings import Encoding, open_text
from late_interaction.reading.problems import RestUnreadableError
from late_interaction.rows import CONTENT_TYPES, RESERVED, Encodable, Row
from late_interaction.types import Document

Record: TypeAlias = dict[str, Any]

LONGEST_FIELD = 64 * 1024**2
"""Most characters of a field of CSV, or a line of JSON."""
LARGEST_JSON = 256 * 1024**2
"""Most bytes of a JSON file, which is read as a whole."""

_CONTENT_COLUMNS = ("content", "text")
_ID_COLUMNS = ("doc_id", "id", "_id")
_PLAIN_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_MOST_DIGITS = 15
_LONGEST_PATH = 1000
_TOO_MANY_DIGITS = "a whole number has more digits than Python reads (4,300)"


class RecordError(ValueError):
    """A record that makes no row.

    Attributes:
        kind: the same for all records of a file with the same fault, which are told together.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind, self.reason = kind, reason


def json_line_records(file: Path, encoding: Encoding) -> Iterator[tuple[int, Record | RecordError]]:
    """Yield the number of each line that is not blank, and its object, or what is wrong with it."""
    with open_text(file, encoding) as text:
        line = 0
        while data := text.readline(LONGEST_FIELD + 1):
            line += 1
            if len(data) > LONGEST_FIELD:
                raise RestUnreadableError(
                    line, f"longer than {LONGEST_FIELD:,} characters; the rest of the file is left out"
                )
            if not data.strip():
                continue
            try:
                record = json.loads(data)
            except json.JSONDecodeError as error:
                yield line, RecordError("json", f"not JSON: {error.msg} at column {error.colno}")
            except RecursionError:
                yield line, RecordError("nested", "nested too deeply")
            except ValueError:  # of Python's limit
                yield line, RecordError("digits", _TOO_MANY_DIGITS)
            else:
                yield line, _as_record(record)


def json_records(file: Path, encoding: Encoding, columns: Sequence[str]) -> list[Record | RecordError] | None:
    """Return the objects of a JSON file that have a text: of a list, of the lists in an object, or the object itself.

    Args:
        file: the JSON file.
        encoding: of the file.
        columns: where a text may be, as `content_columns` returns them.

    Returns:
        None where it holds no such objects; it can be read as a text then.

    Raises:
        ValueError: it is not JSON, or too large.
    """
    if file.stat().st_size > LARGEST_JSON:
        raise ValueError(f"larger than {LARGEST_JSON // 1024**2} MB: write a line for each object (.jsonl)")
    with open_text(file, encoding) as text:
        try:
            data = json.load(text)
        except json.JSONDecodeError as error:
            raise ValueError(f"not JSON: {error.msg} in line {error.lineno}, column {error.colno}") from None
        except RecursionError:
            raise ValueError("nested too deeply") from None
        except ValueError:
            raise ValueError(_TOO_MANY_DIGITS) from None

    def has_text(item: object) -> bool:
        return isinstance(item, dict) and any(_value_at(item, column) is not None for column in columns)

    if has_text(data):
        return [data]
    lists = [data] if isinstance(data, list) else list(data.values()) if isinstance(data, dict) else []
    found = [items for items in lists if isinstance(items, list) and any(map(has_text, items))]
    return [_as_record(item) for items in found for item in items] or None


def _as_record(value: object) -> Record | RecordError:
    if isinstance(value, dict):
        return value
    return RecordError("object", f"not a JSON object but {type(value).__name__}")


def csv_records(
    file: Path, encoding: Encoding, needed: Sequence[str], *, chosen: str | None = None, delimiter: str | None
) -> Iterator[tuple[int, Record | RecordError]]:
    """Yield the first line number of each record, and its values by the header's names, or what is wrong with it.

    Args:
        file: the table.
        encoding: of the file.
        needed: names of which the header should have one.
        chosen: where the text is said to be; the header should have all of these.
        delimiter: between the values; None to detect it.

    Raises:
        ValueError: none of the needed columns is there, or one of those chosen is not.
        RestUnreadableError: a field is too long; the records before it were yielded.
    """
    table = table_of(file, encoding, needed, delimiter=delimiter)
    missing = lacking(dict.fromkeys(table.names), chosen)
    if not any(name.casefold() in map(str.casefold, table.names) for name in needed):
        missing = missing or [*needed]
    if table.names and missing:
        columns = alternatives(table.names, "and")
        what = f"no {alternatives(missing)} among" if table.has_header else "no header; the columns are"
        choice = ",".join(table.names[:2])
        raise ValueError(f"there is {what} {columns}: say which have the text, as in --content {choice}")
    with open_text(file, encoding, newline="") as text:
        yield from _csv_rows(text, table)


def _csv_rows(text: TextIO, table: Table) -> Iterator[tuple[int, Record | RecordError]]:
    for _ in range(table.skip):
        text.readline()
    reader = table.way.reader(text)
    is_header = table.has_header
    while True:
        line = reader.line_num + 1 + table.skip
        try:
            with _field_limit():
                values = next(reader, None)
        except csv.Error as error:
            if "field limit" in str(error):
                reason = (
                    f"a field has more than {LONGEST_FIELD:,} characters; the rest of the file is left out"
                )
                raise RestUnreadableError(line, reason) from None
            yield line, RecordError("csv", f"not CSV: {error}")
            continue
        if values is None:
            return
        if not values:
            continue
        if is_header:
            is_header = False
            continue
        values = table.way.values(values)
        while len(values) > len(table.names) and not values[-1]:
            values.pop()
        if len(values) == len(table.names):
            yield line, dict(zip(table.names, values, strict=True))
        else:
            what = "header" if table.has_header else "first line"
            reason = f"{len(values)} values where the {what} has {len(table.names)} columns"
            yield line, RecordError("columns", reason)


def numeric_columns(records: Iterable[tuple[int, Record | RecordError]]) -> frozenset[str]:
    """Return the columns of a table of which every value that is not blank is a plain number, and one at least is.

    Plain is what JSON writes, of up to 15 digits, so that no digit is lost: no plus, exponent, or zeros before.
    """
    plain: set[str] = set()
    others: set[str] = set()
    with suppress(RestUnreadableError):
        for _, record in records:
            if isinstance(record, dict):
                for name in record.keys() - others:
                    if (value := record[name]).strip():
                        (plain if _number(value) is not None else others).add(name)
    return frozenset(plain - others)


def _number(value: str) -> int | float | None:
    if not _PLAIN_NUMBER.fullmatch(value) or sum(map(str.isdigit, value)) > _MOST_DIGITS:
        return None
    return float(value) if "." in value else int(value)


def with_numbers(record: Record, columns: Iterable[str]) -> Record:
    """Return a record with the values of these columns as numbers, but for blank ones."""
    return record | {name: _number(record[name]) for name in columns if record.get(name, "").strip()}


@contextmanager
def _field_limit() -> Iterator[None]:
    """Let fields be long while a record is read: the limit is the whole process's."""
    before = csv.field_size_limit(LONGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def content_columns(chosen: str | None) -> tuple[str, ...]:
    """Return where the text of a record may be: the columns chosen, separated by commas, or the usual ones."""
    if chosen is None:
        return _CONTENT_COLUMNS
    return tuple(dict.fromkeys((chosen, *(name.strip() for name in chosen.split(",") if name.strip()))))


def lacking(record: Mapping[str, Any], chosen: str | None) -> list[str]:
    """Return which of the columns that are chosen for the text a record does not have."""
    if chosen is None or chosen in record:
        return []
    return [name for name in content_columns(chosen) if "," not in name and not _has(record, name)]


def _has(record: Mapping[str, Any], path: str) -> bool:
    first, _, rest = path.partition(".")
    inner = record.get(first)
    return path in record or (bool(rest) and isinstance(inner, dict) and _has(inner, rest))


@dataclass(frozen=True, slots=True)
class Made:
    """What a record makes: a document's id, its text ("" where its image is enough), and the other columns."""

    doc_id: str
    content: str
    metadata: Record


def made_of(
    record: Mapping[str, Any],
    default_id: str,
    content_column: str | None,
    id_column: str | None,
    separator: str,
    *,
    images: bool,
) -> Made:
    """Return what a record makes.

    Raises:
        RecordError: the text or the id is missing, or is not what it should be.
    """
    row = dict(record)
    content = _content(row, content_column, separator)
    if content is None and not (images and row.get("image")):
        columns = alternatives(content_columns(content_column))
        raise RecordError("content", f"there is no {columns} among {alternatives(row, 'and')}")
    column = _column(row, _ID_COLUMNS) if id_column is None else id_column
    if column is None:
        return Made(default_id, content or "", row)
    if column not in row:
        raise RecordError("no id", f"there is no {column!r} among {alternatives(row, 'and')}")
    doc_id = row.pop(column)
    if isinstance(doc_id, bool) or not isinstance(doc_id, str | int) or doc_id == "":
        raise RecordError("id", f"{column} must be text or a whole number, not {doc_id!r}")
    return Made(str(doc_id), content or "", row)


def _content(row: Record, chosen: str | None, separator: str) -> str | None:
    """Take the text out of a record; None if it has none."""
    if chosen is None or chosen in row:
        column = chosen if chosen in row else _column(row, _CONTENT_COLUMNS)
        if column is None:
            return None
        text = _text(row.pop(column), column)
        if not text.strip():
            raise RecordError("blank", f"{column} must be text, not {text!r}")
        return text
    columns = [name for name in content_columns(chosen) if "," not in name]
    texts = [_text(_taken(row, column), column, plain=True) for column in columns]
    return joined(texts, separator) or None


def _text(value: object, column: str, *, plain: bool = False) -> str:
    """Return a text, or the paragraphs of a list, as one text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n\n".join(value)
    if plain and (value is None or isinstance(value, int | float)):
        return "" if value is None else str(value)
    raise RecordError("type", f"{column} must be text, not {value!r}"[:_LONGEST_PATH])


def _column(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """Return the first of these columns, in whatever case."""
    there = {name.casefold(): name for name in reversed([*row])}
    return next((name if name in row else there[name] for name in names if name in there), None)


def _value_at(row: Mapping[str, Any], path: str) -> object:
    """Return the value of a column, or of "page.text" inside one; None if there is none."""
    if path in row:
        value: object = row[path]
        return value
    first, _, rest = path.partition(".")
    inner = row.get(first)
    return _value_at(inner, rest) if rest and isinstance(inner, dict) else None


def _taken(row: Record, path: str) -> object:
    """Take the value of a column, or of "page.text" inside one, out of a record."""
    value = _value_at(row, path)
    if path in row:
        return row.pop(path)
    first, _, rest = path.partition(".")
    if value is not None:
        inner = dict(row[first])
        _taken(inner, rest)
        row[first] = inner
        if not inner:
            del row[first]
    return value


def row_of(made: Made, where: Record, file: Path, name: str, *, images: bool) -> Row:
    """Return the row of a record.

    A column with the name of a part of a row, such as `content_type`, is metadata like any other.

    Args:
        made: of the record.
        where: metadata that tell where the record is; its own columns of these names come before them.
        file: where the record is; paths of images begin in its folder.
        name: what the file is called in what is stored.
        images: an image is encoded; for a text model it is metadata.
    """
    metadata = where | made.metadata
    image = metadata.pop("image", None) if images else None
    if isinstance(image, str) and len(image) < _LONGEST_PATH and (path := file.parent / image).is_file():
        image = NamedImage(str(path), _beside(name, os.path.relpath(path, file.parent), image))
    if metadata.get("content_type") in CONTENT_TYPES and not ("image" in metadata or image):
        del metadata["content_type"]
    if metadata.keys().isdisjoint(RESERVED):
        shown = {"content": made.content} if made.content or not image else {}
        return metadata | shown | {"doc_id": made.doc_id} | ({"image": image} if image else {})
    document = Document(made.doc_id, made.content, metadata=metadata)
    return Encodable(document, image=image) if image else document


def _beside(name: str, relative: str, image: str) -> str:
    """Return what an image is called that a file of this name knows by a path from its own folder.

    An image outside of the folder that the name begins in keeps an absolute path, if that is what the file says.
    """
    found = posixpath.normpath(posixpath.join(posixpath.dirname(name), Path(relative).as_posix()))
    return image if found.startswith("../") and os.path.isabs(image) else found  # noqa: PTH117


def alternatives(names: Iterable[str], word: str = "or") -> str:
    """Return names for a message."""
    return f" {word} ".join(repr(name) for name in names) or "no columns"
