"""`doctor`: what state an index on Astra is in, and putting it right."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from late_interaction.cli._shared import JsonOption, errors_reported, out, print_json
from late_interaction.stores.astra.doctor import diagnose
from late_interaction.stores.astra.health import Health
from late_interaction.stores.astra.store import AstraStore
from late_interaction.stores.opening import ASTRA

_SHOWN = 5


def doctor(
    index: Annotated[str, typer.Argument(help=f"The index: {ASTRA}NAME.", show_default=False)],
    full: Annotated[
        bool, typer.Option("--full", help="Read every row, without vectors; else only a sample is checked.")
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="Read every row, and put right what is found: leftovers of crashes, "
            "documents with tokens of another version, missing indexes.",
        ),
    ] = False,
    sample: Annotated[int, typer.Option(min=0, help="Stored vectors to look up, to measure recall.")] = 200,
    older_than: Annotated[
        float,
        typer.Option(min=0, help="Seconds: younger leftovers may be a write under way, and are left alone."),
    ] = 600,
    as_json: JsonOption = False,
) -> None:
    """Check an index on Astra: definitions, leftovers of crashes, recall of the vector index. Code 1 if it ails."""

    async def run() -> Health:
        store = AstraStore.from_environment(index.removeprefix(ASTRA))
        try:
            return await diagnose(
                store,
                sample=sample,
                full=full or repair,
                repair=repair,
                older_than_s=older_than,
                show_progress=not as_json,
            )
        finally:
            await store.close()

    with errors_reported("Interrupted. The same command begins again; what was repaired stays."):
        if not index.startswith(ASTRA):
            raise ValueError(
                f"doctor looks at indexes on Astra, {ASTRA}NAME, and {index!r} is not one. A folder checks and repairs "
                "itself: see info and optimize."
            )
        health = asyncio.run(run())
    if as_json:
        print_json(health.to_dict())
    else:
        _print(health)
    if not health.healthy:
        raise typer.Exit(1)


def _print(health: Health) -> None:
    out.print(health.location, style="bold")
    for name, (have, want) in health.differences.items():
        out.print(f"{name}: there is {have!r}, and there should be {want!r}", style="red", markup=False)
    scope = "all read" if health.complete else "a sample: --full reads all"
    out.print(f"{health.documents:,} documents with {health.tokens:,} token vectors ({scope})")
    for what, doc_ids in (
        ("tokens without a document", health.orphans),
        ("tokens missing or of another version", health.stale),
        ("tokens too many", health.surplus),
        ("half a row", health.torn),
    ):
        if doc_ids:
            shown = ", ".join(map(repr, doc_ids[:_SHOWN])) + (", …" if len(doc_ids) > _SHOWN else "")
            out.print(f"{what}: {len(doc_ids):,} ({shown})", style="yellow", markup=False)
    if health.young:
        out.print(
            f"left alone, as a write may be under way: tokens of {len(health.young):,} documents (see --older-than)"
        )
    if health.sampled:
        out.print(
            f"{health.found_first} of {health.sampled} stored vectors find themselves first, {health.found} at all"
        )
    if health.expected_in_top:
        out.print(
            f"{health.found_in_top} of {health.expected_in_top} of the exact top 10 are among the candidates"
            + (": fit the document vectors anew, optimize --refit" if health.refit else ""),
            style="yellow" if health.refit else None,
        )
    if health.repaired:
        out.print(f"{health.repaired:,} repaired")
    out.print("healthy" if health.healthy else "not healthy", style="green" if health.healthy else "red")
