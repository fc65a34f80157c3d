"""EmbeddingsModel: a LangChain `Embeddings` as a model with one vector per text, beside late interaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from langchain_core.embeddings import Embeddings
from numpy.typing import ArrayLike

from late_interaction import LateInteractionModel, load_model
from late_interaction.encoders.base import check_texts
from late_interaction.types import FloatMatrix

Model: TypeAlias = LateInteractionModel | Embeddings | str

_NAMES = ("model_name", "model", "model_id", "deployment")


class EmbeddingsModel(LateInteractionModel):
    """A LangChain `Embeddings` as a model that encodes a text as one unit vector. MaxSim is then the cosine similarity.

    Only the embeddings' sync methods are called, on a thread of the model's own, because async clients belong to the
    event loop that uses them elsewhere.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> model = EmbeddingsModel(DeterministicFakeEmbedding(size=16))
    >>> [matrix.shape for matrix in model.encode_documents(["one text", "another"])]
    [(1, 16), (1, 16)]

    Args:
        embeddings: embeds queries and documents.
        name: names the model. An index opens only under the name it was built with. By default it is the
            embeddings' own model name, or else the name of their class.
        dim: width of a vector. By default it is found by embedding one word, which may be a call to a service.
    """

    def __init__(self, embeddings: Embeddings, name: str | None = None, *, dim: int | None = None) -> None:
        self.embeddings = embeddings
        self.model_name = _name(embeddings) if name is None else name
        self.dim = len(embeddings.embed_query("dimension")) if dim is None else dim

    def __repr__(self) -> str:
        # Not the embeddings' own repr, which may show a service's key.
        return f"EmbeddingsModel({type(self.embeddings).__name__}, {self.model_name!r})"

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Return the class of the embeddings and the name of their model."""
        return {
            "family": "langchain-embeddings",
            "class": type(self.embeddings).__name__,
            "model": self.model_name,
        }

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """Return one (1, dim) float32 unit row per query."""
        texts = check_texts(queries, "query")
        return self._matrices([self.embeddings.embed_query(text) for text in texts])

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """Return one (1, dim) float32 unit row per document."""
        return self._matrices(self.embeddings.embed_documents(check_texts(documents, "document")))

    def _matrices(self, vectors: Sequence[Sequence[float]]) -> list[FloatMatrix]:
        return [unit_rows(vector, self.dim) for vector in vectors]


def as_model(model: Model) -> LateInteractionModel:
    """Return a model unchanged, load the checkpoint of a name, or wrap embeddings as an `EmbeddingsModel`.

    Raises:
        TypeError: it is none of these.
    """
    match model:
        case LateInteractionModel():
            return model
        case Embeddings():
            return EmbeddingsModel(model)
        case str():
            return load_model(model)
        case _:
            raise TypeError(
                "model must be a LateInteractionModel such as ColBERTModel, the name of a checkpoint, or "
                f"LangChain Embeddings, not {type(model).__name__}."
            )


def unit_rows(vectors: ArrayLike, dim: int) -> FloatMatrix:
    """Return vectors as (n, dim) float32 rows of length 1; a flat list is one vector.

    Raises:
        ValueError: they are not numbers, their shape is wrong, or a vector is zero or not finite.
    """
    try:
        matrix = np.atleast_2d(np.asarray(vectors, np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"vectors must be numbers of shape ({dim},) or (n ≥ 1, {dim}), not {vectors!r:.60}."
        ) from error
    if matrix.ndim != 2 or matrix.shape[1] != dim or not len(matrix):
        raise ValueError(f"vectors must have shape ({dim},) or (n ≥ 1, {dim}), not {np.shape(vectors)}.")
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("vectors must be finite and not zero.")
    unit: FloatMatrix = matrix / lengths
    return unit


def _name(embeddings: Embeddings) -> str:
    for attribute in _NAMES:
        if isinstance(name := getattr(embeddings, attribute, None), str):
            return name
    return type(embeddings).__name__
