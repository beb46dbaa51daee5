"""`mlops manifests`: what runs need on Kubernetes. Options and printing only."""

from typing import Annotated

import typer

from mlops_assets.cli.terminal import read_settings

app = typer.Typer()


@app.command(epilog="Example: [bold]mlops manifests --image registry.example.org/parcels:1.4.2 | kubectl apply -f -[/bold]")
def manifests(
    image: Annotated[str, typer.Option(help="The image that has the project and its packages, with a unique tag.")],
    namespace: Annotated[str, typer.Option(help="The namespace of the pods.")] = "default",
    storage: Annotated[str, typer.Option(help="Size of the volume of the state folder.")] = "50Gi",
) -> None:
    """Print the Kubernetes manifests of what pods of runs need: dagster.yaml with Dagster's launcher, rights, variables, a volume."""
    from mlops_assets.local.configuration import RunsInPods
    from mlops_assets.local.manifests import render_manifests

    typer.echo(render_manifests(read_settings(), RunsInPods(image=image, namespace=namespace), storage=storage), nl=False)
