"""The asset that removes what MLflow holds of old candidates that nobody uses."""

from datetime import UTC, datetime

import dagster as dg

from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core.settings import Settings
from mlops_assets.lake.lake import Lake
from mlops_assets.maintenance.refused_versions import ModelMaintenance, ModelUpkeep
from mlops_assets.maintenance.upkeep import MODEL_MAINTENANCE, upkeep_asset
from mlops_assets.stages.faults import step


def build_model_maintenance() -> dg.AssetsDefinition:
    """The asset. Of the lake it reads which versions have predicted, and depends on nothing."""

    @upkeep_asset(
        key=MODEL_MAINTENANCE,
        description="MLflow without the runs and files of old candidates that were refused and that nothing names.",
        kinds={"mlflow"},
        code_version="1",
    )
    @step
    def model_maintenance(
        context: dg.AssetExecutionContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        with lake.connect(read_only=True) as connection:
            upkeep = ModelUpkeep(registry, context.instance, connection, settings, datetime.now(UTC))
            done = upkeep.run(dry_run=False, report=context.log.info)
        return dg.MaterializeResult(metadata=_metadata(done))

    return model_maintenance


def _metadata(done: ModelMaintenance) -> dict[str, dg.MetadataValue]:
    return {
        "versions": dg.MetadataValue.int(done.versions),
        "runs": dg.MetadataValue.int(done.runs),
        "versions_expired": dg.MetadataValue.json(done.expired),
        "runs_abandoned": dg.MetadataValue.int(len(done.abandoned)),
        "runs_removed": dg.MetadataValue.int(len(done.removed)),
        "searches_removed": dg.MetadataValue.int(len(done.studies)),
    }
