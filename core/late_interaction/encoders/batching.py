"""Put inputs together into batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


def token_batches(lengths: Sequence[int], budget: int, most: int | None = None) -> Iterator[list[int]]:
    """Yield the positions of inputs that go through the model together, the longest first.

    Args:
        lengths: tokens (or pixels) of each input.
        budget: most tokens in a batch, each input padded to the longest; an input that is longer goes alone.
        most: most inputs in a batch; None for as many as the budget allows.
    """
    order = np.argsort(np.negative(lengths), kind="stable").tolist()
    while order:
        size = max(1, budget // max(1, lengths[order[0]]))
        size = size if most is None else min(size, most)
        yield order[:size]
        del order[:size]
