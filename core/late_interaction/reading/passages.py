"""Cut a text into passages that a model reads whole: by its own tokens, at the ends of paragraphs, sentences, words.

What is cut where is decided by libraries that know: markdown-it-py parses Markdown (rich needs it too), `regex` knows
the sentence ends of all scripts, and semantic-text-splitter cuts what has none: its ICU segmenter has dictionaries for
scripts that write no spaces (Thai, Lao, Khmer, Burmese, Chinese, Japanese), and it tears no character from its marks.
semchunk and chonkie were looked at: semchunk splits at white space and a list of western marks, chonkie at delimiters
that one has to name, and both fall back to single characters in a Thai or Lao text. Tables with their header repeated,
headings, and sentences as overlap are in none of them, and are here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any

from late_interaction.reading.markdown import Block, Path, Section, markdown_sections, plain_section
from late_interaction.sentences import sentence_ends
from late_interaction.validation import check_positive

if TYPE_CHECKING:
    from late_interaction.encoders.base import LateInteractionModel

DEFAULT_TOKENS = 300
_CHARACTERS_PER_TOKEN = 16
"""A passage has at most so many for each token: some vocabularies have one token for a word of any length."""

_STRETCH = 2048
_HEADINGS_SHARE = 1 / 3
_ESTIMATED = re.compile(r"[a-zA-Z]{1,3}|[^\W\da-zA-Z]|\d|[^\w\s]|_")


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a text that a model reads whole.

    Attributes:
        text: what to encode, below the headings above it where they are asked for.
        line: the number of its first line in the text.
        heading: the titles of the headings above it, " > " between them; "" where there are none.
    """

    text: str
    line: int
    heading: str = ""


def passages(
    text: str,
    *,
    model: LateInteractionModel | None = None,
    max_tokens: int | None = None,
    overlap: int = 0,
    markdown: bool = False,
    code: bool = False,
    headings: bool = True,
) -> Iterator[Passage]:
    r"""Cut a text into passages that a model reads whole.

    A passage is made of whole paragraphs where they fit, else of whole sentences, else of whole words. In Markdown a
    heading begins one, code is cut between lines, a list between items, and a table between rows, with its header
    repeated. A word that is longer than a passage is cut too.

    Args:
        text: the text, in any script.
        model: counts its own tokens. Without one they are estimated, rather too many than too few.
        max_tokens: most tokens of a passage, those that the model adds to every text included. By default 300, or as
            many as the model reads at once, if those are fewer.
        overlap: so many sentences at the end of a passage are repeated at the beginning of the next one, as far as
            they fit, unless a heading is between them.
        markdown: the text is Markdown.
        code: the text is source code, which is cut between lines.
        headings: put the headings above a passage into its text, as far as they fit into a third of it.

    Yields:
        The passages in the order of the text. No word of it is left out.

    Raises:
        ValueError: `max_tokens` is more than the model reads at once, or leaves no room for text.
        ModelError: the model does not count tokens.

    Example:
        >>> from late_interaction import passages
        >>> text = "# Boats\n\nA ferry crosses.\n\n## Sails\n\nThe wind drives them."
        >>> [(passage.heading, passage.line) for passage in passages(text, markdown=True)]
        [('Boats', 1), ('Boats > Sails', 5)]
    """
    if overlap < 0:
        raise ValueError(f"overlap must not be negative, as {overlap} is.")
    measure = _Measure(model, max_tokens)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    sections = list(markdown_sections(text)) if markdown else [plain_section(text, in_lines=code)]
    carried: list[Section] = []  # Headings without a text of their own, before the next section.
    for section, following in zip_longest(sections, sections[1:]):
        is_above_next = (
            following is not None
            and following.path[:-1] == section.path
            and _heading_lines(section.path[-1:]) in measure.headings(following.path)[0].split("\n")
        )
        if not section.blocks and (is_above_next if headings else following is not None):
            carried.append(section)
            continue
        line = (carried or [section])[0].line if section.path else None
        above, within = measure.headings(section.path) if headings else ("", section.path[-1:])
        if not headings:
            within = (*(one.path[-1] for one in carried if one.path), *within)
        blocks = _below(_heading_lines(within), section)
        carried = []
        heading = " > ".join(title for _, title in section.path)
        if blocks:
            yield from _packed(blocks, measure, overlap, above, heading, line)
        elif above:
            yield Passage(above, section.line, heading)


# --- sizes


class _Measure:
    """Counts tokens, and cuts at words what has no better place to be cut.

    Attributes:
        room: most tokens of a passage's text.
    """

    def __init__(self, model: LateInteractionModel | None, max_tokens: int | None) -> None:
        reads = None if model is None else model.document_length
        if max_tokens is None:
            max_tokens = DEFAULT_TOKENS if reads is None else min(DEFAULT_TOKENS, reads)
        check_positive("max_tokens", max_tokens)
        if reads is not None and max_tokens > reads:
            raise ValueError(
                f"max_tokens is {max_tokens}, and {model.model_name if model else ''} reads {reads} at once."
            )
        self._count: Callable[[Sequence[str]], list[int]] = (
            _estimated if model is None else model.count_tokens
        )
        self._added = 0 if model is None else self._count(["a"])[0] - 1
        self.room = max_tokens - self._added
        if self.room < 1:
            raise ValueError(
                f"max_tokens is {max_tokens}, and {self._added} are added to every text: nothing is left."
            )
        self._splitters: dict[int, Any] = {}

    def sizes(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, without those that are added to every one.

        A text of more than 16 characters for each token of a passage is not tokenized: it does not fit.
        """
        longest = self.room * _CHARACTERS_PER_TOKEN
        counted = iter(self._count([text for text in texts if len(text) <= longest]))
        return [
            max(0, next(counted) - self._added)
            if len(text) <= longest
            else max(self.room + 1, len(text) // _CHARACTERS_PER_TOKEN)
            for text in texts
        ]

    def size(self, text: str) -> int:
        """Count the tokens of one text."""
        return self.sizes([text])[0]

    def headings(self, path: Path) -> tuple[str, Path]:
        """Choose what stands above each passage: the innermost headings that fit into a third of it.

        Returns:
            Their lines, and the last heading where it does not fit, which is then text like any other.
        """
        most = max(1, int(self.room * _HEADINGS_SHARE))
        if path and self.size(_heading_lines(path[-1:])) > most:
            return self.headings(path[:-1])[0], path[-1:]
        fitting = (
            path[first:] for first in range(len(path)) if self.size(_heading_lines(path[first:])) <= most
        )
        return _heading_lines(next(fitting, ())), ()

    def cut_at_words(self, text: str, room: int) -> list[str]:
        """Cut a text at the ends of lines, words or characters into parts that have room; nothing is lost."""
        # The splitter takes quadratic time where it finds no place to cut, so it gets a stretch of the text at a time.
        # The last part of one may end inside a word: it begins the next one.
        start, length = 0, max(_STRETCH, 6 * room)
        parts: list[str] = []
        while start < len(text):
            found: list[str] = self._splitter(room).chunks(text[start : start + length])
            if start + length >= len(text):
                return parts + found
            if len(found) == 1:
                length *= 2
                continue
            parts += found[:-1]
            start += sum(map(len, found[:-1]))
        return parts

    def _splitter(self, room: int) -> Any:
        splitter = self._splitters.get(room)
        if splitter is None:
            from semantic_text_splitter import TextSplitter

            splitter = TextSplitter.from_callback(self.size, room, trim=False)
            self._splitters[room] = splitter
        return splitter


def _estimated(texts: Sequence[str]) -> list[int]:
    """About as many tokens as a vocabulary for English makes of each text, or some more."""
    return [len(_ESTIMATED.findall(text)) for text in texts]


# --- cutting


@dataclass(frozen=True, slots=True)
class _Piece:
    """What goes into a passage as a whole.

    Attributes:
        text: the text, with the white space behind it where more of its block follows.
        line: number of its first line.
        size: its tokens.
        begins: it is the first of its block, or a part of a table that has a header of its own.
        is_whole: it is all of its block.
    """

    text: str
    line: int
    size: int
    begins: bool = False
    is_whole: bool = False


def _pieces(block: Block, measure: _Measure, room: int) -> Iterator[_Piece]:
    """Yield a block as a whole if it has room, else its rows, items, lines or sentences, and words if need be."""
    if (size := measure.size(block.text)) <= room:
        yield _Piece(block.text, block.line, size, begins=True, is_whole=True)
        return
    if block.header and measure.size(block.header) <= room / 2:
        yield from _table_parts(block, measure, room)
        return
    parts = _split(block.text, block.cuts) if block.cuts else _sentences(block.text)
    offset = 0
    for part, size in zip(parts, measure.sizes(parts), strict=True):
        for text in [part] if size <= room else _cut_further(part, measure, room, is_prose=not block.cuts):
            line = block.line + block.text.count("\n", 0, offset)
            yield _Piece(text, line, size if text is part else measure.size(text), begins=offset == 0)
            offset += len(text)


def _cut_further(part: str, measure: _Measure, room: int, *, is_prose: bool) -> Iterator[str]:
    if is_prose:
        yield from measure.cut_at_words(part, room)
        return
    sentences = _sentences(part)
    for sentence, size in zip(sentences, measure.sizes(sentences), strict=True):
        yield from [sentence] if size <= room else measure.cut_at_words(sentence, room)


def _table_parts(block: Block, measure: _Measure, room: int) -> Iterator[_Piece]:
    """Yield as many rows at a time as have room below the header, which each part repeats."""
    room -= measure.size(block.header)
    _, *rows = _split(block.text, block.cuts)
    sizes = measure.sizes(rows)
    line, at = block.line, block.line + 2
    part, part_size = "", 0
    for row, size in zip(rows, sizes, strict=True):
        for text in [row] if size <= room else measure.cut_at_words(row, room):
            text_size = size if text is row else measure.size(text)
            if part and part_size + text_size > room:
                yield _Piece(
                    block.header + part.rstrip(), line, measure.size(block.header + part), begins=True
                )
                line, part, part_size = at, "", 0
            part, part_size = part + text, part_size + text_size
        at += 1
    yield _Piece(block.header + part.rstrip(), line, measure.size(block.header + part), begins=True)


def _split(text: str, cuts: Sequence[int]) -> list[str]:
    ends = [0, *cuts, len(text)]
    return [text[start:end] for start, end in pairwise(ends) if start < end]


def _sentences(text: str) -> list[str]:
    return _split(text, list(sentence_ends(text)))


# --- putting together


def _below(headings: str, section: Section) -> list[Block]:
    """Return the blocks of a section below headings that are text like any other."""
    if not headings:
        return section.blocks
    # The last heading keeps the number of its line: those above it are blank lines apart, which are left out.
    alone = Block(headings, max(1, section.line - headings.count("\n")))
    if not section.blocks:
        return [alone]
    first, *others = section.blocks
    if first.cuts:
        return [alone, first, *others]
    between = min(2, max(1, first.line - section.line))
    # So that what follows the headings keeps the number of its line.
    line = max(1, first.line - between - headings.count("\n"))
    return [Block(f"{headings}{chr(10) * between}{first.text}", line), *others]


def _packed(
    blocks: Sequence[Block], measure: _Measure, overlap: int, above: str, heading: str, line: int | None
) -> Iterator[Passage]:
    """Yield the passages of blocks that belong together, each below the lines `above`.

    The first one begins at `line`, where that is given.
    """
    room = max(1, measure.room - measure.size(above and f"{above}\n\n"))
    joint = measure.size("\n\n")
    pieces: list[_Piece] = []

    def emit() -> Iterator[Passage]:
        for some in _that_fit(above, pieces, measure):
            yield Passage(_joined(above, some), some[0].line if line is None else line, heading)

    for block in blocks:
        for piece in _pieces(block, measure, room):
            size = sum(one.size + joint for one in pieces) + piece.size
            if pieces and size > room:
                yield from emit()
                line = None
                pieces = _repeated(pieces, overlap, room - piece.size - joint, measure)
            pieces.append(piece)
    yield from emit()


def _that_fit(above: str, pieces: list[_Piece], measure: _Measure) -> Iterator[list[_Piece]]:
    """Yield the pieces together if they fit, as they do but for oddities of a vocabulary, else in parts."""
    if measure.size(_joined(above, pieces)) <= measure.room:
        yield pieces
    elif len(pieces) > 1:
        middle = len(pieces) // 2
        yield from _that_fit(above, pieces[:middle], measure)
        yield from _that_fit(above, pieces[middle:], measure)
    else:
        (piece,) = pieces
        room = max(1, measure.room - measure.size(f"{above}\n\n"))
        for text in measure.cut_at_words(piece.text, room):
            yield [replace(piece, text=text)]


def _repeated(pieces: list[_Piece], n: int, room: int, measure: _Measure) -> list[_Piece]:
    """Return the last `n` sentences of a passage, fewer where they have no room, and never all of it."""
    if n == 0:
        return []
    sentences = [
        replace(
            piece,
            text=text,
            line=piece.line + piece.text.count("\n", 0, offset),
            begins=piece.begins and not offset,
        )
        for piece in pieces
        for offset, text in _with_offsets(_sentences(piece.text))
    ][1:][-n:]
    sized = [
        replace(sentence, size=size, is_whole=False)
        for sentence, size in zip(sentences, measure.sizes([one.text for one in sentences]), strict=True)
    ]
    while sized and sum(one.size for one in sized) > room:
        del sized[0]
    return sized


def _with_offsets(texts: Sequence[str]) -> Iterator[tuple[int, str]]:
    offset = 0
    for text in texts:
        yield offset, text
        offset += len(text)


def _joined(above: str, pieces: Sequence[_Piece]) -> str:
    text = ""
    for piece in pieces:
        text = f"{text.rstrip()}\n\n{piece.text}" if text and piece.begins else text + piece.text
    text = text.strip("\n").rstrip()
    return f"{above}\n\n{text}" if above and text else above or text


def _heading_lines(path: Path) -> str:
    return "\n".join(f"{'#' * level} {title}".rstrip() for level, title in path)
