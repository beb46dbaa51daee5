"""`mlops catalogue`: the feature views as a page to look at. Options and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from mlops_assets.cli.features import read_catalog
from mlops_assets.cli.terminal import console, error_console, output_folder

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops catalogue --output /tmp/features[/bold]")
def catalogue(
    output: Annotated[
        Path | None, typer.Option(callback=output_folder, help="Folder to write to; default: `catalogue` in the state folder.")
    ] = None,
) -> None:
    """Write the feature catalogue as one searchable HTML file that needs no network: views, values over time, uses, impact."""
    from mlops_assets.feature_store.site import render_site
    from mlops_assets.lake.lake import Lake
    from mlops_assets.lake.tables import LakeError

    catalog = read_catalog()
    try:
        with Lake.from_settings(catalog.settings).connect(read_only=True) as connection:
            page = render_site(catalog, connection)
    except LakeError:
        error_console.print("Without values: the lake is not running (mlops up).", style="yellow")
        page = render_site(catalog, None)
    folder = output or catalog.settings.home / "catalogue"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "index.html"
    path.write_text(page)
    console.print(str(path.resolve()), highlight=False, soft_wrap=True)
