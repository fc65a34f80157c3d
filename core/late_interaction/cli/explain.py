"""`explain`: why a document has its score for a question."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

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
from late_interaction.explain import Explanation
from late_interaction.stores.opening import DEFAULT_NAME


def explain(
    query: Annotated[str, typer.Argument(show_default=False)],
    doc_id: Annotated[str, typer.Argument(metavar="ID", help="The document, as search --json names it.")],
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    html: Annotated[
        Path | None,
        typer.Option(help="Write a page into this file: words shaded, or heat maps of a picture."),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="The folder that was indexed, where its images are; by default the one we are in."),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell which words of a document, or which parts of a page, gave it its score for a question."""

    async def run() -> Explanation:
        async with attached(db, name) as (store, spec):
            encoder = load_model(model, device, spec)
            async with pipeline_for(store, encoder, spec, image_root=root) as pipeline:
                return await pipeline.explain(query, doc_id)

    with errors_reported():
        explanation = asyncio.run(run())
        if html is not None:
            explanation.save(html)
    if as_json:
        print_json(explanation.to_dict())
    else:
        out.print(explanation)
        if html is not None:
            out.print(f"The page is in {html}.")
