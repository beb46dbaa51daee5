"""`mlops backfill`: what late corrections touch, built again. Options and printing only."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, running_settings
from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from mlops_assets.clients.dagster_client import RunState
    from mlops_assets.operations.backfill import TouchedAsset

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops backfill --from-changes --dry-run[/bold]")
def backfill(
    from_changes: Annotated[
        bool, typer.Option("--from-changes", help="Build the partitions whose inputs have other rows than when they were built.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be built, and build nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the runs are launched.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Build again what corrected inputs touch, level by level; what comes out as it was stops there. Interrupted, repeat it.

    Predictions are history and stay: `mlops score --list` shows those whose values differ.
    """
    import dagster as dg

    from mlops_assets.components.project import project_definitions
    from mlops_assets.operations.backfill import rebuild_from_changes, touched_assets

    if not from_changes:
        raise StackError("Nothing says what to build.", remedy="mlops backfill --from-changes --dry-run")
    settings = running_settings()
    with error_console.status("Comparing the inputs"):
        graph = project_definitions().resolve_asset_graph()
        instance = dg.DagsterInstance.from_config(str(settings.dagster_home))
        touched = touched_assets(instance, graph)
    with instance:
        if dry_run or not touched:
            if as_json:
                print_json({"touched": [asdict(asset) for asset in touched], "built": {}})
            else:
                _print(touched)
            return
        if not as_json:
            _print(touched)
        if not yes and not typer.confirm("Launch the runs?", err=True):
            raise typer.Exit(1)
        with error_console.status("Launching the runs") as display:

            def report(name: str, state: "RunState") -> None:
                display.update(f"{name}: {state.status.lower()}")

            built = rebuild_from_changes(settings, instance, graph, report)
    if as_json:
        print_json({"touched": [asdict(asset) for asset in touched], "built": built})
        return
    console.print(f"Built {sum(built.values())} partitions of {len(built)} assets. The other touched ones were as before.")


def _print(touched: "list[TouchedAsset]") -> None:
    if not touched:
        console.print("Nothing is outdated: every input has the rows that it was read with.")
        return
    table = Table("asset", "outdated", "at most", "from", "to", "reaches")
    for asset in touched:
        table.add_row(asset.asset, str(asset.outdated), str(asset.touched), asset.first or "", asset.last or "", asset.reach)
    console.print(table)
    partitions = sum(asset.touched for asset in touched)
    console.print(f"At most {partitions} partitions of {len(touched)} assets. What comes out as it was stops there.")
