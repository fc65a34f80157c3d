"""The place of a model in an index of vectors that are made elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import ModelError
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_positive


class PrecomputedEmbeddings(LateInteractionModel):
    """Stands in for the model of an index that is only given vectors: `index_embeddings`, `search_with_embeddings`.

    Args:
        dim: width of a token vector.
        name: what made the vectors; an index opens only under the name it was built with.

    Example:
        >>> PrecomputedEmbeddings(128, "my-encoder-v1").fingerprint
        {'family': 'precomputed', 'model': 'my-encoder-v1'}
    """

    def __init__(self, dim: int, name: str) -> None:
        check_positive("dim", dim)
        self.dim = dim
        self.model_name = name

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The name, and that the vectors are made elsewhere."""
        return {"family": "precomputed", "model": self.model_name}

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """Refuse: there is no model here.

        Raises:
            ModelError: always.
        """
        self._refuse("search_with_embeddings")

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """Refuse: there is no model here.

        Raises:
            ModelError: always.
        """
        self._refuse("index_embeddings")

    def _refuse(self, instead: str) -> NoReturn:
        raise ModelError(
            f"This index holds vectors of {self.model_name!r} that were made elsewhere, so text cannot be encoded "
            f"here: call {instead}."
        )
