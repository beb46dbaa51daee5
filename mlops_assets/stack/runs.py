"""Following a run of the local Dagster to its end."""

import time
from collections.abc import Callable

from mlops_assets.stack.dagster_client import DagsterClient, RunState
from mlops_assets.stack.errors import StackError

_POLL_SECONDS = 0.5


def follow(client: DagsterClient, run_id: str, name: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has succeeded; `report` hears how it stands. Raises StackError with the causes when it fails."""
    state = wait(client, run_id, report)
    if state.status != "SUCCESS":
        reasons = "\n".join(client.failures(run_id)) or state.status
        raise StackError(f"The run of {name} failed.\n{reasons}", remedy=f"The run with its logs: {client.run_url(run_id)}")
    return state


def wait(client: DagsterClient, run_id: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has ended, well or not; `report` hears how it stands."""
    while not (state := client.run(run_id)).finished:
        report(state)
        time.sleep(_POLL_SECONDS)
    report(state)
    return state
