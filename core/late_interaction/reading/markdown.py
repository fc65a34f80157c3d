"""Markdown as sections and blocks, by markdown-it-py: headings of both kinds, fences of any form, lists, tables."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from markdown_it.token import Token

_FRONT_MATTER = re.compile(r"\A---\n(?:.*\n)*?(?:---|\.\.\.)\n")
_IN_LINES = ("fence", "code_block", "html_block")


Path: TypeAlias = tuple[tuple[int, str], ...]
"""Headings above each other, the outermost first, each with its level."""


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, list, table, or piece of code.

    Attributes:
        text: as it stands in the source.
        line: number of its first line.
        cuts: where it is best cut if it is too long, in characters of the text: between rows, items or lines.
        header: the rows above all others, of a table, which each part of it repeats.
    """

    text: str
    line: int
    cuts: tuple[int, ...] = ()
    header: str = ""


@dataclass(slots=True)
class Section:
    """What stands below a heading, up to the next one.

    Attributes:
        line: number of its first line.
        path: the headings above it; the last one is its own.
        blocks: what it holds.
    """

    line: int
    path: Path = ()
    blocks: list[Block] = field(default_factory=list)


def plain_section(text: str, *, in_lines: bool = False) -> Section:
    """Return the paragraphs of a text without markup, which blank lines set apart; they may be cut between lines."""
    section, line = Section(1), 1
    for part in re.split(r"(\n(?:[^\S\n]*\n)+)", text):
        if part.strip():
            leading = part[: len(part) - len(part.lstrip())]
            block = part.lstrip("\n")
            section.blocks.append(
                Block(block, line + leading.count("\n"), _line_starts(block) if in_lines else ())
            )
        line += part.count("\n")
    return section


def markdown_sections(text: str) -> Iterator[Section]:
    """Yield the sections of a Markdown text whose line ends are newlines."""
    from markdown_it import MarkdownIt

    section = Section(1)
    if front_matter := _FRONT_MATTER.match(text):
        section.blocks.append(_in_lines(front_matter[0], 1))
        # As many lines as before, so that the numbers stay.
        text = "\n" * front_matter[0].count("\n") + text[front_matter.end() :]
    lines = text.split("\n")
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    read_to = 0
    for position, token in enumerate(tokens):
        if token.level or token.map is None:
            continue
        # What no token stands for, such as the definition of a link.
        section.blocks += _unparsed(lines, read_to, token.map[0])
        read_to = token.map[1]
        if token.type != "heading_open":
            section.blocks.append(_block(tokens, position, lines))
            continue
        if section.blocks or section.path:
            yield section
        level, title = int(token.tag[1:]), " ".join(tokens[position + 1].content.split())
        above = tuple(heading for heading in section.path if heading[0] < level)
        section = Section(token.map[0] + 1, (*above, (level, title)))
    section.blocks += _unparsed(lines, read_to, len(lines))
    if section.blocks or section.path:
        yield section


def _unparsed(lines: list[str], first: int, end: int) -> list[Block]:
    text = "\n".join(lines[first:end])
    line = first + 1 + text[: len(text) - len(text.lstrip())].count("\n")
    return [Block(text.strip(), line)] if text.strip() else []


def _block(tokens: list[Token], position: int, lines: list[str]) -> Block:
    token = tokens[position]
    first, end = token.map or (0, 0)
    text = "\n".join(lines[first:end]).rstrip()
    if token.type in _IN_LINES:
        return _in_lines(text, first + 1)
    if token.type == "table_open":
        table = text.split("\n")
        header = "\n".join(table[:2]) + "\n"
        return Block(text, first + 1, _line_starts(text)[1:], header)
    if token.nesting == 1:
        starts = [
            inner.map[0] - first
            for inner in _inside(tokens, position)
            if inner.level == token.level + 1 and inner.map is not None and inner.map[0] > first
        ]
        at_line = (0, *_line_starts(text))
        return Block(text, first + 1, tuple(at_line[start] for start in starts if start < len(at_line)))
    return Block(text, first + 1)


def _inside(tokens: list[Token], position: int) -> Iterator[Token]:
    """Yield the tokens between one that opens and the one that closes it."""
    level = tokens[position].level
    for token in tokens[position + 1 :]:
        if token.level <= level:
            return
        yield token


def _in_lines(text: str, line: int) -> Block:
    text = text.rstrip()
    return Block(text, line, _line_starts(text))


def _line_starts(text: str) -> tuple[int, ...]:
    """Return the positions behind each newline."""
    return tuple(match.end() for match in re.finditer("\n", text))
