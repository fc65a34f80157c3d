"""Search results on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from late_interaction.cli._shared import out
from late_interaction.encoders.base import LateInteractionModel
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.explain import Span, matched_words
from late_interaction.explain.words import word_spans
from late_interaction.printable import printable
from late_interaction.stems import word_hits
from late_interaction.types import SearchResult, SearchResults, SearchStats

_EXCERPT = 240
_LEAD = 60
_LONGEST_WORD = 60


def print_results(
    query: str,
    results: SearchResults,
    model: LateInteractionModel,
    *,
    label: Callable[[SearchResult], str],
    shown: Callable[[str, Sequence[Span]], Span],
    cut: bool = True,
) -> None:
    """Print a table of score, label and part of each text; for a text model the words that matched stand out.

    Args:
        query: what was searched for.
        results: what was found.
        model: the encoder it was found with.
        label: what to call a result.
        shown: which part of a text to show, given the words that matched.
        cut: put "…" where a text goes on.
    """
    title = Text(printable(query), style="bold")
    table = Table(title=title, title_justify="left", caption=_caption(results.stats), caption_justify="left")
    table.add_column("Score", justify="right", no_wrap=True)
    table.add_column("Document", max_width=42, overflow="fold")
    texts = [result.content for result in results]
    matched: list[list[Span]] = [[] for _ in texts]
    if isinstance(model, ColBERTModel) and texts:
        matched = matched_words(model, query, texts)
    if results.stats.mode != "late":
        hits = word_hits(query, texts)
        matched = [sorted({*words, *more}) for words, more in zip(matched, hits, strict=True)]
    is_marked = out.color_system is not None and any(matched)
    heading = "Text, or what stands for an image" if model.supports_images else "Text"
    table.add_column(f"{heading}, matching words marked" if is_marked else heading)
    for result, words in zip(results, matched, strict=True):
        text = Text(printable(result.content))
        for word in words:
            text.stylize("bold yellow", *word)
        start, end = shown(result.content, words)
        before, behind = ("…" if cut and more else "" for more in (start > 0, end < len(text)))
        part = Text(before) + text[start:end] + Text(behind)
        table.add_row(f"{result.score:.2f}", Text(printable(label(result)), style="cyan"), part)
    out.print(table)


PLAIN = ("question", "score", "id", "place", "text")
"""Headings of `results_plain`."""


def results_plain(question: str, results: SearchResults) -> Iterator[tuple[str, ...]]:
    """Yield the values of each result for `print_plain`, the text whole."""
    for result in results:
        yield question, f"{result.score:.6g}", result.doc_id, place(result), result.content


def results_json(query: str, results: SearchResults) -> dict[str, Any]:
    """Return a query with its results as JSON values."""
    found = [asdict(result) for result in results]
    return {"query": query, "results": found, "stats": asdict(results.stats)}


def place(result: SearchResult) -> str:
    """Return file and line, or page, where the result comes from a file, else its id."""
    source = result.metadata.get("source")
    if not isinstance(source, str):
        return result.doc_id
    path, here = Path(source), Path.cwd()
    file = path.relative_to(here) if path.is_relative_to(here) else path
    line, page = result.metadata.get("line"), result.metadata.get("page")
    if isinstance(line, int):
        return f"{file}:{line}"
    if isinstance(page, int):
        return f"{file}, page {page}"
    return str(file) if result.content_type == "image" else result.doc_id


def excerpt(text: str, words: Sequence[Span]) -> Span:
    """Return the part of a text with most of the words that matched, from the start of a word to the end of one."""
    starts = [max(0, start - _LEAD) for start, _ in words] or [0]
    start = max(starts, key=lambda start: sum(start <= a and b <= start + _EXCERPT for a, b in words))
    end = start + _EXCERPT
    near = max(0, start - _LONGEST_WORD)
    spans = [(near + a, near + b) for a, b in word_spans(text[near : end + _LONGEST_WORD])]
    if start:
        start = next((a for a, _ in spans if start <= a < end), start)
    if text[end:].strip():
        return start, max((b for _, b in spans if start < b <= end), default=end)
    return start, len(text)


def first_line(text: str, _words: Sequence[Span]) -> Span:
    """Return where the first line of a docstring stands in a row of `late_interaction.demo`, below its name."""
    start = text.index("\n") + 1
    end = text.find("\n", start)
    return start, len(text) if end < 0 else end


def _caption(stats: SearchStats) -> str:
    if stats.mode == "lexical":
        return f"{1000 * stats.total_s:.0f} ms; by the words alone"
    return (
        f"{1000 * stats.total_s:.0f} ms, {1000 * stats.encode_s:.0f} of it to encode the question; "
        f"{stats.n_scored} documents scored exactly"
    )
