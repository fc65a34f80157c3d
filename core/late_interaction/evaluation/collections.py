"""Judged collections in BEIR's layout, read from a folder."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from late_interaction.errors import LateInteractionError
from late_interaction.reading.beir import COLUMNS, CORPUS, QUERIES, joined

logger = logging.getLogger(__name__)

Qrels: TypeAlias = dict[str, dict[str, int]]
"""Graded relevance by document id, by query id."""


@dataclass(frozen=True, slots=True)
class JudgedCollection:
    """Documents, queries, and which document answers which query.

    Attributes:
        name: the folder's name.
        documents: title and text by id; documents without any text are left out.
        queries: text by id; only queries with at least one relevant document.
        qrels: the judgments on these queries. A relevant document that is not there counts as one that is not found.
    """

    name: str
    documents: dict[str, str]
    queries: dict[str, str]
    qrels: Qrels


def load_beir(folder: str | Path, *, limit: int | None = None) -> JudgedCollection:
    """Read a folder in BEIR's layout.

    It holds `corpus.jsonl` (`_id` or `id`, `title`, `text`), `queries.jsonl` (`_id` or `id`, `text`) and
    the judgments, `qrels/test.tsv` or `qrels.tsv`: query id, document id and grade, below a header or without one.
    Judgments on documents that are not there count, as in trec_eval and BEIR, and a warning says how many there are;
    those on queries that are not there, or on documents without text, do not.

    Args:
        folder: where they are.
        limit: only the first so many documents, and the judgments on them: for a quick look, since
            the numbers cannot be compared with those of the whole collection.

    Raises:
        LateInteractionError: a file is missing, or a line of it is not as it should be.
    """
    folder = Path(folder)
    documents: dict[str, str] = {}
    blank = set()
    for doc_id, record in _records(folder / CORPUS):
        text = joined(str(record.get(column) or "") for column in COLUMNS).strip()
        if text:
            documents[doc_id] = text
        else:
            blank.add(doc_id)
        if len(documents) == limit:
            break
    queries = {query_id: str(record.get("text") or "") for query_id, record in _records(folder / QUERIES)}
    qrels: Qrels = {}
    unknown = Counter[str]()
    for query_id, doc_id, grade in _judgments(folder):
        if query_id not in queries:
            unknown["queries"] += 1
        elif doc_id in documents or (limit is None and doc_id not in blank):
            qrels.setdefault(query_id, {})[doc_id] = grade
            unknown["documents"] += doc_id not in documents
    qrels = {query_id: grades for query_id, grades in qrels.items() if max(grades.values()) > 0}
    for what, count in unknown.items():
        if count:
            logger.warning(
                "%s: %s that are not there: %s.",
                folder,
                f"{count:,} {'judgment names' if count == 1 else 'judgments name'} {what}",
                "they are left out" if what == "queries" else "the relevant ones count as not found",
            )
    if not any(grade > 0 and doc_id in documents for of in qrels.values() for doc_id, grade in of.items()):
        raise LateInteractionError(
            f"No query of {folder} has a relevant document among the {len(documents)} read."
        )
    for query_id in qrels:
        if not queries[query_id].strip():
            raise LateInteractionError(f"{folder / QUERIES}: query {query_id!r} is judged, and has no text.")
    return JudgedCollection(
        folder.name, documents, {query_id: queries[query_id] for query_id in qrels}, qrels
    )


def _records(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and object of each line of a JSON Lines file."""
    for number, line in _lines(path):
        try:
            record = json.loads(line)
            doc_id = str(record["_id"] if "_id" in record else record["id"])
        except (ValueError, RecursionError, KeyError, TypeError) as error:
            raise LateInteractionError(f"{path}:{number} is not a JSON object with an _id or id.") from error
        yield doc_id, record


def _judgments(folder: Path) -> Iterator[tuple[str, str, int]]:
    """Yield the query id, document id and grade of each judgment."""
    path = folder / "qrels" / "test.tsv"
    path = path if path.exists() else folder / "qrels.tsv"
    for number, line in _lines(path):
        try:
            query_id, doc_id, grade = line.rstrip("\r\n").split("\t")
            if number > 1 or re.fullmatch(r"\s*[-+]?[\d.]+\s*", grade):  # else it is the header
                yield query_id, doc_id, int(grade)
        except ValueError as error:
            raise LateInteractionError(
                f"{path}:{number} is not a query id, a document id and a whole number between tabs."
            ) from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line that is not blank."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise LateInteractionError(f"{path} cannot be read: {error}") from error
