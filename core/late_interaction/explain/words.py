"""Words of a text of any script, as people read them."""

from __future__ import annotations

import bisect
import functools
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Span: TypeAlias = tuple[int, int]
"""Start and end of a word, in characters."""

_PARTS = re.compile(r"(?:[^_.]|(?<=\d)\.(?=\d))+")


class WordMatch(NamedTuple):
    """A word of a document that answers a query.

    Attributes:
        start: its first character.
        end: the character after its last.
        contribution: its part of the raw score.
    """

    start: int
    end: int
    contribution: float


def word_spans(text: str) -> list[Span]:
    """Return where the words of a text stand, without spaces and punctuation.

    They are those of ICU: by Unicode's rules (UAX #29), and by dictionaries in scripts that write no spaces between
    words, as Chinese, Japanese, Thai, Lao, Khmer and Burmese do. Names of code are taken apart at `_` and `.`.

    >>> text = "The ferry's fee: 3.14 in 港口"
    >>> [text[start:end] for start, end in word_spans(text)]
    ['The', "ferry's", 'fee', '3.14', 'in', '港口']
    """
    spans: list[Span] = []
    place = 0
    for piece in _breaker()(text, "en"):
        if any(map(str.isalnum, piece)):
            spans += [
                (place + part.start(), place + part.end())
                for part in _PARTS.finditer(piece)
                if any(map(str.isalnum, part[0]))
            ]
        place += len(piece)
    return spans


class Words:
    """The words of a text, and which of them a token belongs to.

    Args:
        text: the text.
    """

    def __init__(self, text: str) -> None:
        self.spans = word_spans(text)
        self._starts = [start for start, _ in self.spans]

    def of(self, token: Span) -> int | None:
        """Return the position of the word that has most of a token's characters, the first of equal ones, or None."""
        start, end = token
        best, most = None, 0
        first = max(0, bisect.bisect_right(self._starts, start) - 1)
        for position in range(first, len(self.spans)):
            word_start, word_end = self.spans[position]
            if word_start >= end:
                break
            if (shared := min(end, word_end) - max(start, word_start)) > most:
                best, most = position, shared
        return best


def marked(text: str, spans: Sequence[Span]) -> list[Span]:
    """Return spans joined where they touch, as neighbours in a script without spaces do."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and joined[-1][1] >= start:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


@functools.cache
def _breaker() -> Callable[[str, str], Iterable[str]]:
    from icu4py.breakers import WordBreaker

    return WordBreaker
