"""`models`: checkpoints worth knowing, and what would be loaded of one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

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
            metavar="NAME_OR_PATH",
            help="Print what would be loaded of this model, known or not, and how: class, backend, width, prefixes, "
            "lengths, pooling, dtype, whether code of its own is needed. Its config files are read, and no weights.",
        ),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint",
            metavar="NAME_OR_PATH",
            help="Load this model, and print the fingerprint that an index would keep.",
        ),
    ] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    plain: PlainOption = False,
) -> None:
    """List known checkpoints with size, licence and published quality."""
    check_output(as_json=as_json, plain=plain)
    if check is not None and fingerprint is not None:
        raise typer.BadParameter("give --check or --fingerprint, not both.")
    if check is not None:
        from late_interaction.encoders.plan import loading_plan

        with errors_reported():
            plan = loading_plan(check, device=device)
        shown = {name: value for name, value in asdict(plan).items() if as_json or value is not None}
        _print(shown, as_json=as_json, plain=plain)
        if plan.problem is not None:
            raise typer.Exit(1)
    elif fingerprint is not None:
        with errors_reported():
            kept = dict(load_model(fingerprint, device).fingerprint)
        _print(kept, as_json=as_json, plain=plain)
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


def _print(fields: dict[str, Any], *, as_json: bool, plain: bool) -> None:
    if as_json:
        print_json(fields)
    elif plain:
        print_plain([("name", "value"), *fields.items()])
    else:
        for name, value in fields.items():
            shown = (
                repr(value) if name.endswith("_prefix") else value
            )  # A space at its end would not be seen.
            out.print(f"{name}: {shown}", markup=False, soft_wrap=True)


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
