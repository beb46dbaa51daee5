"""`mlops audit`: who did what; and the record of each command that may change an installation."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, print_json, read_settings
from mlops_assets.core.errors import StackError

app = typer.Typer()

READS = {
    *(
        "approvals",
        "audit",
        "check",
        "compare",
        "debug",
        "diff",
        "explain",
        "history",
        "logs",
        "sql",
        "status",
        "trace",
        "verify",
    ),
    *("access list", "automation status", "dataset list", "schema plan", "stream tail", "catalogue"),
    # What is asked for is kept with the predictions.
    *("predict", "stream send"),
    *("features impact", "features list", "features online", "features search", "features show"),
    # These write a folder beside the installation, which they only read.
    *("branch down", "branch list", "branch up"),
    # These write the project, not the installation, or run in the foreground of who started them.
    *("features eject", "exec", "init", "new", "prepare", "serve"),
}
"""The commands that are not recorded. Any other is: one that is added need not think of it."""


@dataclass(frozen=True)
class _Command:
    name: str
    arguments: Sequence[str]


@contextmanager
def recorded(group: Any, words: Sequence[str]) -> Iterator[None]:
    """Record a command line in the audit log, unless it only reads or there is no installation yet."""
    command = _command(group, words)
    if command is None or command.name in READS or "--help" in command.arguments:
        yield
        return
    with _record(command) as outcome:
        try:
            yield
        except typer.Exit as end:
            from mlops_assets.access.audit import DONE

            outcome.append(f"exit {end.exit_code}" if end.exit_code else DONE)
            raise


def _record(command: _Command) -> AbstractContextManager[list[str]]:
    from mlops_assets.access.audit import audited
    from mlops_assets.access.launchers import system_user

    try:
        settings = read_settings()
    except StackError:
        return nullcontext([])  # the command says what is wrong with the settings
    if not settings.dagster_home.is_dir():
        return nullcontext([])
    return audited(
        settings.audit_log,
        actor=system_user(),
        role="operator",
        door="command line",
        action=f"mlops {command.name}",
        details=list(command.arguments),
        is_required=False,  # the disk may be full, and the command what mends it
    )


def _command(group: Any, words: Sequence[str]) -> _Command | None:
    """The command that the words name, with what follows them; None where they name none."""
    path: list[str] = []
    left = list(words)
    while left and (commands := getattr(group, "commands", None)) and left[0] in commands:
        group = commands[left[0]]
        path.append(left.pop(0))
    return None if not path or hasattr(group, "commands") else _Command(" ".join(path), left)


@app.command(epilog="Example: [bold]mlops audit --limit 20[/bold]")
def audit(
    limit: Annotated[int, typer.Option(min=1, help="How many of the newest.")] = 50,
    as_json: JsonOption = False,
) -> None:
    """Show who did what to the installation: commands, and what was changed in the pages of Dagster and MLflow."""
    from mlops_assets.access.audit import read_audit_log

    entries = read_audit_log(read_settings().audit_log)[-limit:]
    if as_json:
        import msgspec

        print_json([msgspec.to_builtins(entry) for entry in entries])
        return
    table = Table("at (UTC)", "who", "role", "where", "what", "outcome")
    for entry in entries:
        details = " ".join(entry.details) if isinstance(entry.details, list) else _mutations(entry.details)
        what = f"{entry.action} {details}".strip()
        table.add_row(f"{entry.at:%Y-%m-%d %H:%M:%S}", *map(escape, (entry.actor, entry.role, entry.door, what, entry.outcome)))
    console.print(table if entries else "Nothing is recorded.")


def _mutations(details: Any) -> str:
    return ", ".join(details.get("mutations", ())) if isinstance(details, dict) else ""
