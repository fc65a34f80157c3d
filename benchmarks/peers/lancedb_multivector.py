"""LanceDB: a multi-vector column, searched without an index and with IVF_PQ."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from harness import main


class LanceDB:
    """A table in a folder; MaxSim by cosine, as LanceDB has it."""

    name, package = "LanceDB, multivector, no index", "lancedb"

    def build(self, folder: Path, documents: Sequence[np.ndarray]) -> None:
        dim = documents[0].shape[1]
        schema = pa.schema([("id", pa.int64()), ("v", pa.list_(pa.list_(pa.float32(), dim)))])
        rows = [{"id": i, "v": each.tolist()} for i, each in enumerate(documents)]
        self.table = lancedb.connect(str(folder)).create_table("documents", rows, schema=schema)

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        found = self.table.search(query.tolist(), vector_column_name="v").distance_type("cosine")
        return [int(row["id"]) for row in found.select(["id"]).limit(k).to_list()]


if __name__ == "__main__":
    main(LanceDB)
