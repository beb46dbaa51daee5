"""`mlops init`: a new project. Options and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_assets.cli.terminal import JsonOption, console, print_json

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops init my_company[/bold]")
def init(
    folder: Annotated[Path, typer.Argument(help="The folder of the project, new or empty. Its name is that of the project.")],
    as_json: JsonOption = False,
) -> None:
    """Make a project that runs: its pyproject.toml, a dbt project, environments, a test and a pipeline. Overwrites nothing."""
    from mlops_assets.local.permissions import readable_by_all
    from mlops_assets.operations.project_files import create_project

    with readable_by_all():
        files = create_project(folder)
    if as_json:
        print_json({"folder": str(folder.resolve()), "files": [str(path) for path in files]})
        return
    for path in files:
        console.print(f"[green]✓[/green] {folder / path}", highlight=False, soft_wrap=True)
    console.print(f"Start it: cd {folder} && mlops up", highlight=False, soft_wrap=True)
