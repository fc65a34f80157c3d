"""`models`: checkpoints worth knowing, and what one of them really is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import JustifyMethod
from rich.table import Table

from late_interaction.cli._shared import (
    DeviceOption,
    JsonOption,
    errors_reported,
    load_model,
    out,
    print_json,
)
from late_interaction.encoders.registry import KNOWN_MODELS


def models(
    check: Annotated[
        str | None,
        typer.Option(
            "--check",
            metavar="NAME",
            help="Load this model, known or not, and print the fingerprint that an index would keep.",
        ),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """List known checkpoints with size, licence and published quality."""
    if check is not None:
        with errors_reported():
            fingerprint = dict(load_model(check, device).fingerprint)
        if as_json:
            print_json(fingerprint)
        else:
            for name, value in fingerprint.items():
                out.print(f"{name}: {value}", markup=False, soft_wrap=True)
    elif as_json:
        print_json({"models": [asdict(model) for model in KNOWN_MODELS]})
    else:
        out.print(_table("Text", "text"), _table("Images", "images"), sep="\n\n")
        out.print(
            "Quality as published: mean nDCG@10 on BEIR, or the score on ViDoRe; --json has the sources."
        )


def _table(title: str, documents: str) -> Table:
    rows = [
        {
            "model": model.name,
            "family": model.family,
            "dim": model.dim,
            "size": model.size,
            "licence": model.licence,
            "languages": model.languages,
            "quality": None if model.score is None else f"{model.score.benchmark} {model.score.value:.1f}",
        }
        for model in KNOWN_MODELS
        if model.documents == documents
    ]
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    headings = [heading for heading in rows[0] if any(row[heading] is not None for row in rows)]
    for heading in headings:
        justify: JustifyMethod = "right" if heading in {"dim", "size"} else "left"
        # A name is there to be copied.
        table.add_column(heading, justify=justify, overflow="fold", no_wrap=heading == "model")
    for row in rows:
        table.add_row(*("–" if row[heading] is None else str(row[heading]) for heading in headings))
    return table
