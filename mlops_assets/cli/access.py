"""`mlops access`: applications that may ask the online server and persons who look or operate, each with a token of its own."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, print_json, read_settings
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings

if TYPE_CHECKING:
    from mlops_assets.access.callers import Role

app = typer.Typer(
    help="Applications that may ask the online server, and persons who look or operate, each with a token of its own.",
    epilog="Example: [bold]mlops access list[/bold]",
    no_args_is_help=True,
)

NameArgument = Annotated[str, typer.Argument(help="The application or the person.")]

_APPLIES = "It applies within a second; nothing is restarted."


class _Role(StrEnum):
    CALLER = "caller"
    VIEWER = "viewer"
    OPERATOR = "operator"


@app.command(
    epilog="Example: [bold]mlops access add shop --solution my_solution --rate 50[/bold], or [bold]add anna --role viewer[/bold]"
)
def add(
    name: NameArgument,
    role: Annotated[
        _Role, typer.Option(help="caller: asks for predictions. viewer: looks at Dagster and MLflow. operator: operates there.")
    ] = _Role.CALLER,
    solutions: Annotated[
        list[str] | None,
        typer.Option("--solution", help="A solution that a caller may ask; give the option again for more, '*' for all."),
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="So many requests a second. Default: no limit.")] = None,
    burst: Annotated[int | None, typer.Option(min=1, help="So many at once. Default: those of two seconds.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Let an application ask for predictions, and nothing else, or a person in. The token is printed once and kept nowhere."""
    from mlops_assets.access.callers import add_caller, add_person

    if (role is _Role.CALLER) != bool(solutions):
        raise StackError("A caller has solutions, a person has none.", remedy=f"mlops access add {name} --solution my_solution")
    settings = read_settings()
    if role is _Role.CALLER:
        at_once = burst or max(1, round(2 * (rate or 1)))
        token = add_caller(settings, name, tuple(solutions or ()), requests_per_second=rate, burst=at_once)
    else:
        token = add_person(settings, name, cast("Role", role.value))
    _show(settings, name, token, None, as_json=as_json)


@app.command(epilog="Example: [bold]mlops access rotate shop --overlap 48[/bold]")
def rotate(
    name: NameArgument,
    overlap: Annotated[float, typer.Option(min=0, help="For so many hours the former token is taken too; 0 ends it now.")] = 24,
    as_json: JsonOption = False,
) -> None:
    """Give an application or a person a new token, printed once. The former one is taken too for a while, so that nothing is refused."""
    from mlops_assets.access.callers import rotate_token

    settings = read_settings()
    token, until = rotate_token(settings, name, timedelta(hours=overlap))
    _show(settings, name, token, until, as_json=as_json)


@app.command(epilog="Example: [bold]mlops access remove shop[/bold]")
def remove(name: NameArgument) -> None:
    """Take the tokens of an application or a person no more, nor the sessions that they opened."""
    from mlops_assets.access.callers import remove_caller

    remove_caller(read_settings(), name)
    console.print(f"{name} is removed. {_APPLIES}", highlight=False)


@app.command(name="list", epilog="Example: [bold]mlops access list --json[/bold]")
def list_callers(as_json: JsonOption = False) -> None:
    """Show applications and persons, what they may do, and how long their tokens are taken."""
    from mlops_assets.access.callers import read_callers

    now = datetime.now(UTC)
    callers: list[dict[str, Any]] = [
        {
            "name": caller.name,
            "role": caller.role,
            "solutions": list(caller.solutions),
            "requests_per_second": caller.requests_per_second,
            "burst": caller.burst,
            "tokens": [
                {"created_at": token.created_at, "expires_at": token.expires_at} for token in caller.tokens if token.is_valid(now)
            ],
        }
        for caller in read_callers(read_settings().callers_file)
    ]
    if as_json:
        print_json(callers)
        return
    table = Table("name", "role", "solutions", "requests a second", "tokens")
    for caller in callers:
        limit = (
            "no limit"
            if caller["requests_per_second"] is None
            else f"{caller['requests_per_second']:g}, {caller['burst']} at once"
        )
        tokens = [
            f"until {each['expires_at']:%Y-%m-%d %H:%M} UTC" if each["expires_at"] else "valid" for each in caller["tokens"]
        ]
        table.add_row(caller["name"], caller["role"], ", ".join(caller["solutions"]), limit, "\n".join(tokens))
    console.print(table if callers else "Nobody has a token of their own.")


def _show(settings: Settings, name: str, token: str, former_until: datetime | None, *, as_json: bool) -> None:
    from mlops_assets.access.callers import read_callers
    from mlops_assets.clients.event_stream_callers import caller_address
    from mlops_assets.local.links import link

    [caller] = [caller for caller in read_callers(settings.callers_file) if caller.name == name]
    # A NATS elsewhere has its own users.
    has_events = caller.role == "caller" and settings.nats_url is None
    events = caller_address(settings, name, caller.tokens[-1]) if has_events else None
    if as_json:
        print_json({"name": name, "token": token, "former_until": former_until, "event_stream": events})
        return
    links = [link(address, token) for address in (settings.dagster_url, settings.mlflow_url)] if caller.role != "caller" else []
    for line in (token, *links, *filter(None, [events])):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    former = f" The former token is taken until {former_until:%Y-%m-%d %H:%M:%S} UTC." if former_until else ""
    console.print(f"The token of {name}, shown this once.{former} {_APPLIES}", style="dim", highlight=False, soft_wrap=True)
