"""The asset that keeps the lake small."""

from dataclasses import asdict
from datetime import UTC, datetime

import dagster as dg

from mlops_assets.core.living_branches import oldest_branch
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.feature_store.registry import FeatureRegistry
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.maintenance import LakeMaintenance, LakePolicy, maintain_lake
from mlops_assets.maintenance.upkeep import LAKE_MAINTENANCE, upkeep_asset
from mlops_assets.online_store.store import OnlineStore
from mlops_assets.stages.faults import step

EXPIRED_NUMBERS_METADATA = "expired_numbers"
"""Metadata of a maintenance: first and last of adjacent snapshots that expired. `mlops trace` reads when one did."""


def build_lake_maintenance() -> dg.AssetsDefinition:
    """The asset. It reads no rows but the numbers of the snapshots that predictions name, and depends on nothing."""

    @upkeep_asset(
        key=LAKE_MAINTENANCE,
        description="The lake with its small files merged, without snapshots that nothing needs, and without files that nothing names.",
        kinds={"duckdb"},
        code_version="1",
    )
    @step
    def lake_maintenance(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        online_store: dg.ResourceParam[OnlineStore],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        policy = lake_policy(settings, online_store)
        done = maintain_lake(lake, policy, now=datetime.now(UTC), dry_run=False, report=context.log.info)
        return dg.MaterializeResult(metadata=_metadata(done))

    return lake_maintenance


def lake_policy(settings: Settings, online_store: OnlineStore) -> LakePolicy:
    """What the settings allow, the snapshots that the values of the online store are of, and since when branches read files."""
    project = current_project()
    views = FeatureRegistry.from_manifest(project.dbt_manifest).views
    states = (online_store.state(name, version) for name, version in views)
    return LakePolicy(
        kept_days=settings.kept_snapshot_days,
        traced_days=settings.kept_trace_days,
        grace_hours=settings.file_grace_hours,
        needed={state.snapshot for state in states if state is not None},
        branched=oldest_branch(project),
    )


def _metadata(done: LakeMaintenance) -> dict[str, dg.MetadataValue]:
    after = done.after or done.before
    return {
        **{name: dg.MetadataValue.int(value) for name, value in asdict(after).items()},
        "before": dg.MetadataValue.json(asdict(done.before)),
        "tables_merged": dg.MetadataValue.json(done.compacted),
        "tables_in_use": dg.MetadataValue.json(done.in_use),
        "snapshots_expired": dg.MetadataValue.int(done.expired),
        EXPIRED_NUMBERS_METADATA: dg.MetadataValue.json(done.expired_numbers),
        "snapshots_kept": dg.MetadataValue.json(done.kept),
        "files_removed": dg.MetadataValue.int(len(done.removed)),
        "orphans_removed": dg.MetadataValue.json(done.orphans[:100]),
        "oldest_work": dg.MetadataValue.timestamp(done.oldest_work),
    }
