"""`mlops promote`, `rollback`, `history`, `trace` and `explain`: the version that predicts, its history, and the origin of a prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.tree import Tree

from mlops_assets.cli.terminal import (
    JsonOption,
    SolutionArgument,
    console,
    error_console,
    print_json,
    read_settings,
    running_settings,
)
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from mlops_assets.ml.contributions import Explanation
    from mlops_assets.operations.deployments import Deployment

app = typer.Typer()
SegmentOption = Annotated[str | None, typer.Option(help="The segment. Default: the model of all rows.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it stands in the history.")]
_BAR = 20
"""Width of the longest bar of `explain`, in characters."""
_WIDTH = 240

PredictionArgument = Annotated[str, typer.Argument(help="The prediction's id: solution:key:version.")]


@app.command(epilog='Example: [bold]mlops promote my_solution --to 3 --reason "agreed with the team"[/bold]')
def promote(
    solution: SolutionArgument,
    reason: ReasonOption,
    to: Annotated[str | None, typer.Option(help="The version, by default the challenger. With --from the environment.")] = None,
    segment: SegmentOption = None,
    source: Annotated[
        str | None,
        typer.Option("--from", help="Another environment: its version is copied here, and all gates run on the data here."),
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="With --from: the version there. Default: its champion.")] = None,
    date: Annotated[
        str | None,
        typer.Option(help="With --from: the training date whose hold-out the gates take. Default: the later one of both models."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a version that passed its gates the champion; with --from one of another environment that passes them here."""
    from mlops_assets.clients.aliases import CHALLENGER

    if source is not None:
        _promote_from(source, solution, target=to, version=version, date=date, segment=segment, reason=reason, as_json=as_json)
        return
    if version is not None or date is not None:
        raise StackError(
            "--version and --date belong to --from.", remedy=f"mlops promote {solution} --to 3 names a version here."
        )
    if to is not None and not (to.isdecimal() and int(to) > 0):
        raise StackError(
            f"--to {to} is no version.", remedy=f"Another environment: mlops promote {solution} --from staging --to {to}"
        )
    _deploy(solution, version=int(to) if to else None, role=CHALLENGER, segment=segment, reason=reason, as_json=as_json)


@app.command(epilog='Example: [bold]mlops rollback my_solution --reason "complaints since Monday"[/bold]')
def rollback(
    solution: SolutionArgument,
    reason: ReasonOption,
    to: Annotated[int | None, typer.Option(min=1, help="The version. Default: the one that predicted before.")] = None,
    segment: SegmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to a former champion; doing it twice returns to where it began."""
    from mlops_assets.clients.aliases import PREVIOUS

    _deploy(solution, version=to, role=PREVIOUS, segment=segment, reason=reason, as_json=as_json)


@app.command(epilog="Example: [bold]mlops history my_solution[/bold]")
def history(solution: SolutionArgument, segment: SegmentOption = None, as_json: JsonOption = False) -> None:
    """Show which version was in production from when to when, who put it there and why."""
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.operations import deployments

    found = deployments.deployment_history(DagsterClient.from_settings(running_settings()), solution, segment)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    console.print(_history_table(found))


@app.command(epilog="Example: [bold]mlops trace my_solution:123:1[/bold]")
def trace(prediction_id: PredictionArgument, as_json: JsonOption = False) -> None:
    """Follow a prediction back: deployment, model version, training run, dataset, feature views, raw partitions."""
    from mlops_assets.operations.lineage import PredictionLineage

    traced = PredictionLineage(running_settings(), prediction_id).trace()
    if as_json:
        print_json(traced)
        return
    tree = Tree(f"[bold]{escape(prediction_id)}[/bold]")
    _grow(tree, traced)
    # Addresses must stay whole to be opened.
    Console(width=max(console.width, _WIDTH), highlight=False, emoji=False).print(tree)


@app.command(epilog="Example: [bold]mlops explain my_solution:123:1[/bold]")
def explain(prediction_id: PredictionArgument, as_json: JsonOption = False) -> None:
    """Show the feature values that a prediction was made from, and what each contributed to it (Shapley values)."""
    from mlops_assets.operations.lineage import PredictionLineage

    explanation = PredictionLineage(running_settings(), prediction_id).explain()
    if as_json:
        print_json(asdict(explanation))
        return
    of_class = f" for {escape(explanation.predicted_class)}" if explanation.predicted_class is not None else ""
    console.print(
        f"predicted {explanation.prediction:.4f}{of_class}; the mean of the version's hold-out is {explanation.base:.4f}\n"
    )
    console.print(_explanation_table(explanation))


def _deploy(solution: str, *, version: int | None, role: str, segment: str | None, reason: str, as_json: bool) -> None:
    from mlops_assets.access.launchers import system_user
    from mlops_assets.operations import deployments

    settings = read_settings()
    deployments.ensure_asked(settings)
    if version is None:
        version = deployments.version_with_role(settings, solution, role, segment)
    with error_console.status(f"Deploying version {version}") as display:
        deployed = deployments.deploy(
            settings,
            solution,
            version=version,
            segment=segment,
            actor=system_user(),
            reason=reason,
            approve=None,
            report=display.update,
        )
    if as_json:
        print_json(None if deployed is None else asdict(deployed))
        return
    if deployed is None:
        console.print(f"Version {version} of {solution} waits for approval: mlops approvals", highlight=False)
        return
    before = f", after version {deployed.version_before}" if deployed.version_before else ""
    rows = f" the rows of {segment}" if segment else ""
    console.print(f"[green]Version {deployed.version} of {solution} predicts{rows} now[/green]{before}.", highlight=False)
    console.print(deployed.run_url, highlight=False, soft_wrap=True)


def _promote_from(
    environment: str,
    solution: str,
    *,
    target: str | None,
    version: int | None,
    date: str | None,
    segment: str | None,
    reason: str,
    as_json: bool,
) -> None:
    from mlops_assets.cli.training import show_outcome
    from mlops_assets.operations.promotion import promote_from

    if target is not None and target != environment_name():
        raise StackError(
            f"--to {target}, but the command is of the environment {environment_name()}.",
            remedy="Leave out one of --env and --to.",
        )
    settings = running_settings()
    with error_console.status(f"Copying from {environment}"):
        outcome = promote_from(
            settings,
            solution,
            environment=environment,
            version=version,
            date=date,
            segment=segment,
            reason=reason,
            report=lambda state, messages: None,
        )
    if as_json:
        print_json(asdict(outcome))
    else:
        show_outcome(outcome)
    if not outcome.succeeded:
        raise typer.Exit(1)


def _history_table(deployments: "Sequence[Deployment]") -> Table:
    table = Table("version", "from", "to", "trained for", "by", "why", "run")
    for each in deployments:
        until = f"{each.until:%Y-%m-%d %H:%M:%S}" if each.until else "[green]live[/green]"
        table.add_row(
            str(each.version),
            f"{each.since:%Y-%m-%d %H:%M:%S}",
            until,
            each.recalibration or each.copied_from or each.training_date,
            escape(each.actor) + (f", approved by {escape(each.approved_by)}" if each.approved_by else ""),
            escape(each.reason),
            each.run_id[:8],
        )
    return table


def _explanation_table(explanation: "Explanation") -> Table:
    largest = max((abs(each.contribution) for each in explanation.contributions), default=0.0)
    table = Table(Column("feature", overflow="fold"), "value", "contribution", "±", Column("", no_wrap=True, min_width=_BAR))
    for each in explanation.contributions:
        bar = "█" * round(_BAR * abs(each.contribution) / largest) if largest else ""
        colour = "red" if each.contribution > 0 else "blue"
        value = "missing" if each.value is None else f"{each.value:.4g}" if isinstance(each.value, float) else str(each.value)
        table.add_row(
            escape(each.feature),
            escape(value),
            f"{each.contribution:+.4f}",
            f"{each.standard_error:.4f}",
            f"[{colour}]{bar}[/{colour}]",
        )
    return table


def _grow(branch: Tree, content: Mapping[str, Any]) -> None:
    """Add `content` to `branch`: mappings as branches of their own, a list of mappings a line each."""
    for name, value in content.items():
        label = f"[cyan]{name.replace('_', ' ')}[/cyan]"
        if isinstance(value, Mapping):
            _grow(branch.add(label), value)
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            below = branch.add(label)
            for entry in value:
                below.add("  ".join(f"[dim]{key.replace('_', ' ')}[/dim] {_shown(each)}" for key, each in entry.items()))
        else:
            branch.add(f"{label} {_shown(value)}")


def _shown(value: object) -> str:
    return escape(", ".join(map(str, value)) if isinstance(value, list) else str(value))
