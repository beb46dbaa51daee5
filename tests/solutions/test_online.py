"""The demo's champion over HTTP: what a caller gets, what the lake predicted of the same values, and what the servers are seen to serve."""

import json
import re
from typing import Any

import pytest
import requests
from bundles import load
from running_stack import Demo, Platform
from waiting import wait_for

from mlops_assets.access.credentials import serving_token
from mlops_assets.core.project import current_project
from mlops_assets.deployment.served_version import ServedSolution, observe
from mlops_assets.local.environment import process_environment

SOLUTION = "flight_delay"
CHECK = """
{ assetNodeOrError(assetKey: {path: ["flight_delay", "deployment"]}) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }
"""


def ask(platform: Platform, rows: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {serving_token(platform.settings)}"}
    return requests.post(f"{platform.settings.serving_url}/{SOLUTION}/predict", json=rows, headers=headers, timeout=10)


def test_a_flight_is_asked_for_by_its_keys(platform: Platform, demo: Demo) -> None:
    example = platform.mlops("predict", SOLUTION, "--example")
    assert example.returncode == 0, example.stderr
    done = platform.mlops("predict", SOLUTION, "--json", example.stdout)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["predicted_label"] in (0, 1)
    assert set(answer["flags"].values()) <= {"ok", "newer"}
    wrong = platform.mlops("predict", SOLUTION, "--json", json.dumps(json.loads(example.stdout) | {"distance": "far"}))
    assert wrong.returncode == 1
    assert "distance: Expected int | null, got str; allowed: a whole number" in wrong.stderr


def test_the_documented_look_up_answers(
    platform: Platform, demo: Demo, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (current_project().root / "docs" / "feature-store.md").read_text()
    code = re.search(r"### Read online values\n\n```python\n(.*?)```", page, re.DOTALL)
    assert code
    for name, value in process_environment(platform.settings).items():
        monkeypatch.setenv(name, value)
    exec(code[1], {})
    assert capsys.readouterr().out.split()[1] in ("ok", "stale")


def test_the_same_values_get_the_same_prediction_as_in_the_batch(platform: Platform, demo: Demo) -> None:
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    contract = load(platform.settings.serving_directory / SOLUTION / str(champion.version)).contract
    request = [contract.key.name, contract.prediction_time_column, *contract.columns]
    looked_up = [feature for view in contract.feature_views for feature in view.features]
    with platform.lake.connect(read_only=True) as connection:
        found = connection.execute(
            f"FROM {SOLUTION}.predictions WHERE channel = 'batch' AND model_version = {champion.version} ORDER BY md5(prediction_id) LIMIT 200"
        ).to_arrow_table()
    batch = found.to_pylist()
    rows = [
        {name: row[name].isoformat() if name == contract.prediction_time_column else row[name] for name in request}
        | {"features": {name: row[name] for name in looked_up}}
        for row in batch
    ]
    answers = ask(platform, rows)
    assert answers.status_code == 200, answers.text
    # The order in which ONNX Runtime adds up trees depends on how many rows it is given: the last digit of a float32.
    assert [answer["score"] for answer in answers.json()] == pytest.approx([row["score"] for row in batch], abs=1e-6)
    assert [answer["predicted_label"] for answer in answers.json()] == [row["predicted_label"] for row in batch]
    assert {flag for answer in answers.json() for flag in answer["flags"].values()} == {"request"}


def test_every_server_process_is_seen_to_serve_the_champion(platform: Platform, demo: Demo) -> None:
    seen = observe(platform.settings, SOLUTION, ServedSolution([], ["online"]))
    assert seen.faults == []
    assert len(seen.processes) == platform.settings.serving_processes
    # The sensor has it checked by itself.
    wait_for(lambda: served_version_status(platform) is not None, every=2)
    assert served_version_status(platform) == "SUCCEEDED"


def served_version_status(platform: Platform) -> str | None:
    node = platform.client.query(CHECK)["assetNodeOrError"]
    [check] = [each for each in node["assetChecksOrError"]["checks"] if each["name"] == "served_version"]
    execution = check["executionForLatestMaterialization"]
    return None if execution is None or execution["status"] == "IN_PROGRESS" else execution["status"]
