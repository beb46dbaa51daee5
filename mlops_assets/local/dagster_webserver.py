"""The Dagster webserver behind the guard: `python -m mlops_assets.local.dagster_webserver`; with `--read-only` it changes nothing.

The command `dagster-webserver` takes anything from anyone who reaches its port, mutations in the address of a GET included. This
runs the same application with the guard before it.
"""

import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

from mlops_assets.access.environment_banner import EnvironmentBanner
from mlops_assets.access.guard import AccessGuard
from mlops_assets.access.identities import IDENTITY, identities
from mlops_assets.access.launchers import signed_in_tags
from mlops_assets.access.protocol import serve
from mlops_assets.access.sign_in import signing_in
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.named_lines import name_lines
from mlops_assets.core.settings import Settings
from mlops_assets.local.doors import DagsterDoor, ViewersDoor

# As the command has them.
_STATEMENT_TIMEOUT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_MAXIMUM_OVERFLOW = 15_000, 3_600, 20
_POLL_MILLISECONDS = 2_000


def main(*, read_only: bool) -> None:
    """Serve the UI and GraphQL until told to stop. With `read_only` everybody is a viewer."""
    name_lines()
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext, WorkspaceRequestContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._utils.interrupts import setup_interrupt_handlers
    from dagster._utils.log import configure_loggers
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__
    from starlette.requests import HTTPConnection

    class _PersonContext(WorkspaceRequestContext):
        """Has the runs of a backfill name who asked for it; those of a single run are named by the run coordinator."""

        def get_viewer_tags(self) -> dict[str, str]:
            return signed_in_tags(self.source)

    class _RoleContext(WorkspaceProcessContext):
        """Tells the pages of a viewer that nothing may be changed, so that they offer nothing else. The door refuses it in any case."""

        def create_request_context(self, source: Any = None) -> WorkspaceRequestContext:
            identity = source.scope.get(IDENTITY) if isinstance(source, HTTPConnection) else None
            return _PersonContext(
                instance=self.instance,
                current_workspace=self.get_current_workspace(),
                process_context=self,
                version=self.version,
                source=source,
                read_only=identity is not None and identity.role != "operator",
            )

    settings = Settings.from_environment()
    sessions, sign_in = signing_in(settings, "Dagster")
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_TIMEOUT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_MAXIMUM_OVERFLOW)
        workspace = WorkspaceFileTarget(paths=[str(settings.dagster_home / "workspace.yaml")])
        with _RoleContext(
            instance, version=__version__, read_only=False, workspace_load_target=workspace, code_server_log_level="warning"
        ) as context:
            application = create_app_from_workspace_process_context(context, "", _POLL_MILLISECONDS, lifespan=_lifespan)
            door = DagsterDoor(application, settings.audit_log)
            guard = AccessGuard(
                ViewersDoor(door) if read_only else door,
                name="Dagster",
                identities=identities(settings, "Dagster", sessions),
                listening=settings.listening,
                command="mlops open",
                file=settings.access_token_file.name,
                sign_in=sign_in,
            )
            serve(EnvironmentBanner(guard, environment_name()), settings.listening, settings.dagster_port)


@contextlib.asynccontextmanager
async def _lifespan(application: Any) -> AsyncIterator[None]:
    # uvicorn cancels the lifespan when it is terminated, which Starlette would report as an error.
    import asyncio

    with contextlib.suppress(asyncio.CancelledError):
        yield


if __name__ == "__main__":
    main(read_only="--read-only" in sys.argv[1:])
