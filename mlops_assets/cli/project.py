"""`mlops init`, `new`, `check` and `remove`: the files of a project as a whole. Options and printing only."""

from dataclasses import asdict
from typing import Annotated

import typer

from mlops_assets.cli import init, new
from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, print_json, read_settings
from mlops_assets.core.errors import StackError

app = typer.Typer()
app.add_typer(init.app)
app.add_typer(new.app)


@app.command(epilog="Example: [bold]mlops check parcels[/bold]")
def check(
    name: Annotated[
        str | None, typer.Argument(help="A solution, with all that it needs, or a folder of defs/. Default: everything.")
    ] = None,
    changed: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="Only what changed since the working tree parted from REF, and all that follows from it."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find every fault of the YAML and dbt files before a run, each with file and line. Needs no running stack; exits with 1 for an error."""
    from mlops_assets.operations.project_check import check_project

    if name is not None and changed is not None:
        raise StackError("A name and --changed are two selections.", remedy="Give one of them.")
    found = check_project(read_settings(), name, changed)
    if as_json:
        print_json(
            {
                "ok": not found.errors,
                "folders": found.folders,
                "faults": [
                    {
                        "severity": fault.severity,
                        "file": str(fault.file),
                        "line": fault.line,
                        "field": fault.field,
                        "message": fault.message,
                    }
                    for fault in found.faults
                ],
                "not_checked": found.not_checked,
                "untouched": found.untouched,
            }
        )
    else:
        for fault in found.faults:
            console.print(f"{fault.severity:<8}", style="red" if fault.severity == "error" else "yellow", end="")
            console.print(str(fault), markup=False, highlight=False, soft_wrap=True)
        for reason in found.not_checked:
            console.print(f"Not checked: {reason}", style="dim", markup=False, highlight=False, soft_wrap=True)
        if found.untouched:
            untouched = f"Not touched by the change: {', '.join(found.untouched)}"
            console.print(untouched, style="dim", markup=False, highlight=False, soft_wrap=True)
        warnings = len(found.faults) - len(found.errors)
        counts = f"{_count(len(found.errors), 'error')}, {_count(warnings, 'warning')} in {_count(len(found.folders), 'folder')}"
        console.print(counts if found.faults else f"Nothing is wrong in {_count(len(found.folders), 'folder')}.", highlight=False)
    if found.errors:
        raise typer.Exit(1)


@app.command(epilog="Example: [bold]mlops remove parcels[/bold]")
def remove(
    solution: SolutionArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a solution with the dbt models and tables that only it uses: shows what would go and what stays, asks, and does it.

    With --json and without --yes it only shows.
    """
    from mlops_assets.operations import removal

    settings = read_settings()
    plan = removal.plan_removal(settings, solution)
    if as_json:
        print_json(asdict(plan))
    else:
        for noun, things in (
            ("folder", plan.folders),
            ("file", plan.files),
            ("table", plan.tables),
            ("alias in MLflow", plan.aliases),
            ("bundles", [str(settings.serving_directory / solution)] if plan.has_bundles else []),
        ):
            for thing in things:
                console.print(f"- {noun} {thing}", style="red", markup=False, highlight=False, soft_wrap=True)
        for line in plan.kept:
            console.print(f"  stays: {line}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if not yes and (as_json or not typer.confirm(f"Remove {solution} for good?")):
        raise typer.Exit(0 if as_json else 1)
    removal.remove(settings, plan)
    if not as_json:
        console.print(f"[green]✓[/green] {solution} is removed. A running stack follows: mlops reload", highlight=False)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
