"""Who uses a view: solution files, bundles, and an HTTP server that answers like the model registry."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from http_servers import running

from mlops_assets.clients.bundle_record import record_file
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.feature_store.usage import (
    declared_solutions,
    deployed_models,
    live_models,
    view_uses,
)


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        champions = {"champion": "2", "champion-north": "3"}
        version = champions.get(self.path.partition("alias=")[2]) if "name=delays" in self.path else None
        self.send_response(200 if version else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"model_version": {"version": version}} if version else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def registry_port() -> Iterator[int]:
    with running(HTTPServer(("127.0.0.1", 0), _Registry)) as server:
        yield server.server_port


def bundle(home: Path, solution: str, version: int, segment: str | None = None, *, promoted: bool = True) -> None:
    folder = home / "serving" / solution / str(version)
    folder.mkdir(parents=True)
    contract = {
        "version": version,
        "feature_views": [{"name": "history", "version": 1}],
        "features": [{"name": "delay"}],
        "segment": {"column": "region", "value": segment} if segment else None,
    }
    (folder / "contract.json").write_text(json.dumps(contract))
    if promoted:
        record_file(folder).write_text("{}")


def test_the_champion_is_live_and_other_versions_are_not(tmp_path: Path, registry_port: int) -> None:
    for version in (1, 2, 10):
        bundle(tmp_path, "delays", version)
    bundle(tmp_path, "unknown", 1)
    bundle(tmp_path, "delays", 11, promoted=False)
    (tmp_path / "serving" / "delays" / ".scratch").mkdir()
    models = deployed_models(Settings(home=tmp_path, mlflow_port=registry_port))
    assert [(model.solution, model.version, model.champion) for model in models] == [
        ("delays", 1, False),
        ("delays", 2, True),
        ("delays", 10, False),
        ("unknown", 1, False),
    ]
    assert [model.label for model in live_models(models)] == ["delays version 2 (champion)"]


def test_without_a_registry_the_newest_promoted_version_counts_and_says_so(tmp_path: Path) -> None:
    for version in (1, 2, 10):
        bundle(tmp_path, "delays", version)
    models = live_models(deployed_models(Settings(home=tmp_path, mlflow_port=1)))
    assert [model.label for model in models] == ["delays version 10 (promoted; champion unknown)"]


def test_the_champion_of_a_segment_is_live_too(tmp_path: Path, registry_port: int) -> None:
    for version, segment in ((2, None), (3, "north"), (4, "north"), (5, "south")):
        bundle(tmp_path, "delays", version, segment)
    settings = Settings(home=tmp_path, mlflow_port=registry_port)
    assert [model.version for model in live_models(deployed_models(settings))] == [2, 3]
    unanswered = live_models(deployed_models(Settings(home=tmp_path, mlflow_port=1)))
    assert [model.version for model in unanswered] == [2, 4, 5]


def test_no_bundles_no_models(tmp_path: Path) -> None:
    assert deployed_models(Settings(home=tmp_path)) == []


def test_the_solutions_of_this_repository_are_read() -> None:
    declared = declared_solutions(current_project().definitions_directory)
    assert declared.problems == ()
    assert {"flight_delay", "employment"} <= set(declared.solutions)
    uses = view_uses(declared.solutions.values(), FeatureRegistry(models={}, views={}))
    assert ("flight_delay", "origin_weather", 1, True) in {(use.solution, use.view, use.version, use.pinned) for use in uses}


def test_a_file_that_is_no_valid_solution_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "defs.yaml").write_text(
        (current_project().definitions_directory / "employment" / "defs.yaml").read_text()
    )
    for name, text in {
        "wrong": "type: a.MLSolution\nattributes: {name: x}\n",
        "broken": "type: [",
        "other": "type: a.RawTables\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "defs.yaml").write_text(text)
    declared = declared_solutions(tmp_path)
    assert list(declared.solutions) == ["employment"]
    assert [problem.split(":")[0] for problem in declared.problems] == ["broken/defs.yaml", "wrong/defs.yaml"]
