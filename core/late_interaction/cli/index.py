"""`index`: files and folders into an index."""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from late_interaction.cli._console import note
from late_interaction.cli._shared import (
    CandidatesOption,
    DbOption,
    DeviceOption,
    JsonOption,
    LexicalOption,
    ModelOption,
    NameOption,
    errors_reported,
    is_built_with,
    json_object,
    load_model,
    out,
    pipeline_for,
    print_json,
    report,
    store_at,
)
from late_interaction.errors import IndexMismatchError, RowFailure
from late_interaction.folders import FolderSync, ReadOptions
from late_interaction.images.pdf import DPI, PDF_TIMEOUT_S
from late_interaction.images.storing import StoreImages
from late_interaction.options import NUM_WORKERS, IndexOptions
from late_interaction.pacing import Rows
from late_interaction.reading.finding import find
from late_interaction.reading.problems import ReadProblem
from late_interaction.stores.opening import ASTRA, DEFAULT_NAME
from late_interaction.syncing import SyncReport
from late_interaction.types import IndexedIds, IndexSpec, PackingDtype

INTERRUPTED = "Interrupted. What was encoded is kept; the same command goes on from there."


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
    lexical: LexicalOption = None,
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
    num_workers: Annotated[
        int, typer.Option(min=1, help="Images read and pages rendered at a time, ahead of the encoder.")
    ] = NUM_WORKERS,
    ocr: Annotated[
        bool,
        typer.Option("--ocr", help="Recognise the text of pages of PDF files that have none, with ocrmypdf."),
    ] = False,
    root: Annotated[
        Path | None,
        typer.Option(
            help="Ids and sources are paths from here; by default from each folder given.", exists=True
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(help="Tells these files from others in the index; by default it is the folder's own."),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the documents of files that are gone.")
    ] = False,
    skip_existing: Annotated[bool, typer.Option("--skip-existing", hidden=True)] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring an index in step with files and folders: only what is new or changed is encoded."""
    if skip_existing:
        note("--skip-existing is not needed any more: what did not change is left alone.")
    declared = json_object(filterable, "--filterable")
    options: IndexOptions = {}
    if pool_factor is not None:
        options["doc_pool_factor"] = pool_factor
    if packing is not None:
        options["packing"] = packing
    if store_images is not None:
        options["store_images"] = store_images
    with errors_reported(INTERRUPTED):
        # What is wrong is said before a model is loaded.
        _check_place(db)
        reading = ReadOptions(
            content_column=content_column,
            id_column=id_column,
            delimiter=delimiter,
            encoding=encoding,
            passage_tokens=passage_tokens,
            overlap=overlap,
            headings=headings,
            dpi=dpi,
            pdf_timeout_s=pdf_timeout,
            password=password,
            ocr=ocr,
        )
        found = find(paths, exclude=exclude or (), gitignore=gitignore)

        async def run() -> tuple[FolderSync, SyncReport, int]:
            store = store_at(db, name, declared, retry_for_s, candidates, lexical)
            try:
                spec = await store.spec()
                if spec is not None and is_built_with(spec, model):
                    encoder, images = None, "image_prompt" in spec.encoder
                else:
                    encoder = load_model(model, device, spec)
                    images = encoder.supports_images
                folder = FolderSync(
                    paths,
                    found,
                    images=images,
                    root=root,
                    scope=scope,
                    reading=reading,
                    on_problem=lambda problem: note(str(problem)),
                )
                if folder.found.left_out:
                    note(str(folder.found))
                if spec is not None and encoder is None:
                    _check_settings(spec, options, store.location)
                    await store.open(spec)
                    await folder.compare(store)
                    if folder.is_done:
                        done = await folder.run(store, _nothing, None, prune=prune)
                        return folder, done, await store.count()
                encoder = encoder or load_model(model, device, spec)
                async with pipeline_for(store, encoder, spec, **options) as pipeline:
                    if not folder.is_compared:
                        await folder.compare(store)
                    indexing = partial(pipeline.index_documents, num_workers=num_workers)
                    done = await folder.run(store, indexing, encoder, prune=prune, show_progress=True)
                    return folder, done, await pipeline.count()
            finally:
                await store.close()

        folder, done, documents = asyncio.run(run())
    failures = [one for one in done.failed if isinstance(one, RowFailure)]
    problems = [one for one in done.failed if isinstance(one, ReadProblem)]
    for failure in failures:
        report(str(failure))
    kept = len(done.removed) - len(done.deleted)
    if as_json:
        told = {field.name: getattr(done, field.name) for field in fields(done) if field.name != "failed"}
        print_json(
            {
                **told,
                "left_out": folder.left_out,
                "documents": documents,
                "problems": [asdict(problem) | {"file": str(problem.file)} for problem in problems],
                "failures": [asdict(failure) for failure in failures],
            }
        )
    else:
        cut = f" {len(done.truncated)} documents are not encoded to their end." if done.truncated else ""
        counts = ", ".join(f"{n} {state.replace('_', ' ')}" for state, n in done.files.items() if n)
        gone = f" --prune deletes {kept} documents of files that are gone." if kept else ""
        out.print(f"{done}.{cut} The index has {documents}.{gone}", soft_wrap=True)
        out.print(f"{sum(done.files.values())} files: {counts}.", soft_wrap=True)
    if done.failed:
        raise typer.Exit(1)


def _check_place(db: str) -> None:
    """Check that an index can be in this folder.

    Raises:
        ValueError: it is a file, or in a folder where this user may not write.
    """
    if db.startswith(ASTRA):
        return
    path = Path(db).expanduser().absolute()
    there = next(one for one in (path, *path.parents) if one.exists())
    if not there.is_dir():
        raise ValueError(f"--db: {there} is a file, and an index is in a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"--db: the folder {there} cannot be written.")


def _check_settings(spec: IndexSpec, options: IndexOptions, location: str) -> None:
    """Check that the index was built with the settings that were asked for.

    Raises:
        IndexMismatchError: it was not.
    """
    pooling = {**spec.pooling, "factor": options.get("doc_pool_factor", spec.pooling["factor"])}
    asked = replace(spec, pooling=pooling, packing=options.get("packing", spec.packing))
    if differences := spec.differences(asked):
        raise IndexMismatchError(location, differences)


async def _nothing(rows: Rows) -> IndexedIds:
    """Stand for `index_documents` where no row is to be encoded."""
    return IndexedIds()
