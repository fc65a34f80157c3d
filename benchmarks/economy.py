"""Measure quality by storage: pooling, packing and a projection, for a plain encoder of 384 dimensions.

    python benchmarks/economy.py CACHE [--collections cranfield cisi]

all-MiniLM-L6-v2 (the demo extra) encodes each collection once, and CACHE keeps the matrices. Each setting is
measured on what it would store: projected, pooled and packed matrices, searched by exact MaxSim.
The projection is fitted on the collection's documents. Writes docs/figures/economy.svg.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from benchmarks.encoded import collection, demo_model, encoded
from late_interaction import RaggedTokens
from late_interaction.encoders.projection import Moments, ProjectedModel
from late_interaction.evaluation import JudgedCollection, evaluate, exact_run
from late_interaction.packing import pack, unpack
from late_interaction.pooling import pool_document
from late_interaction.types import FloatMatrix, PackingDtype

FACTORS = (1, 2, 3, 4, 5, 6)
DIMS = (None, 192, 128, 96, 64)
FIGURE = Path(__file__).resolve().parents[1] / "docs" / "figures" / "economy.svg"


@dataclass(frozen=True)
class Point:
    """A setting, and the quality and size that it gave."""

    dim: int | None
    factor: int
    packing: PackingDtype
    bytes_per_document: float
    ndcg: float


def packings(dim: int | None, factor: int) -> list[PackingDtype]:
    """Return int8, and float16 too if nothing is projected or the pooling is the default."""
    return ["int8", "float16"] if dim is None or factor == 2 else ["int8"]


def measure(
    judged: JudgedCollection, documents: RaggedTokens, queries: dict[str, FloatMatrix]
) -> list[Point]:
    model, points = demo_model(long_documents="truncate"), []
    moments = Moments(model.dim)
    for i in range(len(documents)):
        moments.add(documents.matrix(i))
    progress = tqdm(total=sum(len(packings(dim, factor)) for dim in DIMS for factor in FACTORS))
    for dim in DIMS:
        # What fit_projection does, on matrices that are encoded already.
        project = (
            (lambda matrix: matrix)
            if dim is None
            else ProjectedModel(model, moments.projection(dim))._project  # noqa: SLF001
        )
        asked = {query_id: project(matrix) for query_id, matrix in queries.items()}
        matrices = [project(documents.matrix(i)) for i in range(len(documents))]
        for factor in FACTORS:
            pooled = [pool_document(matrix, factor) for matrix in matrices]
            for packing in packings(dim, factor):
                blobs = [pack(matrix, packing) for matrix in pooled]
                # Widened once here, and not for each of hundreds of queries.
                stored = RaggedTokens.from_matrices([unpack(blob) for blob in blobs])
                run = exact_run(asked, list(judged.documents), stored)
                size = sum(map(len, blobs)) / len(blobs)
                ndcg = evaluate(run, judged.qrels)["ndcg@10"]
                points.append(Point(dim, factor, packing, size, ndcg))
                progress.update()
    progress.close()
    return points


def show(judged: JudgedCollection, points: list[Point]) -> None:
    whole = next(
        point for point in points if (point.dim, point.factor, point.packing) == (None, 1, "float16")
    )
    table = Table(title=f"{judged.name}, {len(judged.documents):,} documents", title_justify="left")
    for heading in ("dim", "pool factor", "packing", "bytes per document", "share", "nDCG@10", "change"):
        table.add_column(heading, justify="right")
    for point in points:
        table.add_row(
            str(point.dim or 384),
            str(point.factor),
            point.packing,
            f"{point.bytes_per_document:,.0f}",
            f"{point.bytes_per_document / whole.bytes_per_document:.1%}",
            f"{point.ndcg:.4f}",
            f"{point.ndcg / whole.ndcg - 1:+.1%}",
            end_section=point is points[-1] or points[points.index(point) + 1].dim != point.dim,
        )
    Console(width=110).print(table)


def draw(measured: dict[str, list[Point]]) -> None:
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "economy", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    figure, all_axes = plt.subplots(
        1, len(measured), figsize=(4.5 * len(measured), 3.2), layout="constrained", squeeze=False
    )
    for axes, (name, points) in zip(all_axes[0], measured.items(), strict=True):
        for dim in DIMS:
            line = [point for point in points if point.dim == dim and point.packing == "int8"]
            axes.plot(
                [point.bytes_per_document / 1024 for point in line],
                [point.ndcg for point in line],
                marker="o",
                markersize=3,
                label=f"{dim} dims" if dim else "384 dims, as encoded",
            )
        axes.set_xscale("log", base=2)
        axes.set_title(name)
        axes.set_xlabel("KB per document, int8, pool factors 6 to 1")
        axes.set_ylabel("nDCG@10")
        axes.grid(alpha=0.3)
    all_axes[0][0].legend(fontsize="small")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})
    print(f"{FIGURE}: {FIGURE.stat().st_size / 1024:.0f} KB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path, help="where encoded collections are kept")
    parser.add_argument("--collections", nargs="+", default=["cranfield", "cisi"])
    arguments = parser.parse_args()
    measured = {}
    for name in arguments.collections:
        judged = collection(name)
        documents, queries = encoded(judged, demo_model(long_documents="truncate"), arguments.cache)
        measured[name] = measure(judged, documents, queries)
        show(judged, measured[name])
    draw(measured)


if __name__ == "__main__":
    main()
