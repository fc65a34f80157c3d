"""Stores of the tests of the LangChain adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_lateint import LateInteractionVectorStore
from tests.support.models import HashModel

METADATAS: list[dict[str, Any]] = [
    {"n": 1, "colour": "red", "tags": ["fruit", "x"], "author": {"name": "Ada"}},
    {"n": 2, "colour": "red", "tags": ["fruit"], "score": 0.5},
    {"n": 3, "colour": "green", "tags": [], "score": None},
    {"n": 4, "colour": "blue", "deep": True},
]


def in_folder(folder: Path, **options: Any) -> LateInteractionVectorStore:
    return LateInteractionVectorStore(
        **({"model": HashModel(), "path": folder, "doc_pool_factor": 1} | options)
    )
