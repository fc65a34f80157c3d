"""The command line: `late-interaction COMMAND`, a module for each command."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Annotated

import typer
from rich.text import Text

import late_interaction
from late_interaction.cli._console import CleanFormatter, CleanGroup
from late_interaction.cli._shared import err
from late_interaction.cli.convert import convert
from late_interaction.cli.copy import copy
from late_interaction.cli.delete import delete
from late_interaction.cli.demo import demo
from late_interaction.cli.doctor import doctor
from late_interaction.cli.eval import evaluate_folder
from late_interaction.cli.explain import explain
from late_interaction.cli.index import index
from late_interaction.cli.info import info
from late_interaction.cli.models import models
from late_interaction.cli.optimize import optimize
from late_interaction.cli.search import search
from late_interaction.cli.serve import mcp, serve
from late_interaction.printable import printable

app = typer.Typer(
    cls=CleanGroup,
    help="Search with one vector per token: from a folder on this machine, without a server.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for command in (
    demo,
    index,
    delete,
    search,
    explain,
    serve,
    mcp,
    info,
    optimize,
    copy,
    doctor,
    models,
    convert,
):
    app.command()(command)
app.command("eval")(evaluate_folder)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(late_interaction.__version__)
        raise typer.Exit


@app.callback()
def options(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log what happens, and the traceback of an error.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit."),
    ] = False,
) -> None:
    """Read the options before the command."""
    logging.captureWarnings(True)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(CleanFormatter("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("late_interaction").setLevel(logging.DEBUG if verbose else logging.WARNING)


def main() -> None:
    """Run the console script."""
    try:
        app()
    except Exception:  # noqa: BLE001 – a fault of ours, whose message may quote what came from outside
        err.print(Text(printable(traceback.format_exc(), lines=True)), soft_wrap=True)
        sys.exit(1)
