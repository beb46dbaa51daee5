"""`mlops serve`, `predict`, `compare` and `score`: the online server in the foreground, a question to it, its challenger; the batch again."""

import getpass
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from mlops_assets.cli.terminal import (
    JsonOption,
    SolutionArgument,
    console,
    error_console,
    print_json,
    read_settings,
    run_progress,
    running_settings,
    serving_settings,
)
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

app = typer.Typer()

_TIMEOUT_SECONDS = 30


@app.command(epilog="Example: [bold]mlops serve[/bold], then Ctrl-C")
def serve() -> None:
    """Run the online server alone, in the foreground: what a container runs. `mlops up` runs it too."""
    from mlops_assets.local import preflight
    from mlops_assets.local.services import ONLINE, services
    from mlops_assets.serving.online import server

    settings = read_settings()
    [online] = [service for service in services(settings) if service.name == ONLINE]
    preflight.check_port(settings.listening, online)
    server.serve(settings, restarted=False)


@app.command(epilog="""Example: [bold]mlops predict my_solution --json '{"id": 7}'[/bold]; the fields: --example""")
def predict(
    solution: SolutionArgument,
    request: Annotated[str | None, typer.Option("--json", help="A row as a JSON object, or an array of rows.")] = None,
    example: Annotated[bool, typer.Option("--example", help="Show a row that may be asked for, of the hold-out.")] = False,
) -> None:
    """Ask the online server for a prediction and print its answer."""
    if example == (request is not None):
        raise StackError("Give a row, or ask for an example.", remedy=f"mlops predict {solution} --example")
    settings = serving_settings()
    if request is None:
        print_json(ask_server(settings, "GET", f"/{solution}/model", None)["example"])
    else:
        print_json(ask_server(settings, "POST", f"/{solution}/predict", request))


@app.command(epilog="Example: [bold]mlops compare my_solution[/bold]")
def compare(solution: SolutionArgument, as_json: JsonOption = False) -> None:
    """Show a challenger beside the champion on the same requests, and how good both were on those whose labels are known."""
    from mlops_assets.operations.realised_comparison import compare_challengers

    entries = compare_challengers(running_settings(), solution)
    if as_json:
        print_json(entries)
        return
    table = Table("", *(f"{entry['champion']} and {entry['challenger']}" for entry in entries))
    for name in (name for name in entries[0] if name != "realised"):
        values = (entry[name] for entry in entries)
        table.add_row(name.replace("_", " "), *map(_number, values))
    console.print(table)
    for entry in entries:
        console.print(_realised(entry), highlight=False)


def _realised(entry: Mapping[str, Any]) -> Table | str:
    """The realised metrics of one pair of versions, or why there are none."""
    realised, versions = entry["realised"], f"versions {entry['champion']} and {entry['challenger']}"
    if realised["obstacle"]:
        return f"Realised metrics of {versions}: {realised['obstacle']}."
    title = f"Realised metrics of {versions} on {realised['rows']:,} requests with known labels"
    table = Table("", "champion", "challenger", "difference", "95 % interval", title=title, title_justify="left")
    for name, metric in realised["metrics"].items():
        interval = "" if metric["low"] is None else f"{metric['low']:+.5f} to {metric['high']:+.5f}"
        table.add_row(name, *(_number(metric[column]) for column in ("champion", "challenger", "difference")), interval)
    return table


def _number(value: Any) -> str:
    return f"{value:.5f}" if isinstance(value, float) else str(value)


@app.command(
    epilog="Example: [bold]mlops score my_solution[/bold], or [bold]mlops score my_solution --from 2013-07-01 --to 2013-07-31[/bold]"
)
def score(
    solution: SolutionArgument,
    first: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first partition.")] = None,
    last: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last partition.")] = None,
    look: Annotated[bool, typer.Option("--list", help="Show what is outdated and score nothing.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; it is kept with each new prediction.")] = None,
    supersede: Annotated[
        bool,
        typer.Option("--supersede", help="Let the new predictions count instead of the former, which are kept. Needs --reason."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score partitions again: those from one to another, or, without dates, those whose inputs were corrected or came late."""
    from mlops_assets.clients.dagster_client import DagsterClient
    from mlops_assets.operations.rescoring import outdated_ranges, score_again

    if (first is None) != (last is None):
        raise StackError("Give both --from and --to, or neither.", remedy=f"mlops score {solution} --list")
    if supersede and not reason:
        raise StackError(
            "Predictions that no longer count need a reason.", remedy=f'mlops score {solution} --supersede --reason "..."'
        )
    settings = running_settings()
    chosen = [(first.date().isoformat(), last.date().isoformat())] if first and last else outdated_ranges(settings, solution)
    client = DagsterClient.from_settings(settings)
    configuration = {"actor": getpass.getuser(), "reason": reason, "supersede": supersede}
    for start, end in [] if look else chosen:
        with run_progress(f"scoring {start} to {end}", error_console) as report:
            score_again(client, solution, start, end, configuration, report)
    if as_json:
        print_json([{"first": start, "last": end} for start, end in chosen])
    else:
        result = "outdated" if look else "scored again"
        console.print("\n".join(f"{start} to {end} {result}" for start, end in chosen) or "Nothing is outdated.", highlight=False)
        if chosen and not look and not supersede:
            console.print(
                "What was predicted before goes on counting; --supersede lets the new predictions count.", highlight=False
            )


def ask_server(settings: Settings, method: str, path: str, body: str | None) -> dict:
    """The JSON answer of the online server. Raises StackError with what it says of an error."""
    import requests

    from mlops_assets.access.credentials import serving_token
    from mlops_assets.access.tls import verification

    address, verify = f"{settings.serving_url}{path}", verification(settings.listening)
    headers = {"Authorization": f"Bearer {serving_token(settings)}", "Content-Type": "application/json"}
    try:
        answer = requests.request(
            method, address, data=body and body.encode(), headers=headers, timeout=_TIMEOUT_SECONDS, verify=verify
        )
        content = json.loads(answer.content)
    except (requests.RequestException, ValueError) as error:
        raise StackError(f"The online server does not answer at {address}: {error}", remedy="mlops logs online") from error
    if not answer.ok:
        raise StackError(content["detail"], remedy=f"Fields and what they may hold: {settings.serving_url}/docs")
    return content
