"""The sensor of a champion that was moved by hand: an HTTP server that answers like the model registry, and a real Dagster instance."""

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from mlops_assets.automation.champion import LEFT_TO_SOLUTION, Place, build_champion_sensor
from mlops_assets.automation.partitions import build_partitions
from mlops_assets.keys import SEGMENT, TRAINING_DATE
from mlops_assets.settings import Settings

DAYS = build_partitions(start=date(2013, 1, 1), end=None, cadence="daily")
SOLUTION = Place("delays", None, DAYS)
SEGMENTS = [
    Place("delays", name, dg.MultiPartitionsDefinition({TRAINING_DATE: DAYS, SEGMENT: dg.StaticPartitionsDefinition(["a", "b"])}))
    for name in ("a", "b")
]
ALIASES: dict[str, dict[str, Any]] = {}


class _Registry(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = ALIASES.get(parse_qs(urlsplit(self.path).query)["alias"][0])
        self.send_response(200 if found else 404)
        self.end_headers()
        self.wfile.write(json.dumps({"model_version": found} if found else {}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    ALIASES.clear()
    server = HTTPServer(("127.0.0.1", 0), _Registry)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Settings(home=tmp_path, mlflow_port=server.server_port)
    server.shutdown()
    server.server_close()


def point(alias: str, version: int, **tags: str) -> None:
    """Give `alias` to a version that passed its gates, or has other `tags`."""
    tags = {"status": "accepted", "training_date": "2013-02-01"} | tags
    ALIASES[alias] = {"version": str(version), "tags": [{"key": key, "value": value} for key, value in tags.items()]}


def deploy(instance: dg.DagsterInstance, place: Place, version: int, *, left_to_solution: bool = False) -> None:
    """What the deployment asset records."""
    event = dg.AssetMaterialization(
        place.key,
        partition=str(place.partition_key("2013-01-10")),
        metadata={"model_version": version, LEFT_TO_SOLUTION: left_to_solution},
    )
    instance.report_runless_asset_event(event)


def tick(instance: dg.DagsterInstance, settings: Settings, places: list[Place]) -> Any:
    context = dg.build_sensor_context(instance=instance, resources={"settings": settings})
    return build_champion_sensor(places)(context)


def requested(answer: dg.SensorResult) -> list[tuple[str, int, str]]:
    """Partition, version and reason of each run that is asked for."""
    found = []
    for request in answer.run_requests or []:
        [operation] = request.run_config["ops"].values()
        found.append((str(request.partition_key), operation["config"]["version"], operation["config"]["reason"]))
    return found


def test_nothing_is_asked_for_while_registry_and_history_agree(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    assert "nothing was deployed yet" in str(tick(instance, settings, [SOLUTION]).skip_message)
    deploy(instance, SOLUTION, 3)
    point("champion", 3)
    assert "version 3 is deployed and is the champion" in str(tick(instance, settings, [SOLUTION]).skip_message)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, ("2013-02-01", 5, "the alias champion was moved by hand from version 3")),
        ({"status": "rejected"}, ("2013-01-10", 3, "restored: the alias champion was moved by hand to version 5")),
        ({"segment": "a"}, ("2013-01-10", 3, "restored: the alias champion was moved by hand to version 5")),
        (None, ("2013-01-10", 3, "restored: the alias champion was removed by hand")),
    ],
)
def test_an_alias_moved_by_hand_is_recorded_or_moved_back(
    settings: Settings, tags: dict[str, str] | None, expected: tuple[str, int, str]
) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    if tags is not None:
        point("champion", 5, **tags)
    [(partition, version, reason)] = requested(tick(instance, settings, [SOLUTION]))
    assert (partition, version) == expected[:2]
    assert reason.startswith(expected[2])
    # The same state asks for the same run, which Dagster launches once.
    keys = {tick(instance, settings, [SOLUTION]).run_requests[0].run_key for _ in range(2)}
    assert len(keys) == 1


def test_each_segment_is_looked_after_by_itself(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    for place, version in zip(SEGMENTS, (3, 4), strict=True):
        deploy(instance, place, version)
    point("champion-a", 5, segment="a")
    point("champion-b", 4, segment="b")
    assert requested(tick(instance, settings, SEGMENTS)) == [
        ("a|2013-02-01", 5, "the alias champion was moved by hand from version 3")
    ]
    point("champion-a", 4, segment="b")
    [(partition, version, reason)] = requested(tick(instance, settings, SEGMENTS))
    assert (partition, version) == ("a|2013-01-10", 3)
    assert reason.startswith("restored")


def test_a_segment_that_was_left_to_its_solution_needs_no_alias(settings: Settings) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SEGMENTS[0], 3)
    deploy(instance, SEGMENTS[0], 1, left_to_solution=True)
    assert tick(instance, settings, SEGMENTS[:1]).skip_message
    point("champion-a", 3, segment="a")
    assert requested(tick(instance, settings, SEGMENTS[:1])) == [
        ("a|2013-02-01", 3, "the alias champion was moved by hand from version 1")
    ]


def test_a_registry_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.ephemeral()
    deploy(instance, SOLUTION, 3)
    assert "does not answer" in str(tick(instance, Settings(home=tmp_path, mlflow_port=1), [SOLUTION]).skip_message)
