"""Narrower token vectors for a collection: an affine map fitted on its own tokens, behind any text encoder.

For plain encoders of 384 dimensions and more; a trained ColBERT is narrow already. docs/encoders.md says what it
costs in quality and saves in storage.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from late_interaction.encoders.base import LateInteractionModel, Role
from late_interaction.errors import ModelError
from late_interaction.types import FloatMatrix
from late_interaction.validation import first_line, unit_rows

_BATCH = 256
_NAME = "projection"
_NO_VARIANCE = 1e-9


class ProjectedModel(LateInteractionModel):
    """A text encoder whose token vectors are mapped to fewer dimensions and made unit vectors again.

    `fit_projection` makes one. The map is part of the fingerprint, so an index keeps it: a pipeline that opens
    such an index with the encoder alone takes the map from there.

    Args:
        model: the encoder.
        projection: (model.dim + 1, dim): a linear map, applied from the right, and in the last row what is added
            then. It is kept in float16.

    Attributes:
        model: the encoder.
        projection: (model.dim + 1, dim) float32, with the values that float16 has.

    Raises:
        ValueError: the map is not for vectors of this model, or does not narrow them.
    """

    def __init__(self, model: LateInteractionModel, projection: NDArray[Any]) -> None:
        if projection.ndim != 2 or projection.shape[0] != model.dim + 1:
            raise ValueError(
                f"the projection has shape {projection.shape}; vectors of {model.model_name} need "
                f"({model.dim + 1}, dim), as fit_projection makes it."
            )
        if not 1 <= projection.shape[1] < model.dim:
            raise ValueError(f"dim must be at least 1 and below {model.dim}, not {projection.shape[1]}.")
        with np.errstate(over="ignore"):
            packed = np.ascontiguousarray(projection, "<f2")
        if not np.isfinite(packed).all():
            raise ValueError(
                "the projection has numbers that are not finite in float16: fit one anew, with fit_projection."
            )
        self.model = model
        self.model_name = model.model_name
        self.protected_tokens = model.protected_tokens
        self.document_length = model.document_length
        self.projection: FloatMatrix = packed.astype(np.float32)
        self.dim = int(packed.shape[1])
        self._packed = packed.tobytes()

    def __repr__(self) -> str:
        return f"ProjectedModel({self.model!r}, dim={self.dim})"

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """The encoder's, with this `dim`, and the map: its hash, and itself (float16 by rows, in base64)."""
        return {
            **self.model.fingerprint,
            "dim": self.dim,
            _NAME: {
                "from_dim": self.model.dim,
                "sha256": hashlib.sha256(self._packed).hexdigest(),
                "map": base64.b64encode(self._packed).decode(),
            },
        }

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per query, in the order given."""
        return [self._project(matrix) for matrix in self.model.encode_queries(queries)]

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per document, in the order given."""
        return [self._project(matrix) for matrix in self.model.encode_documents(documents)]

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """How many of the texts are longer than the encoder reads."""
        return self.model.count_truncated(texts, role)

    def unread_shares(self, texts: Sequence[str], role: Role = "document") -> list[float | None]:
        """Tell how much of each text the encoder does not read."""
        return self.model.unread_shares(texts, role)

    def count_tokens(self, texts: Sequence[str], role: Role = "document") -> list[int]:
        """Count the tokens of each text as the encoder reads it."""
        return self.model.count_tokens(texts, role)

    def query_spans(self, query: str) -> list[tuple[int, int]] | None:
        """Tell which characters of a query each row stands for, if the encoder does."""
        return self.model.query_spans(query)

    def document_spans(self, document: str) -> list[tuple[int, int]] | None:
        """Tell which characters of a document each row stands for, if the encoder does."""
        return self.model.document_spans(document)

    def as_built(self, encoder: Mapping[str, Any]) -> LateInteractionModel:
        """Return the projection behind the encoder in the form in which the index was built with it."""
        model = self.model.as_built(encoder)
        return self if model is self.model else ProjectedModel(model, self.projection)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the map to a safetensors file, with the fingerprint of the encoder that it belongs to."""
        from safetensors.numpy import save_file

        encoder = json.dumps(dict(self.model.fingerprint))
        save_file({_NAME: self.projection.astype(np.float16)}, path, metadata={"encoder": encoder})

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: LateInteractionModel) -> Self:
        """Load the map of a file that `save` wrote, behind the encoder that it was fitted for.

        Raises:
            ModelError: the file cannot be read, or belongs to another encoder; the message says what differs.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="np") as file:
                encoder = json.loads((file.metadata() or {})["encoder"])
                projection = file.get_tensor(_NAME)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(
                f"{os.fspath(path)} holds no projection that can be read: {first_line(error)} Fit one anew, with "
                "fit_projection."
            ) from error
        here = _as_json(model.fingerprint)
        # What is done with long documents does not change what a token's vector is, nor does the dtype much.
        keys = (encoder.keys() | here.keys()) - {"long_documents", "dtype"}
        differing = sorted(key for key in keys if encoder.get(key) != here.get(key))
        if differing:
            raise ModelError(
                f"{os.fspath(path)} was fitted for another encoder than {model.model_name}: {', '.join(differing)} "
                "differ. Load it with that one, or fit one anew, with fit_projection."
            )
        return cls(model, projection)

    def _project(self, matrix: FloatMatrix) -> FloatMatrix:
        return unit_rows(matrix @ self.projection[:-1] + self.projection[-1])


def fit_projection(model: LateInteractionModel, texts: Iterable[str], dim: int = 192) -> ProjectedModel:
    """Fit the map by principal components of the tokens of these documents.

    The tokens' mean is taken off, as is usual: tokens of a plain encoder share a direction that tells nothing apart,
    and with the mean kept the figures of docs/encoders.md are worse.

    Args:
        model: the encoder, of more than `dim` dimensions.
        texts: documents of the collection, or a fair sample of some hundreds; they are encoded once here.
        dim: width of the vectors afterwards.

    Raises:
        TypeError: `texts` is a bare str.
        ValueError: `dim` does not narrow the vectors, or the texts' tokens do not span so many dimensions.
    """
    if not 1 <= dim < model.dim:
        raise ValueError(f"dim must be at least 1 and below {model.dim}, not {dim}.")
    if isinstance(texts, str):
        raise TypeError("Pass a list of documents, not a bare str.")
    moments = Moments(model.dim)
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        for matrix in model.encode_documents(batch):
            moments.add(matrix)
    return ProjectedModel(model, moments.projection(dim))


class Moments:
    """First and second moments of token vectors, taken a matrix at a time: all that principal components need.

    Args:
        dim: width of the vectors.
    """

    def __init__(self, dim: int) -> None:
        self._count = 0
        self._sum = np.zeros(dim)
        self._products = np.zeros((dim, dim))

    def add(self, matrix: FloatMatrix) -> None:
        """Take in the rows of a matrix."""
        rows = matrix.astype(np.float64)
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def projection(self, dim: int) -> NDArray[np.float64]:
        """Return the (n + 1, dim) affine map onto the `dim` principal components, each with a fixed sign.

        Raises:
            ValueError: the rows do not span so many dimensions.
        """
        mean = self._sum / max(1, self._count)
        variances, axes = np.linalg.eigh(self._products / max(1, self._count) - np.outer(mean, mean))
        if variances[-dim] <= _NO_VARIANCE:
            raise ValueError(f"{self._count} tokens do not span {dim} dimensions: give more texts.")
        components = axes[:, ::-1][:, :dim]
        components *= np.sign(components[np.abs(components).argmax(axis=0), np.arange(dim)])
        return np.vstack([components, -mean @ components])


def restored(model: LateInteractionModel, encoder: Mapping[str, Any]) -> LateInteractionModel:
    """Return the model in the form in which an index was built with it.

    That is with the projection that the index holds, and cutting long documents as the index's were cut.

    Args:
        model: the encoder.
        encoder: the fingerprint of the index's encoder.

    Returns:
        A model whose fingerprint is the index's; the model itself where the index was built with another encoder.
    """
    made = model.as_built(encoder)
    kept = encoder.get(_NAME)
    if kept is not None and not isinstance(made, ProjectedModel):
        fitted_for = {**encoder, "dim": kept["from_dim"]}
        del fitted_for[_NAME]
        if fitted_for != _as_json({**made.fingerprint, "dim": made.dim}):
            return model
        packed = np.frombuffer(base64.b64decode(kept["map"]), "<f2")
        made = ProjectedModel(made, packed.reshape(made.dim + 1, -1))
    return made if _as_json(made.fingerprint) == dict(encoder) else model


def _as_json(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values as an index gives them back: lists, not tuples."""
    values: dict[str, Any] = json.loads(json.dumps(dict(fingerprint)))
    return values
