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
from late_interaction.cli._console import asked
from late_interaction.cli._results import PLAIN, first_line, print_results, results_json, results_plain
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
from late_interaction.encoders.base import LateInteractionModel
from late_interaction.errors import IndexMismatchError
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.stores.local.store import LocalStore
from late_interaction.types import SearchResults

LIMIT = 1500
DOCUMENT_LENGTH = 128
BATCH_SIZE = 256  # sorted by length, a larger batch has fewer padded tokens
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
    plain: PlainOption = False,
) -> None:
    """Index the docstrings of this Python's standard library, and ask them something."""
    check_output(as_json=as_json, plain=plain)
    folder = path or platformdirs.user_cache_path("late-interaction") / "demo"
    store = LocalStore(folder, f"stdlib-{sys.version_info.major}.{sys.version_info.minor}")
    interrupted = "Interrupted. What was indexed is kept; the same command goes on from there."
    with errors_reported(interrupted), asyncio.Runner() as runner:
        model = load_model(corpus.DEMO, device, document_length=DOCUMENT_LENGTH, long_documents="truncate")
        pipeline = LateInteractionPipeline(db=store, model=model)
        try:
            indexed = runner.run(_index(pipeline, limit))
            questions = question or corpus.QUESTIONS
            if as_json:
                answers = [results_json(text, runner.run(pipeline.search(text, k=K))) for text in questions]
                print_json({"documents": runner.run(pipeline.count()), "answers": answers})
                return
            if plain:
                print_plain([PLAIN])
                for text in questions:
                    print_plain(results_plain(text, runner.run(pipeline.search(text, k=K))))
                return
            out.print(
                f"{indexed}\nThe model is {corpus.MODEL_NAME}, a plain sentence encoder used in late-interaction "
                "form, not a ColBERT.\n"
            )
            for text in questions:
                _show(text, runner.run(pipeline.search(text, k=K)), model)
            if interactive and sys.stdin.isatty() and sys.stdout.isatty():
                out.print("Ask something about the standard library; an empty line ends.")
                for text in asked():
                    _show(text, runner.run(pipeline.search(text, k=K)), model)
        finally:
            runner.run(pipeline.aclose())


async def _index(pipeline: LateInteractionPipeline, limit: int) -> str:
    """Index what is missing, and return how that went."""
    try:
        await pipeline.initialize()
    except IndexMismatchError:
        # Another release built it. It is ours, and quickly made anew.
        await pipeline.drop()
        await pipeline.initialize()
    before, start = await pipeline.count(), time.perf_counter()
    await pipeline.index_documents(
        corpus.stdlib_rows(limit), batch_size=BATCH_SIZE, show_progress=True, skip_existing=True
    )
    seconds, count = time.perf_counter() - start, await pipeline.count()
    new = f"{count - before:,} docstrings indexed in {seconds:.0f} s" if count > before else "Nothing new"
    return f"{new}; {count:,} are in {pipeline.store.location}."


def _show(question: str, results: SearchResults, model: LateInteractionModel) -> None:
    print_results(
        question,
        results,
        model,
        label=lambda result: str(result.metadata["object"]),
        shown=first_line,
        cut=False,
    )
    out.print()
