"""The chaos suite where no state is on the machine: object storage, a Redis cluster, a NATS cluster, and a Postgres with TLS.

The installation begins empty and has the variables of the servers alone. It is compared with the undisturbed replay whose state is in a folder.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from elsewhere import find_left, servers_elsewhere
from fault_kinds import Fault, Installation, faults_with_state_elsewhere
from installations import new_installation, prepare
from running_stack import Platform
from trials import Course, Outcome, Trials

from mlops_assets.core.settings import Settings
from mlops_assets.features.contracts import CONTRACTS_TABLE
from mlops_assets.local import control

FAULTS = {fault.name: fault for fault in faults_with_state_elsewhere()}


@pytest.fixture(scope="module")
def trials(course: Course) -> Iterator[Trials]:
    """The disturbed replay, at its beginning. At its end nothing of the state is on the disk of the installation."""
    with servers_elsewhere() as (variables, _), pytest.MonkeyPatch.context() as patch, new_installation() as empty:
        for name, value in variables.items():
            patch.setenv(name, value)
        local = empty.platform.settings
        ports = {name: getattr(local, name) for name in ("dagster_port", "mlflow_port", "nats_port", "serving_port")}
        settings = replace(Settings.from_environment(), home=local.home, sensor_seconds=local.sensor_seconds, **ports)
        installation = Installation(Platform(settings), empty.machine)
        try:
            prepare(installation.platform)
            control.down(settings)
            # Processes that have the clock of the machine.
            installation.up()
            # The contracts name the run that recorded them, which is another one here.
            replayed = Trials(installation, course, differing=frozenset({CONTRACTS_TABLE}))
            with replayed.under_load():
                yield replayed
        finally:
            control.down(settings)
        assert find_left(settings) == []


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_nothing_is_lost_doubled_or_stuck_with_the_state_elsewhere(trials: Trials, outcomes: list[Outcome], fault: Fault) -> None:
    outcome = trials.disturbed(fault)
    outcomes.append(outcome)
    assert outcome.problems == [], outcome.row()
