"""LanceDB: a multi-vector column, searched without an index, or by IVF_PQ (`--index`)."""

from __future__ import annotations

import sys
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
        table = lancedb.connect(str(folder)).create_table("documents", schema=schema)
        for first in range(0, len(documents), 500):
            some = documents[first : first + 500]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(some).ravel()), dim)
            ends = pa.array(np.cumsum([0, *map(len, some)]), pa.int32())
            ids = pa.array(range(first, first + len(some)), pa.int64())
            columns = [ids, pa.ListArray.from_arrays(ends, vectors)]
            table.add(pa.Table.from_arrays(columns, schema=schema))
        self.index(table)

    def index(self, table: Any) -> None:
        """Make no index."""

    def open(self, folder: Path) -> None:
        self.table = lancedb.connect(str(folder)).open_table("documents")

    def settings(self) -> Iterator[dict[str, Any]]:
        yield {}

    def search(self, query: np.ndarray, k: int, **setting: Any) -> list[int]:
        found = self.table.search(query.tolist(), vector_column_name="v").distance_type("cosine")
        if setting:
            found = found.nprobes(setting["nprobes"]).refine_factor(setting["refine_factor"])
        rows = found.select(["id"]).limit(setting.get("limit", k)).to_arrow()
        return rows["id"].to_pylist()[:k]


class Indexed(LanceDB):
    """The same by IVF_PQ, with half a byte a value; more than k may be asked for, since scores are approximate."""

    name = "LanceDB, multivector, IVF_PQ"

    def index(self, table: Any) -> None:
        """Make the index, at LanceDB's defaults but for twice the bytes a vector."""
        table.create_index("cosine", vector_column_name="v", index_type="IVF_PQ", num_sub_vectors=32)

    def settings(self) -> Iterator[dict[str, Any]]:
        for nprobes, limit, refine_factor in (
            (10, 10, 5), (20, 50, 2), (20, 100, 2), (40, 200, 2), (40, 500, 2), (80, 1000, 2)
        ):  # fmt: skip
            yield {"nprobes": nprobes, "limit": limit, "refine_factor": refine_factor}


if __name__ == "__main__":
    indexed = "--index" in sys.argv
    if indexed:
        sys.argv.remove("--index")
    main(Indexed if indexed else LanceDB)
