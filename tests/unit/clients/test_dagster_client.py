"""The GraphQL client against an HTTP server that answers as Dagster's webserver does."""

import http.server
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from http_servers import running

from mlops_assets.clients.asset_state import asset_state
from mlops_assets.clients.dagster_client import DagsterClient, FailedQueryError, QueryError, UnansweredError
from mlops_assets.core.errors import AwayError
from mlops_assets.stages.refusal import REFUSED_METADATA


class Server(http.server.ThreadingHTTPServer):
    """Answers every query with `status`, and `first_answers` one after another, then `answer`; keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.answer = 200, b"{}"
        self.first_answers: list[bytes] = []
        self.asked: list[tuple[str | None, dict[str, Any]]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers["Authorization"], body["variables"]))
        answer = self.server.first_answers.pop(0) if self.server.first_answers else self.server.answer
        if not answer:
            return  # the server dies before it answers
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


@pytest.fixture
def client(server: Server) -> DagsterClient:
    return DagsterClient(url=f"http://127.0.0.1:{server.server_port}", token="secret")


def test_metadata_are_values(server: Server, client: DagsterClient) -> None:
    entries = [
        {"label": "rows", "intValue": 3},
        {"label": "share", "floatValue": 0.5},
        {"label": "naive_baseline", "jsonString": '{"roc_auc": 0.5}'},
        {"label": "changed", "boolValue": False},
        {"label": "page", "url": "http://x"},
        {"label": "a_kind_that_was_not_asked_for"},
    ]
    event = {"timestamp": "1000", "runId": "r", "partition": "2020-01-01", "metadataEntries": entries}
    server.answer = json.dumps({"data": {"assetNodeOrError": {"assetMaterializations": [event]}}}).encode()
    assert client.metadata("a/b", "2020-01-01") == {
        "rows": 3,
        "share": 0.5,
        "naive_baseline": {"roc_auc": 0.5},
        "changed": False,
        "page": "http://x",
        "a_kind_that_was_not_asked_for": None,
    }
    assert server.asked == [("Bearer secret", {"key": {"path": ["a", "b"]}, "partitions": ["2020-01-01"], "limit": 1})]


def test_a_refusal_names_the_asset_whose_checks_refused(server: Server, client: DagsterClient) -> None:
    def event(asset: str, **texts: str) -> dict[str, Any]:
        entries = [{"label": label, "text": text} for label, text in texts.items()]
        return {"__typename": "MaterializationEvent", "assetKey": {"path": ["a", asset]}, "metadataEntries": entries}

    events = [
        event("model", estimator="x.Y"),
        {"__typename": "LogMessageEvent"},
        event("evaluation", **{REFUSED_METADATA: "floor: 0.6", "gates": "no"}),
    ]
    server.answer = json.dumps({"data": {"logsForRun": {"events": events}}}).encode()
    assert client.refusals("run") == ["a/evaluation: floor: 0.6"]


@pytest.mark.parametrize(
    ("status", "answer", "problem", "kind"),
    [
        (400, b'{"errors": [{"message": "Cannot query field"}]}', "Dagster refused a query: Cannot query field", QueryError),
        (500, b'{"errors": [{"message": "database"}]}', "Dagster refused a query: database", FailedQueryError),
        (502, b"<html>", "Dagster does not answer at http://127.0.0.1", UnansweredError),
        (200, b"", "Dagster does not answer at http://127.0.0.1", UnansweredError),
    ],
)
def test_a_query_that_has_no_answer(
    server: Server, client: DagsterClient, status: int, answer: bytes, problem: str, kind: type[QueryError]
) -> None:
    server.status, server.answer = status, answer
    with pytest.raises(QueryError) as caught:
        replace(client, patience_seconds=0).query("{ version }")
    assert caught.value.problem.startswith(problem)
    assert type(caught.value) is kind


def test_nobody_listens() -> None:
    with pytest.raises(QueryError, match=r"Dagster does not answer at http://127.0.0.1:9.*\nmlops up") as caught:
        DagsterClient(url="http://127.0.0.1:9", token="", patience_seconds=0).query("{ version }")
    assert isinstance(caught.value, AwayError)


ASSET = {
    "assetKey": {"path": ["x", "predictions"]},
    "description": None,
    "isPartitioned": False,
    "isExecutable": True,
    "tags": [],
    "dependencyKeys": [],
    "opNames": ["x__predictions"],
    "jobNames": ["x_predictions"],
    "repository": {"name": "__repository__", "location": {"name": "mlops_assets"}},
    "assetPartitionStatuses": None,
    "assetMaterializations": [],
}
LOST = "(psycopg2.OperationalError) server closed the connection unexpectedly"
RUNS = {"runsOrError": {"results": [{"runId": "r1", "status": "QUEUED"}, {"runId": "r2", "status": "NOT_STARTED"}]}}


@pytest.mark.parametrize(
    "lost",
    [
        {"errors": [{"message": LOST}]},
        {"data": {"runsOrError": {"message": f"sqlalchemy.exc.OperationalError: {LOST}"}}},
        {"errors": [{"message": 'connection to server on socket "x" failed: No such file or directory'}]},
        {"errors": [{"message": "too many retries for DB connection"}]},
        None,
    ],
)
def test_a_database_that_is_away_is_waited_for(server: Server, client: DagsterClient, lost: dict[str, Any] | None) -> None:
    server.first_answers = [json.dumps(lost).encode() if lost else b""]
    server.answer = json.dumps({"data": RUNS}).encode()
    assert client.runs_with_tag("a", "b") == ["r1", "r2"]
    assert len(server.asked) == 2


def test_an_error_of_its_own_is_told_at_once(server: Server, client: DagsterClient) -> None:
    server.status, server.answer = 500, b'{"errors": [{"message": "KeyError"}]}'
    with pytest.raises(FailedQueryError):
        client.runs_with_tag("a", "b")
    assert len(server.asked) == 1


def test_a_run_whose_launch_was_not_answered_is_not_launched_again(server: Server, client: DagsterClient) -> None:
    asset = asset_state(ASSET, lambda *_: "ERROR")
    none_yet = json.dumps({"data": {"runsOrError": {"results": []}}}).encode()
    server.first_answers = [none_yet, b""]
    server.answer = json.dumps({"data": RUNS}).encode()
    assert client.launch([asset], None, None, {}, purpose="a test") == "r1"
    asked, launched, asked_again = (variables for _, variables in server.asked)
    [tag] = asked["tags"]
    assert asked_again["tags"] == [tag]
    assert tag in launched["parameters"]["executionMetadata"]["tags"]
