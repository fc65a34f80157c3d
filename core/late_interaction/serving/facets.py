"""The filter panel: metadata fields with few values, from a sample of the index, and the filter that was chosen."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from late_interaction.images.storing import IMAGE_KEY, THUMBNAIL_KEY
from late_interaction.pipeline import LateInteractionPipeline

_SAMPLE = 500
_BATCH = 25
_CHARACTERS = 4_000_000
"""Of contents and metadata in the sample, which may have whole images in them."""
_SECONDS = 60.0
_FIELDS = 8
_VALUES = 12
_LENGTH = 60


@dataclass(frozen=True, slots=True)
class Choice:
    """A value of a field.

    Attributes:
        value: a str, an int or a bool.
        is_chosen: whether documents are to have it.
    """

    value: str | int | bool
    is_chosen: bool = False

    @property
    def text(self) -> str:
        """The value as JSON, which tells the number 1 from the text "1"."""
        return json.dumps(self.value)

    @property
    def label(self) -> str:
        """The value for people."""
        return {True: "yes", False: "no"}[self.value] if isinstance(self.value, bool) else str(self.value)


@dataclass(frozen=True, slots=True)
class Facet:
    """A field and its values."""

    field: str
    choices: tuple[Choice, ...]


class Facets:
    """The fields of an index that have few values, read from its first documents once a minute.

    A sample is all that can be read of a large index while somebody waits; the page adds the values of what was found.
    """

    def __init__(self, pipeline: LateInteractionPipeline) -> None:
        self._pipeline = pipeline
        self._sample: list[Mapping[str, Any]] = []
        self._until = 0.0

    def forget(self) -> None:
        """Read the sample anew at the next use: documents were written."""
        self._until = 0.0

    async def of_index(
        self, found: Iterable[Mapping[str, Any]] = (), chosen: Mapping[str, list[Any]] | None = None
    ) -> list[Facet]:
        """Return the fields to filter by.

        Args:
            found: metadata of documents that are shown, whose values are added.
            chosen: values that are chosen, by field; they are among the choices, wherever they come from.
        """
        if time.monotonic() > self._until:
            self._sample = await self._read()
            self._until = time.monotonic() + _SECONDS
        return facets(self._sample, chosen or {}, found)

    async def _read(self) -> list[Mapping[str, Any]]:
        sample: list[Mapping[str, Any]] = []
        characters = 0
        while len(sample) < _SAMPLE and characters < _CHARACTERS:
            documents = await self._pipeline.find(limit=_BATCH, offset=len(sample))
            sample += [document.metadata for document in documents]
            characters += sum(
                len(document.content)
                + sum(len(value) for value in document.metadata.values() if isinstance(value, str))
                for document in documents
            )
            if len(documents) < _BATCH:
                break
        # What is kept for a minute are the values that can become choices.
        return [{field: value for field, value in metadata.items() if _values(value)} for metadata in sample]


def facets(
    sample: Iterable[Mapping[str, Any]],
    chosen: Mapping[str, list[Any]],
    found: Iterable[Mapping[str, Any]] = (),
) -> list[Facet]:
    """Return the fields with 2 to 12 values of which one comes twice at least, and those that are chosen.

    What was found may be in the sample too, and is counted apart.

    >>> rows = [{"lang": "en", "title": "A"}, {"lang": "de", "title": "B"}, {"lang": "en", "title": "C"}]
    >>> [facet] = facets(rows, {"lang": ["de"]}, rows)
    >>> facet.field, [(choice.label, choice.is_chosen) for choice in facet.choices]
    ('lang', [('en', False), ('de', True)])
    """
    counted = [_counted(sample), _counted(found)]
    repeated = {
        field for counts in counted for field, values in counts.items() if values.most_common(1)[0][1] > 1
    }
    together: dict[str, Counter[str]] = {}
    for counts in counted:
        for field, values in counts.items():
            together.setdefault(field, Counter()).update(values)
    fields = [
        field for field, values in together.items() if field in repeated and 2 <= len(values) <= _VALUES
    ][:_FIELDS]
    return [
        _facet(field, together[field] if field in fields else Counter(), chosen.get(field, []))
        for field in dict.fromkeys([*fields, *chosen])
    ]


def _counted(metadata: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    """Return how often each value of each field comes, values as JSON."""
    counts: dict[str, Counter[str]] = {}
    for one in metadata:
        for field, value in one.items():
            if field in (IMAGE_KEY, THUMBNAIL_KEY) or not field or field.startswith("$"):
                continue
            if values := _values(value):
                counts.setdefault(field, Counter()).update(map(json.dumps, values))
    return counts


def chosen_filter(chosen: Mapping[str, list[Any]], other: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the filter of chosen values: one of those of each field; and another filter."""
    conditions: list[Mapping[str, Any]] = [{field: {"$in": values}} for field, values in chosen.items()]
    if other:
        conditions.append(other)
    return {"$and": conditions} if conditions else None


def _facet(field: str, values: Counter[str], chosen: list[Any]) -> Facet:
    wanted = [json.dumps(value) for value in chosen]
    texts = list(dict.fromkeys([*(text for text, _ in values.most_common()), *wanted]))
    choices = [Choice(json.loads(text), text in wanted) for text in texts]
    if all(isinstance(choice.value, int) for choice in choices):
        choices.sort(key=lambda choice: choice.value)
    return Facet(field, tuple(choices))


def _values(value: object) -> list[str | int | bool]:
    """Return what can be chosen of a value: itself, or the elements of a list, which a filter finds one by one."""
    values = value if isinstance(value, list) else [value]
    return [
        each
        for each in values[:_VALUES]
        if isinstance(each, int)
        or (isinstance(each, str) and 0 < len(each) <= _LENGTH and each.isprintable())
    ]
