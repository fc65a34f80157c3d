"""From the vectors that a search compared to the tokens of query and document that they stand for.

MaxSim adds up, over the vectors of the query, weight times the largest dot product with a stored vector. A pooled
vector is the mean of its tokens, made a unit vector again, so its dot products are those of its tokens, added up and
scaled: each pair of tokens gets its part. The stored vectors are what the score is made of; the document is encoded
once more to learn which tokens were pooled into each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import Item, LateInteractionModel, pooled_grouped
from late_interaction.errors import ModelError
from late_interaction.explain.explanation import (
    ADDED,
    DocumentToken,
    Explanation,
    Pair,
    Patches,
    QueryToken,
)
from late_interaction.explain.words import Words
from late_interaction.pooling import pool_query_grouped
from late_interaction.types import Document, FloatMatrix

if TYPE_CHECKING:
    from PIL import Image

_SAME = 0.99
"""Least cosine of a stored vector and the one that its text gives now: int8 moves it by 0.005 at most, another device
by less."""
_NO_SUM = 1e-6
_LARGEST_IMAGE = 1024


@dataclass(frozen=True, slots=True)
class Asked:
    """A query to explain.

    Attributes:
        matrix: (n_tokens, dim) its vectors, before pooling.
        text: what they are of; None for an image or for vectors from elsewhere.
        pool_distance: how far they were pooled.
    """

    matrix: FloatMatrix
    text: str | None
    pool_distance: float


@dataclass(frozen=True, slots=True)
class Traced:
    """The tokens behind stored vectors.

    Attributes:
        matrix: (n_tokens, dim) the document's vectors, before pooling; empty where they are not known.
        vectors: (n_tokens,) the stored vector that each was pooled into, -1 where that is not known.
        spans: the characters that each stands for.
        places: (rows, columns) the patches of an image: which token each is; None for a text.
        notes: what has to be told.
    """

    matrix: FloatMatrix
    vectors: NDArray[np.int64]
    spans: list[tuple[int, int]]
    places: NDArray[np.int64] | None
    notes: tuple[str, ...]


def explain(
    model: LateInteractionModel,
    asked: Asked,
    document: Document,
    stored: FloatMatrix,
    item: Item | None,
    factor: float,
    problem: str | None = None,
) -> Explanation:
    """Explain the score of a document; it encodes the document once.

    Args:
        model: the encoder of the index.
        asked: the query.
        document: the document.
        stored: (n_vectors, dim) its vectors, as the search used them.
        item: the text or image that they were made of; None where there is none.
        factor: how far the document was pooled.
        problem: why there is no item.
    """
    query, groups = pool_query_grouped(asked.matrix, asked.pool_distance)
    similarities = query.vectors @ stored.T
    best = similarities.argmax(axis=1)
    parts = (similarities[np.arange(len(best)), best] * query.weights).astype(np.float64)
    traced = _nothing(problem or "") if item is None else _trace(model, item, stored, factor)

    query_parts = np.zeros(len(asked.matrix))
    answered: dict[tuple[int, int], float] = {}  # token (or -1) and stored vector -> contribution
    between: list[tuple[int, tuple[int, int], float]] = []
    for vector, part in enumerate(parts.tolist()):
        row = int(best[vector])
        of_query = np.flatnonzero(groups == vector)
        of_document = np.flatnonzero(traced.vectors == row)
        behind = traced.matrix[of_document] if len(of_document) else stored[[row]]
        names = [(int(token), row) for token in of_document] if len(of_document) else [(-1, row)]
        for token, shares in zip(
            of_query.tolist(), _shares(asked.matrix[of_query] @ behind.T, part), strict=True
        ):
            for name, share in zip(names, shares.tolist(), strict=True):
                query_parts[token] += share
                answered[name] = answered.get(name, 0.0) + share
                between.append((token, name, share))

    content = item if isinstance(item, str) else document.content
    boxes = _boxes(traced.places)
    names = sorted(answered, key=lambda name: (name[0] < 0, name))
    numbers = {name: number for number, name in enumerate(names)}
    notes = (*_query_notes(asked, len(query.vectors)), *traced.notes)
    return Explanation(
        document.doc_id,
        asked.text,
        content,
        document.content_type,
        float(parts.sum()),
        _query_tokens(model, asked, groups, query_parts),
        tuple(_document_token(content, traced, name, answered[name], boxes) for name in names),
        tuple(Pair(token, numbers[name], share) for token, name, share in between),
        tuple(note for note in notes if note),
        patches=_patches(asked.matrix, stored, traced, item),
    )


def _shares(products: NDArray[np.float32], part: float) -> NDArray[np.float64]:
    """Divide a vector's part of the score by the dot products of the tokens behind it."""
    exact = products.astype(np.float64)
    total = exact.sum()
    if (
        part * total < _NO_SUM**2
    ):  # nothing to divide by, or vectors that are not these tokens' to the last digit
        return np.full(exact.shape, part / exact.size)
    exact *= part / total
    return exact


def _trace(model: LateInteractionModel, item: Item, stored: FloatMatrix, factor: float) -> Traced:
    places = None
    notes: tuple[str, ...] = ()
    try:
        if isinstance(item, str):
            [matrix] = model.encode_documents([item])
        else:
            matrix, places = model.encode_placed(item)
    except (ModelError, ValueError) as error:
        return _nothing(f"Which part of the document each vector stands for is not known: {error}")
    spans: list[tuple[int, int]] | None = [(0, 0)] * len(matrix)
    if isinstance(item, str):
        spans = model.document_spans(item)
        if spans is None or len(spans) != len(matrix):
            return _nothing(f"{model.model_name} does not tell which characters its tokens stand for.")
    vectors, groups = pooled_grouped(model, matrix, factor)
    rows = stored_rows(vectors, stored)
    if not (rows >= 0).any():
        return _nothing(
            "What is stored of the document does not give its stored vectors, so the words behind them are not known: "
            "it was indexed by another text or image."
        )
    found = len(set(rows[rows >= 0].tolist()))
    if found < len(stored):
        notes = (f"{found} of the document's {len(stored)} stored vectors are those that it gives now.",)
    if len(stored) < len(matrix):
        pooling = f"The document's {len(matrix)} tokens were pooled into {len(stored)} vectors"
        notes += (
            f"{pooling}: a vector's part of the score is divided among them by their own similarities.",
        )
    if model.document_length is not None and isinstance(item, str) and len(matrix) > model.document_length:
        notes += (f"It was read in windows of at most {model.document_length} tokens.",)
    if isinstance(item, str):
        words = Words(item)
        if n := sum(len(words.of(span)) > 1 for span in spans or ()):
            tokens = "One token covers" if n == 1 else f"{n} tokens cover"
            notes += (
                f"{tokens} several words, which the model does not tell apart: its part is shared by length.",
            )
    return Traced(matrix, rows[groups], spans or [], places, notes)


def stored_rows(vectors: FloatMatrix, stored: FloatMatrix) -> NDArray[np.int64]:
    """Return for each vector of the document the stored one that it is: the one in its place, or else the nearest."""
    same = vectors @ stored.T
    everywhere = np.arange(len(vectors))
    rows = same.argmax(axis=1)
    if len(vectors) == len(stored):
        rows = np.where(same[everywhere, everywhere] >= _SAME, everywhere, rows)
    return np.where(same[everywhere, rows] >= _SAME, rows, -1)


def _nothing(why: str) -> Traced:
    return Traced(np.empty((0, 0), np.float32), np.empty(0, np.int64), [], None, (why,))


def _query_notes(asked: Asked, n_vectors: int) -> tuple[str, ...]:
    if n_vectors == len(asked.matrix):
        return ()
    pooling = f"The query's {len(asked.matrix)} tokens were pooled into {n_vectors} vectors"
    return (f"{pooling}, each weighted by its number of tokens.",)


def _query_tokens(
    model: LateInteractionModel, asked: Asked, groups: NDArray[np.int64], parts: NDArray[np.float64]
) -> tuple[QueryToken, ...]:
    spans = None if asked.text is None else model.query_spans(asked.text)
    known = spans is not None and len(spans) <= len(asked.matrix)
    tokens = []
    for number, part in enumerate(parts.tolist()):
        start, end = spans[number] if known and spans is not None and number < len(spans) else (0, 0)
        text = (asked.text or "")[start:end]
        tokens.append(
            QueryToken(
                text or (ADDED if known else f"(vector {number + 1})"),
                start,
                end,
                int(groups[number]),
                part,
            )
        )
    return tuple(tokens)


def _document_token(
    content: str,
    traced: Traced,
    name: tuple[int, int],
    contribution: float,
    boxes: dict[int, tuple[float, float, float, float]],
) -> DocumentToken:
    token, vector = name
    if token < 0:
        return DocumentToken(f"(vector {vector + 1})", 0, 0, vector, contribution)
    start, end = traced.spans[token]
    box = boxes.get(token)
    text = content[start:end] or (ADDED if box is None else "(patch)")
    return DocumentToken(text, start, end, vector, contribution, box)


def _boxes(places: NDArray[np.int64] | None) -> dict[int, tuple[float, float, float, float]]:
    if places is None:
        return {}
    rows, columns = places.shape
    return {
        int(token): (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for (row, column), token in np.ndenumerate(places)
    }


def _patches(matrix: FloatMatrix, stored: FloatMatrix, traced: Traced, item: Item | None) -> Patches | None:
    if traced.places is None or item is None or isinstance(item, str):
        return None
    image: Image.Image = item.copy()
    image.thumbnail((_LARGEST_IMAGE, _LARGEST_IMAGE))
    return Patches(traced.vectors[traced.places], matrix @ stored.T, image)
