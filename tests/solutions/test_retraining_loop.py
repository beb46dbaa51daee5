"""The loop on the real stack: a year arrives faulty, is repaired, predicted and evaluated; the decision retrains by itself, once.

On the census, whose years are small. Its first model is trained for 2017, and is too old when that year has ended.
"""

import json
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import requests
from running_stack import Platform

from mlops_assets.access.credentials import serving_token
from mlops_assets.clients.dagster_client import RunState
from mlops_assets.core.conditions import CONDITIONS_SENSORS
from mlops_assets.monitoring.retraining_sensor import DECISION_TAG
from mlops_assets.operations.automation import switched_on
from mlops_assets.operations.events import requests_of_day, send_requests
from mlops_assets.operations.replay import Replay
from mlops_assets.operations.replay_plan import Period, ReplayPlan
from mlops_assets.operations.runs import wait_for_run
from mlops_assets.operations.stage_runs import data_assets

pytestmark = pytest.mark.long

SOLUTION = "employment"
FIRST_YEAR = "2017-01-01"
"""The first that is predicted."""
REASON = "the model was trained for 2017-01-01, 365 days ago"
REPLAY = ("replay", SOLUTION, "--from", "2017-01-01", "--to", "2017-12-31", "--step", "year", "--json")
FAULT = ("--inject", "duplicate:census:2017-01-01:2017-01-01")
NOTIFIED_SECONDS = 120
FOLLOWED_SECONDS = 400
CHECKS = """
query Checks($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } } } } }"""

TICKS = """
{ sensorsOrError(repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "mlops_assets"}) {
  ... on Sensors { results { name sensorState { ticks(limit: 1, statuses: [SUCCESS, SKIPPED]) { id } } } } } }"""


@dataclass(frozen=True)
class Replayed:
    """The version before the replay, what the replay said, and the same of its repetition."""

    before: int
    first: dict[str, Any]
    again: dict[str, Any]
    runs: list[str]
    runs_after: list[str]


def all_runs(platform: Platform) -> list[str]:
    """All runs but those of the sensors that only watch, which come when they have seen something."""
    answer = platform.client.query("{ runsOrError { ... on Runs { results { runId tags { key value } } } } }")
    watched = {
        run["runId"]: next((tag["value"] for tag in run["tags"] if tag["key"] == "dagster/sensor_name"), None)
        for run in answer["runsOrError"]["results"]
    }
    return sorted(run for run, sensor in watched.items() if sensor is None or sensor.endswith("_retraining"))


def replay(platform: Platform, *arguments: str) -> dict[str, Any]:
    done = platform.mlops(*REPLAY, *arguments)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.fixture(scope="module")
def data(platform: Platform) -> tuple[str, ...]:
    """The assets of the data that the solution needs."""
    return tuple(sorted(data_assets(platform.client.assets(), f"{SOLUTION}/training_dataset")))


@pytest.fixture(scope="module")
def replayed(platform: Platform, data: tuple[str, ...]) -> Replayed:
    platform.materialize(data, "2015-01-01", "2016-01-01")
    trained = platform.mlops("train", SOLUTION, "--date", "2017-01-01", "--json")
    assert trained.returncode == 0, trained.stderr
    first = replay(platform, *FAULT)
    runs = all_runs(platform)
    return Replayed(
        before=json.loads(trained.stdout)["version"],
        first=first,
        again=replay(platform, *FAULT),
        runs=runs,
        runs_after=all_runs(platform),
    )


def test_the_faulty_delivery_was_stopped_and_its_cause_is_named(replayed: Replayed) -> None:
    [step] = replayed.first["steps"]
    [problem] = step["stopped"]["problems"]
    assert problem.startswith("raw/census: duplicates: ")
    assert problem.endswith(" keys occur more than once")
    assert step["stopped"]["fault"].startswith("duplicate of raw/census from 2017-01-01 to 2017-01-01")


def test_after_the_repair_the_tables_are_those_of_a_true_delivery(
    platform: Platform, data: tuple[str, ...], replayed: Replayed
) -> None:
    rows, persons = platform.rows("SELECT count(*), count(DISTINCT id) FROM raw.census WHERE survey_date = DATE '2017-01-01'")[0]
    assert rows == persons > 50_000
    names = [key.replace("/", ".") for key in data if not key.endswith("_statistics")]
    before = {name: content for name, content in platform.fingerprints().items() if name in names}
    platform.materialize(data, "2017-01-01", "2017-01-01")
    assert {name: content for name, content in platform.fingerprints().items() if name in names} == before


def test_after_the_repair_nothing_of_it_is_outdated(platform: Platform, replayed: Replayed) -> None:
    answer = json.loads(platform.mlops("backfill", "--from-changes", "--dry-run", "--json").stdout)
    assert answer["built"] == {}
    assert not {"staging/census", "features/person", f"{SOLUTION}/spine"} & {asset["asset"] for asset in answer["touched"]}


def test_the_decision_trained_and_deployed_once(platform: Platform, replayed: Replayed) -> None:
    [step] = replayed.first["steps"]
    [window] = step["windows"]
    assert (window["window_start"], window["outcome"], window["reason"]) == ("2017-01-01", "retrain", REASON)
    assert window["model_version"] == replayed.before
    assert (step["followed_by"]["outcome"], step["followed_by"]["problems"]) == ("retrain", [])
    champion = platform.registry.champion(SOLUTION)
    assert champion is not None
    assert champion.version == step["champion"] > replayed.before
    assert champion.tags["training_date"] == "2018-01-01"
    newest = json.loads(platform.mlops("history", SOLUTION, "--json").stdout)[0]
    assert (newest["version"], newest["actor"], newest["reason"]) == (champion.version, "retraining", REASON)
    decision = platform.client.metadata(f"{SOLUTION}/retraining_decision", "2017-01-01")
    assert len(platform.client.runs_with_tag(DECISION_TAG, decision["decision"])) == 1


def test_a_replay_that_is_repeated_recomputes_nothing(replayed: Replayed) -> None:
    assert replayed.runs_after == replayed.runs
    [step], [again] = replayed.first["steps"], replayed.again["steps"]
    assert set(again["runs"].values()) == {None}
    assert again["windows"] == step["windows"]
    assert replayed.again["comparison"] == replayed.first["comparison"]


def test_the_comparison_evaluates_the_same_rows(platform: Platform, replayed: Replayed) -> None:
    [year] = replayed.first["comparison"]
    labelled = f"SELECT count(*) FROM {SOLUTION}.spine WHERE survey_date = DATE '2017-01-01' AND employed IS NOT NULL"
    assert year["rows"] == platform.value(labelled)
    # All of the year was predicted by the first model, which is also the one trained for its first month.
    assert year["loop"] == pytest.approx(year["frozen"], abs=1e-6)
    assert year["loop"] == pytest.approx(year["monthly"], abs=1e-6)
    assert year["loop"] > 0.85


def test_what_happened_was_told_once(platform: Platform, replayed: Replayed) -> None:
    wanted = {
        "check_failed": "raw/census: duplicates failed",
        "retrained": f"{SOLUTION}: version {replayed.first['steps'][0]['champion']} was trained for 2018-01-01",
        "promoted": f"{SOLUTION}: version {replayed.first['steps'][0]['champion']} predicts now, after version {replayed.before}",
    }
    deadline = time.monotonic() + NOTIFIED_SECONDS
    while True:
        lines = [json.loads(line) for line in platform.settings.notification_log.read_text().splitlines()]
        titles = [(line["event"], line["title"]) for line in lines]
        if all(titles.count(item) == 1 for item in wanted.items()):
            break
        assert time.monotonic() < deadline, titles
        time.sleep(1)
    assert all(line["links"]["Run"].startswith(platform.settings.dagster_url) for line in lines)


def test_the_sensor_is_off_again(platform: Platform, replayed: Replayed) -> None:
    switched = json.loads(platform.mlops("automation", "status", "--json").stdout)
    assert switched[f"{SOLUTION}_retraining"] is False
    assert switched["notifications"] is True


def test_a_replay_waits_for_what_a_decision_before_it_asked_for(platform: Platform, replayed: Replayed) -> None:
    """So that its first days are predicted by what was trained, however long that takes."""
    assert (replayed.first["before"], replayed.again["before"]) == (None, None)
    replay = Replay(platform.settings, ReplayPlan(SOLUTION, Period(date(2018, 1, 1), date(2018, 12, 31)), "year"), None)

    def follow(run_id: str, name: str) -> RunState:
        return wait_for_run(replay.client, run_id, lambda state: None)

    assert replay.run_before(follow) is None
    decision = platform.client.metadata(f"{SOLUTION}/retraining_decision", "2017-01-01")["decision"]
    asset = platform.client.assets([f"{SOLUTION}/training_dataset"])[f"{SOLUTION}/training_dataset"]
    run = platform.client.launch([asset], "2018-01-01", "2018-01-01", {}, purpose="test", tags={DECISION_TAG: decision})
    before = replay.run_before(follow)
    assert before is not None
    assert (before.outcome, before.run_url, before.problems) == ("retrain", platform.client.run_url(run), ())
    assert platform.client.run(run).finished


def test_automation_is_switched_as_a_whole_and_stays_so(platform: Platform, replayed: Replayed) -> None:
    names = (*CONDITIONS_SENSORS, f"{SOLUTION}_retraining")
    try:
        for wanted in ("on", "off"):
            assert platform.mlops("automation", wanted).returncode == 0
            switched = json.loads(platform.mlops("automation", "status", "--json").stdout)
            assert [switched[name] for name in names] == [wanted == "on"] * 3
            # The conditions follow what is written from now on: Dagster takes what it sees in their first evaluation as old.
            sensors = platform.client.query(TICKS)["sensorsOrError"]["results"]
            evaluated_once = {sensor["name"] for sensor in sensors if sensor["sensorState"]["ticks"]}
            assert set(CONDITIONS_SENSORS) <= evaluated_once
    finally:
        platform.mlops("automation", "off")


@pytest.fixture(scope="module")
def followed(platform: Platform, replayed: Replayed) -> str:
    """A year whose raw rows arrived with automation on, once its decision was made."""
    decision, year = f"{SOLUTION}/retraining_decision", "2018-01-01"
    assert not platform.client.assets([decision])[decision].covers(year, year)
    # Not the sensor of retraining: what it launched would go on behind the tests that follow.
    with switched_on(platform.client, *CONDITIONS_SENSORS):
        platform.materialize(("raw/census",), year, year)
        deadline = time.monotonic() + FOLLOWED_SECONDS
        while not is_materialized(platform, decision, year):
            assert time.monotonic() < deadline, [
                key for key, asset in platform.client.assets().items() if asset.covers(year, year)
            ]
            time.sleep(2)
    return year


def test_with_automation_on_a_year_goes_from_raw_rows_to_a_decision_by_itself(platform: Platform, followed: str) -> None:
    spine = f"{SOLUTION}/spine"
    rows = f"SELECT count(*) FROM {SOLUTION}.{{}} WHERE survey_date = DATE '{followed}'"
    assert platform.value(rows.format("predictions")) == platform.value(rows.format("spine")) > 50_000
    # The dbt tests ran with the models.
    checks = platform.client.query(CHECKS, key={"path": spine.split("/")})["assetNodeOrError"]["assetChecksOrError"]["checks"]
    assert checks
    assert {check["executionForLatestMaterialization"]["status"] for check in checks} == {"SUCCEEDED"}


def test_the_model_is_good_on_the_year_held_out_and_on_those_after(platform: Platform, followed: str) -> None:
    evaluation = platform.client.metadata(f"{SOLUTION}/evaluation", FIRST_YEAR)
    assert evaluation["roc_auc"] >= 0.85
    assert evaluation["expected_calibration_error"] <= 0.05
    assert evaluation["gates_passed"] is True
    for year in (FIRST_YEAR, followed):
        assert platform.client.metadata(f"{SOLUTION}/outcomes", year)["roc_auc"] >= 0.85


def test_every_person_of_the_predicted_years_is_predicted_once_and_evaluated(platform: Platform, followed: str) -> None:
    people = platform.rows(
        f"SELECT survey_date, count(*) FROM raw.census WHERE survey_date >= '{FIRST_YEAR}' GROUP BY 1 ORDER BY 1"
    )
    assert len(people) == 2
    for table in ("predictions", "outcomes"):
        query = f"""SELECT survey_date, count(*), count(DISTINCT person_id) FROM {SOLUTION}.{table}
            WHERE survey_date >= '{FIRST_YEAR}' GROUP BY 1 ORDER BY 1"""
        assert platform.rows(query) == [(day, count, count) for day, count in people]
    assert platform.value(f"SELECT bool_and(matured) FROM {SOLUTION}.outcomes")


def test_drift_is_reported_by_year(platform: Platform, followed: str) -> None:
    windows = platform.rows(
        f"SELECT DISTINCT window_start::VARCHAR FROM {SOLUTION}.drift_report WHERE window_start >= '{FIRST_YEAR}' ORDER BY 1"
    )
    assert windows == [(FIRST_YEAR,), (followed,)]
    report = platform.client.metadata(f"{SOLUTION}/monitoring_report", followed)["report"]
    assert Path(report).stat().st_size > 10_000
    # The survey asks the same questions of the same state: no feature moves far in a year.
    assert platform.value(f"SELECT count(*) FROM {SOLUTION}.drift_report WHERE alert AND kind = 'feature' AND slice IS NULL") <= 2


def test_what_the_servers_answered_reaches_the_decision_without_any_batch(platform: Platform, replayed: Replayed) -> None:
    decision, year = f"{SOLUTION}/retraining_decision", date(2016, 1, 1)
    stages = [f"{SOLUTION}/{stage}" for stage in ("prediction_log", "outcomes", "drift_report", "retraining_decision")]
    rows = requests_of_day(platform.settings, SOLUTION, year, look_up=False)[:100]
    key = year.isoformat()
    reached: dict[str, float] = {}
    with switched_on(platform.client, *CONDITIONS_SENSORS):
        began = time.monotonic()
        address = f"{platform.settings.serving_url}/{SOLUTION}/predict"
        token = {"Authorization": f"Bearer {serving_token(platform.settings)}"}
        answer = requests.post(address, data=json.dumps([json.loads(row) for row in rows[:50]]), headers=token, timeout=60)
        assert answer.status_code == 200, answer.text
        send_requests(platform.settings, SOLUTION, rows[50:], None)
        while decision not in reached or evaluated(platform, key) < 100:
            new = [stage for stage in stages if stage not in reached and is_materialized(platform, stage, key)]
            reached |= {stage: time.monotonic() - began for stage in new}
            assert time.monotonic() < began + FOLLOWED_SECONDS, reached
            time.sleep(2)
    assert list(reached) == stages
    channels = f"SELECT channel, count(*), bool_and(matured) FROM {SOLUTION}.outcomes WHERE survey_date = DATE '{key}' GROUP BY 1 ORDER BY 1"
    assert platform.rows(channels) == [("online", 50, True), ("stream", 50, True)]
    predictions = f"{SOLUTION}/predictions"
    assert not platform.client.assets([predictions])[predictions].covers(key, key)


def is_materialized(platform: Platform, stage: str, partition: str) -> bool:
    """Whether the stage has the partition. The states of all assets take the webserver a second."""
    return bool(platform.client.metadata(stage, partition))


def evaluated(platform: Platform, window: str) -> int:
    """How many predictions the decision about a window rests on."""
    [[predictions]] = platform.rows(
        f"SELECT coalesce(max(predictions), 0) FROM {SOLUTION}.retraining_decision WHERE window_start = DATE '{window}'"
    )
    return int(predictions)


def test_mistakes_are_messages(platform: Platform) -> None:
    for arguments, expected in (
        (("nothing", "--from", "2017-01-01", "--to", "2017-12-31"), "No file of defs/ declares the solution 'nothing'."),
        (
            (SOLUTION, "--from", "2017-01-01", "--to", "2017-12-31", "--inject", "drop:weather:2017-01-01:2017-01-01"),
            "does not read raw/weather",
        ),
        (
            (SOLUTION, "--from", "2025-01-01", "--to", "2025-12-31"),
            "employment has no data from 2025-01-01 to 2025-12-31: no partition ends there. Its partitions are of 2015-01-01 to 2018-12-31.",
        ),
    ):
        done = platform.mlops("replay", *arguments)
        assert done.returncode == 1
        assert expected in done.stderr
