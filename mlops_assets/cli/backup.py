"""`mlops backup`, `restore` and `verify`: copies of an installation while it runs, and a new one made of them."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings

app = typer.Typer()

PointOption = Annotated[str | None, typer.Option("--point", help="Which backup of the folder. Default: the newest.")]


@app.command(epilog="Example: [bold]mlops backup /mnt/disk/mlops --keep 14[/bold]")
def backup(
    to: Annotated[
        Path, typer.Argument(help="Folder of the backups, on another disk. It is created, for you alone: it will hold keys.")
    ],
    keep: Annotated[
        int | None, typer.Option(min=1, help="Remove all but the newest so many backups. Default: remove none.")
    ] = None,
    recipients: Annotated[
        list[str] | None,
        typer.Option(
            "--recipient", help="Encrypt to this recipient of age (age1...); may be repeated. Default: MLOPS_BACKUP_RECIPIENTS."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the installation while it works: databases, lake, event stream, models, keys. What is in the folder already is not copied again."""
    from mlops_assets.operations.backup.creation import create_backup

    settings = read_settings()
    if recipients:
        settings = replace(settings, backup_recipients=tuple(recipients))
    with error_console.status("Preparing") as display:
        made = create_backup(settings, to, keep=keep, report=display.update)
    if as_json:
        sizes = {"bytes": made.point.size, "new_bytes": made.new_bytes, "files": len(made.point.files)}
        times = {"seconds": made.seconds, "held_seconds": made.held_seconds}
        print_json(
            {"point": made.point.name, "folder": to.resolve(), "snapshot": made.point.snapshot, "removed": made.removed}
            | sizes
            | times
        )
        return
    removed = f", {made.removed} older removed" if made.removed else ""
    console.print(
        f"[green]Backup {made.point.name}[/green]: {len(made.point.files):,} files, {_megabytes(made.point.size)}, "
        f"of which {_megabytes(made.new_bytes)} new, in {made.seconds:.1f} s{removed}.",
        highlight=False,
    )
    told = (
        f"Encrypted to {', '.join(made.point.recipients)}. Keep the identity elsewhere: nothing is restored without it."
        if made.point.recipients
        else f"{to.resolve()} holds the keys of this installation: whoever reads it gets in."
    )
    console.print(told, highlight=False, soft_wrap=True)


@app.command(epilog="Example: [bold]mlops restore /mnt/disk/mlops[/bold], then mlops up")
def restore(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="Folder of the backups.")],
    point: PointOption = None,
    identity: Annotated[Path | None, typer.Option(help="File with an identity of age, of an encrypted backup.")] = None,
) -> None:
    """Make a state folder, which is empty, and its databases as they were at a backup. The path, machine and Postgres may be others."""
    from mlops_assets.operations.backup.restoring import restore_backup

    settings = read_settings()
    began = time.monotonic()
    with error_console.status("Reading the backup") as display:
        restored = restore_backup(settings, source, point, identity, display.update)
    console.print(
        f"[green]Restored {restored.name}[/green] into {settings.home}: {len(restored.files):,} files, {_megabytes(restored.size)}, "
        f"in {time.monotonic() - began:.1f} s.",
        highlight=False,
        soft_wrap=True,
    )
    console.print("Start it: mlops up")


@app.command(epilog="Example: [bold]mlops verify /mnt/disk/mlops[/bold]")
def verify(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="Folder of the backups.")],
    point: PointOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell whether a backup is intact, and what differs from it now: tables, files of models, streams. Exits with 1 when anything does."""
    from mlops_assets.operations.backup.verification import verify_backup

    with error_console.status("Reading the backup") as display:
        result = verify_backup(read_settings(), source, point, display.update)
    if as_json:
        print_json(asdict(result))
    elif result.differences:
        table = Table("what", "name", "now")
        for difference in result.differences:
            table.add_row(difference.kind, difference.name, difference.difference)
        console.print(table)
    else:
        console.print(
            f"[green]Equal to {result.point}[/green]: {result.tables} tables, {result.models} files of models. "
            f"All {result.files:,} files of the backup are intact.",
            highlight=False,
        )
    if result.differences:
        raise typer.Exit(1)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
