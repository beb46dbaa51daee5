"""`mlops dataset`: the training datasets that were ever written, and building one of them again."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mlops_assets.cli.terminal import JsonOption, SolutionArgument, console, output_file, print_json, running_settings
from mlops_assets.core.errors import StackError

app = typer.Typer(
    help="Training datasets: list those ever written, rebuild one from the lake's history.",
    epilog="Example: [bold]mlops dataset list my_solution[/bold]",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
_STAGE = "training_dataset"


@app.command("list", epilog="Example: [bold]mlops dataset list my_solution[/bold]")
def list_datasets(solution: SolutionArgument, as_json: JsonOption = False) -> None:
    """Show every dataset of a solution: fingerprint, training date, and the lake snapshot it was read from."""
    from mlops_assets.lake.datasets import recorded_datasets
    from mlops_assets.lake.lake import Lake

    with Lake.from_settings(running_settings()).connect(read_only=True) as connection:
        datasets = recorded_datasets(connection, f"{solution}.{_STAGE}")
    if as_json:
        print_json([asdict(dataset) for dataset in datasets])
        return
    table = Table("fingerprint", "training date", "source snapshot", "written at", "run")
    for each in datasets:
        table.add_row(
            each.fingerprint, each.training_date, str(each.source_snapshot), f"{each.written_at:%Y-%m-%d %H:%M}", each.run_id
        )
    console.print(table)


@app.command(epilog="Example: [bold]mlops dataset rebuild my_solution 3b240645bda5b2f5[/bold]")
def rebuild(
    solution: SolutionArgument,
    fingerprint: Annotated[str, typer.Argument(help="The dataset's fingerprint, or its first digits.")],
    output: Annotated[
        Path | None, typer.Option(callback=output_file, help="Parquet file to write. Default: datasets/ in the state folder.")
    ] = None,
) -> None:
    """Build a dataset again from what the lake held when it was first built, prove its fingerprint, and write it as Parquet."""
    from mlops_assets.lake import datasets
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.sql import literal
    from mlops_assets.lake.tables import LakeError

    settings = running_settings()
    with Lake.from_settings(settings).connect(read_only=True) as connection:
        try:
            dataset = datasets.find_dataset(connection, f"{solution}.{_STAGE}", fingerprint)
            with console.status(f"Rebuilding {dataset.fingerprint} from snapshot {dataset.source_snapshot}"):
                rebuilt = datasets.rebuild_dataset(connection, dataset)
        except LakeError as error:
            raise StackError(str(error), remedy=f"mlops dataset list {solution}") from error
        path = output or settings.home / "datasets" / f"{solution}-{rebuilt}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = connection.execute(f"COPY temp.main.rebuilt_dataset TO {literal(str(path))} (FORMAT parquet)").fetchall()[0][0]
    console.print(f"[green]Identical[/green]: {rows:,} rows with fingerprint {rebuilt}", highlight=False)
    console.print(str(path), highlight=False, soft_wrap=True)
