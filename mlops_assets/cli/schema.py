"""`mlops schema`: changes of a lake table's columns that do not happen by themselves, shown before they are made."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, console, print_json, running_settings
from mlops_assets.core.errors import StackError

if TYPE_CHECKING:
    from mlops_assets.lake.schema_evolution import RequestedChanges

app = typer.Typer(
    help="Columns of a table in the lake: see what a change of type, name or columns would do, and make it.",
    epilog="Example: [bold]mlops schema plan raw.orders[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

TableArgument = Annotated[str, typer.Argument(help="The table, as schema.table.")]
RenameOption = Annotated[list[str] | None, typer.Option(help="old=new: the column has a new name, its values stay.")]
TypeOption = Annotated[list[str] | None, typer.Option(help="column=TYPE: another type than the file declares or the lake has.")]
DropOption = Annotated[list[str] | None, typer.Option(help="A column to remove, with its values.")]


@app.command(epilog="Example: [bold]mlops schema plan raw.orders --rename amount=amount_cents[/bold]")
def plan(
    table: TableArgument,
    rename: RenameOption = None,
    type: TypeOption = None,  # noqa: A002
    drop: DropOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what would change in the lake to follow the table's YAML file or dbt contract, and your options. Changes nothing."""
    from mlops_assets.operations import table_schemas

    requested = _requested(rename, type, drop)  # a mistake is answered before anything is started
    changes = table_schemas.plan_table_changes(running_settings(), table, requested)
    if as_json:
        print_json([{"change": str(change), "values_lost": change.lost} for change in changes])
        return
    if not changes:
        console.print(f"{table} has the columns that are declared.")
        return
    shown = Table("column", "from", "to", "values that would be lost")
    for change in changes:
        new = f"renamed {change.renamed}" if change.renamed else change.new or "dropped"
        lost = "all" if change.new is None else f"{change.lost:,}" if change.old else ""
        shown.add_row(*map(escape, (change.column, change.old or "new", new)), lost)
    console.print(shown)
    console.print("Nothing is changed yet: `mlops schema apply` with the same options does it.", style="dim")


@app.command(epilog="Example: [bold]mlops schema apply raw.orders --rename amount=amount_cents[/bold]")
def apply(
    table: TableArgument,
    rename: RenameOption = None,
    type: TypeOption = None,  # noqa: A002
    drop: DropOption = None,
    accept_loss: Annotated[bool, typer.Option("--accept-loss", help="Values that the new type cannot hold become null.")] = False,
) -> None:
    """Make the changes that `plan` shows, in one transaction that waits for writers. Former rows stay readable by snapshot."""
    from mlops_assets.operations import table_schemas

    requested = _requested(rename, type, drop)
    changes = table_schemas.apply_table_changes(running_settings(), table, requested, accept_loss=accept_loss)
    for change in changes:
        console.print(f"[green]✓[/green] {escape(str(change))}", highlight=False)
    if not changes:
        console.print(f"{table} has the columns that are declared.")


def _requested(rename: list[str] | None, types: list[str] | None, drop: list[str] | None) -> "RequestedChanges":
    from mlops_assets.lake.schema_evolution import RequestedChanges

    return RequestedChanges(renamed=_pairs("--rename", rename), types=_pairs("--type", types), dropped=drop or [])


def _pairs(option: str, values: list[str] | None) -> dict[str, str]:
    pairs = {}
    for value in values or []:
        name, separator, other = value.partition("=")
        if not (name and separator and other):
            raise StackError(
                f"{option} {value}: this is no pair.", remedy=f"Write {option} name={'new' if 'name' in option else 'TYPE'}"
            )
        pairs[name] = other
    return pairs
