"""`mlops upgrade`: the state of an earlier release, migrated to this one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings
from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from mlops_assets.operations.upgrade import Plan, Upgrade

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops upgrade --backup /mnt/disk/mlops[/bold]")
def upgrade(
    backup: Annotated[
        Path | None, typer.Option(help="Folder of the backup that is made first. Default: MLOPS_BACKUP_FOLDER.")
    ] = None,
    no_backup: Annotated[bool, typer.Option("--no-backup", help="Make none: there is no way back then.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the versions and what would be migrated; change nothing.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Migrate the state that an earlier release wrote, after a backup: databases, the lake's catalog, own tables. The stack is stopped."""
    from mlops_assets.operations.upgrade import plan_upgrade, upgrade_state

    if backup is not None and no_backup:
        raise StackError("--backup and --no-backup exclude each other.", remedy="Give one of them.")
    settings = read_settings()
    with error_console.status("Looking at the state") as display:
        plan = plan_upgrade(settings)
    if not as_json:
        _print_plan(plan)
    if dry_run or not plan.has_work:
        if as_json:
            print_json(_described(plan, None))
        return
    folder = None if no_backup else backup or settings.backup_folder
    if folder is None and not no_backup and plan.unfinished is None:
        raise StackError(
            "There is no way back from an upgrade without a backup.",
            remedy="Name a folder on another disk: mlops upgrade --backup FOLDER. Without a backup: --no-backup",
        )
    with error_console.status("Stopping the stack") as display:
        made = upgrade_state(settings, plan, folder=folder, report=display.update)
    if as_json:
        print_json(_described(plan, made))
        return
    console.print(f"[green]Upgraded[/green]: {'; '.join(made.changes)}. Start it: mlops up", highlight=False, soft_wrap=True)
    if made.backup:
        console.print(f"The way back: {_way_back(plan, made)}", highlight=False, markup=False, soft_wrap=True)


def _print_plan(plan: "Plan") -> None:
    table = Table("part", "state", "this release", "change")
    for part in plan.parts:
        table.add_row(part.name, part.state or "none", part.program, part.change if part in plan.pending else "")
    console.print(table)
    if plan.unfinished:
        console.print(f"The upgrade that began at {plan.unfinished.at:%Y-%m-%d %H:%M:%S} UTC goes on.", highlight=False)
    elif not plan.pending:
        console.print("Nothing to migrate.")


def _way_back(plan: "Plan", made: "Upgrade") -> str:
    from mlops_assets.local.version_check import former_packages

    if made.backup is None:
        return "none, without a backup"
    identity = " --identity <its file>" if read_settings().backup_recipients else ""
    packages = " ".join(f"'{name}=={version}'" for name, version in former_packages(plan.written_by).items())
    return (
        f"uv pip install {packages}, then with an empty MLOPS_HOME: "
        f"mlops restore {made.backup.folder} --point {made.backup.point}{identity} && mlops up"
    )


def _described(plan: "Plan", made: "Upgrade | None") -> dict[str, Any]:
    parts = [
        {"name": part.name, "state": part.state, "program": part.program, "condition": part.condition, "change": part.change}
        for part in plan.parts
    ]
    upgraded = {"upgraded": made.changes, "backup": made.backup, "way_back": _way_back(plan, made)} if made else {}
    return {"written_by": plan.written_by, "parts": parts, "pending": [part.name for part in plan.pending]} | upgraded
