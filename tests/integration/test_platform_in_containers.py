"""The platform of the compose file in containers: its servers, the demo of two months, a prediction that reaches the lake, a rollback."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from composition import Composition, running_composition
from waiting import wait_for

pytestmark = pytest.mark.long

SOLUTION = "flight_delay"
SERVERS = {
    "postgres", "nats", "redis", "files", "daemon", "code-location", "operators", "viewers", "mlflow", "shipper", "online", "stream",
}  # fmt: skip


@pytest.fixture(scope="module")
def composition() -> Iterator[Composition]:
    with tempfile.TemporaryDirectory(prefix="compose.") as folder, running_composition(Path(folder)) as composition:
        yield composition


def test_the_platform_comes_up_in_containers(composition: Composition) -> None:
    states = {entry["name"]: entry["state"] for entry in json.loads(composition.mlops("status", "--json"))["processes"]}
    assert set(states.values()) == {"running"}, states
    running = {each["Names"][0] for each in composition.containers() if each["State"] == "running"}
    assert running == {"mlops-daemon" if name == "daemon" else f"mlops_{name}_1" for name in SERVERS}


def test_the_demo_runs_in_containers_and_a_prediction_asked_there_reaches_the_lake(composition: Composition) -> None:
    summary = json.loads(composition.mlops("demo", "--months", "2", "--json"))
    assert summary["version"] == 1
    row = composition.ask_online(f"/{SOLUTION}/model").json()["example"]
    predicted = composition.ask_online(f"/{SOLUTION}/predict", row)
    assert predicted.status_code == 200, predicted.text
    assert predicted.json()["model_version"] == 1
    # By the spool, the shipper and the event stream, and from there by a run.
    logged = f"SELECT count(*) FROM {SOLUTION}.all_predictions WHERE prediction_id = '{predicted.json()['prediction_id']}'"
    wait_for(lambda: composition.mlops("sql", "--csv", logged).split()[-1] == "1", every=10)


def test_a_person_rolls_back_and_promotes_in_containers(composition: Composition) -> None:
    composition.mlops("train", SOLUTION, "--date", "2013-02-10")
    answering(composition, 2)
    composition.mlops("rollback", SOLUTION, "--reason", "complaints since Monday")
    answering(composition, 1)
    composition.mlops("promote", SOLUTION, "--to", "2", "--reason", "it was something else")
    answering(composition, 2)
    history = json.loads(composition.mlops("history", SOLUTION, "--json"))
    assert [entry["version"] for entry in history] == [2, 1, 2, 1]
    assert [entry["reason"] for entry in history[:2]] == ["it was something else", "complaints since Monday"]


def answering(composition: Composition, version: int) -> None:
    """Wait until the online server answers with `version`."""
    wait_for(lambda: composition.ask_online(f"/{SOLUTION}/model").json()["version"] == version, every=1)
