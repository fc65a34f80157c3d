"""`copy`: an index with its vectors, from one place to another."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from late_interaction.cli._shared import (
    PLACES,
    CandidatesOption,
    JsonOption,
    LexicalOption,
    NameOption,
    SkipExistingOption,
    a_place,
    attached,
    errors_reported,
    out,
    print_json,
    store_at,
)
from late_interaction.options import WriteSettings
from late_interaction.stores.copying import copy_index, verify_copy
from late_interaction.stores.opening import ASTRA, DEFAULT_NAME


def copy(
    source: Annotated[
        str, typer.Argument(callback=a_place, help=f"Where from: {PLACES}.", show_default=False)
    ],
    target: Annotated[str, typer.Argument(callback=a_place, help="Where to, likewise.", show_default=False)],
    name: NameOption = DEFAULT_NAME,
    to_name: Annotated[
        str | None, typer.Option(help="Name of the copy, where it goes into a folder. By default the same.")
    ] = None,
    candidates: CandidatesOption = None,
    lexical: LexicalOption = None,
    skip_existing: SkipExistingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Copy an index with its vectors: nothing is encoded again. Other documents of the target stay.

    At the end the number of documents and a sample of their scores are compared.
    """

    async def run() -> tuple[str, int]:
        if to_name is not None and target.startswith(ASTRA):
            raise ValueError(
                f"--to-name names the copy in a folder; on Astra the target does: {ASTRA}{to_name}."
            )
        async with attached(source, name) as (store, _):
            target_store = store_at(target, to_name or name, candidates=candidates, lexical=lexical)
            try:
                written = await copy_index(
                    store, target_store, WriteSettings(show_progress=True, skip_existing=skip_existing)
                )
                await verify_copy(store, target_store)
            finally:
                await target_store.close()
        return target_store.location, written

    with errors_reported(
        "Interrupted. What was copied is kept; the same command with --skip-existing goes on from there."
    ):
        location, copied = asyncio.run(run())
    if as_json:
        print_json({"location": location, "copied": copied})
    else:
        out.print(f"{copied:,} documents copied to {location}.")
