"""Readiness probes of the servers: each asks the server itself for an answer, none looks at a process."""

import http.client
import json
import socket
import urllib.error
import urllib.request
from dataclasses import replace
from typing import Any

from mlops_assets.access.credentials import access_token, authorization
from mlops_assets.access.tls import client_context
from mlops_assets.clients.dagster_client import DagsterClient, FailedQueryError, UnansweredError
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.local import services
from mlops_assets.local.load_errors import describe_load_error

TIMEOUT_SECONDS = 5.0

_CODE_LOCATION_QUERY = """
{ workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus locationOrLoadError { __typename
      ... on PythonError { message stack causes { message stack } } } } } } }
"""
_RELOAD = "mutation Reload($location: String!) { reloadRepositoryLocation(repositoryLocationName: $location) { __typename } }"
_DAEMON_QUERY = "{ instance { daemonHealth { allDaemonStatuses { required healthy lastHeartbeatTime } } } }"


def is_ready(settings: Settings, name: str, started_at: int) -> bool:
    """Whether the server `name` (see `services`), whose process started at this Unix time, answers as it should.

    Raises StackError when it never will: a code location that cannot be loaded.
    """
    if name == services.DAEMON:
        return _daemon_is_ready(settings, started_at)
    probe = {
        services.POSTGRES: _postgres_is_ready,
        services.NATS: _nats_is_ready,
        services.MLFLOW: _mlflow_is_ready,
        services.ONLINE: _online_is_ready,
        services.STREAM: _stream_is_ready,
        services.SHIPPER: _shipper_is_ready,
        services.WEBSERVER: _webserver_is_ready,
        services.CODE_LOCATION: _code_location_is_ready,
        services.FORK_SERVER: _fork_server_is_ready,
    }[name]
    return probe(settings)


def ask_for_reload(settings: Settings, timeout_seconds: float) -> None:
    """Make the webserver load the code location anew, and wait: it answers when it has, on a busy machine after a minute.

    Raises StackError when the webserver does not answer within `timeout_seconds`.
    """
    client = replace(DagsterClient.from_settings(settings), timeout_seconds=timeout_seconds, patience_seconds=0)
    client.query(_RELOAD, location=current_project().code_location)


def code_server_is_listening(settings: Settings) -> bool:
    """Whether the server of the code location accepts connections; it has not loaded the definitions by then."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(str(settings.code_location_socket))
        except OSError:
            return False
    return True


def _fork_server_is_ready(settings: Settings) -> bool:
    """Always: until it has loaded everything, runs begin in new processes."""
    return True


def _postgres_is_ready(settings: Settings) -> bool:
    import psycopg2

    try:
        connection = psycopg2.connect(settings.postgres_maintenance_connection_string(), connect_timeout=int(TIMEOUT_SECONDS))
    except psycopg2.OperationalError:
        return False
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return cursor.fetchone() == (1,)
    finally:
        connection.close()


def _nats_is_ready(settings: Settings) -> bool:
    try:
        with socket.create_connection((settings.listening.host, settings.nats_port), timeout=TIMEOUT_SECONDS) as connection:
            return connection.recv(4096).startswith(b"INFO ")
    except OSError:
        return False


def _mlflow_is_ready(settings: Settings) -> bool:
    return _get(settings, _authorized(settings, f"{settings.mlflow_url}/health")) == b"OK"


def _online_is_ready(settings: Settings) -> bool:
    return _get(settings, f"{settings.serving_url}/readyz") is not None


def _stream_is_ready(settings: Settings) -> bool:
    from mlops_assets.serving.reports import read_reports

    return any(report.channel == "stream" for report in read_reports(settings.server_reports_directory))


def _shipper_is_ready(settings: Settings) -> bool:
    from mlops_assets.serving.spool import is_being_shipped

    return is_being_shipped(settings.spool_directory)


def _webserver_is_ready(settings: Settings) -> bool:
    body = _get(settings, _authorized(settings, f"{settings.dagster_url}/server_info"))
    return body is not None and "dagster_webserver_version" in json.loads(body)


def _code_location_is_ready(settings: Settings) -> bool:
    # The webserver goes on showing what it loaded before the server of the code location was killed.
    if settings.dagster_server is None and not code_server_is_listening(settings):
        return False
    answer = _ask(settings, _CODE_LOCATION_QUERY)
    if answer is None:
        return False
    for entry in answer["workspaceOrError"].get("locationEntries", []):
        if entry["name"] != current_project().code_location or entry["loadStatus"] != "LOADED":
            continue
        loaded = entry["locationOrLoadError"]
        if loaded is None:
            return False
        if loaded["__typename"] != "PythonError":
            return True
        # While the code server itself is starting, the webserver reports that it cannot be reached: that passes.
        if "DagsterUserCodeUnreachableError" not in loaded["message"]:
            raise StackError(
                f"The code location {current_project().code_location} cannot be loaded:\n{describe_load_error(loaded, current_project().root)}",
                remedy="Correct the definitions, then load them again: mlops reload",
            )
    return False


def _daemon_is_ready(settings: Settings, started_at: int) -> bool:
    """Whether every part of the daemon gave a sign of life since the process started; for Dagster, 30 minutes ago is enough."""
    answer = _ask(settings, _DAEMON_QUERY)
    if answer is None:
        return False
    statuses = answer["instance"]["daemonHealth"]["allDaemonStatuses"]
    required = [status for status in statuses if status["required"]]
    return bool(required) and all(status["healthy"] and status["lastHeartbeatTime"] >= started_at for status in required)


def _ask(settings: Settings, query: str) -> dict[str, Any] | None:
    """The data that Dagster answers to `query`, None while it does not answer. Raises StackError when it refuses."""
    try:
        return _client(settings).query(query)
    except (UnansweredError, FailedQueryError):
        return None


def _client(settings: Settings) -> DagsterClient:
    return replace(DagsterClient.from_settings(settings), timeout_seconds=TIMEOUT_SECONDS, patience_seconds=0)


def _authorized(settings: Settings, address: str) -> urllib.request.Request:
    """A request to Dagster or MLflow with the token of this installation."""
    return urllib.request.Request(address, headers=authorization(access_token(settings)))  # noqa: S310 - our own servers


def _get(settings: Settings, request: str | urllib.request.Request) -> bytes | None:
    """The body of the answer, None when there is none or it is an error."""
    context = client_context(settings.listening.authorities) if settings.listening.has_tls else None
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as response:  # noqa: S310 - our own servers
            return response.read()
    except (urllib.error.URLError, http.client.HTTPException, OSError):
        return None
