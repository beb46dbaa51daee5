"""`mlops train`: one training of a solution, with progress and what came out."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, error_console, print_json, running_settings
from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from mlops_assets.clients.dagster_client import RunState
    from mlops_assets.operations.training import TrainingOutcome

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops train my_solution --set training.search.trials=30[/bold]")
def train(
    solution: SolutionArgument,
    date: Annotated[
        str | None, typer.Option(help="The training date, such as 2013-07-01. Default: the one after the last day of data.")
    ] = None,
    segment: Annotated[
        str | None, typer.Option(help="Train the model of this segment, on the dataset that is there. Default: that of all rows.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Another value of a field of the training section, for this run alone.")
    ] = None,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Recalibrate the champion on later rows; no model is fitted.")
    ] = False,
    deploy: Annotated[bool, typer.Option(help="Make the version the champion when its gates pass.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Build the dataset, train, evaluate and, when the gates pass, deploy. The YAML file stays as it is."""
    from mlops_assets.operations.training import check_overrides, parse_override
    from mlops_assets.operations.training import train as run_training

    values = dict(map(parse_override, overrides or []))
    if recalibrate and values:
        raise StackError("--recalibrate fits no model, to which --set belongs.", remedy="Leave one of both out.")
    # Before anything is started: a mistake is answered at once.
    check_overrides(solution, values)
    settings = running_settings()
    with error_console.status("Starting the run") as display:

        def report(state: "RunState", messages: Sequence[str]) -> None:
            for message in messages:
                error_console.print(message, style="dim", highlight=False, markup=False, no_wrap=True, overflow="ellipsis")
            running = ", ".join(name.rpartition("__")[2] for name in state.running) or state.status.lower()
            display.update(f"Training {solution}: {running}")

        outcome = run_training(
            settings,
            solution,
            date=date,
            segment=segment,
            overrides=values,
            recalibrate=recalibrate,
            copied=None,
            deploy=deploy,
            report=report,
        )
    if as_json:
        print_json(asdict(outcome))
    else:
        show_outcome(outcome)
    if not outcome.succeeded:
        raise typer.Exit(1)


def show_outcome(outcome: "TrainingOutcome") -> None:
    """Print what a training, or the evaluation of a copied version, came to."""
    if outcome.version is not None:
        fitted = outcome.recalibration or f"{outcome.estimator or 'Copied'} for {outcome.training_date}"
        console.print(outcome.skipped or fitted, highlight=False, soft_wrap=True)
    if outcome.metrics:
        table = Table("metric", "hold-out")
        for name, value in outcome.metrics.items():
            table.add_row(name, f"{value:.4f}")
        console.print(table)
    if outcome.version is not None:
        colour = "green" if outcome.succeeded else "red"
        console.print(f"Version {outcome.version}: [{colour}]{outcome.gates or 'not evaluated'}[/{colour}]", highlight=False)
    if outcome.waits:
        console.print("It waits for approval: mlops approvals", highlight=False)
    if outcome.rejected_because:
        console.print(f"The candidate was refused. {outcome.rejected_because}", markup=False, highlight=False, soft_wrap=True)
    for problem in outcome.problems:
        error_console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    for url in (outcome.version_url, outcome.run_url):
        if url:
            console.print(url, highlight=False, soft_wrap=True)
