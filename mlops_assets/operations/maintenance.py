"""Maintenance on request: a run of its job, or what such a run would do."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.clients.champion import RegistryUnreachableError
from mlops_assets.clients.dagster_client import DagsterClient, RunState
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.errors import StackError
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakeMaintenance, maintain_lake
from mlops_assets.lake.tables import LakeError
from mlops_assets.local import control, preflight
from mlops_assets.maintenance.lake_maintenance import lake_policy
from mlops_assets.maintenance.refused_versions import ModelMaintenance, ModelUpkeep
from mlops_assets.maintenance.report_maintenance import ReportMaintenance, expire_reports
from mlops_assets.maintenance.run_logs import RunLogMaintenance
from mlops_assets.maintenance.run_maintenance import maintain_run_logs
from mlops_assets.maintenance.upkeep import MAINTENANCE_ASSETS
from mlops_assets.online_store.store import open_online_store
from mlops_assets.operations.runs import follow_run


@dataclass(frozen=True)
class MaintenancePlan:
    """What maintenance would do now, of each of its assets."""

    lake: LakeMaintenance
    runs: RunLogMaintenance
    models: ModelMaintenance | None
    """None where MLflow does not answer."""
    reports: ReportMaintenance


def plan_maintenance(settings: Settings, report: Callable[[str], None]) -> MaintenancePlan:
    """Find what maintenance would do now, and do none of it. Raises StackError when there is no installation."""
    preflight.check_installation(settings)
    try:
        with control.storage(settings), dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
            policy = lake_policy(settings, open_online_store(settings))
            lake = Lake.from_settings(settings)
            return MaintenancePlan(
                lake=maintain_lake(lake, policy, now=datetime.now(UTC), dry_run=True, report=report),
                runs=maintain_run_logs(instance, settings, dry_run=True, report=report),
                models=_plan_models(settings, instance, lake, report),
                reports=expire_reports(settings, now=datetime.now(UTC), dry_run=True),
            )
    except LakeError as error:
        raise StackError(str(error), remedy="See what does not run: mlops status") from error


def _plan_models(
    settings: Settings, instance: dg.DagsterInstance, lake: Lake, report: Callable[[str], None]
) -> ModelMaintenance | None:
    registry = ModelRegistry.from_settings(settings)
    with lake.connect(read_only=True) as connection:
        try:
            return ModelUpkeep(registry, instance, connection, settings, datetime.now(UTC)).run(dry_run=True, report=report)
        except RegistryUnreachableError:
            return None


def run_maintenance(client: DagsterClient, report: Callable[[RunState], None]) -> str:
    """Launch the job and wait for it; `report` hears how the run stands. Returns its id. Raises StackError when it fails."""
    states = client.assets([key.to_user_string() for key in MAINTENANCE_ASSETS])
    run_id = client.launch(list(states.values()), None, None, {}, purpose="maintenance")
    return follow_run(client, run_id, "maintenance", report).run_id
