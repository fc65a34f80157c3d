"""Folders in BEIR's layout: a corpus is documents, and the queries and judgments beside it are not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from late_interaction.reading.finding import Found

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
COLUMNS, SEPARATOR = ("title", "text"), " "
"""Where the text of a document is, and what is put between its parts."""


def joined(texts: Iterable[str], separator: str = SEPARATOR) -> str:
    """Return texts as one, without those that are blank.

    >>> joined(["Wing", " ", "is thin"])
    'Wing is thin'
    """
    return separator.join(text for text in texts if text.strip())


def corpora(found: Found) -> dict[Path, set[Path]]:
    """Return each corpus among files that were found through folders, and what beside it is no document."""
    files = {*found.files}
    made = {}
    for queries in files - found.named:
        folder = queries.parent
        if queries.name == QUERIES and folder / CORPUS in files:
            judgments = {file for file in files if file.parent == folder / "qrels"}
            made[folder / CORPUS] = {queries, *judgments, *({folder / "qrels.tsv"} & files)}
    return made
