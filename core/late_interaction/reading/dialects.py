"""How a table is written: what is between values and around them, and whether its first line names the columns.

csv.Sniffer guesses from how often a character comes on a line, and texts have commas of their own; here a table is
parsed in each usual way, and the way in which its records agree is taken.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.reading.encodings import Encoding, open_text

Dialect: TypeAlias = dict[str, Any]
Reader: TypeAlias = Any
"""What `csv.reader` returns."""

_SURROGATES = "\udc00\udc01\udc02"
_SAMPLE = 1 << 16
_RECORDS = 200
_DELIMITERS = (",", ";", "\t", "|")
_OWN_DELIMITERS = {".tsv": "\t", ".tab": "\t", ".psv": "|"}
_QUOTINGS: tuple[Dialect, ...] = (
    {"quotechar": '"', "escapechar": "\\"},
    {"quotechar": '"'},
    {"quotechar": '"', "skipinitialspace": True},
    {"quotechar": "'"},
)
_SIGNS = {'"': "", "\\": '\\"', "'": "'"}
"""What a sample has that is quoted in such a way."""
_EXCELS_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d.,]*\d[\d.,]*%?")
_LONGEST_NAME = 64


@dataclass(frozen=True, slots=True)
class Way:
    """How values are set apart and quoted.

    `csv` takes each backslash for an escape and drops it. Here what is escaped is a surrogate while `csv` reads (no
    decoded text has one), and any other backslash stays.

    Attributes:
        dialect: what `csv.reader` is given.
        escaped: what stands for each sign that follows a backslash.
    """

    dialect: Dialect
    escaped: Mapping[str, str]

    def reader(self, lines: Iterable[str]) -> Reader:
        """Return a reader of records, of which `values` makes values."""
        if self.escaped:
            pair, hidden = _pairs(self.escaped), dict(zip(self.escaped, _SURROGATES, strict=False))
            lines = (pair.sub(lambda found: hidden[found[1]], line) for line in lines)
        return csv.reader(lines, **self.dialect)

    def values(self, record: list[str]) -> list[str]:
        """Return the values of a record."""
        shown = str.maketrans(dict(zip(_SURROGATES, self.escaped.values(), strict=False)))
        return [value.translate(shown) for value in record] if self.escaped else record


def _way(quoting: Dialect, delimiter: str, sample: str) -> Way:
    """Return a way to read a table; where a sample has a backslash before other signs, only quotes are escaped."""
    dialect = {"delimiter": delimiter, "strict": True} | quoting
    if not dialect.pop("escapechar", None):
        return Way(dialect, {})
    signs = ('"', "\\", delimiter)
    is_whole = "\\" not in _pairs(signs).sub("", sample).removesuffix("\\")
    return Way(dialect, {sign: sign for sign in signs} if is_whole else {'"': '"', "\\": "\\\\"})


def _pairs(signs: Iterable[str]) -> re.Pattern[str]:
    return re.compile(rf"\\([{re.escape(''.join(signs))}])")


@dataclass(frozen=True, slots=True)
class Table:
    """How a table is written.

    Attributes:
        way: how values are set apart and quoted.
        names: of the columns, each another one; their numbers, where there is no header; empty of an empty table.
        has_header: the first record is the names.
        skip: lines before that.
    """

    way: Way
    names: tuple[str, ...]
    has_header: bool
    skip: int = 0


def table_of(file: Path, encoding: Encoding, needed: Sequence[str], *, delimiter: str | None = None) -> Table:
    """Return how a table is written.

    Args:
        file: the table.
        encoding: of the file.
        needed: names of columns; where the first record has one of them it is a header.
        delimiter: between the values; None to detect it.

    Raises:
        OSError: the file cannot be read.
    """
    with open_text(file, encoding, newline="") as text:
        sample = text.read(_SAMPLE)
        is_cut = bool(text.read(1))
    skip = 0
    if (said := _EXCELS_LINE.match(sample)) and delimiter is None:
        delimiter, skip, sample = said[1], 1, sample[said.end() :]
    own = _OWN_DELIMITERS.get(file.suffix.lower())
    delimiters = [delimiter] if delimiter else sorted(_DELIMITERS, key=lambda one: one != own)
    known = {name.casefold() for name in needed}
    ways: list[tuple[float, Way, list[list[str]]]] = []
    for quoting, between in product(_QUOTINGS, delimiters):
        if _SIGNS[quoting.get("escapechar") or quoting["quotechar"]] in sample:
            way = _way(quoting, between, sample)
            records, n_wrong = _parsed(sample, way, is_cut=is_cut)
            ways.append((_agreement(records, n_wrong, known), way, records))
    _, way, records = max(ways, key=lambda one: one[0])  # the first one of those that are as good
    if not records:
        return Table(way, (), has_header=True, skip=skip)
    has_header = _is_header(records, known)
    names = records[0] if has_header else [str(number) for number in range(1, len(records[0]) + 1)]
    return Table(way, tuple(_unlike(names)), has_header, skip)


def _parsed(sample: str, way: Way, *, is_cut: bool) -> tuple[list[list[str]], int]:
    """Return the first records, and how many there are that cannot be parsed."""
    records: list[list[str]] = []
    reader = way.reader(io.StringIO(sample, newline=""))
    n_wrong = 0
    while len(records) + n_wrong < _RECORDS:
        try:
            record = next(reader, None)
        except csv.Error as error:
            # A sample may end inside of quotes, and a field may be longer than it.
            n_wrong += not (is_cut and "unexpected end of data" in str(error))
            continue
        if record is None:
            if is_cut and len(records) > 1:
                records.pop()
            break
        if record:
            records.append(way.values(record))
    return records, n_wrong


def _agreement(records: Sequence[Sequence[str]], n_wrong: int, known: set[str]) -> float:
    """Return how well records agree: most with many columns of which the header names a known one."""
    if not records:
        return 0.0
    columns = len(records[0])
    alike = sum(len(record) == columns for record in records) / (len(records) + n_wrong)
    return alike * (1 if columns > 1 else 0.5) + (not known.isdisjoint(map(str.casefold, records[0])))


def _is_header(records: Sequence[Sequence[str]], known: set[str]) -> bool:
    """Tell whether the first record names columns: one that is known, or short ones, no two alike, and no number."""
    first = [name.strip() for name in records[0]]
    if not known.isdisjoint(map(str.casefold, first)):
        return True
    if any(_NUMBER.fullmatch(name) or len(name) > _LONGEST_NAME for name in first):
        return False
    return any(first) and not any(name in record for name in first if name for record in records[1:])


def _unlike(names: Sequence[str]) -> Iterator[str]:
    """Yield names of which none is empty or comes twice."""
    taken: set[str] = set()
    for number, name in enumerate(names, 1):
        plain = name.replace("\0", "").strip() or f"column_{number}"
        unlike, count = plain, 1
        while unlike in taken or (unlike != plain and unlike in names):
            count += 1
            unlike = f"{plain}_{count}"
        taken.add(unlike)
        yield unlike
