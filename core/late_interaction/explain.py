"""Why a document matched: the words whose token vectors answered those of the query."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeAlias

from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.maxsim import token_alignment

Span: TypeAlias = tuple[int, int]
"""Start and end of a word, in characters."""

_WORD = re.compile(r"[^\W_]+")


def matched_words(
    model: ColBERTModel, query: str, documents: Sequence[str], *, min_similarity: float = 0.6
) -> list[list[Span]]:
    """The words of each document that answer a token of the query best.

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
    """
    (vectors,) = model.encode_queries([query])
    found = []
    for document, matrix in zip(documents, model.encode_documents(documents), strict=True):
        tokens, similarities = token_alignment(vectors, matrix)
        spans = model.document_spans(document)
        starts = {spans[token] for token in tokens[similarities >= min_similarity]}
        words = (match.span() for match in _WORD.finditer(document))
        found.append([word for word in words if any(_overlap(word, span) for span in starts)])
    return found


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]
