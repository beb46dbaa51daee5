"""The performance of predictions whose labels are not known yet, estimated by NannyML from the reference.

Classification: CBPE, confidence-based performance estimation (probabilities, calibrated on the reference, say how many predictions are right).
Regression: DLE, direct loss estimation (a second model, fitted on the reference, predicts the error of a row). Neither sees a change of what the
features mean for the label: the realised performance does, later. Both are fitted anew from the stored hold-out, which takes less than a second.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.matrix import FeatureSchema
from mlops_assets.ml.nannyml_adapter import feature_columns, feature_frame, import_nannyml, index_chunker, without_warnings
from mlops_assets.schema.column_names import internal
from mlops_assets.schema.problem import Problem

if TYPE_CHECKING:
    import pandas as pd

_NAMES: Mapping[Problem, Mapping[str, str]] = {
    "binary_classification": {name: name for name in ("roc_auc", "average_precision", "accuracy", "precision", "recall", "f1")},
    "multiclass_classification": {name: name for name in ("roc_auc", "accuracy")},
    "regression": {"mean_absolute_error": "mae", "root_mean_squared_error": "rmse"},
}

_SLOW = "average_precision"
"""Its standard error comes from a bootstrap of the reference, which takes longer than all other metrics together."""

_LABEL, _PREDICTED = internal("label"), internal("predicted")


@dataclass(frozen=True)
class Estimate:
    """An estimated metric with its bounds: three standard errors of a sample of this size to either side."""

    value: float
    lower: float
    upper: float


@dataclass(frozen=True)
class PredictionChunk:
    """Predictions of one chunk: the features (regression reads them), and the columns `score`, `predicted_label`, `probabilities` or `value`."""

    name: tuple[str, str]
    table: pa.Table


def estimated_metrics(problem: Problem, selection: str) -> tuple[str, ...]:
    """The metrics of `problem` that are estimated; a slow one only when it is `selection`, the metric that models are chosen by."""
    return tuple(name for name in _NAMES[problem] if name == selection or name != _SLOW)


def estimate_metrics(
    problem: Problem,
    *,
    reference: pa.Table,
    label: str,
    chunks: Sequence[PredictionChunk],
    schema: FeatureSchema,
    classes: Sequence[int | str],
    metrics: Sequence[str],
) -> dict[tuple[tuple[str, str], str], Estimate]:
    """Estimates by name of the chunk and metric (of `estimated_metrics`); a metric that a chunk does not define is left out.

    `reference` is the scored hold-out with the column `label`.
    """
    names = {metric: _NAMES[problem][metric] for metric in metrics}
    if problem == "regression":
        estimator, frame = _loss_estimator(schema, list(names.values())), _loss_frame
    else:
        estimator, frame = _confidence_estimator(problem, classes, list(names.values())), _confidence_frame
    known = frame([reference], schema, classes)
    known[_LABEL] = _labels(reference.column(label), problem)
    with without_warnings():
        result = estimator.fit(known).estimate(frame([chunk.table for chunk in chunks], schema, classes))
    data = result.data[result.data[("chunk", "period")] == "analysis"]
    estimates = {}
    for metric, column in names.items():
        cells = data[column]
        bounds = [name for name in ("lower_confidence_boundary", "upper_confidence_boundary") if name in cells]
        for chunk, value, lower, upper in zip(chunks, cells["value"], *(cells[name] for name in bounds), strict=True):
            if not math.isnan(value):
                estimates[chunk.name, metric] = Estimate(float(value), float(lower), float(upper))
    return estimates


def _confidence_estimator(problem: Problem, classes: Sequence[int | str], metrics: list[str]) -> Any:
    binary = problem == "binary_classification"
    return import_nannyml().CBPE(
        metrics=metrics,
        y_pred_proba="score" if binary else {str(value): _probability(value) for value in classes},
        y_pred=_PREDICTED,
        y_true=_LABEL,
        problem_type="classification_binary" if binary else "classification_multiclass",
        chunker=index_chunker(),
    )


def _loss_estimator(schema: FeatureSchema, metrics: list[str]) -> Any:
    return import_nannyml().DLE(
        feature_column_names=feature_columns(schema),
        y_pred=_PREDICTED,
        y_true=_LABEL,
        metrics=metrics,
        chunker=index_chunker(),
        # One thread: on a busy machine LightGBM's threads wait for each other a hundred times longer than they compute.
        hyperparameters={"verbosity": -1, "n_jobs": 1},
    )


def _confidence_frame(tables: Sequence[pa.Table], schema: FeatureSchema, classes: Sequence[int | str]) -> "pd.DataFrame":
    import pandas as pd

    rows = pa.concat_tables([table.select(_outputs(table)) for table in tables])
    columns: dict[str, Any] = {}
    if "probabilities" in rows.column_names:
        flat = rows.column("probabilities").combine_chunks()
        matrix = np.asarray(flat.flatten(), dtype=np.float64).reshape(rows.num_rows, -1)
        columns = {_probability(value): matrix[:, position] for position, value in enumerate(classes)}
        columns[_PREDICTED] = rows.column("predicted_label").cast(pa.string()).to_numpy()
    else:
        columns = {"score": rows.column("score").cast(pa.float64()).to_numpy()}
        columns[_PREDICTED] = rows.column("predicted_label").cast(pa.int64()).to_numpy()
    return pd.DataFrame(columns, index=np.repeat(np.arange(len(tables)), [table.num_rows for table in tables]))


def _loss_frame(tables: Sequence[pa.Table], schema: FeatureSchema, classes: Sequence[int | str]) -> "pd.DataFrame":
    frame = feature_frame(tables, schema)
    frame[_PREDICTED] = np.concatenate([table.column("value").cast(pa.float64()).to_numpy() for table in tables])
    return frame


def _labels(column: pa.ChunkedArray, problem: Problem) -> np.ndarray:
    kind = {"binary_classification": pa.int64(), "multiclass_classification": pa.string(), "regression": pa.float64()}[problem]
    return column.cast(kind).to_numpy()


def _outputs(table: pa.Table) -> list[str]:
    return [name for name in ("score", "predicted_label", "probabilities") if name in table.column_names]


def _probability(value: int | str) -> str:
    return f"probability of {value}"
