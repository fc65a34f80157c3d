"""What the pipeline needs of a model. Subclass `LateInteractionModel` to bring your own encoder."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import ModelError
from late_interaction.pooling import pool_document_grouped
from late_interaction.recipes import check_picklable
from late_interaction.types import FloatMatrix
from late_interaction.validation import check_matrix

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)
T = TypeVar("T")
Role = Literal["query", "document"]
Item: TypeAlias = "str | Image.Image"
"""What a model with `supports_images` encodes."""


_NAMED = 10
EXECUTOR_PREFIX = "_executor_"
"""Attributes that hold the model's thread begin so; a process id follows."""


class LateInteractionModel(ABC):
    """An encoder that gives one unit vector per token.

    A subclass sets `dim`, `model_name` and `fingerprint` and implements `encode_queries` and
    `encode_documents`; everything else has a sensible default, and there is no `__init__` to call.

    Attributes:
        dim: width of a token vector.
        model_name: the checkpoint's name or path, for messages.
        supports_images: True where queries and documents may be PIL images too, in one list with texts.
        protected_tokens: how many leading vectors of a document (its [CLS] and marker) pooling leaves alone.
        document_length: most tokens of a document that are read at once; None where there is no limit.
        calls_at_once: how many calls the model does at a time, each on a thread of its own; 1 unless it says that
            threads may share it.
    """

    dim: int
    model_name: str
    supports_images: bool = False
    protected_tokens: int = 0
    document_length: int | None = None
    calls_at_once: int = 1

    @property
    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """All that decides what a text's vectors are, as JSON values by name.

        It is kept with the index, and an index opens only with a model whose fingerprint is the same.
        """

    @abstractmethod
    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per query, in the order given.

        Raises:
            ValueError: a query is empty or only white space (`check_texts` sees to that).
        """

    @abstractmethod
    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        """One (n_tokens, dim) float32 matrix of unit rows per document, in the order given.

        Raises:
            ValueError: a document is empty or only white space (`check_texts` sees to that).
        """

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        """How many of the texts are longer than the model reads, and so lose their end."""
        return 0

    def unread_shares(self, texts: Sequence[str], role: Role = "document") -> list[float | None]:
        """Tell how much of each text is not read: 0 where all of it is, None where it is some, but not known how much.

        A model that can tell overrides it; by default it goes by `count_truncated`, which has to count them alike.
        """
        return [None if self.count_truncated([text], role) else 0.0 for text in texts]

    def count_tokens(self, texts: Sequence[str], role: Role = "document") -> list[int]:
        """Count the tokens of each text as the model reads it, for `passages`, which makes texts that fit.

        Raises:
            ModelError: this kind of model does not say.
        """
        raise ModelError(
            f"{type(self).__name__} does not count tokens: implement count_tokens, or give max_tokens and no model."
        )

    def query_spans(self, query: str) -> list[tuple[int, int]] | None:
        """Tell which characters of a query each row of its matrix stands for: start and end; equal for none.

        Rows that are added behind the text, such as those of a query expansion, may be left out. None, the default,
        where the model does not say.
        """
        return None

    def document_spans(self, document: str) -> list[tuple[int, int]] | None:
        """Tell which characters of a document each row of its matrix stands for, as `query_spans` does."""
        return None

    def encode_placed(self, image: Image.Image) -> tuple[FloatMatrix, NDArray[np.int64]]:
        """Encode an image, and tell which rows of its matrix are its patches.

        Returns:
            The matrix as `encode_documents` has it, and (rows, columns) of the patches as they lie in the image, each
            the number of its row in the matrix.

        Raises:
            ModelError: the model does not say where its vectors lie.
        """
        raise ModelError(
            f"{self.model_name} does not tell which part of an image its vectors stand for: there is no heat map, "
            "unless its class implements encode_placed."
        )

    def as_built(self, encoder: Mapping[str, Any]) -> LateInteractionModel:
        """Return this model in the form in which an index was built with it; by default the model as it is.

        Args:
            encoder: the fingerprint of the index's encoder.
        """
        return self

    def scaled_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return the width and height to which the model scales an image of this width and height.

        Images that are far larger are shrunk while they are read, so that they take less memory. By default every
        pixel is kept.
        """
        return size

    async def aencode_queries(self, queries: Sequence[Item]) -> list[FloatMatrix]:
        """`encode_queries` on the model's own thread, so that the event loop stays free."""
        return await self.run(self.encode_queries, queries)

    async def aencode_documents(self, documents: Sequence[Item]) -> list[FloatMatrix]:
        """`encode_documents` on the model's own thread, so that the event loop stays free."""
        return await self.run(self.encode_documents, documents)

    async def run(self, fn: Callable[..., T], *args: Any) -> T:
        """`fn(*args)` on the model's own thread: one call at a time, from any number of event loops.

        With `calls_at_once` there are so many threads. They start at the first calls, see the caller's context
        variables, and end with `close()`, with the model, or with the interpreter. It is not the event loop's default
        executor, where a long encoding would hold up everybody else's work.

        Raises:
            ModelError: it raised what no thread can hand on: SystemExit, which would end the event loop, or
                KeyboardInterrupt, StopIteration and the like.
        """
        call = partial(contextvars.copy_context().run, self._call, fn, *args)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _call(self, fn: Callable[..., T], *args: Any) -> T:
        try:
            return fn(*args)
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopIteration):
                raise
            raise ModelError(f"{self.model_name} raised {error!r} on its thread.") from error

    def __getstate__(self) -> dict[str, Any]:
        state = self._state()
        check_picklable(self, state)
        return state

    def __copy__(self) -> Self:
        """Return a model that shares all but the thread."""
        copied = object.__new__(type(self))
        vars(copied).update(self._state())
        return copied

    def _state(self) -> dict[str, Any]:
        """Return the attributes but for the thread."""
        return {name: value for name, value in vars(self).items() if not name.startswith(EXECUTOR_PREFIX)}

    def close(self) -> None:
        """End the model's thread once it has done what it was given; a later call starts another."""
        executor = vars(self).pop(_executor_name(), None)
        if executor is not None:
            executor.shutdown(wait=False)

    @property
    def _executor(self) -> ThreadPoolExecutor:
        # One for each process, since a fork copies the executor but not its thread. It is kept without a
        # lock, which a fork could copy while it is held: `setdefault` is atomic, and an executor that
        # comes second has started no thread. Made here, not in `__init__`, so that no subclass has to
        # call ours.
        name = _executor_name()
        executor: ThreadPoolExecutor | None = vars(self).get(name)
        if executor is None:
            made = ThreadPoolExecutor(self.calls_at_once, thread_name_prefix=type(self).__name__)
            executor = vars(self).setdefault(name, made)
        return executor


class NoTokenError(ValueError):
    """A text has no token that the model knows, such as one of private characters alone."""


async def encode_checked(
    model: LateInteractionModel, items: Sequence[Item], role: Role
) -> tuple[list[FloatMatrix], list[float | None]]:
    """Encode items and check what the model returns.

    Returns:
        (n_tokens, dim) float32 for each item, and how much of it was not read, as `unread_shares` says; 0 for an image.

    Raises:
        ModelError: the model returned more or fewer matrices than items, or no list of them.
        NoTokenError: a text has no token.
        ValueError: an item cannot be encoded, or a matrix has another shape or rows that are not unit vectors.
    """
    encode = model.aencode_queries if role == "query" else model.aencode_documents
    matrices = await encode(items)
    if not isinstance(matrices, Sized):
        raise ModelError(
            f"{model.model_name} gave {type(matrices).__name__} for {len(items)} items to encode: its methods have to "
            "return a list of one matrix for each, (n_tokens, dim)."
        )
    if len(matrices) != len(items):
        raise ModelError(
            f"{model.model_name} gave {len(matrices)} matrices for {len(items)} items to encode: its methods have to "
            "give one for each, in their order."
        )
    checked = [check_matrix(matrix, model.dim) for matrix in matrices]
    texts = [item for item in items if isinstance(item, str)]
    shares = iter(await model.run(model.unread_shares, texts, role))
    return checked, [next(shares) if isinstance(item, str) else 0.0 for item in items]


def pooled(model: LateInteractionModel, matrix: FloatMatrix, factor: float) -> FloatMatrix:
    """Pool a document's (n_tokens, dim) vectors as an index keeps them; a document without any stays so."""
    return pooled_grouped(model, matrix, factor)[0]


def pooled_grouped(
    model: LateInteractionModel, matrix: FloatMatrix, factor: float
) -> tuple[FloatMatrix, NDArray[np.int64]]:
    """Do `pooled`, and tell which vector each token went into: (n_tokens,) rows."""
    if len(matrix) == 0:
        return matrix, np.empty(0, np.int64)
    protected, reads = model.protected_tokens, model.document_length
    return pool_document_grouped(matrix, factor, protected_tokens=protected, read_at_once=reads)


def warn_of_cut_queries(model: LateInteractionModel, shares: Sequence[float | None]) -> None:
    """Log how many queries were longer than the model reads, if any were, by how much of each was not read."""
    if n_cut := sum(share != 0 for share in shares):
        logger.warning(
            "%d of %d queries are longer than %s reads: their ends were not encoded.",
            n_cut,
            len(shares),
            model.model_name,
        )


def warn_of_cut_documents(model: LateInteractionModel, truncated: Mapping[str, float | None], n: int) -> None:
    """Log which of `n` documents were longer than the model reads, if any were, and how much of each was not read."""
    if truncated:
        named = [
            f"{doc_id!r:.80}" if share is None else f"{doc_id!r:.80} ({max(share, 0.01):.0%})"
            for doc_id, share in list(truncated.items())[:_NAMED]
        ]
        more = f" and {len(truncated) - _NAMED} more" if len(truncated) > _NAMED else ""
        logger.warning(
            "%d of %d documents are longer than %s reads: their ends were not encoded. They are, with the share that "
            "was not, %s%s; `.truncated` of the result names all.",
            len(truncated),
            n,
            model.model_name,
            ", ".join(named),
            more,
        )


def warn_of_documents_without_token(model: LateInteractionModel, doc_ids: Sequence[str], n: int) -> None:
    """Log which of `n` documents have no token that the model knows, if any do: they are stored, and never found."""
    if doc_ids:
        named = ", ".join(f"{doc_id!r:.80}" for doc_id in doc_ids[:_NAMED])
        logger.warning(
            "%d of %d documents have no token that %s knows, so no search finds them: %s%s.",
            len(doc_ids),
            n,
            model.model_name,
            named,
            " and others" if len(doc_ids) > _NAMED else "",
        )


def check_texts(texts: Iterable[str], role: Role) -> list[str]:
    """Return the texts as a list, after checking that each one holds something to encode.

    Raises:
        TypeError: `texts` is a bare str, or an item is no str.
        ValueError: an item is empty or only white space, or holds half a surrogate pair, which no tokeniser
            and no store takes. The message names its position.
    """
    if isinstance(texts, str):
        plural = "queries" if role == "query" else "documents"
        raise TypeError(f"Pass a list of {plural}, not a bare str: [{texts[:40]!r}].")
    checked = list(texts)
    for position, text in enumerate(checked):
        if not isinstance(text, str):
            raise TypeError(
                f"The {role} at position {position} is not a str but {type(text).__name__}: give its text, as by str()."
            )
        if not text.strip():
            raise ValueError(f"The {role} at position {position} is empty or only white space: leave it out.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(
                f"The {role} at position {position} is not valid Unicode: half of a surrogate pair stands at character "
                f"{error.start}. Decode it anew, with errors='replace' if need be."
            ) from error
    return checked


def check_items(items: Sequence[Item], role: Role) -> list[Any]:
    """Return the items as a list, after checking that each one is an image or a text that holds something."""
    from PIL import Image

    if isinstance(items, str):
        check_texts(items, role)
    if isinstance(items, Image.Image):
        raise TypeError("Pass a list of images, not a bare image.")
    checked = list(items)
    for position, item in enumerate(checked):
        if not isinstance(item, str | Image.Image):
            raise TypeError(
                f"The {role} at position {position} is neither a str nor a PIL image but {type(item).__name__}; "
                "load_image makes one of a path, bytes or a URL."
            )
        if not isinstance(item, str) and 0 in item.size:
            raise ValueError(
                f"The {role} at position {position} is an image without pixels, {item.size}: leave it out."
            )
    check_texts([item if isinstance(item, str) else "image" for item in checked], role)
    return checked


def without_tokens(text: str, tokens: Sequence[str]) -> str:
    """Break up special tokens in a text: "<image>" in it is not an image, and would be taken for one."""
    if not tokens:
        return text
    pattern = "|".join(map(re.escape, sorted(tokens, key=len, reverse=True)))
    return re.sub(pattern, lambda token: f"{token[0][0]} {token[0][1:]}", text)


def _executor_name() -> str:
    return f"{EXECUTOR_PREFIX}{os.getpid()}"
