"""Judging a model on labelled rows: metrics beside a naive baseline, by slice, and the calibration curve.

Pure functions on arrays; which rows are judged is the split's business, and whether the result is good enough the gates'.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mlops_assets.ml.metrics import CALIBRATION_BINS, CalibrationPoint, calibration_curve, compute_metrics
from mlops_assets.ml.problem import Problem


@dataclass(frozen=True)
class SliceResult:
    """The metrics of the rows where `column` has `value`."""

    column: str
    value: str
    rows: int
    metrics: Mapping[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """A model judged on `rows` rows.

    `label_rate` is the share of positives (binary) or None. `baseline` holds the same metrics for a constant prediction:
    the training labels' class shares or mean. `dropped_slices` counts, per slice column, the values with too few rows.
    `calibration` is empty unless the problem is binary.
    """

    problem: Problem
    rows: int
    threshold: float | None
    label_rate: float | None
    metrics: Mapping[str, float | None]
    baseline: Mapping[str, float | None]
    slices: tuple[SliceResult, ...]
    dropped_slices: Mapping[str, int]
    calibration: tuple[CalibrationPoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """The evaluation as plain lists and dictionaries, for JSON."""
        return asdict(self)


def evaluate(
    *,
    problem: Problem,
    labels: np.ndarray,
    predictions: np.ndarray,
    training_labels: np.ndarray,
    classes: tuple[int | str, ...],
    threshold: float,
    slices: pa.Table,
    minimum_slice_rows: int,
) -> Evaluation:
    """Judge `predictions` of `labels`.

    `predictions` are probabilities [rows, classes] of a classifier (as `pipeline.predict` gives them) or values [rows];
    `training_labels` give the baseline; `slices` has one column per slice and the same rows (no columns: no slices).
    `threshold` matters to binary problems alone. Raises ValueError on different lengths, no rows, or a prediction that is
    not a finite number.
    """
    predictions = np.asarray(predictions, dtype=np.float64)
    if problem == "binary_classification" and predictions.ndim == 2:
        predictions = predictions[:, 1]
    if len(labels) == 0:
        raise ValueError("There are no rows to evaluate: widen the hold-out.")
    if len(predictions) != len(labels) or (slices.num_columns and slices.num_rows != len(labels)):
        raise ValueError(
            f"{len(labels)} labels, {len(predictions)} predictions and {slices.num_rows} slice rows must be equally many."
        )
    if not np.isfinite(predictions).all():
        raise ValueError(f"{int((~np.isfinite(predictions)).sum())} predictions are not finite numbers.")
    binary = problem == "binary_classification"
    results, dropped = _by_slice(problem, labels, predictions, classes, threshold, slices, minimum_slice_rows)
    return Evaluation(
        problem=problem,
        rows=len(labels),
        threshold=threshold if binary else None,
        label_rate=float(np.mean(labels)) if binary else None,
        metrics=compute_metrics(problem, labels, predictions, classes, threshold),
        baseline=compute_metrics(problem, labels, _constant(problem, training_labels, classes, len(labels)), classes, threshold),
        slices=results,
        dropped_slices=dropped,
        calibration=calibration_curve(labels, predictions, CALIBRATION_BINS) if binary else (),
    )


def _constant(problem: Problem, training_labels: np.ndarray, classes: Sequence[int | str], rows: int) -> np.ndarray:
    if problem != "multiclass_classification":
        return np.full(rows, float(np.mean(training_labels)))
    shares = [float(np.mean(training_labels == value)) for value in classes]
    return np.tile(shares, (rows, 1))


def _by_slice(
    problem: Problem,
    labels: np.ndarray,
    predictions: np.ndarray,
    classes: tuple[int | str, ...],
    threshold: float,
    slices: pa.Table,
    minimum_rows: int,
) -> tuple[tuple[SliceResult, ...], dict[str, int]]:
    results: list[SliceResult] = []
    dropped: dict[str, int] = {}
    for name in slices.column_names:
        encoded = slices.column(name).cast(pa.string()).fill_null("(missing)").combine_chunks().dictionary_encode()
        values = encoded.dictionary.to_pylist()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(values))
        order = np.argsort(codes, kind="stable")
        groups = np.split(order, np.cumsum(counts)[:-1])
        kept = [position for position in range(len(values)) if counts[position] >= minimum_rows]
        dropped[name] = len(values) - len(kept)
        for position in sorted(kept, key=lambda position: (-counts[position], values[position])):
            rows = groups[position]
            metrics = compute_metrics(problem, labels[rows], predictions[rows], classes, threshold)
            results.append(SliceResult(column=name, value=values[position], rows=len(rows), metrics=metrics))
    return tuple(results), dropped
