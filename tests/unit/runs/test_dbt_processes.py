"""dbt commands that are forked: what they are given, what they answer, and what becomes of those that are killed."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from dbt_process import run_dbt
from waiting import is_gone

from mlops_assets.features.dbt_package import dbt_profile_variables
from mlops_assets.runs.dbt_processes import DbtProcess, start_dbt

ENVIRONMENT = os.environ | dbt_profile_variables()


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[DbtProcess]:
    """A command that waits for the content of its project's file."""
    os.mkfifo(tmp_path / "dbt_project.yml")
    process = start_dbt(["parse"], directory=tmp_path, environment=ENVIRONMENT)
    with process.stdout:
        yield process
    process.send_signal(signal.SIGKILL)


def servers() -> list[psutil.Process]:
    """The processes that the commands of this one are forked from."""
    return [child for child in psutil.Process().children() if "mlops_assets.runs.dbt_processes" in child.cmdline()]


def test_a_command_works_in_its_folder_with_its_environment_and_says_how_it_ended(tmp_path: Path) -> None:
    environment = ENVIRONMENT | {"DBT_LOG_FORMAT": "json", "DBT_LOG_PATH": str(tmp_path)}
    done = run_dbt("parse", directory=tmp_path, environment=environment)
    assert done.returncode == 2
    messages = [json.loads(line)["info"]["msg"] for line in done.stdout.splitlines()]
    assert any(str(tmp_path / "dbt_project.yml") in message for message in messages)
    helped = run_dbt("--help", directory=tmp_path, environment=ENVIRONMENT)
    assert helped.returncode == 0
    assert helped.stdout.startswith("Usage: dbt ")


def test_what_goes_wrong_before_dbt_begins_is_told_too(tmp_path: Path) -> None:
    done = run_dbt("parse", directory=tmp_path / "nowhere", environment=ENVIRONMENT)
    assert done.returncode == 1
    assert "FileNotFoundError" in done.stdout


def test_commands_share_their_server_and_work_side_by_side(tmp_path: Path, waiting: DbtProcess) -> None:
    assert run_dbt("--help", directory=tmp_path, environment=ENVIRONMENT).returncode == 0
    [server] = servers()
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0)
    waiting.send_signal(signal.SIGKILL)
    assert waiting.wait(timeout=60) < 0
    assert servers() == [server]
    # It has ended: the signal goes to nobody.
    waiting.send_signal(signal.SIGKILL)


def test_a_killed_server_is_replaced_and_leaves_its_command(tmp_path: Path, waiting: DbtProcess) -> None:
    [server] = servers()
    server.kill()
    assert run_dbt("--help", directory=tmp_path, environment=ENVIRONMENT).returncode == 0
    [another] = servers()
    assert another != server
    assert is_gone(server.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        waiting.wait(timeout=0)
    waiting.send_signal(signal.SIGKILL)
    assert waiting.wait(timeout=60) < 0
