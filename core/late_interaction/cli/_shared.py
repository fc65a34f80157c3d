"""What the commands share: where they print, how an error ends, which model an index needs, how results look."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any, Unpack

import typer
from rich.text import Text

from late_interaction import demo
from late_interaction.cli._console import CleanConsole
from late_interaction.encoders.auto import AnyModel, model_class
from late_interaction.encoders.base import LateInteractionModel
from late_interaction.encoders.checkpoint import content_hash
from late_interaction.errors import IndexNotFoundError, LateInteractionError, ModelError
from late_interaction.options import IndexOptions
from late_interaction.pipeline import LateInteractionPipeline
from late_interaction.printable import printable
from late_interaction.starting import DEFAULT_MODEL, model_of, model_options
from late_interaction.stores.base import Store
from late_interaction.stores.opening import ASTRA, open_store
from late_interaction.types import CandidatesBy, FloatMatrix, IndexSpec

logger = logging.getLogger(__name__)
out = CleanConsole()
err = CleanConsole(stderr=True)

PLACES = f"a folder, or {ASTRA}NAME in the database that the ASTRA_DB_… variables name"


def a_place(value: str) -> str:
    """Return where an index is; refuse "", which would be the working directory."""
    if not value.strip():
        raise typer.BadParameter("it is empty; a variable of the shell may not be set.")
    return value


DbOption = Annotated[str, typer.Option("--db", callback=a_place, help=f"Where the index is: {PLACES}.")]
NameOption = Annotated[str, typer.Option("--name", help="Name of the index, where it is in a folder.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, mps; the best there is by default.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
PlainOption = Annotated[
    bool,
    typer.Option(
        "--plain", help="Print tab-separated values: a line of headings, then a line each. For pipes."
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help=f"A model id on the Hugging Face hub, a folder, or {demo.DEMO!r} for the {demo.MODEL_NAME} "
        f"of the demo extra, which needs no connection. By default the one that the index was built with; "
        f"for a new index {DEFAULT_MODEL}.",
        show_default=False,
    ),
]

CandidatesOption = Annotated[
    CandidatesBy | None,
    typer.Option(
        help="How an index on Astra finds candidates: by a row for each token, or one vector a document. "
        "By default the index's own; tokens for a new one."
    ),
]
LexicalOption = Annotated[
    bool | None,
    typer.Option(
        "--lexical/--no-lexical",
        help="Whether an index on Astra has an index of words, for --mode hybrid and lexical. By default the index's "
        "own; none for a new one. A folder always has one.",
    ),
]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", help="Leave documents that are in the index already unchanged.")
]


@contextmanager
def errors_reported(when_interrupted: str = "Interrupted.") -> Iterator[None]:
    """End with a message on stderr and code 1 on an error that is not a bug, with code 130 on Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        err.print(f"\n{when_interrupted}", style="yellow")
        raise typer.Exit(130) from None
    except BrokenPipeError:
        raise
    except (LateInteractionError, ValueError, OSError) as error:
        logger.debug("The command failed.", exc_info=True)
        report(str(error))
        raise typer.Exit(1) from None


def report(message: str) -> None:
    """Print an error message on stderr."""
    err.print(Text(printable(f"Error: {message}", lines=True), style="red"), soft_wrap=True)


def print_json(value: Mapping[str, Any]) -> None:
    """Print a JSON object on stdout, datetimes in ISO 8601; in it every control character is an escape."""
    typer.echo(json.dumps(value, default=dt.datetime.isoformat))


def print_plain(rows: Iterable[Iterable[object]]) -> None:
    """Print rows as tab-separated values on stdout; white space inside a value is one space, and None is nothing."""
    for row in rows:
        typer.echo(
            "\t".join("" if value is None else printable(" ".join(str(value).split())) for value in row)
        )


def check_output(*, as_json: bool, plain: bool) -> None:
    """Check that one form of output is asked for.

    Raises:
        typer.BadParameter: both are.
    """
    if as_json and plain:
        raise typer.BadParameter("give --json or --plain, not both.")


def store_at(
    db: str,
    name: str,
    filterable: Mapping[str, Any] | None = None,
    retry_for_s: float | None = None,
    candidates: CandidatesBy | None = None,
    lexical: bool | None = None,
) -> Store:
    """Return the store of an index, which need not exist yet.

    Raises:
        StoreError: it is on Astra, and the environment does not say where.
    """
    name_of_folder = None if db.startswith(ASTRA) else name
    return open_store(
        db,
        name_of_folder,
        filterable=filterable,
        candidates=candidates,
        lexical=lexical,
        retry_for_s=retry_for_s,
    )


@asynccontextmanager
async def attached(db: str, name: str) -> AsyncIterator[tuple[Store, IndexSpec]]:
    """Open an existing index without a model; yield its store and what it was built with.

    Raises:
        IndexNotFoundError: there is none of this name; the message lists the existing ones.
    """
    store = store_at(db, name)
    try:
        spec = await store.spec()
        if spec is None:
            raise IndexNotFoundError(
                f"There is no index {store.location}."
                if db.startswith(ASTRA)
                else f"There is no index {name!r} in {db}: {_names_in(Path(db))}."
            )
        await store.open(spec)
        yield store, spec
    finally:
        await store.close()


def pipeline_for(
    store: Store, model: LateInteractionModel, spec: IndexSpec | None, **options: Unpack[IndexOptions]
) -> LateInteractionPipeline:
    """Return a pipeline with the index's own settings, or with the defaults for a new one, and these options."""
    own: IndexOptions = {}
    if spec is not None:
        own = {"doc_pool_factor": spec.pooling["factor"], "packing": spec.packing}
    own.update(options)
    return LateInteractionPipeline(store, model, **own)


def json_object(text: str | None, option: str) -> dict[str, Any] | None:
    """Return the JSON object that an option was given; None where it was not given.

    Raises:
        typer.BadParameter: it is not JSON, or not an object.
    """
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise typer.BadParameter(f"not JSON: {error}", param_hint=option) from error
    if not isinstance(value, dict):
        raise typer.BadParameter("not a JSON object", param_hint=option)
    return value


def load_model(
    name: str | None, device: str | None, spec: IndexSpec | None = None, **options: Any
) -> AnyModel:
    """Load the model that was asked for, else the one of the index, else the default.

    Args:
        name: the model; None for the one of the index, or the default.
        device: where it computes.
        spec: of the index, in whose form it is loaded; None for a new one.
        **options: further arguments of the model, where there is no `spec`.

    Raises:
        ModelError: it cannot be loaded, or the index does not say which one it is.
        MissingExtraError: the demo's model is not installed.
    """
    if name is None:
        name = DEFAULT_MODEL if spec is None else model_of(spec, "--model")
    # Warnings of the libraries below are for their own users.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

    def options_of(of: type[LateInteractionModel]) -> dict[str, Any]:
        return options if spec is None else model_options(spec, of, device)

    with err.status("Loading the model"):
        try:
            of = model_class(name)
            return of(name, device=device, **options_of(of))
        except ModelError as error:
            if Path(name).is_dir():
                raise
            raise ModelError(
                f"{error}\nWithout a connection, give the folder of a model, or --model {demo.DEMO} for "
                f"{demo.MODEL_NAME}, which the demo extra installs."
            ) from error


def is_built_with(spec: IndexSpec, name: str | None) -> bool:
    """Tell whether a model of this name is the index's own, as far as that can be told without loading it."""
    if name is None:
        return True
    if Path(name).is_dir():
        folder = Path(name)
    elif demo.is_demo(name):
        folder = demo.model_folder()
    else:
        return bool(name == spec.encoder.get("model"))
    return bool(spec.encoder.get("content") == content_hash(folder))


class UnloadedModel(LateInteractionModel):
    """The model that an index was built with, where nothing is encoded, such as in a search by words."""

    def __init__(self, spec: IndexSpec) -> None:
        self._spec = spec
        self.dim, self.protected_tokens = spec.dim, spec.pooling["protected_tokens"]
        self.model_name = str(spec.encoder.get("model", "the model of the index"))
        self.supports_images = "image_prompt" in spec.encoder or bool(spec.encoder.get("images"))

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What the index says of it."""
        return self._spec.encoder

    def encode_queries(self, queries: Sequence[Any]) -> list[FloatMatrix]:
        """Refuse: it is not loaded.

        Raises:
            ModelError: always.
        """
        raise ModelError(f"{self.model_name} is not loaded.")

    def encode_documents(self, documents: Sequence[Any]) -> list[FloatMatrix]:
        """Refuse, as `encode_queries`."""
        return self.encode_queries(documents)


def _names_in(db: Path) -> str:
    names = sorted(file.parent.name for file in db.expanduser().glob("*/documents.sqlite3"))
    return f"there is {', '.join(names)} (--name)" if names else "there is no index in this folder"
