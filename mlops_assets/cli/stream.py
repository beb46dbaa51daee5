"""`mlops stream`: send a day of the spine as events, and read what the stream scorer answers."""

import json
from datetime import datetime
from typing import Annotated, Any

import typer

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, print_json, running_settings

app = typer.Typer(
    help="Ask by events, and read the answers.",
    no_args_is_help=True,
    epilog="Example: [bold]mlops stream tail my_solution[/bold]",
)


@app.command(epilog="Example: [bold]mlops stream send my_solution --day 2013-07-04 --rate 100[/bold]")
def send(
    solution: SolutionArgument,
    day: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="The partition of the spine whose rows are sent.")],
    rate: Annotated[float | None, typer.Option(min=0.1, help="Events a second; as fast as it goes when not given.")] = None,
    look_up: Annotated[
        bool, typer.Option("--look-up", help="Use the values of the online store instead of those known at the time.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Send the rows of one day as requests, with the features as they were known at each row's prediction time."""
    from mlops_assets.operations.events import requests_of_day, send_requests

    settings = running_settings()
    requests = requests_of_day(settings, solution, day.date(), look_up=look_up)
    seconds = send_requests(settings, solution, requests, rate)
    if as_json:
        print_json({"solution": solution, "day": day.date(), "sent": len(requests), "seconds": round(seconds, 3)})
    else:
        console.print(
            f"{len(requests)} events of {day.date()} sent in {seconds:.1f} s. The answers: mlops stream tail {solution}"
        )


@app.command(epilog="Example: [bold]mlops stream tail my_solution --follow[/bold]")
def tail(
    solution: SolutionArgument,
    rejects: Annotated[bool, typer.Option("--rejects", help="What could not be answered, with the reason.")] = False,
    minutes: Annotated[float, typer.Option(min=0, help="How far back to begin.")] = 10,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with those to come, until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as a line of JSON.")] = False,
) -> None:
    """Show the predictions of the online and the stream channel as they enter the event stream."""
    from mlops_assets.clients.event_stream import PREDICTIONS, REJECTS
    from mlops_assets.operations.events import read_answers

    stream = REJECTS if rejects else PREDICTIONS
    for message in read_answers(running_settings(), solution, stream=stream, minutes=minutes, follow=follow):
        text = json.dumps(message, ensure_ascii=False) if as_json else _reject(message) if rejects else _prediction(message)
        console.print(text, markup=False, highlight=False, soft_wrap=True)


def _prediction(record: dict[str, Any]) -> str:
    answer = ", ".join(f"{name} {value}" for name, value in record["outputs"].items() if name != "probabilities")
    return f"{record['prediction_time']}  {record['key']}  {answer}  version {record['model_version']}  {record['prediction_id']}"


def _reject(reject: dict[str, Any]) -> str:
    return f"{reject['stored_at']}  {reject['subject']} {reject['sequence']}  {reject['reason']}"
