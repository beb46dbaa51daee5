"""What the command modules share: consoles, common options, the settings, and printing JSON."""

import json
import sys
from typing import Annotated

import typer
from rich.console import Console

from mlops_assets.settings import Settings
from mlops_assets.stack.errors import StackError

# Identifiers hold colons: `:x:` must stay what it is.
console = Console(emoji=False)
error_console = Console(stderr=True, emoji=False)
"""For progress and notes, so that standard output holds the answer alone."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]
SolutionArgument = Annotated[str, typer.Argument(help="The solution, as `mlops status` names it.")]


def read_settings() -> Settings:
    """The settings of this installation. Raises StackError naming the variable that is wrong."""
    try:
        return Settings.from_environment()
    except ValueError as error:
        raise StackError(
            str(error), remedy="Variables come from the environment or from .env; .env.example lists them."
        ) from error


def running_settings() -> Settings:
    """The settings, once every server of the stack runs. Raises StackError when one cannot be started."""
    from mlops_assets.stack import control

    settings = read_settings()
    control.ensure_up(settings)
    return settings


def print_json(value: object) -> None:
    """Print `value` as JSON, dates and paths as texts."""
    # Not through Rich, which wraps long lines and colours them.
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
