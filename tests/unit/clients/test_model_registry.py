"""Two registries in one process: each request holds the token of the registry that makes it."""

import http.server
from collections.abc import Iterator
from pathlib import Path

import pytest
from http_servers import running

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.signatures import Signer


class Server(http.server.ThreadingHTTPServer):
    """An MLflow without experiments, which keeps the tokens that it was given."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.given: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.given.append(self.headers["Authorization"])
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *arguments: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as server:
        yield server


def test_each_registry_gives_its_own_token(server: Server, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "key")
    one, another = (ModelRegistry(url=server.url, token=token, signer=signer) for token in ("one", "another"))
    for registry in (one, another, one):
        registry.client.search_experiments()
    assert server.given == ["Bearer one", "Bearer another", "Bearer one"]
    assert "another" not in repr(another)
