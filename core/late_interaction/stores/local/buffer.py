"""Memory for token matrices to which more are added."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from late_interaction.errors import StoreError
from late_interaction.types import RaggedTokens


class TokenBuffer:
    """Memory for token matrices that has room for more, so that to add some does not copy the others.

    Earlier views go on reading their part of it.
    """

    def __init__(self) -> None:
        self._tokens: NDArray[Any] | None = None
        self._scales: NDArray[np.float32] | None = None

    def extended(self, tokens: RaggedTokens | None, more: RaggedTokens) -> RaggedTokens:
        """Return the matrices that this gave out last (none at first), and more."""
        if tokens is None or not len(tokens):
            tokens = RaggedTokens(
                more.tokens[:0], more.offsets[:1], None if more.scales is None else more.scales[:0]
            )
        if tokens.tokens.dtype != more.tokens.dtype:
            raise StoreError("token matrices differ in dtype, or one of them is damaged.")
        used = len(tokens.tokens)
        self._tokens = rows = _with_room(self._tokens, used, more.tokens)
        scales = None
        if more.scales is not None:
            self._scales = scales = _with_room(self._scales, used, more.scales)
        offsets = np.concatenate([tokens.offsets, used + more.offsets[1:]])
        total = int(offsets[-1])
        return RaggedTokens(rows[:total], offsets, None if scales is None else scales[:total])


def _with_room(buffer: NDArray[Any] | None, used: int, values: NDArray[Any]) -> NDArray[Any]:
    """Write values behind what is used, into a larger buffer where this one is full."""
    total = used + len(values)
    if buffer is None or total > len(buffer):
        larger = np.empty((total + used // 2, *values.shape[1:]), values.dtype)
        if buffer is not None:
            larger[:used] = buffer[:used]
        buffer = larger
    buffer[used:total] = values
    return buffer


def chosen_matrices(documents: RaggedTokens, chosen: NDArray[np.bool_]) -> RaggedTokens:
    """Return a copy of some of the matrices."""
    lengths = np.diff(documents.offsets)
    rows = np.repeat(chosen, lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths[chosen])])
    scales = None if documents.scales is None else documents.scales[rows]
    return RaggedTokens(documents.tokens[rows], offsets, scales)
