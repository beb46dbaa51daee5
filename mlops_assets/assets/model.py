"""`model`: a candidate fitted on one training dataset, logged and registered in MLflow with its ONNX serving bundle."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg

from mlops_assets.assets.candidate import PARITY_TAGS, TrainingDataset, configuration_of, train_candidate
from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure
from mlops_assets.assets.training_dataset import dataset_query
from mlops_assets.checks import rules
from mlops_assets.configuration import ConfigurationError
from mlops_assets.inputs import SPLIT, SolutionInputs
from mlops_assets.keys import MODEL, TRAINING_DATASET
from mlops_assets.resources.datasets import recorded_datasets
from mlops_assets.resources.lake import Lake, fingerprint
from mlops_assets.resources.model_registry import CONFIGURATION_TAG, DATASET_FINGERPRINT_TAG, TRAINING_DATE_TAG, ModelRegistry
from mlops_assets.settings import Settings
from mlops_assets.training_configuration import override


class ModelConfig(dg.Config):
    """Run configuration: fields of the training section with other values for this run, such as `training.search.trials: 30`."""

    overrides: dict[str, Any] = {}


def build_model(declared: SolutionInputs) -> dg.AssetsDefinition:
    """The candidate model of one solution; its partition key is the training date."""
    key = declared.key(MODEL)

    @dg.asset(
        key=key,
        description="The best configuration of the training section fitted on the training dataset, registered as a candidate.",
        owners=declared.solution.owners,
        group_name=declared.name,
        kinds={"sklearn", "mlflow", "onnx"},
        tags=declared.tags(MODEL),
        partitions_def=declared.partitions,
        deps=[declared.key(TRAINING_DATASET)],
        check_specs=[rules.ONNX_PARITY.spec(key)],
        retry_policy=RETRIES,
        pool="training",
        code_version="2",
    )
    def model(
        context: dg.AssetExecutionContext,
        config: ModelConfig,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> dg.MaterializeResult:
        training_date = partition_date(context)
        inputs = _effective(declared, config.overrides)
        dataset = _dataset(lake, inputs, training_date)
        tags = {
            TRAINING_DATE_TAG: training_date.isoformat(),
            DATASET_FINGERPRINT_TAG: dataset.fingerprint,
            CONFIGURATION_TAG: configuration_of(inputs, with_budget=True),
        }
        registered = registry.find(inputs.name, tags)
        found: dict[str, Any] = {"reused": registered is not None}
        if registered is not None:
            found["skipped"] = (
                f"Nothing was fitted: version {registered.version} was, on the same dataset ({dataset.fingerprint}) "
                f"with the same configuration ({tags[CONFIGURATION_TAG]})."
            )
        else:
            context.log.info(f"Fitting on {dataset.training_rows} rows and {len(inputs.features)} features")
            registered, described = train_candidate(context, registry, settings, inputs, lake=lake, dataset=dataset, tags=tags)
            found |= described
        registry.set_alias(inputs.name, candidate_alias(training_date), registered.version)
        difference, rows = (float(registered.tags[tag]) for tag in PARITY_TAGS)
        limit = inputs.solution.gates.maximum_onnx_difference
        unlike = None if difference <= limit else "the serving bundle predicts something else than the model"
        if unlike is not None:
            registry.reject(registered, f"{rules.ONNX_PARITY.name}: {unlike} (difference {difference:.2g}, limit {limit:g})")
        return dg.MaterializeResult(
            data_version=dg.DataVersion(f"{dataset.fingerprint}-{tags[CONFIGURATION_TAG]}"),
            metadata={
                "model_version": registered.version,
                "run_id": registered.run_id,
                **found,
                "overrides": dg.MetadataValue.json(config.overrides),
                "mlflow": dg.MetadataValue.url(registry.version_url(registered)),
                "dataset_fingerprint": dataset.fingerprint,
                "training_rows": dataset.training_rows,
                "holdout_rows": dataset.holdout_rows,
                "features": len(inputs.features),
            },
            check_results=[
                rules.ONNX_PARITY.result(
                    key,
                    passed=unlike is None,
                    metadata={"largest_difference": difference, "limit": limit, "rows": int(rows)},
                    description=unlike,
                )
            ],
        )

    return model


def candidate_alias(training_date: date) -> str:
    """The MLflow alias of the version that `model` made, or found again, for `training_date`."""
    return f"candidate-{training_date}"


def _effective(declared: SolutionInputs, overrides: Mapping[str, Any]) -> SolutionInputs:
    """The inputs with the overrides of this run. Raises Failure when they do not fit the schema."""
    try:
        return replace(declared, solution=override(declared.solution, overrides)) if overrides else declared
    except ConfigurationError as error:
        raise permanent_failure(f"overrides: {error}") from error


def _dataset(lake: Lake, inputs: SolutionInputs, training_date: date) -> TrainingDataset:
    query = dataset_query(inputs, training_date)
    with lake.connect(read_only=True) as connection:
        identity = fingerprint(connection, query)
        counts = dict(connection.execute(f"SELECT {SPLIT}, count(*) FROM {query} GROUP BY ALL").fetchall())
        recorded = recorded_datasets(connection, inputs.table(TRAINING_DATASET))
    if not counts.get("train") or not counts.get("holdout"):
        raise permanent_failure(f"The training dataset of {training_date} has no rows to train or to evaluate on.")
    snapshots = [each.source_snapshot for each in recorded if each.training_date == training_date.isoformat()]
    return TrainingDataset(
        training_date=training_date,
        fingerprint=identity,
        training_rows=counts["train"],
        holdout_rows=counts["holdout"],
        source_snapshot=snapshots[-1],
    )
