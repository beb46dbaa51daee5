"""Candidates, from a training dataset to a registered version: search, fit, refit with the hold-out, export, MLflow, serving bundle."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.clients.bundle_record import GATED_FOLDER, Precision, TrainingIdentity
from mlops_assets.clients.model_registry import ModelRegistry
from mlops_assets.clients.registered_model import ENVIRONMENT_TAG, RegisteredModel
from mlops_assets.clients.search_storage import search_storage
from mlops_assets.core.environment_files import environment_name
from mlops_assets.core.keys import TRAINING_DATASET
from mlops_assets.core.project import current_project
from mlops_assets.core.settings import Settings
from mlops_assets.engine.engine import open_engine
from mlops_assets.lake.lake import Lake
from mlops_assets.schema.training_rules import configuration_hash
from mlops_assets.stages.execution import permanent_failure
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.allowed_histories import allowed_histories
from mlops_assets.training.bundle_reading import keep_bundle
from mlops_assets.training.bundle_writing import parity_sample, write_model_bundle
from mlops_assets.training.exported_fit import ExportedFit, feature_schema, fit_version, least_precise
from mlops_assets.training.fitting import default_estimator, run_search
from mlops_assets.training.helpful_rows import HelpfulRows, helpful_rows
from mlops_assets.training.provenance import code_versions
from mlops_assets.training.training_dataset import dataset_rows_query
from mlops_assets.training.training_runs import (
    MAKER_TAG,
    SOLUTION_TAG,
    log_dataset,
    log_trial,
    logged_trials,
    unfinished_run,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.search import SearchResult, TrialResult


@dataclass(frozen=True)
class TrainingDataset:
    """The dataset of one training date: the identity of all its rows, how many there are, the lake snapshot they come from."""

    training_date: date
    fingerprint: str
    training_rows: int
    holdout_rows: int
    source_snapshot: int


def current_configuration_hash(inputs: SolutionInputs, *, with_budget: bool) -> str:
    """The hash of the configuration that `inputs` have now; see `configuration_hash`."""
    # Another expression is another feature, whatever its name and its values in this dataset.
    features = [f"{name} = {inputs.derived[name]}" if name in inputs.derived else name for name in inputs.features]
    return configuration_hash(
        inputs.solution, features=features, view_versions=inputs.view_versions, segment=inputs.segment, with_budget=with_budget
    )


def train_candidate(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    lake: Lake,
    dataset: TrainingDataset,
    training: TrainingIdentity,
) -> tuple[RegisteredModel, dict[str, Any]]:
    """Search, fit, export, log and register. Returns the version and what the asset's page says of it."""
    with lake.connect(read_only=True) as connection:
        earlier, train, holdout = (
            connection.execute(dataset_rows_query(inputs, dataset.training_date, split)).to_arrow_table()
            for split in ("earlier", "train", "holdout")
        )
    with training_run(context, registry, inputs, training) as run_id:
        try:
            helpful = helpful_rows(inputs, earlier, train, holdout, dataset.training_date)
            train = helpful.rows
            schema = feature_schema(inputs, train)
            searched = _search(context, registry, settings, inputs, schema=schema, train=train, dataset=dataset, run_id=run_id)
            estimator = searched.best.step if searched else default_estimator(inputs)
            with open_engine(settings.engine, settings) as engine:
                gated, served = fit_version(inputs, train, holdout, estimator, engine=engine)
        except ValueError as error:
            raise permanent_failure(str(error)) from error
        precision = least_precise(gated.precision, served.precision)
        _log(registry, run_id, inputs, served, searched, dataset=dataset, helpful=helpful, precision=precision)
        tags = version_tags(context, inputs, dataset, training)
        registered = registry.register(inputs.name, run_id, served.fitted.pipeline, tags)
        words = (
            f"{estimator.class_path.rpartition('.')[2]} for {inputs.segment or 'all rows'}, "
            f"trained on {served.rows.num_rows:,} rows known at {dataset.training_date}."
        )
        describe_version(registry, registered, inputs, words)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            _write(bundle, inputs, served, holdout, registered)
            if served is not gated:
                _write(bundle / GATED_FOLDER, inputs, gated, holdout, registered)
            registry.log_bundle(registered, bundle, training=training, precision=precision)
            keep_bundle(settings, registered, bundle)
    return registered, {**_described(inputs, served, searched), "earlier_rows": helpful.earlier}


@contextmanager
def training_run(
    context: dg.AssetExecutionContext, registry: ModelRegistry, inputs: SolutionInputs, training: TrainingIdentity
) -> Iterator[str]:
    """The MLflow run of a training: the one that a dead process left open, or a new one. It is closed at the end, failed by an error."""
    run_id = unfinished_run(registry, inputs.name, training.tags) or registry.start_run(
        inputs.name,
        name=" ".join(filter(None, (training.training_date.isoformat(), training.segment))),
        tags={**training.tags, MAKER_TAG: context.run.run_id, SOLUTION_TAG: inputs.name},
    )
    succeeded = False
    try:
        yield run_id
        succeeded = True
    finally:
        registry.finish_run(run_id, succeeded=succeeded)


def version_tags(
    context: dg.AssetExecutionContext, inputs: SolutionInputs, dataset: TrainingDataset, training: TrainingIdentity
) -> dict[str, str]:
    """The tags of a version from the run `context`: its identity, and what else it was made from."""
    return {
        **training.tags,
        ENVIRONMENT_TAG: environment_name(),
        "dagster_run_id": context.run.run_id,
        "lake_snapshot": str(dataset.source_snapshot),
        "feature_views": json.dumps(inputs.view_versions),
        **code_versions(current_project().dbt_manifest),
    }


def describe_version(registry: ModelRegistry, registered: RegisteredModel, inputs: SolutionInputs, words: str) -> None:
    """Describe the version in MLflow by `words`, and its model by the solution's YAML."""
    solution = inputs.solution
    tags = {"problem": solution.problem, "owners": ", ".join(solution.owners), "label": solution.spine.label}
    registry.describe_model(registered, solution=solution.description, version=words, tags=tags)


def log_training_dataset(registry: ModelRegistry, run_id: str, inputs: SolutionInputs, dataset: TrainingDataset) -> None:
    """Record the dataset as the input of the MLflow run."""
    table = inputs.table(TRAINING_DATASET)
    log_dataset(
        registry,
        run_id,
        table=table,
        fingerprint=dataset.fingerprint,
        source={"table": table, "lake_snapshot": dataset.source_snapshot, "feature_views": inputs.view_versions},
        profile={"training_rows": dataset.training_rows, "holdout_rows": dataset.holdout_rows},
    )


def _write(path: Path, inputs: SolutionInputs, fit: ExportedFit, holdout: "pa.Table", registered: RegisteredModel) -> None:
    """Write the bundle of a fit of the version `registered` to the folder `path`."""
    write_model_bundle(
        path,
        inputs,
        schema=fit.schema,
        train=fit.rows,
        sample=parity_sample(inputs, fit.fitted.pipeline, fit.schema, holdout),
        model=fit.exported,
        threshold=fit.fitted.threshold,
        registered=registered,
    )


def _search(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    settings: Settings,
    inputs: SolutionInputs,
    *,
    schema: "FeatureSchema",
    train: "pa.Table",
    dataset: TrainingDataset,
    run_id: str,
) -> "SearchResult | None":
    """The search, if the solution declares one: every trial in the run's log, and in MLflow below `run_id`."""
    search_section, metric = inputs.solution.training.effective_search, inputs.solution.training.metric
    if search_section is None:
        return None
    study = f"{inputs.name}-{dataset.fingerprint}-{current_configuration_hash(inputs, with_budget=False)}"
    logged = logged_trials(registry, run_id)

    def report(trial: "TrialResult", best: "TrialResult") -> None:
        value = trial.state if trial.value is None else f"{metric} {trial.value:.5f}"
        context.log.info(
            f"Trial {trial.ordinal + 1} of {search_section.trials}: {value} in {trial.seconds:.1f} s, best {best.value:.5f} "
            f"(trial {best.ordinal + 1}), {trial.step.class_path.rpartition('.')[2]} {dict(trial.step.parameters)}"
            + (f", {trial.error}" if trial.error else "")
        )
        if trial.ordinal not in logged:
            log_trial(registry, run_id, trial, metric)

    with open_engine(settings.search_engine, settings) as engine:
        return run_search(
            inputs, schema, train, storage=search_storage(settings, study), name=study, report=report, engine=engine
        )


def _log(
    registry: ModelRegistry,
    run_id: str,
    inputs: SolutionInputs,
    served: ExportedFit,
    searched: "SearchResult | None",
    *,
    dataset: TrainingDataset,
    helpful: HelpfulRows,
    precision: Precision,
) -> None:
    """Parameters, metrics, the dataset and the history of the search, with the run behind the version."""
    training, fitted = inputs.solution.training, served.fitted
    registry.log(
        run_id,
        parameters={
            "estimator": fitted.estimator.class_path,
            **{f"estimator.{name}": value for name, value in fitted.estimator.parameters.items()},
            **training.model_dump(mode="json", include={"window", "holdout", "seed", *_options(inputs)}),
            "chosen_threshold": fitted.threshold,
            "refit": inputs.solution.refits,
            "histories": ", ".join(history.name for history in allowed_histories(inputs.solution)),
            "earlier_rows": helpful.earlier,
            "features": len(inputs.features),
            "feature_views": json.dumps(inputs.view_versions),
        },
        metrics={
            "fit_seconds": fitted.seconds,
            "fitted_rows": served.rows.num_rows,
            "training_rows": dataset.training_rows,
            "holdout_rows": dataset.holdout_rows,
            "onnx_rows": precision.rows,
            "onnx_largest_difference": precision.largest_difference,
            "float32_changed": precision.float32_changed,
            "float32_mean_change": precision.float32_mean_change,
            "threshold_objective": fitted.threshold_objective,
            "search_trials": len(searched.trials) if searched else None,
            f"search_best_{training.metric}": searched.best.value if searched else None,
            f"search_default_{training.metric}": searched.default.value if searched else None,
        },
    )
    log_training_dataset(registry, run_id, inputs, dataset)
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


def _described(inputs: SolutionInputs, served: ExportedFit, searched: "SearchResult | None") -> dict[str, Any]:
    """Return the metadata of the fit that serves for the page of the asset."""
    fitted, no_onnx = served.fitted, served.exported.no_onnx
    metadata: dict[str, Any] = {
        "estimator": fitted.estimator.class_path,
        "parameters": dg.MetadataValue.json(dict(fitted.estimator.parameters)),
        "fit_seconds": fitted.seconds,
        "refit": inputs.solution.refits,
        "fitted_rows": served.rows.num_rows,
        "histories": ", ".join(history.name for history in allowed_histories(inputs.solution)),
    }
    if no_onnx is not None:
        metadata["no_onnx"] = no_onnx
    if fitted.threshold is not None:
        metadata["decision_threshold"] = fitted.threshold
    if searched:
        from mlops_assets.ml.figures import markdown_image
        from mlops_assets.ml.search_plot import search_plot, search_table

        metric = inputs.solution.training.metric
        metadata["trials"] = len(searched.trials)
        metadata["search"] = dg.MetadataValue.md(search_table(searched, metric))
        metadata["plot_search"] = dg.MetadataValue.md(markdown_image("search", search_plot(searched, metric)))
    return metadata
