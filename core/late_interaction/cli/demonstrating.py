"""`demo`: the main job in one command, on text that every user has."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import platformdirs
import typer

from late_interaction import demo as corpus
from late_interaction.cli.results import first_line, print_results, results_json
from late_interaction.cli.shared import (
    DEMO_MODEL,
    DeviceOption,
    JsonOption,
    errors_reported,
    load_model,
    out,
    print_json,
)
from late_interaction.encoders.colbert import ColBERTModel
from late_interaction.errors import IndexMismatchError
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.stores.local import LocalStore
from late_interaction.types import SearchResults

LIMIT = 2000
DOCUMENT_LENGTH = 128
K = 5


def demo(
    limit: Annotated[int, typer.Option(min=1, help="How many docstrings to index at most.")] = LIMIT,
    path: Annotated[
        Path | None,
        typer.Option(help="Folder of the index. By default the user's cache folder.", show_default=False),
    ] = None,
    question: Annotated[
        list[str] | None,
        typer.Option("--question", "-q", help="Ask this instead of the examples; may be repeated."),
    ] = None,
    device: DeviceOption = None,
    interactive: Annotated[
        bool, typer.Option("--interactive/--no-interactive", help="Take questions afterwards, on a terminal.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Index the docstrings of this Python's standard library, and ask them something."""
    folder = path or platformdirs.user_cache_path("late-interaction") / "demo"
    interrupted = "Interrupted. What was indexed is kept; the same command goes on from there."
    with errors_reported(interrupted), asyncio.Runner() as runner:
        model = load_model(DEMO_MODEL, device, document_length=DOCUMENT_LENGTH)
        pipeline = runner.run(_index(folder, model, limit, quiet=as_json))
        try:
            answers = [
                (text, runner.run(pipeline.search(text, k=K))) for text in question or corpus.QUESTIONS
            ]
            if as_json:
                documents = runner.run(pipeline.count())
                print_json({"documents": documents, "answers": [results_json(*answer) for answer in answers]})
                return
            for answer in answers:
                _show(*answer, model)
            if interactive and sys.stdin.isatty() and sys.stdout.isatty():
                out.print("Ask something about the standard library; an empty line ends.")
                while text := _ask():
                    _show(text, runner.run(pipeline.search(text, k=K)), model)
        finally:
            runner.run(pipeline.aclose())


async def _index(folder: Path, model: ColBERTModel, limit: int, *, quiet: bool) -> LateInteractionPipeline:
    """The demo's pipeline, with everything indexed that is not yet."""
    store = LocalStore(folder, f"stdlib-{sys.version_info.major}.{sys.version_info.minor}")
    pipeline = LateInteractionPipeline(db=store, model=model)
    try:
        await pipeline.initialize()
    except IndexMismatchError:
        # Another release built it. It is ours, and quickly made anew.
        await store.drop()
        await pipeline.initialize()
    before, start = await pipeline.count(), time.perf_counter()
    await pipeline.index_documents(corpus.stdlib_rows(limit), show_progress=True, skip_existing=True)
    count = await pipeline.count()
    if not quiet:
        new = (
            f"{count - before:,} docstrings indexed in {time.perf_counter() - start:.0f} s"
            if count > before
            else "Nothing new"
        )
        out.print(
            f"{new}; {count:,} are in {store.location}.\nThe model is {corpus.MODEL_NAME}, a plain sentence "
            "encoder used in late-interaction form, not a ColBERT.\n"
        )
    return pipeline


def _show(question: str, results: SearchResults, model: ColBERTModel) -> None:
    print_results(
        question, results, model, label=lambda result: str(result.metadata["object"]), shown=first_line
    )
    out.print()


def _ask() -> str:
    try:
        return input("> ").strip()
    except EOFError:
        return ""
