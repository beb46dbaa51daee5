"""`model`: a candidate fitted on one training dataset, logged and registered in MLflow with its ONNX serving bundle."""

import hashlib
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlops_assets.assets.execution import RETRIES, partition_date, permanent_failure
from mlops_assets.assets.training_dataset import dataset_query, dataset_rows_query
from mlops_assets.checks import rules
from mlops_assets.inputs import SolutionInputs
from mlops_assets.keys import MODEL, TRAINING_DATASET
from mlops_assets.resources.lake import Lake, fingerprint
from mlops_assets.resources.model_registry import (
    CONFIGURATION_TAG,
    DATASET_FINGERPRINT_TAG,
    TRAINING_DATE_TAG,
    ModelRegistry,
    RegisteredModel,
)
from mlops_assets.solution import Step

if TYPE_CHECKING:
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.ml.onnx import Parity

_PARITY_ROWS = 20_000
_PARITY_TAGS = ("onnx_largest_difference", "onnx_rows")


def build_model(inputs: SolutionInputs) -> dg.AssetsDefinition:
    """The candidate model of one solution; its partition key is the training date."""
    key = inputs.key(MODEL)
    solution = inputs.solution

    @dg.asset(
        key=key,
        description=f"{solution.training.estimator.type.rpartition('.')[2]} fitted on the training dataset, registered as a candidate.",
        owners=solution.owners,
        group_name=inputs.name,
        kinds={"sklearn", "mlflow", "onnx"},
        tags=inputs.tags(MODEL),
        partitions_def=inputs.partitions,
        deps=[inputs.key(TRAINING_DATASET)],
        check_specs=[rules.ONNX_PARITY.spec(key)],
        retry_policy=RETRIES,
        pool="training",
        code_version="1",
    )
    def model(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], registry: dg.ResourceParam[ModelRegistry]
    ) -> dg.MaterializeResult:
        training_date = partition_date(context)
        with lake.connect(read_only=True) as connection:
            dataset_fingerprint = fingerprint(connection, dataset_query(inputs, training_date))
            train = connection.execute(dataset_rows_query(inputs, training_date, "train")).to_arrow_table()
            holdout = connection.execute(dataset_rows_query(inputs, training_date, "holdout")).to_arrow_table()
        if not train.num_rows or not holdout.num_rows:
            raise permanent_failure(f"The training dataset of {training_date} has no rows to train or to evaluate on.")
        tags = {
            TRAINING_DATE_TAG: training_date.isoformat(),
            DATASET_FINGERPRINT_TAG: dataset_fingerprint,
            CONFIGURATION_TAG: configuration_hash(inputs),
        }
        registered = registry.find(inputs.name, tags)
        reused = registered is not None
        if registered is None:
            context.log.info(f"Fitting on {train.num_rows} rows and {len(inputs.features)} features")
            registered = _train(context, registry, inputs, train=train, holdout=holdout, tags=tags)
        difference, rows = (float(registered.tags[tag]) for tag in _PARITY_TAGS)
        limit = solution.gates.maximum_onnx_difference
        return dg.MaterializeResult(
            data_version=dg.DataVersion(f"{dataset_fingerprint}-{tags[CONFIGURATION_TAG]}"),
            metadata={
                "model_version": registered.version,
                "run_id": registered.run_id,
                "reused": reused,
                "mlflow": dg.MetadataValue.url(registry.version_url(registered)),
                "dataset_fingerprint": dataset_fingerprint,
                "training_rows": train.num_rows,
                "holdout_rows": holdout.num_rows,
                "features": len(inputs.features),
            },
            check_results=[
                rules.ONNX_PARITY.result(
                    key,
                    passed=difference <= limit,
                    metadata={"largest_difference": difference, "limit": limit, "rows": int(rows)},
                    description=None if difference <= limit else "the serving bundle predicts something else than the model",
                )
            ],
        )

    return model


def configuration_hash(inputs: SolutionInputs) -> str:
    """16 hexadecimal digits of all that decides a model besides its data: training section, features, view versions, packages."""
    from importlib.metadata import version

    content = {
        "training": inputs.solution.training.model_dump(mode="json"),
        "problem": inputs.solution.problem,
        "features": inputs.features,
        "views": inputs.view_versions,
        "packages": {name: version(name) for name in ("scikit-learn", "skl2onnx")},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _train(
    context: dg.AssetExecutionContext,
    registry: ModelRegistry,
    inputs: SolutionInputs,
    *,
    train: "pa.Table",
    holdout: "pa.Table",
    tags: dict[str, str],
) -> RegisteredModel:
    from mlops_assets.ml.matrix import FeatureSchema, to_frame
    from mlops_assets.ml.onnx import parity, to_onnx

    solution = inputs.solution
    run_id = registry.start_run(
        inputs.name, name=tags[TRAINING_DATE_TAG], tags={**tags, "dagster_run_id": context.run.run_id, "solution": inputs.name}
    )
    succeeded = False
    try:
        schema = FeatureSchema.from_arrow(train.schema, inputs.features)
        pipeline, seconds = _fit(inputs, schema, train)
        exported = to_onnx(pipeline, schema, solution.problem)
        sample = to_frame(holdout.slice(0, _PARITY_ROWS), schema)
        compared = parity(pipeline, exported, sample, schema, solution.problem)
        registry.log(
            run_id,
            parameters=_parameters(inputs, schema),
            metrics={
                "fit_seconds": seconds,
                "training_rows": train.num_rows,
                "holdout_rows": holdout.num_rows,
                "onnx_largest_difference": _difference(compared),
            },
        )
        version_tags = {**tags, "dagster_run_id": context.run.run_id}
        version_tags |= dict(zip(_PARITY_TAGS, (str(_difference(compared)), str(len(sample))), strict=True))
        registered = registry.register(inputs.name, run_id, pipeline, version_tags)
        with tempfile.TemporaryDirectory() as folder:
            _write_bundle(Path(folder) / "bundle", inputs, schema=schema, train=train, model=exported, registered=registered)
            registry.log_bundle(registered, Path(folder) / "bundle")
        succeeded = True
    finally:
        registry.finish_run(run_id, succeeded=succeeded)
    return registered


def _difference(compared: "Parity") -> float:
    """Relative where predictions are large, so that one limit suits probabilities and values."""
    return compared.largest_relative_difference


def _fit(inputs: SolutionInputs, schema: "FeatureSchema", train: "pa.Table") -> "tuple[Pipeline, float]":
    from mlops_assets.ml.matrix import to_frame
    from mlops_assets.ml.pipeline import build_pipeline, fit_pipeline
    from mlops_assets.ml.problem import label_array

    training = inputs.solution.training
    pipeline = build_pipeline(
        problem=inputs.solution.problem,
        schema=schema,
        estimator=_step(training.estimator),
        numeric=None if training.preprocessing.numeric is None else [_step(each) for each in training.preprocessing.numeric],
        categorical=None
        if training.preprocessing.categorical is None
        else [_step(each) for each in training.preprocessing.categorical],
        seed=training.seed,
    )
    labels = label_array(train.column(inputs.solution.spine.label), inputs.solution.problem)
    started = time.perf_counter()
    fit_pipeline(pipeline, to_frame(train, schema), labels)
    return pipeline, time.perf_counter() - started


def _step(declared: Step) -> Any:
    from mlops_assets.ml.pipeline import Step as PipelineStep

    return PipelineStep(class_path=declared.type, parameters=declared.parameters)


def _parameters(inputs: SolutionInputs, schema: "FeatureSchema") -> dict[str, Any]:
    training = inputs.solution.training
    return {
        "estimator": training.estimator.type,
        **{f"estimator.{name}": value for name, value in training.estimator.parameters.items()},
        "window": training.window,
        "holdout": training.holdout,
        "seed": training.seed,
        "numeric_features": len(schema.numeric),
        "categorical_features": len(schema.categorical),
        "feature_views": json.dumps(inputs.view_versions),
    }


def _write_bundle(
    path: Path,
    inputs: SolutionInputs,
    *,
    schema: "FeatureSchema",
    train: "pa.Table",
    model: bytes,
    registered: RegisteredModel,
) -> None:
    from mlops_assets.ml.problem import label_array
    from mlops_assets.serving.bundle import model_hash, write_bundle
    from mlops_assets.serving.contract import Contract, FeatureView, describe_features

    solution = inputs.solution
    classes: tuple[Any, ...] = ()
    if solution.problem != "regression":
        labels = label_array(train.column(solution.spine.label), solution.problem)
        classes = tuple(sorted(set(labels.tolist())))
    contract = Contract(
        name=inputs.name,
        version=registered.version,
        problem=solution.problem,
        features=describe_features(train, schema),
        entity_keys=inputs.entity,
        prediction_time_column=solution.spine.prediction_time,
        classes=classes,
        decision_threshold=solution.training.decision_threshold if solution.problem == "binary_classification" else None,
        dataset_fingerprint=registered.tags[DATASET_FINGERPRINT_TAG],
        feature_views=tuple(FeatureView(name=name, version=version) for name, version in inputs.view_versions.items()),
        model_sha256=model_hash(model),
        run_id=registered.run_id,
    )
    write_bundle(path, model, contract)
