"""`optimize`: bring the search structures of an index up to date."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from late_interaction.cli._shared import (
    DbOption,
    JsonOption,
    NameOption,
    attached,
    errors_reported,
    out,
    print_json,
)
from late_interaction.stores.opening import DEFAULT_NAME


def optimize(
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    refit: Annotated[
        bool,
        typer.Option(
            "--refit", help="Fit the document vectors of an index on Astra anew, to what is in it by now."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring the search structures of an index up to date, after many writes from Python."""

    async def run() -> dict[str, Any]:
        async with attached(db, name) as (store, _):
            fitted = await store.fit_candidates(show_progress=True) if refit else {}
            done = await store.optimize(show_progress=True)
            return {**await store.info(), **done, **fitted}

    with errors_reported():
        state = asyncio.run(run())
    if as_json:
        print_json(state)
    else:
        freed = f" {state['freed_bytes'] / 1e6:,.1f} MB were given back." if state.get("freed_bytes") else ""
        out.print(f"{state['location']} is up to date: {state['documents']:,} documents.{freed}")
