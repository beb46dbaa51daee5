"""`mlops branch`: scratch environments of the working tree's code. Options and printing only."""

import os
import time
from typing import Annotated

import typer
from rich.table import Table

from mlops_assets.cli.stack import print_addresses
from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings, start_stack
from mlops_assets.core.environment_files import ENVIRONMENT_VARIABLE
from mlops_assets.core.project import current_project

app = typer.Typer(
    no_args_is_help=True,
    help="Scratch environments of the working tree's code, which only read the environment that they are of.",
    epilog="Example: [bold]mlops branch up[/bold]",
)

NameArgument = Annotated[
    str | None, typer.Argument(help="The branch. Default: named like the branch of git that is checked out.")
]


@app.command(epilog="Example: [bold]mlops branch up[/bold], or [bold]mlops --env prod branch up new-features[/bold]")
def up(name: NameArgument = None) -> None:
    """Start a branch: the working tree's code on the data of this environment, at one snapshot. Writes go to the branch."""
    from mlops_assets.operations.branches.environments import check_files, checked_name, default_name, make_branch

    project, production = current_project(), read_settings()
    chosen = checked_name(name) if name else default_name(project)
    began = time.monotonic()
    with error_console.status("Looking at the environment") as display:
        branch = make_branch(project, production, chosen, display.update)
    error_console.print(
        f"[green]✓[/green] branch {branch.name} of {branch.of}, snapshot {branch.snapshot} [dim]{time.monotonic() - began:.1f} s[/dim]",
        highlight=False,
    )
    # From here on this process is of the branch, and so is what it starts.
    os.environ[ENVIRONMENT_VARIABLE] = branch.environment
    settings = read_settings()
    started = start_stack(settings)
    check_files(branch)
    seconds = time.monotonic() - began
    console.print(f"[green]Ready[/green] after {seconds:.1f} s." if started else "Already running, nothing changed.")
    print_addresses(settings)
    console.print(
        f"Commands on it: mlops --env {branch.environment} status. Remove it: mlops branch down {branch.name}", highlight=False
    )


@app.command(name="list", epilog="Example: [bold]mlops branch list[/bold]")
def list_branches(as_json: JsonOption = False) -> None:
    """Show every branch with its address, the environment that it is of, the snapshot that it began with and its age."""
    from mlops_assets.local.supervisor import Supervisor
    from mlops_assets.operations.branches.environments import find_branches

    entries = [
        {
            "name": branch.name,
            "environment": branch.environment,
            "of": branch.of,
            "snapshot": branch.snapshot,
            "made": branch.made,
            "state": "incomplete" if branch.made is None else "up" if Supervisor(branch.settings).is_running() else "down",
            "dagster": branch.settings.dagster_url,
            "folder": str(branch.folder),
        }
        for branch in find_branches(current_project())
    ]
    if as_json:
        print_json(entries)
    elif not entries:
        console.print("There is no branch.")
    else:
        table = Table(*(name for name in entries[0] if name != "folder"))
        for entry in entries:
            table.add_row(*("" if value is None else str(value) for name, value in entry.items() if name != "folder"))
        console.print(table)


@app.command(epilog="Example: [bold]mlops branch down[/bold]")
def down(name: NameArgument = None) -> None:
    """Remove a branch: its processes, databases, streams and files. Nothing of it is left."""
    from mlops_assets.operations.branches.environments import checked_name, default_name, remove_branch

    project = current_project()
    chosen = checked_name(name) if name else default_name(project)
    with console.status(f"Removing {chosen}"):
        count = remove_branch(project, chosen)
    console.print(
        f"There is no branch {chosen}." if count is None else f"Removed {chosen}: {count} processes ended.", highlight=False
    )
