"""The chaos suite (`make chaos`): a replay under load, and a fault in every step of it. It writes the table of docs/faults.md.

`MLOPS_CHAOS_KILLS` is how many processes are killed, one a step; by default each kind of process once. `-k` chooses faults by name. It
mounts, so that it runs as root.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_kinds import Fault, Installation, faults
from installations import state
from trials import Course, Outcome, Trials

FAULTS = {fault.name: fault for fault in faults()}


@pytest.fixture(scope="module")
def trials(folder: Path, installation: Installation, course: Course) -> Iterator[Trials]:
    """The disturbed replay, at its beginning."""
    with state(installation, folder / "before", None):
        replayed = Trials(installation, course)
        with replayed.under_load():
            yield replayed


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_doubled_or_stuck(trials: Trials, outcomes: list[Outcome], fault: Fault) -> None:
    outcome = trials.disturbed(fault)
    outcomes.append(outcome)
    assert outcome.problems == [], outcome.row()
