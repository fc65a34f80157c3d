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

    def of(self, token: Span) -> dict[int, float]:
        """Return the words that a token stands for, by position: each one's share of its characters, 1 in all.

        It is one word but for tokens of several, such as the one token of a whole sentence in a script that the
        tokenizer does not know; and none for punctuation.
        """
        start, end = token
        shared: dict[int, int] = {}
        for position in range(max(0, bisect.bisect_right(self._starts, start) - 1), len(self.spans)):
            word_start, word_end = self.spans[position]
            if word_start >= end:
                break
            if (characters := min(end, word_end) - max(start, word_start)) > 0:
                shared[position] = characters
        total = sum(shared.values())
        return {position: characters / total for position, characters in shared.items()}


def shades(contributions: Sequence[float]) -> list[float]:
    """Return how much of the largest contribution each one is, from 0 to 1."""
    largest = max(contributions, default=0.0)
    return [max(0.0, contribution / largest) if largest > 0 else 0.0 for contribution in contributions]


@functools.cache
def _breaker() -> Callable[[str, str], Iterable[str]]:
    from icu4py.breakers import WordBreaker

    return WordBreaker
