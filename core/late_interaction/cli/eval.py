"""`eval`: how well an encoder and the two-stage search do on a judged collection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from late_interaction.cli._shared import (
    DeviceOption,
    JsonOption,
    ModelOption,
    PlainOption,
    check_output,
    errors_reported,
    load_model,
    out,
    print_json,
    print_plain,
)
from late_interaction.errors import LateInteractionError
from late_interaction.evaluation import (
    METRICS,
    Comparison,
    Evaluation,
    JudgedCollection,
    Run,
    bm25_run,
    compare,
    evaluate,
    evaluate_model,
    load_beir,
    read_run,
    run_name,
    write_runs,
)
from late_interaction.evaluation.figure import check_figure, draw
from late_interaction.evaluation.runs import check_ids
from late_interaction.fusion import DEFAULT_WEIGHT
from late_interaction.printable import printable

_SHOWN_QUERIES = 5
_QUERY_WIDTH = 120
_HEADINGS = ("nDCG@10", "R@100", "MRR@10")
_COMPARED = ("difference", "p", "wins", "ties", "losses")


class Way(Enum):
    """What to search by beside vectors."""

    hybrid = "hybrid"
    lexical = "lexical"


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
    passages: Annotated[
        bool,
        typer.Option(
            "--passages", help="Passages too, each document ranked by its best one, beside whole documents."
        ),
    ] = False,
    bm25: Annotated[
        bool, typer.Option("--bm25", help="BM25 too, with English stop words and stemmer.")
    ] = False,
    mode: Annotated[
        list[Way] | None,
        typer.Option(
            help="What else to search by; repeat it to compare.",
            show_default=False,
        ),
    ] = None,
    lexical_weight: Annotated[
        list[float] | None,
        typer.Option(
            min=0,
            max=1,
            help="How much the words count in a hybrid search; repeat it to compare.",
            show_default="0.3",
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Write each ranking into this folder, in trec_eval's format.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Compare with a ranking in trec_eval's format, or with those of the same names in a folder of "
            "--runs: difference, p-value of a paired randomisation test, wins and losses.",
            exists=True,
            show_default=False,
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the figures into this file, such as eval.svg; needs the plots extra.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many documents, for a quick look.")
    ] = None,
    as_json: JsonOption = False,
    plain: PlainOption = False,
) -> None:
    """Measure nDCG@10, recall@100 and MRR@10 of the two-stage search beside exact MaxSim."""
    check_output(as_json=as_json, plain=plain)
    with errors_reported():
        if lexical_weight and Way.hybrid not in (mode or ()):
            raise typer.BadParameter("goes with --mode hybrid", param_hint="--lexical-weight")
        collection = load_beir(folder, limit=limit)
        # What cannot be read or written later is told before minutes of encoding.
        if plot is not None:
            check_figure(plot)
        if runs is not None:
            check_ids(collection)
        earlier = {} if against is None else _earlier_runs(against, collection)
        rows = []
        if bm25:
            logging.getLogger("bm25s").setLevel(logging.WARNING)
            run = bm25_run(collection, show_progress=True)
            rows.append(Evaluation("BM25", None, evaluate(run, collection.qrels), run=run))
        encoder = load_model(model, device)
        rows += asyncio.run(
            evaluate_model(
                collection,
                encoder,
                pool_factors=pool_factor or (1, 2, 3, 4),
                passages=passages,
                modes=[one.value for one in mode or ()],
                lexical_weights=lexical_weight or (DEFAULT_WEIGHT,),
                show_progress=True,
            )
        )
        compared = _compared(collection, rows, earlier)
        if runs is not None:
            write_runs(runs, collection, rows)
        n_documents, n_queries = len(collection.documents), len(collection.queries)
        title = f"{collection.name}: {n_documents:,} documents, {n_queries:,} queries; {encoder.model_name}"
        if plot is not None:
            draw(plot, title, rows)
    if as_json:
        results = [
            {key: value for key, value in asdict(row).items() if key != "run"}
            | ({"comparison": asdict(compared[row.label])} if row.label in compared else {})
            for row in rows
        ]
        counts = {"documents": n_documents, "queries": n_queries}
        fingerprint = dict(encoder.fingerprint)
        print_json({"collection": collection.name, **counts, "encoder": fingerprint, "results": results})
        return
    if plain:
        headings = ["search", *_figures(rows[0]), *([] if against is None else _COMPARED)]
        print_plain(
            [
                headings,
                *(
                    [row.label, *_figures(row).values(), *_compared_figures(compared.get(row.label))]
                    for row in rows
                ),
            ]
        )
        return
    out.print(_table(title, rows))
    for row in rows:
        if row.method.startswith("exact, as encoded"):
            out.print(_cut(row, n_queries, encoder.model_name), highlight=False)
    if against is not None:
        out.print(_comparison_table(f"nDCG@10 beside {against}", compared))
        out.print(_query_table(collection, compared))


def _earlier_runs(against: Path, collection: JudgedCollection) -> dict[str, Run]:
    """Return the rankings to compare with, by the name of their file; that of a single file under ""."""
    if against.is_dir():
        paths = sorted(against.glob("*.trec"))
        found = {path.name: read_run(path) for path in paths if path.name.startswith(f"{collection.name}.")}
    else:
        found = {"": read_run(against)}
    if not any(run.keys() & collection.queries.keys() for run in found.values()):
        raise LateInteractionError(f"{against} has no ranking for a query of {collection.name}.")
    return found


def _compared(
    collection: JudgedCollection, rows: Sequence[Evaluation], earlier: Mapping[str, Run]
) -> dict[str, Comparison]:
    """Compare each ranking with the one of the same name, or with the only one."""
    compared = {}
    for row in rows:
        other = earlier.get(run_name(collection, row), earlier.get(""))
        if other is not None:
            compared[row.label] = compare(row.run, other, collection.qrels)
    return compared


def _table(title: str, rows: Sequence[Evaluation]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("search", min_width=len("search"))
    for heading in _figures(rows[0]):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(row.label, *_figures(row).values())
    return table


def _figures(row: Evaluation) -> dict[str, str]:
    """Return the figures of a row of the table by their headings, "" for one that it has not."""
    metrics = {
        heading: f"{row.metrics[metric]:.4f}" for heading, metric in zip(_HEADINGS, METRICS, strict=True)
    }
    return metrics | {
        "vectors": _number(row.n_vectors, ",d"),
        "MB": _number(None if row.packed_bytes is None else row.packed_bytes / 1e6, ",.1f"),
        "scored": _number(row.n_scored, ",.0f"),
        "ms": _number(row.query_ms, ".1f"),
    }


def _cut(row: Evaluation, n_queries: int, model_name: str) -> str:
    """Say how much of the texts is not in the figures."""
    unit = "passages" if "passage" in row.method else "documents"
    documents = f"{row.n_cut_documents:,} of {row.n_scored:,.0f} {unit}"
    counts = f"{documents} and {row.n_cut_queries:,} of {n_queries:,} queries were cut"
    if not row.n_cut_documents and not row.n_cut_queries:
        return f"{counts}."
    return f"{counts}: they are longer than {model_name} reads, and their ends are not in these figures."


def _comparison_table(title: str, compared: Mapping[str, Comparison]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("search", min_width=len("search"))
    for heading in _COMPARED:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in compared.items():
        table.add_row(name, *_compared_figures(one))
    return table


def _compared_figures(one: Comparison | None) -> tuple[str, ...]:
    if one is None:
        return ()
    n_ties = len(one.by_query) - one.wins - one.losses
    return f"{one.difference:+.4f}", f"{one.p_value:.4f}", str(one.wins), str(n_ties), str(one.losses)


def _query_table(collection: JudgedCollection, compared: Mapping[str, Comparison]) -> Table:
    """Show the queries that lose and win most with the first ranking of the two-stage search."""
    name = next((name for name in compared if name.startswith("two-stage")), next(iter(compared)))
    differences = list(compared[name].by_query.items())
    table = Table(title=f"Largest losses and wins of {name} (all with --json)", title_justify="left")
    table.add_column("difference", justify="right")
    table.add_column("query")
    for query_id, difference in [*differences[:_SHOWN_QUERIES], *differences[-_SHOWN_QUERIES:]]:
        if difference:
            table.add_row(
                f"{difference:+.4f}", printable(f"{query_id}: {collection.queries[query_id]}"[:_QUERY_WIDTH])
            )
    return table


def _number(value: float | None, spec: str) -> str:
    return "" if value is None else format(value, spec)
