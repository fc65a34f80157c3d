"""Embeddings of texts that are vectors themselves, where a contract says which vectors are near to which."""

from __future__ import annotations

import json
import math

from langchain_core.embeddings import Embeddings


class Coordinates(Embeddings):
    """A text such as "[1, 2]" is that vector, scaled to length 1; any other text is [1, 0]."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        vector = [float(one) for one in json.loads(text)] if text.startswith("[") else [1.0, 0.0]
        return [one / math.hypot(*vector) for one in vector]


def on_circle(twentieths: int) -> str:
    """Return a text for a vector of two dimensions, at so many twentieths of a turn."""
    angle = 2 * math.pi * twentieths / 20
    return json.dumps([math.cos(angle), math.sin(angle)])
