"""Notifications through a real local webhook: delivered once, kept in the file, and never in anybody's way."""

import json
import socket
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from http_servers import running

from mlops_assets.clients import notifier as module
from mlops_assets.clients.notifier import Notification, Notifier


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict]]]:
    """The address of a webhook as Apprise writes it, and what arrived there."""
    arrived: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *arguments: object) -> None: ...

    with running(HTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"json://127.0.0.1:{server.server_port}/hook", arrived


def notification(identity: str) -> Notification:
    return Notification(
        event="drift",
        severity="warning",
        title="problem/drift_report: drift failed",
        body="drift in 2013-08-05",
        identity=identity,
        links={"Run": "http://127.0.0.1:3000/runs/1"},
    )


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_it_is_delivered_once_with_its_links(tmp_path: Path, webhook: tuple[str, list[dict]]) -> None:
    url, arrived = webhook
    notifier = Notifier(log=tmp_path / "home" / "notifications.jsonl", urls=(url,))
    assert notifier.notify([notification("a"), notification("a"), notification("b")], seconds=30) == 3
    # Another process, later: the file remembers.
    assert Notifier(log=notifier.log, urls=(url,)).notify([notification("a")], seconds=30) == 1
    assert len(arrived) == 2
    assert arrived[0]["title"] == "problem/drift_report: drift failed"
    assert arrived[0]["message"] == "drift in 2013-08-05\nRun: http://127.0.0.1:3000/runs/1"
    assert arrived[0]["type"] == "warning"
    assert [(line["identity"], line["problem"]) for line in lines(notifier.log)] == [("a", None), ("b", None)]


def test_it_says_of_which_environment_it_is(
    tmp_path: Path, webhook: tuple[str, list[dict]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, arrived = webhook
    monkeypatch.setenv("MLOPS_ENV", "prod")
    notifier = Notifier(log=tmp_path / "notifications.jsonl", urls=(url,))
    notifier.notify([notification("a")], seconds=30)
    assert arrived[0]["title"] == "[prod] problem/drift_report: drift failed"
    [line] = lines(notifier.log)
    assert (line["environment"], line["title"]) == ("prod", "problem/drift_report: drift failed")


def test_without_an_address_the_file_is_all(tmp_path: Path) -> None:
    notifier = Notifier(log=tmp_path / "notifications.jsonl", urls=())
    notifier.notify([notification("a")], seconds=30)
    [line] = lines(notifier.log)
    assert (line["event"], line["links"]) == ("drift", {"Run": "http://127.0.0.1:3000/runs/1"})


def test_a_line_that_is_not_whole_silences_nothing(tmp_path: Path) -> None:
    log = tmp_path / "notifications.jsonl"
    log.write_text('{"identity": "first"}\n{"identity": "sec')
    notifier = Notifier(log, ())
    for _ in range(2):
        assert notifier.notify([notification(identity="first"), notification(identity="second")], seconds=60) == 2
    lines = log.read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[2])["identity"] == "second"


def test_a_far_end_that_is_away_or_unknown_is_recorded_without_its_secret(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    notifier = Notifier(log=tmp_path / "log", urls=(f"json://user:secret@127.0.0.1:{port}/", "nonsense://secret"))
    assert notifier.notify([notification("a")], seconds=30) == 1
    [line] = lines(notifier.log)
    assert line["problem"]
    assert "secret" not in json.dumps(line)


def test_a_far_end_that_never_answers_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DELIVERY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        notifier = Notifier(log=tmp_path / "log", urls=(f"json://127.0.0.1:{silent.getsockname()[1]}/?rto=60",))
        began = time.monotonic()
        # The time is up after the first; the rest is for the next time.
        assert notifier.notify([notification("a"), notification("b")], seconds=0.3) == 1
        assert time.monotonic() - began < 5
    assert lines(notifier.log)[0]["problem"]
