"""Runs of the local Dagster, followed to their end."""

import time
from collections.abc import Callable

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.errors import StackError

_POLL_SECONDS = 0.5


def follow_run(client: DagsterClient, run_id: str, name: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has succeeded; `report` hears how it stands. Raises StackError with the causes when it fails."""
    state = wait_for_run(client, run_id, report)
    if state.status != "SUCCESS":
        reasons = "\n".join(client.failures(state.run_id)) or state.status
        raise StackError(f"The run of {name} failed.\n{reasons}", remedy=f"The run with its logs: {client.run_url(state.run_id)}")
    return state


def wait_for_run(client: DagsterClient, run_id: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has ended, well or not, or the one that goes on with it; `report` hears how it stands."""
    while True:
        state = client.run(run_id)
        report(state)
        if state.finished and state.followed_by is None:
            return state
        run_id = state.followed_by or run_id
        time.sleep(_POLL_SECONDS)
