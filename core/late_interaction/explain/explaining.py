"""A stored document explained: its row, its vectors, and what they were made of, read again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from late_interaction.encoders.base import Item, LateInteractionModel
from late_interaction.errors import LateInteractionError
from late_interaction.explain.aligning import Asked, explain
from late_interaction.explain.explanation import Explanation
from late_interaction.explain.notebook import results_html
from late_interaction.explain.words import Span
from late_interaction.images.loading import is_relative
from late_interaction.images.opening import open_image
from late_interaction.images.storing import IMAGE_KEY
from late_interaction.stems import word_hits
from late_interaction.stores.base import Store
from late_interaction.types import Document, FloatMatrix, SearchResult, SearchResults

if TYPE_CHECKING:
    from late_interaction.options import IndexSettings
    from late_interaction.pipeline import LateInteractionPipeline

_TOLERANCE = 1e-3


async def explain_document(
    model: LateInteractionModel,
    store: Store,
    asked: tuple[FloatMatrix, str | None, IndexSettings],
    doc_id: str,
    text: str | None = None,
) -> Explanation:
    """Explain the score that a document of a store has for a query.

    Args:
        model: the encoder of the index.
        store: where the document is; open.
        asked: the query's (n_tokens, dim) vectors, its text where it has one, and how the index pools.
        doc_id: the document.
        text: the text that was encoded, where it is not the document's content.

    Raises:
        ValueError: there is no such document, or it is blank.
    """
    matrix, query, settings = asked
    documents = await store.documents([doc_id])
    if not documents:
        raise ValueError(f"There is no document {doc_id!r} in {store.location}.")
    there, tokens = await store.matrices([doc_id])
    if not there:
        raise ValueError(f"The document {doc_id!r} is blank: it has no vectors, and no search finds it.")
    item, problem = await _item(documents[0], model, text, settings)
    return await model.run(
        explain,
        model,
        Asked(matrix, query, settings.query_pool_distance),
        documents[0],
        tokens.matrix(0),
        item,
        settings.doc_pool_factor,
        problem,
    )


def check_same(result: SearchResult, explanation: Explanation) -> None:
    """Check that a document has the score that it was found with.

    Raises:
        LateInteractionError: it has another.
    """
    score = result.late_score
    if score is None:
        if result.lexical_score is not None:  # found by words alone
            return
        score = result.score
    if abs(score - explanation.score) > _TOLERANCE * max(1.0, abs(score)):
        raise LateInteractionError(
            f"The document {result.doc_id!r} was changed since it was found with a score of {score:.4f}: it has "
            f"{explanation.score:.4f} now. Search again."
        )


async def _item(
    document: Document, model: LateInteractionModel, text: str | None, settings: IndexSettings
) -> tuple[Item | None, str | None]:
    """Return what a document's vectors were made of, as far as it is there, and why it is not."""
    if text is not None:
        return text, None
    if document.content_type == "text":
        return document.content, None
    source = document.metadata.get(IMAGE_KEY, document.content)
    if not model.supports_images:
        return None, f"{model.model_name} encodes no images: the vectors were made elsewhere."
    if not isinstance(source, str):
        return None, "Nothing is stored of the image but its vectors."
    try:
        loaded = await asyncio.to_thread(
            open_image,
            source,
            allow_urls=settings.allow_urls,
            fit=model.scaled_size,
            root=settings.image_root,
        )
    except (ValueError, LateInteractionError) as error:
        is_elsewhere = settings.image_root is None and is_relative(source)
        hint = f" Its path, {source}, is from the folder that was indexed, which image_root= (--root) names."
        return None, f"The image cannot be read again: {error}{hint if is_elsewhere else ''}"
    return loaded.image, None


def _hits(query: str, result: SearchResult, explained: str) -> tuple[Span, ...]:
    """Return what a search by words found in a content, by its place in the text that is explained."""
    start = explained.rfind(result.content)
    if start < 0:
        return ()
    (hits,) = word_hits(query, [result.content])
    return tuple((start + first, start + last) for first, last in hits)


@dataclass(frozen=True, slots=True)
class FoundBy:
    """A search of a pipeline, for its results to be explained by.

    Attributes:
        pipeline: where it was done.
        matrix: (n_tokens, dim) the query's vectors, before pooling.
        query: the text; None for an image or for vectors.
    """

    pipeline: LateInteractionPipeline
    matrix: FloatMatrix
    query: str | None

    def explain(self, result: SearchResult) -> Explanation:
        """Refuse: there is no loop to wait on.

        Raises:
            LateInteractionError: always.
        """
        raise LateInteractionError("This result is of an async search: await its aexplain().")

    async def aexplain(self, result: SearchResult, text: str | None = None) -> Explanation:
        """Explain a result; `text` is what was encoded, where it is not the content."""
        matrix = self.matrix
        if not len(matrix) and self.query is not None:  # A search by words encodes nothing.
            (matrix,) = await self.pipeline.encode_queries([self.query])
        explanation = await self.pipeline._explain(matrix, self.query, result.doc_id, text)  # noqa: SLF001 - one of us
        check_same(result, explanation)
        if result.lexical_score is None or self.query is None:
            return explanation
        hits = await asyncio.to_thread(_hits, self.query, result, explanation.content)
        return replace(explanation, lexical=result.lexical_score, hits=hits)

    def to_html(self, results: SearchResults) -> str:
        """Return a table of results, without marks: they take an `await`."""
        return results_html(results)
