"""chroma with one vector a document, the mean of its token vectors: what people use instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
from harness import main


def mean(matrix: np.ndarray) -> list[float]:
    return (matrix.mean(axis=0) / np.linalg.norm(matrix.mean(axis=0))).tolist()


def client(folder: Path) -> chromadb.ClientAPI:
    return chromadb.PersistentClient(str(folder), settings=chromadb.Settings(anonymized_telemetry=False))


class Chroma:
    """A persistent collection, by inner product."""

    name, package = "chroma, one vector a document", "chromadb"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        collection = client(folder).create_collection("documents", metadata={"hnsw:space": "ip"})
        for first in range(0, len(documents), 1000):
            some = documents[first : first + 1000]
            ids = [str(first + i) for i in range(len(some))]
            collection.add(ids=ids, embeddings=[mean(each) for each in some])

    def open(self, folder: Path) -> None:
        self.collection = client(folder).get_collection("documents")

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        found = self.collection.query(query_embeddings=[mean(query)], n_results=k, include=[])
        return [int(each) for each in found["ids"][0]]


if __name__ == "__main__":
    main(Chroma)
