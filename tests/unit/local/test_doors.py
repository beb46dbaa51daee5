"""The doors of Dagster and MLflow as ASGI applications: what each role gets through, and what is recorded of it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlops_assets.access.audit import AuditEntry, read_audit_log
from mlops_assets.access.identities import IDENTITY, Identity
from mlops_assets.local.doors import MAXIMUM_QUERY_BYTES, DagsterDoor, MlflowDoor, ViewersDoor

OWNER = Identity("owner", "operator", has_session=False)
BEN = Identity("ben", "operator", has_session=True)
ANNA = Identity("anna", "viewer", has_session=True)

LAUNCH = "mutation { launchRun(executionParams: {}) { __typename } }"
HIDDEN = 'query Q { version } mutation M { a: deletePipelineRun(runId: "1") { __typename } ...F } fragment F on Mutation { terminateRun }'
HARMLESS = 'query { runs(name: "mutation") { id } } # mutation'


class Door:
    """A door with an application that keeps what comes through and answers with a status."""

    def __init__(self, kind: Callable[[Any, Path], Any], home: Path):
        self.passed: list[bytes] = []
        self.status = 200
        self.log = home / "audit.jsonl"
        self._door = kind(self._application, self.log)

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        self.passed.append((await receive())["body"])
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def ask(
        self, who: Identity, method: str, path: str, body: bytes = b"", *, kind: str = "application/json", query: bytes = b""
    ) -> int:
        sent: list[Any] = []
        parts = [body[: len(body) // 2], body[len(body) // 2 :]]

        async def receive() -> Any:
            return {"type": "http.request", "body": parts.pop(0) if parts else b"", "more_body": bool(parts)}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query,
            "headers": [(b"content-type", kind.encode())],
        }
        asyncio.run(self._door({**scope, IDENTITY: who}, receive, send))
        return int(sent[0]["status"])

    def graphql(self, who: Identity, text: str, **how: Any) -> int:
        return self.ask(who, "POST", "/graphql", json.dumps({"query": text, "variables": {"a": 1}}).encode(), **how)

    def entries(self) -> list[AuditEntry]:
        return read_audit_log(self.log)


@pytest.fixture
def dagster(tmp_path: Path) -> Door:
    return Door(DagsterDoor, tmp_path)


@pytest.fixture
def mlflow(tmp_path: Path) -> Door:
    return Door(MlflowDoor, tmp_path)


@pytest.mark.parametrize("who", [OWNER, BEN, ANNA])
def test_everybody_reads_dagster_and_nothing_is_recorded(dagster: Door, who: Identity) -> None:
    assert dagster.graphql(who, HARMLESS) == 200
    assert dagster.ask(who, "GET", "/runs/1") == 200
    assert json.loads(dagster.passed[0])["query"] == HARMLESS
    assert dagster.entries() == []


@pytest.mark.parametrize("text", [LAUNCH, HIDDEN])
def test_a_viewer_mutates_nothing(dagster: Door, text: str) -> None:
    assert dagster.graphql(ANNA, text) == 403
    # JSON may write any letter by its number.
    escaped = json.dumps({"query": text}).replace("mutation", "mut\\u0061tion").encode()
    assert dagster.ask(ANNA, "POST", "/graphql", escaped) == 403
    assert dagster.ask(ANNA, "POST", "/report_asset_materialization/raw/flights") == 403
    assert (dagster.passed, dagster.entries()) == ([], [])


def test_at_a_server_for_viewers_nobody_mutates_anything(tmp_path: Path) -> None:
    viewers = Door(lambda application, log: ViewersDoor(DagsterDoor(application, log)), tmp_path)
    for who in (OWNER, BEN, ANNA):
        assert viewers.graphql(who, HARMLESS) == 200
        assert viewers.graphql(who, LAUNCH) == 403
    assert (len(viewers.passed), viewers.entries()) == (3, [])


@pytest.mark.parametrize("who", [OWNER, BEN, ANNA])
def test_what_dagster_could_read_otherwise_does_not_come_through(dagster: Door, who: Identity) -> None:
    assert dagster.ask(who, "GET", "/graphql", query=b"query=" + LAUNCH.encode()) == 405
    assert dagster.ask(who, "POST", "/graphql", LAUNCH.encode(), kind="application/graphql") == 415
    assert dagster.ask(who, "POST", "/graphql", b"", kind="text/plain", query=b"query=" + LAUNCH.encode()) == 415
    assert dagster.ask(who, "POST", "/graphql", b"[]") == 415
    assert dagster.ask(who, "POST", "/graphql", b" " * (MAXIMUM_QUERY_BYTES + 1)) == 413
    assert dagster.passed == []


def test_what_an_operator_does_in_dagster_is_recorded(dagster: Door) -> None:
    assert dagster.graphql(BEN, HIDDEN) == 200
    assert dagster.graphql(OWNER, LAUNCH) == 200
    dagster.status = 500
    assert dagster.ask(BEN, "POST", "/report_asset_check/x") == 500
    first, second, third = dagster.entries()
    assert (first.actor, first.role, first.door, first.outcome) == ("ben", "operator", "Dagster", "done")
    assert first.details == {"mutations": ["a fragment", "deletePipelineRun"], "variables": '{"a": 1}'}
    assert (second.actor, second.details["mutations"]) == ("owner (token)", ["launchRun"])
    assert (third.action, third.outcome) == ("POST /report_asset_check/x", "answered 500")


def test_a_viewer_searches_mlflow_and_changes_nothing(mlflow: Door) -> None:
    for path in ("/ajax-api/2.0/mlflow/runs/search", "/ajax-api/2.0/mlflow/experiments/search-datasets", "/graphql"):
        assert mlflow.ask(ANNA, "POST", path) == 200
    assert mlflow.ask(ANNA, "GET", "/get-artifact") == 200
    for method, path in (
        ("POST", "/api/2.0/mlflow/model-versions/set-tag"),
        ("POST", "/api/2.0/mlflow/runs/log-batch"),
        ("POST", "/api/2.0/mlflow/research/delete"),
        ("DELETE", "/api/2.0/mlflow/registered-models/delete"),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/x/search"),
    ):
        assert mlflow.ask(ANNA, method, path) == 403, path
    assert mlflow.entries() == []


def test_what_a_person_does_in_mlflow_is_recorded_and_what_runs_do_is_not(mlflow: Door) -> None:
    path = "/api/2.0/mlflow/model-versions/set-tag"
    assert [mlflow.ask(who, "POST", path) for who in (OWNER, BEN)] == [200, 200]
    [entry] = mlflow.entries()
    assert (entry.actor, entry.door, entry.action) == ("ben", "MLflow", f"POST {path}")
