"""The asset that removes the logs of old runs."""

from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import dagster as dg

from mlops_assets.core.settings import Settings
from mlops_assets.maintenance.run_logs import RunLogMaintenance, expire_run_logs
from mlops_assets.maintenance.upkeep import RUN_MAINTENANCE, upkeep_asset
from mlops_assets.stages.faults import step


def build_run_maintenance() -> dg.AssetsDefinition:
    """The asset. It reads no table, and depends on nothing."""

    @upkeep_asset(
        key=RUN_MAINTENANCE,
        description="Dagster's runs without the logs of old ones. What was materialized, observed and checked stays.",
        kinds={"postgres"},
        code_version="1",
    )
    @step
    def run_maintenance(context: dg.AssetExecutionContext, settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult:
        done = maintain_run_logs(context.instance, settings, dry_run=False, report=context.log.info)
        return dg.MaterializeResult(metadata=_metadata(done))

    return run_maintenance


def maintain_run_logs(
    instance: dg.DagsterInstance, settings: Settings, *, dry_run: bool, report: Callable[[str], None]
) -> RunLogMaintenance:
    """Remove the logs that are older than the settings keep them; with `dry_run` only count them."""
    before = datetime.now(UTC) - timedelta(days=settings.kept_run_days)
    return expire_run_logs(instance, before=before, dry_run=dry_run, report=report)


def _metadata(done: RunLogMaintenance) -> dict[str, dg.MetadataValue]:
    after = done.after or done.before
    return {
        **{name: dg.MetadataValue.int(value) for name, value in asdict(after).items()},
        "before": dg.MetadataValue.json(asdict(done.before)),
        "logs_removed": dg.MetadataValue.int(done.expired),
        "events_removed": dg.MetadataValue.int(done.events),
        "runs_deleted": dg.MetadataValue.int(len(done.deleted)),
    }
