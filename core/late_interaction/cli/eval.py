"""`eval`: how well an encoder and the two-stage search do on a judged collection."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from late_interaction.cli._shared import (
    DeviceOption,
    JsonOption,
    ModelOption,
    errors_reported,
    load_model,
    out,
    print_json,
)
from late_interaction.evaluation import METRICS, Evaluation, bm25_run, evaluate, evaluate_model, load_beir


def evaluate_folder(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A folder with corpus.jsonl, queries.jsonl, and qrels/test.tsv or qrels.tsv.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ],
    model: ModelOption = None,
    device: DeviceOption = None,
    pool_factor: Annotated[
        list[float] | None,
        typer.Option(min=1, help="Of the documents; repeat it to compare. By default 1, 2, 3 and 4."),
    ] = None,
    bm25: Annotated[
        bool, typer.Option("--bm25", help="BM25 too, with English stop words and stemmer.")
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many documents, for a quick look.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure nDCG@10, recall@100 and MRR@10 of the two-stage search beside exact MaxSim."""
    with errors_reported():
        collection = load_beir(folder, limit=limit)
        rows = []
        if bm25:
            rows.append(Evaluation("BM25", None, evaluate(bm25_run(collection), collection.qrels)))
        encoder = load_model(model, device)
        rows += asyncio.run(
            evaluate_model(collection, encoder, pool_factors=pool_factor or (1, 2, 3, 4), show_progress=True)
        )
    counts = {"documents": len(collection.documents), "queries": len(collection.queries)}
    if as_json:
        fingerprint = dict(encoder.fingerprint)
        results = [asdict(row) for row in rows]
        print_json({"collection": collection.name, **counts, "encoder": fingerprint, "results": results})
        return
    title = f"{collection.name}: {counts['documents']:,} documents, {counts['queries']} queries; {encoder.model_name}"
    table = Table(title=title, title_justify="left")
    for column in ("search", "pool factor", *METRICS, "vectors", "scored per query", "ms per query"):
        table.add_column(column, justify="left" if column == "search" else "right")
    for row in rows:
        table.add_row(
            row.method,
            _number(row.pool_factor, "g"),
            *(f"{row.metrics[metric]:.4f}" for metric in METRICS),
            _number(row.n_vectors, ",d"),
            _number(row.n_scored, ",.0f"),
            _number(row.query_ms, ".1f"),
        )
    out.print(table)


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
