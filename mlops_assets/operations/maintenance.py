"""Maintenance on request: a run of its job, or what such a run would do."""

from collections.abc import Callable
from datetime import UTC, datetime

from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakeMaintenance, maintain_lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local import control, preflight
from mlops_assets.maintenance.lake_maintenance import LAKE_MAINTENANCE, lake_policy
from mlops_assets.online_store.store import open_online_store
from mlops_assets.operations.runs import follow_run


def plan_maintenance(settings: Settings, report: Callable[[str], None]) -> LakeMaintenance:
    """Find what maintenance would do now, and do none of it. Raises StackError when there is no installation."""
    preflight.check_installation(settings)
    try:
        with control.storage(settings):
            policy = lake_policy(settings, open_online_store(settings))
            return maintain_lake(Lake.from_settings(settings), policy, now=datetime.now(UTC), dry_run=True, report=report)
    except LakeError as error:
        raise StackError(str(error), remedy="See what does not run: mlops status") from error


def run_maintenance(client: DagsterClient, report: Callable[[RunState], None]) -> str:
    """Launch the job and wait for it; `report` hears how the run stands. Returns its id. Raises StackError when it fails."""
    key = LAKE_MAINTENANCE.to_user_string()
    asset = client.assets([key])[key]
    run_id = client.launch([asset], None, None, {}, purpose="maintenance")
    return follow_run(client, run_id, "maintenance", report).run_id
