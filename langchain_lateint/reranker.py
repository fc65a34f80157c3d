"""LateInteractionReranker: sort the documents of any retriever by MaxSim, without a store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from pydantic import ConfigDict, Field, field_validator
from typing_extensions import override

from langchain_lateint.embeddings import as_model
from late_interaction import LateInteractionModel
from late_interaction.adapting import FloatMatrix, is_blank, maxsim, relevance


class LateInteractionReranker(BaseDocumentCompressor):
    """Encodes a query and the documents found for it, by their text, and sorts them by MaxSim.

    >>> from langchain_core.documents import Document
    >>> from langchain_lateint import LateInteractionReranker
    >>> reranker = LateInteractionReranker(model="demo", top_n=1)
    >>> found = [Document("The tide comes in at noon"), Document("Apple pie with cinnamon")]
    >>> [document] = reranker.compress_documents(found, "a dessert of apples")
    >>> document.page_content
    'Apple pie with cinnamon'
    >>> 0 < document.metadata["relevance_score"] < 1
    True

    It goes wherever LangChain takes a `BaseDocumentCompressor`, such as its `ContextualCompressionRetriever`.

    Attributes:
        model: a `LateInteractionModel`, or the name of a checkpoint.
        top_n: how many documents to keep; None keeps all.
    """

    model: LateInteractionModel
    top_n: int | None = Field(default=None, ge=1)

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @field_validator("model", mode="before")
    @classmethod
    def _load(cls, model: Any) -> LateInteractionModel:
        return as_model(model)

    @override
    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Return copies of the documents, best first, with a `relevance_score` from 0 to 1 in their metadata.

        A document without text has nothing to score, so it comes last, with a score of 0.
        """
        if not (texts := _texts(documents)):
            return self._sorted(documents, [])
        vectors = self.model.encode_queries([query])[0]
        return self._sorted(documents, _scores(vectors, self.model.encode_documents(texts)))

    @override
    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Await `compress_documents` without blocking the event loop."""
        if not (texts := _texts(documents)):
            return self._sorted(documents, [])
        vectors = (await self.model.aencode_queries([query]))[0]
        matrices = await self.model.aencode_documents(texts)
        return self._sorted(documents, await asyncio.to_thread(_scores, vectors, matrices))

    def _sorted(self, documents: Sequence[Document], scores: Sequence[float]) -> list[Document]:
        """Sort the documents, given the scores of those that have text."""
        remaining = iter(scores)
        scored = [(next(remaining) if _has_text(document) else 0.0, document) for document in documents]
        scored.sort(key=lambda pair: (-pair[0], not _has_text(pair[1])))
        return [
            document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
            for score, document in scored[: self.top_n]
        ]


def _has_text(document: Document) -> bool:
    return not is_blank(document.page_content)


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents if _has_text(document)]


def _scores(query: FloatMatrix, matrices: Sequence[FloatMatrix]) -> list[float]:
    return [relevance(float(score), len(query)) for score in maxsim(query, matrices)]
