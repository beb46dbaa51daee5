"""The launcher on a real instance: canceling, and what Dagster is told of workers."""

import os
import signal
import subprocess
import sys

from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from mlops_assets.runs.launcher import LAUNCHED_TAG
from mlops_assets.runs.recovery import worker_files

STARTED, CANCELING = DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING


def test_canceling_a_run_whose_worker_is_gone_ends_it_at_once(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    assert instance.run_launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.CANCELED  # type: ignore[union-attr]
    assert not instance.run_launcher.terminate(run.run_id)


def test_canceling_a_run_interrupts_its_worker(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    with worker_files(instance).reserve(run.run_id) as lock:
        code = "import time; print(flush=True); time.sleep(600)"
        worker = subprocess.Popen([sys.executable, "-c", code], pass_fds=[lock], stdout=subprocess.PIPE)
        os.pwrite(lock, str(worker.pid).encode(), 0)
    assert worker.stdout is not None
    worker.stdout.readline()
    assert instance.run_launcher.terminate(run.run_id)
    assert worker.wait(60) == -signal.SIGTERM
    assert instance.get_run_by_id(run.run_id).status is CANCELING  # type: ignore[union-attr]


def test_dagster_is_told_whether_the_worker_lives(instance: DagsterInstance) -> None:
    launcher, workers = instance.run_launcher, worker_files(instance)
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    foreign = create_run_for_test(instance, status=STARTED)
    assert launcher.supports_check_run_worker_health
    with workers.reserve(run.run_id):
        assert launcher.check_run_worker_health(run).status.value == "RUNNING"
    assert launcher.check_run_worker_health(run).status.value == "FAILED"
    assert launcher.check_run_worker_health(foreign).status.value == "RUNNING"


def test_what_a_worker_printed_last_is_shown(instance: DagsterInstance) -> None:
    run = create_run_for_test(instance, status=STARTED, tags={LAUNCHED_TAG: "log"})
    assert instance.run_launcher.get_run_worker_debug_info(run) is None
    with worker_files(instance).reserve(run.run_id), worker_files(instance).open_log(run.run_id) as log:
        log.write("übergelaufen".encode())
    assert instance.run_launcher.get_run_worker_debug_info(run) == "The last that it printed:\nübergelaufen"


def test_a_run_that_ended_is_not_canceled(instance: DagsterInstance) -> None:
    ended = create_run_for_test(instance, status=DagsterRunStatus.SUCCESS, tags={LAUNCHED_TAG: "log"})
    assert not instance.run_launcher.terminate(ended.run_id)
    assert not instance.run_launcher.terminate("no such run")
    assert instance.get_run_by_id(ended.run_id).status is DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
