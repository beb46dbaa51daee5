"""The installation that faults are done to, and the undisturbed replay that a disturbed one is compared with.

`MLOPS_CHAOS_FOLDER` keeps both for the next time.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import chaos
import pytest
from fault_kinds import Installation, faults, faults_with_state_elsewhere
from installations import new_installation, prepare, state
from trials import Course, Outcome, Trials, write_table

from mlops_assets.local import control

LOGGER = logging.getLogger(__name__)
PAGE = Path(__file__).parents[2] / "docs" / "faults.md"


@pytest.fixture(scope="session")
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
    """An installation whose state is in its folder, and which does not run yet."""
    with new_installation() as each:
        yield each


@pytest.fixture(scope="module")
def course(folder: Path, installation: Installation, request: pytest.FixtureRequest) -> Course:
    """The undisturbed replay, with a step for each fault of the module."""
    count = len([item for item in request.session.items if item.fspath == request.node.fspath])
    if not (before := folder / "before").exists():
        prepare(installation.platform)
        control.down(installation.platform.settings)
        chaos.save(installation.platform.settings.home, before)
        shutil.rmtree(installation.platform.settings.home)
    course, after = Course.read(folder / "course.json"), folder / "after"
    if len(course.steps) < count:
        with state(installation, after if course.steps else before, after):
            course = Trials(installation, course).undisturbed(count)
        course.write(folder / "course.json")
    return course


@pytest.fixture(scope="module")
def outcomes() -> Iterator[list[Outcome]]:
    """What became of the faults: printed, and written, at the end."""
    outcomes: list[Outcome] = []
    yield outcomes
    LOGGER.info("%s", "\n".join(["", *(outcome.row() for outcome in outcomes)]))
    if outcomes:
        write_table(PAGE, outcomes, [fault.name for fault in (*faults(), *faults_with_state_elsewhere())])
