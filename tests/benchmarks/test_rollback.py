"""How long it takes until every process of the online server answers with the former version, on an idle machine and on a busy one."""

import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date

import pytest
from figures import record
from running_stack import Platform, new_home

from mlops_assets.access.credentials import serving_token
from mlops_assets.core.project import current_project
from mlops_assets.local import control
from mlops_assets.local.environment import scripts_directory
from mlops_assets.operations.events import requests_of_day
from mlops_assets.serving.reports import read_reports

SOLUTION = "flight_delay"
TRAINING = tuple(f"{SOLUTION}/{stage}" for stage in ("training_dataset", "model", "evaluation", "online_features", "deployment"))
LATER = "2013-02-10"
IDLE_RUNS, BUSY_RUNS, PAUSE_SECONDS = 5, 10, 2.0
CLIENTS, WARMING_SECONDS, POLL_SECONDS = 4, 8.0, 0.02
GOAL = 5.0
CLIENT = """
import sys, requests
session = requests.Session()
session.headers["Authorization"] = "Bearer " + sys.stdin.readline().strip()
body = sys.stdin.readline().encode()
while True:
    session.post(sys.argv[1], data=body, timeout=30)
"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """A stack with the demo and a later version, one of which predicts and the other may."""
    with new_home("rollback.") as settings:
        control.ensure_up(settings)
        platform = Platform(settings)
        demo = platform.mlops_process("demo", "--months", "2", "--json")
        assert demo.returncode == 0, demo.stderr
        platform.materialize(TRAINING, LATER, LATER)
        yield platform


def test_a_rollback_takes_effect_in_five_seconds_at_any_load(platform: Platform) -> None:
    """From the start of the command, on an idle machine and beside trainings, scorings and clients that ask without pause."""
    idle = [_roll_back(platform) for _ in range(IDLE_RUNS)]
    with _busy(platform):
        busy = [_roll_back(platform) for _ in range(BUSY_RUNS)]
    effects, returns = zip(*idle, strict=True)
    record(
        "rollback on an idle machine until all servers answer with it, slowest of 5", ours=max(effects), unit="s", at_most=GOAL
    )
    record("rollback on an idle machine until the command returns, median", ours=statistics.median(returns), unit="s")
    effects, returns = zip(*busy, strict=True)
    record("rollback under load until the command returns, median", ours=statistics.median(returns), unit="s")
    record(
        "rollback under load until all servers answer with it, median", ours=statistics.median(effects), unit="s", at_most=GOAL
    )
    assert record(
        "rollback under load until all servers answer with it, slowest of 10", ours=max(effects), unit="s", at_most=GOAL
    )


def _served(platform: Platform) -> set[int | None]:
    reports = read_reports(platform.settings.server_reports_directory)
    models = [report.models.get(SOLUTION) for report in reports if report.channel == "online"]
    return {model.version if model else None for model in models}


def _roll_back(platform: Platform) -> tuple[float, float]:
    """Seconds from the start of the command until every process of the online server has the other version, and until it returns."""
    time.sleep(PAUSE_SECONDS)
    before = _served(platform)
    began = time.monotonic()
    command = [str(scripts_directory() / "mlops"), "rollback", SOLUTION, "--reason", "benchmark"]
    process = subprocess.Popen(command, cwd=current_project().root, env=platform.environment, stdout=subprocess.DEVNULL)
    while before & _served(platform):
        assert process.poll() in (None, 0)
        time.sleep(POLL_SECONDS)
    effect = time.monotonic() - began
    assert process.wait() == 0
    return effect, time.monotonic() - began


@contextmanager
def _busy(platform: Platform) -> Iterator[None]:
    """Clients that ask without pause, one training after the other, and one scoring after the other."""
    settings = platform.settings
    body = requests_of_day(settings, SOLUTION, date(2013, 2, 20), look_up=False)[0]
    clients = []
    for _ in range(CLIENTS):
        address = f"{settings.serving_url}/{SOLUTION}/predict"
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, address], stdin=subprocess.PIPE, env=platform.environment, stderr=subprocess.DEVNULL
        )
        assert client.stdin is not None
        client.stdin.write(f"{serving_token(settings)}\n".encode() + body + b"\n")
        client.stdin.flush()
        clients.append(client)
    ended = threading.Event()

    def repeat(*commands: tuple[str, ...]) -> None:
        for arguments in commands:
            if not ended.is_set():
                platform.mlops_process(*arguments)

    # Without a deployment: another version would be none of the two.
    trainings = [("train", SOLUTION, "--date", f"2013-02-{day}", "--no-deploy") for day in range(11, 28)]
    scoring = ("score", SOLUTION, "--from", "2013-02-10", "--to", "2013-02-20", "--reason", "benchmark")
    workers = [threading.Thread(target=repeat, args=trainings), threading.Thread(target=repeat, args=[scoring] * 100)]
    try:
        for worker in workers:
            worker.start()
        time.sleep(WARMING_SECONDS)
        yield
    finally:
        ended.set()
        for client in clients:
            client.kill()
            client.wait()
        for worker in workers:
            worker.join()
