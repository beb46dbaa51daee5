"""Whether a worker lives, with real processes that hold the lock and are killed or stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import wait_for

from mlops_assets.runs.workers import Workers, WorkerState

RUN = "11111111-aaaa-4bbb-8ccc-222222222222"


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path / "run_workers")


def start(workers: Workers, code: str) -> subprocess.Popen[str]:
    """A process that inherits the lock, as the launcher starts it, and prints a line when it is ready."""
    with workers.reserve(RUN) as lock:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(lock)], pass_fds=[lock], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        os.pwrite(lock, str(process.pid).encode(), 0)
    assert process.stdout is not None
    process.first_line = process.stdout.readline()  # type: ignore[attr-defined]
    return process


SLEEP = "import time; print('ready', flush=True); time.sleep(600)"
WITH_CHILD = """
import os, subprocess, sys, time
from mlops_assets.runs.worker import _guard
os.set_inheritable(int(sys.argv[1]), False)
_guard(int(sys.argv[1]))
child = subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_run_that_never_had_a_worker_has_none(workers: Workers) -> None:
    assert workers.state(RUN) is WorkerState.ABSENT
    assert workers.run_ids() == []
    assert not workers.send(RUN, signal.SIGTERM)


def test_a_worker_lives_until_it_is_killed(workers: Workers) -> None:
    process = start(workers, SLEEP)
    assert workers.state(RUN) is WorkerState.ALIVE
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: workers.state(RUN) is WorkerState.DEAD)
    process.wait()
    assert workers.run_ids() == [RUN]


def test_a_stopped_worker_lives(workers: Workers) -> None:
    process = start(workers, SLEEP)
    os.kill(process.pid, signal.SIGSTOP)
    wait_for(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    assert workers.state(RUN) is WorkerState.ALIVE
    process.kill()
    process.wait()


def test_another_process_with_the_number_of_a_dead_worker_is_not_that_worker(workers: Workers) -> None:
    """After a reboot a file names a process number that somebody else has: here the number is this test's own."""
    with workers.reserve(RUN) as lock:
        os.pwrite(lock, str(os.getpid()).encode(), 0)
    assert workers.state(RUN) is WorkerState.DEAD
    assert not workers.send(RUN, signal.SIGKILL)


def test_a_run_has_one_worker(workers: Workers) -> None:
    process = start(workers, SLEEP)
    with pytest.raises(BlockingIOError, match="has a worker already"), workers.reserve(RUN):
        pass
    process.kill()
    process.wait()
    with workers.reserve(RUN):
        assert workers.state(RUN) is WorkerState.ALIVE
    assert workers.state(RUN) is WorkerState.DEAD


def test_the_children_of_a_killed_worker_die_even_if_they_ignore_signals(workers: Workers) -> None:
    process = start(workers, WITH_CHILD)
    child = psutil.Process(int(process.first_line))  # type: ignore[attr-defined]
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    process.wait()
    assert workers.state(RUN) is WorkerState.DEAD, "neither guard nor child may hold the lock"


def test_a_worker_that_does_not_end_is_killed_with_its_children(workers: Workers) -> None:
    process = start(workers, WITH_CHILD)
    child = psutil.Process(int(process.first_line))  # type: ignore[attr-defined]
    assert workers.send(RUN, signal.SIGKILL)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    process.wait()


def test_the_last_words_are_the_end_of_the_log_and_go_with_the_files(workers: Workers) -> None:
    assert workers.last_words(RUN) == ""
    with workers.reserve(RUN):
        pass
    with workers.open_log(RUN) as log:
        log.write(b"x" * 100_000 + b"\nModuleNotFoundError: no module\n")
    assert workers.log(RUN).stat().st_mode & 0o777 == 0o600
    assert workers.last_words(RUN).endswith("ModuleNotFoundError: no module")
    assert len(workers.last_words(RUN)) < 5000
    workers.remove(RUN)
    assert list(workers.directory.iterdir()) == []
