"""Runs of the local stack whose processes are gone, or have to end: what `mlops up`, `down` and `status` do about them."""

import signal
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from mlops_assets.core.settings import Settings
from mlops_assets.local import postgres
from mlops_assets.runs.workers import Workers, WorkerState

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from mlops_assets.runs.stuck import Blockage

_POLL_SECONDS = 0.1
_DATABASE, _RUNS = "dagster", "runs"
_UNWATCHED = "SELECT count(*) FROM runs WHERE status IN ('NOT_STARTED', 'STARTING', 'STARTED', 'CANCELING')"


def recover_runs(settings: Settings, *, served: bool) -> int:
    """Fail the runs whose worker is gone, so that Dagster tries them again. Returns how many. Postgres must answer.

    `served`: whether daemon or webserver run, who may be starting some.
    """
    if not postgres.has_table(settings, _DATABASE, _RUNS) or not postgres.query_value(settings, _DATABASE, _UNWATCHED):
        return 0  # without the second that Dagster takes to import
    from mlops_assets.runs.recovery import recover_runs

    with _instance(settings) as instance:
        return len(recover_runs(instance, served=served))


def find_blockages(settings: Settings) -> "list[Blockage]":
    """The runs and pools that stand still. Postgres must answer."""
    if not postgres.has_table(settings, _DATABASE, _RUNS):
        return []
    from mlops_assets.runs.stuck import find_blockages

    with _instance(settings) as instance:
        return find_blockages(instance)


def end_runs(settings: Settings, seconds: float) -> None:
    """Ask every worker to end its run, and wait for at most so long: what is left is ended with the other processes."""
    workers = Workers(settings.run_worker_directory)
    living = [run_id for run_id in workers.run_ids() if workers.send(run_id, signal.SIGTERM)]
    deadline = time.monotonic() + seconds
    while living and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
        living = [run_id for run_id in living if workers.state(run_id) is WorkerState.ALIVE]


def _instance(settings: Settings) -> "AbstractContextManager[DagsterInstance]":
    from dagster import DagsterInstance

    return DagsterInstance.from_config(str(settings.dagster_home))
