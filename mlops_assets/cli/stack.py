"""`mlops up`, `down`, `status` and what else is asked of a stack as a whole. Options and printing only."""

import csv
import os
import signal
import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings, start_stack
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops up[/bold]")
def up(as_json: JsonOption = False) -> None:
    """Start the local stack: Postgres, NATS, MLflow, Dagster and the servers of predictions. Already running, it changes nothing."""
    from mlops_assets.local import servers_elsewhere

    settings = read_settings()
    servers_elsewhere.refuse(settings, "mlops up")
    began = time.monotonic()
    started = start_stack(settings)
    if as_json:
        print_json(_status(settings))
        return
    seconds = time.monotonic() - began
    console.print(f"[green]Ready[/green] after {seconds:.1f} s." if started else "Already running, nothing changed.")
    print_addresses(settings)


@app.command(name="open", epilog="Example: [bold]mlops open mlflow[/bold]")
def open_page(
    page: Annotated[str, typer.Argument(help="dagster, mlflow, or serving: the page that describes the API.")] = "dagster",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the links only.")] = False,
    new_token: Annotated[
        bool, typer.Option("--new-token", help="Make a new token for Dagster and MLflow: links and sessions of before end.")
    ] = False,
) -> None:
    """Print the links that open Dagster, MLflow and the API with one click, and open one where there is a browser."""
    from mlops_assets.access.credentials import renew_access_token
    from mlops_assets.local.links import PAGES, open_in_browser

    if page not in PAGES:
        raise StackError(f"There is no page {page!r}.", remedy=f"Choose one of: {', '.join(PAGES)}")
    settings = read_settings()
    start_stack(settings)
    if new_token:
        renew_access_token(settings)
    print_addresses(settings)
    if not no_browser and open_in_browser(settings, PAGES[page]):
        console.print(f"{PAGES[page].title} opens in your browser. If it does not, use the link.", style="dim")


@app.command(epilog="Example: [bold]mlops down[/bold]")
def down() -> None:
    """Stop the local stack and everything it started, runs included. The state stays."""
    from mlops_assets.local import control

    with console.status("Stopping the stack"):
        count = control.down(read_settings())
    console.print(f"Stopped {count} processes." if count else "Nothing was running.")


@app.command(epilog="Example: [bold]mlops status --json[/bold]")
def status(as_json: JsonOption = False) -> None:
    """Show every server with its address, runs that stand still, and every solution with its champion and failing checks."""
    answer = _status(read_settings())
    if as_json:
        print_json(answer)
        return
    console.print(f"Environment {answer['environment']}", highlight=False)
    console.print(_table(answer["processes"]))
    for line in answer["configuration_errors"]:
        console.print(line, style="red", highlight=False, soft_wrap=True)
    for stuck in answer["stuck"]:
        console.print(_stuck_line(stuck), style="yellow", highlight=False, soft_wrap=True)
    if answer["solutions"]:
        console.print(_table([{"solution": name, **state} for name, state in answer["solutions"].items()]))


@app.command(epilog="Example: [bold]mlops reload[/bold], after a change of YAML, SQL or Python")
def reload() -> None:
    """Load changed definitions: parse the dbt project and restart the server of the code location. Runs in progress go on."""
    from mlops_assets.local import control

    with console.status("Loading the definitions"):
        control.reload(read_settings())
    console.print("[green]Definitions loaded.[/green]")


@app.command(epilog="Example: [bold]mlops dev[/bold], then Ctrl-C")
def dev() -> None:
    """Run the stack in the foreground with the logs of all servers; Ctrl-C stops it."""
    from mlops_assets.local import control, logs, servers_elsewhere
    from mlops_assets.local.services import services

    settings = read_settings()
    servers_elsewhere.refuse(settings, "mlops dev")
    # A process manager stops with SIGTERM; a shell script's background job is started with SIGINT ignored.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        start_stack(settings)
        print_addresses(settings)
        console.print("The logs follow; Ctrl-C stops the stack.", style="dim")
        for name, line in logs.follow(services(settings), 0.3, lambda: True):
            console.print(f"{name:<18}", style="cyan", end="", highlight=False)
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Stopping the stack")
    finally:
        control.down(settings)


@app.command(epilog="Example: [bold]mlops logs mlflow --lines 50[/bold]")
def logs(
    name: Annotated[str, typer.Argument(help="The server, as `mlops status` names it.")],
    lines: Annotated[int, typer.Option(min=1, help="How many of the last lines.")] = 30,
) -> None:
    """Show the end of a server's log and where the whole log is."""
    from mlops_assets.local.logs import last_lines
    from mlops_assets.local.services import services

    known = {service.name: service for service in services(read_settings())}
    if name not in known:
        raise StackError(f"There is no server {name!r}.", remedy=f"Choose one of: {', '.join(known)}")
    for line in last_lines(known[name].log, lines):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    error_console.print(f"The whole log: {known[name].log}", style="dim", highlight=False)


@app.command(
    name="exec",
    context_settings={"allow_interspersed_args": False, "ignore_unknown_options": True},
    epilog="Example: [bold]mlops exec dagster instance info[/bold]",
)
def execute(
    command: Annotated[list[str], typer.Argument(help="A program with its arguments.", show_default=False)],
) -> None:
    """Become another program, with the variables that the platform's servers run with: what a container begins with."""
    from mlops_assets.local.environment import process_environment

    environment = process_environment(read_settings())
    if command[:2] == ["dagster", "api"]:
        # Dagster's launchers name it so; here each line that a run or a step prints names the environment.
        command = [sys.executable, "-m", "mlops_assets.local.dagster_api", *command[2:]]
    try:
        os.execvpe(command[0], command, environment)  # noqa: S606 - it is given as a list, without a shell
    except OSError as error:
        raise StackError(
            f"{command[0]} cannot be run: {error.strerror}.", remedy="Name a program of this Python, or its path."
        ) from error


@app.command(epilog="Example: [bold]mlops prepare[/bold]")
def prepare() -> None:
    """Install the DuckDB extensions from their wheels and parse the dbt project; skips what is there."""
    from mlops_assets.local.prepare import prepare as prepare_installation

    with console.status("Preparing the installation"):
        done = prepare_installation(read_settings())
    for line in done or ["Nothing to prepare."]:
        console.print(line)


@app.command(epilog='Example: [bold]mlops sql "SELECT table_schema, table_name FROM information_schema.tables"[/bold]')
def sql(
    query: Annotated[str, typer.Argument(help="One DuckDB query; tables are named schema.table.")],
    as_json: JsonOption = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="The most rows a table shows; JSON and CSV have them all.")] = 100,
) -> None:
    """Query the lake, read-only; it never waits for a run that writes."""
    from mlops_assets.operations.query import run_query

    settings = read_settings()
    start_stack(settings)
    columns, rows = run_query(settings, query)
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    elif as_csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        table = Table(*map(escape, columns))
        for row in rows[:limit]:
            table.add_row(*map(_cell, row))
        console.print(table)
        console.print(f"{len(rows)} rows" if len(rows) <= limit else f"{limit} of {len(rows)} rows (--limit)", style="dim")


def _status(settings: Settings) -> dict:
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.local import control, interrupted_runs
    from mlops_assets.operations.solutions import configuration_errors, solution_states

    processes = control.status(settings)
    # Another installation's Dagster may have the port: only this one's is asked.
    answers = any(process["name"] == "dagster-webserver" and process["state"] == "running" for process in processes)
    assets = DagsterClient.from_settings(settings).assets(with_checks=True) if answers else {}
    return {
        "environment": environment_name(),
        "processes": processes,
        "solutions": solution_states(settings, assets),
        "configuration_errors": configuration_errors(assets),
        "stuck": [asdict(stuck) for stuck in interrupted_runs.find_blockages(settings)] if answers else [],
    }


def _stuck_line(stuck: dict[str, Any]) -> str:
    behind = f" by {', '.join(stuck['behind'])}" if stuck["behind"] else ""
    waited = f"{'queued' if stuck['kind'] == 'queued' else 'for'} {stuck['seconds']:.0f} s"
    return f"Run {stuck['run_id']} ({stuck['name']}), {waited}: {stuck['reason']}{behind}"


def print_addresses(settings: Settings) -> None:
    """Print the links that open the pages, the state folder and the environment."""
    from mlops_assets.local.links import PAGES

    addresses = {page.title: page.link(settings) for page in PAGES.values()}
    addresses["State"] = str(settings.home)
    addresses["Environment"] = environment_name()
    console.print("\n".join(f"{name:<12}{address}" for name, address in addresses.items()), highlight=False, soft_wrap=True)


def _table(entries: list[dict]) -> Table:
    table = Table(*entries[0])
    for entry in entries:
        table.add_row(*(_cell(value) for value in entry.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, list):
        return escape("\n".join(map(str, value))) or "none"
    return "" if value is None else escape(str(value))
