"""`models`: checkpoints worth knowing, and what one of them really is."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from late_interaction.cli._shared import (
    DeviceOption,
    JsonOption,
    PlainOption,
    check_output,
    errors_reported,
    load_model,
    out,
    print_json,
    print_plain,
)
from late_interaction.encoders.registry import KNOWN_MODELS

_NUMBERS = ("dim", "size")
_BETWEEN = 3


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
    plain: PlainOption = False,
) -> None:
    """List known checkpoints with size, licence and published quality."""
    check_output(as_json=as_json, plain=plain)
    if check is not None:
        with errors_reported():
            fingerprint = dict(load_model(check, device).fingerprint)
        if as_json:
            print_json(fingerprint)
        elif plain:
            print_plain([("name", "value"), *fingerprint.items()])
        else:
            for name, value in fingerprint.items():
                out.print(f"{name}: {value}", markup=False, soft_wrap=True)
    elif as_json:
        print_json({"models": [asdict(model) for model in KNOWN_MODELS]})
    elif plain:
        rows = [
            row | {"documents": documents} for documents in ("text", "images") for row in _rows(documents)
        ]
        headings = list(dict.fromkeys(heading for row in rows for heading in row))
        print_plain([headings, *([row.get(heading, "–") for heading in headings] for row in rows)])
    else:
        out.print(_table("Text", "text"), _table("Images", "images"), sep="\n\n")
        out.print(
            "Quality as published: mean nDCG@10 on BEIR, or the score on ViDoRe; --json has the sources."
        )


def _rows(documents: str) -> list[dict[str, str]]:
    """Return what is known of the models of these documents, by heading; without what is known of none."""
    rows: list[dict[str, object]] = [
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
    headings = [heading for heading in rows[0] if any(row[heading] is not None for row in rows)]
    return [
        {heading: "–" if row[heading] is None else str(row[heading]) for heading in headings} for row in rows
    ]


def _table(title: str, documents: str) -> RenderableType:
    """Return a table, each model's name whole; where that is too wide, the rest is below the name."""
    rows = _rows(documents)
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in rows[0]:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row.values())
    lines = [dict(zip(rows[0], rows[0], strict=True)), *rows]
    widths = {heading: max(len(line[heading]) for line in lines) for heading in rows[0]}
    if sum(widths.values()) + _BETWEEN * len(widths) <= out.width:
        return table
    text = Text(title, style="italic")
    for line in lines:
        name, *others = (
            value.rjust(widths[heading]) if heading in _NUMBERS else value.ljust(widths[heading])
            for heading, value in line.items()
        )
        text.append(f"\n{name.rstrip()}\n", style="bold").append(
            "  " + (_BETWEEN * " ").join(others).rstrip()
        )
    return text
