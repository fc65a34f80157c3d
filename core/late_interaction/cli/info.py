"""`info`: what an index was built with, how large it is, and what state it is in."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from rich import filesize
from rich.table import Table

from late_interaction.cli._shared import (
    DbOption,
    JsonOption,
    NameOption,
    PlainOption,
    attached,
    check_output,
    errors_reported,
    out,
    print_json,
    print_plain,
)
from late_interaction.errors import ModelError
from late_interaction.starting import model_of
from late_interaction.stores.opening import DEFAULT_NAME
from late_interaction.types import IndexSpec, flatten

_SHOWN = 250
_WORDS = {
    "spec.encoder.model": "model",
    "spec.encoder.family": "kind of model",
    "spec.encoder.content": "model, hashed",
    "spec.encoder.base_content": "base model, hashed",
    "spec.encoder.query_prompt": "before each query",
    "spec.encoder.document_prompt": "before each document",
    "spec.encoder.query_prefix": "before each query",
    "spec.encoder.query_suffix": "behind each query",
    "spec.encoder.image_prompt": "before each image",
    "spec.encoder.query_length": "tokens of a query, at most",
    "spec.encoder.document_length": "tokens read at once",
    "spec.encoder.query_expansion": "queries filled up with [MASK]",
    "spec.encoder.skiplist": "tokens without a vector",
    "spec.encoder.long_documents": "longer documents",
    "spec.dim": "width of a vector",
    "spec.packing": "vectors stored as",
    "spec.pooling.algorithm": "pooling",
    "spec.pooling.factor": "tokens to a vector",
    "spec.pooling.protected_tokens": "first tokens not pooled",
    "spec.format_version": "format of the index",
    "location": "place",
    "documents": "documents",
    "tokens": "vectors",
    "packed_bytes": "size of the vectors",
    "file_bytes": "size of the file",
    "index_bytes": "size of the search index",
    "centroids": "centroids",
    "documents_in_index": "documents in the search index",
    "documents_scored_exactly": "documents that each search scores",
    "candidates": "candidates found by",
    "fitted": "document vectors fitted",
    "tables": "tables",
}
"""What the values of `--json` are called, in the order in which they are shown."""
_FIRST = ("location", "documents", "tokens")


def info(
    db: DbOption, name: NameOption = DEFAULT_NAME, as_json: JsonOption = False, plain: PlainOption = False
) -> None:
    """Tell what an index was built with, how large it is, and what state it is in."""
    check_output(as_json=as_json, plain=plain)

    async def run() -> tuple[IndexSpec, dict[str, Any]]:
        async with attached(db, name) as (store, spec):
            return spec, {"spec": spec.to_dict(), **await store.info()}

    with errors_reported():
        spec, described = asyncio.run(run())
    if as_json:
        print_json(described)
        return
    values = flatten(described)
    values.pop("spec.encoder.dim", None)  # It is the index's own.
    with suppress(ModelError):
        values["spec.encoder.model"] = model_of(spec)
    keys = dict.fromkeys((*_FIRST, *_WORDS, *values))
    said = {_words(key): _said(key, values[key]) for key in keys if key in values}
    if plain:
        print_plain([("name", "value"), *said.items()])
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for words, value in said.items():
        table.add_row(words, value if len(value) <= _SHOWN else f"{value[:_SHOWN]}… (whole with --json)")
    out.print(table)


def _words(key: str) -> str:
    """Return what a value is called, with the words of its key where there are no better ones."""
    if key.startswith("filterable."):
        return f"field that is looked up: {key.removeprefix('filterable.')}"
    return _WORDS.get(key, key.removeprefix("spec.").removeprefix("encoder.").replace("_", " "))


def _said(key: str, value: object) -> str:
    """Return a value as people write it."""
    if value is None or value == "" or value == []:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if isinstance(value, int) and key.endswith("_bytes"):
        return filesize.decimal(value)
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else str(value)
    )
