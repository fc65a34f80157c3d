"""Tiny checkpoints of every visual family, and images to encode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from late_interaction.encoders.colpali_families import FAMILIES

pytest.importorskip("colpali_engine", reason="the colpali extra is not installed")

from PIL import Image

NAMES = [family.name for family in FAMILIES]
DIMS = {name: 16 if name.endswith("-native") else 320 if name == "colqwen3" else 128 for name in NAMES}
# What the library that is installed puts before a query; a checkpoint of another time needs query_prefix=.
PREFIXES = {"colpali-native": "Question: ", "colqwen2-native": "Query: ", "colgemma3": "Query: "}
TEXTS = ["the cat", "a chart of the rain on a page .", "dog"]


def noise(width: int, height: int, seed: int = 0) -> Any:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# Several shapes, so that batches have padding: of tokens, patches and tiles.
IMAGES = [noise(50, 40), noise(30, 90, 1), noise(64, 20, 2), noise(64, 64, 3)]


def largest_difference(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> float:
    assert [matrix.shape for matrix in some] == [matrix.shape for matrix in others]
    return max(float(np.abs(a - b).max()) for a, b in zip(some, others, strict=True))
