"""Texts of a collection as the queries of a model: what document vectors are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from late_interaction.encoders.base import LateInteractionModel, encode_checked
from late_interaction.encoders.precomputed import PrecomputedEmbeddings
from late_interaction.types import FloatMatrix


class QuerySampler:
    """Encodes texts as queries; those that a model cannot encode as one, such as private characters, are left out.

    Args:
        model: returns the model by now: an index that is opened may hold a projection of it.
    """

    def __init__(self, model: Callable[[], LateInteractionModel]) -> None:
        self._model = model

    async def __call__(self, texts: Sequence[str]) -> list[FloatMatrix]:
        """Return a (n_tokens, dim) matrix of each text that can be encoded; none where vectors are made elsewhere."""
        model = self._model()
        if isinstance(model, PrecomputedEmbeddings):
            return []
        try:
            return (await encode_checked(model, texts, "query"))[0]
        except ValueError:
            if len(texts) == 1:
                return []
        return [matrix for text in texts for matrix in await self([text])]
