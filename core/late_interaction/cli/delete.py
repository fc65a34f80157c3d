"""`delete`: documents out of an index, by id, by the file that they are from, or by a filter."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated, Any

import typer

from late_interaction.cli._console import note
from late_interaction.cli._shared import (
    DbOption,
    JsonOption,
    NameOption,
    attached,
    errors_reported,
    json_object,
    out,
    print_json,
)
from late_interaction.filters import parse_filter
from late_interaction.metadata import MARK
from late_interaction.stores.base import Store
from late_interaction.stores.opening import DEFAULT_NAME


def delete(
    db: DbOption,
    ids: Annotated[list[str] | None, typer.Argument(help="Ids of documents.", show_default=False)] = None,
    name: NameOption = DEFAULT_NAME,
    source: Annotated[
        list[str] | None,
        typer.Option(help="A file as `source` names it, or a folder of such files. May be repeated."),
    ] = None,
    filter_json: Annotated[
        str | None,
        typer.Option("--filter", help="""Documents that match, such as '{"year": {"$lt": 2000}}'."""),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete documents by id, by source or by a filter, after asking."""
    if sum(map(bool, (ids, source, filter_json))) != 1:
        raise typer.BadParameter("give ids, --source or --filter, and one kind of them only.")
    chosen = json_object(filter_json, "--filter")
    if filter_json is not None and not chosen:
        raise typer.BadParameter("an empty filter is every document.", param_hint="--filter")
    names = [one.removeprefix("./").rstrip("/") for one in source or ()]
    if names:
        chosen = {"$or": [_is_of(one) for one in names]}

    async def run() -> tuple[int, int]:
        matching = parse_filter(chosen)
        async with attached(db, name) as (store, _):
            missing = [one for one in names if not await store.count(parse_filter(_is_of(one)))]
            if missing:
                told = f"No document is of {', '.join(map(repr, missing))}. {await _how_sources_look(store)}"
                if len(missing) == len(names):
                    raise ValueError(told)
                note(told)
            found = await store.count(matching) if matching else len(await store.existing(ids or []))
            if found and not yes:
                typer.confirm(f"Delete {_documents(found)} of {store.location}?", abort=True, err=True)
            deleted = await store.delete(matching or ids or []) if found else 0
            return deleted, await store.count()

    with errors_reported():
        deleted, documents = asyncio.run(run())
    if as_json:
        print_json({"deleted": deleted, "documents": documents})
    else:
        out.print(f"{_documents(deleted)} deleted. The index has {documents}.")


def _is_of(name: str) -> dict[str, Any]:
    """Return a filter of the documents of a file or folder, also where a column `source` of the file says otherwise.

    `$like` compares letters, where `$eq` takes names such as 2024-05-01 for dates.
    """
    same = re.sub(r"([%_\\])", r"\\\1", name)
    either = ({"$like": same}, {"$startswith": f"{name}/"})
    return {"$or": [{field: one} for field in ("source", f"{MARK}.source") for one in either]}


async def _how_sources_look(store: Store) -> str:
    documents = await store.find(parse_filter({"source": {"$exists": True}}), limit=1)
    like = f", such as {documents[0].metadata['source']!r}" if documents else ""
    return f"Sources are paths from the folder that was indexed{like}."


def _documents(n: int) -> str:
    return f"{n:,} document" + "s" * (n != 1)
