"""The Dagster webserver behind the guard: `python -m mlops_assets.local.dagster_webserver`.

The command `dagster-webserver` takes anything from anyone who reaches its port, mutations in the address of a GET included. This
runs the same application with the guard before it.
"""

import contextlib
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from mlops_assets.access.credentials import access_token
from mlops_assets.access.guard import AccessGuard, Application, Receive, Scope, Send
from mlops_assets.access.protocol import serve
from mlops_assets.core.settings import Settings

# As the command has them.
_STATEMENT_TIMEOUT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_MAXIMUM_OVERFLOW = 15_000, 3_600, 20
_POLL_MILLISECONDS = 2_000


def main() -> None:
    """Serve the UI and GraphQL until told to stop."""
    from dagster import DagsterInstance
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster._core.workspace.load_target import WorkspaceFileTarget
    from dagster._utils.interrupts import setup_interrupt_handlers
    from dagster._utils.log import configure_loggers
    from dagster_webserver.app import create_app_from_workspace_process_context
    from dagster_webserver.version import __version__

    settings = Settings.from_environment()
    configure_loggers(formatter="colored", log_level="INFO")
    setup_interrupt_handlers()
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(_STATEMENT_TIMEOUT_MILLISECONDS, _POOL_RECYCLE_SECONDS, _POOL_MAXIMUM_OVERFLOW)
        workspace = WorkspaceFileTarget(paths=[str(settings.dagster_home / "workspace.yaml")])
        with WorkspaceProcessContext(
            instance, version=__version__, read_only=False, workspace_load_target=workspace, code_server_log_level="warning"
        ) as context:
            application = create_app_from_workspace_process_context(context, "", _POLL_MILLISECONDS, lifespan=_lifespan)
            guard = AccessGuard(
                _QueriesByPost(application),
                name="Dagster",
                token=lambda: access_token(settings),
                command="mlops open",
                file=settings.access_token_file.name,
            )
            serve(guard, settings.dagster_port)


class _QueriesByPost:
    """GraphQL by POST and WebSocket alone: Dagster runs mutations that a GET asks for, and a GET must change nothing."""

    def __init__(self, application: Application):
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asks = scope["type"] == "http" and scope["path"] == "/graphql" and b"query" in parse_qs(scope["query_string"])
        if asks and scope["method"] != "POST":
            body = b"GraphQL is asked by POST.\n"
            headers = [(b"allow", b"POST"), (b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": int(HTTPStatus.METHOD_NOT_ALLOWED), "headers": headers})
            await send({"type": "http.response.body", "body": body})
        else:
            await self._application(scope, receive, send)


@contextlib.asynccontextmanager
async def _lifespan(application: Any) -> AsyncIterator[None]:
    # uvicorn cancels the lifespan when it is terminated, which Starlette would report as an error.
    import asyncio

    with contextlib.suppress(asyncio.CancelledError):
        yield


if __name__ == "__main__":
    main()
