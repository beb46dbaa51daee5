"""The champion as the registry's REST interface tells it, and answers that are none."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from alias_registry import AliasRegistry
from http_servers import running

from mlops_assets.clients.champion import RegistryUnreachableError, registered_aliases, registered_champion, registered_version
from mlops_assets.core.settings import Settings


class _Status(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    with running(ThreadingHTTPServer(("127.0.0.1", 0), _Status)) as server:
        yield server


def test_a_solution_and_its_segments_have_champions_of_their_own(tmp_path: Path) -> None:
    with AliasRegistry() as registry:
        settings = Settings(home=tmp_path, mlflow_port=registry.port)
        assert registered_champion(settings, "x") is None
        registry.aliases |= {"champion": 2, "champion-north": 5, "challenger": 7}
        found = [
            registered_champion(settings, "x"),
            registered_champion(settings, "x", "north"),
            registered_version(settings, "x", "challenger"),
        ]
        assert [model and (model.solution, model.version) for model in found] == [("x", 2), ("x", 5), ("x", 7)]
        assert registered_champion(settings, "x", "south") is None


def test_the_aliases_of_all_solutions_are_read_page_by_page(tmp_path: Path) -> None:
    with AliasRegistry("x", "y") as registry:
        settings = Settings(home=tmp_path, mlflow_port=registry.port)
        assert registered_aliases(settings) == {"x": {}, "y": {}}
        registry.aliases |= {"champion": 2, "challenger": 7}
        assert registered_aliases(settings) == {"x": registry.aliases, "y": registry.aliases}


@pytest.mark.parametrize("status", [401, 403, 500, 502, 503])
def test_a_registry_in_trouble_is_not_a_registry_without_a_champion(
    status: int, server: ThreadingHTTPServer, tmp_path: Path
) -> None:
    server.status = status  # type: ignore[attr-defined]
    with pytest.raises(RegistryUnreachableError, match=f"status {status}"):
        registered_champion(Settings(home=tmp_path, mlflow_port=server.server_port), "x")
    with pytest.raises(RegistryUnreachableError, match=f"status {status}"):
        registered_aliases(Settings(home=tmp_path, mlflow_port=server.server_port))


def test_a_registry_that_is_away_is_told(tmp_path: Path) -> None:
    with pytest.raises(RegistryUnreachableError, match="does not answer"):
        registered_champion(Settings(home=tmp_path, mlflow_port=1), "x")
