"""The run launcher of the local stack: one process per run, watched through the kernel alone."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dagster import DagsterRun, Field
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, RunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG, RETRY_STRATEGY_TAG
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import ConfigurableClass, ConfigurableClassData, serialize_value

from mlops_assets.runs.fork_server import ForkRequest, ForkServerUnavailableError, fork_worker
from mlops_assets.runs.slots import SLOTS_TAG, WORK, slots
from mlops_assets.runs.workers import Workers, WorkerState

LAUNCHED_TAG = "mlops/worker_log"
"""On every run that this launcher started: where its worker prints."""


def is_launched(run: DagsterRun) -> bool:
    """Whether a launcher started the run, Dagster's own of an earlier version included. Somebody else executes any other."""
    return LAUNCHED_TAG in run.tags or GRPC_INFO_TAG in run.tags


def _start_worker(request: ForkRequest) -> int:
    """Start a worker as a new process. Returns its number."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "mlops_assets.runs.worker", str(request.lock), str(request.directory), request.arguments],
        stdin=subprocess.DEVNULL,
        stdout=request.output,
        stderr=request.output,
        pass_fds=[request.lock],
        start_new_session=True,
    )
    # Collects the process when it ends: nobody else does.
    threading.Thread(target=worker.wait, name=f"run worker {worker.pid}", daemon=True).start()
    return worker.pid


def _make_nicer(worker: int, niceness: int) -> None:
    """Make the worker, and what it has started by now, nicer than it is; what it starts later inherits it."""
    # It may have ended, or not yet have a group of its own.
    with contextlib.suppress(ProcessLookupError):
        niceness += os.getpriority(os.PRIO_PROCESS, worker)
        for kind in (os.PRIO_PROCESS, os.PRIO_PGRP):
            os.setpriority(kind, worker, niceness)


class WorkerLauncher(RunLauncher, ConfigurableClass):
    """Starts the worker of a run as a process of its own, which outlives the daemon, the webserver and the code location.

    Dagster's default launcher asks the code location's server to start it: a start then fails when that server is busy for a minute,
    every run ends with that server, and nobody can tell whether a worker lives. The worker is forked by the fork server where that runs,
    otherwise it is a new process.
    """

    def __init__(self, directory: str, fork_server: str, inst_data: ConfigurableClassData | None = None):
        self.workers = Workers(Path(directory))
        self._fork_server = Path(fork_server)
        self._inst_data = inst_data
        super().__init__()  # type: ignore[no-untyped-call]

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """The configuration from which Dagster loads this class."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        """`directory`: the folder of the workers' files; `fork_server`: the socket of the server that forks them."""
        return {
            "directory": Field(str, description="Folder of the locks and logs of run workers."),
            "fork_server": Field(str, description="Socket of the server that forks run workers."),
        }

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> "WorkerLauncher":
        """The launcher that dagster.yaml configures."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start the worker and return at once. Raises OSError when the system cannot, or BlockingIOError when the run has one."""
        run = context.dagster_run
        assert run.job_code_origin is not None, f"The run {run.run_id} does not say where its code is."
        # Without a reference to the instance: it would show the address of the database to everybody who lists processes.
        arguments = ExecuteRunArgs(job_origin=run.job_code_origin, run_id=run.run_id, instance_ref=None)
        self._instance.add_run_tags(run.run_id, {LAUNCHED_TAG: str(self.workers.log(run.run_id))})
        with self.workers.reserve(run.run_id) as lock, self.workers.open_log(run.run_id) as output:
            request = ForkRequest(
                lock=lock, output=output.fileno(), directory=self.workers.directory, arguments=serialize_value(arguments)
            )
            try:
                process = fork_worker(self._fork_server, request)
            except ForkServerUnavailableError:
                process = _start_worker(request)
            os.pwrite(lock, str(process).encode(), 0)
        if niceness := slots()[run.tags.get(SLOTS_TAG, WORK)].niceness:
            _make_nicer(process, niceness)

    def terminate(self, run_id: str) -> bool:
        """Ask the worker to end the run. Returns False when the run had ended; a run without a worker is canceled here."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        if not self.workers.send(run_id, signal.SIGTERM):
            self._instance.report_run_canceled(run, "The run had no worker any more.")
        return True

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Dagster's run monitoring asks for the worker of every run that has started."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the worker of the run lives."""
        if not is_launched(run) or self.workers.state(run.run_id) is WorkerState.ALIVE:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        self.prepare_retry(run)
        return CheckRunHealthResult(WorkerStatus.FAILED, "its process is gone")

    def prepare_retry(self, run: DagsterRun) -> None:
        """Have all of a run done again that died after its last step: it would have nothing left to go on with."""
        if run.execution_plan_snapshot_id is None:
            return
        planned = self._instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute
        if self._instance.get_run_stats(run.run_id).steps_succeeded >= len(planned):
            self._instance.add_run_tags(run.run_id, {RETRY_STRATEGY_TAG: ReexecutionStrategy.ALL_STEPS.value})

    def get_run_worker_debug_info(self, run: DagsterRun, include_container_logs: bool | None = True) -> str | None:
        """The last lines that the worker printed."""
        words = self.workers.last_words(run.run_id)
        return f"The last that it printed:\n{words}" if words else None
