"""`model`: a candidate fitted on one training dataset, logged and registered in MLflow with its ONNX serving bundle."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.assets.bundle_writing import write_model_bundle
from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure
from mlops_assets.assets.fitting import Fitted, default_estimator, fit, run_search
from mlops_assets.assets.training_dataset import dataset_query, dataset_rows_query
from mlops_assets.checks import rules
from mlops_assets.configuration import ConfigurationError
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import MODEL, TRAINING_DATASET
from mlops_assets.resources.datasets import recorded_datasets
from mlops_assets.resources.lake import Lake, fingerprint
from mlops_assets.resources.model_registry import (
    CONFIGURATION_TAG,
    DATASET_FINGERPRINT_TAG,
    TRAINING_DATE_TAG,
    ModelRegistry,
    RegisteredModel,
)
from mlops_assets.resources.provenance import code_versions
from mlops_assets.resources.search_storage import search_storage
from mlops_assets.resources.training_runs import log_dataset, log_trial, logged_trials, unfinished_run
from mlops_assets.settings import DBT_PROJECT_DIRECTORY, Settings
from mlops_assets.training_configuration import configuration_hash, override

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.onnx import Parity
    from mlops_assets.ml.search import SearchResult, TrialResult

_PARITY_ROWS = 20_000
_PARITY_TAGS = ("onnx_largest_difference", "onnx_rows")


class ModelConfig(dg.Config):
    """Run configuration: fields of the training section with other values for this run, such as `training.search.trials: 30`."""

    overrides: dict[str, Any] = {}


@dataclass(frozen=True)
class _Dataset:
    """The rows of one training date, and the identity of both halves together."""

    train: "pa.Table"
    holdout: "pa.Table"
    fingerprint: str
    source_snapshot: int


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
        dataset = _read(lake, inputs, training_date)
        tags = {
            TRAINING_DATE_TAG: training_date.isoformat(),
            DATASET_FINGERPRINT_TAG: dataset.fingerprint,
            CONFIGURATION_TAG: _hash(inputs, with_budget=True),
        }
        registered = registry.find(inputs.name, tags)
        found: dict[str, Any] = {"reused": registered is not None}
        if registered is not None:
            found["skipped"] = (
                f"Nothing was fitted: version {registered.version} was, on the same dataset ({dataset.fingerprint}) "
                f"with the same configuration ({tags[CONFIGURATION_TAG]})."
            )
        else:
            context.log.info(f"Fitting on {dataset.train.num_rows} rows and {len(inputs.features)} features")
            registered, described = _train(context, registry, settings, inputs, dataset=dataset, tags=tags)
            found |= described
        registry.set_alias(inputs.name, candidate_alias(training_date), registered.version)
        difference, rows = (float(registered.tags[tag]) for tag in _PARITY_TAGS)
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
                "training_rows": dataset.train.num_rows,
                "holdout_rows": dataset.holdout.num_rows,
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


def _hash(inputs: SolutionInputs, *, with_budget: bool) -> str:
    return configuration_hash(
        inputs.solution, features=inputs.features, view_versions=inputs.view_versions, with_budget=with_budget
    )


def _read(lake: Lake, inputs: SolutionInputs, training_date: date) -> _Dataset:
    with lake.connect(read_only=True) as connection:
        identity = fingerprint(connection, dataset_query(inputs, training_date))
        train = connection.execute(dataset_rows_query(inputs, training_date, "train")).to_arrow_table()
        holdout = connection.execute(dataset_rows_query(inputs, training_date, "holdout")).to_arrow_table()
        recorded = recorded_datasets(connection, inputs.table(TRAINING_DATASET))
    if not train.num_rows or not holdout.num_rows:
        raise permanent_failure(f"The training dataset of {training_date} has no rows to train or to evaluate on.")
    snapshots = [each.source_snapshot for each in recorded if each.training_date == training_date.isoformat()]
    return _Dataset(train=train, holdout=holdout, fingerprint=identity, source_snapshot=snapshots[-1])


def _train(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    dataset: _Dataset,
    tags: dict[str, str],
) -> tuple[RegisteredModel, dict[str, Any]]:
    """Search, fit, export, log and register. Returns the version and what the asset's page says of it."""
    from mlops_assets.ml.matrix import FeatureSchema, to_frame
    from mlops_assets.ml.onnx import parity, to_onnx

    solution = inputs.solution
    run_id = unfinished_run(registry, inputs.name, tags) or registry.start_run(
        inputs.name, name=tags[TRAINING_DATE_TAG], tags={**tags, "dagster_run_id": context.run.run_id, "solution": inputs.name}
    )
    succeeded = False
    try:
        schema = FeatureSchema.from_arrow(dataset.train.schema, inputs.features)
        try:
            searched = _search(context, registry, settings, inputs, schema=schema, dataset=dataset, run_id=run_id)
            fitted = fit(inputs, schema, dataset.train, searched.best.step if searched else default_estimator(inputs))
        except ValueError as error:
            raise permanent_failure(str(error)) from error
        exported = to_onnx(fitted.pipeline, schema, solution.problem)
        sample = to_frame(dataset.holdout.slice(0, _PARITY_ROWS), schema)
        compared = parity(fitted.pipeline, exported, sample, schema, solution.problem)
        _log(registry, run_id, inputs, fitted, searched, dataset=dataset, compared=compared)
        version_tags = {
            **tags,
            "dagster_run_id": context.run.run_id,
            "lake_snapshot": str(dataset.source_snapshot),
            "feature_views": json.dumps(inputs.view_versions),
            **code_versions(DBT_PROJECT_DIRECTORY / "target" / "manifest.json"),
            **dict(zip(_PARITY_TAGS, (str(_difference(compared)), str(len(sample))), strict=True)),
        }
        registered = registry.register(inputs.name, run_id, fitted.pipeline, version_tags)
        with tempfile.TemporaryDirectory() as folder:
            write_model_bundle(
                Path(folder) / "bundle",
                inputs,
                schema=schema,
                train=dataset.train,
                model=exported,
                threshold=fitted.threshold,
                registered=registered,
            )
            registry.log_bundle(registered, Path(folder) / "bundle")
        succeeded = True
    finally:
        registry.finish_run(run_id, succeeded=succeeded)
    return registered, _described(inputs, fitted, searched)


def _search(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    schema: "FeatureSchema",
    dataset: _Dataset,
    run_id: str,
) -> "SearchResult | None":
    """The search, if the solution declares one: every trial in the run's log, and in MLflow below `run_id`."""
    declared, metric = inputs.solution.training.effective_search, inputs.solution.training.metric
    if declared is None:
        return None
    study = f"{inputs.name}-{dataset.fingerprint}-{_hash(inputs, with_budget=False)}"
    logged = logged_trials(registry, run_id)

    def report(trial: "TrialResult", best: "TrialResult") -> None:
        value = trial.state if trial.value is None else f"{metric} {trial.value:.5f}"
        context.log.info(
            f"Trial {trial.ordinal + 1} of {declared.trials}: {value} in {trial.seconds:.1f} s, best {best.value:.5f} "
            f"(trial {best.ordinal + 1}), {trial.step.class_path.rpartition('.')[2]} {dict(trial.step.parameters)}"
            + (f", {trial.error}" if trial.error else "")
        )
        if trial.ordinal not in logged:
            log_trial(registry, run_id, trial, metric)

    return run_search(inputs, schema, dataset.train, storage=search_storage(settings, study), name=study, report=report)


def _log(
    registry: ModelRegistry,
    run_id: str,
    inputs: SolutionInputs,
    fitted: Fitted,
    searched: "SearchResult | None",
    *,
    dataset: _Dataset,
    compared: "Parity",
) -> None:
    """Parameters, metrics, the dataset and the history of the search, with the run behind the version."""
    training = inputs.solution.training
    registry.log(
        run_id,
        parameters={
            "estimator": fitted.estimator.class_path,
            **{f"estimator.{name}": value for name, value in fitted.estimator.parameters.items()},
            **training.model_dump(mode="json", include={"window", "holdout", "seed", *_options(inputs)}),
            "chosen_threshold": fitted.threshold,
            "features": len(inputs.features),
            "feature_views": json.dumps(inputs.view_versions),
        },
        metrics={
            "fit_seconds": fitted.seconds,
            "training_rows": dataset.train.num_rows,
            "holdout_rows": dataset.holdout.num_rows,
            "onnx_largest_difference": _difference(compared),
            "threshold_objective": fitted.threshold_objective,
            "search_trials": len(searched.trials) if searched else None,
            f"search_best_{training.metric}": searched.best.value if searched else None,
            f"search_default_{training.metric}": searched.default.value if searched else None,
        },
    )
    table = inputs.table(TRAINING_DATASET)
    log_dataset(
        registry,
        run_id,
        table=table,
        fingerprint=dataset.fingerprint,
        source={"table": table, "lake_snapshot": dataset.source_snapshot, "feature_views": inputs.view_versions},
        profile={"training_rows": dataset.train.num_rows, "holdout_rows": dataset.holdout.num_rows},
    )
    if searched:
        from mlops_assets.ml.search_plot import search_plot

        registry.log_plots(run_id, {"search": search_plot(searched, training.metric)})


def _options(inputs: SolutionInputs) -> set[str]:
    """Options of the training section that the solution uses."""
    return inputs.solution.training.model_fields_set & {
        "sample_weight",
        "class_weight",
        "calibration",
        "decision_threshold",
        "folds",
    }


def _described(inputs: SolutionInputs, fitted: Fitted, searched: "SearchResult | None") -> dict[str, Any]:
    """What the asset's page says of a fit."""
    metadata: dict[str, Any] = {
        "estimator": fitted.estimator.class_path,
        "parameters": dg.MetadataValue.json(dict(fitted.estimator.parameters)),
        "fit_seconds": fitted.seconds,
    }
    if fitted.threshold is not None:
        metadata["decision_threshold"] = fitted.threshold
    if searched:
        from mlops_assets.ml.plots import markdown_image
        from mlops_assets.ml.search_plot import search_plot, search_table

        metric = inputs.solution.training.metric
        metadata["trials"] = len(searched.trials)
        metadata["search"] = dg.MetadataValue.md(search_table(searched, metric))
        metadata["plot_search"] = dg.MetadataValue.md(markdown_image("search", search_plot(searched, metric)))
    return metadata


def _difference(compared: "Parity") -> float:
    """Relative where predictions are large, so that one limit suits probabilities and values."""
    return compared.largest_relative_difference
