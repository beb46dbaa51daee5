"""Runs of the local Dagster, followed to their end."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.errors import StackError
from mlops_assets.core.patience import PATIENCE_SECONDS

_RAW = "raw/"
"""How the keys of raw tables begin; spelled as in `keys.py`, which imports Dagster."""
_POLL_SECONDS = 0.5
_SHORT_POLL_SECONDS, _SHORT_RUN_SECONDS = 0.1, 5.0
"""A run may be a rollback, for which somebody waits: it is asked for more often while it is young."""
_GIVEN_UP_SECONDS = PATIENCE_SECONDS
"""So long is waited for the run that goes on with one on which Dagster gave up, since its code could not be reached at that moment."""
_STEP_POLLS = 10
"""The steps are asked for in one of so many polls: of a run with thousands of events each answer takes Dagster a tenth of a second."""


def follow_run(client: DagsterClient, run_id: str, name: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has succeeded; `report` hears how it stands. Raises StackError with the causes when it fails."""
    state = wait_for_run(client, run_id, report)
    if state.status != "SUCCESS":
        causes = client.failures(state.run_id)
        reasons = "\n".join(causes) or state.status
        remedy = f"{_of_deliveries(causes)}The run with its logs: {client.run_url(state.run_id)}"
        raise StackError(f"The run of {name} failed.\n{reasons}", remedy=remedy)
    return state


def wait_for_run(client: DagsterClient, run_id: str, report: Callable[[RunState], None]) -> RunState:
    """Wait until the run has ended, well or not, or the one that goes on with it; `report` hears how it stands."""
    while True:
        for state in poll_run(client, run_id):
            report(state)
        if state.followed_by is None:
            return state
        run_id = state.followed_by


def poll_run(client: DagsterClient, run_id: str) -> Iterator[RunState]:
    """Yield the state of the run, twice a second or more often, until it will not change any more; its steps may be some seconds old."""
    began, ended_at = time.monotonic(), None
    known = client.run(run_id)
    for poll in itertools.count(1):
        yield known
        if known.finished:
            ended_at = ended_at or time.monotonic()
            may_go_on = known.is_interrupted and known.followed_by is None
            if not may_go_on or time.monotonic() - ended_at > _GIVEN_UP_SECONDS:
                return
        time.sleep(_SHORT_POLL_SECONDS if time.monotonic() - began < _SHORT_RUN_SECONDS else _POLL_SECONDS)
        asks_steps = poll % _STEP_POLLS == 0
        state = client.run(run_id, with_steps=asks_steps)
        if state.finished and not asks_steps:
            state = client.run(run_id)
        has_steps = asks_steps or state.finished
        known = state if has_steps else replace(state, steps=known.steps, running=known.running, seconds=known.seconds)


def _of_deliveries(causes: Sequence[str]) -> str:
    """What to do about the raw tables whose checks are among the `causes` of a failed run."""
    keys = sorted({cause.partition(":")[0] for cause in causes if cause.startswith(_RAW)})
    return "".join(
        f"Deliver corrected rows, or take those of {key} as they are: materialize it in Dagster with the configuration "
        f"`ops: {{{key.replace('/', '__')}: {{config: {{accept: why}}}}}}`\n"
        for key in keys
    )
