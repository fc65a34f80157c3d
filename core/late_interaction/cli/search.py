"""`search`: one question to an index."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from late_interaction.cli._results import excerpt, place, print_results, results_json
from late_interaction.cli._shared import (
    DbOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    NameOption,
    attached,
    errors_reported,
    json_object,
    load_model,
    out,
    pipeline_for,
    print_json,
)
from late_interaction.encoders.base import LateInteractionModel
from late_interaction.options import Mode, SearchOptions
from late_interaction.stores.opening import DEFAULT_NAME
from late_interaction.types import SearchResults


def search(
    query: Annotated[str, typer.Argument(show_default=False)],
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents.")] = 10,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter", help="""Only documents whose metadata match, such as '{"year": {"$gte": 2020}}'."""
        ),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Only the document of this id; may be given many times.")
    ] = None,
    n_ann_tokens: Annotated[
        int | None, typer.Option(min=1, help="Stored tokens to look at for each query vector.")
    ] = None,
    n_maxsim_candidates: Annotated[
        int | None, typer.Option(min=1, help="Documents to score exactly.")
    ] = None,
    exact: Annotated[bool, typer.Option(help="Search on until the best ones are certain.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Only the best of each value of a metadata field, such as source.")
    ] = None,
    distinct: Annotated[bool, typer.Option(help="Each text once.")] = False,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the best ones.")] = 0,
    mode: Annotated[
        Mode, typer.Option(help="Search by the meaning of the words (late), by the words (lexical), or both.")
    ] = "late",
    lexical_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much the words count in a hybrid search.", show_default="0.3"),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index, and show which words of the documents answered the question."""
    options: SearchOptions = {
        "filter": json_object(filter_json, "--filter"),
        "ids": ids or None,
        "n_ann_tokens": n_ann_tokens,
        "n_maxsim_candidates": n_maxsim_candidates,
        "exact": exact,
        "group_by": group_by,
        "distinct": distinct,
        "offset": offset,
        "mode": mode,
        "lexical_weight": lexical_weight,
    }

    async def run() -> tuple[SearchResults, LateInteractionModel]:
        async with attached(db, name) as (store, spec):
            encoder = load_model(model, device, spec)
            async with pipeline_for(store, encoder, spec) as pipeline:
                return await pipeline.search(query, k, **options), encoder

    with errors_reported():
        results, encoder = asyncio.run(run())
        if as_json:
            print_json(results_json(query, results))
        elif results:
            print_results(query, results, encoder, label=place, shown=excerpt)
        else:
            out.print("No document was found.")
