"""`Explanation`: which parts of a document answered which parts of a query, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import ModelError
from late_interaction.explain.words import Span, Words

if TYPE_CHECKING:
    from PIL import Image
    from rich.console import RenderableType

ADDED = "(added by the model)"
"""What stands for a token that is not of the text: a marker, a prompt, an expansion."""


@dataclass(frozen=True, slots=True)
class QueryToken:
    """A token of the query.

    Attributes:
        text: its characters; what stands for it where it has none.
        start, end: where they stand in the query; equal where it has none.
        vector: which of the vectors that were searched for it was pooled into.
        contribution: its part of the score.
    """

    text: str
    start: int
    end: int
    vector: int
    contribution: float


@dataclass(frozen=True, slots=True)
class DocumentToken:
    """A token of the document that answered.

    Attributes:
        text: its characters; what stands for it where it has none.
        start, end: where they stand in the content; equal where it has none.
        vector: which of the stored vectors it was pooled into.
        contribution: its part of the score.
        box: of a patch of an image: left, top, right and bottom, as shares of width and height; else None.
    """

    text: str
    start: int
    end: int
    vector: int
    contribution: float
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """A token of the query and one of the document that answered it.

    Attributes:
        query_token, document_token: positions in the explanation's lists.
        contribution: their part of the score.
    """

    query_token: int
    document_token: int
    contribution: float


@dataclass(frozen=True, slots=True)
class Word:
    """A word and its part of the score.

    Attributes:
        text: the word, or what stands for tokens that are in no word.
        start, end: where it stands; equal where it stands nowhere.
        contribution: its part of the score.
        answers: the words on the other side, each with its part of this contribution, the largest first.
        lexical: whether a search by words found it, of the document's words in a result of a hybrid or lexical search.
    """

    text: str
    start: int
    end: int
    contribution: float
    answers: tuple[tuple[str, float], ...]
    lexical: bool = False


@dataclass(frozen=True, slots=True)
class Patches:
    """Where the vectors of an image lie.

    Attributes:
        places: (rows, columns) the stored vector of each patch; -1 where it is not known.
        similarities: (n_query_tokens, n_vectors) float32, dot products of the query's tokens and the stored vectors.
        image: the image, at most 1,024 pixels wide or high.
    """

    places: NDArray[np.int64]
    similarities: NDArray[np.float32]
    image: Image.Image


@dataclass(frozen=True)
class Explanation:
    """Why a document has its score: pairs of tokens whose contributions add up to it.

    Attributes:
        doc_id: the document's id.
        query: the text that was searched for; None for an image or for vectors.
        content: the text whose characters the document's tokens stand for.
        content_type: "text" or "image".
        score: the document's MaxSim; what `pairs` add up to, and `query_tokens` and `document_tokens` too.
        query_tokens: the tokens of the query, all of them.
        document_tokens: the tokens of the document that answered, in their order.
        pairs: which token answered which, and by how much.
        notes: what has to be told: pooling, windows, and why something is not known.
        lexical: BM25 of a result of a hybrid or lexical search; None where there was none.
        hits: where words of the query stand in the content, as such a search finds them; () in other searches.
        patches: where the vectors of an image lie; None for a text, or where it is not known.
    """

    doc_id: str
    query: str | None
    content: str
    content_type: str
    score: float
    query_tokens: tuple[QueryToken, ...]
    document_tokens: tuple[DocumentToken, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...] = ()
    lexical: float | None = None
    hits: tuple[Span, ...] = ()
    patches: Patches | None = field(default=None, repr=False, compare=False)

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The document's words that answered, in their order; last what is in no word, such as punctuation.

        After a hybrid or lexical search those that it found are among them, with a contribution of 0 if they did not
        answer.
        """
        return with_hits(self.content, self._sides[1], self.hits)

    @cached_property
    def query_words(self) -> tuple[Word, ...]:
        """The query's words, in their order; last what is in no word, such as the model's markers."""
        return self._sides[0]

    @cached_property
    def _sides(self) -> tuple[tuple[Word, ...], tuple[Word, ...]]:
        asked, answered = self._asked, _labels(self.content, self.document_tokens)
        between: dict[tuple[_Label, _Label], float] = {}
        for pair in self.pairs:
            sides = product(asked[pair.query_token].items(), answered[pair.document_token].items())
            for (word, share), (other, share_too) in sides:
                part = pair.contribution * share * share_too
                between[word, other] = between.get((word, other), 0.0) + part
        return _words(between, 0), _words(between, 1)

    @cached_property
    def _asked(self) -> list[dict[_Label, float]]:
        """The words that each token of the query stands for."""
        return _labels(self.query or "", self.query_tokens)

    @cached_property
    def _answers(self) -> dict[int, dict[str, float]]:
        """What `answers_of` returns, by document token."""
        answers: dict[int, dict[str, float]] = {}
        for pair in self.pairs:
            of = answers.setdefault(pair.document_token, {})
            for (_, _, text), share in self._asked[pair.query_token].items():
                of[text] = of.get(text, 0.0) + pair.contribution * share
        return answers

    def answers_of(self, document_token: int) -> dict[str, float]:
        """Return what each word of the query has of a document token's contribution; words by their text.

        Args:
            document_token: its position in `document_tokens`.
        """
        return dict(self._answers.get(document_token, {}))

    def heat_map(self, word: int | None = None) -> NDArray[np.float32]:
        """Return how well each part of an image answers a word of the query, or the whole query.

        Args:
            word: its position in `query_words`; None for the sum over all tokens.

        Returns:
            (rows, columns) float32, sums of dot products; NaN where a patch's vector is not known.

        Raises:
            ModelError: the document is not an image, or its vectors' places are not known; `notes` say why.
            IndexError: there is no such word.
        """
        patches = self._placed()
        shares = np.ones(len(self.query_tokens), np.float32)
        if word is not None:
            wanted = self.query_words[word]
            label = wanted.start, wanted.end, wanted.text
            shares = np.array([of.get(label, 0.0) for of in self._asked], np.float32)
        summed = shares @ patches.similarities
        known = patches.places >= 0
        return np.where(known, summed[patches.places], np.nan).astype(np.float32)

    def draw(self, word: int | None = None) -> Image.Image:
        """Return the image with `heat_map` drawn over it.

        Raises:
            ModelError, IndexError: as for `heat_map`.
        """
        from late_interaction.explain.heatmap import draw_heat_map

        return draw_heat_map(self._placed().image, self.heat_map(word))

    def _placed(self) -> Patches:
        if self.patches is None:
            why = " ".join(self.notes) if self.content_type == "image" else "It is a text."
            raise ModelError(f"There is no heat map of {self.doc_id!r}. {why}")
        return self.patches

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as JSON values, with `words` and `query_words`; without the image."""
        values = asdict(replace(self, patches=None))
        del values["patches"]
        values["words"] = [asdict(word) for word in self.words]
        values["query_words"] = [asdict(word) for word in self.query_words]
        return values

    def to_html(self) -> str:
        """Return a page of HTML that needs nothing else: words shaded by their contribution, or the image's heat maps.

        What a word answered shows when the pointer or the keyboard's focus is on it.
        """
        from late_interaction.explain.html import page

        return page(self)

    def save(self, path: str | Path) -> None:
        """Write `to_html` into a file."""
        Path(path).write_text(self.to_html(), encoding="utf-8")

    def _repr_html_(self) -> str:
        from late_interaction.explain.html import fragment

        return fragment(self)

    def __rich__(self) -> RenderableType:
        from late_interaction.explain.terminal import rendered

        return rendered(self)

    def __str__(self) -> str:
        from late_interaction.explain.terminal import plain

        return plain(self)


_Label = tuple[int, int, str]


def _labels(text: str, tokens: Sequence[QueryToken | DocumentToken]) -> list[dict[_Label, float]]:
    """Return for each token the words that it stands for, and their shares; what is in none goes by its own text."""
    words = Words(text)
    labels: list[dict[_Label, float]] = []
    for token in tokens:
        box = getattr(token, "box", None)
        own = token.text if token.text.strip() else "(space)"
        none = {(0, 0, own if box is None else "(the picture)"): 1.0}
        found = words.of((token.start, token.end)).items()
        spans: list[tuple[Span, float]] = [(words.spans[word], share) for word, share in found]
        labels.append({(*span, text[slice(*span)]): share for span, share in spans} or none)
    return labels


def with_hits(text: str, words: Sequence[Word], hits: Sequence[Span]) -> tuple[Word, ...]:
    """Return words of a text with what a search by words found among them."""
    if not hits:
        return tuple(words)
    found = {
        span: Word(text[slice(*span)], *span, 0.0, (), lexical=True)
        for span in Words(text).spans
        if any(span[0] < end and start < span[1] for start, end in hits)
    }
    all_words = {(word.start, word.end, word.text): word for word in words}
    for (start, end), word in found.items():
        label = start, end, word.text
        all_words[label] = replace(all_words.get(label, word), lexical=True)
    return tuple(all_words[label] for label in sorted(all_words, key=lambda label: (label[1] == 0, label)))


def _words(between: dict[tuple[_Label, _Label], float], side: int) -> tuple[Word, ...]:
    answers: dict[_Label, dict[str, float]] = {}
    for key, contribution in between.items():
        of = answers.setdefault(key[side], {})
        other = key[1 - side][2]
        of[other] = of.get(other, 0.0) + contribution
    ordered = sorted(answers, key=lambda label: (label[1] == 0, label))
    return tuple(
        Word(
            text,
            start,
            end,
            sum(answers[start, end, text].values()),
            tuple(sorted(answers[start, end, text].items(), key=lambda item: -item[1])),
        )
        for start, end, text in ordered
    )
