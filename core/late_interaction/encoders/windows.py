"""A text longer than the model reads, cut into windows that overlap a little.

Each window is encoded like a text of its own, as the model was trained to read. A token that lies in two windows is
kept once, from the window in which it has more text around it. The vectors of all windows together are the document's.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from late_interaction.sentences import last_boundary, sentence_ends

LongDocuments: TypeAlias = Literal["windows", "truncate", "error"]
Span: TypeAlias = tuple[int, int]
"""Start and end in characters. The span of a token that is not of the text, such as a marker, is empty."""

MAX_DOCUMENT_TOKENS = 16_384
_OVERLAP = 1 / 8
_EARLIEST_END = 1 / 2
CHARACTERS_AHEAD = 8
"""How many characters for each token of a window are read at first."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a text that is encoded at once.

    Attributes:
        start, end: the part, in characters of the text.
        keep_from, keep_to: the tokens that begin here are kept from this window; those outside from its neighbours.
    """

    start: int
    end: int
    keep_from: int
    keep_to: int

    def keeps(self, span: Span) -> bool:
        """Tell whether a token is kept, by its span in this window; one that is not of the text always is."""
        start, end = span
        return start == end or self.keep_from <= self.start + start < self.keep_to


def cut_windows(
    text: str, token_spans: Callable[[str], Sequence[Span]], limit: int, max_tokens: int = MAX_DOCUMENT_TOKENS
) -> list[Window]:
    """Cut a text into windows, at sentence ends where there are any, else at word ends.

    Args:
        text: the text.
        token_spans: gives the spans of all tokens that the model would read of a text, untruncated and with those
            that are added to every text.
        limit: most tokens of a window, those added to every text included.
        max_tokens: most tokens of the text that are kept. What is behind them is in no window.

    Returns:
        At least one window, in the order of the text. Where the text fits in one, it is the whole text.
    """
    windows: list[Window] = []
    start = keep_from = n_kept = 0
    while True:
        ahead_end, spans = _look_ahead(text, start, token_spans, limit)
        tokens = [span for span in spans if span[0] < span[1]]
        n_added = len(spans) - len(tokens)
        n_overlap = bisect.bisect_left(tokens, keep_from - start, key=_start)
        room = max(1, limit - n_added)
        # A text that fits is never cut, whatever `max_tokens` is.
        is_last = bool(windows) and n_kept + room - n_overlap >= max_tokens
        if is_last:
            room = n_overlap + max_tokens - n_kept
        if len(tokens) <= room and ahead_end == len(text):
            windows.append(Window(start, len(text), keep_from, len(text)))
            return windows
        end, tokens = _fit(text, start, tokens, room, limit, token_spans)
        if end == len(text) or is_last:
            windows.append(Window(start, end, keep_from, end))
            return windows
        following = _next_start(text, start, end, tokens, limit)
        first_shared = bisect.bisect_left(tokens, following - start, key=_start)
        middle = (first_shared + len(tokens)) // 2
        keep_to = start + tokens[middle][0] if middle < len(tokens) else end
        windows.append(Window(start, end, keep_from, keep_to))
        n_kept += middle - n_overlap
        if n_kept >= max_tokens:
            return windows
        start, keep_from = following, keep_to


def _start(span: Span) -> int:
    return span[0]


def _look_ahead(
    text: str, start: int, token_spans: Callable[[str], Sequence[Span]], limit: int
) -> tuple[int, Sequence[Span]]:
    """Tokenize enough of the text to fill a window, and not all of a long one.

    Returns:
        The end of the part, and the spans of its tokens: more than `limit`, or the part ends where the text does.
    """
    n_characters = CHARACTERS_AHEAD * limit
    while True:
        end = min(len(text), start + n_characters)
        spans = token_spans(text[start:end])
        if len(spans) > limit or end == len(text):
            return end, spans
        n_characters *= 4


def _fit(
    text: str,
    start: int,
    tokens: Sequence[Span],
    room: int,
    limit: int,
    token_spans: Callable[[str], Sequence[Span]],
) -> tuple[int, list[Span]]:
    """Choose where a window ends so that no more than `room` tokens of the text are in it.

    Returns:
        The end, and the spans of the window's own tokens from its start: a cut can change how a word is split.
    """
    while True:
        latest = start + (tokens[room][0] if room < len(tokens) else tokens[-1][1])
        earliest = start + max(1, tokens[int(room * _EARLIEST_END)][0])
        end = latest if latest <= earliest else last_boundary(text, earliest, min(latest, len(text) - 1))
        spans = token_spans(text[start:end])
        if len(spans) <= limit or room == 1:
            return end, [span for span in spans if span[0] < span[1]]
        room = max(1, room - (len(spans) - limit))


def _next_start(text: str, start: int, end: int, tokens: Sequence[Span], limit: int) -> int:
    """Choose where the next window begins: some tokens before the end of this one, at a sentence if there is one."""
    overlap = min(int(limit * _OVERLAP), len(tokens) // 4)
    if overlap < 1:
        return end
    wanted = start + tokens[-overlap][0]
    earliest = start + tokens[-2 * overlap][0]
    sentences = [place for place in sentence_ends(text, earliest, end) if place < end]
    if sentences:
        return min(sentences, key=lambda place: abs(place - wanted))
    return last_boundary(text, earliest, wanted) if earliest < wanted else wanted
