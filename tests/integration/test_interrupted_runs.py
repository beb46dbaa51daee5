"""Runs on the real stack whose processes are killed: they go on by themselves, to the same tables.

One moment of each run by default, that of a training in `make test-all` alone; `make chaos` kills at three (MLOPS_CHAOS_MOMENTS).
"""

import json
import logging
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import chaos
import psutil
import pytest
from running_stack import Platform, new_home, temporary_platform
from waiting import wait_for

from mlops_assets.local import control
from mlops_assets.runs.recovery import RETRY_SECONDS
from mlops_assets.runs.workers import Workers

pytestmark = pytest.mark.long

LOGGER = logging.getLogger(__name__)

MOMENTS = int(os.environ.get("MLOPS_CHAOS_MOMENTS", "1"))
FRACTIONS = [(number + 0.5) / MOMENTS for number in range(MOMENTS)]
"""The parts of a run after which all is killed."""

RETRIED_SECONDS = RETRY_SECONDS + 30.0
"""Dagster is asked for the retry while the code location starts, and may give up, or say that it will and do nothing: then it is asked
again after `RETRY_SECONDS`, by a sensor that looks every 10 s, and the daemon looks for failures every 5 s. The rest is for a busy machine.
"""

DATA = (
    "raw/census",
    "raw/census_outcomes",
    "staging/census",
    "features/person",
    "features/census_statistics",
    "employment/spine",
)
TRAINING = tuple(f"employment/{stage}" for stage in ("training_dataset", "model", "evaluation", "online_features", "deployment"))
RANGE_RUN = chaos.Work("range run", DATA, "2015-01-01", "2016-01-01", before=None)
ONE_YEAR = chaos.Work("one year", DATA, "2015-01-01", "2015-01-01", before=None)
BYSTANDER = chaos.Work("bystander", ("raw/flights",), "2013-01-01", "2013-03-31", before=None)


@pytest.fixture(scope="module")
def stack(platform: Platform) -> Platform:
    return platform


@pytest.fixture(scope="module")
def range_run(stack: Platform) -> chaos.Course:
    chaos.drop(stack, DATA)
    return chaos.undisturbed(stack, RANGE_RUN)


@pytest.fixture(scope="module")
def one_year(stack: Platform) -> chaos.Course:
    chaos.drop(stack, DATA)
    return chaos.undisturbed(stack, ONE_YEAR)


@dataclass(frozen=True)
class Training:
    """A training on a stack of its own, whose registry has no model yet, and its undisturbed course."""

    stack: Platform
    work: chaos.Work
    course: chaos.Course


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Training]:
    before = tmp_path_factory.mktemp("state") / "before"
    with temporary_platform("training.") as stack:
        chaos.undisturbed(stack, RANGE_RUN)
        control.down(stack.settings)
        chaos.save(stack.settings.home, before)
        control.ensure_up(stack.settings)
        work = chaos.Work("training", TRAINING, "2017-01-01", "2017-01-01", before=before)
        yield Training(stack, work, chaos.undisturbed(stack, work))


def assert_goes_on(outcome: chaos.Outcome) -> None:
    """The run was failed before `mlops up` was ready, tried again soon after it, and ended with the same tables."""
    LOGGER.info("%s", outcome)
    assert outcome.equal
    assert outcome.failed < outcome.ready
    assert outcome.retried < outcome.ready + RETRIED_SECONDS


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_range_run_survives_the_death_of_everything(stack: Platform, range_run: chaos.Course, fraction: float) -> None:
    assert_goes_on(chaos.kill_at(stack, RANGE_RUN, fraction, range_run))


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_training_survives_the_death_of_everything(training: Training, fraction: float) -> None:
    assert_goes_on(chaos.kill_at(training.stack, training.work, fraction, training.course))


def test_a_killed_worker_takes_its_dbt_with_it_and_its_run_alone_is_tried_again_without_up(
    stack: Platform, one_year: chaos.Course
) -> None:
    chaos.drop(stack, DATA)
    run_id = chaos.launch(stack, ONE_YEAR)
    workers = Workers(stack.settings.run_worker_directory)

    def dbts() -> list[psutil.Process]:
        group = [process for process in psutil.process_iter() if chaos.is_dbt(process)]
        return [process for process in group if os.getpgid(process.pid) == worker]

    wait_for(lambda: stack.client.run(run_id).status == "STARTED")
    worker = int((workers.directory / f"{run_id}.lock").read_text())
    wait_for(lambda: bool(dbts()))
    [dbt] = dbts()
    # It waits, so that the other run is executed too when the worker is killed, as the system does when memory runs out.
    dbt.suspend()
    bystander = chaos.launch(stack, BYSTANDER)
    wait_for(lambda: stack.client.run(bystander).status == "STARTED")
    # The daemon sleeps meanwhile: `mlops status` sees what it would mend.
    daemon = psutil.Process(states(stack)["dagster-daemon"])
    daemon.suspend()
    os.kill(worker, signal.SIGKILL)
    assert stack.client.run(bystander).status == "STARTED"
    wait_for(lambda: not dbt.is_running() or dbt.status() == psutil.STATUS_ZOMBIE)
    [stuck] = json.loads(stack.mlops("status", "--json").stdout)["stuck"]
    assert (stuck["kind"], stuck["run_id"], stuck["reason"]) == ("worker", run_id, "has no worker")
    assert f"Run {run_id}" in stack.mlops("status").stdout
    daemon.resume()
    awake = time.monotonic()
    wait_for(lambda: stack.client.run(run_id).status == "FAILURE")
    LOGGER.info("failed %.1f s after the daemon woke up", time.monotonic() - awake)
    wait_for(lambda: stack.client.run(run_id).followed_by is not None)
    LOGGER.info("tried again %.1f s after the daemon woke up", time.monotonic() - awake)
    chaos.wait_until_done(stack, run_id)
    [_undisturbed] = chaos.wait_until_done(stack, bystander)
    # The tables of other tests on this stack are no part of it.
    assert stack.fingerprints().items() >= one_year.tables.items()
    assert json.loads(stack.mlops("status", "--json").stdout)["stuck"] == []


def test_commands_wait_for_a_database_that_is_killed_while_they_ask(stack: Platform) -> None:
    """Each is killed under while it runs: a run that it launches is launched once, what it reads is what there was before."""
    flights, day = "raw/flights", "2013-01-01"
    assert stack.materialize((flights,), day, day).status == "SUCCESS"
    count = ("sql", f"SELECT count(*) FROM raw.flights WHERE flight_date = DATE '{day}'", "--json")
    before = stack.mlops(*count).stdout
    launched = set(stack.client.runs_with_tag("mlops/purpose", "another look"))
    asset = stack.client.assets([flights])[flights]
    with ThreadPoolExecutor() as commands:
        for _ in range(3):
            postmaster = int((stack.settings.postgres_directory / "postmaster.pid").read_text().split()[0])
            os.kill(postmaster, signal.SIGKILL)
            counted = commands.submit(stack.mlops, *count)
            run = commands.submit(stack.client.launch, [asset], day, day, {}, purpose="another look")
            assert counted.result().stdout == before, counted.result().stderr
            chaos.wait_until_done(stack, run.result())
            launched.add(run.result())
    assert set(stack.client.runs_with_tag("mlops/purpose", "another look")) == launched
    assert len(launched) == 3


def test_a_backup_of_a_run_in_progress_goes_on_elsewhere_after_the_death_of_everything(
    stack: Platform, range_run: chaos.Course, tmp_path: Path
) -> None:
    """The state of the running installation is lost; what was backed up meanwhile comes to the same tables in another folder."""
    folder = tmp_path / "backups"
    assert stack.mlops("backup", str(folder)).returncode == 0
    chaos.drop(stack, DATA)
    run_id = chaos.launch(stack, RANGE_RUN)
    chaos.wait_for_moment(stack, run_id, range_run.moment(0.3))
    backup = json.loads(stack.mlops("backup", str(folder), "--json").stdout)
    in_progress = stack.client.run(run_id).status
    chaos.kill_everything(stack)
    assert in_progress == "STARTED", "the run should outlive the backup: that is what this test is about"
    with new_home() as settings:
        began = time.monotonic()
        restored = Platform(settings)
        assert restored.mlops("restore", str(folder)).returncode == 0
        LOGGER.info("backup %s; restored after %.1f s", backup, time.monotonic() - began)
        control.ensure_up(settings)
        LOGGER.info("up after %.1f s", time.monotonic() - began)
        runs = chaos.wait_until_done(restored, run_id)
        LOGGER.info("done after %.1f s", time.monotonic() - began)
        assert len(runs) > 1, "the run had ended in the backup"
        assert restored.fingerprints().items() >= range_run.tables.items()
        assert json.loads(restored.mlops("status", "--json").stdout)["stuck"] == []


def states(stack: Platform) -> dict[str, int]:
    return {str(entry["name"]): int(str(entry["pid"])) for entry in control.status(stack.settings)}
