"""The platform of the compose file in containers, all at once: its servers, the demo of two months, an online prediction, a rollback."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from composition import Composition, running_composition
from waiting import wait_for

pytestmark = pytest.mark.long

SOLUTION = "flight_delay"


@pytest.fixture(scope="module")
def composition() -> Iterator[Composition]:
    with tempfile.TemporaryDirectory(prefix="compose.") as folder, running_composition(Path(folder)) as composition:
        yield composition


def test_the_platform_comes_up_in_containers(composition: Composition) -> None:
    states = {entry["name"]: entry["state"] for entry in json.loads(composition.mlops("status", "--json"))["processes"]}
    assert set(states.values()) == {"running"}, states
    running = {each["Names"][0] for each in composition.containers() if each["State"] == "running"}
    assert len(running) == 12, running


def test_the_demo_of_two_months_runs_in_containers(composition: Composition) -> None:
    summary = json.loads(composition.mlops("demo", "--months", "2", "--json"))
    assert summary["version"] == 1
    answer = composition.ask_online(f"/{SOLUTION}/model").json()
    wait_for(lambda: composition.ask_online("/readyz").ok, 30)
    predicted = composition.ask_online(f"/{SOLUTION}/predict", answer["example"])
    assert predicted.status_code == 200, predicted.text
    assert predicted.json()["model_version"] == 1
