"""What stands still among the runs of a real instance, and behind what."""

from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.execution.api import create_execution_plan
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test
from run_instances import CODE, REMOTE

from mlops_assets.core.settings import Settings
from mlops_assets.monitoring.notifications import blockage_notification
from mlops_assets.runs import stuck
from mlops_assets.runs.launcher import LAUNCHED_TAG
from mlops_assets.runs.recovery import worker_files
from mlops_assets.runs.slots import CHAMPION, SLOTS_TAG, WORK, slots

STARTED = DagsterRunStatus.STARTED


@dg.asset(pool="a_deployment", op_tags={SLOTS_TAG: CHAMPION})
def deployment() -> None: ...


def test_nothing_stands_still(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    create_run_for_test(instance, status=DagsterRunStatus.QUEUED, remote_job_origin=REMOTE)
    with worker_files(instance).reserve(run.run_id):
        assert stuck.find_blockages(instance) == []


def test_a_run_without_a_worker_and_the_pool_that_it_holds(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    ended = create_run_for_test(instance, status=DagsterRunStatus.FAILURE)
    instance.event_log_storage.set_concurrency_slots("training", 1)
    assert instance.event_log_storage.claim_concurrency_slot("training", ended.run_id, "fit").is_claimed
    orphan, pool = stuck.find_blockages(instance)
    assert (orphan.kind, orphan.run_id, orphan.reason) == ("worker", run.run_id, "has no worker")
    assert (pool.kind, pool.run_id, pool.name) == ("pool", ended.run_id, "training")


def test_a_run_that_waits_for_long_says_behind_what(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(stuck, "QUEUED_SECONDS", -1.0)
    working = [create_run_for_test(instance, status=STARTED, tags={SLOTS_TAG: WORK}) for _ in range(slots()[WORK].count)]
    waiting = create_run_for_test(instance, status=DagsterRunStatus.QUEUED, remote_job_origin=REMOTE, tags={SLOTS_TAG: WORK})
    job = dg.Definitions(assets=[deployment], jobs=[dg.define_asset_job("some")]).resolve_job_def("some")
    plan = create_execution_plan(job)
    run = instance.create_run_for_job(job, execution_plan=plan, remote_job_origin=REMOTE, job_code_origin=CODE)
    switch = instance.run_coordinator.submit_run(SubmitRunContext(run, workspace=None))  # type: ignore[arg-type]
    instance.event_log_storage.set_concurrency_slots("a_deployment", 1)
    assert instance.event_log_storage.claim_concurrency_slot("a_deployment", working[0].run_id, "deploy").is_claimed
    behind_slots, behind_pool = stuck.find_blockages(instance)
    assert (behind_slots.run_id, set(behind_slots.behind)) == (waiting.run_id, {run.run_id for run in working})
    assert behind_slots.reason == f"all {len(working)} slots of work are taken"
    assert (behind_pool.run_id, behind_pool.behind) == (switch.run_id, (working[0].run_id,))
    told = blockage_notification(Settings(home=tmp_path), behind_slots)
    assert all(run.run_id in told.body for run in working)
    assert "mlops status" in told.body
