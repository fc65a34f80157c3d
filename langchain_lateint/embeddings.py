"""EmbeddingsModel: a LangChain `Embeddings` as a model with one vector per text, beside late interaction."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from langchain_core.embeddings import Embeddings
from langchain_core.runnables import Runnable
from numpy.typing import ArrayLike
from typing_extensions import override

from late_interaction import LateInteractionModel, load_model
from late_interaction.adapting import FloatMatrix, check_texts

Model: TypeAlias = LateInteractionModel | Embeddings | str

_NAMES = ("model_name", "model", "model_id", "deployment", "azure_deployment", "repo_id", "endpoint_name")
"""The attributes in which LangChain's embeddings keep the name of what makes their vectors."""

_NAMES_ONCE = ("model_name", "model", "model_id", "deployment")
"""Those that were looked at, of the outermost object alone, before the names inside and the probe were kept."""

_FAMILY = {"family": "langchain-embeddings"}
_PROBE = "dimension"
_PROBE_SIZE = 16
_PROBE_TOLERANCE = 0.01
"""The same model's vectors differ by less from call to call, where a service rounds or a GPU sums in another order."""


class EmbeddingsModel(LateInteractionModel):
    """A LangChain `Embeddings` as a model that encodes a text as one unit vector. MaxSim is then the cosine similarity.

    Only the embeddings' sync methods are called, on a thread of the model's own, because async clients belong to the
    event loop that uses them elsewhere.

    >>> from langchain_core.embeddings import DeterministicFakeEmbedding
    >>> model = EmbeddingsModel(DeterministicFakeEmbedding(size=16))
    >>> [matrix.shape for matrix in model.encode_documents(["one text", "another"])]
    [(1, 16), (1, 16)]

    An index opens only with the embeddings it was built with. They are recognised by their class, by every model name
    found in them and in the embeddings they wrap (`CacheBackedEmbeddings` and the like), and by the vector of one word.

    Args:
        embeddings: embeds queries and documents.
        name: names the model in place of the names found.
        dim: width of a vector. By default it is found by embedding one word, which may be a call to a service. With
            `dim` no such call is made, and the embeddings are recognised by their names alone.
    """

    def __init__(self, embeddings: Embeddings, name: str | None = None, *, dim: int | None = None) -> None:
        if not isinstance(embeddings, Embeddings):
            raise TypeError(f"embeddings must be LangChain Embeddings, not {type(embeddings).__name__}.")
        names = {} if name is not None else dict(_names_inside(embeddings))
        self.embeddings = embeddings
        found = [value for path, value in names.items() if not path.endswith(".class")]
        self.model_name = name or next(iter(found), type(embeddings).__name__)
        self._fingerprint: Mapping[str, Any] = {
            **_FAMILY,
            "class": type(embeddings).__name__,
            "model": self.model_name,
            "names": names,
        }
        self._before_names = {
            **_FAMILY,
            "class": type(embeddings).__name__,
            "model": name or _outermost_name(embeddings),
        }
        if dim is None:
            vector = unit_rows(embeddings.embed_query(_PROBE))[0]
            dim, probed = len(vector), _probed(embeddings)
            if probed is not embeddings:
                vector = unit_rows(probed.embed_query(_PROBE))[0]
            self._fingerprint = {
                **self._fingerprint,
                "probe": [float(value) for value in vector[:_PROBE_SIZE]],
            }
        self.dim = dim

    def __repr__(self) -> str:
        # Not the embeddings' own repr, which may show a service's key.
        return f"EmbeddingsModel({type(self.embeddings).__name__}, {self.model_name!r})"

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """Return the class of the embeddings, the names in them, and the beginning of the vector of one word."""
        return self._fingerprint

    @override
    def as_built(self, encoder: Mapping[str, Any]) -> EmbeddingsModel:
        ours, theirs = dict(self._fingerprint), dict(encoder)
        probe, other = ours.pop("probe", None), theirs.pop("probe", None)
        is_same = ours == theirs and (probe is None or other is None or _is_near(probe, other))
        if not is_same and encoder != self._before_names:
            return self
        model = copy.copy(self)
        model._fingerprint = encoder  # noqa: SLF001 - a copy of this object
        return model

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


def unit_rows(vectors: ArrayLike, dim: int | None = None) -> FloatMatrix:
    """Return vectors as (n, dim) float32 rows of length 1; a flat list is one vector.

    Raises:
        ValueError: they are not numbers, their shape is wrong, or a vector is zero or not finite.
    """
    wanted = "dim" if dim is None else dim
    try:
        matrix = np.atleast_2d(np.asarray(vectors, np.float32))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"vectors must be numbers of shape ({wanted},) or (n ≥ 1, {wanted}), not {vectors!r:.60}."
        ) from error
    if matrix.ndim != 2 or not matrix.size or (dim is not None and matrix.shape[1] != dim):
        raise ValueError(
            f"vectors must have shape ({wanted},) or (n ≥ 1, {wanted}), not {np.shape(vectors)}."
        )
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise ValueError("vectors must be finite and not zero.")
    unit: FloatMatrix = matrix / lengths
    return unit


def _names_inside(
    thing: object, path: str = "", seen: frozenset[int] = frozenset()
) -> Iterator[tuple[str, str]]:
    """Yield the names in embeddings and in the embeddings that they wrap, each with the path of its attribute."""
    for attribute in _NAMES:
        name = getattr(thing, attribute, None)
        if isinstance(name, str) and name:
            yield f"{path}{attribute}", name
    for attribute, inner in _inside(thing):
        if id(inner) not in seen:
            inside = f"{path}{attribute}."
            yield f"{inside}class", type(inner).__name__
            yield from _names_inside(inner, inside, seen | {id(thing)})


def _inside(thing: object) -> Iterator[tuple[str, Embeddings]]:
    """Yield the embeddings that others wrap, each with its attribute."""
    for attribute, value in getattr(thing, "__dict__", {}).items():
        for inner in value if isinstance(value, list | tuple) else [value]:
            if isinstance(inner, Embeddings):
                yield attribute, inner


def _probed(embeddings: Embeddings, seen: frozenset[int] = frozenset()) -> Embeddings:
    """Return the embeddings whose vector of a word is always the same.

    Those are the given ones, unless a language model writes what is embedded for a query, as in
    `HypotheticalDocumentEmbedder`: then those inside, which embed what it writes.
    """
    inside = [inner for _, inner in _inside(embeddings) if id(inner) not in seen]
    seen |= {id(embeddings)}
    writes = any(isinstance(value, Runnable) for value in getattr(embeddings, "__dict__", {}).values())
    for inner in inside:
        if writes or _probed(inner, seen) is not inner:
            return _probed(inner, seen)
    return embeddings


def _is_near(probe: Sequence[float], other: Sequence[float]) -> bool:
    return len(probe) == len(other) and bool(np.allclose(probe, other, rtol=0, atol=_PROBE_TOLERANCE))


def _outermost_name(embeddings: Embeddings) -> str:
    for attribute in _NAMES_ONCE:
        if isinstance(name := getattr(embeddings, attribute, None), str):
            return name
    return type(embeddings).__name__
