"""A server, and what begins a run in a pod, of an environment that is not the default one: pages and each line of a log name it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from ports import free_ports
from waiting import wait_for

from mlops_assets.local.environment import scripts_directory
from mlops_assets.local.links import link

pytestmark = pytest.mark.long

TOKEN = "a token of tests"
NAVIGATION = {"Accept": "text/html"}


@contextmanager
def online_server(root: Path) -> Iterator[str]:
    """The online server of staging in a project of its own."""
    (root / "deployments").mkdir()
    (root / "pyproject.toml").write_text("[tool.mlops]\n")
    [port] = free_ports(1)
    (root / "deployments" / "staging.env").write_text(f"MLOPS_HOME=state\nMLOPS_SERVING_PORT={port}\nMLOPS_SERVING_PROCESSES=1\n")
    # A bundle that nobody signed, of which the log tells.
    (root / "state" / "serving" / "parcels" / "1").mkdir(parents=True)
    (root / "state" / "serving" / "parcels" / "champion").symlink_to("1")
    variables = variables_of(root) | {"MLOPS_SERVING_TOKEN": TOKEN}
    command = [sys.executable, "-m", "mlops_assets.serving.online.server"]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"http://localhost:{port}") or process.poll() is not None)
        assert process.poll() is None, (root / "log").read_text()
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


def variables_of(root: Path) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    return variables | {"MLOPS_ENV": "staging", "MLOPS_PROJECT": str(root)}


def answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/livez", timeout=5).ok
    except requests.ConnectionError:
        return False


def test_the_pages_and_the_log_of_the_online_server_name_the_environment(tmp_path: Path) -> None:
    with online_server(tmp_path) as url:
        refused = requests.get(f"{url}/docs", headers=NAVIGATION, timeout=10)
        assert refused.status_code == 401
        with requests.Session() as browser:
            shown = browser.get(link(f"{url}/docs", TOKEN), headers=NAVIGATION, timeout=10)
            described = browser.get(f"{url}/openapi.json", timeout=10)
        for page in (refused, shown):
            assert "Environment staging</div>" in page.text
        assert described.json()["info"]["title"] == "[staging] Predictions"
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines != []
    assert [line for line in lines if not line.startswith("[staging] ")] == []


def test_each_line_of_a_pod_of_dagster_names_the_environment(tmp_path: Path) -> None:
    (tmp_path / "deployments").mkdir()
    (tmp_path / "pyproject.toml").write_text("[tool.mlops]\n")
    (tmp_path / "deployments" / "staging.env").write_text("MLOPS_HOME=state\n")
    # The words of Dagster's launcher on Kubernetes; what they begin ends at once, with a traceback and a line by click.
    command = [scripts_directory() / "mlops", "exec", "dagster", "api", "grpc-health-check", "--port", str(free_ports(1)[0])]
    ended = subprocess.run(command, env=variables_of(tmp_path), capture_output=True, text=True, check=False)
    assert "[staging] Unable to connect" in ended.stdout
    assert [line for line in (ended.stdout + ended.stderr).splitlines() if not line.startswith("[staging] ")] == []
