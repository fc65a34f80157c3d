"""Checkpoints of every format, and what the tests ask of their models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from late_interaction.encoders import ColBERTModel, LateInteractionModel, check_texts
from late_interaction.types import FloatMatrix
from tests.support import checkpoints

BUILDERS: dict[str, Callable[..., Path]] = {
    "stanford": checkpoints.stanford_checkpoint,
    "pylate": checkpoints.pylate_checkpoint,
    "multi-vector": checkpoints.native_checkpoint,
    "plain": checkpoints.plain_checkpoint,
}
WITH_MARKERS = ("stanford", "pylate")
TEXTS = ["hello world", "the cat, the dog.", "flow of heat and token index search", "wing"]


class Lengths(LateInteractionModel):
    """A user's own encoder, without an `__init__`: a text's vector is its length, as often as it has words."""

    dim = 1
    model_name = "lengths"

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        return {"model": self.model_name}

    def encode_queries(self, queries: Sequence[str]) -> list[FloatMatrix]:
        return [
            np.full((len(text.split()), 1), len(text), np.float32) for text in check_texts(queries, "query")
        ]

    def encode_documents(self, documents: Sequence[str]) -> list[FloatMatrix]:
        return self.encode_queries(documents)


def token_ids(model: ColBERTModel, text: str, role: str) -> list[int]:
    """What the backbone sees of one text."""
    features = model._encoder.preprocess([text], prompt=model._encoder.prompts[role], task=role)
    return features["input_ids"][0].tolist()


def n_tokens(tokens: str) -> int:
    """How many there are, written out for the reader."""
    return len(tokens.split())


def token_id(model: ColBERTModel, token: str) -> int:
    return model._tokenizer.convert_tokens_to_ids(token)
