"""Export of a fitted pipeline to ONNX, and the proof that both give the same predictions.

The exported model has the inputs `numeric` (float32 [rows, k]) and `categorical` (string [rows, m]); an input without
columns is left out. A classifier answers with `label` and `probabilities` (float32 [rows, classes]), a regressor with `value`.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlops_assets.ml.boosting_libraries import floor32, lower_thresholds, register_converters
from mlops_assets.ml.calibration import Curve, append_curve
from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.pipeline import ESTIMATOR_STEP, fitted_steps, predict
from mlops_assets.ml.pipeline_steps import TrainingError, class_path, explained
from mlops_assets.ml.skops_model import SkopsModel
from mlops_assets.schema.problem import Problem

if TYPE_CHECKING:
    import onnx
    import pandas as pd
    from sklearn.pipeline import Pipeline

NUMERIC_INPUT = "numeric"
CATEGORICAL_INPUT = "categorical"
LABEL_OUTPUT = "label"
PROBABILITIES_OUTPUT = "probabilities"
VALUE_OUTPUT = "value"

_ANOTHER_CLASS = "Name another class in training.estimator or training.preprocessing, or other parameters."

_UNSEEN = "a category that no training row has"
_OPERATOR_SETS = {"": 18, "ai.onnx.ml": 3}


class NoOnnxFormError(TrainingError):
    """A fitted pipeline that ONNX cannot express; the message names the class and the reason."""


@dataclass(frozen=True)
class Parity:
    """The distance of the served model from the pipeline on `rows` rows.

    `largest_difference` is absolute (a probability, or the label's unit); `largest_relative_difference` divides it by the
    pipeline's prediction where that is over 1.
    """

    rows: int
    largest_difference: float
    largest_relative_difference: float


@dataclass(frozen=True)
class Rounding:
    """The cost of numbers as float32, which the ONNX model reads: the share of predictions that change, and the mean change of all.

    Changes are relative as in `Parity`.
    """

    changed_share: float
    mean_change: float


def to_onnx(pipeline: "Pipeline", schema: FeatureSchema, problem: Problem) -> bytes:
    """The fitted `pipeline` as a serialised ONNX model; equal pipelines give equal bytes.

    Raises NoOnnxFormError, naming the class, when a step has no export, or its export does not answer rows that training did not see.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType, StringTensorType

    exportable, curve = _without_calibration(copy.deepcopy(pipeline))
    register_converters(fitted_steps(exportable))
    _require_converters(exportable)
    _lower_thresholds(exportable)
    inputs = []
    if schema.numeric:
        inputs.append((NUMERIC_INPUT, FloatTensorType([None, len(schema.numeric)])))
    if schema.categorical:
        inputs.append((CATEGORICAL_INPUT, StringTensorType([None, len(schema.categorical)])))
    options = {} if problem == "regression" else {id(exportable.named_steps[ESTIMATOR_STEP]): {"zipmap": False}}
    # A name of its own: the default one is random, and equal models would differ in their hash.
    steps = ", ".join(map(class_path, fitted_steps(exportable)))
    with _no_form(f"The pipeline of {steps} cannot be exported to ONNX"):
        model = convert_sklearn(exportable, name="model", initial_types=inputs, options=options, target_opset=_OPERATOR_SETS)
        _drop_unused(model)
        _rename_outputs(model, [VALUE_OUTPUT] if problem == "regression" else [LABEL_OUTPUT, PROBABILITIES_OUTPUT])
    if curve is not None:
        append_curve(model, curve, label=LABEL_OUTPUT, probabilities=PROBABILITIES_OUTPUT)
    exported = model.SerializeToString()
    with _no_form(f"The ONNX model of {steps} does not answer a row of missing and unseen values"):
        onnx_predict(exported, unseen_row(schema), schema, problem)
    return exported


@contextmanager
def _no_form(problem: str) -> Iterator[None]:
    try:
        with explained(problem, _ANOTHER_CLASS):
            yield
    except NoOnnxFormError:
        raise
    except TrainingError as error:
        raise NoOnnxFormError(str(error)) from error


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


def measure_parity(
    pipeline: "Pipeline", model: bytes | SkopsModel, frame: "pd.DataFrame", schema: FeatureSchema, problem: Problem
) -> Parity:
    """Compare the predictions of `pipeline` and of the served `model`, ONNX or skops, on every row of `frame`.

    A prediction that is NaN on one side only counts as an infinite difference. Raises ValueError on an empty frame.
    """
    if frame.empty:
        raise ValueError("Parity needs at least one row.")
    difference, relative = _differences(_pipeline_predictions(pipeline, frame, problem), _answers(model, frame, schema, problem))
    return Parity(rows=len(frame), largest_difference=float(difference.max()), largest_relative_difference=float(relative.max()))


def measure_rounding(
    pipeline: "Pipeline", model: bytes | SkopsModel, frame: "pd.DataFrame", schema: FeatureSchema, problem: Problem, limit: float
) -> Rounding:
    """Compare the served `model` with `pipeline`, which is given the float64 numbers of `matrix.to_exact_frame`.

    A prediction has changed when it differs by more than `limit` from those for the exact numbers and for numbers half a unit of the last
    place of float32 below and above. A threshold of a tree often is a number of the training rows, rounded as they were: the
    exact number may be just beyond it, and goes the way that it went in training only from half a unit away.
    """
    answers = _answers(model, frame, schema, problem)
    changes = [
        _differences(_pipeline_predictions(pipeline, _moved(frame, schema, units), problem), answers)[1].max(axis=1)
        for units in (0.0, -0.5, 0.5)
    ]
    smallest = np.min(changes, axis=0)
    return Rounding(changed_share=float((smallest > limit).mean()), mean_change=float(smallest.mean()))


def _moved(frame: "pd.DataFrame", schema: FeatureSchema, units: float) -> "pd.DataFrame":
    """`frame` with its numbers moved by `units` of the last place that they have as float32; infinite ones stay."""
    if not units:
        return frame
    numbers = frame[list(schema.numeric)].to_numpy(dtype=np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        unit = np.spacing(np.abs(numbers).astype(np.float32)).astype(np.float64)
    moved = numbers + units * np.nan_to_num(unit)
    return frame.assign(**{name: moved[:, position] for position, name in enumerate(schema.numeric)})


def _pipeline_predictions(pipeline: "Pipeline", frame: "pd.DataFrame", problem: Problem) -> np.ndarray:
    """Predictions [rows, classes or 1] of the pipeline."""
    return np.asarray(predict(pipeline, frame, problem), dtype=np.float64).reshape(len(frame), -1)


def _answers(model: bytes | SkopsModel, frame: "pd.DataFrame", schema: FeatureSchema, problem: Problem) -> np.ndarray:
    """Predictions [rows, classes or 1] of the served model."""
    if isinstance(model, SkopsModel):
        with np.errstate(over="ignore"):
            numbers = frame[list(schema.numeric)].to_numpy(dtype=np.float64).astype(np.float32)
        return model.predict(numbers, frame[list(schema.categorical)].to_numpy(dtype=object)).astype(np.float64)
    with explained("The exported ONNX model does not predict", _ANOTHER_CLASS):
        return np.asarray(onnx_predict(model, frame, schema, problem), dtype=np.float64).reshape(len(frame), -1)


def _differences(expected: np.ndarray, actual: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Absolute and relative differences of predictions. Raises ValueError when there are more classes on one side."""
    if expected.shape != actual.shape:
        raise ValueError(f"The pipeline answers with shape {expected.shape}, the served model with {actual.shape}.")
    both_missing = np.isnan(expected) & np.isnan(actual)
    difference = np.where(both_missing, 0.0, np.nan_to_num(np.abs(expected - actual), nan=np.inf))
    return difference, difference / np.maximum(1.0, np.nan_to_num(np.abs(expected), nan=1.0))


def _require_converters(pipeline: "Pipeline") -> None:
    """Raise NoOnnxFormError for the first step whose class nobody can export."""
    from skl2onnx._supported_operators import sklearn_operator_name_map

    for step in fitted_steps(pipeline):
        if not any(kind in sklearn_operator_name_map for kind in type(step).__mro__) and not hasattr(step, "to_onnx_operator"):
            raise NoOnnxFormError(
                f"{class_path(step)} cannot be exported to ONNX: skl2onnx has no converter of this class. {_ANOTHER_CLASS}"
            )


def unseen_row(schema: FeatureSchema) -> "pd.DataFrame":
    """A row that no training row is like, as requests may bring one."""
    import pandas as pd

    texts = pd.DataFrame([[_UNSEEN] * len(schema.categorical)], columns=list(schema.categorical), dtype=object)
    numbers = np.full((1, len(schema.numeric)), np.nan, dtype=np.float32)
    return pd.concat([pd.DataFrame(numbers, columns=list(schema.numeric)), texts], axis=1)


def _without_calibration(pipeline: "Pipeline") -> "tuple[Pipeline, Curve | None]":
    """The pipeline with the estimator that a CalibratedClassifier holds in its place, and the calibration curve."""
    from sklearn.pipeline import Pipeline

    from mlops_assets.ml.estimators.calibrated import CalibratedClassifier

    last = pipeline.named_steps[ESTIMATOR_STEP]
    if not isinstance(last, CalibratedClassifier):
        return pipeline, None
    return Pipeline([*pipeline.steps[:-1], (ESTIMATOR_STEP, last.estimator)]), last.curve


def _lower_thresholds(pipeline: "Pipeline") -> None:
    """Round the thresholds of gradient boosting by histograms down to float32, in place.

    Its trees compare a float32 feature with a float64 midpoint: `x <= t` is the same as `x <= floor32(t)`, but rounding
    to nearest, as the export does, can move the threshold onto the next feature value and send that value the other way.
    """
    for step in fitted_steps(pipeline):
        for iteration in getattr(step, "_predictors", ()):
            for tree in iteration:
                tree.nodes["num_threshold"] = floor32(tree.nodes["num_threshold"])
        lower_thresholds(step)


def _drop_unused(model: "onnx.ModelProto") -> None:
    """Remove the constants that no operator reads: the export of an average leaves one, and the runtime warns of it."""
    read = {name for node in model.graph.node for name in node.input} | {output.name for output in model.graph.output}
    kept = [constant for constant in model.graph.initializer if constant.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _rename_outputs(model: "onnx.ModelProto", names: list[str]) -> None:
    graph = model.graph
    if len(graph.output) != len(names):
        raise ValueError(f"The exported model has the outputs {[output.name for output in graph.output]}, expected {names}.")
    renamed = dict(zip([output.name for output in graph.output], names, strict=True))
    used_names = {name for node in graph.node for name in (*node.input, *node.output)} - set(renamed)
    for node in graph.node:
        for values in (node.input, node.output):
            for position, name in enumerate(values):
                if name in renamed:
                    values[position] = renamed[name]
                elif name in names and name in used_names:
                    values[position] = f"inner_{name}"
    for output in graph.output:
        output.name = renamed[output.name]
