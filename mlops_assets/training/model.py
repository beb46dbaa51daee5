"""`model`: a candidate fitted on one training dataset, logged and registered in MLflow with its ONNX serving bundle."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

import dagster as dg
import duckdb

from mlops_assets.clients.aliases import segment_alias
from mlops_assets.clients.bundle_record import Precision, TrainingIdentity
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.core import check_rules
from mlops_assets.core.keys import MODEL, TRAINING_DATASET, TRAINING_DATE
from mlops_assets.core.settings import Settings
from mlops_assets.lake.datasets import recorded_datasets
from mlops_assets.lake.lake import Lake
from mlops_assets.lake.sql import quote
from mlops_assets.lake.tables import fingerprint
from mlops_assets.schema.column_names import SPLIT
from mlops_assets.schema.configuration_errors import ConfigurationError
from mlops_assets.schema.training_rules import override_training
from mlops_assets.stages.execution import RETRIES, model_of_run, permanent_failure
from mlops_assets.stages.faults import step
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.stages.refusal import conclude
from mlops_assets.training.candidate import TrainingDataset, current_configuration_hash, train_candidate
from mlops_assets.training.copied_version import copy_version, read_original
from mlops_assets.training.recalibrated_version import read_base, recalibrate_version
from mlops_assets.training.training_dataset import dataset_query

_MOST_CHANGED = 0.01
"""Share of predictions that may change because numbers are read as float32. Measured: none, where an estimator reads the features
themselves; up to 0.7 % where trees read what another step has computed of them (docs/adr/0023)."""


class ModelConfig(dg.Config):
    """Run configuration: fields of the training section with other values for this run, such as `training.search.trials: 30`.

    With `recalibrate`, the number of a version, nothing is fitted but a recalibration of that version. With `copy_from`, the name of another
    environment, nothing is fitted at all: its version `copy_version` is copied.
    """

    overrides: dict[str, Any] = {}
    recalibrate: int | None = None
    copy_from: str | None = None
    copy_version: int | None = None


def build_model(solution_inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The candidate model of one solution; its partition key is the training date, of a segment's model with the segment."""
    key = solution_inputs.key(MODEL)

    @dg.asset(
        key=key,
        description="The best configuration of the training section fitted on the training dataset, registered as a candidate.",
        kinds={"sklearn", "mlflow", "onnx"},
        **solution_inputs.asset_attributes(MODEL),
        partitions_def=solution_inputs.training_partitions,
        deps=[dg.AssetDep(solution_inputs.key(TRAINING_DATASET), partition_mapping=dataset_mapping(solution_inputs))],
        check_specs=[check_rules.ONNX_PARITY.spec(key)],
        retry_policy=RETRIES,
        pool="training",
        code_version="3",
        output_required=False,
    )
    @step
    def model(
        context: dg.AssetExecutionContext,
        config: ModelConfig,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[ModelRegistry],
        settings: dg.ResourceParam[Settings],
    ) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
        training_date, of_run = model_of_run(context, solution_inputs)
        inputs = _effective(of_run, config.overrides)
        dataset = _dataset(lake, inputs, training_date)
        if config.recalibrate is not None and config.overrides:
            raise permanent_failure("overrides belong to the fit of a model, and `recalibrate` fits none: leave one of both out.")
        training = TrainingIdentity(
            training_date=training_date,
            dataset_fingerprint=dataset.fingerprint,
            configuration_hash=current_configuration_hash(inputs, with_budget=True),
            segment=inputs.segment,
        )
        base, original = None, None
        if config.copy_from is not None:
            if config.overrides or config.recalibrate is not None:
                raise permanent_failure("A copied version is not fitted: leave `overrides` and `recalibrate` out.")
            original = read_original(config.copy_from, inputs.name, config.copy_version, inputs.segment)
            training = original.identify(training)
        if config.recalibrate is not None:
            base = read_base(context.instance, registry, settings, inputs, config.recalibrate)
            training = base.identify(training, inputs)
        registered = registry.find(inputs.name, training.tags)
        fit_metadata: dict[str, Any] = {"reused": registered is not None}
        if registered is not None:
            fit_metadata["skipped"] = (
                f"Nothing was fitted: version {registered.version} was, on the same dataset ({dataset.fingerprint}) "
                f"with the same configuration ({training.configuration_hash})."
            )
        elif base is not None:
            registered, described = recalibrate_version(
                context, registry, settings, inputs, lake=lake, dataset=dataset, training=training, base=base
            )
            fit_metadata |= described
        elif original is not None:
            registered, described = copy_version(
                context, registry, settings, inputs, lake=lake, dataset=dataset, training=training, original=original
            )
            fit_metadata |= described
        else:
            context.log.info(f"Fitting on {dataset.training_rows} rows and {len(inputs.features)} features")
            registered, described = train_candidate(
                context, registry, settings, inputs, lake=lake, dataset=dataset, training=training
            )
            fit_metadata |= described
        if registered.recalibration is not None:
            fit_metadata["recalibration"] = registered.recalibration
        registry.set_alias(inputs.name, candidate_alias(training_date, inputs.segment), registered.version)
        precision = registry.registered_record(registry.get(inputs.name, registered.version)).precision
        limit = inputs.solution.gates.maximum_onnx_difference
        problem = precision_problem(precision, limit)
        refused_because = parity_refusal(precision, limit)
        if refused_because is not None:
            registry.reject(registered, refused_because)
        result: dg.MaterializeResult = dg.MaterializeResult(
            data_version=dg.DataVersion(f"{dataset.fingerprint}-{training.configuration_hash}"),
            metadata={
                "model_version": registered.version,
                "run_id": registered.run_id,
                **fit_metadata,
                "overrides": dg.MetadataValue.json(config.overrides),
                "mlflow": dg.MetadataValue.url(registry.version_url(registered)),
                "dataset_fingerprint": dataset.fingerprint,
                "training_rows": dataset.training_rows,
                "holdout_rows": dataset.holdout_rows,
                "features": len(inputs.features),
            },
            check_results=[
                check_rules.ONNX_PARITY.result(
                    key,
                    passed=problem is None,
                    metadata={
                        "largest_difference": precision.largest_difference,
                        "limit": limit,
                        "rows": precision.rows,
                        "changed_by_float32": precision.float32_changed,
                        "limit_changed_by_float32": _MOST_CHANGED,
                        "mean_change_by_float32": precision.float32_mean_change,
                    },
                    description=problem,
                )
            ],
        )
        yield from conclude(context, result, refused_because)

    return model


def parity_refusal(precision: Precision, limit: float) -> str | None:
    """Return the reason why the precision of its bundle refuses a candidate, with the name of the check; None within the limit."""
    problem = precision_problem(precision, limit)
    return None if problem is None else f"{check_rules.ONNX_PARITY.name}: {problem}"


def precision_problem(precision: Precision, limit: float) -> str | None:
    """Describe by how much the serving bundle predicts otherwise than the model; None within the limit."""
    if precision.largest_difference > limit:
        return (
            "the serving bundle predicts something else than the model "
            f"(difference {precision.largest_difference:.2g}, limit {limit:g})"
        )
    if precision.float32_changed > _MOST_CHANGED or precision.float32_mean_change > limit:
        return (
            f"reading the features as float32 changes {precision.float32_changed:.1%} of the predictions by more than {limit:g} "
            f"(at most {_MOST_CHANGED:.0%}), and all by {precision.float32_mean_change:.2g} on average (at most {limit:g}): a value of the "
            "hold-out is far from those of the training rows, or a feature needs more digits than float32 has"
        )
    return None


CANDIDATE_PREFIX = "candidate-"
"""Aliases of candidates begin with it."""


def candidate_alias(training_date: date, segment: str | None) -> str:
    """The MLflow alias of the version that `model` made, or found again, for `training_date` (and `segment`)."""
    return segment_alias(f"{CANDIDATE_PREFIX}{training_date}", segment)


def dataset_mapping(inputs: SolutionInputs) -> dg.PartitionMapping | None:
    """The models of all segments are fitted on parts of the one dataset of their training date."""
    if not inputs.by_segment:
        return None
    return dg.MultiToSingleDimensionPartitionMapping(partition_dimension_name=TRAINING_DATE)


def _effective(inputs: SolutionInputs, overrides: Mapping[str, Any]) -> SolutionInputs:
    """The inputs with the overrides of this run. Raises Failure when they do not fit the schema."""
    try:
        return replace(inputs, solution=override_training(inputs.solution, overrides)) if overrides else inputs
    except ConfigurationError as error:
        raise permanent_failure(f"overrides: {error}") from error


def _dataset(lake: Lake, inputs: SolutionInputs, training_date: date) -> TrainingDataset:
    query = dataset_query(inputs, training_date)
    with lake.connect(read_only=True) as connection:
        identity = fingerprint(connection, query)
        counts = dict(
            connection.execute(f"SELECT {SPLIT}, count(*) FROM {query} WHERE {inputs.in_segment} GROUP BY ALL").fetchall()
        )
        lacking = _lacking_classes(connection, inputs, query)
        recorded = recorded_datasets(connection, inputs.table(TRAINING_DATASET))
    if not counts.get("train") or not counts.get("holdout"):
        part = f" of the segment {inputs.segment}" if inputs.segment else ""
        raise permanent_failure(f"The training dataset of {training_date} has no rows{part} to train or to evaluate on.")
    if lacking:
        raise permanent_failure(
            f"The segment {inputs.segment} has no training row of {', '.join(lacking)}: take it from `segments.values`, and the "
            f"model of {inputs.name} predicts its rows."
        )
    snapshots = [dataset.source_snapshot for dataset in recorded if dataset.training_date == training_date.isoformat()]
    return TrainingDataset(
        training_date=training_date,
        fingerprint=identity,
        training_rows=counts["train"],
        holdout_rows=counts["holdout"],
        source_snapshot=snapshots[-1],
    )


def _lacking_classes(connection: duckdb.DuckDBPyConnection, inputs: SolutionInputs, query: str) -> list[str]:
    """Classes of the dataset that its segment has no row of: its predictions would not fit those of the other rows."""
    if inputs.segment is None or inputs.solution.problem == "regression":
        return []
    label = f"SELECT CAST({quote(inputs.solution.spine.label)} AS VARCHAR) FROM {query} WHERE {SPLIT} = 'train'"
    rows = connection.execute(f"{label} EXCEPT {label} AND {inputs.in_segment} ORDER BY 1").fetchall()
    return [value for (value,) in rows]
