"""The fork server and the launcher as processes: what a forked worker shares, and that it ends, is canceled and is renewed like any other."""

import os
import runpy
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.execution.api import create_execution_plan
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT, JobPythonOrigin, RepositoryPythonOrigin
from run_instances import run_instance
from waiting import is_gone, wait_for

from mlops_assets.core.project import PROJECT_VARIABLE
from mlops_assets.core.settings import Settings
from mlops_assets.runs.fork_server import ForkRequest, ForkServerUnavailableError, fork_worker
from mlops_assets.runs.recovery import worker_files
from mlops_assets.runs.workers import WorkerState

pytestmark = pytest.mark.long

CODE = """
import os, pathlib, random, subprocess
import dagster as dg
import numpy
import psutil
from mlops_assets.runs.dbt_processes import start_dbt

folder = pathlib.Path(__file__).parents[1]
version = 1

@dg.definitions
def defs():
    with (folder / "loads").open("a") as file:
        file.write("loaded ")

    @dg.asset
    def first():
        dbt = start_dbt(["--help"], directory=folder, environment=os.environ)
        with dbt.stdout:
            assert b"Usage: dbt" in dbt.stdout.read()
        assert dbt.wait() == 0
        with_dbt = any("mlops_assets.runs.dbt_processes" in child.cmdline() for child in psutil.Process().children())
        facts = [os.getppid(), version, random.random(), numpy.random.random(), with_dbt]
        with (folder / "facts").open("a") as file:
            print(*facts, file=file)
        print("what a step prints")
        if (folder / "stay").exists():
            child = subprocess.Popen(["sleep", "600"])
            (folder / "child").write_text(str(child.pid))
            child.wait()

    return dg.Definitions([first], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
"""


class Company:
    """A project with one asset, its instance, and the fork server of both."""

    def __init__(self, root: Path, instance: DagsterInstance, server: subprocess.Popen, socket_path: Path):
        self.root, self.instance, self.server, self.socket_path = root, instance, server, socket_path
        self.workers = worker_files(instance)

    def launch(self) -> str:
        code = self.root / "company" / "definitions.py"
        job = runpy.run_path(str(code))["defs"]().resolve_job_def("job")
        pointer = ModuleCodePointer("company.definitions", "defs", str(self.root))
        origin = JobPythonOrigin("job", RepositoryPythonOrigin(sys.executable, pointer, entry_point=DEFAULT_DAGSTER_ENTRY_POINT))
        run = self.instance.create_run_for_job(job, execution_plan=create_execution_plan(job), job_code_origin=origin)
        self.instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
        return run.run_id

    def wait_for(self, run_id: str, status: DagsterRunStatus) -> None:
        wait_for(lambda: self.instance.get_run_by_id(run_id).status is status)  # type: ignore[union-attr]

    def facts(self) -> list[list[str]]:
        return [line.split() for line in (self.root / "facts").read_text().splitlines()]

    def staying(self) -> tuple[str, int]:
        """A run whose step waits for its child, and the child."""
        (self.root / "child").unlink(missing_ok=True)
        (self.root / "stay").touch()
        run_id = self.launch()
        wait_for((self.root / "child").exists)
        (self.root / "stay").unlink()
        wait_for(lambda: (self.root / "child").read_text() != "")
        return run_id, int((self.root / "child").read_text())


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Company]:
    root, home = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("home")
    (root / "pyproject.toml").write_text('[project]\nname = "company"\n[tool.mlops]\n')
    (root / "company" / "defs").mkdir(parents=True)
    (root / "company" / "definitions.py").write_text(CODE)
    path = Settings(home=home).fork_server_socket
    path.parent.mkdir(parents=True)
    with run_instance(home) as instance:
        environment = os.environ | {PROJECT_VARIABLE: str(root)}
        with (home / "log").open("wb") as log:
            server = subprocess.Popen(
                [sys.executable, "-m", "mlops_assets.runs.fork_server", str(path)], env=environment, cwd=root, stderr=log
            )
        wait_for(lambda: "Loaded the libraries" in (home / "log").read_text())
        yield Company(root, instance, server, path)
        server.kill()
        server.wait()


def test_workers_share_what_was_loaded_and_nothing_else(company: Company) -> None:
    loads = (company.root / "loads").read_text()
    runs = [company.launch() for _ in range(2)]
    for run_id in runs:
        company.wait_for(run_id, DagsterRunStatus.SUCCESS)
        wait_for(lambda run_id=run_id: company.workers.state(run_id) is WorkerState.ABSENT)
    first, second = company.facts()[-2:]
    assert first[0] == second[0] == str(company.server.pid)
    assert first[2] != second[2]
    assert first[3] != second[3]
    # dbt was loaded too.
    assert first[4] == second[4] == "False"
    # Each launch above has loaded them once, to make its run.
    assert (company.root / "loads").read_text() == loads + "loaded " * len(runs)


def test_a_killed_worker_takes_its_child_with_it(company: Company) -> None:
    run_id, child = company.staying()
    assert company.workers.state(run_id) is WorkerState.ALIVE
    # Another process copies it there, once a second.
    wait_for(lambda: "what a step prints" in company.workers.last_words(run_id))
    os.kill(int((company.workers.directory / f"{run_id}.lock").read_text()), signal.SIGKILL)
    wait_for(lambda: is_gone(child))
    wait_for(lambda: company.workers.state(run_id) is WorkerState.DEAD)
    assert company.server.poll() is None


def test_a_long_run_and_its_child_are_nicer_than_what_others_wait_for(company: Company) -> None:
    run_id, child = company.staying()
    worker = int((company.workers.directory / f"{run_id}.lock").read_text())
    wait_for(lambda: {os.getpriority(os.PRIO_PROCESS, each) for each in (worker, child)} == {os.nice(0) + 5})
    assert company.instance.run_launcher.terminate(run_id)
    company.wait_for(run_id, DagsterRunStatus.CANCELED)


def test_a_canceled_run_ends_with_its_child(company: Company) -> None:
    run_id, child = company.staying()
    assert company.instance.run_launcher.terminate(run_id)
    company.wait_for(run_id, DagsterRunStatus.CANCELED)
    wait_for(lambda: is_gone(child))


def test_a_request_that_breaks_off_starts_nothing_and_harms_nobody(company: Company) -> None:
    for content in (b"", b"\n", b"\n/folder", b"no descriptors\n/folder\n{}"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.connect(str(company.socket_path))
            connection.sendall(content)
    company.wait_for(company.launch(), DagsterRunStatus.SUCCESS)
    assert company.facts()[-1][0] == str(company.server.pid)


def test_changed_code_is_loaded_again(company: Company) -> None:
    code = company.root / "company" / "definitions.py"
    code.write_text(code.read_text().replace("version = 1", "version = 22"))
    company.wait_for(company.launch(), DagsterRunStatus.SUCCESS)
    assert company.facts()[-1][:2] == [str(os.getpid()), "22"]
    # As soon as it has the definitions, and has loaded few libraries.
    wait_for(company.socket_path.exists)
    company.wait_for(company.launch(), DagsterRunStatus.SUCCESS)
    assert company.facts()[-1][:2] == [str(company.server.pid), "22"]
    code.write_text(code.read_text().replace("version = 22", "version = 333"))
    company.wait_for(company.launch(), DagsterRunStatus.SUCCESS)
    assert company.facts()[-1][:2] == [str(os.getpid()), "333"]


def request(tmp_path: Path) -> ForkRequest:
    return ForkRequest(lock=0, output=1, directory=tmp_path, arguments="{}")


def test_without_a_server_there_is_certainly_no_worker(tmp_path: Path) -> None:
    with pytest.raises(ForkServerUnavailableError):
        fork_worker(tmp_path / "none.sock", request(tmp_path))


def test_a_server_that_dies_before_it_answers_may_have_started_a_worker(tmp_path: Path) -> None:
    path = tmp_path / "fork.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        if os.fork() == 0:
            connection, _ = listener.accept()
            while connection.recv(1000):
                pass
            os._exit(0)
        with pytest.raises(OSError, match="did not say"):
            fork_worker(path, request(tmp_path))
    os.wait()
