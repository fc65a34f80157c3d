"""`search`: questions to an index."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Annotated

import typer

from late_interaction.cli._console import asked
from late_interaction.cli._results import PLAIN, excerpt, place, print_results, results_json, results_plain
from late_interaction.cli._shared import (
    DbOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    NameOption,
    PlainOption,
    UnloadedModel,
    attached,
    check_output,
    errors_reported,
    is_built_with,
    json_object,
    load_model,
    out,
    pipeline_for,
    print_json,
    print_plain,
    report,
)
from late_interaction.encoders.base import LateInteractionModel, check_texts
from late_interaction.errors import LateInteractionError
from late_interaction.options import Mode, SearchOptions
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.planning import SearchPlan
from late_interaction.stores.opening import DEFAULT_NAME


def search(
    query: Annotated[str | None, typer.Argument(show_default=False)] = None,
    *,
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    k: Annotated[int, typer.Option("-k", min=1, help="How many documents.")] = 10,
    interactive: Annotated[
        bool,
        typer.Option(
            "--interactive",
            "-i",
            help="Take questions from the terminal, or a line each from a pipe; the model is loaded once.",
        ),
    ] = False,
    filter_json: Annotated[
        str | None,
        typer.Option(
            "--filter", help="""Only documents whose metadata match, such as '{"year": {"$gte": 2020}}'."""
        ),
    ] = None,
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Only the document of this id; may be given many times.")
    ] = None,
    n_ann_tokens: Annotated[
        int | None, typer.Option(min=1, help="Stored tokens to look at for each query vector.")
    ] = None,
    n_maxsim_candidates: Annotated[
        int | None, typer.Option(min=1, help="Documents to score exactly.")
    ] = None,
    exact: Annotated[bool, typer.Option(help="Search on until the best ones are certain.")] = False,
    group_by: Annotated[
        str | None, typer.Option(help="Only the best of each value of a metadata field, such as source.")
    ] = None,
    distinct: Annotated[bool, typer.Option(help="Each text once.")] = False,
    offset: Annotated[int, typer.Option(min=0, help="Leave out so many of the best ones.")] = 0,
    mode: Annotated[
        Mode, typer.Option(help="Search by the meaning of the words (late), by the words (lexical), or both.")
    ] = "late",
    lexical_weight: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="How much the words count in a hybrid search.", show_default="0.3"),
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
    plain: PlainOption = False,
) -> None:
    """Search an index, and show which words of the documents answered the question."""
    check_output(as_json=as_json, plain=plain)
    if (query is None) is not interactive:
        raise typer.BadParameter("give a question, or -i to be asked for them.")
    options: SearchOptions = {
        "filter": json_object(filter_json, "--filter"),
        "ids": ids or None,
        "n_ann_tokens": n_ann_tokens,
        "n_maxsim_candidates": n_maxsim_candidates,
        "exact": exact,
        "group_by": group_by,
        "distinct": distinct,
        "offset": offset,
        "mode": mode,
        "lexical_weight": lexical_weight,
    }

    async def opened(stack: AsyncExitStack) -> tuple[LateInteractionPipeline, LateInteractionModel]:
        store, spec = await stack.enter_async_context(attached(db, name))
        # What is wrong is said before a model is loaded.
        SearchPlan.of(k, options, store.scaling)
        if query is not None:
            check_texts([query], "query")
        needs_model = mode != "lexical" or not is_built_with(spec, model)
        encoder = load_model(model, device, spec) if needs_model else UnloadedModel(spec)
        return await stack.enter_async_context(pipeline_for(store, encoder, spec)), encoder

    with errors_reported(), asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            pipeline, encoder = runner.run(opened(stack))
            for n, question in enumerate(asked() if query is None else [query]):
                try:
                    results = runner.run(pipeline.search(question, k, **options))
                except (LateInteractionError, ValueError) as error:
                    if query is not None:
                        raise
                    report(str(error))
                    continue
                if as_json:
                    print_json(results_json(question, results))
                elif plain:
                    rows = [*([] if n else [PLAIN]), *results_plain(question, results)]
                    print_plain(rows if interactive else (row[1:] for row in rows))
                elif results:
                    print_results(question, results, encoder, label=place, shown=excerpt)
                else:
                    out.print("No document was found.")
        finally:
            runner.run(stack.aclose())
