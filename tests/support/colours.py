"""A model of images that needs no weights, and pictures that it tells apart."""

from __future__ import annotations

import io
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from late_interaction.encoders.base import Role
from tests.support.models import HashModel

COLOURS = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 128, 0), "white": (255, 255, 255)}


class ColourModel(HashModel):
    """Knows colours: an image's vectors are the words of the colours of its corners."""

    supports_images = True

    def __init__(self) -> None:
        super().__init__(name="colours")
        self.batches: list[int] = []

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"family": "colours"}

    def encode_queries(self, queries: Sequence[Any]) -> list[np.ndarray]:
        return [self._any(query) for query in queries]

    def encode_documents(self, documents: Sequence[Any]) -> list[np.ndarray]:
        self.batches.append(len(documents))
        self.threads.add(threading.get_ident())
        if any(not isinstance(item, str) and item.width > 10 * item.height for item in documents):
            raise ValueError("this image is too wide.")
        return [self._any(document) for document in documents]

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        assert all(isinstance(text, str) for text in texts)
        return super().count_truncated(texts, role)

    def _any(self, item: Any) -> np.ndarray:
        if isinstance(item, str):
            return self._encode(item)
        corners = [(0, 0), (item.width - 1, 0), (0, item.height - 1), (item.width - 1, item.height - 1)]
        pixels = [np.array(item.getpixel(corner)) for corner in corners]
        names = [min(COLOURS, key=lambda name: np.abs(pixel - COLOURS[name]).sum()) for pixel in pixels]
        return self._encode(" ".join(names))


def picture(*colours: str, width: int = 40, height: int = 30) -> Any:
    """A picture whose left and right halves have these colours."""
    from PIL import Image

    image = Image.new("RGB", (width, height), COLOURS[colours[0]])
    image.paste(COLOURS[colours[-1]], (width // 2, 0, width, height))
    return image


def png(*colours: str) -> bytes:
    file = io.BytesIO()
    picture(*colours).save(file, "PNG")
    return file.getvalue()
