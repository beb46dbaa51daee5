"""`mlops automation` and `mlops replay`: the sensors that act by themselves, and their replay on historical data."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, error_console, print_json, running_settings

app = typer.Typer()
automation = typer.Typer(
    help="See and switch what acts by itself.", no_args_is_help=True, epilog="Example: [bold]mlops automation on[/bold]"
)
app.add_typer(automation, name="automation")


RetrainingArgument = Annotated[
    str | None, typer.Argument(metavar="[SOLUTION]", help="The solution whose retraining alone is switched.")
]


class PartName(StrEnum):
    """A part of automation."""

    FEATURES = "features"
    STAGES = "stages"
    RETRAINING = "retraining"


PartOption = Annotated[
    list[PartName] | None,
    typer.Option("--only", help="Switch this part alone; stages: predictions, outcomes, reports, decisions. Default: all."),
]


class StepName(StrEnum):
    """How much arrives at a time."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


@automation.command(epilog="Example: [bold]mlops automation status[/bold]")
def status(as_json: JsonOption = False) -> None:
    """Show every sensor and whether it is on."""
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.operations.automation import read_sensors

    found = read_sensors(DagsterClient.from_settings(running_settings()))
    if as_json:
        print_json({name: sensor.on for name, sensor in found.items()})
        return
    table = Table("sensor", "", "does")
    for name, sensor in sorted(found.items()):
        table.add_row(name, "[green]on[/green]" if sensor.on else "off", sensor.description)
    console.print(table)


@automation.command(epilog="Example: [bold]mlops automation on[/bold]")
def on(solution: RetrainingArgument = None, only: PartOption = None) -> None:
    """Let features, predictions and reports follow new data, and retraining follow decisions. Dagster remembers it."""
    _switch(solution, only, on=True)


@automation.command(epilog="Example: [bold]mlops automation off[/bold]")
def off(solution: RetrainingArgument = None, only: PartOption = None) -> None:
    """Leave every run to whoever starts it. What runs already goes on."""
    _switch(solution, only, on=False)


@app.command(epilog="Example: [bold]mlops replay my_solution --from 2013-08-01 --to 2013-12-31 --step month[/bold]")
def replay(
    solution: SolutionArgument,
    first: Annotated[datetime, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day that arrives.")],
    last: Annotated[datetime, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day that arrives.")],
    step: Annotated[
        StepName, typer.Option(help="How much arrives at a time; monitoring windows stay what they are.")
    ] = StepName.WEEK,
    inject: Annotated[
        str | None,
        typer.Option(
            help="A fault of a source, kind:table:first:last. Kinds: shift, corrupt, duplicate, drop, delay. With --policy a change of the "
            "relation of features and label, kind:column=value:first:last. Kinds: abrupt, gradual, recurring, seasonal."
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Compare policies of retraining on the rows of the lake instead, without runs: names with commas between, or every."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Let time pass over historical data: days arrive, are predicted, labelled and reported on, and retraining follows its decisions.

    Repeated, it recomputes nothing.
    """
    from mlops_assets.cli.replay_view import run_policy_comparison, run_replay
    from mlops_assets.operations.replay_faults import Fault
    from mlops_assets.operations.replay_plan import Period, ReplayPlan

    if last < first:
        raise typer.BadParameter("--to is before --from")
    if policy is not None:
        from mlops_assets.operations.changed_rows import RelationChange

        compared = run_policy_comparison(
            running_settings(),
            error_console if as_json else console,
            solution,
            Period(first.date(), last.date()),
            policy.split(","),
            change=RelationChange.read(inject) if inject else None,
        )
        if as_json:
            print_json(compared)
        return
    plan = ReplayPlan(solution, Period(first.date(), last.date()), step.value)
    fault = Fault.read(inject) if inject else None
    summary: dict[str, Any] = run_replay(running_settings(), error_console if as_json else console, plan, fault)
    if as_json:
        print_json(summary)


def _switch(solution: str | None, only: list[PartName] | None, *, on: bool) -> None:
    if solution is not None and only:
        raise typer.BadParameter("of a solution only its retraining is switched: leave --only out")
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.operations.automation import automation_sensors, switch_sensors

    client = DagsterClient.from_settings(running_settings())
    sensors = automation_sensors(client, solution, [part.value for part in only or PartName])
    switch_sensors(client, sensors, on=on)
    for sensor in sensors:
        console.print(f"{sensor.name} is {'on' if on else 'off'}.", highlight=False)
