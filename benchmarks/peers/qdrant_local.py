"""qdrant-client in its local mode: multi-vectors, MaxSim in numpy, no index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import main
from qdrant_client import QdrantClient, models


class QdrantLocal:
    """A collection in a folder."""

    name, package = "qdrant, local mode", "qdrant-client"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        client = QdrantClient(path=str(folder))
        client.create_collection(
            "documents",
            vectors_config=models.VectorParams(
                size=documents[0].shape[1],
                distance=models.Distance.DOT,
                multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
            ),
        )
        for first in range(0, len(documents), 100):
            points = [
                models.PointStruct(id=first + i, vector=each.tolist())
                for i, each in enumerate(documents[first : first + 100])
            ]
            client.upsert("documents", points)
        client.close()

    def open(self, folder: Path) -> None:
        self.client = QdrantClient(path=str(folder))

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        found = self.client.query_points("documents", query=query.tolist(), limit=k)
        return [int(point.id) for point in found.points]


if __name__ == "__main__":
    main(QdrantLocal)
