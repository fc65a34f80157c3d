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
    PlainOption,
    attached,
    check_output,
    errors_reported,
    load_model,
    out,
    pipeline_for,
    print_json,
    print_plain,
)
from late_interaction.encoders.base import check_texts
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
    plain: PlainOption = False,
) -> None:
    """Tell which words of a document, or which parts of a page, gave it its score for a question."""
    check_output(as_json=as_json, plain=plain)

    async def run() -> Explanation:
        async with attached(db, name) as (store, spec):
            # What is wrong is said before a model is loaded.
            check_texts([query], "query")
            if not await store.existing([doc_id]):
                raise ValueError(f"There is no document {doc_id!r} in {store.location}.")
            encoder = load_model(model, device, spec)
            async with pipeline_for(store, encoder, spec, image_root=root) as pipeline:
                return await pipeline.explain(query, doc_id)

    with errors_reported():
        explanation = asyncio.run(run())
        if html is not None:
            explanation.save(html)
    if as_json:
        print_json(explanation.to_dict())
    elif plain:
        words = explanation.query_words
        answers = (" ".join(f"{text} {part:.4f}" for text, part in word.answers) for word in words)
        print_plain(
            [
                ("word", "part", "answers"),
                *(
                    (word.text, f"{word.contribution:.4f}", said)
                    for word, said in zip(words, answers, strict=True)
                ),
            ]
        )
    else:
        out.print(explanation)
        if html is not None:
            out.print(f"The page is in {html}.")
