"""How long a person waits for a run to begin, and what a stack costs that nobody asks for anything."""

import random
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from figures import compare, record
from ports import free_ports
from running_stack import Platform, new_home

from mlops_assets.clients.dagster_client import DagsterClient
from mlops_assets.core.errors import StackError
from mlops_assets.core.project import current_project
from mlops_assets.local import control
from mlops_assets.local.environment import scripts_directory
from mlops_assets.local.leftovers import find_processes

RUNS = 20
RUNS_BESIDE = 5
PAUSE_SECONDS = (0.5, 2.5)
"""People do not click in time with the intervals of a daemon."""
MEDIAN_GOAL, LATE_GOAL = 1.0, 2.0
REACTION_GOAL = 2.0
FOLLOWER = "notifications"
"""A sensor that is on and follows runs, with an interval of two minutes."""
SETTLING_SECONDS, IDLE_SECONDS = 60, 180
IDLE_GOAL = 5.0
ASSET = "raw/airports"
"""A small table without partitions."""
FIRST_STEP = "query Run($run: ID!) { runOrError(runId: $run) { ... on Run { endTime stepStats { startTime } } } }"
TICKS = """query Ticks($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) { ... on Sensor { sensorState { ticks(limit: 1) { timestamp } } } }
}"""


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    """A stack with the intervals that people have."""
    with new_home("answers.") as shortened:
        settings = replace(shortened, sensor_seconds=None)
        control.ensure_up(settings)
        yield Platform(settings)


def test_from_the_click_to_the_first_step(platform: Platform, tmp_path: Path) -> None:
    """From the call that starts a run to the event that its first step begins, also where Dagster's own development server starts it."""
    with _dagster_dev(platform, tmp_path) as client:
        beside = _waited(client, RUNS_BESIDE)
    ordered = _waited(platform.client, RUNS)
    median, late = statistics.median(ordered), ordered[int(RUNS * 0.95) - 1]
    compare(
        "from the click to the first step",
        ours=median,
        beside="dagster dev",
        theirs=statistics.median(beside),
        unit="s",
        at_most=1.0,
    )
    met = record("from the click to the first step, median", ours=median, unit="s", at_most=MEDIAN_GOAL)
    assert record("from the click to the first step, 95th percentile", ours=late, unit="s", at_most=LATE_GOAL)
    assert met


def test_from_the_end_of_a_run_to_what_follows(platform: Platform) -> None:
    """From the end of a run to the evaluation of a sensor that follows runs."""
    [asset] = platform.client.assets((ASSET,)).values()
    selector = {"repositoryName": "__repository__", "repositoryLocationName": "mlops_assets", "sensorName": FOLLOWER}
    reacted = []
    for _ in range(RUNS):
        run = platform.client.launch([asset], None, None, {}, purpose="benchmark")
        while not (ended := platform.client.query(FIRST_STEP, run=run)["runOrError"]["endTime"]):
            time.sleep(0.2)
        while (evaluated := _last_tick(platform.client, selector)) < ended:
            time.sleep(0.2)
        reacted.append(evaluated - ended)
        time.sleep(random.uniform(*PAUSE_SECONDS))
    late = sorted(reacted)[int(RUNS * 0.95) - 1]
    assert record("from the end of a run to what follows, 95th percentile", ours=late, unit="s", at_most=REACTION_GOAL)


def test_a_stack_that_nobody_asks(platform: Platform) -> None:
    """Processor time of all processes of the stack, with the three bundled solutions."""
    time.sleep(SETTLING_SECONDS)
    before = _processor_seconds(platform)
    time.sleep(IDLE_SECONDS)
    used = _processor_seconds(platform) - before
    share = 100 * used / IDLE_SECONDS
    assert record("processor time of an idle stack, of one processor", ours=share, unit="%", at_most=IDLE_GOAL)


@contextmanager
def _dagster_dev(platform: Platform, home: Path) -> Iterator[DagsterClient]:
    """The client of a server for development, with the same definitions and an instance of its own as Dagster makes it."""
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    [port] = free_ports(1)
    client = DagsterClient(f"http://127.0.0.1:{port}", "")
    command = [scripts_directory() / "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    environment = {**platform.environment, "DAGSTER_HOME": str(home)}
    server = subprocess.Popen(
        command, cwd=current_project().root, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            with suppress(StackError):
                if replace(client, patience_seconds=1).assets((ASSET,)):
                    break
            assert server.poll() is None
            time.sleep(1)
        yield client
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def _waited(client: DagsterClient, runs: int) -> list[float]:
    """The seconds from the call to the first step of `runs` runs, in order, without a first one, which loads what was not needed yet."""
    [asset] = client.assets((ASSET,)).values()
    waited = []
    for _ in range(runs + 1):
        time.sleep(random.uniform(*PAUSE_SECONDS))
        clicked = time.time()
        run = client.launch([asset], None, None, {}, purpose="benchmark")
        waited.append(_first_step(client, run) - clicked)
    return sorted(waited[1:])


def _first_step(client: DagsterClient, run: str) -> float:
    while True:
        steps = client.query(FIRST_STEP, run=run)["runOrError"]["stepStats"]
        if steps and steps[0]["startTime"]:
            return float(steps[0]["startTime"])
        time.sleep(0.2)


def _last_tick(client: DagsterClient, selector: dict[str, str]) -> float:
    """When the sensor was last evaluated, 0.0 when it never was."""
    ticks = client.query(TICKS, sensor=selector)["sensorOrError"]["sensorState"]["ticks"]
    return float(ticks[0]["timestamp"]) if ticks else 0.0


def _processor_seconds(platform: Platform) -> float:
    """All that the processes of the stack have used, with their children that have ended."""
    total = 0.0
    for process in find_processes(platform.settings):
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return total
