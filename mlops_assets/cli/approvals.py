"""`mlops approvals`, `approve` and `refuse`: versions that wait for a person."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mlops_assets.cli.terminal import (
    JsonOption,
    SolutionArgument,
    console,
    error_console,
    print_json,
    read_settings,
    running_settings,
)

app = typer.Typer()
VersionOption = Annotated[int, typer.Option(min=1, help="The version that waits, as `mlops approvals` lists it.")]
ReasonOption = Annotated[str, typer.Option(help="Why; it is kept with your name.")]


@app.command(epilog="Example: [bold]mlops approvals --all[/bold]")
def approvals(
    everything: Annotated[bool, typer.Option("--all", help="All that was asked, approved and refused.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the versions that passed their gates and wait for a person (`deployment.approval` in the YAML)."""
    import msgspec

    from mlops_assets.operations.approvals import approval_entries, waiting

    settings = read_settings()
    entries = approval_entries(settings) if everything else waiting(settings)
    if as_json:
        print_json([msgspec.to_builtins(entry) for entry in entries])
        return
    table = Table("solution", "version", "segment", "what", "by", "known by", "at (UTC)", "why")
    for entry in entries:
        table.add_row(
            entry.solution,
            str(entry.version),
            entry.segment or "",
            entry.step,
            escape(entry.by),
            entry.identified_by or "automation",
            f"{entry.at:%Y-%m-%d %H:%M:%S}",
            escape(entry.reason),
        )
    console.print(table if entries else "Nothing was ever asked." if everything else "Nothing waits.")


@app.command(epilog='Example: [bold]mlops approve my_solution --version 7 --reason "read its card"[/bold]')
def approve(solution: SolutionArgument, version: VersionOption, reason: ReasonOption, as_json: JsonOption = False) -> None:
    """Approve a version that waits: it predicts from now on."""
    from mlops_assets.operations.approvals import decide

    settings = running_settings()
    with error_console.status(f"Approving version {version}"):
        deployed = decide(settings, solution, version=version, approve=True, reason=reason)
    if as_json:
        print_json(None if deployed is None else asdict(deployed))
    elif deployed is not None:
        console.print(f"[green]Version {version} of {solution} is approved and predicts now.[/green]", highlight=False)
        console.print(deployed.run_url, highlight=False, soft_wrap=True)


@app.command(epilog='Example: [bold]mlops refuse my_solution --version 7 --reason "worse for small airports"[/bold]')
def refuse(solution: SolutionArgument, version: VersionOption, reason: ReasonOption) -> None:
    """Refuse a version that waits: automation does not ask for it again. A person may, by `mlops promote`."""
    from mlops_assets.operations.approvals import decide

    settings = running_settings()
    with error_console.status(f"Refusing version {version}"):
        decide(settings, solution, version=version, approve=False, reason=reason)
    console.print(f"Version {version} of {solution} is refused. The champion stays.", highlight=False)
