"""`mlops maintenance`: what grows with use is made small again."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings, running_settings

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops maintenance --dry-run[/bold]")
def maintenance(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Merge files of the lake, expire what nothing needs, remove old logs, reports and refused candidates. Each night a schedule does it."""
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.operations.maintenance import plan_maintenance, run_maintenance

    if not dry_run:
        client = DagsterClient.from_settings(running_settings())
        with error_console.status("Maintaining"):
            run_id = run_maintenance(client, lambda _: None)
        if as_json:
            print_json({"run_id": run_id, "dagster": client.run_url(run_id)})
        else:
            console.print(f"[green]Done.[/green] What it did: {client.run_url(run_id)}", highlight=False, soft_wrap=True)
        return
    with error_console.status("Measuring") as display:
        plan = plan_maintenance(read_settings(), display.update)
    if as_json:
        print_json(asdict(plan))
        return
    lake, runs, models = plan.lake, plan.runs, plan.models
    kept = ", ".join(f"{count:,} {reason}" for reason, count in lake.kept.items())
    table = Table("what", "now", "would go")
    table.add_row("snapshots", f"{lake.before.snapshots:,}", f"{lake.expired:,}")
    table.add_row("files", f"{lake.before.files:,}", f"{len(lake.removed) + len(lake.orphans):,}, orphans: {len(lake.orphans):,}")
    table.add_row("runs", f"{runs.before.runs:,}", f"{len(runs.deleted):,}, of others the log: {runs.expired:,}")
    table.add_row("events of runs", f"{runs.before.events:,}", f"{runs.events:,}")
    if models is None:
        table.add_row("versions in MLflow", "unknown", "MLflow does not answer: mlops up")
    else:
        table.add_row("versions in MLflow", f"{models.versions:,}", f"the runs of {len(models.expired):,} refused ones")
        table.add_row(
            "runs in MLflow", f"{models.runs:,}", f"{len(models.abandoned):,}, of deleted ones the files: {len(models.removed):,}"
        )
        table.add_row("searches", "", f"{len(models.studies):,}")
    table.add_row("HTML reports", f"{plan.reports.pages:,}", f"{len(plan.reports.removed):,}")
    console.print(table)
    console.print(f"Snapshots that stay: {kept}. Tables to merge: {', '.join(lake.compacted) or 'none'}.", highlight=False)
    for path in lake.orphans:
        console.print(f"Orphan: {path}", highlight=False, soft_wrap=True)
