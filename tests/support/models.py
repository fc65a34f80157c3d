"""An encoder for tests: no weights, no downloads, and a text is its own best match."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from late_interaction import LateInteractionModel
from late_interaction.encoders.base import Role, check_texts


class HashModel(LateInteractionModel):
    """Each word is a unit vector drawn from its own hash; the same word is the same vector everywhere."""

    def __init__(self, dim: int = 32, name: str = "hash", limit: int = 10_000) -> None:
        self.dim = dim
        self.model_name = name
        self.limit = limit
        self.encoded: list[str] = []
        self.threads: set[int] = set()

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"family": "hash", "model": self.model_name, "limit": self.limit}

    def encode_queries(self, queries: Sequence[str]) -> list[np.ndarray]:
        return [self._encode(text) for text in check_texts(queries, "query")]

    def encode_documents(self, documents: Sequence[str]) -> list[np.ndarray]:
        texts = check_texts(documents, "document")
        if any("unencodable" in text for text in texts):
            raise ValueError("this text cannot be encoded.")
        self.encoded += texts
        self.threads.add(threading.get_ident())
        return [self._encode(text) for text in texts]

    def count_truncated(self, texts: Sequence[str], role: Role = "document") -> int:
        return sum(len(text.split()) > self.limit for text in texts)

    def _encode(self, text: str) -> np.ndarray:
        return np.stack([self.word(word) for word in text.lower().split()[: self.limit]])

    def word(self, word: str) -> np.ndarray:
        row = np.random.default_rng(zlib.crc32(word.encode())).normal(size=self.dim)
        return (row / np.linalg.norm(row)).astype(np.float32)
