"""Ending the workers of runs, as `mlops down` does: real processes."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlops_assets.core.settings import Settings
from mlops_assets.local import interrupted_runs
from mlops_assets.runs.workers import Workers, WorkerState

ENDS = "import time; print(flush=True); time.sleep(600)"
STAYS = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(600)"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen]]:
    started: list[subprocess.Popen] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(workers: Workers, run_id: str, code: str) -> subprocess.Popen:
    """A worker of the run, once it is ready for signals."""
    with workers.reserve(run_id) as lock:
        process = subprocess.Popen([sys.executable, "-c", code], pass_fds=[lock], stdout=subprocess.PIPE, start_new_session=True)
        os.pwrite(lock, str(process.pid).encode(), 0)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_every_worker_is_asked_and_one_that_does_not_end_is_not_waited_for(
    settings: Settings, processes: list[subprocess.Popen]
) -> None:
    workers = Workers(settings.run_worker_directory)
    processes += [start(workers, "a", ENDS), start(workers, "b", ENDS), start(workers, "c", STAYS)]
    began = time.monotonic()
    interrupted_runs.end_runs(settings, 1.5)
    assert time.monotonic() - began < 60
    assert [process.poll() is None for process in processes] == [False, False, True]
    assert workers.state("c") is WorkerState.ALIVE


def test_workers_that_end_are_not_waited_for_longer(settings: Settings, processes: list[subprocess.Popen]) -> None:
    processes.append(start(Workers(settings.run_worker_directory), "a", ENDS))
    began = time.monotonic()
    interrupted_runs.end_runs(settings, 600)
    assert time.monotonic() - began < 300


def test_without_workers_there_is_nothing_to_wait_for(settings: Settings) -> None:
    interrupted_runs.end_runs(settings, 600)
    assert not settings.run_worker_directory.exists()
