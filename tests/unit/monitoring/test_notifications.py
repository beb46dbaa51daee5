"""The notification sensors on a Dagster instance of their own: what is told, in which words, and what is not."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mlops_assets.clients.notifier import Notifier
from mlops_assets.components.stages import STAGES
from mlops_assets.core.keys import CHECK_EVENT_TAG, stage_key, stage_tags
from mlops_assets.core.settings import Settings
from mlops_assets.monitoring.notifications import build_notification_sensors, check_notifications

SOLUTION = "problem"
GATE = dg.AssetCheckSpec("floor", asset=stage_key(SOLUTION, "evaluation"), blocking=False)
DRIFT = dg.AssetCheckSpec("drift", asset=stage_key(SOLUTION, "drift_report"))
ROWS = dg.AssetCheckSpec("row_count", asset=dg.AssetKey(["raw", "table"]), blocking=True)
REASON = "2 of the last 4 windows are bad"


class OutcomeConfig(dg.Config):
    """What the assets of the graph do in a run."""

    passed: bool = True
    error: str = ""
    metadata: dict[str, Any] = {}


def build(key: dg.AssetKey, checks: list[dg.AssetCheckSpec], tags: dict[str, str]) -> dg.AssetsDefinition:
    @dg.asset(key=key, check_specs=checks, tags=tags)
    def made(config: OutcomeConfig) -> dg.MaterializeResult:
        if config.error:
            raise dg.Failure(config.error)
        results = [
            dg.AssetCheckResult(
                check_name=check.name,
                passed=config.passed,
                description="roc_auc 0.61, floor 0.65 missed",
                severity=dg.AssetCheckSeverity.ERROR if check.blocking else dg.AssetCheckSeverity.WARN,
            )
            for check in checks
        ]
        return dg.MaterializeResult(metadata=config.metadata, check_results=results)

    return made


class Notified:
    """A graph with the sensors, and what they told."""

    def __init__(self, instance: dg.DagsterInstance, home: Path):
        self.instance = instance
        settings = Settings(home=home)
        self.resources = {"settings": settings, "notifier": Notifier.from_settings(settings)}
        self.log = settings.notification_log
        self.failures, self.events = build_notification_sensors()
        checks = {"evaluation": [GATE], "drift_report": [DRIFT]}
        stages = ("model", "evaluation", "deployment", "drift_report", "retraining_decision")
        events = {stage.name: {CHECK_EVENT_TAG: stage.check_event} for stage in STAGES if stage.check_event}
        assets = [
            build(stage_key(SOLUTION, each), checks.get(each, []), stage_tags(SOLUTION, each) | events.get(each, {}))
            for each in stages
        ]
        assets.append(build(dg.AssetKey(["raw", "table"]), [ROWS], {}))
        self.definitions = dg.Definitions(assets, resources=self.resources, sensors=[self.failures, self.events])
        self.cursor: str | None = None

    def run(self, key: str, **config: Any) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        name = dg.AssetKey(key.split("/"))
        return job.execute_in_process(
            instance=self.instance,
            asset_selection=[name],
            run_config={"ops": {name.to_python_identifier(): {"config": config}}},
            raise_on_error=False,
        )

    def tick(self) -> list[dict[str, Any]]:
        """What one tick of the event sensor told."""
        before = self.told()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources=self.resources,
            repository_def=self.definitions.get_repository_def(),
        ) as context:
            self.events(context)
            self.cursor = context.cursor
        return self.told()[len(before) :]

    def fail(self, result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
        """What the sensor of failed runs told of a run."""
        before = self.told()
        with dg.build_run_status_sensor_context(
            sensor_name="run_failures",
            dagster_event=result.get_run_failure_event(),
            dagster_instance=self.instance,
            dagster_run=self.instance.get_run_by_id(result.run_id),
            resources=self.resources,
            repository_def=self.definitions.get_repository_def(),
        ) as context:
            self.failures(context.for_run_failure())
        return self.told()[len(before) :]

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture
def notified(tmp_path: Path) -> Iterator[Notified]:
    with dg.DagsterInstance.ephemeral() as instance:
        notified = Notified(instance, tmp_path)
        notified.tick()
        yield notified


def test_what_happened_before_is_no_news(tmp_path: Path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        notified = Notified(instance, tmp_path)
        notified.run("problem/drift_report", passed=False)
        assert notified.tick() == []
        assert notified.tick() == []


def test_a_training_a_promotion_and_a_rollback_are_told_once(notified: Notified) -> None:
    notified.run("problem/model", metadata={"model_version": 2})
    deployed = {"changed": True, "model_version": 2, "version_before": 1, "actor": "retraining", "reason": REASON}
    run = notified.run("problem/deployment", metadata=deployed)
    told = {each["event"]: each for each in notified.tick()}
    assert set(told) == {"retrained", "promoted"}
    assert told["promoted"]["title"] == "problem: version 2 predicts now, after version 1"
    assert told["promoted"]["body"] == f"Promoted after a retraining decision: {REASON}"
    assert told["promoted"]["links"]["Run"].endswith(f"/runs/{run.run_id}")
    assert notified.tick() == []
    back = {"changed": True, "model_version": 1, "version_before": 2, "actor": "ann", "reason": "complaints"}
    notified.run("problem/deployment", metadata=back)
    [rollback] = notified.tick()
    assert (rollback["event"], rollback["body"]) == ("rolled_back", "Rolled back by ann: complaints")


def test_a_recalibration_is_told_as_one(notified: Notified) -> None:
    notified.run("problem/model", metadata={"model_version": 3, "recalibration": "version 2 recalibrated (sigmoid) on 700 rows"})
    [told] = notified.tick()
    assert told["title"].startswith("problem: version 3 was recalibrated for ")


def test_a_person_is_asked_once_until_something_else_was_tried(notified: Notified) -> None:
    asking = {"outcome": "ask", "reason": REASON, "model_version": 2, "attempted": "2013-08-01"}
    for metadata in (asking | {"outcome": "wait"}, asking, asking):
        notified.run("problem/retraining_decision", metadata=metadata)
    [asked] = notified.tick()
    assert (asked["event"], asked["title"]) == ("asks", "problem: a person has to decide about version 2")
    assert asked["body"].startswith(f"{REASON}. Train or deploy by hand")
    notified.run("problem/retraining_decision", metadata=asking)
    assert notified.tick() == []
    notified.run("problem/retraining_decision", metadata=asking | {"attempted": "2013-09-01"})
    assert [told["event"] for told in notified.tick()] == ["asks"]


def test_what_changed_nothing_is_not_told(notified: Notified) -> None:
    notified.run("problem/model", metadata={"model_version": 2, "reused": True})
    notified.run("problem/deployment", metadata={"changed": False, "model_version": 2})
    notified.run("problem/drift_report")
    assert notified.tick() == []


def test_a_refused_candidate_is_told_as_such_and_not_as_a_failed_run(notified: Notified) -> None:
    notified.run("problem/evaluation", passed=False)
    [told] = notified.tick()
    assert (told["event"], told["severity"]) == ("gate_refused", "warning")
    assert told["body"] == "floor: roc_auc 0.61, floor 0.65 missed\nThe candidate is refused: it is not deployed."


def test_a_check_that_passes_again_before_the_tick_is_told_with_its_run(notified: Notified) -> None:
    refused = notified.run("raw/table", passed=False)
    notified.run("raw/table")
    assert notified.tick() == []
    [told] = notified.fail(refused)
    assert (told["event"], told["title"]) == ("check_failed", "raw/table: row_count failed")
    assert told["links"]["Run"].endswith(f"/runs/{refused.run_id}")
    assert notified.fail(refused) == []


def test_drift_and_bad_raw_rows_are_told(notified: Notified) -> None:
    notified.run("problem/drift_report", passed=False)
    notified.run("raw/table", passed=False)
    assert [(each["event"], each["severity"], each["title"]) for each in notified.tick()] == [
        ("drift", "warning", "problem/drift_report: drift failed"),
        ("check_failed", "failure", "raw/table: row_count failed"),
    ]


def test_the_title_names_what_blocks_and_the_body_everything(tmp_path: Path) -> None:
    severities = {"duplicates": dg.AssetCheckSeverity.ERROR, "constant_columns": dg.AssetCheckSeverity.WARN}
    key = dg.AssetKey(["raw", "table"])
    evaluations = [
        dg.AssetCheckEvaluation(
            asset_key=key, check_name=name, passed=False, metadata={}, severity=severity, description=f"bad {name}"
        )
        for name, severity in severities.items()
    ]
    settings = Settings(home=tmp_path)
    [told] = check_notifications(settings, {}, [("run", each) for each in evaluations])
    assert (told.severity, told.title) == ("failure", "raw/table: duplicates failed")
    assert told.body == "constant_columns: bad constant_columns\nduplicates: bad duplicates\nWhat is downstream was stopped."


def test_each_source_that_has_not_come_is_told_though_no_run_found_it(tmp_path: Path) -> None:
    key = stage_key(SOLUTION, "predictions")

    def late(check: str, day: str) -> dg.AssetCheckEvaluation:
        return dg.AssetCheckEvaluation(
            key, check, passed=False, metadata={}, severity=dg.AssetCheckSeverity.WARN, description="raw/weather", partition=day
        )

    told = [
        notification
        for evaluation in (
            late("inputs_arrived", "2013-08-05"),
            late("inputs_arrived", "2013-08-06"),
            late("fresh_features", "x"),
        )
        for notification in check_notifications(Settings(home=tmp_path), {}, [("", evaluation)])
    ]
    assert [(each.event, each.body) for each in told] == [
        ("source_missing", "inputs_arrived of 2013-08-05: raw/weather"),
        ("source_missing", "inputs_arrived of 2013-08-06: raw/weather"),
    ]
    assert len({each.identity for each in told}) == 2
    assert [list(each.links) for each in told] == [["Checks"]] * 2


def test_a_failed_run_is_told_with_its_cause(notified: Notified) -> None:
    failed = notified.run("problem/model", error="there is no dataset")
    [told] = notified.fail(failed)
    assert (told["event"], told["title"]) == ("run_failed", "A run of problem/model failed")
    assert told["body"] == "problem__model: there is no dataset"
    assert notified.fail(failed) == []


def test_a_run_that_is_tried_again_is_told_as_such(notified: Notified) -> None:
    failed = notified.run("problem/model", error="the worker is gone")
    notified.instance.add_run_tags(failed.run_id, {"dagster/will_retry": "true"})
    [told] = notified.fail(failed)
    assert told["title"] == "A run of problem/model was interrupted and is tried again"
    assert told["severity"] == "warning"
