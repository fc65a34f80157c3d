"""An explanation on a terminal: the text with the words that answered, and a table of who answered whom."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from late_interaction.explain.words import shades
from late_interaction.printable import printable

if TYPE_CHECKING:
    from late_interaction.explain.explanation import Explanation

_STYLES = ("yellow", "bold yellow", "bold black on yellow")
_AROUND = 160
_ANSWERS = 4


def rendered(explanation: Explanation) -> RenderableType:
    """Return what a console of rich prints."""
    title = Text(printable(explanation.query or "(no text)"), style="bold")
    parts: list[RenderableType] = [
        Text.assemble(title, f"  →  {printable(explanation.doc_id)}, MaxSim {explanation.score:.4f}")
    ]
    if explanation.lexical is not None:
        found = dict.fromkeys(word.text for word in explanation.words if word.lexical)
        by = f", found by {printable(', '.join(found))} (underlined)" if found else ""
        parts.append(Text(f"lexical: {explanation.lexical:.4f}{by}"))
    parts += [_text(explanation), _table(explanation)]
    parts += [Text(printable(note), style="italic") for note in explanation.notes]
    return Group(*parts)


def plain(explanation: Explanation) -> str:
    """Return the same without colours; words that answered stand in brackets."""
    console = Console(
        file=io.StringIO(), width=100, color_system=None, markup=False, emoji=False, highlight=False
    )
    with console.capture() as capture:
        console.print(rendered(explanation))
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _text(explanation: Explanation) -> Text:
    """Return the part of the text with the largest contributions, its words coloured by them."""
    words = [word for word in explanation.words if word.start < word.end]
    text = Text(printable(explanation.content, lines=True))
    for word, shade in zip(words, shades([word.contribution for word in words]), strict=True):
        if word.contribution > 0:
            text.stylize(_STYLES[min(len(_STYLES) - 1, int(shade * len(_STYLES)))], word.start, word.end)
        if word.lexical:
            text.stylize("underline", word.start, word.end)
    if not words:
        return text[: 2 * _AROUND]
    best = max(words, key=lambda word: word.contribution)
    start, end = max(0, best.start - _AROUND), min(len(text), best.end + _AROUND)
    return Text("…" if start else "") + text[start:end] + Text("…" if end < len(text) else "")


def _table(explanation: Explanation) -> Table:
    table = Table("Word of the query", "Part of the score", "Answered by")
    table.columns[1].justify = "right"
    for word in explanation.query_words:
        answers = ", ".join(f"{printable(text)} {part:.3f}" for text, part in word.answers[:_ANSWERS])
        more = len(word.answers) - _ANSWERS
        table.add_row(
            Text(printable(word.text)),
            f"{word.contribution:.4f}",
            Text(answers + (f", and {more} more" if more > 0 else "")),
        )
    table.add_row("together", f"{explanation.score:.4f}", "", style="bold")
    return table
