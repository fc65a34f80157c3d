"""`index`: files and folders into an index."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from late_interaction.cli._console import note
from late_interaction.cli._shared import (
    CandidatesOption,
    DbOption,
    DeviceOption,
    JsonOption,
    ModelOption,
    NameOption,
    SkipExistingOption,
    errors_reported,
    json_object,
    load_model,
    out,
    pipeline_for,
    print_json,
    report,
    store_at,
)
from late_interaction.errors import DocumentError, RowFailure
from late_interaction.images.pdf import DPI, PDF_TIMEOUT_S
from late_interaction.images.storing import StoreImages
from late_interaction.options import IndexOptions
from late_interaction.reading.files import ReadProblem, read_rows
from late_interaction.reading.finding import Found, find
from late_interaction.reading.kinds import Kind, kind_of
from late_interaction.rows import Row, row_id
from late_interaction.stores.base import Store
from late_interaction.stores.opening import DEFAULT_NAME
from late_interaction.types import PackingDtype

INTERRUPTED = (
    "Interrupted. What was written is kept; the same command with --skip-existing goes on from there."
)
_STALE_BATCH = 100
_NUMBERED_ID = re.compile(r"(.*[#:])(\d+)", re.DOTALL)


def index(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Files and folders: texts, Markdown, source code, web pages, office files, mail, JSON, CSV, PDF and "
            "images (docs/files.md).",
            exists=True,
            show_default=False,
        ),
    ],
    db: DbOption,
    name: NameOption = DEFAULT_NAME,
    model: ModelOption = None,
    device: DeviceOption = None,
    pool_factor: Annotated[
        float | None,
        typer.Option(min=1, help="Tokens per stored vector. By default the index's own; 2 for a new one."),
    ] = None,
    packing: Annotated[
        PackingDtype | None, typer.Option(help="How vectors are stored; the index's own, or else int8.")
    ] = None,
    store_images: Annotated[
        StoreImages | None, typer.Option(help="What is stored of images beside their vectors.")
    ] = None,
    filterable: Annotated[
        str | None,
        typer.Option(help="""Fields that Astra looks up, and their types, such as '{"year": "int"}'."""),
    ] = None,
    retry_for_s: Annotated[
        float | None,
        typer.Option("--retry-for", min=0, help="Seconds for which Astra is asked again; 60 by default."),
    ] = None,
    candidates: CandidatesOption = None,
    content_column: Annotated[
        str | None,
        typer.Option(
            "--content",
            "--content-column",
            help="Where the text of a CSV or JSON row is, as in title,text. By default content, else text.",
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id",
            "--id-column",
            help="Where its id is. By default doc_id, else id, else _id; without one it is file:line.",
        ),
    ] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="What is between the values of CSV. It is detected by default.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of texts without a byte order mark. It is detected by default.")
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out what a pattern as in .gitignore names, such as 'drafts/'. May be repeated."
        ),
    ] = None,
    gitignore: Annotated[bool, typer.Option(help="Leave out what .gitignore files name.")] = True,
    passage_tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens in a passage of a text; 300 by default, or what the model reads, if less.",
        ),
    ] = None,
    overlap: Annotated[
        int, typer.Option(min=0, help="Sentences that a passage repeats of the one before it.")
    ] = 0,
    headings: Annotated[
        bool, typer.Option(help="Put the headings above a passage of Markdown into its text.")
    ] = True,
    dpi: Annotated[
        float, typer.Option(min=1, help="Resolution at which a visual model sees the pages of a PDF.")
    ] = DPI,
    pdf_timeout: Annotated[
        float, typer.Option(min=0.1, help="Most seconds for a page of a PDF.")
    ] = PDF_TIMEOUT_S,
    password: Annotated[
        str | None,
        typer.Option(
            help="Opens PDF files that are protected by it.",
            envvar="LATE_INTERACTION_PDF_PASSWORD",
            show_default=False,
        ),
    ] = None,
    ocr: Annotated[
        bool,
        typer.Option("--ocr", help="Recognise the text of pages of PDF files that have none, with ocrmypdf."),
    ] = False,
    skip_existing: SkipExistingOption = False,
    as_json: JsonOption = False,
) -> None:
    """Index files; documents that are in the index already are replaced."""
    declared = json_object(filterable, "--filterable")
    options: IndexOptions = {}
    if pool_factor is not None:
        options["doc_pool_factor"] = pool_factor
    if packing is not None:
        options["packing"] = packing
    if store_images is not None:
        options["store_images"] = store_images
    with errors_reported(INTERRUPTED):
        found = find(paths, exclude=exclude or (), gitignore=gitignore)
        problems: list[ReadProblem] = []

        def on_problem(problem: ReadProblem) -> None:
            problems.append(problem)
            note(str(problem))

        last = {f"{file}{mark}": 0 for file in found.files for mark in _marks(file)}

        async def run() -> tuple[Found, int, Mapping[str, float | None], list[RowFailure], int]:
            store = store_at(db, name, declared, retry_for_s, candidates)
            spec = await store.spec()
            encoder = load_model(model, device, spec)
            readable = found.readable(images=encoder.supports_images)
            if readable.left_out:
                note(str(readable))
            rows = read_rows(
                readable.files,
                on_problem,
                content_column=content_column,
                id_column=id_column,
                delimiter=delimiter,
                encoding=encoding,
                model=encoder,
                passage_tokens=passage_tokens,
                overlap=overlap,
                headings=headings,
                images=encoder.supports_images,
                dpi=dpi,
                pdf_timeout_s=pdf_timeout,
                password=password,
                ocr=ocr,
            )
            failures: list[RowFailure] = []
            async with pipeline_for(store, encoder, spec, **options) as pipeline:
                try:
                    ids = await pipeline.index_documents(
                        _noting_numbers(rows, last), show_progress=True, skip_existing=skip_existing
                    )
                    n_indexed, truncated = len(ids), ids.truncated
                except DocumentError as error:
                    n_indexed, truncated, failures = len(error.indexed), error.truncated, error.failures
                incomplete = {str(problem.file) for problem in problems}
                await _delete_stale(
                    store, {prefix: n for prefix, n in last.items() if prefix[:-1] not in incomplete}
                )
                return readable, n_indexed, truncated, failures, await pipeline.count()

        found, indexed, truncated, failures, documents = asyncio.run(run())
    for failure in failures:
        report(str(failure))
    failed = len(problems) + len(failures)
    if as_json:
        print_json(
            {
                "files": len(found.files),
                "left_out": found.left_out,
                "indexed": indexed,
                "documents": documents,
                "truncated": dict(truncated),
                "problems": [asdict(problem) | {"file": str(problem.file)} for problem in problems],
                "failures": [asdict(failure) for failure in failures],
            }
        )
    else:
        could_not = f", {failed} could not be read or indexed" if failed else ""
        cut = f", {len(truncated)} of them not to their end" if truncated else ""
        left = f", {found.n_left_out} left out" if found.n_left_out else ""
        out.print(
            f"{indexed} documents of {len(found.files)} files indexed{cut}{left}{could_not}. "
            f"The index has {documents}."
        )
    if failed:
        raise typer.Exit(1)


def _marks(file: Path) -> str:
    """Return what stands in the ids of a file before the numbers: of passages and pages, of lines, or of either."""
    kind = kind_of(file)
    return "#:" if kind is Kind.JSON else ":" if kind in (Kind.CSV, Kind.JSON_LINES) else "#"


def _noting_numbers(rows: Iterable[Row], last: dict[str, int]) -> Iterator[Row]:
    """Yield the rows, and keep in `last` the number at the end of each file's last id."""
    for row in rows:
        match = _NUMBERED_ID.fullmatch(row_id(row) or "")
        if match and match[1] in last:
            last[match[1]] = int(match[2])
        yield row


async def _delete_stale(store: Store, last: Mapping[str, int]) -> None:
    """Delete the passages and lines that a file had when it was longer."""
    for prefix, number in last.items():
        stale = [f"{prefix}{n}" for n in range(number + 1, number + 1 + _STALE_BATCH)]
        while await store.existing(stale):
            await store.delete(stale)
            number += _STALE_BATCH
            stale = [f"{prefix}{n}" for n in range(number + 1, number + 1 + _STALE_BATCH)]
