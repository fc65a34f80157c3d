"""`search`: one question to an index."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

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
    load_model,
    out,
    pipeline_for,
    print_json,
)
from late_interaction.encoders.base import LateInteractionModel
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
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search an index, and show which words of the documents answered the question."""
    selection = _parse_filter(filter_json)

    async def run() -> tuple[SearchResults, LateInteractionModel]:
        async with attached(db, name) as (store, spec):
            encoder = load_model(model, device, spec)
            async with pipeline_for(store, encoder, spec) as pipeline:
                return await pipeline.search(query, k=k, filter=selection), encoder

    with errors_reported():
        results, encoder = asyncio.run(run())
        if as_json:
            print_json(results_json(query, results))
        elif results:
            print_results(query, results, encoder, label=place, shown=excerpt)
        else:
            out.print("No document was found.")


def _parse_filter(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint="--filter") from error
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint="--filter")
    return value
