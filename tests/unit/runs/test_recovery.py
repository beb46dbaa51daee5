"""What becomes of a run, by its status, its worker and the time; and what is done about it, on a real instance."""

import time

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterEventType, DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from mlops_assets.runs import recovery
from mlops_assets.runs.launcher import LAUNCHED_TAG
from mlops_assets.runs.recovery import (
    END_SECONDS,
    LAUNCH_SECONDS,
    QUEUE_SECONDS,
    Action,
    decide_action,
    elapsed_seconds,
    recover_runs,
    worker_files,
)
from mlops_assets.runs.workers import WorkerState

ALIVE, DEAD, ABSENT = WorkerState.ALIVE, WorkerState.DEAD, WorkerState.ABSENT
HOURS = 36_000.0
NOT_STARTED, STARTING, STARTED = DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED
CANCELING, QUEUED, SUCCESS = DagsterRunStatus.CANCELING, DagsterRunStatus.QUEUED, DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("status", [STARTING, STARTED])
def test_a_living_worker_is_never_failed(status: DagsterRunStatus) -> None:
    assert decide_action(status, ALIVE, launched=True, served=True, seconds=HOURS) is Action.KEEP


@pytest.mark.parametrize(
    ("status", "worker", "seconds", "action"),
    [
        (STARTED, DEAD, 0.0, Action.FAIL),
        (STARTED, ABSENT, 0.0, Action.FAIL),
        (STARTING, DEAD, 0.0, Action.FAIL),
        (STARTING, ABSENT, LAUNCH_SECONDS - 1, Action.KEEP),
        (STARTING, ABSENT, LAUNCH_SECONDS + 1, Action.FAIL),
        (NOT_STARTED, ABSENT, QUEUE_SECONDS - 1, Action.KEEP),
        (NOT_STARTED, ABSENT, QUEUE_SECONDS + 1, Action.FAIL),
        (CANCELING, DEAD, 0.0, Action.CANCEL),
        (CANCELING, ABSENT, 0.0, Action.CANCEL),
        (CANCELING, ALIVE, END_SECONDS - 1, Action.KEEP),
        (CANCELING, ALIVE, END_SECONDS + 1, Action.KILL),
        (SUCCESS, ALIVE, END_SECONDS - 1, Action.KEEP),
        (SUCCESS, ALIVE, END_SECONDS + 1, Action.KILL),
        (SUCCESS, DEAD, HOURS, Action.KEEP),
        (QUEUED, ABSENT, HOURS, Action.KEEP),
    ],
)
def test_what_becomes_of_a_run(status: DagsterRunStatus, worker: WorkerState, seconds: float, action: Action) -> None:
    assert decide_action(status, worker, launched=True, served=True, seconds=seconds) is action


@pytest.mark.parametrize(
    ("status", "action"), [(NOT_STARTED, Action.FAIL), (STARTING, Action.FAIL), (STARTED, Action.FAIL), (QUEUED, Action.KEEP)]
)
def test_before_the_daemon_and_the_webserver_run_nobody_is_about_to_start_a_run(status: DagsterRunStatus, action: Action) -> None:
    assert decide_action(status, ABSENT, launched=True, served=False, seconds=0.0) is action


def test_a_living_worker_goes_on_while_the_daemon_is_away() -> None:
    assert decide_action(STARTING, ALIVE, launched=True, served=False, seconds=HOURS) is Action.KEEP
    assert decide_action(STARTED, ALIVE, launched=True, served=False, seconds=HOURS) is Action.KEEP


def test_a_run_that_somebody_else_executes_is_left_alone() -> None:
    assert decide_action(STARTED, ABSENT, launched=False, served=True, seconds=HOURS) is Action.KEEP


def test_a_run_whose_worker_was_killed_fails_frees_its_pool_and_is_to_be_tried_again(instance: DagsterInstance) -> None:
    workers = worker_files(instance)
    killed = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    living = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    instance.event_log_storage.set_concurrency_slots("training", 1)
    assert instance.event_log_storage.claim_concurrency_slot("training", killed.run_id, "fit").is_claimed
    with workers.reserve(killed.run_id), workers.open_log(killed.run_id) as log:
        log.write(b"fitting")
    with workers.reserve(living.run_id):
        assert [(each.run_id, each.action) for each in recover_runs(instance, served=True)] == [(killed.run_id, Action.FAIL)]
        assert recover_runs(instance, served=True) == []
        run = instance.get_run_by_id(killed.run_id)
        assert run is not None
        assert run.status is DagsterRunStatus.FAILURE
        assert run.tags["dagster/will_retry"] == "true"
        [failure] = instance.all_logs(killed.run_id, of_type=DagsterEventType.RUN_FAILURE)
        assert "killed" in failure.message
        assert "fitting" in failure.message
        assert instance.event_log_storage.get_concurrency_info("training").claimed_slots == []
        assert workers.run_ids() == [living.run_id]
        assert instance.get_run_by_id(living.run_id).status is STARTED  # type: ignore[union-attr]


def test_dagster_is_asked_again_for_a_run_that_it_gave_up_on_and_for_one_that_it_forgot(
    instance: DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    recover_runs(instance, served=True)
    told: list[str | None] = []
    store_event = instance.event_log_storage.store_event

    def store_and_look(event: dg.EventLogEntry) -> None:
        store_event(event)
        run = instance.get_run_by_id(lost.run_id)
        told.append(run.tags.get("dagster/will_retry") if run else None)

    monkeypatch.setattr(instance.event_log_storage, "store_event", store_and_look)
    # Its code could not be reached. Whoever hears of the next failure finds that the run is to be tried again.
    instance.add_run_tags(lost.run_id, {"dagster/will_retry": "false"})
    recover_runs(instance, served=True)
    assert told == ["true"]
    # Dagster may be about to try it again, and after a minute it is not.
    recover_runs(instance, served=True)
    assert len(told) == 1
    monkeypatch.setattr(recovery, "RETRY_SECONDS", 0.0)
    for _ in range(2 * recovery.MOST_QUESTIONS):
        recover_runs(instance, served=True)
    assert len(told) == recovery.MOST_QUESTIONS - 1
    instance.add_run_tags(lost.run_id, {"dagster/auto_retry_run_id": "the next"})
    assert recover_runs(instance, served=True) == []


def test_a_run_that_fails_in_a_step_is_not_tried_again(instance: DagsterInstance) -> None:
    @dg.asset
    def broken() -> None:
        raise dg.Failure("a check that blocks", allow_retries=False)

    result = dg.materialize([broken], instance=instance, raise_on_error=False)
    assert instance.get_run_by_id(result.run_id).tags["dagster/will_retry"] == "false"  # type: ignore[union-attr]


def test_a_canceled_run_without_a_worker_ends_canceled(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    instance.report_run_canceling(run)
    assert [each.action for each in recover_runs(instance, served=True)] == [Action.CANCEL]
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.CANCELED  # type: ignore[union-attr]


def test_a_run_that_died_between_its_status_and_its_worker_is_not_failed_too_early(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=NOT_STARTED)
    starting = DagsterEvent(event_type_value=DagsterEventType.PIPELINE_STARTING.value, job_name=run.job_name)
    instance.report_dagster_event(starting, run_id=run.run_id)
    assert recover_runs(instance, served=True) == []
    # As at `mlops up`, a second after the machine was switched off.
    assert [each.action for each in recover_runs(instance, served=False)] == [Action.FAIL]
    failed = instance.get_run_by_id(run.run_id)
    assert failed is not None
    assert failed.status is DagsterRunStatus.FAILURE
    assert failed.tags["dagster/will_retry"] == "true"


def test_what_was_written_before_the_clock_was_set_back_is_long_ago() -> None:
    """A run that had begun to start when that happened would hold its slot until the clock had caught up."""
    assert (
        decide_action(STARTING, ABSENT, launched=True, served=True, seconds=elapsed_seconds(time.time() + HOURS)) is Action.FAIL
    )
