"""The serving bundle of a newly fitted model: its file, the contract of what it reads and answers, and rows to try it with."""

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.clients.registered_model import DATASET_FINGERPRINT_TAG, RegisteredModel
from mlops_assets.stages.inputs import SolutionInputs
from mlops_assets.training.export import ExportedModel

if TYPE_CHECKING:
    import pyarrow as pa
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.matrix import FeatureSchema
    from mlops_assets.serving.sample import Sample

_SAMPLE_ROWS = 20


def write_model_bundle(
    path: Path,
    inputs: SolutionInputs,
    *,
    schema: "FeatureSchema",
    train: "pa.Table",
    sample: "Sample",
    model: ExportedModel,
    threshold: float | None,
    registered: RegisteredModel,
) -> None:
    """Write the bundle of `registered` to the folder `path`; `threshold` is that of a binary problem."""
    from mlops_assets.schema.problem import label_array
    from mlops_assets.serving.bundle import file_hash, write_bundle
    from mlops_assets.serving.contract import Contract, DerivedFeature, FeatureView, RequestColumn, Segment, describe_features

    solution = inputs.solution
    classes: tuple[Any, ...] = ()
    if solution.problem != "regression":
        labels = label_array(train.column(solution.spine.label), solution.problem)
        classes = tuple(sorted(set(labels.tolist())))

    def spine_column(name: str) -> RequestColumn:
        return RequestColumn(name=name, type=inputs.spine.columns[name])

    contract = Contract(
        name=inputs.name,
        version=registered.version,
        problem=solution.problem,
        features=describe_features(train, schema),
        key=spine_column(solution.spine.key),
        entity_keys=tuple(map(spine_column, inputs.entity)),
        prediction_time_column=solution.spine.prediction_time,
        partition_column=solution.partitions.column,
        time_zone=solution.partitions.time_zone,
        classes=classes,
        decision_threshold=threshold,
        dataset_fingerprint=registered.tags[DATASET_FINGERPRINT_TAG],
        feature_views=tuple(
            FeatureView(
                name=chosen.view.name,
                version=chosen.view.version,
                entity=chosen.view.entity,
                features=chosen.features,
                online=chosen.view.online,
            )
            for chosen in inputs.views
        ),
        request_columns=tuple(map(spine_column, inputs.request)),
        derived_features=tuple(DerivedFeature(name=name, expression=text) for name, text in inputs.derived.items()),
        segment=Segment(column=solution.segments.column, value=inputs.segment) if solution.segments and inputs.segment else None,
        origins=dict(schema.origins),
        model_format="onnx" if model.no_onnx is None else "skops",
        no_onnx=model.no_onnx,
        trusted_types=model.trusted_types,
        model_sha256=file_hash(model.content),
        sample_sha256=file_hash(sample.to_bytes()),
        run_id=registered.run_id,
    )
    write_bundle(path, model.content, sample, contract)


def parity_sample(inputs: SolutionInputs, pipeline: "Pipeline", schema: "FeatureSchema", holdout: "pa.Table") -> "Sample":
    """Rows spread evenly over the hold-out, with what the fitted `pipeline` answers."""
    import numpy as np

    from mlops_assets.ml.matrix import categorical_matrix, exact_matrix, to_frame
    from mlops_assets.ml.pipeline import predict
    from mlops_assets.serving.sample import Sample, SampleRow

    positions = np.unique(np.linspace(0, holdout.num_rows - 1, _SAMPLE_ROWS).astype(np.int64))
    rows = holdout.take(positions)
    requests = rows.select(inputs.spine_columns(labelled=False)).to_pylist()
    numeric = exact_matrix(rows, schema.numeric).astype(object)
    numeric[numeric != numeric] = None  # NaN
    features = np.hstack([numeric, categorical_matrix(rows, schema.categorical)])
    answers = np.asarray(predict(pipeline, to_frame(rows, schema), inputs.solution.problem), dtype=np.float64)
    return Sample(
        maximum_difference=inputs.solution.gates.maximum_onnx_difference,
        rows=tuple(
            SampleRow(
                request={name: _json_value(value) for name, value in request.items()},
                features=tuple(values),
                answer=tuple(np.atleast_1d(answer).tolist()),
            )
            for request, values, answer in zip(requests, features.tolist(), answers, strict=True)
        ),
    )


def _json_value(value: Any) -> Any:
    """A value of the spine as a caller would send it."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Decimal():
            return float(value)
        case date():
            return value.isoformat()
    return str(value)
