"""The retraining sensor on a Dagster instance of its own: one launch for one decision, whatever is repeated."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from mlops_assets.core.asset_jobs import define_job
from mlops_assets.core.deployment_target import DeploymentTarget
from mlops_assets.core.keys import MUST_GAIN_TAG, job_name, stage_key
from mlops_assets.monitoring.retraining_sensor import build_retraining_sensor, running_training

SOLUTION = "problem"
TARGET = DeploymentTarget(SOLUTION, None, dg.StaticPartitionsDefinition(["2013-07-01", "2013-09-02"]))
JOBS = [
    define_job(f"problem_{purpose}", selection=dg.AssetSelection.all(), description="") for purpose in ("training", "deployment")
]
KEY = stage_key(SOLUTION, "retraining_decision")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def decide(instance: dg.DagsterInstance, window: str, outcome: str, identity: str, **metadata: object) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            KEY,
            partition=window,
            metadata={
                "outcome": outcome,
                "reason": f"because of {window}",
                "train_for": "2013-09-02",
                "decision": identity,
                "model_version": 2,
                **metadata,
            },
        )
    )


def tick(instance: dg.DagsterInstance, cursor: str | None) -> tuple[list[dg.RunRequest], str | None, str | None]:
    """The run requests of one tick, the cursor after it, and why there is none."""
    with dg.build_sensor_context(instance=instance, cursor=cursor) as context:
        result: Any = build_retraining_sensor(
            TARGET, [define_job("problem_training", selection=dg.AssetSelection.all(), description="")]
        )(context)
    if isinstance(result, dg.SkipReason):
        return [], cursor, result.skip_message
    reason = result.skip_reason
    return list(result.run_requests or []), result.cursor, reason.skip_message if isinstance(reason, dg.SkipReason) else reason


def test_it_launches_the_training_of_the_newest_decision_once(instance: dg.DagsterInstance) -> None:
    decide(instance, "2013-08-19", "retrain", "first")
    decide(instance, "2013-08-26", "retrain", "second")
    requests, cursor, _ = tick(instance, None)
    [request] = requests
    assert (request.run_key, request.partition_key) == ("second", "2013-09-02")
    assert request.run_config["ops"]["problem__deployment"]["config"] == {
        "actor": "retraining",
        "reason": "because of 2013-08-26",
    }
    assert tick(instance, cursor)[0] == []


@pytest.mark.parametrize("must_gain", [True, False])
def test_the_training_knows_whether_its_candidate_must_gain(instance: dg.DagsterInstance, must_gain: bool) -> None:
    decide(instance, "2013-08-26", "retrain", "first", must_gain=must_gain)
    [request] = tick(instance, None)[0]
    assert (MUST_GAIN_TAG in request.tags) == must_gain


def test_a_decision_made_again_has_the_same_run_key(instance: dg.DagsterInstance) -> None:
    decide(instance, "2013-08-26", "retrain", "same")
    first, cursor, _ = tick(instance, None)
    decide(instance, "2013-08-26", "retrain", "same")
    again, _, _ = tick(instance, cursor)
    # Dagster launches a run key once.
    assert [request.run_key for request in again] == [request.run_key for request in first]


def test_a_window_decided_after_a_later_one_is_overtaken(instance: dg.DagsterInstance) -> None:
    decide(instance, "2013-08-26", "keep", "later")
    _, cursor, reason = tick(instance, None)
    assert reason == "2013-08-26: keep, because of 2013-08-26"
    decide(instance, "2013-07-01", "retrain", "backfilled")
    requests, cursor, reason = tick(instance, cursor)
    assert requests == []
    assert reason == "2013-07-01: overtaken by the decision of 2013-08-26"
    decide(instance, "2013-09-02", "retrain", "next")
    assert len(tick(instance, cursor)[0]) == 1


def test_one_training_runs_at_a_time(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, job_name=job_name(SOLUTION, "training"), status=dg.DagsterRunStatus.STARTED)
    assert running_training(instance, SOLUTION) == run.run_id
    assert running_training(instance, "another") is None
    decide(instance, "2013-08-26", "retrain", "first")
    requests, cursor, reason = tick(instance, None)
    assert requests == []
    assert f"the training {run.run_id} is running" in str(reason)
    # Dropped: the next window decides anew.
    assert tick(instance, cursor)[0] == []


def deploy(instance: dg.DagsterInstance, version: int, before: int | None) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(
            TARGET.key,
            partition="2013-07-01",
            metadata={
                "model_version": version,
                "version_before": dg.MetadataValue.null() if before is None else before,
                "changed": version != before,
            },
        )
    )


def test_a_rollback_deploys_the_version_before_whatever_runs(instance: dg.DagsterInstance) -> None:
    deploy(instance, 2, 1)
    create_run_for_test(instance, job_name=job_name(SOLUTION, "training"), status=dg.DagsterRunStatus.STARTED)
    decide(instance, "2013-08-26", "roll back", "back", return_to=1, return_partition="2013-07-01")
    [request], cursor, _ = tick(instance, None)
    assert (request.run_key, request.job_name, request.partition_key) == ("back", "problem_deployment", "2013-07-01")
    assert request.run_config == {
        "ops": {"problem__deployment": {"config": {"actor": "retraining", "reason": "because of 2013-08-26", "version": 1}}}
    }
    assert request.tags["mlops/retraining_decision"] == "back"
    # Decided again before the window in which the version before predicts: it is there.
    deploy(instance, 1, 2)
    decide(instance, "2013-09-02", "roll back", "again", return_to=1, return_partition="2013-07-01")
    requests, _, reason = tick(instance, cursor)
    assert (requests, reason) == ([], "2013-09-02: not followed, version 1 predicts by now; the next window decides anew")


def test_a_recalibration_is_a_training_of_the_version_that_predicts(instance: dg.DagsterInstance) -> None:
    deploy(instance, 2, 1)
    decide(instance, "2013-08-26", "recalibrate", "bend")
    [request], _, _ = tick(instance, None)
    assert (request.job_name, request.partition_key) == ("problem_training", "2013-09-02")
    assert request.run_config["ops"]["problem__model"] == {"config": {"recalibrate": 2}}


def test_the_version_before_is_that_of_the_first_deployment(instance: dg.DagsterInstance) -> None:
    assert TARGET.version_before(instance, 2, "2013-07-01") is None
    for version, before in ((1, None), (2, 1), (2, 2), (1, 2), (3, 1), (2, 3)):
        deploy(instance, version, before)
    assert [TARGET.version_before(instance, version, "2013-07-01") for version in (1, 2, 3)] == [None, 1, 1]
