"""A run from the queue to its worker, the worker's death, and the run that goes on: Dagster's own daemons, one step at a time."""

import os
import runpy
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.execution.api import create_execution_plan
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._daemon.auto_run_reexecution.event_log_consumer import EventLogConsumerDaemon
from dagster._daemon.monitoring import execute_run_monitoring_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from run_instances import run_instance
from waiting import is_gone, wait_for

from mlops_assets.runs.recovery import Action, recover_runs, worker_files
from mlops_assets.runs.workers import WorkerState

pytestmark = pytest.mark.long

# The second asset waits for its child until the file `go` is there, and so can be killed while it works.
CODE = """
import os, pathlib, subprocess, threading, time
import dagster as dg

folder = pathlib.Path(__file__).parent

@dg.asset
def first():
    with (folder / "first").open("a") as file:
        file.write("done ")

@dg.asset(deps=[first])
def second():
    if (folder / "lingers").exists():
        (folder / "worker").write_text(str(os.getpid()))
        threading.Thread(target=time.sleep, args=(600,)).start()
    if not (folder / "go").exists():
        child = subprocess.Popen(["sleep", "600"])
        (folder / "child").write_text(str(child.pid))
        child.wait()

@dg.success_hook
def hang(context):
    if context.op.name == "second" and (folder / "hang").exists():
        (folder / "hanging").touch()
        time.sleep(600)

defs = dg.Definitions([first, second], jobs=[dg.define_asset_job("both", hooks={hang})], executor=dg.in_process_executor)
"""


class Platform:
    """The daemons of an instance, which act when they are told to."""

    def __init__(self, instance: DagsterInstance, context: WorkspaceProcessContext, folder: Path):
        self.instance, self.context, self.folder = instance, context, folder
        self.queue, self.retries = QueuedRunCoordinatorDaemon(interval_seconds=2), EventLogConsumerDaemon()
        self.retry()

    def retry(self) -> None:
        """Let Dagster look for failed runs to try again; the first time it notes where the event log ends."""
        list(self.retries.run_iteration(self.context))

    def monitor(self) -> None:
        list(execute_run_monitoring_iteration(self.context, self.queue._logger))

    def submit(self) -> str:
        """Queue a run of both assets; returns its id."""
        [location] = self.context.create_request_context().code_locations
        [repository] = location.get_repositories().values()
        remote = repository.get_full_job("both")
        job = runpy.run_path(str(self.folder / "code.py"))["defs"].resolve_job_def("both")
        run = self.instance.create_run_for_job(
            job,
            execution_plan=create_execution_plan(job),
            remote_job_origin=remote.get_remote_origin(),
            job_code_origin=remote.get_python_origin(),
        )
        self.instance.submit_run(run.run_id, self.context.create_request_context())
        return run.run_id

    def start(self) -> None:
        """Launch what is queued."""
        list(self.queue.run_iteration(self.context))

    def run(self, run_id: str) -> DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def wait_for(self, run_id: str, status: DagsterRunStatus) -> None:
        wait_for(lambda: self.run(run_id).status is status)

    def working(self) -> str:
        """The id of a run whose second asset is being made."""
        run_id = self.submit()
        self.start()
        wait_for((self.folder / "child").exists)
        assert self.run(run_id).status is DagsterRunStatus.STARTED
        return run_id

    def kill(self, run_id: str) -> None:
        assert worker_files(self.instance).state(run_id) is WorkerState.ALIVE
        os.kill(int((worker_files(self.instance).directory / f"{run_id}.lock").read_text()), signal.SIGKILL)

    def goes_on(self, run_id: str, *, done: str = "done ") -> None:
        """Let a killed run go on, and see it done with the steps that were left; `done` is what the first asset has written by then."""
        (self.folder / "go").touch()
        assert self.run(run_id).tags["dagster/will_retry"] == "true"
        self.retry()
        [again] = self.instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
        assert again.parent_run_id == run_id
        self.start()
        self.wait_for(again.run_id, DagsterRunStatus.SUCCESS)
        assert (self.folder / "first").read_text() == done


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    (tmp_path / "code.py").write_text(CODE)
    target = PythonFileTarget(str(tmp_path / "code.py"), None, str(tmp_path), location_name="code")
    with run_instance(tmp_path) as instance, create_test_daemon_workspace_context(target, instance) as context:
        yield Platform(instance, context, tmp_path)


def test_a_killed_worker_takes_its_child_with_it_and_its_run_goes_on(platform: Platform) -> None:
    run_id = platform.working()
    assert recover_runs(platform.instance, served=True) == []
    child = int((platform.folder / "child").read_text())
    platform.kill(run_id)
    wait_for(lambda: is_gone(child))
    assert [(each.run_id, each.action) for each in recover_runs(platform.instance, served=True)] == [(run_id, Action.FAIL)]
    platform.goes_on(run_id)


def test_the_monitoring_of_dagster_notices_it_too_and_leaves_a_stopped_worker_alone(platform: Platform) -> None:
    run_id = platform.working()
    worker = psutil.Process(int((worker_files(platform.instance).directory / f"{run_id}.lock").read_text()))
    worker.suspend()
    platform.monitor()
    assert recover_runs(platform.instance, served=True) == []
    assert platform.run(run_id).status is DagsterRunStatus.STARTED
    platform.kill(run_id)
    wait_for(lambda: worker_files(platform.instance).state(run_id) is WorkerState.DEAD)
    platform.monitor()
    assert platform.run(run_id).status is DagsterRunStatus.FAILURE
    platform.goes_on(run_id)
    assert recover_runs(platform.instance, served=True) == []
    wait_for(lambda: worker_files(platform.instance).run_ids() == [])


def test_a_run_that_is_canceled_ends_with_its_child_and_is_not_tried_again(platform: Platform) -> None:
    run_id = platform.working()
    child = int((platform.folder / "child").read_text())
    assert platform.instance.run_coordinator.cancel_run(run_id)
    platform.wait_for(run_id, DagsterRunStatus.CANCELED)
    wait_for(lambda: is_gone(child))
    platform.retry()
    assert platform.instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED])) == []


def test_a_worker_ends_with_its_run_whatever_a_thread_of_it_waits_for(platform: Platform) -> None:
    for name in ("lingers", "go"):
        (platform.folder / name).touch()
    run_id = platform.submit()
    platform.start()
    platform.wait_for(run_id, DagsterRunStatus.SUCCESS)
    wait_for(lambda: is_gone(int((platform.folder / "worker").read_text())))
    assert worker_files(platform.instance).state(run_id) is WorkerState.ABSENT


def test_a_worker_that_dies_while_it_starts_is_noticed(platform: Platform) -> None:
    run_id = platform.submit()
    platform.start()
    assert platform.run(run_id).status is DagsterRunStatus.STARTING
    platform.kill(run_id)
    wait_for(lambda: worker_files(platform.instance).state(run_id) is WorkerState.DEAD)
    assert [each.action for each in recover_runs(platform.instance, served=True)] == [Action.FAIL]
    platform.goes_on(run_id)


def test_a_worker_that_dies_after_its_last_step_has_all_done_again(platform: Platform) -> None:
    for name in ("go", "hang"):
        (platform.folder / name).touch()
    run_id = platform.submit()
    platform.start()
    wait_for((platform.folder / "hanging").exists)
    platform.kill(run_id)
    wait_for(lambda: worker_files(platform.instance).state(run_id) is WorkerState.DEAD)
    (platform.folder / "hang").unlink()
    recover_runs(platform.instance, served=True)
    platform.goes_on(run_id, done="done done ")


def test_a_run_that_could_not_be_tried_again_while_its_code_was_away_is_asked_for_again(platform: Platform) -> None:
    run_id = platform.working()
    platform.kill(run_id)
    wait_for(lambda: worker_files(platform.instance).state(run_id) is WorkerState.DEAD)
    recover_runs(platform.instance, served=True)
    # What Dagster leaves when the code location does not answer at this moment.
    platform.instance.add_run_tags(run_id, {"dagster/will_retry": "false"})
    platform.retry()
    assert platform.instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.QUEUED])) == []
    recover_runs(platform.instance, served=True)
    platform.goes_on(run_id)
    recover_runs(platform.instance, served=True)
    assert len(platform.instance.get_runs(RunsFilter())) == 2
