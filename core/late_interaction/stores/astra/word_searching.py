"""Searches by words on Astra: the service proposes documents, and BM25 is computed here.

The service orders the rows of a table by BM25, and says neither their scores nor how many there are. A row has to have
every word of what it is asked for, so that a question of eight words would find nothing. So each word is asked for by
itself, side by side, and what comes back is put together:

1. For each word the best 1,000 documents (`_LISTED`). Where there are fewer, their number is the word's frequency. Of a
   more common one the frequency is estimated by a sample (see `words`), and the documents that have all of the common
   words are asked for too.
2. Documents are ranked by the words' weights and their places in the lists; the best are read with their words, and
   scored by BM25 as FTS5 does it in a folder: k1 1.2, b .75.

Statistics are those of the documents that the service's part of a filter leaves. The scores are exact while there are
fewer than 1,000 documents, each with all its words (`WordMatches.certain`), and near to it beyond, where the documents
are counted by a sample.
Where more than 1,000 have a word of the query, the best by one word alone may be missed, unless
`n` or a filter that is decided here wants more documents than the lists have: then every document with a word is read.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from late_interaction.filters import Filter
from late_interaction.stores.astra.client import DataApiClient, Row
from late_interaction.stores.astra.reading import EXISTS, Reader, judged_columns, row_matches
from late_interaction.stores.astra.rows import is_whole
from late_interaction.stores.astra.schema import Tables
from late_interaction.stores.astra.tasks import both, gather_or_cancel
from late_interaction.stores.astra.words import CUT, MARKS, MOST_WORDS, frequencies, query_stems
from late_interaction.stores.base import WordMatches

_LISTED = 1000
"""What the service returns of a lexical sort at most."""
_READ_AT_LEAST = 100
_READ_PER_RESULT = 3
"""Documents of which the words are read: so many for each of the `n`, and 100 at least."""
_READ = (*EXISTS, "words", "n_words")
_COUNTED_FOR_S = 300.0
"""How long a count of the documents is used; what this client writes ends it."""
_LEAST_SHARE = 0.5
"""What the last of a list counts, the first being 1, until its words are read."""
_K1, _B = 1.2, 0.75


class Statistics(NamedTuple):
    """How many documents there are, about, and how long.

    Attributes:
        n: documents, blank ones too.
        mean_words: words of one, on average.
        mark: of the sample by which they were counted.
        are_whole: whether each has all its words, as often as it has them.
    """

    n: int
    mean_words: float
    mark: str
    are_whole: bool


class WordSearcher:
    """Searches by words in one index.

    Args:
        client: requests to the keyspace.
        tables: of the open index.
        reader: reads its docs table.
    """

    def __init__(self, client: DataApiClient, tables: Tables, reader: Reader) -> None:
        self._client, self._tables, self._reader = client, tables, reader
        self._counted: dict[str, tuple[float, Statistics]] = {}

    def forget(self) -> None:
        """Count the documents anew in the next search."""
        self._counted.clear()

    async def search(self, text: str, n: int, filter: Filter | None, also: Sequence[str]) -> WordMatches:
        """Return the `n` documents that match with the highest BM25, and the BM25 of others."""
        asked = await asyncio.to_thread(query_stems, text)
        weights = Counter(word for word in asked if word in list(dict.fromkeys(asked))[:MOST_WORDS])
        pushed = self._reader.push_down(filter)
        if not weights or pushed.matches_nothing:
            return WordMatches({}, {})
        residual = None if pushed.exact else filter
        proposed = await self._propose(weights, pushed.where)
        wanted = max(_READ_AT_LEAST, _READ_PER_RESULT * n)
        (rows, n_seen), rows_also = await both(
            self._read(proposed.doc_ids, wanted, residual), self._reader.rows(also, _READ)
        )
        all_seen, is_whole_list = n_seen == len(proposed.doc_ids), not proposed.common
        if all_seen and len(rows) < n and not is_whole_list:
            rows |= await self._read_all(proposed.common, pushed.where, residual)
            is_whole_list = True
        best = sorted(proposed.score.of_all(rows).items(), key=lambda pair: (-pair[1], pair[0]))
        return WordMatches(
            dict(best[:n]),
            proposed.score.of_all(rows_also),
            certain=all_seen and is_whole_list and proposed.counted_all,
        )

    async def _propose(self, weights: Mapping[str, int], where: Row | None) -> _Proposed:
        """Ask for each word by itself, and for all of those together that too many documents have."""
        statistics, found = await both(
            self._count(where), gather_or_cancel([self._list(word, where) for word in weights])
        )
        lists = dict(zip(weights, found, strict=True))
        of_words = {word: len(rows) for word, rows in lists.items()}
        common = [word for word, rows in lists.items() if len(rows) >= _LISTED]
        together: list[Row] = []
        if common:
            counts, together = await both(
                gather_or_cancel([self._list(f"{word} {statistics.mark}", where) for word in common]),
                self._list(" ".join(common), where),
            )
            for word, rows in zip(common, counts, strict=True):
                of_words[word] = max(_LISTED, len(rows) * MARKS[statistics.mark])
        score = BM25(statistics, of_words, weights)
        expected: dict[str, float] = {}
        for word, rows in lists.items():
            for doc_id, share in _shares(rows):
                expected[doc_id] = expected.get(doc_id, 0.0) + share * score.idf[word]
        of_common = sum(score.idf[word] for word in common)
        for doc_id, share in _shares(together):
            expected[doc_id] = max(expected.get(doc_id, 0.0), share * of_common)
        ranked = sorted(expected, key=lambda doc_id: (-expected[doc_id], doc_id))
        counted_all = statistics.are_whole and statistics.mark == next(iter(MARKS))
        return _Proposed(ranked, score, common, counted_all)

    async def _list(self, words: str, where: Row | None, most: int | None = None) -> list[Row]:
        """Return the documents that have every one of the words, the best first, 1,000 at most."""
        columns = (*EXISTS, "n_words")
        pages = self._client.pages(
            self._tables.docs, columns, where=where, sort={"words": words}, limit=most or _LISTED
        )
        return [row async for page in pages for row in page if is_whole(row, columns)]

    async def _count(self, where: Row | None) -> Statistics:
        """Return how many documents the service's part of a filter leaves, counted or estimated by a sample."""
        key = json.dumps(where, sort_keys=True)
        counted_at, counted = self._counted.get(key, (-math.inf, None))
        if counted is not None and time.monotonic() - counted_at < _COUNTED_FOR_S:
            return counted
        mark, *samples = MARKS
        rows, cut = await both(self._list(mark, where), self._list(CUT, where, most=1))
        if len(rows) < _LISTED:
            n = len(rows)
        else:
            of_samples = await gather_or_cancel([self._list(each, where) for each in samples])
            listed = list(zip(samples, of_samples, strict=True))
            mark, sample = next((one for one in listed if len(one[1]) < _LISTED), listed[-1])
            n = max(_LISTED, len(sample) * MARKS[mark])
            rows = sample or rows
        counted = Statistics(n, sum(row["n_words"] for row in rows) / max(1, len(rows)), mark, not cut)
        self._counted[key] = (time.monotonic(), counted)
        return counted

    async def _read(
        self, doc_ids: Sequence[str], wanted: int, residual: Filter | None
    ) -> tuple[dict[str, Row], int]:
        """Read documents with their words until so many match; return them, and how many were looked at."""
        columns = (*_READ, *(() if residual is None else judged_columns(residual)))
        found: dict[str, Row] = {}
        first = 0
        while first < len(doc_ids) and len(found) < wanted:
            some = doc_ids[first : first + wanted]
            rows = await self._reader.rows(some, columns)
            found |= {
                doc_id: row
                for doc_id, row in rows.items()
                if row["n_tokens"] and (residual is None or row_matches(residual, row))
            }
            first += len(some)
        return found, first

    async def _read_all(
        self, words: Sequence[str], where: Row | None, residual: Filter | None
    ) -> dict[str, Row]:
        """Read every document that has one of the words and matches."""
        columns = (*_READ, *(() if residual is None else judged_columns(residual)))
        found: dict[str, Row] = {}
        for word in words:
            match = {"words": {"$match": word}}
            pages = self._client.pages(
                self._tables.docs, columns, where={"$and": [where, match]} if where else match
            )
            found |= {
                row["doc_id"]: row
                async for page in pages
                for row in page
                if is_whole(row, columns)
                and row["n_tokens"]
                and (residual is None or row_matches(residual, row))
            }
        return found


class BM25:
    """BM25 as FTS5 computes it, from statistics of the collection and the words of a document.

    Args:
        statistics: of the collection.
        of_words: how many documents have each word.
        weights: how often the query has it.
    """

    def __init__(
        self, statistics: Statistics, of_words: Mapping[str, int], weights: Mapping[str, int]
    ) -> None:
        n = max(statistics.n, *of_words.values())
        self._mean = max(1.0, statistics.mean_words)
        self.idf = {
            word: weight * max(1e-6, math.log((n - of_words[word] + 0.5) / (of_words[word] + 0.5)))
            for word, weight in weights.items()
        }

    def of_all(self, rows: Mapping[str, Row]) -> dict[str, float]:
        """Return the BM25 of rows that have one of the words, by id."""
        scores = {doc_id: self.of(row) for doc_id, row in rows.items()}
        return {doc_id: score for doc_id, score in scores.items() if score > 0}

    def of(self, row: Row) -> float:
        """Return the BM25 of a row; 0 if it has none of the words."""
        there = Counter(frequencies(row.get("words") or ""))
        length = _K1 * (1 - _B + _B * (row.get("n_words") or 0) / self._mean)
        return sum(
            idf * there[word] * (_K1 + 1) / (there[word] + length)
            for word, idf in self.idf.items()
            if there[word]
        )


class _Proposed(NamedTuple):
    """What the service's lists propose.

    Attributes:
        doc_ids: the documents of the lists, those first that should score best.
        score: how their words are to be scored.
        common: words that more documents have than were listed.
        counted_all: whether the statistics are of all words of all documents, and not of a sample.
    """

    doc_ids: list[str]
    score: BM25
    common: list[str]
    counted_all: bool


def _shares(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """Return the documents of a list, each with what it should have of its word's weight by its place."""
    step = (1 - _LEAST_SHARE) / max(1, len(rows))
    return [(row["doc_id"], 1 - step * place) for place, row in enumerate(rows)]
