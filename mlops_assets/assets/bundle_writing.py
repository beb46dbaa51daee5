"""The serving bundle of a newly fitted model: its ONNX file, and the contract of what it reads and answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlops_assets.inputs import SolutionInputs
from mlops_assets.resources.model_registry import DATASET_FINGERPRINT_TAG, RegisteredModel

if TYPE_CHECKING:
    import pyarrow as pa

    from mlops_assets.ml.matrix import FeatureSchema


def write_model_bundle(
    path: Path,
    inputs: SolutionInputs,
    *,
    schema: "FeatureSchema",
    train: "pa.Table",
    model: bytes,
    threshold: float | None,
    registered: RegisteredModel,
) -> None:
    """Write the bundle of `registered` to the folder `path`; `threshold` is that of a binary problem."""
    from mlops_assets.ml.problem import label_array
    from mlops_assets.serving.bundle import model_hash, write_bundle
    from mlops_assets.serving.contract import Contract, DerivedFeature, FeatureView, RequestColumn, describe_features

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
        decision_threshold=threshold,
        dataset_fingerprint=registered.tags[DATASET_FINGERPRINT_TAG],
        feature_views=tuple(FeatureView(name=name, version=version) for name, version in inputs.view_versions.items()),
        request_columns=tuple(RequestColumn(name=name, type=inputs.spine.columns[name]) for name in inputs.request),
        derived_features=tuple(DerivedFeature(name=name, expression=text) for name, text in inputs.derived.items()),
        model_sha256=model_hash(model),
        run_id=registered.run_id,
    )
    write_bundle(path, model, contract)
