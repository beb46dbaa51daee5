"""A server of an environment that is not the default one: its pages and its log name it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from ports import free_ports
from waiting import wait_for

from mlops_assets.local.links import link

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
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MLOPS_")}
    variables |= {"MLOPS_ENV": "staging", "MLOPS_PROJECT": str(root), "MLOPS_SERVING_TOKEN": TOKEN}
    command = [sys.executable, "-m", "mlops_assets.serving.online.server"]
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for(lambda: answers(f"http://localhost:{port}") or process.poll() is not None, 60)
        assert process.poll() is None, (root / "log").read_text()
        yield f"http://localhost:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)


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
