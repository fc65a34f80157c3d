"""Which words of texts answer a query: by the texts alone, without an index or pooling; and as JSON for adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.explain.explanation import Explanation
from late_interaction.explain.words import Span, WordMatch, Words
from late_interaction.maxsim import token_alignment
from late_interaction.types import SearchResult

_MOST = 0.5


def matched_words(
    model: ColBERTModel, query: str, documents: Sequence[str], *, min_similarity: float = 0.6
) -> list[list[Span]]:
    """Return the words of each document that answer a token of the query best.

    A word counts where one of its tokens has the largest dot product with some token of the query, in the
    document as it is encoded, before pooling. `LateInteractionPipeline.explain` goes by what an index stores.

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
        words = Words(document)
        parts: dict[Span, float] = {}
        for token, similarity in zip(tokens.tolist(), similarities.tolist(), strict=True):
            for position, share in words.of(spans[token]).items() if similarity >= min_similarity else ():
                if share > _MOST:  # A token of several words answers for none of them.
                    word = words.spans[position]
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


def matched_parts(explanation: Explanation, start: int = 0, end: int | None = None) -> list[dict[str, Any]]:
    """Return what answered as JSON values: the words of a text, or the patches of an image.

    Args:
        explanation: of a document.
        start: where the part of the explained text begins whose words are wanted; their positions count from here.
        end: where it ends; None for the end of the text.

    Returns:
        Of a text `{"start", "end", "text", "contribution", "answers", "lexical"}` of each word, in their order;
        "answers" has by word of the query what it contributed, and "lexical" is True where a hybrid or lexical search
        found it. Of an image `{"box", "contribution", "answers"}` of each patch: its left, top, right and bottom as
        shares of the image's width and height.
    """
    if explanation.patches is not None:
        return [
            {
                "box": list(token.box),
                "contribution": token.contribution,
                "answers": explanation.answers_of(number),
            }
            for number, token in enumerate(explanation.document_tokens)
            if token.box is not None
        ]
    last = len(explanation.content) if end is None else end
    return [
        {
            "start": word.start - start,
            "end": word.end - start,
            "text": word.text,
            "contribution": word.contribution,
            "answers": dict(word.answers),
            "lexical": word.lexical,
        }
        for word in explanation.words
        if start <= word.start < word.end <= last
    ]


def check_explains(model: LateInteractionModel) -> None:
    """Check that a model tells which characters its tokens stand for.

    Raises:
        TypeError: it does not.
    """
    if model.query_spans("a") is None:
        raise TypeError(
            f"explain=True needs a ColBERTModel, not {type(model).__name__}, which does not tell which characters its "
            "tokens stand for."
        )
