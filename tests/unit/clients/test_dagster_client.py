"""The GraphQL client against an HTTP server that answers as Dagster's webserver does."""

import http.server
import json
from collections.abc import Iterator
from typing import Any

import pytest
from http_servers import running

from mlops_assets.clients.dagster_client import DagsterClient, QueryError
from mlops_assets.stages.refusal import REFUSED_METADATA


class Server(http.server.ThreadingHTTPServer):
    """Answers every query with `status` and `answer`, and keeps what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.status, self.answer = 200, b"{}"
        self.asked: list[tuple[str | None, dict[str, Any]]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.headers["Authorization"], body["variables"]))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

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
    ("status", "answer", "problem", "is_refused"),
    [
        (400, b'{"errors": [{"message": "Cannot query field"}]}', "Dagster refused a query: Cannot query field", True),
        (500, b'{"errors": [{"message": "database"}]}', "Dagster refused a query: database", False),
        (502, b"<html>", "Dagster does not answer at http://127.0.0.1", False),
        (200, b"", "Dagster does not answer at http://127.0.0.1", False),
    ],
)
def test_a_query_that_has_no_answer(
    server: Server, client: DagsterClient, status: int, answer: bytes, problem: str, is_refused: bool
) -> None:
    server.status, server.answer = status, answer
    with pytest.raises(QueryError) as caught:
        client.query("{ version }")
    assert caught.value.problem.startswith(problem)
    assert caught.value.is_refused == is_refused


def test_nobody_listens() -> None:
    with pytest.raises(QueryError, match=r"Dagster does not answer at http://127.0.0.1:9.*\nmlops up") as caught:
        DagsterClient(url="http://127.0.0.1:9", token="").query("{ version }")
    assert not caught.value.is_refused
