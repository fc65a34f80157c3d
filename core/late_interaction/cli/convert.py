"""`convert`: a checkpoint with its pickled weights as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from late_interaction.cli._shared import JsonOption, err, errors_reported, out, print_json
from late_interaction.encoders.finding import find_checkpoint
from late_interaction.encoders.pickled import convert_checkpoint


def convert(
    name: Annotated[
        str, typer.Argument(help="Model id on the Hugging Face hub, or folder.", show_default=False)
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT", help="Folder to write, which is not there yet.", show_default=False),
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a model's pickled weights as safetensors, read as tensors and nothing else: no code in them is run."""
    with errors_reported(), err.status("Converting the model"):
        made = convert_checkpoint(find_checkpoint(name, revision, pickled=True), target)
    if as_json:
        print_json({"model": name, "folder": str(made)})
    else:
        out.print(
            f"{made}: the same weights in safetensors. Load it by this path.", markup=False, soft_wrap=True
        )
