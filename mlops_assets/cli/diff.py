"""`mlops diff`: what a change does before it is merged. Options and printing only."""

import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlops_assets.cli.terminal import JsonOption, console, error_console, output_file, print_json, read_settings

if TYPE_CHECKING:
    from mlops_assets.operations.review.review import Review

app = typer.Typer()

BREAKS = 2
"""The exit code when something breaks. 1 is an error: the review itself was not possible."""

_COLOURS = {"passed": "green", "failed": "red", "allowed": "yellow", "unknown": "yellow"}


@app.command(epilog="Example: [bold]mlops diff main --output review.md[/bold]")
def diff(
    reference: Annotated[
        str,
        typer.Argument(metavar="[REF]", help="A branch, tag or commit: compared with is where the working tree parted from it."),
    ] = "HEAD",
    output: Annotated[
        Path | None, typer.Option(callback=output_file, help="Write the review as one Markdown report to this file.")
    ] = None,
    data: Annotated[
        bool,
        typer.Option(
            "--data", help="Build the changed dbt models and what follows beside production, and compare rows and values."
        ),
    ] = False,
    models: Annotated[
        bool,
        typer.Option("--models", help="Also train the solutions that the change touches, before and after, and compare them."),
    ] = False,
    windows: Annotated[int, typer.Option(min=1, help="How many of the last monitoring windows are compared.")] = 4,
    allow: Annotated[list[str] | None, typer.Option(help="A gate that may fail; may be given more than once.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the working tree changes since REF: definitions, contracts, live models, data and models. Exits with 2 when something breaks."""
    from mlops_assets.operations.review.effects import Scope
    from mlops_assets.operations.review.report import write_report
    from mlops_assets.operations.review.review import review_change

    settings = read_settings()
    # A pipeline that is cancelled ends with SIGTERM: the scratch folder and its Postgres go then too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    scope = Scope(builds=data or models, trains=models, windows=windows)
    with error_console.status("Reviewing") as display:
        review = review_change(settings, reference, scope=scope, allowed=allow or [], report=display.update)
    if output is not None:
        write_report(review, output)
    if as_json:
        print_json({"breaks": review.breaks, **asdict(review)})
    else:
        _print(review)
        console.print(
            f"{time.monotonic() - began:.0f} s" + (f", report in {output}" if output else ""), style="dim", highlight=False
        )
    if review.breaks:
        raise typer.Exit(BREAKS)


def _print(review: "Review") -> None:
    from mlops_assets.operations.review.effects_report import describe_model, describe_table
    from mlops_assets.operations.review.report import model_name

    def line(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, highlight=False, soft_wrap=True)

    line(f"Since {review.commit[:12]} ({review.reference})")
    for change in review.definitions:
        details = f": {'; '.join(change.details)}" if change.details else ""
        line(f"  {change.change:<8}{change.kind} {change.name}{details}")
    for label, names in (("modified", review.dbt.modified), ("follows", review.dbt.downstream), ("removed", review.dbt.removed)):
        for name in names:
            line(f"  {label:<9}dbt {model_name(name)}")
    if not review.definitions and not review.dbt.built and not review.dbt.removed:
        line("  nothing differs")
    if review.effects.data is not None:
        for table in review.effects.data.tables:
            line(f"  {describe_table(table)}")
        for reason in review.effects.data.not_compared:
            line(f"  not compared: {reason}", "dim")
    for model in review.effects.models:
        for text in describe_model(model):
            line(f"  {text}")
    for gate in review.gates:
        line(f"{gate.outcome:<8}{gate.name}" + (f": {gate.obstacle}" if gate.obstacle else ""), _COLOURS[gate.outcome])
        for problem in gate.problems:
            line(f"        {problem}", _COLOURS[gate.outcome])
