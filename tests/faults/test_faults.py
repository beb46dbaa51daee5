"""The chaos suite (`make chaos`): a replay under load, and a fault in every step of it. It writes the table of docs/faults.md.

`MLOPS_CHAOS_KILLS` is how many processes are killed, one a step; by default each kind of process once. `MLOPS_CHAOS_FOLDER` keeps
the prepared installation and the undisturbed course for the next time. `-k` chooses faults by name. It mounts, so that it runs as root.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import chaos
import pytest
from fault_kinds import TARGETS, Fault, Installation, faults
from machine import machine
from running_stack import Platform, new_home
from trials import FIRST, SOLUTION, Course, Outcome, Trials, write_table

from mlops_assets.local import control

LOGGER = logging.getLogger(__name__)
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"
KILLS = int(os.environ.get("MLOPS_CHAOS_KILLS") or len(TARGETS))
FAULTS = {fault.name: fault for fault in faults(KILLS)}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Where the prepared installation and the undisturbed course are."""
    if kept := os.environ.get("MLOPS_CHAOS_FOLDER"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="chaos.", dir="/tmp") as temporary:
        yield Path(temporary)


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    with machine() as each, new_home() as settings:
        # Ports of its own, and its state on the disk of the machine. Nothing runs yet.
        settings = replace(settings, home=each.disk / "state")
        try:
            yield Installation(Platform(settings), each)
        finally:
            control.down(settings)


@pytest.fixture(scope="module")
def trials(folder: Path, installation: Installation, request: pytest.FixtureRequest) -> Iterator[Trials]:
    """The disturbed replay, at its beginning."""
    count = len([item for item in request.session.items if item.fspath == request.node.fspath])
    if not (before := folder / "before").exists():
        prepare(installation, before)
    course, after = Course.read(folder / "course.json"), folder / "after"
    if len(course.steps) < count:
        with state(installation, after if course.steps else before, after):
            course = Trials(installation, course).undisturbed(count)
        course.write(folder / "course.json")
    with state(installation, before, None):
        replayed = Trials(installation, course)
        with replayed.under_load():
            yield replayed


def prepare(installation: Installation, before: Path) -> None:
    """Save the state of an installation with a deployed version and two months of data in the folder `before`."""
    platform, settings = installation.platform, installation.platform.settings
    control.ensure_up(settings)
    # The training that the demo's last decision asks for ends here, and in no step.
    week = (
        "replay",
        SOLUTION,
        "--from",
        str(FIRST - timedelta(days=3)),
        "--to",
        str(FIRST - timedelta(days=1)),
        "--step",
        "week",
        "--json",
    )
    for command in (("demo", "--months", "2", "--json"), week):
        done = platform.mlops(*command)
        assert done.returncode == 0, done.stderr
    control.down(settings)
    chaos.save(settings.home, before)
    shutil.rmtree(settings.home)


@contextmanager
def state(installation: Installation, before: Path, after: Path | None) -> Iterator[None]:
    """The stack on a copy of a state, with the machine's clock. Its own state is kept in the folder `after`, if there is one, and gone then."""
    settings = installation.platform.settings
    chaos.save(before, settings.home)
    installation.up()
    try:
        yield
        if after is not None:
            control.down(settings)
            shutil.rmtree(after, ignore_errors=True)
            chaos.save(settings.home, after)
    finally:
        control.down(settings)
        shutil.rmtree(settings.home)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    """What became of the faults: printed, and written, at the end."""
    outcomes: list[Outcome] = []
    yield outcomes
    LOGGER.info("%s", "\n".join(["", *(outcome.row() for outcome in outcomes)]))
    if outcomes:
        write_table(PAGE, outcomes, list(FAULTS))


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_doubled_or_stuck(trials: Trials, outcomes: list[Outcome], fault: Fault) -> None:
    outcome = trials.disturbed(fault)
    outcomes.append(outcome)
    assert outcome.problems == [], outcome.row()
