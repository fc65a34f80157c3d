"""Cut a text into passages of whole paragraphs, as it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Line: TypeAlias = tuple[int, str]
"""Number and text of a line, or of a passage's first line and the passage."""

_HEADING = re.compile(r"#{1,6}\s")
_FENCE = re.compile(r"\s*(```|~~~)")
_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\Z)", re.DOTALL)


def passages(lines: Iterable[Line], max_words: int, *, markdown: bool) -> Iterator[Line]:
    """Cut a text into passages of whole paragraphs, of at most `max_words` words as far as that goes.

    A Markdown heading begins a passage and stays with what follows it. A paragraph that is too long is cut
    between sentences, and a sentence that is too long between words.

    Args:
        lines: number and text of each line, newline included.
        max_words: words per passage; a heading comes on top.
        markdown: whether `#` lines outside code fences are headings.

    Yields:
        The number of a passage's first line, and its text.
    """
    passage, first_line, words, has_body = "", 0, 0, False
    for line, text, is_heading in _paragraphs(lines, max_words, markdown=markdown):
        for piece_line, piece in _pieces(line, text, max_words):
            n_words = len(piece.split())
            if has_body and (is_heading or words + n_words > max_words):
                yield first_line, passage.strip()
                passage, words, has_body = "", 0, False
            if not passage:
                first_line = piece_line
            passage += piece
            if not is_heading:
                words, has_body = words + n_words, True
    if passage:
        yield first_line, passage.strip()


def _paragraphs(lines: Iterable[Line], max_words: int, *, markdown: bool) -> Iterator[tuple[int, str, bool]]:
    """Yield first line, text with the blank lines behind it, and whether it is a heading, of each paragraph.

    A paragraph that grows past `max_words` is handed on in parts, so that a file without a blank line does
    not fill the memory.
    """
    paragraph, first_line, words = "", 0, 0
    ended = fenced = is_heading = False
    for line, text in lines:
        if not text.strip():
            paragraph += text if paragraph else ""
            ended = True
            continue
        begins_heading = markdown and not fenced and _HEADING.match(text) is not None
        if paragraph and (ended or is_heading or begins_heading or words >= max_words):
            yield first_line, paragraph, is_heading
            paragraph, words = "", 0
        if not paragraph:
            first_line, is_heading = line, begins_heading
        fenced ^= markdown and _FENCE.match(text) is not None
        ended = False
        paragraph += text
        words += len(text.split())
    if paragraph:
        yield first_line, paragraph, is_heading


def _pieces(line: int, text: str, max_words: int) -> Iterator[Line]:
    """Yield the text itself where it is short enough, else its sentences, else its words; nothing is lost."""
    if len(text.split()) <= max_words:
        yield line, text
        return
    for sentence in _SENTENCE.findall(text):
        for piece in re.findall(rf"(?:\S+\s*){{1,{max_words}}}", sentence):
            yield line, piece
            line += piece.count("\n")
