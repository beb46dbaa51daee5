"""What another user of this machine gets from a running stack: nothing.

As root the attempts are made by the users `nobody` and, of files, Postgres's own too. Otherwise those over the network are made by the
same user without credentials, and of files their rights are read.
"""

import asyncio
import json
import os
import pickle
import pwd
import socket
import stat
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import nats
import psycopg2
import pytest
import requests
from nats import errors
from psycopg2.extensions import parse_dsn
from running_stack import Platform

from mlops_assets.access.credentials import (
    access_token,
    event_stream_caller,
    event_stream_url,
)
from mlops_assets.clients.event_stream import PREDICTIONS, connect
from mlops_assets.core.settings import DAGSTER_DATABASE
from mlops_assets.local import postgres
from mlops_assets.local.links import link

pytestmark = pytest.mark.long

T = TypeVar("T")

IS_ROOT = os.geteuid() == 0
LAUNCH = 'mutation { launchRun(executionParams: {selector: {jobName: "__ASSET_JOB"}, mode: "default"}) { __typename } }'
SOLUTION = "flight_delay"


def as_user(name: str, attempt: Callable[[], T]) -> T:
    """What `attempt` returns when another user makes it. It must load no module: that user may not reach this environment."""
    if not IS_ROOT:
        return attempt()
    user = pwd.getpwnam(name)
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
        try:
            answer = pickle.dumps(attempt())
        except BaseException as error:
            answer = pickle.dumps(error)
        os.write(sender, answer)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as pipe:
        answer = pickle.loads(pipe.read())
    os.waitpid(child, 0)
    if isinstance(answer, BaseException):
        raise answer
    return answer


def status(request: urllib.request.Request) -> int:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def post(address: str, content: object, **headers: str) -> urllib.request.Request:
    body = json.dumps(content).encode()
    return urllib.request.Request(address, data=body, headers={"Content-Type": "application/json", **headers})


def opens(path: Path) -> bool:
    """Whether the calling user can list, read or connect to what is at `path`."""
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            list(path.iterdir())
        elif stat.S_ISSOCK(mode):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
        else:
            path.read_bytes()
    except OSError:
        return False
    return True


def test_dagster_and_mlflow_take_nothing(platform: Platform) -> None:
    dagster, mlflow = platform.settings.dagster_url, platform.settings.mlflow_url
    query = {"query": LAUNCH}
    tag = {"name": SOLUTION, "version": "1", "key": "status", "value": "accepted"}
    attempts = [
        urllib.request.Request(f"{dagster}/"),
        urllib.request.Request(f"{dagster}/server_info"),
        urllib.request.Request(f"{dagster}/graphql?query={urllib.request.quote(LAUNCH)}"),
        urllib.request.Request(f"{dagster}/graphql?query={urllib.request.quote(LAUNCH)}", headers={"Host": "evil.example"}),
        post(f"{dagster}/graphql", query),
        post(f"{dagster}/graphql", query, Origin=dagster, Host="127.0.0.1"),
        post(f"{dagster}/graphql", query, Origin="http://evil.example"),
        post(f"{dagster}/graphql", query, Host="evil.example"),
        post(f"{dagster}/graphql", query, Authorization="Bearer guess"),
        post(f"{mlflow}/api/2.0/mlflow/model-versions/set-tag", tag),
        post(f"{mlflow}/api/2.0/mlflow-artifacts/artifacts/1/x", tag),
        urllib.request.Request(f"{mlflow}/api/2.0/mlflow/registered-models/search"),
        urllib.request.Request(f"{mlflow}/get-artifact?path=x&run_uuid=y"),
        urllib.request.Request(f"{mlflow}/graphql", data=b"{}"),
    ]
    statuses = as_user("nobody", lambda: [status(each) for each in attempts])
    assert set(statuses) <= {401, 403}, statuses


def test_a_page_elsewhere_uses_no_session_of_a_person(platform: Platform) -> None:
    url = platform.settings.dagster_url
    with requests.Session() as browser:
        assert browser.get(link(url, access_token(platform.settings)), timeout=30).ok
        # The session works from Dagster's own page.
        assert browser.post(f"{url}/graphql", json={"query": "{ version }"}, headers={"Origin": url}, timeout=30).ok
        for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"Sec-Fetch-Site": "same-site"}):
            assert browser.post(f"{url}/graphql", json={"query": LAUNCH}, headers=headers, timeout=30).status_code == 403
        # A person's own browser launches nothing by an address either.
        assert browser.get(f"{url}/graphql", params={"query": LAUNCH}, timeout=30).status_code == 405


def test_a_viewer_looks_and_an_operator_is_recorded(platform: Platform) -> None:
    dagster, mlflow = platform.settings.dagster_url, platform.settings.mlflow_url
    tokens = {}
    for name, role in (("anna", "viewer"), ("ben", "operator")):
        tokens[name] = json.loads(platform.mlops("access", "add", name, "--role", role, "--json").stdout)["token"]
    search, tag = "/api/2.0/mlflow/runs/search", "/api/2.0/mlflow/registered-models/set-tag"
    permission = {"query": "{ canBulkTerminate permissions { permission value } }"}
    with requests.Session() as anna, requests.Session() as ben:
        for name, browser in (("anna", anna), ("ben", ben)):
            for url in (dagster, mlflow):
                assert browser.get(link(url, tokens[name]), timeout=30).ok
            assert browser.post(f"{mlflow}{search}", json={"experiment_ids": ["0"]}, timeout=30).ok
        allowed = [browser.post(f"{dagster}/graphql", json=permission, timeout=30).json()["data"] for browser in (anna, ben)]
        assert [any(each["value"] for each in data["permissions"]) for data in allowed] == [False, True]
        for url, path, content in (
            (dagster, "/graphql", {"query": LAUNCH}),
            (mlflow, tag, {"name": SOLUTION, "key": "a", "value": "b"}),
        ):
            refused = anna.post(f"{url}{path}", json=content, timeout=30)
            assert (refused.status_code, refused.json()["detail"].startswith("anna looks only")) == (403, True)
            assert ben.post(f"{url}{path}", json=content, timeout=30).status_code not in (401, 403)
        entries = json.loads(platform.mlops("audit", "--json").stdout)
        done = [(entry["door"], entry["action"]) for entry in entries if entry["actor"] == "ben"]
        assert done == [("Dagster", "POST /graphql"), ("MLflow", f"POST {tag}")]
        assert not [entry for entry in entries if entry["actor"].startswith("anna")]
        assert platform.mlops("access", "remove", "ben").returncode == 0
        assert ben.post(f"{dagster}/graphql", json=permission, timeout=30).status_code == 401
    assert [entry["action"] for entry in entries if entry["details"] and "anna" in entry["details"]] == ["mlops access add"]


def test_the_event_stream_takes_nothing_without_a_password(platform: Platform) -> None:
    def talk() -> bytes:
        with socket.create_connection(("127.0.0.1", platform.settings.nats_port), timeout=10) as connection:
            connection.sendall(b'CONNECT {"verbose":false}\r\nPUB predictions.flight_delay 6\r\nforged\r\nPING\r\n')
            return b"".join(iter(lambda: connection.recv(65536), b""))

    answer = as_user("nobody", talk)
    assert b"Authorization Violation" in answer
    assert b"PONG" not in answer


def test_an_application_asks_and_reads_and_forges_nothing(platform: Platform) -> None:
    settings, caller, violations = platform.settings, event_stream_caller(platform.settings), list[str]()

    async def report(error: Exception) -> None:
        violations.append(str(error))

    async def forge() -> tuple[int, int]:
        async with connect(event_stream_url(settings), name="test", stopping=None) as stream:
            before = (await stream.jetstream.stream_info(PREDICTIONS)).state.messages
            client = await nats.connect(
                settings.nats_server_url, user=caller.name, password=caller.password, allow_reconnect=False, error_cb=report
            )
            acknowledged = await client.jetstream().publish("requests.nobody_answers", b"{}")
            assert acknowledged.stream == "requests"
            await client.subscribe("predictions.*")
            assert violations == []
            for subject in ("predictions.flight_delay", "rejects.flight_delay", "$JS.API.STREAM.PURGE.predictions", "$JS.ACK.x"):
                await client.publish(subject, b"forged")
            for subject in ("requests.*", "$JS.>"):
                await client.subscribe(subject)
            async with asyncio.timeout(10):
                while len(violations) < 6:
                    await asyncio.sleep(0.01)
            await client.close()
            after = (await stream.jetstream.stream_info(PREDICTIONS)).state.messages
            await stream.jetstream.purge_stream("requests", subject="requests.nobody_answers")
            return before, after

    before, after = asyncio.run(forge())
    assert before == after
    assert len(violations) == 6
    assert all("permissions violation" in each for each in violations)
    with pytest.raises(errors.Error, match="Authorization"):
        asyncio.run(
            nats.connect(settings.nats_server_url, user=caller.name, password="guess", allow_reconnect=False, error_cb=report)
        )


def test_every_file_and_socket_is_the_owners_alone(platform: Platform) -> None:
    home = platform.settings.home
    own = Path(parse_dsn(platform.settings.postgres_connection_string(DAGSTER_DATABASE))["host"])
    paths = [path for folder in {home, own.parent} for path in (folder, *sorted(folder.rglob("*")))]
    assert sum(stat.S_ISSOCK(path.lstat().st_mode) for path in paths) >= 3, "Postgres, supervisor, code location"
    if not IS_ROOT:
        assert home.stat().st_mode & 0o077 == 0
        return
    assert as_user("nobody", lambda: [path for path in paths if opens(path)]) == []
    others = [path for path in paths if path != own and own not in path.parents]
    assert as_user(postgres.UNPRIVILEGED_USER, lambda: [path for path in others if opens(path)]) == []


def test_a_folder_that_was_opened_is_closed_by_the_next_up(platform: Platform) -> None:
    home = platform.settings.home
    home.chmod(0o755)
    answer = platform.mlops("up")
    assert answer.returncode == 0, answer.stderr
    assert f"{home} was open to other users of this machine and is closed to them now." in answer.stderr
    assert home.stat().st_mode & 0o067 == 0
    assert as_user("nobody", lambda: opens(home)) == (not IS_ROOT)
    # Postgres goes on: its user still passes through.
    psycopg2.connect(platform.settings.postgres_connection_string(DAGSTER_DATABASE)).close()
