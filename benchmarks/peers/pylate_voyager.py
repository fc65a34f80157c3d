"""PyLate's Voyager index: an HNSW graph of all token vectors, the documents found scored by its retriever."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import main
from pylate import indexes, retrieve


class PyLateVoyager:
    """An index in a folder, at its defaults but for how many tokens are looked for."""

    name, package = "PyLate, Voyager", "pylate"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        index = indexes.Voyager(str(folder), "index", embedding_size=documents[0].shape[1])
        ids = [str(i) for i in range(len(documents))]
        index.add_documents(documents_ids=ids, documents_embeddings=list(documents))

    def open(self, folder: Path) -> None:
        index = indexes.Voyager(str(folder), "index")
        self.index, self.retriever = index, retrieve.ColBERT(index=index)

    def settings(self) -> Iterator[dict[str, Any]]:
        for k_token in (20, 50, 100, 200, 400):
            yield {"k_token": k_token}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        self.index.ef_search = max(200, setting["k_token"])
        (found,) = self.retriever.retrieve([query], k=k, **setting)
        return [int(each["id"]) for each in found]


if __name__ == "__main__":
    main(PyLateVoyager)
