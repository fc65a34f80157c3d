"""`info`: what an index was built with, how large it is, and what state it is in."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.table import Table

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
from late_interaction.types import flatten

_SHOWN = 250


def info(db: DbOption, name: NameOption = DEFAULT_NAME, as_json: JsonOption = False) -> None:
    """Tell what an index was built with, how large it is, and what state it is in."""

    async def run() -> dict[str, Any]:
        async with attached(db, name) as (store, spec):
            return {"spec": spec.to_dict(), **await store.info()}

    with errors_reported():
        described = asyncio.run(run())
    if as_json:
        print_json(described)
        return
    table = Table(show_header=False)
    for key, value in flatten(described).items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        table.add_row(key, shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}… (whole with --json)")
    out.print(table)
