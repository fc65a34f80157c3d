"""The command line: `late-interaction demo | index | search | info | optimize | copy | doctor | models | eval`."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

import late_interaction
from late_interaction.cli.demo import demo
from late_interaction.cli.doctor import doctor
from late_interaction.cli.eval import evaluate_folder
from late_interaction.cli.index import copy, index, info, optimize
from late_interaction.cli.models import models
from late_interaction.cli.search import search

app = typer.Typer(
    help="Search with one vector per token: from a folder on this machine, without a server.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for command in (demo, index, search, info, optimize, copy, doctor, models):
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
    """Options before the command."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("late_interaction").setLevel(logging.DEBUG if verbose else logging.WARNING)


def main() -> None:
    """The console script."""
    app()
