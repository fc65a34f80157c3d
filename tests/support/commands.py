"""The command line, called in this process."""

from __future__ import annotations

import json
from typing import Any

from typer.testing import CliRunner, Result

from late_interaction.cli import app


def run(
    *arguments: object, code: int | None = None, columns: int = 200, stdin: str | bytes | None = None
) -> Result:
    """Run `late-interaction` with these arguments; it must end with `code` where one is given."""
    runner = CliRunner(env={"COLUMNS": str(columns)})
    result = runner.invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert code is None or result.exit_code == code, result.output
    return result


def run_json(*arguments: object) -> Any:
    """Return what a command prints with --json."""
    return json.loads(run(*arguments, "--json", code=0).stdout)
