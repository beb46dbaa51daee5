"""`mlops run` and `mlops demo`: a solution from its raw data to its reports, in one command."""

from datetime import date, datetime
from typing import Annotated

import typer

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, error_console, print_json, read_settings, start_stack
from mlops_assets.core.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops run my_solution --from 2024-05-01 --to 2024-05-31[/bold]")
def run(
    solution: SolutionArgument,
    first: Annotated[
        datetime | None,
        typer.Option(
            "--from",
            formats=["%Y-%m-%d"],
            help="The first day that is predicted. Default: the first that was; before any, as many at the end as the hold-out has.",
        ),
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day. Default: the last of the data.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Load the data, train and deploy where nothing is deployed, predict, and monitor. Repeated, it only reports."""
    from mlops_assets.cli.run_view import run_solution
    from mlops_assets.operations.run_plan import RunRequest
    from mlops_assets.operations.solutions import declared_solution

    if first and last and last < first:
        raise typer.BadParameter("--to is before --from")
    # Before anything is started: a mistake is answered at once.
    declared_solution(solution)
    request = RunRequest(solution, first=_day(first), last=_day(last))
    settings = read_settings()
    _load(settings, solution)
    summary = run_solution(settings, error_console if as_json else console, request)
    if as_json:
        print_json(summary)


@app.command(epilog="Example: [bold]mlops demo --months 2[/bold]")
def demo(
    months: Annotated[
        int | None, typer.Option(min=2, help="Months of data; the last one is predicted. Default: as in defs/demo.yaml.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the solution of defs/demo.yaml end to end: features, training, promotion, predictions, outcomes, drift. Repeated, it only reports."""
    from mlops_assets.cli.run_view import run_demo
    from mlops_assets.operations.demo import DemoPlan

    settings, plan = read_settings(), DemoPlan.read(months)
    _load(settings, plan.solution)
    summary = run_demo(settings, error_console if as_json else console, plan)
    if as_json:
        print_json(summary)


def _load(settings: Settings, solution: str) -> None:
    """Start what is missing of the stack, with the dbt project and the definitions as they are now. Raises StackError."""
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.local import control
    from mlops_assets.local.prepare import prepare
    from mlops_assets.operations.run_plan import is_loaded
    from mlops_assets.operations.solutions import declared_solution

    with error_console.status("Preparing the installation"):
        is_changed = bool(prepare(settings))
    has_started = start_stack(settings)
    is_missing = not is_loaded(DagsterClient.from_settings(settings).assets(), declared_solution(solution))
    if is_missing or (is_changed and not has_started):
        with error_console.status("Loading the definitions"):
            control.reload(settings)


def _day(moment: datetime | None) -> date | None:
    return moment.date() if moment else None
