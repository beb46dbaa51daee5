"""OpenLineage events of a real training dataset on a real lake, at a receiver that speaks HTTP, and in a file."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import requests
from http_servers import running
from late_inputs import DECLARED, INPUTS, SOLUTION

from mlops_assets.components.project import platform_definitions
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.monitoring.lineage_events import build_lineage_events_sensor
from mlops_assets.schema.solution import Solution
from mlops_assets.training.training_dataset import build_training_dataset

DAY = "2020-01-31"
SCHEMA = "openlineage.io/spec/"


class Receiver(ThreadingHTTPServer):
    """Keeps what is posted to it; while `is_away` it answers 503."""

    daemon_threads = True

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.is_away = False
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/v1/lineage" and not self.server.is_away:
            self.server.events.append(json.loads(body))
            self.server.keys.add(self.headers["Authorization"])
        self.send_response(503 if self.server.is_away else 201)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Not to the terminal of the tests."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with running(Receiver()) as server:
        yield server


@pytest.fixture(scope="module")
def lake(make_lake: Callable[[], Lake]) -> Lake:
    made = make_lake()
    days = "CAST(DATE '2020-01-01' + to_days(CAST(i AS INTEGER)) AS DATE)"
    with made.connect(read_only=False) as connection:
        connection.execute(f"CREATE SCHEMA features; CREATE SCHEMA {SOLUTION}")
        connection.execute(
            f"CREATE TABLE features.load AS SELECT 'p' AS place, TIMESTAMPTZ '2020-01-01 06:00:00+00' + to_days(CAST(i AS INTEGER)) AS moment, "
            f"{days} AS day, i % 7 AS waiting, i % 3 = 0 AS open, now() AS _loaded_at FROM range(30) r(i)"
        )
        connection.execute(
            f"CREATE TABLE {SOLUTION}.spine AS SELECT i AS id, {days} AS day, 'p' AS place, i + 0.5::DOUBLE AS distance, i % 2 AS was_late, "
            "TIMESTAMPTZ '2020-01-01 12:00:00+00' + to_days(CAST(i AS INTEGER)) AS at_time, at_time + INTERVAL 1 HOUR AS known_at "
            "FROM range(30) r(i)"
        )
    return made


@dataclass
class World:
    definitions: dg.Definitions
    instance: dg.DagsterInstance
    cursor: str | None = None

    def materialize(self) -> bool:
        job = self.definitions.get_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, partition_key=DAY, raise_on_error=False, asset_selection=[INPUTS.key("training_dataset")]
        ).success

    def tick(self, settings: Settings) -> str:
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            repository_def=self.definitions.get_repository_def(),
            resources={"settings": settings},
        )
        with context:
            result = build_lineage_events_sensor().evaluate_tick(context)
        self.cursor = result.cursor
        return str(result.skip_message)


@pytest.fixture
def world(lake: Lake) -> Iterator[World]:
    solution = Solution.model_validate(DECLARED | {"checks": {"minimum_rows": 5}})
    asset = build_training_dataset(replace(INPUTS, solution=solution))
    with dg.DagsterInstance.ephemeral() as instance:
        yield World(dg.Definitions([asset], resources={"lake": lake, "settings": Settings(home=lake.data_directory)}), instance)


def settings(receiver: Receiver, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, openlineage_url=f"http://127.0.0.1:{receiver.server_port}", openlineage_api_key="secret")


def test_a_materialization_is_told_with_its_inputs_outputs_and_columns(world: World, receiver: Receiver, tmp_path: Path) -> None:
    assert world.tick(settings(receiver, tmp_path)) == "begins to listen"
    assert world.materialize()
    receiver.is_away = True
    with pytest.raises(requests.HTTPError, match="503"):
        world.tick(settings(receiver, tmp_path))
    receiver.is_away = False
    assert world.tick(settings(receiver, tmp_path)) == "sent 2 events"
    assert world.tick(settings(receiver, tmp_path)) == "sent 0 events"
    start, complete = receiver.events
    assert receiver.keys == {"Bearer secret"}
    assert [event["eventType"] for event in receiver.events] == ["START", "COMPLETE"]
    assert start["eventTime"] < complete["eventTime"]
    assert start["run"]["runId"] == complete["run"]["runId"]
    [run] = world.instance.get_runs()
    assert complete["run"]["facets"]["parent"]["run"]["runId"] == run.run_id
    assert complete["run"]["facets"]["nominalTime"]["nominalStartTime"].startswith(DAY)
    assert complete["job"]["name"] == f"{SOLUTION}/training_dataset"
    assert complete["job"]["facets"]["ownership"]["owners"] == [{"name": "team:test"}]
    assert [each["name"] for each in complete["inputs"]] == ["features/load", f"{SOLUTION}/spine"]
    [output] = complete["outputs"]
    assert output["name"] == f"{SOLUTION}/training_dataset"
    assert output["outputFacets"]["outputStatistics"]["rowCount"] == 30
    assert "waiting" in {each["name"] for each in output["facets"]["schema"]["fields"]}
    fields = output["facets"]["columnLineage"]["fields"]
    sources = {column: [(each["name"], each["field"]) for each in content["inputFields"]] for column, content in fields.items()}
    assert sources["waiting"] == [("features/load", "waiting")]
    assert sources["was_late"] == [(f"{SOLUTION}/spine", "was_late")]
    assert SCHEMA in output["facets"]["columnLineage"]["_schemaURL"]


def test_a_step_that_failed_is_told_with_its_reason(world: World, lake: Lake, receiver: Receiver, tmp_path: Path) -> None:
    world.tick(settings(receiver, tmp_path))
    with lake.connect(read_only=False) as connection:
        connection.execute("ALTER TABLE features.load RENAME TO moved")
    assert not world.materialize()
    with lake.connect(read_only=False) as connection:
        connection.execute("ALTER TABLE features.moved RENAME TO load")
    assert world.tick(settings(receiver, tmp_path)) == "sent 2 events"
    assert [event["eventType"] for event in receiver.events] == ["START", "FAIL"]
    assert "The lake lacks features.load" in receiver.events[1]["run"]["facets"]["errorMessage"]["message"]


def test_events_go_to_a_file_without_a_receiver(world: World, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    to_file = Settings(home=tmp_path, openlineage_url=file.as_uri())
    world.tick(to_file)
    assert world.materialize()
    world.tick(to_file)
    assert [json.loads(line)["eventType"] for line in file.read_text().splitlines()] == ["START", "COMPLETE"]


def test_nothing_is_sent_unless_the_installation_names_a_receiver(monkeypatch: pytest.MonkeyPatch) -> None:
    def names() -> set[str]:
        return {sensor.name for sensor in platform_definitions().sensors or []}

    monkeypatch.setenv("OPENLINEAGE_URL", "http://elsewhere")
    monkeypatch.delenv("MLOPS_OPENLINEAGE_URL", raising=False)
    assert "lineage_events" not in names()
    monkeypatch.setenv("MLOPS_OPENLINEAGE_URL", "http://receiver")
    assert "lineage_events" in names()
