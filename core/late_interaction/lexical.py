"""Words, for search by words: what of a text an index of words gets, and what of a query it is asked for.

The index itself (SQLite's FTS5) cuts at spaces and punctuation, and takes Porter's stems. What it cannot do is done
here, alike for documents and queries:

- One form for each character: NFKC, which joins letters with their accents and narrows full-width letters; no case, no
  points of Arabic and Hebrew, no invisible joiners. The index takes the accents of Latin letters away. What people
  leave out besides when they type is taken away here: the accents of Greek, the dots of ё, the strokes of ł and ø, the
  dotless ı, the hamza of Arabic's alif, as Lucene's folding and its Arabic normalization do.
- Scripts that are written without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese), and Korean, whose words take
  endings, become overlapping pairs of characters, as in Lucene's CJK analyzer: 東京都 is the words 東京 and 京都. So a
  word of two characters is found, which an index of trigrams cannot do, and a text may mix scripts.

A query has no syntax: each of its words is quoted. English stop words are left out of it, unless it has no others.
Other languages' stop words stay: what is in many documents weighs little by BM25.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterator
from typing import TypeAlias

Span: TypeAlias = tuple[int, int]
"""Start and end of a word in a text, in characters."""

MOST_WORDS = 256
"""Words of a query that count, the first of them: each costs as much as the documents that have it."""

_ENGLISH = """
a about all also am an and any are as at be been being but by can could d did do does for from had has have he her his
how i if in into is it its l ll m may me more most my no not of on or our re s she should so such t than that the their
them then there these they this those to too us ve very was we were what when where which who whom whose why will with
would you your
"""
STOP_WORDS = frozenset(_ENGLISH.split())
"""English words that say nothing of what a query is about, and the pieces that apostrophes cut off."""

_PAIRED = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e50-\u0e59"  # Thai
    "\u0e81-\u0edf"  # Lao
    "\u1000-\u1049\u1050-\u109f"  # Burmese
    "\u1780-\u17d3\u17e0-\u17e9"  # Khmer
    "\u3005-\u3007\u3031-\u3035\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Japanese and Chinese
    "\u1100-\u11ff\u3131-\u318e\uac00-\ud7a3"  # Korean
)
_RUN = re.compile(f"[{_PAIRED}]+")
_INSIDE = "\u0300-\u036f\u00ad\u200c\u200d\u0591-\u05c7\u0610-\u0670\u0900-\u0dff"
"""Marks and joiners inside of words, which no `\\w` is; the scripts of India whole."""
_PIECE = re.compile(rf"[{_PAIRED}]+|(?:(?![{_PAIRED}])[^\W_]|[{_INSIDE}])+")
_DROPPED = re.compile(
    "[\u00ad\u200c\u200d\u2060\ufe00-\ufe0f\ufeff"  # soft hyphens, joiners, variants
    "\u0300-\u036f\u0591-\u05bd\u05bf-\u05c7\u0610-\u061a\u0640\u064b-\u065f\u0670]"  # marks and points
)

_LETTERS = "ёе łl øo đd ħh ŧt ıi æae œoe أا إا آا ٱا ةه ىي یي کك"
_SIMPLE = {ord(pair[0]): pair[1:] for pair in _LETTERS.split()} | {
    greek: unicodedata.normalize("NFD", chr(greek))[0]
    for greek in (*range(0x370, 0x400), *range(0x1F00, 0x2000))
    if chr(greek).isalpha()
}
"""A letter, and what it is to an index of words."""


def searchable(text: str) -> str:
    """Return what an index of words gets of a document's text.

    Each run of characters without spaces ends with its last character alone, so that a query of one character finds it
    by its prefix wherever it stands.

    >>> searchable("Ｃａｆｅ\u0301 in 東京都")
    'café in  東京 京都 都 '
    """
    return text if text.isascii() else _RUN.sub(lambda run: f" {_pairs(run[0])} {run[0][-1]} ", _plain(text))


def characters(text: str) -> list[str]:
    """Return the different characters of a text's runs without spaces, for an index that finds no word by its prefix.

    >>> characters("in 東京都, 京都")
    ['東', '京', '都']
    """
    return [] if text.isascii() else list(dict.fromkeys("".join(_RUN.findall(_plain(text)))))


def query_words(text: str) -> list[str]:
    """Return the words that a query asks for, in its order; one that comes several times weighs more.

    >>> query_words("What is the capital of 日本?")
    ['capital', '日本']
    >>> query_words("To be, or not to be")
    ['to', 'be', 'or', 'not', 'to', 'be']
    """
    words = list(_words(text))
    return [word for word in words if word not in STOP_WORDS] or words


def _words(text: str) -> Iterator[str]:
    spread = _RUN.sub(lambda run: f" {_pairs(run[0]) or run[0]} ", _plain(text))
    yield from "".join(character if _is_of_word(character) else " " for character in spread).split()


def text_words(text: str) -> Iterator[tuple[Span, str]]:
    """Yield the words of a text as an index has them, each with its place; pairs of characters overlap.

    >>> list(text_words("Go to 東京都"))
    [((0, 2), 'go'), ((3, 5), 'to'), ((6, 8), '東京'), ((7, 9), '京都')]
    """
    for run in _PIECE.finditer(text):
        word = run[0]
        if _RUN.match(word):
            for start in range(max(1, len(word) - 1)):
                yield (
                    (run.start() + start, min(run.end(), run.start() + start + 2)),
                    _plain(word[start : start + 2]),
                )
        else:
            yield run.span(), _plain(word)


def query_terms(text: str) -> list[str]:
    """Return what few documents may have of a query: what it writes as one, words in a row, and its words.

    A code may be rare though each of its parts is not. A single character of a script without spaces is no term.

    >>> query_terms("What is the AB-1234 used for?")
    ['ab 1234', 'ab', '1234', 'used']
    """
    words = [word for word in query_words(text)[:MOST_WORDS] if not is_prefix(word)]
    pieces = [list(_words(piece)) for piece in _RUN.sub(" ", _plain(text)).split()]
    written_as_one = (" ".join(piece) for piece in pieces if len(set(piece) - STOP_WORDS) > 1)
    return list(dict.fromkeys([*itertools.islice(written_as_one, MOST_WORDS), *words]))


def is_prefix(word: str) -> bool:
    """Return whether a query's word, a single character of a script without spaces, stands for all that begin so."""
    return len(word) == 1 and _RUN.match(word) is not None


def _plain(text: str) -> str:
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return _DROPPED.sub("", plain).translate(_SIMPLE)


def _pairs(run: str) -> str:
    return " ".join(run[i : i + 2] for i in range(len(run) - 1))


def _is_of_word(character: str) -> bool:
    """Return whether a character is a letter, a mark or a digit to the index as well: `fts5`'s option `categories`."""
    return (
        character.isalnum()
        or unicodedata.category(character)[0] in "LMN"
        or "\ue000" <= character <= "\uf8ff"
    )
