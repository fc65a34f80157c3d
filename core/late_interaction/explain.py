"""Why a document matched: the words, or the parts of an image, whose vectors answered those of the query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import Item, LateInteractionModel
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.encoders.colpali import ColPaliModel
from late_interaction.maxsim import token_alignment
from late_interaction.types import SearchResult

if TYPE_CHECKING:
    from PIL import Image

Span: TypeAlias = tuple[int, int]
"""Start and end of a word, in characters."""


class WordMatch(NamedTuple):
    """A word of a document that answers a query.

    Attributes:
        start: its first character.
        end: the character after its last.
        contribution: its part of the raw score.
    """

    start: int
    end: int
    contribution: float


_WORD = re.compile(r"[^\W_]+")


def matched_words(
    model: ColBERTModel, query: str, documents: Sequence[str], *, min_similarity: float = 0.6
) -> list[list[Span]]:
    """Return the words of each document that answer a token of the query best.

    A word counts where one of its tokens has the largest dot product with some token of the query, in the
    document as it is encoded, before pooling: these are the terms that MaxSim adds up.

    Args:
        model: the encoder of the index.
        query: the query.
        documents: the documents' texts.
        min_similarity: best answers with a smaller dot product are left out, since every token of the query
            has a best one.

    Returns:
        For each document, the spans of its words in ascending order.

    Example:
        >>> from late_interaction.demo import model_folder
        >>> model, text = ColBERTModel(model_folder(), device="cpu"), "A cat sleeps in the sun."
        >>> [text[start:end] for start, end in matched_words(model, "kitten", [text], min_similarity=0.3)[0]]
        ['cat']
    """
    found = word_contributions(model, query, documents, min_similarity=min_similarity)
    return [[(word.start, word.end) for word in words] for words in found]


def word_contributions(
    model: ColBERTModel, query: str, documents: Sequence[str], *, min_similarity: float = 0.6
) -> list[list[WordMatch]]:
    """Return the words of each document that answer a query, each with its part of the score.

    MaxSim adds up, over the tokens of the query, the largest dot product with a token of the document. Each of these
    counts for the word that the token of the document belongs to.

    Args:
        model: the encoder of the index.
        query: the query.
        documents: the documents' texts.
        min_similarity: leave out smaller dot products, because every token of the query has a largest one.

    Returns:
        For each document, its words in ascending order.

    Example:
        >>> from late_interaction import load_model
        >>> text = "Pie of green apples"
        >>> [words] = word_contributions(load_model("demo", device="cpu"), "apple dessert", [text])
        >>> [text[word.start : word.end] for word in words if word.contribution > 0.5]
        ['apples']
    """
    (vectors,) = model.encode_queries([query])
    found = []
    for document, matrix in zip(documents, model.encode_documents(documents), strict=True):
        tokens, similarities = token_alignment(vectors, matrix)
        spans = model.document_spans(document)
        words = [match.span() for match in _WORD.finditer(document)]
        parts: dict[Span, float] = {}
        for token, similarity in zip(tokens.tolist(), similarities.tolist(), strict=True):
            word = next((word for word in words if _overlap(word, spans[token])), None)
            if word is not None and similarity >= min_similarity:
                parts[word] = parts.get(word, 0.0) + similarity
        found.append([WordMatch(*word, part) for word, part in sorted(parts.items())])
    return found


async def explained(
    model: LateInteractionModel, query: str, results: Sequence[SearchResult]
) -> list[list[dict[str, Any]]]:
    """Return `word_contributions` of results as JSON values, computed on the model's own thread.

    Returns:
        For each result `{"start", "end", "contribution"}` of its words; no words for an image.

    Raises:
        TypeError: the model does not tell which characters its tokens stand for.
    """
    if not isinstance(model, ColBERTModel):
        raise TypeError(f"explain=True needs a ColBERTModel, not {type(model).__name__}.")
    texts = [result.content for result in results if result.content_type == "text"]
    words = iter(await model.run(word_contributions, model, query, texts) if texts else [])
    return [
        [{"start": one.start, "end": one.end, "contribution": one.contribution} for one in next(words)]
        if result.content_type == "text"
        else []
        for result in results
    ]


def image_heat_maps(model: ColPaliModel, query: Item, image: Image.Image) -> NDArray[np.float32]:
    """Compute how well each patch of an image answers each vector of a query.

    Args:
        model: the encoder of the index.
        query: a text, or an image.
        image: as it was indexed.

    Returns:
        (n_query_vectors, rows, columns): the dot products of which MaxSim takes the largest for each query vector,
        before pooling. Their mean over the first axis is one map of the whole query.

    Example:
        >>> from late_interaction import ColPaliModel, load_image
        >>> page = load_image("page.png")  # doctest: +SKIP
        >>> maps = image_heat_maps(ColPaliModel(), "revenue by quarter", page)  # doctest: +SKIP
        >>> draw_heat_map(page, maps.mean(axis=0)).save("seen.png")  # doctest: +SKIP
    """
    (vectors,) = model.encode_queries([query])
    maps: NDArray[np.float32] = np.moveaxis(model.encode_patches(image) @ vectors.T, 2, 0)
    return maps


def draw_heat_map(image: Image.Image, heat_map: NDArray[np.float32]) -> Image.Image:
    """Draw the map over the image: grey where it is lowest, in its own colours and tinted red where it is highest.

    Args:
        image: the image.
        heat_map: (rows, columns), such as the mean of `image_heat_maps`; only its differences count.

    Example:
        >>> import numpy as np
        >>> from PIL import Image
        >>> drawn = draw_heat_map(Image.new("RGB", (20, 10), "white"), np.array([[0.1, 0.9]]))
        >>> drawn.size, drawn.getpixel((0, 5)), drawn.getpixel((19, 5))
        ((20, 10), (255, 255, 255), (255, 178, 178))
    """
    from PIL import Image, ImageOps

    scaled = (heat_map - heat_map.min()) / max(float(np.ptp(heat_map)), np.finfo(np.float32).tiny)
    mask = Image.fromarray((scaled * 255).astype(np.uint8)).resize(image.size, Image.Resampling.BICUBIC)
    tinted = Image.blend(image.convert("RGB"), Image.new("RGB", image.size, "red"), 0.3)
    return Image.composite(tinted, ImageOps.grayscale(image.convert("RGB")).convert("RGB"), mask)


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
