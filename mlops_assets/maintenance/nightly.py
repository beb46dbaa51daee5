"""The assets of maintenance, their job and its schedule."""

import dagster as dg

from mlops_assets.core.asset_jobs import AssetJob, define_job
from mlops_assets.core.keys import PLATFORM, job_name
from mlops_assets.core.schedules import schedule_status
from mlops_assets.maintenance.lake_maintenance import build_lake_maintenance
from mlops_assets.maintenance.model_maintenance import build_model_maintenance
from mlops_assets.maintenance.report_maintenance import build_report_maintenance
from mlops_assets.maintenance.run_maintenance import build_run_maintenance
from mlops_assets.maintenance.upkeep import MAINTENANCE_ASSETS

_NAME = job_name(PLATFORM, "maintenance")


def build_maintenance_assets() -> list[dg.AssetsDefinition]:
    """The assets, of which each keeps something small."""
    return [build_lake_maintenance(), build_run_maintenance(), build_model_maintenance(), build_report_maintenance()]


def build_maintenance_job() -> AssetJob:
    """The job that the schedule and `mlops maintenance` launch."""
    return define_job(
        _NAME,
        selection=dg.AssetSelection.assets(*MAINTENANCE_ASSETS),
        description="Keeps small what grows with use: the lake, the logs of runs, what MLflow holds of refused candidates, HTML reports.",
    )


def build_maintenance_schedule() -> dg.ScheduleDefinition:
    """The schedule: every night, and on, but for a branch."""
    return dg.ScheduleDefinition(
        name=f"{_NAME}_schedule",
        job_name=_NAME,
        cron_schedule="30 3 * * *",
        execution_timezone="UTC",
        description="Maintains every night at 03:30 (UTC).",
        default_status=schedule_status(),
    )
