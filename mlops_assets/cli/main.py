"""The `mlops` command: one function a command, each a thin layer of options and printing over the package.

Everything heavy is imported inside the command that needs it, so that `mlops --help` stays instant.
"""

import os
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlops_assets.cli import (
    access,
    approvals,
    audit,
    automation,
    backfill,
    backup,
    branch,
    catalogue,
    dataset,
    diff,
    features,
    maintenance,
    models,
    monitoring,
    project,
    running,
    schema,
    serving,
    stack,
    stream,
    training,
    upgrade,
)
from mlops_assets.cli.environment_words import split_environment
from mlops_assets.cli.terminal import console, error_console
from mlops_assets.core.environment_files import ENVIRONMENT_VARIABLE
from mlops_assets.core.errors import AwayError, StackError
from mlops_assets.core.patience import LOST_CONNECTION
from mlops_assets.local.permissions import PRIVATE_UMASK


class _Commands(TyperGroup):
    """Shows a fault that a person can remedy as a message instead of a traceback, and exits with 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        environment, self._words = split_environment(args)
        if environment == "":
            raise typer.BadParameter("An empty name is no environment.", ctx=ctx)
        if environment:
            # The audit log, and the processes that the command starts, are of the same one.
            os.environ[ENVIRONMENT_VARIABLE] = environment
        return list(super().parse_args(ctx, args))

    def invoke(self, ctx: Any) -> Any:
        # What a command writes, and what it starts, is nobody else's to read.
        os.umask(PRIVATE_UMASK)
        try:
            with audit.recorded(self, self._words):
                return super().invoke(ctx)
        except StackError as error:
            fault = error
        except ModuleNotFoundError as error:
            if _has_platform():
                raise
            fault = StackError(f"This command needs {error.name}, which is not installed.", remedy=_PLATFORM)
        except Exception as error:
            # A server that stayed away, or a database that went away under one of the libraries.
            if not isinstance(error, AwayError) and not LOST_CONNECTION.search(str(error)):
                raise
            fault = StackError(str(error).strip(), remedy="mlops status shows which server is away. Then call the command again.")
        error_console.print(fault.problem, style="red", markup=False, highlight=False)
        error_console.print(fault.remedy, markup=False, highlight=False)
        raise typer.Exit(1) from fault


_PLATFORM = "Install what operates a project: uv pip install 'mlops-assets[local]'"


def _has_platform() -> bool:
    """Whether the extra `local` is installed. Without it the command makes projects, and the servers may run."""
    try:
        import dagster  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.add_typer(stack.app)
app.add_typer(project.app)
app.add_typer(diff.app)
app.add_typer(branch.app, name="branch")
app.add_typer(features.app, name="features")
app.add_typer(catalogue.app)
app.add_typer(dataset.app, name="dataset")
app.add_typer(models.app)
app.add_typer(approvals.app)
app.add_typer(monitoring.app)
app.add_typer(running.app)
app.add_typer(training.app)
app.add_typer(automation.app)
app.add_typer(serving.app)
app.add_typer(backfill.app)
app.add_typer(backup.app)
app.add_typer(upgrade.app)
app.add_typer(audit.app)
app.add_typer(maintenance.app)
app.add_typer(stream.app, name="stream")
app.add_typer(schema.app, name="schema")
app.add_typer(access.app, name="access")


def _print_version(asked: bool) -> None:
    if asked:
        console.print(f"mlops-assets {version('mlops-assets')}", highlight=False)
        raise typer.Exit


@app.callback()
def main(
    _environment: Annotated[
        str | None,
        typer.Option(
            "--env", help="The environment: its variables are in deployments/<name>.env. Default: MLOPS_ENV, else local."
        ),
    ] = None,
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version of the platform and exit.")
    ] = False,
) -> None:
    """An end-to-end MLOps platform as a Dagster asset graph."""
