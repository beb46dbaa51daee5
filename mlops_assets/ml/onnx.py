"""Export of a fitted pipeline to ONNX, and the proof that both give the same predictions.

The exported model has the inputs `numeric` (float32 [rows, k]) and `categorical` (string [rows, m]); an input without
columns is left out. A classifier answers with `label` and `probabilities` (float32 [rows, classes]), a regressor with `value`.
"""

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.ml.calibration import Curve, append_curve
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline import ESTIMATOR_STEP, fitted_steps, predict
from mlops_assets.ml.problem import Problem

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    from sklearn.pipeline import Pipeline

NUMERIC_INPUT = "numeric"
CATEGORICAL_INPUT = "categorical"
LABEL_OUTPUT = "label"
PROBABILITIES_OUTPUT = "probabilities"
VALUE_OUTPUT = "value"

_OPERATOR_SETS = {"": 18, "ai.onnx.ml": 3}


@dataclass(frozen=True)
class Parity:
    """How far the ONNX model is from the pipeline on `rows` rows.

    `largest_difference` is absolute (a probability, or the label's unit); `largest_relative_difference` divides it by the
    pipeline's prediction where that is over 1.
    """

    rows: int
    largest_difference: float
    largest_relative_difference: float


def to_onnx(pipeline: "Pipeline", schema: FeatureSchema, problem: Problem) -> bytes:
    """The fitted `pipeline` as a serialised ONNX model; equal pipelines give equal bytes."""
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    exportable, curve = _without_calibration(copy.deepcopy(pipeline))
    _lower_thresholds(exportable)
    inputs = []
    if schema.numeric:
        inputs.append((NUMERIC_INPUT, FloatTensorType([None, len(schema.numeric)])))
    if schema.categorical:
        inputs.append((CATEGORICAL_INPUT, StringTensorType([None, len(schema.categorical)])))
    options = {} if problem == "regression" else {id(exportable.named_steps[ESTIMATOR_STEP]): {"zipmap": False}}
    # A name of its own: the default one is random, and equal models would differ in their hash.
    model = convert_sklearn(exportable, name="model", initial_types=inputs, options=options, target_opset=_OPERATOR_SETS)
    _rename_outputs(model, [VALUE_OUTPUT] if problem == "regression" else [LABEL_OUTPUT, PROBABILITIES_OUTPUT])
    if curve is not None:
        append_curve(model, curve, label=LABEL_OUTPUT, probabilities=PROBABILITIES_OUTPUT)
    return model.SerializeToString()


def onnx_predict(model: bytes, frame: "pd.DataFrame", schema: FeatureSchema, problem: Problem) -> np.ndarray:
    """Probabilities [rows, classes] or values [rows] of the ONNX `model` for a frame from `matrix.to_frame`."""
    from onnxruntime import InferenceSession

    session = InferenceSession(model, providers=["CPUExecutionProvider"])
    inputs: dict[str, np.ndarray] = {}
    if schema.numeric:
        inputs[NUMERIC_INPUT] = frame[list(schema.numeric)].to_numpy(dtype=np.float32)
    if schema.categorical:
        inputs[CATEGORICAL_INPUT] = frame[list(schema.categorical)].to_numpy(dtype=object)
    if problem == "regression":
        return session.run([VALUE_OUTPUT], inputs)[0].reshape(-1)
    return session.run([PROBABILITIES_OUTPUT], inputs)[0]


def parity(pipeline: "Pipeline", model: bytes, frame: "pd.DataFrame", schema: FeatureSchema, problem: Problem) -> Parity:
    """Compare the predictions of `pipeline` and of the ONNX `model` on every row of `frame`.

    A prediction that is NaN on one side only counts as an infinite difference. Raises ValueError on an empty frame.
    """
    if frame.empty:
        raise ValueError("Parity needs at least one row.")
    expected = np.asarray(predict(pipeline, frame, problem), dtype=np.float64).reshape(len(frame), -1)
    actual = np.asarray(onnx_predict(model, frame, schema, problem), dtype=np.float64).reshape(len(frame), -1)
    if expected.shape != actual.shape:
        raise ValueError(f"The pipeline answers with shape {expected.shape}, the ONNX model with {actual.shape}.")
    both_missing = np.isnan(expected) & np.isnan(actual)
    difference = np.where(both_missing, 0.0, np.nan_to_num(np.abs(expected - actual), nan=np.inf))
    relative = difference / np.maximum(1.0, np.nan_to_num(np.abs(expected), nan=1.0))
    return Parity(rows=len(frame), largest_difference=float(difference.max()), largest_relative_difference=float(relative.max()))


def _without_calibration(pipeline: "Pipeline") -> "tuple[Pipeline, Curve | None]":
    """The pipeline with the estimator that a CalibratedClassifier holds in its place, and the calibration curve."""
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.estimators.calibrated import CalibratedClassifier

    last = pipeline.named_steps[ESTIMATOR_STEP]
    if not isinstance(last, CalibratedClassifier):
        return pipeline, None
    return Pipeline([*pipeline.steps[:-1], (ESTIMATOR_STEP, last.estimator)]), last.curve


def _lower_thresholds(pipeline: "Pipeline") -> None:
    """Round the thresholds of histogram gradient boosting down to float32, in place.

    Its trees compare a float32 feature with a float64 midpoint: `x <= t` is the same as `x <= floor32(t)`, but rounding
    to nearest, as the export does, can move the threshold onto the next feature value and send that value the other way.
    """
    for step in fitted_steps(pipeline):
        for iteration in getattr(step, "_predictors", ()):
            for tree in iteration:
                exact = tree.nodes["num_threshold"]
                rounded = exact.astype(np.float32)
                too_high = rounded.astype(np.float64) > exact
                rounded[too_high] = np.nextafter(rounded[too_high], np.float32(-np.inf))
                tree.nodes["num_threshold"] = rounded


def _rename_outputs(model: "onnx.ModelProto", names: list[str]) -> None:
    graph = model.graph
    if len(graph.output) != len(names):
        raise ValueError(f"The exported model has the outputs {[output.name for output in graph.output]}, expected {names}.")
    renamed = dict(zip([output.name for output in graph.output], names, strict=True))
    taken = {name for node in graph.node for name in (*node.input, *node.output)} - set(renamed)
    for node in graph.node:
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                if name in renamed:
                    values[position] = renamed[name]
                elif name in names and name in taken:
                    values[position] = f"inner_{name}"
    for output in graph.output:
        output.name = renamed[output.name]
