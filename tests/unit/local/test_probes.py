"""Probes of servers, against sockets that answer as the servers do, wrongly, or not at all."""

import json
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from http_servers import running

from mlops_assets.access.credentials import access_token
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.local import services
from mlops_assets.local.probes import ask_for_reload, code_server_is_listening, is_ready

SERVERS = [
    services.NATS,
    services.MLFLOW,
    services.ONLINE,
    services.STREAM,
    services.SHIPPER,
    services.WEBSERVER,
    services.DAEMON,
]


class Server(ThreadingHTTPServer):
    """A server whose answers are given by path; every other is an error."""

    answers: dict[str, bytes] = {}
    tokens: list[str | None] = []


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.tokens.append(self.headers["Authorization"])
        body = self.server.answers.get(self.path)
        self.send_response(503 if body is None else 200)
        self.end_headers()
        self.wfile.write(body or b"")

    do_POST = do_GET  # noqa: N815 - the name is that of the library

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server(("127.0.0.1", 0), _Handler)) as server:
        server.answers, server.tokens = {}, []
        yield server


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    port = server.server_port
    return Settings(home=tmp_path, dagster_port=port, mlflow_port=port, serving_port=port, nats_port=port)


def graphql(server: Server, data: dict[str, Any] | None, **other: Any) -> None:
    server.answers["/graphql"] = json.dumps({"data": data, **other}).encode()


@pytest.mark.parametrize("name", SERVERS)
def test_nothing_that_does_not_answer_is_ready(name: str, tmp_path: Path) -> None:
    ports = {"dagster_port": 1, "mlflow_port": 1, "serving_port": 1, "nats_port": 1}
    assert not is_ready(Settings(home=tmp_path, **ports), name, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SERVERS[1:])
def test_nothing_that_answers_with_an_error_is_ready(name: str, settings: Settings) -> None:
    assert not is_ready(settings, name, 0)


def test_servers_are_ready_by_their_own_answer(server: Server, settings: Settings) -> None:
    server.answers = {"/health": b"OK", "/readyz": b"", "/server_info": b'{"dagster_webserver_version": "1"}'}
    for name in (services.MLFLOW, services.ONLINE, services.WEBSERVER):
        assert is_ready(settings, name, 0)
    assert f"Bearer {access_token(settings)}" in server.tokens
    # Another service at the port is not ours.
    server.answers = {"/health": b"<html>", "/server_info": b"{}"}
    assert not is_ready(settings, services.MLFLOW, 0)
    assert not is_ready(settings, services.WEBSERVER, 0)


@pytest.mark.parametrize(
    ("greeting", "expected"), [(b'INFO {"server_id":"x"} \r\n', True), (b"HTTP/1.1 400\r\n", False), (b"", False)]
)
def test_nats_greets(greeting: bytes, expected: bool, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=greet)
        thread.start()
        assert is_ready(Settings(home=tmp_path, nats_port=listener.getsockname()[1]), services.NATS, 0) is expected
        thread.join()


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], False),
        ([(True, True, 100.0)], True),
        ([(True, True, 99.0)], False),
        ([(True, False, 100.0)], False),
        ([(True, True, 100.0), (True, True, 5.0)], False),
        ([(True, True, 100.0), (False, False, 0.0)], True),
        ([(False, True, 100.0)], False),
    ],
)
def test_the_daemon_is_ready_when_each_required_part_lived_since_it_started(
    statuses: list[tuple[bool, bool, float]], expected: bool, server: Server, settings: Settings
) -> None:
    entries = [{"required": required, "healthy": healthy, "lastHeartbeatTime": beat} for required, healthy, beat in statuses]
    graphql(server, {"instance": {"daemonHealth": {"allDaemonStatuses": entries}}})
    assert is_ready(settings, services.DAEMON, 100) is expected


def location(
    loaded: dict[str, str] | None, name: str = current_project().code_location, status: str = "LOADED"
) -> dict[str, Any]:
    entry = {"name": name, "loadStatus": status, "locationOrLoadError": loaded}
    return {"workspaceOrError": {"locationEntries": [entry]}}


@pytest.fixture
def listening(settings: Settings) -> Iterator[Settings]:
    # Not pytest's own folder: its path may be longer than a Unix socket may have.
    with tempfile.TemporaryDirectory(dir="/tmp") as home, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        settings = replace(settings, home=Path(home))
        settings.code_location_socket.parent.mkdir(parents=True, exist_ok=True)
        listener.bind(str(settings.code_location_socket))
        listener.listen()
        yield settings


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (location({"__typename": "RepositoryLocation"}), True),
        (location(None), False),
        (location({"__typename": "RepositoryLocation"}, status="LOADING"), False),
        (location({"__typename": "RepositoryLocation"}, name="another"), False),
        (location({"__typename": "PythonError", "message": "DagsterUserCodeUnreachableError: not yet"}), False),
        ({"workspaceOrError": {}}, False),
    ],
)
def test_the_code_location_is_ready_when_it_is_loaded(
    answer: dict[str, Any], expected: bool, server: Server, listening: Settings
) -> None:
    graphql(server, answer)
    assert is_ready(listening, services.CODE_LOCATION, 0) is expected


def test_a_code_location_that_cannot_be_loaded_is_told_with_the_reason(server: Server, listening: Settings) -> None:
    graphql(server, location({"__typename": "PythonError", "message": "defs.yaml:7 is wrong\n", "stack": [], "causes": []}))
    with pytest.raises(StackError, match=r"cannot be loaded:\ndefs\.yaml:7 is wrong") as error:
        is_ready(listening, services.CODE_LOCATION, 0)
    assert "mlops reload" in error.value.remedy


def test_what_was_loaded_before_the_code_server_died_is_not_ready(server: Server, settings: Settings) -> None:
    graphql(server, location({"__typename": "RepositoryLocation"}))
    assert not code_server_is_listening(settings)
    assert not is_ready(settings, services.CODE_LOCATION, 0)


def test_a_refused_query_and_a_silent_webserver_are_told(server: Server, settings: Settings) -> None:
    with pytest.raises(StackError, match="Dagster does not answer at"):
        ask_for_reload(settings, 5.0)
    graphql(server, None, errors=[{"message": "no such field"}])
    with pytest.raises(StackError, match=r"Dagster refused a query: no such field"):
        ask_for_reload(settings, 5.0)
    graphql(server, {"reloadRepositoryLocation": {"__typename": "WorkspaceLocationEntry"}})
    ask_for_reload(settings, 5.0)
