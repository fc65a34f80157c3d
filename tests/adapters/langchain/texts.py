"""Four texts and their ids, and a short form."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.documents import Document

TEXTS = ["red apple", "red pear", "green apple tree", "blue sea water wave"]
IDS = ["a", "b", "c", "d"]


def ids(documents: Sequence[Document]) -> list[str | None]:
    return [document.id for document in documents]
