"""Text indexes: analyzers, ``$match``, and the order of BM25.

As in the DataStax engine a row has to have every term of a query, in a filter and in a sort alike, and the terms of one
cell may take 8 KiB together.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tools.data_api.ann import Slots
from tools.data_api.errors import DataApiError, invalid_query
from tools.data_api.limits import MAX_ANALYZED_BYTES
from tools.data_api.schema import IndexSchema
from tools.data_api.tables import Index, Table

_K1, _B = 1.2, 0.75
_LONGEST_TOKEN = 255
"""Lucene's tokenizers cut longer tokens into pieces."""


def _pieces(tokens: Iterable[str]) -> list[str]:
    return [token[i : i + _LONGEST_TOKEN] for token in tokens for i in range(0, len(token), _LONGEST_TOKEN)]


ANALYZERS: dict[str, Callable[[str], list[str]]] = {
    "standard": lambda text: _pieces(re.findall(r"\w+", text.lower())),
    "whitespace": lambda text: _pieces(text.split()),
}
"""Those that this server has; ``standard`` is near Lucene's, whose words are those of UAX #29."""


class TextIndex(Index):
    """An analyzed index: for each term the slots of its rows, for each slot how often it has which terms."""

    def __init__(self, schema: IndexSchema) -> None:
        super().__init__(schema)
        self.analyze = ANALYZERS[schema.options["analyzer"]]
        self.frequencies: dict[int, Counter[str]] = {}

    def add(self, value: Any, slot: int) -> None:
        """Add a cell."""
        super().add(value, slot)
        self.frequencies[slot] = Counter(self.analyze(value))

    def _terms(self, value: Any) -> Iterable[Any]:
        return set(self.analyze(value))

    def discard(self, value: Any, slot: int) -> None:
        """Forget a cell."""
        super().discard(value, slot)
        del self.frequencies[slot]

    def clear(self) -> None:
        """Forget all cells."""
        super().clear()
        self.frequencies.clear()

    def check(self, value: str) -> None:
        """Refuse a cell that has too many terms."""
        if sum(len(term.encode()) for term in self.analyze(value)) > MAX_ANALYZED_BYTES:
            raise invalid_query(
                f"Term's analyzed size for column {self.schema.column} exceeds the cumulative limit for index. Max "
                f"allowed size {MAX_ANALYZED_BYTES / 1024:.3f}KiB"
            )

    def matching(self, terms: Iterable[str]) -> set[int]:
        """Return the slots of the rows that have every one of the terms."""
        return set.intersection(*(self.postings.get(term, set()) for term in terms))

    def ranked(self, terms: Sequence[str], among: Slots | None, limit: int) -> list[int]:
        """Return the slots of the rows that have every term, the highest BM25 first."""
        slots = sorted(self.matching(terms) & set(self.frequencies if among is None else among.tolist()))
        lengths = {slot: self.frequencies[slot].total() for slot in slots}
        mean = sum(each.total() for each in self.frequencies.values()) / max(1, len(self.frequencies))
        scores = np.zeros(len(slots))
        for term in set(terms):
            n = len(self.postings.get(term, ()))
            idf = math.log(1 + (len(self.frequencies) - n + 0.5) / (n + 0.5))
            for i, slot in enumerate(slots):
                tf = self.frequencies[slot][term]
                scores[i] += idf * tf / (tf + _K1 * (1 - _B + _B * lengths[slot] / mean))
        order = np.argsort(-scores, kind="stable")[:limit]
        return [slots[i] for i in order.tolist()]


def query_terms(index: TextIndex, query: str) -> list[str]:
    """Return the terms of a query; there has to be one."""
    terms = index.analyze(query)
    if not terms:
        raise invalid_query(
            "BM25 query must contain at least one term (perhaps your analyzer is discarding tokens you didn't expect)"
        )
    return terms


def text_index(table: Table, column: str) -> TextIndex | None:
    """Return the text index on a column, if there is one."""
    indexes = (index for index in table.indexes.values() if index.schema.column == column)
    return next((index for index in indexes if isinstance(index, TextIndex)), None)


def parse_analyzer(options: Any) -> str:
    """Return the name of the analyzer of a createTextIndex command; without one it is ``standard``."""
    if not isinstance(options, dict):
        options = {}
    analyzer = options.get("analyzer", "standard")
    if analyzer not in list(ANALYZERS):
        raise invalid_query(
            f"Invalid analyzer config {analyzer!r}: this local server has {', '.join(ANALYZERS)} only"
        )
    return str(analyzer)


def not_indexed(column: str) -> DataApiError:
    """Make the error for ``$match`` on a column without a text index; the Data API's own code is a placeholder too."""
    return DataApiError(
        "FILTER", "UNKNOWN_TABLE_COLUMNS", f"Column '{column}' has no text index, which $match needs."
    )
