"""Recovery of runs whose worker is gone or does not end: the decision, and its execution.

Dagster's run monitoring asks for the worker of runs that have started, every few seconds. It cannot ask while a run starts or is being
canceled, and not before the daemon runs: `recover` covers all of it, from a sensor and from `mlops up`. Whoever is first wins.
"""

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunRecord, RunsFilter
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.retries import auto_reexecution_should_retry_run
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, RUN_FAILURE_REASON_TAG, WILL_RETRY_TAG

from mlops_assets.runs.launcher import WorkerLauncher, is_launched
from mlops_assets.runs.workers import Workers, WorkerState

UNWATCHED = (DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
"""The statuses in which a run needs somebody who works on it."""

LAUNCH_SECONDS = 15.0
"""Between the status "starting" and the lock of the worker the daemon does some writes to Postgres; after so long it has died there."""

QUEUE_SECONDS = 120.0
"""Whoever creates a run queues it at once; after so long they have died in between."""

END_SECONDS = 60.0
"""How long a worker may take to end once its run is canceled or has ended. Then it is killed."""


GIVEN_UP_SECONDS = 600.0
MOST_QUESTIONS = 5
"""How old a failure may be that Dagster is asked about again, and how many failures of one run there may be."""

RETRY_SECONDS = 60.0
"""How long Dagster may take to try a run again that it said it would."""


class Action(Enum):
    """The fate of a run: nothing, it fails (and is tried again), it is canceled, or its worker is killed."""

    KEEP = "keep"
    FAIL = "fail"
    CANCEL = "cancel"
    KILL = "kill"


_EXPLANATIONS = {
    DagsterRunStatus.NOT_STARTED: "This run was created and never queued: who did so has ended in between.",
    DagsterRunStatus.STARTING: "The process of this run ended while it started: it was killed, or the machine was switched off.",
    DagsterRunStatus.STARTED: "The process that executed this run is gone: it was killed, or the machine was switched off.",
}


@dataclass(frozen=True)
class RecoveredRun:
    """The action that was taken about a run, and its name."""

    run_id: str
    name: str
    action: Action


def decide_action(status: DagsterRunStatus, worker: WorkerState, *, launched: bool, served: bool, seconds: float) -> Action:
    """Decide the action for a run that has had its status for so many seconds; `launched` by us, or executed by somebody else.

    Only while daemon or webserver run (`served`) may somebody be about to queue the run, or to start its worker.

    A worker that lives is never failed, however long it takes: it may be stopped, or wait for a processor.
    """
    alive = worker is WorkerState.ALIVE
    match status:
        case DagsterRunStatus.NOT_STARTED:
            return Action.FAIL if not served or seconds > QUEUE_SECONDS else Action.KEEP
        case DagsterRunStatus.STARTING:
            is_expected = worker is WorkerState.ABSENT and served and seconds <= LAUNCH_SECONDS
            return Action.KEEP if alive or is_expected else Action.FAIL
        case DagsterRunStatus.STARTED:
            return Action.FAIL if launched and not alive else Action.KEEP
        case DagsterRunStatus.CANCELING:
            if not alive:
                return Action.CANCEL
            return Action.KILL if seconds > END_SECONDS else Action.KEEP
        case _:
            # A run that has ended: its worker has nothing to do any more.
            return Action.KILL if alive and seconds > END_SECONDS else Action.KEEP


def has_workers(instance: DagsterInstance) -> bool:
    """Whether the platform's own launcher starts the runs. Another, such as that of Kubernetes, watches them by Dagster's run monitoring."""
    return isinstance(instance.run_launcher, WorkerLauncher)


def worker_files(instance: DagsterInstance) -> Workers:
    """The workers of the instance, which is one of the local stack."""
    return _launcher(instance).workers


def _launcher(instance: DagsterInstance) -> WorkerLauncher:
    launcher = instance.run_launcher
    assert isinstance(launcher, WorkerLauncher), f"{launcher} starts no workers of ours: see run_launcher in dagster.yaml."
    return launcher


def recover_runs(instance: DagsterInstance, *, served: bool) -> list[RecoveredRun]:
    """Fail or cancel every run that nobody works on, free what it held of pools, and kill workers that do not end.

    A failed run is tried again by Dagster's run retries, from the steps that had not succeeded. Before daemon and webserver run
    (not `served`) no run without a worker is left.
    """
    if not has_workers(instance):
        _ask_again(instance)
        return []
    workers, recovered = worker_files(instance), []
    for record, action in _pending(instance, workers, served):
        run = record.dagster_run
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.status is not run.status:
            continue  # it went on meanwhile
        if action is Action.KILL:
            workers.send(run.run_id, signal.SIGKILL)
        else:
            _end(instance, workers, record, action)
        recovered.append(RecoveredRun(run.run_id, run_name(record), action))
    _remove_files(instance, workers)
    _ask_again(instance)
    return recovered


def run_name(record: RunRecord) -> str:
    """Return the name of a run for people: its assets, its checks, or its job."""
    run = record.dagster_run
    keys = [key.to_user_string() for key in run.asset_selection or ()]
    keys = keys or [f"{key.asset_key.to_user_string()}:{key.name}" for key in run.asset_check_selection or ()]
    first_keys = sorted(keys)[:3]
    return ", ".join(first_keys) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "") or run.job_name


def elapsed_seconds(since: float) -> float:
    """Return the seconds between a moment and now. One that is to come was written before the clock was set back, and is long ago."""
    return abs(time.time() - since)


def run_action(record: RunRecord, workers: Workers, *, served: bool) -> Action:
    """Decide the action for the run now."""
    run = record.dagster_run
    since = record.end_time if run.is_finished and record.end_time else record.update_timestamp.timestamp()
    return decide_action(
        run.status, workers.state(run.run_id), launched=is_launched(run), served=served, seconds=elapsed_seconds(since)
    )


def _pending(instance: DagsterInstance, workers: Workers, served: bool) -> Iterator[tuple[RunRecord, Action]]:
    records = list(instance.get_run_records(RunsFilter(statuses=list(UNWATCHED))))
    recorded = {record.dagster_run.run_id for record in records}
    living = [run_id for run_id in workers.run_ids() if run_id not in recorded and workers.state(run_id) is WorkerState.ALIVE]
    if living:
        records += instance.get_run_records(RunsFilter(run_ids=living))
    for record in records:
        action = run_action(record, workers, served=served)
        if action is not Action.KEEP:
            yield record, action


def _end(instance: DagsterInstance, workers: Workers, record: RunRecord, action: Action) -> None:
    run = record.dagster_run
    words = workers.last_words(run.run_id)
    printed = f"\nThe last that it printed:\n{words}" if words else ""
    if action is Action.CANCEL:
        instance.report_run_canceled(run, f"The run had no worker any more.{printed}")
    else:
        has_started = run.status is DagsterRunStatus.STARTED
        reason = RunFailureReason.UNEXPECTED_TERMINATION if has_started else RunFailureReason.START_TIMEOUT
        _launcher(instance).prepare_retry(run)
        instance.report_run_failed(
            run, f"{_EXPLANATIONS[run.status]}{printed}", JobFailureData(error=None, failure_reason=reason)
        )
    # Dagster's monitoring frees them too, some seconds later.
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _ask_again(instance: DagsterInstance) -> None:
    """Have Dagster try the runs again that it gave up on with retries left: when their code could not be reached at that moment.

    It asks once, when a run fails, and the code location may be starting then. Asked five times in vain, the run stays failed.
    """
    recent = datetime.now(UTC) - timedelta(seconds=GIVEN_UP_SECONDS)
    for record in instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.FAILURE], updated_after=recent)):
        run = record.dagster_run
        reason = RunFailureReason(run.tags.get(RUN_FAILURE_REASON_TAG, RunFailureReason.UNKNOWN.value))
        if AUTO_RETRY_RUN_ID_TAG in run.tags or not _is_given_up(record):
            continue
        if not auto_reexecution_should_retry_run(instance, run, reason):
            continue  # a step failed, or it was tried again as often as it may be
        if len(instance.all_logs(run.run_id, of_type=DagsterEventType.RUN_FAILURE)) < MOST_QUESTIONS:
            # Dagster stores the failure first and the tag after it: its daemon, which hears of the one, must not read the former other.
            instance.add_run_tags(run.run_id, {WILL_RETRY_TAG: "true"})
            data = JobFailureData(error=None, failure_reason=reason)
            instance.report_run_failed(run, "Its code could not be reached when it was to be tried again.", data)


def _is_given_up(record: RunRecord) -> bool:
    """Whether Dagster will not try the failed run again: it said so, or said the contrary and did nothing for a minute."""
    seconds = elapsed_seconds(record.end_time or record.update_timestamp.timestamp())
    will_retry = record.dagster_run.tags.get(WILL_RETRY_TAG)
    return will_retry == "false" or (will_retry == "true" and seconds > RETRY_SECONDS)


def _remove_files(instance: DagsterInstance, workers: Workers) -> None:
    """Remove the files of workers that are gone and whose run has ended: what they printed is in the event log by then."""
    dead = [run_id for run_id in workers.run_ids() if workers.state(run_id) is WorkerState.DEAD]
    if not dead:
        return
    unfinished = {run.run_id for run in instance.get_runs(RunsFilter(run_ids=dead)) if not run.is_finished}
    for run_id in dead:
        if run_id not in unfinished:
            workers.remove(run_id)
