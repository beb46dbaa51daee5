"""The local stack with its real servers: start, restart after kills, clear messages, and nothing left behind."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import psutil
import psycopg2
import pytest
from running_stack import Platform
from waiting import wait_for

from mlops_assets.core.settings import DATABASES, Settings
from mlops_assets.local import control, leftovers, postgres
from mlops_assets.local.environment import process_environment, scripts_directory
from mlops_assets.local.supervisor import MARKER_VARIABLE, Supervisor

pytestmark = pytest.mark.long

ALL_SERVICES = {
    "postgres",
    "nats",
    "mlflow",
    "online",
    "stream",
    "shipper",
    "code-location",
    "fork-server",
    "dagster-webserver",
    "dagster-daemon",
}


def mlops(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(scripts_directory() / "mlops"), *arguments]
    # Wide, so that Rich does not wrap the messages that the tests read.
    environment = process_environment(settings) | {"COLUMNS": "400"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)


def states(settings: Settings) -> dict[str, tuple[str, int]]:
    return {entry["name"]: (entry["state"], entry["pid"]) for entry in control.status(settings)}


def temporary_settings(**changes: object) -> Settings:
    # Not pytest's own folder: its path is longer than a Unix socket may have.
    home = Path(tempfile.mkdtemp(prefix="stack.", dir="/tmp"))
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    dagster_port, mlflow_port, nats_port, serving_port = (listener.getsockname()[1] for listener in sockets)
    for listener in sockets:
        listener.close()
    return Settings(
        home=home,
        dagster_port=dagster_port,
        mlflow_port=mlflow_port,
        nats_port=nats_port,
        serving_port=serving_port,
        **changes,
    )


@pytest.fixture
def stack(platform: Platform) -> Settings:
    control.ensure_up(platform.settings)
    return platform.settings


def test_status_reports_every_server_as_running(stack: Settings) -> None:
    answer = mlops(stack, "status", "--json")
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    processes = {entry["name"]: entry for entry in report["processes"]}
    assert set(processes) == ALL_SERVICES
    assert {entry["state"] for entry in processes.values()} == {"running"}
    assert processes["mlflow"]["url"] == stack.mlflow_url
    assert processes["dagster-webserver"]["port"] == stack.dagster_port
    assert isinstance(report["solutions"], dict)


def test_commands_ask_a_platform_that_somebody_else_runs(stack: Settings) -> None:
    elsewhere = replace(
        stack, dagster_server=stack.dagster_url, serving_server=stack.serving_url, mlflow_server=stack.mlflow_url, dagster_port=1
    )
    answer = mlops(elsewhere, "status", "--json")
    assert answer.returncode == 0, answer.stderr
    processes = {entry["name"]: entry for entry in json.loads(answer.stdout)["processes"]}
    assert {entry["state"] for entry in processes.values()} == {"running"}
    assert processes["online"]["url"] == stack.serving_url
    assert mlops(elsewhere, "sql", "--csv", "SELECT 42 AS answer").stdout.split() == ["answer", "42"]
    before = states(stack)
    refused = mlops(elsewhere, "down")
    assert (refused.returncode, states(stack)) == (1, before)
    assert "Start and stop them where they run" in refused.stderr


def test_sql_reads_the_lake(stack: Settings) -> None:
    answer = mlops(stack, "sql", "--json", "SELECT 42 AS answer, current_database() AS lake")
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [{"answer": 42, "lake": "lake"}]
    assert mlops(stack, "sql", "--csv", "SELECT 'a,b' AS text").stdout.splitlines() == ["text", '"a,b"']


def test_sql_cannot_write_and_a_wrong_query_is_a_message(stack: Settings) -> None:
    written = mlops(stack, "sql", "CREATE TABLE lake.main.t (a INTEGER)")
    assert written.returncode == 1
    assert "read-only" in written.stderr
    wrong = mlops(stack, "sql", "SELEC 1")
    assert wrong.returncode == 1
    assert "syntax error" in wrong.stderr
    assert "Traceback" not in wrong.stderr


def test_everything_listens_on_loopback_only(stack: Settings) -> None:
    pids = {process.pid for process in leftovers.find_processes(stack)}
    listening = [c.laddr for c in psutil.net_connections("inet") if c.pid in pids and c.status == psutil.CONN_LISTEN]
    ports = {stack.dagster_port, stack.mlflow_port, stack.nats_port, stack.serving_port}
    assert {address.port for address in listening} == ports
    assert {address.ip for address in listening} == {"127.0.0.1"}


def test_a_second_up_changes_nothing(stack: Settings) -> None:
    before = states(stack)
    answer = mlops(stack, "up")
    assert answer.returncode == 0, answer.stderr
    assert "nothing changed" in answer.stdout
    assert states(stack) == before


@pytest.mark.parametrize("name", sorted(ALL_SERVICES))
def test_a_killed_server_comes_back(stack: Settings, name: str) -> None:
    before = states(stack)[name][1]
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: (now := states(stack)[name])[0] == "running" and now[1] != before)


def test_a_killed_supervisor_leaves_servers_that_up_replaces(stack: Settings) -> None:
    orphans = {process.pid for process in leftovers.find_processes(stack)}
    os.kill(Supervisor(stack).pid(), signal.SIGKILL)
    wait_for(lambda: not Supervisor(stack).is_running())
    assert leftovers.find_processes(stack), "the servers should outlive their supervisor: that is what this test is about"
    assert control.up(stack, lambda name, event: None)
    assert not orphans & {process.pid for process in leftovers.find_processes(stack)}
    assert {state for state, _ in states(stack).values()} == {"running"}


def test_a_prediction_needs_no_other_server_than_its_own(stack: Settings) -> None:
    Supervisor(stack).stop("shipper")
    answer = mlops(stack, "predict", "unknown_solution", "--json", "{}")
    assert "unknown_solution" in answer.stderr, "the online server has answered"
    assert states(stack)["shipper"][0] != "running", "what is out of order may stay so"


def test_other_settings_while_running_are_refused(stack: Settings) -> None:
    other = replace(stack, dagster_port=stack.mlflow_port, mlflow_port=stack.dagster_port)
    answer = mlops(other, "up")
    assert answer.returncode == 1
    assert "runs with other settings" in answer.stderr
    assert "mlops down && mlops up" in answer.stderr


def test_a_taken_port_is_named_with_its_holder_and_the_remedy() -> None:
    settings = temporary_settings()
    with socket.create_server(("127.0.0.1", settings.mlflow_port)):
        answer = mlops(settings, "up")
    left = leftovers.find_processes(settings)
    shutil.rmtree(settings.home)
    assert answer.returncode == 1
    assert f"Port {settings.mlflow_port}, which mlflow needs, is taken by process {os.getpid()}" in answer.stderr
    assert "MLOPS_MLFLOW_PORT=" in answer.stderr
    assert left == []


def test_a_server_that_does_not_start_shows_the_end_of_its_log() -> None:
    settings = temporary_settings()
    (settings.home / "nats").write_text("in the way of the folder")
    answer = mlops(settings, "up")
    stopped = control.down(settings)
    shutil.rmtree(settings.home)
    assert answer.returncode == 1
    assert "nats does not start. The end of its log:" in answer.stderr
    assert "not a directory" in answer.stderr
    assert f"The whole log: {settings.log_directory / 'nats.log'}" in answer.stderr
    assert stopped > 0


def test_a_server_that_could_not_start_for_long_comes_back_when_it_can() -> None:
    settings = temporary_settings()
    try:
        with control.storage(settings):
            supervisor, starts = Supervisor(settings), set[int]()
            supervisor.stop("nats")
            with socket.create_server(("127.0.0.1", settings.nats_port)):
                supervisor.start("nats")

                def fails_again() -> bool:
                    starts.add(supervisor.processes()["nats"].started_at)
                    return len(starts) > 5

                wait_for(fails_again)
                wait_for(lambda: states(settings)["nats"][0] == "failed")
            wait_for(lambda: states(settings)["nats"][0] == "running")
    finally:
        control.down(settings)
        shutil.rmtree(settings.home)


def test_down_leaves_no_process_behind(stack: Settings) -> None:
    # As a run worker whose server was killed: in a session of its own, and no child of the supervisor.
    environment = process_environment(stack) | {MARKER_VARIABLE: str(stack.home)}
    code = "import time; print(flush=True); time.sleep(600)"
    worker = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, start_new_session=True)
    assert worker.stdout is not None
    worker.stdout.readline()
    pids = [process.pid for process in leftovers.find_processes(stack)]
    assert worker.pid in pids
    answer = mlops(stack, "down")
    assert answer.returncode == 0, answer.stderr
    assert len(pids) > len(ALL_SERVICES)
    assert worker.wait(60) == -signal.SIGTERM
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
    assert {state for state, _ in states(stack).values()} == {"stopped"}


def test_dev_shows_the_logs_until_it_is_stopped_and_then_stops_the_stack_and_leaves_postgres_of_ones_own(tmp_path: Path) -> None:
    own = temporary_settings()
    postgres.initialise_data_directory(own)
    port = own.nats_port
    command = [str(postgres.executable()), "-D", str(own.postgres_directory), "-k", str(own.postgres_directory), "-p", str(port)]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(command, user=postgres.user_for_supervisor(), cwd=own.postgres_directory, stdout=log, stderr=log)
    settings = temporary_settings(postgres_url=f"postgresql://postgres@127.0.0.1:{port}/postgres")
    try:
        wait_for(lambda: (own.postgres_directory / f".s.PGSQL.{port}").exists())
        dev = [str(scripts_directory() / "mlops"), "dev"]
        process = subprocess.Popen(dev, env=process_environment(settings), stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        wait_for(lambda: "The logs follow" in process.stdout.readline())
        assert set(states(settings)) == ALL_SERVICES - {"postgres"}
        for database in DATABASES:
            psycopg2.connect(settings.postgres_connection_string(database)).close()
        with psycopg2.connect(settings.postgres_connection_string("mlflow")) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM experiments")
            assert cursor.fetchone() == (1,)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert "Stopping the stack" in output
        assert leftovers.find_processes(settings) == []
        assert server.poll() is None
    finally:
        control.down(settings)
        server.send_signal(signal.SIGINT)
        server.wait(60)
        shutil.rmtree(own.home)
        shutil.rmtree(settings.home)
