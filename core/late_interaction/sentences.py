"""Where a text of any script may be cut: behind a sentence, a line, a word, or between two graphemes.

Sentence ends follow Unicode's properties (UAX #29, `Sentence_Break`), so that 。, । and ۔ end a sentence as a full
stop does. The `regex` package has these properties; the standard library's `re` does not.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_SENTENCE_END = r"""(?x)
    (?: [.!?…]+ \p{SB=Close}* \s+              # a full stop counts before white space only: 3.14, file.txt
      | [\p{SB=STerm}--[!?]]+ \p{SB=Close}* \s* # scripts that write no space behind a sentence
      | \n [^\S\n]* \n \s* )                    # a blank line
"""
_LONGEST_GRAPHEME = 64


def sentence_ends(text: str, start: int = 0, end: int | None = None) -> Iterator[int]:
    """Give the positions behind each sentence of `text[start:end]`, with the white space that follows it.

    The end of the text itself is not among them.
    """
    end = len(text) if end is None else end
    for match in _pattern().finditer(text, start, end):
        if match.end() < end:
            yield match.end()


def last_boundary(text: str, start: int, end: int) -> int:
    """Find the best place to cut a text, as late as possible.

    Args:
        text: the text.
        start: the earliest position that may be given.
        end: the latest one, `start < end < len(text)`.

    Returns:
        The last sentence end, else the last line end, else the last word end that is separated by white space, else
        the last position that tears no character from its marks.
    """
    found = max(
        (place for place in sentence_ends(text, start, min(len(text), end + 1)) if place <= end), default=0
    )
    if found > start:
        return found
    for separated in (text.rfind("\n", start, end), _last_space(text, start, end)):
        if separated >= start:
            return separated + 1
    # From `start`, or from near the end of a long text.
    begin = max(start, end - _LONGEST_GRAPHEME)
    whole = [
        match.end() for match in _graphemes().finditer(text, begin, min(len(text), end + _LONGEST_GRAPHEME))
    ]
    return max((place for place in whole if start < place <= end), default=end)


def _last_space(text: str, start: int, end: int) -> int:
    return next((place for place in range(end - 1, start - 1, -1) if text[place].isspace()), -1)


@functools.cache
def _pattern() -> Any:
    import regex

    return regex.compile(_SENTENCE_END, regex.VERSION1)


@functools.cache
def _graphemes() -> Any:
    import regex

    return regex.compile(r"\X")
