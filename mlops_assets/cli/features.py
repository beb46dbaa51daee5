"""`mlops features`: feature views, their values, their users, and the impact of a change. Printing only."""

from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import typer
from rich import box
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from mlops_assets.cli.serving import ask_server
from mlops_assets.cli.terminal import JsonOption, console, error_console, print_json, read_settings
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project

if TYPE_CHECKING:
    from mlops_assets.feature_store.catalog import FeatureCatalog
    from mlops_assets.feature_store.registry import FeatureView

ViewArgument = Annotated[str, typer.Argument(help="Name of the feature view, as `mlops features list` shows it.")]

app = typer.Typer(
    help="Feature views: list, show, search, and the impact of a change.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    epilog="Example: [bold]mlops features list[/bold]",
)


@app.command("list", epilog="Example: [bold]mlops features list --json[/bold]")
def list_views(as_json: JsonOption = False) -> None:
    """Show every feature view and version, and the solutions that use it."""
    catalog = read_catalog()
    views = catalog.views()
    if as_json:
        print_json(views)
        return
    if not views:
        console.print("There is no feature view yet: a dbt model with meta.feature_view is one. See docs/feature-store.md.")
    hidden = () if console.width >= _WIDE else ("owner", "features")
    summaries = [{name: value for name, value in _summary(view).items() if name not in hidden} for view in views]
    if summaries:
        console.print(_table(summaries))
    _print_problems(catalog)


@app.command(epilog="Example: [bold]mlops features online carrier_history --entity carrier=UA[/bold]")
def online(
    view: ViewArgument,
    entity: Annotated[list[str], typer.Option(help="Key of the entity as NAME=VALUE; once for each key of the view.")],
    version: Annotated[int | None, typer.Option(help="Version to read; default: the newest that a champion reads.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Moment at which values must not be stale (ISO, with offset); default: now.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Look up the values of one entity in the online store, as the online server answers them."""
    keys = dict(_entity_key(text) for text in entity)
    options = {"version": version, "at": at}
    parameters = keys | {name: str(value) for name, value in options.items() if value is not None}
    answer = ask_server(read_settings(), "GET", f"/features/{quote(view)}?{urlencode(parameters)}", None)
    if as_json:
        print_json(answer)
        return
    since = f", known since {answer['event_timestamp']}" if answer["event_timestamp"] else ""
    console.print(f"{answer['view']} version {answer['version']}: {answer['flag']}{since}", highlight=False)
    console.print(_table([{"feature": name, "value": value} for name, value in answer["values"].items()]))


def _entity_key(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise StackError(f"{text!r} is no key of an entity.", remedy="Write --entity carrier=UA")
    return name, value


@app.command(epilog="Example: [bold]mlops features show carrier_history[/bold]")
def show(
    view: ViewArgument,
    version: Annotated[int | None, typer.Option(help="Version to show; default: the newest.")] = None,
    sql: Annotated[bool, typer.Option("--sql", help="Also the SQL of the dbt model, as written.")] = False,
    compiled: Annotated[bool, typer.Option("--compiled", help="Also the SQL with all macros expanded.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show one view: definition, columns, newest statistics, lineage, and who uses it."""
    catalog = read_catalog()
    chosen = _view(catalog, view, version)
    definition = catalog.definition(chosen)
    statistics, missing = _statistics(catalog, chosen)
    if as_json:
        extra = {"compiled_code": _compiled(catalog, chosen)} if compiled else {}
        print_json({**definition, **extra, "statistics": statistics, "statistics_missing": missing})
        return
    console.print(f"[bold]{chosen.name}[/bold] version {chosen.version} of {_joined(definition['versions'])}", highlight=False)
    console.print(definition["about"], markup=False, highlight=False)
    facts = Table(show_header=False, box=None)
    for name in ("table", "owner", "entity", "event_timestamp", "freshness_days", "online", "sql", "upstream", "model_versions"):
        facts.add_row(name, _cell(definition[name]))
    facts.add_row(
        "solutions",
        "\n".join(f"{use['solution']}{'' if use['pinned'] else ' (no version pinned)'}" for use in definition["solutions"])
        or "none",
    )
    console.print(facts)
    console.print(_table(definition["columns"]))
    if statistics:
        console.print(f"Statistics of {_cell(statistics[0]['partition']) or 'the whole table'}")
        console.print(_table([{header: row[name] for name, header in _STATISTICS.items()} for row in statistics]))
    else:
        console.print(missing, style="dim", markup=False, highlight=False)
    for code in ([definition["raw_code"]] if sql else []) + ([_compiled(catalog, chosen)] if compiled else []):
        console.print(Syntax(code, "sql", word_wrap=True))
    _print_problems(catalog)


@app.command(epilog="Example: [bold]mlops features search 'delay carrier'[/bold]")
def search(words: Annotated[str, typer.Argument(help="Words; all must occur.")], as_json: JsonOption = False) -> None:
    """Find views and features by the words of their names and descriptions, the best match first."""
    found = read_catalog().search(words)
    if as_json:
        print_json(found)
    elif found:
        console.print(_table([{name: value for name, value in entry.items() if name != "score"} for entry in found]))
    else:
        console.print(f"Nothing is called or described by {words!r}.", markup=False, highlight=False)


@app.command(epilog="Example: [bold]mlops features impact staging.orders.amount[/bold]")
def impact(
    target: Annotated[
        str, typer.Argument(help="A dbt model or raw table (staging.orders), or one column (staging.orders.amount).")
    ],
    as_json: JsonOption = False,
) -> None:
    """Show which feature views, solutions and live models a change of a table or a column would break."""
    from mlops_assets.feature_store.catalog import UnknownTargetError
    from mlops_assets.feature_store.column_lineage import LineageError

    catalog = read_catalog()
    try:
        with error_console.status("Following the columns"):
            answer = catalog.impact(target)
    except UnknownTargetError as error:
        raise StackError(
            f"Not found: {error}", remedy="Name a table as schema.table, a column as schema.table.column."
        ) from error
    except LineageError as error:
        raise StackError(str(error), remedy="Correct the file it names, then: mlops prepare") from error
    if as_json:
        print_json(answer)
        return
    column = f".{answer['column']}" if answer["column"] else ""
    console.print(f"A change of [bold]{answer['table']}{column}[/bold] reaches", highlight=False)
    for name in ("views", "solutions", "live_models"):
        console.print(f"[bold]{name.replace('_', ' ')}[/bold]")
        console.print(_table(answer[name]) if answer[name] else "  none")
    others = [table for table in answer["tables"] if table not in {f"features.{view['view']}" for view in answer["views"]}]
    console.print(f"other tables: {_joined(others) or 'none'}", highlight=False)
    console.print(f"{answer['level']} level: {answer['how']}", style="dim", highlight=False)
    if answer["taken_whole"]:
        console.print(f"All columns on all, as their SQL cannot be followed: {_joined(answer['taken_whole'])}", style="dim")
    _print_problems(catalog)


@app.command(epilog="Example: [bold]mlops features eject depot_history[/bold]")
def eject(name: Annotated[str, typer.Argument(help="Name of the dbt model: a feature view, or <solution>_spine.")]) -> None:
    """Turn a dbt model that is compiled from YAML into files of your own, to edit. Its asset stays the same."""
    from mlops_assets.features.generated.ejection import eject as eject_model

    project = current_project()
    done = eject_model(name, project)
    for path in done.files:
        console.print(f"{path.relative_to(project.root)} written", highlight=False)
    console.print(f"{done.declaration.relative_to(project.root)} no longer declares it", highlight=False)
    console.print("Edit them, then: [bold]mlops reload[/bold]")


_WHOLE = ("version", "used by")
_STATISTICS = {
    "feature": "feature",
    "rows": "rows",
    "missing_share": "missing",
    "distinct_values": "distinct",
    "mean": "mean",
    "minimum": "min",
    "median": "median",
    "maximum": "max",
}
"""What `show` prints of the statistics, and under which name: as many as fit a terminal of 80 columns. `--json` has all."""
_WIDE = 110
"""From this width on there is room for the owner, which `show` and `--json` have always."""


def read_catalog() -> "FeatureCatalog":
    """The catalog of this installation, its registry read."""
    from mlops_assets.feature_store.catalog import FeatureCatalog
    from mlops_assets.feature_store.model_problems import FeatureViewError

    catalog = FeatureCatalog(
        project=current_project().dbt_project, definitions=current_project().definitions_directory, settings=read_settings()
    )
    try:
        _ = catalog.registry
    except FileNotFoundError as error:
        raise StackError(f"There is no dbt manifest at {catalog.manifest_path}.", remedy="Write it: mlops prepare") from error
    except FeatureViewError as error:
        raise StackError(str(error), remedy="Correct the file, then: mlops prepare") from error
    return catalog


def _view(catalog: "FeatureCatalog", name: str, version: int | None) -> "FeatureView":
    from mlops_assets.feature_store.model_problems import UnknownModelError

    try:
        return catalog.registry.view(name, version)
    except UnknownModelError as error:
        raise StackError(f"Not found: {error}.", remedy=f"Choose one of: {', '.join(error.available)}") from error


def _compiled(catalog: "FeatureCatalog", view: "FeatureView") -> str:
    from mlops_assets.feature_store.column_lineage import LineageError

    try:
        return catalog.compiled(view)
    except LineageError as error:
        raise StackError(str(error), remedy="Correct the file it names, then: mlops prepare") from error


def _statistics(catalog: "FeatureCatalog", view: "FeatureView") -> tuple[list[dict[str, Any]], str]:
    """The newest statistics of the view, or none and the reason."""
    from mlops_assets.feature_store.statistics import newest_statistics
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.tables import LakeError

    try:
        connection = Lake.from_settings(catalog.settings).connect(read_only=True)
    except LakeError:
        return [], "No statistics: the lake is not running (mlops up)."
    with connection:
        for table in catalog.statistics_tables(view):
            if rows := newest_statistics(connection, table=table, view=view.name, version=view.version):
                return rows, ""
    return (
        [],
        f"No statistics yet: materialize {' or '.join(name.replace('.', '/') for name in catalog.statistics_tables(view))}.",
    )


def _print_problems(catalog: "FeatureCatalog") -> None:
    for problem in catalog.declared.problems:
        error_console.print(f"Left out, not a valid solution: {problem}", style="yellow", markup=False, highlight=False)


def _table(entries: list[dict[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for position, name in enumerate(entries[0] if entries else ()):
        # Names are what people copy: they wrap rather than end in an ellipsis.
        table.add_column(name, overflow="fold", no_wrap=position == 0 or name in _WHOLE)
    for entry in entries:
        table.add_row(*map(_cell, entry.values()))
    return table


def _cell(value: object) -> str:
    if isinstance(value, list):
        return escape("\n".join(map(str, value))) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else escape(str(value))


def _summary(view: dict[str, Any]) -> dict[str, Any]:
    """A line of the list: what fits the width of a terminal."""
    live = {label.split()[0] for label in view["live_models"]}
    limit = f"{view['freshness_days']} d" if view["freshness_days"] else ""
    return {
        "view": view["view"],
        "version": view["version"],
        "entity": _joined(view["entity"]),
        "fresh": limit,
        "online": view["online"],
        "features": view["features"],
        "owner": view["owner"],
        "used by": [f"{name} (live)" if name in live else name for name in view["used_by"]],
    }


def _joined(values: list[Any]) -> str:
    return ", ".join(map(str, values))
