"""`mlops predict` and `score`: mistakes are answered before anything is started, and the server's refusals as it says them."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from http_servers import running
from rich.console import Console
from typer.testing import CliRunner

from mlops_assets.access.credentials import serving_token
from mlops_assets.cli.main import app
from mlops_assets.cli.serving import _realised, ask_server
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "x"], "Give a row, or ask for an example."),
        (["predict", "x", "--example", "--json", "{}"], "Give a row, or ask for an example."),
        (["score", "x", "--from", "2024-01-01"], "Give both --from and --to, or neither."),
        (["score", "x", "--to", "2024-01-01", "--list"], "Give both --from and --to, or neither."),
    ],
)
def test_a_mistake_is_answered_without_a_stack(arguments: list[str], message: str, home: Path) -> None:
    result = CliRunner().invoke(app, arguments)
    assert (result.exit_code, result.stderr.splitlines()[0]) == (1, message)
    assert not home.exists()


class Server(ThreadingHTTPServer):
    """A server whose next answer is given."""

    status, body = 200, b"{}"
    asked: tuple[str, bytes, str | None] = ("", b"", None)


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked = (self.path, content, self.headers["Authorization"])
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server(("127.0.0.1", 0), _Handler)) as server:
        yield server


@pytest.fixture
def settings(server: Server, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, serving_port=server.server_port)


def test_a_row_is_sent_as_it_is_with_the_token(server: Server, settings: Settings) -> None:
    server.body = json.dumps({"value": 1.5}).encode()
    assert ask_server(settings, "POST", "/x/predict", '{"name": "Zoë", "n": 9007199254740993}') == {"value": 1.5}
    assert server.asked == (
        "/x/predict",
        '{"name": "Zoë", "n": 9007199254740993}'.encode(),
        f"Bearer {serving_token(settings)}",
    )


def test_a_refusal_is_told_in_the_words_of_the_server(server: Server, settings: Settings) -> None:
    server.status, server.body = 422, json.dumps({"detail": "distance: 'far' is no integer"}).encode()
    with pytest.raises(StackError, match="distance: 'far' is no integer") as error:
        ask_server(settings, "POST", "/x/predict", "{}")
    assert f"{settings.serving_url}/docs" in error.value.remedy


@pytest.mark.parametrize("body", [b"", b"<html>502</html>", b"\xff"])
def test_an_answer_that_is_none_is_a_message(body: bytes, server: Server, settings: Settings) -> None:
    server.body = body
    with pytest.raises(StackError, match="The online server does not answer") as error:
        ask_server(settings, "POST", "/x/predict", "{}")
    assert error.value.remedy == "mlops logs online"


def test_no_server_is_a_message(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"does not answer at http://127\.0\.0\.1:1/x"):
        ask_server(Settings(home=tmp_path, serving_port=1), "GET", "/x", None)


def test_realised_metrics_are_shown_with_their_interval_or_the_reason_why_there_are_none(terminal: Console) -> None:
    metric = {"champion": 0.49, "challenger": 0.105, "difference": -0.385, "low": -0.4, "high": -0.37}
    realised = {"rows": 1950, "obstacle": None, "metrics": {"log_loss": metric, "roc_auc": dict.fromkeys(metric)}}
    entry = {"champion": 1, "challenger": 2, "realised": realised}
    terminal.print(_realised(entry))
    text = terminal.export_text()
    assert "Realised metrics of versions 1 and 2 on 1,950 requests with known labels" in text
    assert "-0.38500" in text
    assert "-0.40000 to -0.37000" in text
    obstacle = {"rows": 0, "obstacle": "no label is known yet", "metrics": {}}
    assert _realised(entry | {"realised": obstacle}) == "Realised metrics of versions 1 and 2: no label is known yet."
