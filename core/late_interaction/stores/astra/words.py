"""What the service's text index gets of a document: its words, as an index in a folder has them, and marks to count by.

The engine's own analyzers know English or spaces, not both, and none of them Chinese. So the words come from here
(`stems`), and the text index cuts at spaces only. It finds no word by its beginning, and so each character of a text
without spaces is a word too.

The words of a cell may take 8 KiB together, or the service refuses the row. Where a document's take more, each is there
once, and of those as many as fit, the first of them; `words_of` tells which documents do not fit.

The service tells neither how many documents there are nor how many have a word. So each has marks: `#0` has every
document, blank ones too, `#5`, `#10` and `#15` one in 2^5, 2^10 and 2^15, drawn by its id. What has the first mark of
less than a thousand documents is a sample that can be counted, alone and together with a word.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from late_interaction.lexical import characters, query_words, searchable
from late_interaction.stems import stems
from late_interaction.stores.astra.client import Row
from late_interaction.types import Document

WORDS_VERSION = 1
"""Counts the ways in which texts became the cells of this column."""
WORDS_BYTES = 8000
"""Bytes of a document's words; 8,192 with the marks, spaces not counted, is what the engine takes."""
MARKS = {f"#{bits}": 1 << bits for bits in (0, 5, 10, 15)}
"""Each mark, and one in how many documents has it. No word has a `#` in it."""
CUT = "#cut"
"""The mark of a document that has each word once, or not all of them: its BM25 is not known."""
_LONGEST_WORD = 100
"""Characters of a word; the engine would cut one after 255 of its own characters, of which some are two."""
MOST_WORDS = 32
"""Different words of a query that count, the first of them: each is a request."""


def words_of(documents: Sequence[Document]) -> tuple[list[Row], list[str]]:
    """Return each document's cells `words` and `n_words`, and the ids of those that have more words than fit."""
    found = stems([searchable(document.content) for document in documents])
    cells, shortened = [], []
    for document, words in zip(documents, found, strict=True):
        single = characters(document.content)
        text, has_all, is_whole = _cell([word[:_LONGEST_WORD] for word in words], single)
        if not has_all:
            shortened.append(document.doc_id)
        marks = [*_marks(document.doc_id), *([] if is_whole else [CUT])]
        cells.append({"words": " ".join([*marks, *text]), "n_words": len(words)})
    return cells, shortened


def query_stems(text: str) -> list[str]:
    """Return the words that a query asks for, as they stand in the cells; repeated ones are repeated."""
    (words,) = stems([" ".join(query_words(text))])
    return [word[:_LONGEST_WORD] for word in words]


def frequencies(cell: str) -> list[str]:
    """Return the words of a cell, without marks."""
    return [word for word in cell.split() if not word.startswith("#")]


def _cell(words: list[str], single: list[str]) -> tuple[list[str], bool, bool]:
    """Return the words that fit, whether none is missing, and whether each is there as often as in the text."""
    once = dict.fromkeys([*words, *single])
    whole = [*words, *(each for each in single if each not in set(words))]
    if _size(whole) <= WORDS_BYTES:
        return whole, True, True
    kept: list[str] = []
    size = 0
    for word in once:
        size += len(word.encode())
        if size > WORDS_BYTES:
            return kept, False, False
        kept.append(word)
    return kept, True, False


def _size(words: Sequence[str]) -> int:
    return sum(len(word.encode()) for word in words)


def _marks(doc_id: str) -> list[str]:
    drawn = int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest())
    return [mark for mark, of in MARKS.items() if drawn % of == 0]
