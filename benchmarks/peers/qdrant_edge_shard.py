"""qdrant-edge: a shard in a folder, multi-vectors, exact MaxSim or by its HNSW graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qe
from harness import main


class QdrantEdge:
    """A shard, searched exactly: an HNSW graph of multi-vectors did not finish in the time given to a peer."""

    name, package = "qdrant-edge, exact", "qdrant-edge-py"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        vectors = qe.EdgeVectorParams(
            size=documents[0].shape[1],
            distance=qe.Distance.Dot,
            multivector_config=qe.MultiVectorConfig(comparator=qe.MultiVectorComparator.MaxSim),
        )
        shard = qe.EdgeShard.create(str(folder), qe.EdgeConfig(vectors={"v": vectors}))
        for first in range(0, len(documents), 100):
            points = [
                qe.Point(id=first + i, vector={"v": each.tolist()}, payload={})
                for i, each in enumerate(documents[first : first + 100])
            ]
            shard.update(qe.UpdateOperation.upsert_points(points))
        shard.flush()
        shard.close()

    def open(self, folder: Path) -> None:
        self.shard = qe.EdgeShard.load(str(folder))

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {"exact": True}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        found = self.shard.query(
            qe.QueryRequest(
                limit=k,
                query=qe.Query.Nearest(query.tolist(), using="v"),
                params=qe.SearchParams(exact=setting["exact"]),
            )
        )
        return [int(point.id) for point in found]


if __name__ == "__main__":
    main(QdrantEdge)
