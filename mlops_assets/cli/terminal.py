"""Parts that the command modules share: consoles, common options, the settings, progress of a stage, and printing JSON."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from mlops_assets.core.environment_files import export_project_variables
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.local.environment_owner import check_folder

if TYPE_CHECKING:
    from rich.status import Status

    from mlops_assets.clients.dagster_client import DagsterClient, RunState
    from mlops_assets.operations.stage_runs import StageRun, StageRunResult

# Identifiers hold colons: `:x:` must stay what it is.
console = Console(emoji=False)
error_console = Console(stderr=True, emoji=False)
"""For progress and notes, so that standard output holds the answer alone."""

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table.")]
SolutionArgument = Annotated[str, typer.Argument(help="The solution, as `mlops status` names it.")]


def output_file(path: Path | None) -> Path | None:
    """Make the folder of a file that a person named for the result, before the work. Raises typer.BadParameter when it cannot be written."""
    if path is not None:
        output_folder(path.parent)
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder.")
    return path


def output_folder(path: Path | None) -> Path | None:
    """Make a folder that a person named for the result, before the work. Raises typer.BadParameter when nothing can be written there."""
    if path is not None:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise typer.BadParameter(f"{path} cannot be made: {error.strerror}.") from error
        if not os.access(path, os.W_OK):
            raise typer.BadParameter(f"You may not write to {path}.")
    return path


def read_settings() -> Settings:
    """The settings of this installation.

    Raises StackError naming the variable that is wrong, and when the state folder is of another environment.
    """
    try:
        export_project_variables()
        settings = Settings.from_environment()
        check_folder(settings)
        return settings
    except ValueError as error:
        raise StackError(
            str(error), remedy="Variables come from the environment or from .env; .env.example lists them."
        ) from error


def running_settings() -> Settings:
    """The settings, once every server that a command needs runs. Raises StackError when one cannot be started, or is away elsewhere."""
    from mlops_assets.local import control

    settings = read_settings()
    control.ensure_up(settings)
    return settings


def serving_settings() -> Settings:
    """The settings, once the online server answers. Raises StackError when it cannot be started."""
    from mlops_assets.local import control
    from mlops_assets.local.services import ONLINE

    settings = read_settings()
    control.ensure_ready(settings, ONLINE)
    return settings


def start_stack(settings: Settings) -> bool:
    """Start what is missing of the stack with a line for each server while it starts; quiet when everything runs already.

    Servers that are elsewhere are waited for.
    """
    from mlops_assets.local import control, servers_elsewhere

    if servers_elsewhere.are_elsewhere(settings):
        servers_elsewhere.wait(settings)
        return False
    began = time.monotonic()
    starting: list[str] = []

    def listen(name: str, event: str, display: "Status") -> None:
        if event == "closed":
            error_console.print(f"{name} was open to other users of this machine and is closed to them now.", highlight=False)
        elif event == "buffered":
            error_console.print(
                f"{name}: a power failure may take away what is written there in its last half minute. Its file system puts nothing on the disk "
                "at once: use ext4 or XFS, or set MLOPS_DURABILITY=buffered to be told no more.",
                highlight=False,
            )
        elif event == "starting":
            starting.append(name)
        elif name in starting:
            starting.remove(name)
            error_console.print(f"[green]✓[/green] {name} [dim]{time.monotonic() - began:.1f} s[/dim]", highlight=False)
        display.update(f"Starting {', '.join(starting)}" if starting else "Checking the stack")

    with error_console.status("Checking the stack") as display:
        return control.up(settings, lambda name, event: listen(name, event, display))


@contextmanager
def run_progress(name: str, target: Console) -> "Iterator[Callable[[RunState], None]]":
    """A progress bar on `target` while a run goes on; yields what is to be told how the run stands."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=target, transient=True, disable=not target.is_terminal) as progress:
        task = progress.add_task(f"{name}: waiting for a run", total=None)

        def report(state: "RunState") -> None:
            running = ", ".join(step.replace("__", "/") for step in state.running[:2]) or state.status.lower()
            progress.update(task, total=len(state.steps) or None, completed=len(state.seconds), description=f"{name}: {running}")

        yield report


def show_stage(client: "DagsterClient", stage: "StageRun", target: Console) -> "StageRunResult":
    """Run what is missing of `stage` with a progress bar, and leave a line that says what it was and how long it took."""
    from mlops_assets.operations.stage_runs import run_stage

    with run_progress(stage.name, target) as report:
        result = run_stage(client, stage, report)
    took = "already there" if result.seconds is None else f"{result.seconds:.1f} s"
    partitions = f"{stage.first}, " if stage.first == stage.last else f"{stage.first} to {stage.last}, "
    if stage.first is None:
        partitions = ""
    target.print(f"[green]✓[/green] {stage.name} [dim]{partitions}{len(stage.assets)} assets, {took}[/dim]", highlight=False)
    return result


def print_json(value: object) -> None:
    """Print `value` as JSON, dates and paths as texts."""
    # Not through Rich, which wraps long lines and colours them.
    sys.stdout.write(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n")
