"""The sensor that recovers runs, ticked on a real instance."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test
from run_instances import REMOTE, run_instance

from mlops_assets.clients.notifier import Notifier
from mlops_assets.core.settings import Settings
from mlops_assets.monitoring import run_recovery
from mlops_assets.runs.launcher import LAUNCHED_TAG
from mlops_assets.runs.slots import SLOTS_TAG, WORK, slots


def tick(instance: dg.DagsterInstance, folder: Path) -> tuple[str | None, list[str]]:
    """What the tick says, and the lines that it adds to the log of notifications."""
    notifier = Notifier(log=folder / "notifications.jsonl", urls=())
    sensor = run_recovery.build_run_recovery_sensor()
    context = dg.build_sensor_context(instance=instance, resources={"settings": Settings(home=folder), "notifier": notifier})
    execution = sensor.evaluate_tick(context)
    assert execution.run_requests == []
    return execution.skip_message, notifier.log.read_text().splitlines() if notifier.log.exists() else []


def test_runs_without_a_worker_are_failed_and_counted(tmp_path: Path) -> None:
    with run_instance(tmp_path) as instance:
        assert tick(instance, tmp_path) == ("every run has a worker", [])
        runs = [create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={LAUNCHED_TAG: "log"}) for _ in range(2)]
        canceling = create_run_for_test(instance, status=dg.DagsterRunStatus.CANCELING, tags={LAUNCHED_TAG: "log"})
        assert tick(instance, tmp_path) == ("1 to cancel, 2 to fail", [])
        statuses = [instance.get_run_by_id(run.run_id).status for run in (*runs, canceling)]  # type: ignore[union-attr]
        assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
        assert tick(instance, tmp_path) == ("every run has a worker", [])


def test_only_a_run_that_waits_for_long_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with run_instance(tmp_path) as instance:
        work = {SLOTS_TAG: WORK}
        for _ in range(slots()[WORK].count):
            create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=work)
        waiting = create_run_for_test(instance, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=REMOTE, tags=work)
        monkeypatch.setattr("mlops_assets.runs.stuck.QUEUED_SECONDS", -1.0)
        assert tick(instance, tmp_path)[1] == []
        monkeypatch.setattr(run_recovery, "_TELL_SECONDS", -1.0)
        [notification] = tick(instance, tmp_path)[1]
        assert waiting.run_id in notification
        # Told once.
        assert tick(instance, tmp_path)[1] == [notification]
