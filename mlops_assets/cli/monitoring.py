"""`mlops debug`: from the alerts of a monitoring window to the rows behind them."""

from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, print_json, running_settings

app = typer.Typer()
_COLOURS = {"performance": "red", "data quality": "yellow", "drift": "blue"}


@app.command(epilog="Example: [bold]mlops debug my_solution --window 2020-01-06[/bold]")
def debug(
    solution: SolutionArgument,
    window: Annotated[str | None, typer.Option(help="First day of the window. Default: the newest that was reported on.")] = None,
    rows: Annotated[int, typer.Option(min=0, help="The most rows shown behind an alert.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Show what alerted in a window, worst first, and the predictions that show it."""
    from mlops_assets.operations.windows import window_alerts

    found = window_alerts(running_settings(), solution, window, limit=rows)
    if as_json:
        print_json(found)
        return
    console.print(f"[bold]{solution}[/bold], window of {found['window']}: {len(found['alerts']) or 'no'} alerts", highlight=False)
    for alert in found["alerts"]:
        colour = _COLOURS.get(alert["source"], "magenta")
        console.print(
            f"\n[{colour}]{alert['source']}[/{colour}] [bold]{escape(alert['feature'])}[/bold]: {escape(alert['sentence'])}",
            highlight=False,
        )
        if alert["rows"]:
            console.print(_table(alert["rows"], subject=alert["feature"]))
    console.print(f"\nReport: {found['report']}\n{found['dagster']}", highlight=False, soft_wrap=True)
    if example := next((row["prediction_id"] for alert in found["alerts"] for row in alert["rows"]), None):
        console.print(f"Why a prediction is what it is: mlops explain {example}", highlight=False, soft_wrap=True)


def _table(rows: list[dict[str, Any]], subject: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in rows[0]:
        table.add_column(escape(name), style="bold" if name == subject else None, no_wrap=name == "prediction_id")
    for row in rows:
        table.add_row(*(escape(_shown(value)) for value in row.values()))
    return table


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
